"""tanh against PyTorch's own."""

import torch

from lib.models.activations import tanh


def test_values_are_torchs_to_rounding() -> None:
    a = torch.cat([torch.linspace(-12, 12, 10_001), torch.tensor([-1e4, 0.0, 1e4])])
    assert (tanh(a) - torch.tanh(a)).abs().max().item() <= 2e-7
    assert tanh(torch.tensor([-1e4, 1e4])).tolist() == [-1.0, 1.0]


def test_gradient_against_finite_differences() -> None:
    a = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    assert torch.autograd.gradcheck(tanh, a.requires_grad_())
