"""Parameters as one vector: same values, same function, same steps and clips as one by one."""

import copy

import pytest
import torch
from torch import nn

from lib.models.flat import FlatParameters
from lib.training.checkpoints import restore_, training_tensors


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


X = torch.linspace(-1, 1, 5 * 2 * 4 * 4).view(5, 2, 4, 4).cos()


def test_the_network_computes_what_it_did():
    plain, flat = network(), network()
    vector = FlatParameters(flat).vector
    assert vector.numel() == sum(p.numel() for p in plain.parameters())
    torch.testing.assert_close(flat(X), plain(X))  # memory that is aligned otherwise rounds otherwise
    assert sorted(vector.tolist()) == sorted(v for p in plain.parameters() for v in p.flatten().tolist())


def test_a_parameter_is_a_view_of_the_vector():
    flat = network()
    parameters = FlatParameters(flat)
    parameters.vector.data.zero_()
    assert all(bool((p == 0).all()) for p in flat.parameters())
    flat[4].bias.data.fill_(3)
    assert parameters.vector[-1] == 3  # in the order of the network's parameters
    assert flat[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [torch.optim.RMSprop, torch.optim.Adam])
def test_an_elementwise_optimiser_takes_the_steps_it_takes_one_by_one(kind):
    plain, flat = network(), network()
    parameters = FlatParameters(flat)
    one, many = kind([parameters.vector], lr=0.1), kind(plain.parameters(), lr=0.1)
    for _ in range(3):
        parameters.take_gradient(flat(X).square().sum())
        one.step()
        many.zero_grad()
        plain(X).square().sum().backward()
        many.step()
    for ours, theirs in zip(flat.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_clip_is_that_of_each_parameter():
    plain, flat = network(), network()
    FlatParameters(flat).clip_(0.05)
    for ours, theirs in zip(flat.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs.clamp(-0.05, 0.05))
    assert any(bool((p.abs() > 0.05).any()) for p in plain.parameters())


def test_only_its_own_gradient_is_taken():
    first, second = network(), nn.Linear(1, 1)
    parameters = FlatParameters(first)
    parameters.take_gradient(second(first(X)).sum())
    assert parameters.vector.grad.abs().sum() > 0
    assert all(p.grad is None for p in second.parameters())


def test_a_checkpoint_goes_back_into_the_vector():
    flat = network()
    parameters = FlatParameters(flat)
    saved = {name: tensor.detach().clone() for name, tensor in training_tensors(net=flat).items()}
    before = copy.deepcopy(parameters.vector.data)
    parameters.vector.data.add_(1)
    restore_(training_tensors(net=flat), saved)
    assert torch.equal(parameters.vector.data, before)
