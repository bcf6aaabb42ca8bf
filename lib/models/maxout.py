"""The largest of several linear pieces: the nonlinearity of maxout networks (Goodfellow et al. 2013)."""

from typing import Any

import torch
from torch import Tensor


def largest_piece(x: Tensor) -> Tensor:
    """max_k x[..., k, :], (..., k, n) -> (..., n). Pieces before units: there the maximum runs over whole rows.

    The gradient goes to the largest piece, and whole to each of them where several are equal to the last bit;
    autograd's own maximum shares it out, and on a CPU takes several times as long.
    """
    largest: Tensor = _LargestPiece.apply(x)  # type: ignore[no-untyped-call]
    return largest


class _LargestPiece(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        largest = x.amax(-2)
        ctx.save_for_backward(torch.eq(x, largest.unsqueeze(-2), out=torch.empty_like(x)))
        return largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (is_largest,) = ctx.saved_tensors
        return gradient.unsqueeze(-2) * is_largest
