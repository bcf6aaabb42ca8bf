"""Batched layers against one plain layer a model, values and gradients, and the independence of the models."""

import pytest
import torch
from torch import nn

from lib.models.batched import BatchedLinear, BatchedMaxout


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_a_batched_layer_is_one_plain_layer_a_model(generator):
    batched, x = BatchedLinear(3, 4, 5, generator), torch.randn(3, 7, 4, generator=generator)
    y = batched(x)
    y.square().sum().backward()
    for r in range(3):
        plain = nn.Linear(4, 5)
        with torch.no_grad():
            plain.weight.copy_(batched.weight[r].T)
            plain.bias.copy_(batched.bias[r, 0])
        alone = plain(x[r])
        alone.square().sum().backward()
        torch.testing.assert_close(y[r], alone)
        torch.testing.assert_close(batched.weight.grad[r], plain.weight.grad.T)
        torch.testing.assert_close(batched.bias.grad[r, 0], plain.bias.grad)


def test_maxout_takes_the_largest_of_its_pieces(generator):
    layer, x = BatchedMaxout(2, 3, 4, 5, generator), torch.randn(2, 6, 3, generator=generator)
    flat = layer.linear(x)
    assert layer(x).shape == (2, 6, 4)
    for unit in range(4):
        expected = torch.stack([flat[..., 4 * piece + unit] for piece in range(5)]).max(0).values
        torch.testing.assert_close(layer(x)[..., unit], expected)


def test_one_models_input_moves_no_other_model(generator):
    layer, x = BatchedMaxout(2, 3, 4, 5, generator), torch.randn(2, 6, 3, generator=generator)
    before = layer(x)
    x[1] += 1
    torch.testing.assert_close(layer(x)[0], before[0], rtol=0, atol=0)
    assert (layer(x)[1] != before[1]).any()


def test_the_start_is_pytorchs_own_and_repeats():
    one, two = (BatchedLinear(50, 16, 40, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight[0], one.weight[1])
    assert one.weight.abs().max().item() == pytest.approx(1 / 4, rel=1e-3)
    assert one.weight.std().item() == pytest.approx(1 / 4 / 3**0.5, rel=0.02)


def test_a_count_that_is_none_is_refused(generator):
    with pytest.raises(ValueError, match="n_models"):
        BatchedLinear(0, 3, 3, generator)
    with pytest.raises(ValueError, match="pieces"):
        BatchedMaxout(1, 3, 3, 0, generator)
