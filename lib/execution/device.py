"""The device a run is computed on, as the machine that computes it has it."""

import torch

from lib.errors import UserError


def resolve_device(device: str) -> str:
    """`auto` is an accelerator where there is one, `none` no device. Raises UserError for one that is not there."""
    if device == "none":
        return device
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The device {device!r} cannot be used ({reason}): take --device cpu, cuda or auto.") from None
    return device
