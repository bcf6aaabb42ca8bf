"""Instance norm: its definition, the two ways in which it is computed, its gradient, its activation."""

import pytest
import torch
from torch.nn import functional as F

from lib.models.instance_norm import InstanceNorm


def maps(n: int, *, channels_last: bool = True) -> torch.Tensor:
    x = torch.randn(n, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) * 3 + 1
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def by_definition(x: torch.Tensor, leak: float) -> torch.Tensor:
    mean = x.mean((2, 3), keepdim=True)
    y = (x - mean) / ((x - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    return torch.where(y > 0, y, leak * y)


@pytest.mark.parametrize("leak", [1.0, 0.0, 0.2])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("n", [1, 3])
def test_values_and_gradients_are_those_of_the_definition(n, leak, channels_last):
    x = maps(n, channels_last=channels_last).requires_grad_()
    ours, want = InstanceNorm(leak)(x), by_definition(x, leak)
    torch.testing.assert_close(ours, want)
    weights = maps(n, channels_last=not channels_last).square()
    for found, right in zip(
        torch.autograd.grad((ours * weights).sum(), x), torch.autograd.grad((want * weights).sum(), x), strict=True
    ):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("n", [1, 3])
def test_it_is_pytorchs_and_an_image_does_not_depend_on_its_neighbours(n):
    x = maps(n)
    torch.testing.assert_close(InstanceNorm()(x), F.instance_norm(x))
    torch.testing.assert_close(InstanceNorm()(x)[:1], InstanceNorm()(x[:1]))


def test_it_has_no_parameters_and_no_memory():
    norm = InstanceNorm(leak=0)
    before = norm(maps(2))
    norm(maps(3) + 5)
    norm.eval()
    assert not norm.state_dict()
    assert torch.equal(norm(maps(2)), before)


def test_a_second_derivative_is_refused_not_wrong():
    x = maps(2).requires_grad_()
    (slope,) = torch.autograd.grad(InstanceNorm()(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        slope.sum().backward()
