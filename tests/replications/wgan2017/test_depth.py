"""Deep critics: gradient norms in closed form and by a plain network, bounds of each model, piling up, resuming."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.training.randomness import Streams
from replications.wgan2017.config import DepthConfig
from replications.wgan2017.critic import critics
from replications.wgan2017.depth import (
    arm_of,
    build,
    clipped_start,
    critic_step,
    decades,
    depth,
    generator_step,
    gradient_norms,
    linear_layers,
    piled,
    weights_of,
)

TINY = DepthConfig(
    n_steps=6, n_critic=2, width=5, n_layers=3, batch=8, clips=(0.5, 0.05), n_models=2, n_samples=40, clip_rate=1e-2
)
BOUNDS = torch.tensor([0.5, 0.5, 0.05, 0.05])


@pytest.fixture
def double():
    """Float64 throughout: a bias that moves nothing has a gradient of rounding errors, which optimisers scale up."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def straight(gains, width=4, n_layers=12):
    """Critics whose every unit is on for inputs above 0: layer l multiplies by the model's gain, the output adds up."""
    network = critics(len(gains), 2, width, n_layers, torch.Generator().manual_seed(0))
    gains = torch.tensor(gains)
    with torch.no_grad():
        for layer in linear_layers(network):
            layer.bias.zero_()
            if layer.weight.shape[1:] == (width, width):
                layer.weight.copy_(gains.view(-1, 1, 1) * torch.eye(width))
            else:
                layer.weight.fill_(1)
    return network


def plain(network, r):
    """Model r as plain PyTorch layers."""
    layers = []
    for layer in network:
        if hasattr(layer, "weight"):
            linear = nn.Linear(*layer.weight.shape[1:])
            linear.weight.data, linear.bias.data = layer.weight[r].data.T.clone(), layer.bias[r, 0].data.clone()
            layer = linear
        layers.append(layer)
    return nn.Sequential(*layers)


def test_norms_of_a_network_without_kinks():
    """df / dh_l is the gain to the power L - l in each of the 4 units; a tiny one does not underflow."""
    norms = gradient_norms(straight([0.5, 2.0, 1e-4]), 1 + torch.rand(3, 7, 2))
    for gain, row in zip((0.5, 2.0, 1e-4), norms, strict=True):
        assert row.tolist() == pytest.approx([2 * gain ** (12 - layer) for layer in range(1, 13)], rel=1e-5)
    assert decades(norms).tolist() == pytest.approx([11 * math.log10(gain) for gain in (0.5, 2.0, 1e-4)], rel=1e-5)


def test_norms_are_those_of_the_critics_loss_but_for_the_number_of_points():
    game = build(TINY, Streams(0), penalised=False)
    real, fake = torch.randn(2, 4, 50, 2, generator=torch.Generator().manual_seed(0))
    norms = gradient_norms(game.critic, torch.cat([real, fake], 1))
    h, activations = torch.cat([real[2], fake[2]]), []
    for layer in plain(game.critic, 2):
        h = layer(h)
        if isinstance(layer, nn.ReLU):
            activations.append(h)
    loss = h[50:].mean() - h[:50].mean()
    literal = torch.stack([each.norm() for each in torch.autograd.grad(loss, activations)])
    assert norms[2].tolist() == pytest.approx((literal * 50 / math.sqrt(100)).tolist(), rel=1e-4)


def test_a_dead_network_vanishes_and_does_not_break():
    network = straight([1.0])
    with torch.no_grad():
        linear_layers(network)[3].bias.fill_(-1e6)
    found = decades(gradient_norms(network, torch.rand(1, 5, 2)))
    assert -70 < found.item() < -50


def test_each_model_is_kept_in_its_own_bound():
    game = build(TINY, Streams(0), penalised=False)
    rng = torch.Generator().manual_seed(0)
    real, z = torch.randn(2, 4, 8, 2, generator=rng)
    critic_step(game, TINY, real, z, torch.rand(4, 8, 1, generator=rng))
    largest = torch.stack([parameter.abs().flatten(1).amax(1) for parameter in game.critic.parameters()])
    assert (largest <= BOUNDS).all()
    assert largest.amax(0).tolist() == pytest.approx(BOUNDS.tolist())


@pytest.mark.usefixtures("double")
def test_steps_are_those_of_a_plain_wgan():
    game = build(TINY, Streams(0), penalised=False)
    g, f = plain(game.generator, 1), plain(game.critic, 1)
    for_g, for_f = (torch.optim.RMSprop(network.parameters(), TINY.clip_rate) for network in (g, f))
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        real, z, more = torch.randn(3, 4, 8, 2, generator=rng)
        critic_step(game, TINY, real, z, torch.rand(4, 8, 1, generator=rng))
        generator_step(game, more)
        for_f.zero_grad()
        (f(g(z[1]).detach()).mean() - f(real[1]).mean()).backward()
        for_f.step()
        for parameter in f.parameters():
            parameter.data.clamp_(-0.5, 0.5)
        for_g.zero_grad()
        (-f(g(more[1])).mean()).backward()
        for_g.step()
    for network, batched in ((g, game.generator), (f, game.critic)):
        got = plain(batched, 1).state_dict()
        for name, expected in network.state_dict().items():
            torch.testing.assert_close(got[name], expected, rtol=0, atol=1e-9)


