"""Layers of many equal models side by side: one batched matrix product in place of a loop over seeds.

Axis 0 is the model. No value crosses it, so each model's losses, gradients and Adam steps are those it would have
alone; only the order of rounding in a batched product may differ from that of a single one.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.checks import require_count
from lib.models.maxout import largest_piece


class BatchedLinear(nn.Module):
    """y_r = x_r W_r + b_r for R models: (R, B, n_in) -> (R, B, n_out).

    Weights and biases start as U(-1, 1) / sqrt(n_in), PyTorch's own default for nn.Linear, drawn from `generator` (on
    the CPU) for all models at once, so the first R models of a larger batch are not those of a smaller one.
    """

    def __init__(self, n_models: int, n_in: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        for name, count in (("n_models", n_models), ("n_in", n_in), ("n_out", n_out)):
            require_count(name, count, 1)
        bound = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(_uniform((n_models, n_in, n_out), bound, generator))
        self.bias = nn.Parameter(_uniform((n_models, 1, n_out), bound, generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class BatchedMaxout(nn.Module):
    """h_j = max over k of (x W + b)_(j, k): (R, B, n_in) -> (R, B, units); Goodfellow et al. 2013, for R models."""

    def __init__(self, n_models: int, n_in: int, units: int, pieces: int, generator: torch.Generator) -> None:
        super().__init__()
        require_count("pieces", pieces, 1)
        self.units, self.pieces = units, pieces
        self.linear = BatchedLinear(n_models, n_in, units * pieces, generator)

    def forward(self, x: Tensor) -> Tensor:
        return largest_piece(self.linear(x).unflatten(-1, (self.pieces, self.units)))


class BatchedBatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) of each model over its own batch: (R, B, n) -> (R, B, n).

    Always by the statistics of the batch at hand: there are no running averages.
    """

    def __init__(self, n_models: int, n: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(n_models * n)), nn.Parameter(torch.zeros(n_models * n))

    def forward(self, x: Tensor) -> Tensor:
        n_models, n_batch, _ = x.shape
        y = x.transpose(0, 1).reshape(n_batch, -1)  # (B, R n): each unit of each model is a channel of its own
        y = F.batch_norm(y, None, None, self.scale, self.shift, training=True)
        return y.view(n_batch, n_models, -1).transpose(0, 1)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) * bound
