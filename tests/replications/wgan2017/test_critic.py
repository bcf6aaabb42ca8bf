"""Critics of many models: each step beside a plain one, the penalty and the bound in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.models.flat import FlatParameters
from lib.training.optimizers import with_state
from lib.training.randomness import generator
from replications.wgan2017.critic import (
    clipped_step_,
    critics,
    estimates,
    lipschitz_bounds,
    penalised_step_,
    penalties,
)

R, B, WIDTH = 3, 16, 8


def plain(batched, model):
    """nn.Linear layers with the weights of one of the batched models."""
    layers = []
    for layer in batched:
        if hasattr(layer, "weight"):
            linear = nn.Linear(*layer.weight.shape[1:], dtype=layer.weight.dtype)
            linear.weight.data, linear.bias.data = layer.weight[model].data.T.clone(), layer.bias[model, 0].data.clone()
            layer = linear
        layers.append(layer)
    return nn.Sequential(*layers)


def assert_same(batched, model, witness):
    expected, got = witness.state_dict(), plain(batched, model).state_dict()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=1e-9)


def minibatch(step=0):
    drawn = torch.Generator().manual_seed(step)
    real, fake = torch.randn(R, B, 2, generator=drawn), 1 + torch.randn(R, B, 2, generator=drawn)
    return real, fake, torch.rand(R, B, 1, generator=drawn)


def plain_penalty(network, real, fake, share):
    """Gulrajani et al. 2017, algorithm 1, line by line, a point at a time."""
    total = 0.0
    for x, y, epsilon in zip(real, fake, share, strict=True):
        between = (epsilon * x + (1 - epsilon) * y).requires_grad_()
        (slope,) = torch.autograd.grad(network(between).sum(), between, create_graph=True)
        total = total + (slope.square().sum().sqrt() - 1) ** 2
    return total / len(real)


def with_weights(*weights, n_in=1):
    """One critic without biases whose layers have the weights given, each (n_in, n_out)."""
    weights = [torch.as_tensor(weight, dtype=torch.float32) for weight in weights]
    network = critics(1, n_in, len(weights[-1]), len(weights) - 1, generator(0, "critic"))
    layers = [layer for layer in network if hasattr(layer, "weight")]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight.data, layer.bias.data = weight.unsqueeze(0), torch.zeros_like(layer.bias)
    return network


def line(slope):
    """f(x) = slope x_1, by one unit for each sign, in the plane."""
    return with_weights([[1.0, -1.0], [0.0, 0.0]], [[slope], [-slope]], n_in=2)


def test_layers_and_estimates_are_those_of_plain_networks():
    network = critics(R, 2, WIDTH, 3, generator(0, "critic"))
    assert [tuple(p.shape[1:]) for p in network.parameters()][::2] == [(2, 8), (8, 8), (8, 8), (8, 1)]
    real, fake, _ = minibatch()
    for model in range(R):
        witness = plain(network, model)
        expected = (witness(real[model]).mean() - witness(fake[model]).mean()).item()
        assert estimates(network, real, fake)[model].item() == pytest.approx(expected, abs=1e-6)


def test_estimate_of_a_line_is_the_slope_times_the_shift():
    real, _, _ = minibatch()
    fake = torch.cat([real[:1], real[:1]], 1) + torch.tensor([0.7, 5.0])  # twice as many fakes, which must not matter
    assert estimates(line(-2.0), real[:1], fake).item() == pytest.approx(1.4, abs=1e-5)


def test_penalty_is_that_of_algorithm_1():
    network = critics(R, 2, WIDTH, 2, generator(1, "critic"))
    real, fake, share = minibatch()
    found = penalties(network, real, fake, share)
    for model in range(R):
        expected = plain_penalty(plain(network, model), real[model], fake[model], share[model])
        assert found[model].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("slope", "expected"), [(3.0, 4.0), (-3.0, 4.0), (1.0, 0.0), (0.25, 0.5625), (0.0, 1.0)])
def test_penalty_of_a_line_is_two_sided(slope, expected):
    network = line(slope)
    real, fake, share = (points[:1] for points in minibatch())
    penalty = penalties(network, real, fake, share)
    assert penalty.item() == pytest.approx(expected, abs=1e-5)
    gradients = torch.autograd.grad(penalty.sum(), list(network.parameters()), allow_unused=True)
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def test_penalty_lies_on_the_segment_from_fake_to_real():
    real, fake = torch.full((1, 5, 1), 1.0), torch.full((1, 5, 1), -1.0)
    steep = with_weights([[3.0]], [[1.0]])  # slope 3 right of 0, none left of it
    assert penalties(steep, real, fake, torch.full((1, 5, 1), 0.6)).item() == pytest.approx(4.0)
    assert penalties(steep, real, fake, torch.full((1, 5, 1), 0.4)).item() == pytest.approx(1.0)


def test_clipped_steps_are_those_of_algorithm_1():
    network = critics(R, 2, WIDTH, 2, generator(0, "critic")).double()  # both optimisers blow up rounding
    witnesses = [plain(network, model) for model in range(R)]
    plain_optimizers = [torch.optim.RMSprop(witness.parameters(), 1e-3) for witness in witnesses]
    flat = FlatParameters(network)
    optimizer = with_state(torch.optim.RMSprop([flat.vector], 1e-3))
    for step in range(4):
        real, fake, _ = (points.double() for points in minibatch(step))
        clipped_step_(network, flat, optimizer, real, fake, 0.1)
        for model, (witness, plain_optimizer) in enumerate(zip(witnesses, plain_optimizers, strict=True)):
            plain_optimizer.zero_grad()
            (witness(fake[model]).mean() - witness(real[model]).mean()).backward()
            plain_optimizer.step()
            with torch.no_grad():
                for parameter in witness.parameters():
                    parameter.clamp_(-0.1, 0.1)
    for model, witness in enumerate(witnesses):
        assert_same(network, model, witness)
    assert max(parameter.abs().max().item() for parameter in network.parameters()) == pytest.approx(0.1)


def test_penalised_steps_are_those_of_gulrajani():
    network = critics(R, 2, WIDTH, 2, generator(0, "critic")).double()  # both optimisers blow up rounding
    witnesses = [plain(network, model) for model in range(R)]
    plain_optimizers = [torch.optim.Adam(witness.parameters(), 1e-3, (0.0, 0.9)) for witness in witnesses]
    flat = FlatParameters(network)
    optimizer = with_state(torch.optim.Adam([flat.vector], 1e-3, (0.0, 0.9)))
    for step in range(3):
        real, fake, share = (points.double() for points in minibatch(step))
        penalised_step_(network, flat, optimizer, real, fake, share, 10.0)
        for model, (witness, plain_optimizer) in enumerate(zip(witnesses, plain_optimizers, strict=True)):
            plain_optimizer.zero_grad()
            loss = witness(fake[model]).mean() - witness(real[model]).mean()
            (loss + 10 * plain_penalty(witness, real[model], fake[model], share[model])).backward()
            plain_optimizer.step()
    for model, witness in enumerate(witnesses):
        assert_same(network, model, witness)


def test_bound_is_the_product_of_largest_singular_values():
    network = critics(R, 2, WIDTH, 2, generator(2, "critic"))
    for model, bound in enumerate(lipschitz_bounds(network).tolist()):
        layers = [layer for layer in plain(network, model) if isinstance(layer, nn.Linear)]
        largest = [np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)[0] for layer in layers]
        assert bound == pytest.approx(np.prod(largest), rel=1e-5)


def test_bound_is_reached_by_a_chain_of_positive_weights():
    network = with_weights([[3.0]], [[0.5]])
    x, y = torch.tensor([[[0.2]]]), torch.tensor([[[1.7]]])
    stretch = (network(y) - network(x)).item() / 1.5
    assert lipschitz_bounds(network).item() == pytest.approx(stretch, rel=1e-6) == pytest.approx(1.5)


def test_no_pair_of_points_is_stretched_beyond_the_bound():
    network = critics(R, 2, WIDTH, 2, generator(2, "critic"))
    x, y, _ = minibatch()
    with torch.no_grad():
        stretch = (network(x) - network(y)).squeeze(-1).abs() / (x - y).norm(dim=-1)
    assert (stretch.amax(1) <= lipschitz_bounds(network)).all()