def test_a_penalised_step_pulls_slopes_to_one_and_clips_nothing():
    config = dataclasses.replace(TINY, penalty=100.0, penalty_rate=1e-2)
    game = build(config, Streams(0), penalised=True)
    with torch.no_grad():
        linear_layers(game.critic)[-1].weight.mul_(5)

    def off_one():
        x = torch.randn(2, 200, 2, generator=torch.Generator().manual_seed(9), requires_grad=True)
        (slope,) = torch.autograd.grad(game.critic(x).sum(), x)
        return (slope.norm(dim=-1) - 1).abs().mean().item()

    before = off_one()
    for step in range(60):
        rng = torch.Generator().manual_seed(step)
        real, z = torch.randn(2, 2, 8, 2, generator=rng)
        critic_step(game, config, real, z, torch.rand(2, 8, 1, generator=rng))
    assert off_one() < 0.5 * before
    assert game.critic_flat.vector.abs().max() > 0.5


def test_he_start():
    """Weights uniform with variance 2 / n, biases 0."""
    game = build(dataclasses.replace(TINY, width=100), Streams(0), penalised=True)
    weight = linear_layers(game.critic)[1].weight
    assert weight.var().item() == pytest.approx(2 / 100, rel=0.05)
    assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / 100), rel=0.01)
    assert not linear_layers(game.generator)[0].bias.any()


def test_piled_up_weights():
    network = straight([1.0, 1.0], width=2, n_layers=3)  # weights without biases: 4 + 4 + 4 + 2
    assert weights_of(network).shape == (2, 14)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
        layers = linear_layers(network)
        layers[0].weight[0].fill_(-0.995)  # 4 of 14, at the lower bound
        layers[2].weight[1].fill_(0.985)  # not within 1 % of 1
        layers[1].bias.fill_(1.0)  # biases are not counted
    assert piled(network, torch.tensor([1.0, 0.1])).tolist() == pytest.approx([4 / 14, 1.0])
    assert piled(network, torch.tensor([1.0, 1.0])).tolist() == pytest.approx([4 / 14, 0])


def test_where_the_first_clip_alone_puts_weights():
    """Of He's uniform weights on (-b, b) the share above .99 c lies at the bound after the clip."""
    config = dataclasses.replace(TINY, width=60, clips=(0.1,), n_models=1)
    start = clipped_start(config, Streams(0))
    shares = [(1 - 0.099 / math.sqrt(6 / n)) * count for n, count in ((2, 120), (60, 3600), (60, 3600), (60, 60))]
    assert weights_of(start).abs().max().item() == pytest.approx(0.1)
    assert piled(start, torch.tensor([0.1])).item() == pytest.approx(sum(shares) / 7380, abs=0.01)


@pytest.mark.parametrize(("clip", "name"), [(0.1, "c0p1"), (0.01, "c0p01"), (0.001, "c0p001")])
def test_names_of_arms(clip, name):
    assert arm_of(clip) == name


def test_a_killed_run_ends_in_the_same_bits_and_has_its_scores(tmp_path):
    with deterministic("cpu"):
        whole = depth(TINY, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        stopped = Workspace(tmp_path / "killed", 0)
        keep = stopped.keep

        def keep_and_stop(state, total, **parts):
            stopped.deadline = 0.0 if state["step"] == 4 else None
            keep(state, total, **parts)

        stopped.keep = keep_and_stop
        with pytest.raises(OutOfTime):
            depth(TINY, stopped)
        resumed = Workspace(tmp_path / "killed", 0)
        again = depth(TINY, resumed)
    assert resumed.resumed_at == [4]
    assert torch.equal(whole.weights["norms"], again.weights["norms"])
    assert (whole.history, whole.facts) == (again.history, again.facts)
    assert whole.weights["norms"].shape == (3, 2, 3)  # two bounds and the penalty, repeats, layers
    assert all(math.isfinite(score.value) for score in whole.scores.values())
    assert {tuple(row) for row in whole.history} == {tuple(whole.history[0])}
    for arm, norms in zip(("c0p5", "c0p05", "penalty"), whole.weights["norms"], strict=True):
        expected = (norms[:, 0] / norms[:, -1]).log10()
        assert whole.facts[f"decades_{arm}"] == pytest.approx(expected.tolist())
        assert whole.scores[f"decades_{arm}"].value == pytest.approx(expected.mean().item())
        assert whole.scores[f"size_{arm}"].value == pytest.approx(expected.abs().mean().item())
        histogram = whole.facts[f"histogram_{arm}"]
        assert sum(histogram["counts"]) == 2 * (2 * 5 + 5 * 5 + 5 * 5 + 5)
    assert whole.facts["histogram_c0p05"]["reach"] == pytest.approx(1.1 * 0.05)
    assert whole.scores["moved_c0p5"].value > 0.01
    assert "piled_penalty" not in whole.scores
