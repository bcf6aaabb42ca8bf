"""One checkpoint, one file: tensors and JSON state in safetensors, written aside and renamed, with its own digest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lib.files import write_atomically


class Checkpoint(NamedTuple):
    tensors: dict[str, Tensor]
    state: dict[str, Any]  # plain JSON: step, history, seconds


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and state as one file that is either the old checkpoint or the whole new one."""
    # A copy: pairs such as tied weights may share memory, which safetensors refuses.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # Not canonical: the order of a row's columns and nan must come back as they were.
    text = json.dumps(state, ensure_ascii=False)
    write_atomically(path, save(tensors, {"state": text, "sha256": _digest(tensors, text)}))


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint | None:
    """The checkpoint at `path`; None when there is none or when its bytes are damaged (then the run starts anew)."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (FileNotFoundError, SafetensorError, OSError):
        return None
    text = metadata.get("state", "")
    if metadata.get("sha256") != _digest(tensors, text):
        return None
    return Checkpoint({name: tensor.to(device) for name, tensor in tensors.items()}, json.loads(text))


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def training_tensors(**parts: nn.Module | torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor that training changes, under flat names: `model/encoder_in.weight`, `optimizer/0.sum`.

    The tensors are the live ones, so `restore_` can copy into them.
    """
    tensors: dict[str, Tensor] = {}
    for part, value in parts.items():
        if isinstance(value, nn.Module):
            tensors.update({f"{part}/{name}": tensor for name, tensor in value.state_dict(keep_vars=True).items()})
            continue
        parameters = [parameter for group in value.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters):
            slots = value.state[parameter]
            tensors.update({f"{part}/{index}.{slot}": slots[slot] for slot in sorted(slots)})
    return tensors


@torch.no_grad()
def restore_(live: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy a checkpoint's tensors into the live ones. Raises KeyError where names or shapes differ.

    An optimiser that makes its state at its first step (Adam) has no live tensors yet: take one step first.
    """
    if live.keys() != saved.keys():
        raise KeyError(f"checkpoint and model differ in {sorted(live.keys() ^ saved.keys())}")
    for name, tensor in live.items():
        if tensor.shape != saved[name].shape:
            raise KeyError(
                f"{name} is {tuple(saved[name].shape)} in the checkpoint, {tuple(tensor.shape)} in the model"
            )
        tensor.copy_(saved[name])
