"""The device a run is computed on, as the machine that computes it has it."""

import re

import torch

from lib.errors import UserError


def resolve_device(device: str) -> str:
    """`auto` is an accelerator where there is one, `none` no device.

    Raises UserError for one that is not there, and for other kinds than these two: on none was a run ever tried.
    """
    if device == "none":
        return device
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    take = "take --device cpu, cuda, cuda:0 and so on, or auto"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UserError(f"The device {device!r} cannot be used: {take}.")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise UserError(f"The device {device!r} cannot be used ({reason}): {take}.") from None
    return device
