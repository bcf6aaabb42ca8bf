"""The frozen discriminator's run: its step beside a plain one, what is frozen, its measures, its resumption."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.training.randomness import Streams, generator
from replications.gan2014 import helvetica as module
from replications.gan2014.config import HelveticaConfig
from replications.gan2014.helvetica import (
    build,
    discriminator_step,
    distinct,
    draw_data,
    generator_step,
    helvetica,
    ring,
    spread,
)

TINY = HelveticaConfig(n_steps=30, n_frozen_steps=25, n_models=2, width=8, batch=16, n_samples=100)


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic("cpu"):
        yield


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def minibatch(config, step=0):
    streams = Streams(3)
    real = draw_data(config, ring(config.n_modes), streams, step)
    shape = (config.n_models, config.batch, config.n_latent)
    return real, torch.randn(shape, generator=streams.at("noise", step))


def plain(batched, model):
    """nn.Linear layers with the weights of one of the batched models."""
    layers = []
    for layer in batched:
        if hasattr(layer, "weight"):
            linear = nn.Linear(*layer.weight.shape[1:])
            linear.weight.data, linear.bias.data = layer.weight[model].data.T.clone(), layer.bias[model, 0].data.clone()
            layer = linear
        layers.append(layer)
    return nn.Sequential(*layers)


def test_steps_are_those_of_a_plain_gan():
    game = build(TINY, 0, "cpu")
    g, d = plain(game.generator, 1), plain(game.discriminator, 1)
    adam_g, adam_d = (
        torch.optim.Adam(net.parameters(), lr=TINY.learning_rate, betas=(TINY.beta1, 0.999)) for net in (g, d)
    )
    for step in range(5):
        real, z = minibatch(TINY, step)
        discriminator_step(game, real, z)
        generator_step(game, z)
        logits = d(torch.cat([real[1], g(z[1]).detach()]))
        label = torch.cat([torch.ones(TINY.batch, 1), torch.zeros(TINY.batch, 1)])
        adam_d.zero_grad()
        F.binary_cross_entropy_with_logits(logits, label).backward()
        adam_d.step()
        adam_g.zero_grad()
        F.binary_cross_entropy_with_logits(d(g(z[1])), torch.ones(TINY.batch, 1)).backward()
        adam_g.step()
    for ours, theirs in ((game.generator, g), (game.discriminator, d)):
        expected, got = theirs.state_dict(), plain(ours, 1).state_dict()
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], rtol=0, atol=3e-5)


def test_each_step_touches_one_network():
    game = build(TINY, 0, "cpu")
    real, z = minibatch(TINY)
    g, d = state(game.generator), state(game.discriminator)
    discriminator_step(game, real, z)
    assert same(g, state(game.generator))
    assert not same(d, state(game.discriminator))
    d = state(game.discriminator)
    generator_step(game, z)
    assert same(d, state(game.discriminator))
    assert not same(g, state(game.generator))


def test_making_adams_state_moves_nothing():
    game = build(TINY, 0, "cpu")
    fresh = generator(0, "discriminator")
    bound = 1 / math.sqrt(2)
    first = (2 * torch.rand((TINY.n_models, 2, TINY.width), generator=fresh) - 1) * bound
    assert torch.equal(game.discriminator[0].weight, first)
    for slots in game.discriminator_optimizer.state.values():
        assert all(not tensor.any() for tensor in slots.values())


def test_data_are_the_ring():
    config = dataclasses.replace(TINY, batch=20_000, n_models=1)
    points = draw_data(config, ring(8), Streams(0), 0)[0]
    assert points.mean(0).abs().max() < 0.03
    assert points.var(0).tolist() == pytest.approx([0.5 + 0.3**2] * 2, rel=0.03)  # E cos^2 = 1/2 on the circle
    assert ring(8)[2].tolist() == pytest.approx([0, 1], abs=1e-6)


def test_spread_and_distinct_of_known_points():
    same_point = torch.full((1, 50, 2), 0.33)
    four = torch.tensor([[[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]])
    assert spread(same_point).item() == 0
    assert spread(four).item() == pytest.approx(math.sqrt(8 / 3))
    assert distinct(same_point, 2).item() == 1
    assert distinct(four.repeat(1, 5, 1), 2).item() == 4
    assert distinct(torch.tensor([[[2.0, 2.0], [-2.0, -2.0]]]), 2).item() == 2  # tanh can round to the bound itself


def test_the_discriminator_stays_frozen_and_the_generator_goes_on(tmp_path):
    short, long = (
        helvetica(dataclasses.replace(TINY, n_frozen_steps=n), Workspace(tmp_path / str(n), 0)).weights for n in (2, 25)
    )
    assert torch.equal(short["logits"], long["logits"])
    assert torch.equal(short["samples_before"], long["samples_before"])
    assert not torch.equal(short["samples_frozen"], long["samples_frozen"])
    assert not torch.equal(long["samples_frozen"], long["samples_control"])


def test_both_arms_go_on_from_the_freeze(tmp_path):
    early, late = (
        helvetica(dataclasses.replace(TINY, n_steps=n, n_frozen_steps=31 - n), Workspace(tmp_path / str(n), 0)).weights
        for n in (5, 30)
    )
    assert torch.equal(early["samples_control"], late["samples_control"])  # 31 steps of Algorithm 1 in both runs
    last = (late["samples_frozen"] - late["samples_before"]).abs().max()  # one step of G
    assert 0 < last < 0.05 < (late["samples_before"] - early["samples_before"]).abs().max()
    assert (late["samples_control"] - late["samples_before"]).abs().max() < 0.05
    assert not torch.equal(early["logits"], late["logits"])


def test_a_killed_run_ends_in_the_same_bits(tmp_path, monkeypatch):
    whole = helvetica(TINY, Workspace(tmp_path / "whole", 0))
    for stop in (7, 30, 41):  # before, at and after the freeze
        folder = tmp_path / str(stop)
        folder.mkdir()
        steps = iter(range(stop))
        keep = Workspace.keep

        def stopping(self, state, total, steps=steps, keep=keep, **parts):
            if next(steps, None) is None:
                self.deadline = 0.0
            keep(self, state, total, **parts)

        with monkeypatch.context() as patch:
            patch.setattr(Workspace, "keep", stopping)
            with pytest.raises(OutOfTime):
                helvetica(TINY, Workspace(folder, 0))
        resumed = helvetica(TINY, Workspace(folder, 0))
        assert same(whole.weights, resumed.weights)
        assert resumed.history == whole.history
        assert resumed.facts == whole.facts


def test_outcome_is_whole(tmp_path):
    outcome = helvetica(TINY, Workspace(tmp_path, 0))
    assert {tuple(row) for row in outcome.history} == {tuple(outcome.history[0])}
    assert [row["step"] for row in outcome.history] == [25, 50, 55]
    assert outcome.history[0]["frozen_1"] == outcome.history[0]["control_1"]
    assert outcome.history[-1]["frozen_1"] != outcome.history[-1]["control_1"]
    for name, score in outcome.scores.items():
        assert score.value == pytest.approx(sum(outcome.facts[name]) / TINY.n_models, abs=1e-5)
        assert (score.n, score.protocol["averaged_over"]) == (TINY.n_models, "models")
    assert max(tensor.abs().max().item() for name, tensor in outcome.weights.items() if "samples" in name) <= TINY.bound
    peak, logits = outcome.weights["peak"], outcome.weights["logits"]
    axis = torch.linspace(-TINY.bound, TINY.bound, module.GRID)
    row, column = divmod(logits[0].argmax().item(), module.GRID)
    assert peak[0].tolist() == pytest.approx([axis[row].item(), axis[column].item()])


@pytest.mark.slow
def test_spread_falls_when_frozen(tmp_path):
    config = HelveticaConfig(n_steps=400, n_frozen_steps=400, n_models=4, width=32)
    facts = helvetica(config, Workspace(tmp_path, 5)).facts
    assert sorted(facts["ratio_frozen"])[1] < 0.5 < sorted(facts["ratio_control"])[1]
