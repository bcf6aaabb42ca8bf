"""A checkpoint is exact or it is none: no bit flip, cut or interruption ever gives a wrong one."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib.training.checkpoints import load_checkpoint, restore_, save_checkpoint, training_tensors

Parts = dict[str, nn.Module | torch.optim.Optimizer]
STATE: dict[str, Any] = {
    "step": 3,
    "history": [{"samples": 300, "elbo": -0.1 - 0.2}, {"samples": 600, "elbo": -1e-320}],
    "seconds": 1 / 3,
    "note": "ü",
}


def parts(seed: int = 0, steps: int = 3, optimizer: type[torch.optim.Optimizer] = torch.optim.Adagrad) -> Parts:
    """A small network with a buffer, trained for some steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    optimiser = optimizer(model.parameters(), lr=0.1)  # type: ignore[call-arg]
    for _ in range(steps):
        train_one_step(model, optimiser)
    return {"model": model, "optimizer": optimiser}


def train_one_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(5, 4, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    optimizer.step()


def tensors_of(some: Parts) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in training_tensors(**some).items()}


def assert_equal_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, training_tensors(**parts()), STATE)
    return path


@pytest.mark.parametrize("optimizer", [torch.optim.Adagrad, torch.optim.Adam])
def test_round_trip_is_exact_and_training_goes_on_in_the_same_bits(
    tmp_path: Path, optimizer: type[torch.optim.Optimizer]
) -> None:
    undisturbed = parts(steps=3, optimizer=optimizer)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, training_tensors(**undisturbed), STATE)
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded.state == STATE
    assert_equal_bits(loaded.tensors, tensors_of(undisturbed))

    resumed = parts(seed=99, steps=1, optimizer=optimizer)
    restore_(training_tensors(**resumed), loaded.tensors)
    for some in (undisturbed, resumed):
        train_one_step(some["model"], some["optimizer"])  # type: ignore[arg-type]
    assert_equal_bits(tensors_of(resumed), tensors_of(undisturbed))


def test_all_that_training_changes_is_named(written: Path) -> None:
    loaded = load_checkpoint(written)
    assert loaded is not None
    names = set(loaded.tensors)
    assert {"model/0.weight", "model/1.running_var", "model/1.num_batches_tracked", "model/2.bias"} <= names
    assert {f"optimizer/{i}.{slot}" for i in range(6) for slot in ("sum", "step")} <= names


def test_state_comes_back_in_its_order_and_with_its_special_values(tmp_path: Path) -> None:
    """History rows become columns: in another order, or with a nan made into something else, they are other rows."""
    rows = [{"samples": 100, "elbo": float("nan")}, {"samples": 200, "elbo": float("-inf")}]
    save_checkpoint(tmp_path / "checkpoint", {}, {"step": 2, "history": rows})
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert loaded is not None
    assert repr(loaded.state) == repr({"step": 2, "history": rows})


def test_odd_tensors_survive(tmp_path: Path) -> None:
    """Special values, no elements, no axes, views, tied weights, other types."""
    matrix = torch.tensor([[float("nan"), -0.0], [float("inf"), 1e-45]])
    odd = {
        "matrix": matrix,
        "tied": matrix,
        "transposed": matrix.T,
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "truth": torch.tensor([True, False]),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    path = tmp_path / "odd"
    save_checkpoint(path, odd, {})
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded.tensors.keys() == odd.keys()
    for name, tensor in odd.items():
        torch.testing.assert_close(loaded.tensors[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert loaded.tensors["matrix"].view(torch.int32).tolist() == matrix.view(torch.int32).tolist()  # -0.0, nan


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoint.safetensors") is None


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_cut_file_is_none(written: Path, keep: float) -> None:
    whole = written.read_bytes()
    written.write_bytes(whole[: int(len(whole) * keep)])
    assert load_checkpoint(written) is None


def test_a_longer_file_is_none(written: Path) -> None:
    written.write_bytes(written.read_bytes() + b"\0")
    assert load_checkpoint(written) is None


def test_a_flipped_bit_is_none(written: Path) -> None:
    """Thirty in the header, where safetensors might still find sense, thirty among the numbers."""
    whole = written.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    choose = random.Random(0)
    bits = [choose.randrange(8 * header) for _ in range(30)]
    bits += [choose.randrange(8 * header, 8 * len(whole)) for _ in range(30)]
    survived = []
    for bit in bits:
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        written.write_bytes(broken)
        if load_checkpoint(written) is not None:
            survived.append(bit)
    assert survived == []
    written.write_bytes(whole)
    assert load_checkpoint(written) is not None


def rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("model/0", "model/9"): tensor for name, tensor in tensors.items()}


def drop(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != "model/0.weight"}


@pytest.mark.parametrize("change", [rename, drop])
def test_other_names_are_refused(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    live = parts()
    before = tensors_of(live)
    with pytest.raises(KeyError, match=r"model/0\.weight"):
        restore_(training_tensors(**live), change(tensors_of(parts(1))))
    assert_equal_bits(tensors_of(live), before)  # nothing was copied


def test_an_interrupted_save_leaves_the_old_checkpoint(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(written, training_tensors(**parts(seed=5)), {"step": 4})
    monkeypatch.undo()
    loaded = load_checkpoint(written)
    assert loaded is not None
    assert loaded.state == STATE
    assert_equal_bits(loaded.tensors, tensors_of(parts()))
