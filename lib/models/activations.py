"""The hyperbolic tangent, at the speed of the sigmoid."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Tanh(torch.autograd.Function):
    """tanh(a) = 2 sigmoid(2a) - 1, derivative 1 - tanh(a)^2.

    On a CPU, PyTorch hands tanh to MKL, which on AMD processors takes four times as long as the sigmoid: 4 % of a VAE's
    training step. The values differ from torch.tanh by at most 2e-7.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        y = torch.sigmoid(a + a).mul_(2).sub_(1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.addcmul(upstream, upstream * y, y, value=-1)


def tanh(a: Tensor) -> Tensor:
    """tanh of each element, in (-1, 1); differentiable once. On accelerators it is torch.tanh itself."""
    result: Tensor = _Tanh.apply(a) if a.device.type == "cpu" else torch.tanh(a)
    return result
