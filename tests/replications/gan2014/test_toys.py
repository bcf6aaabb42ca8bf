"""Toys: the gradient of a model in a batch is its own, packing, coverage, resuming, and the scores of a run."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.metrics.modes import coverage_of_models
from lib.models.batched import BatchedBatchNorm, BatchedMaxout
from lib.training.randomness import Streams
from replications.gan2014.config import ToyConfig
from replications.gan2014.toys import (
    MIXTURES,
    PackedDiscriminator,
    adam,
    build,
    evaluation_steps,
    gradients_,
    learning_rate,
    sample,
    toys,
)

TINY = ToyConfig(
    "ring", "nonsaturating", 2, 12, n_models=3, generator_layers=2, generator_hidden=6, discriminator_layers=2,
    maxout_units=4, maxout_pieces=3, init_sd=0.5, batch=10, learning_rate=1e-2, n_samples=50,
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def alone(config, networks, r):
    """Model r as plain PyTorch layers: (generator, discriminator)."""

    def linear(layer):
        plain = nn.Linear(*layer.weight.shape[1:])
        with torch.no_grad():
            plain.weight.copy_(layer.weight[r].T)
            plain.bias.copy_(layer.bias[r, 0])
        return plain

    class MaxOf(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.linear, self.shape = linear(layer.linear), (layer.pieces, layer.units)

        def forward(self, x):
            return self.linear(x).unflatten(-1, self.shape).max(-2).values

    def copied(layer):
        match layer:
            case BatchedMaxout():
                return MaxOf(layer)
            case BatchedBatchNorm():
                return nn.BatchNorm1d(config.generator_hidden, track_running_stats=False)  # both start as the identity
            case nn.ReLU():
                return nn.ReLU()
        return linear(layer)

    return [nn.Sequential(*map(copied, network.layers)) for network in networks]


@pytest.mark.parametrize("loss", ["nonsaturating", "minimax"])
def test_a_model_in_a_batch_gets_the_gradient_it_gets_alone(loss):
    networks = build(TINY, Streams(0))
    real, z = torch.randn(2, 3, 20, 2, generator=seeded())
    gradients_(networks, real, z, loss)
    for r in range(3):
        generator, discriminator = alone(TINY, networks, r)
        fake = generator(z[r])
        of_real, of_fake = discriminator(real[r].view(10, 4)), discriminator(fake.view(10, 4))
        value = 0.5 * (softplus(-of_real).mean() + softplus(of_fake).mean())
        for_generator = softplus(-of_fake).mean() if loss == "nonsaturating" else -softplus(of_fake).mean()
        pairs = ((discriminator, value, networks.discriminator), (generator, for_generator, networks.generator))
        for network, own, batched in pairs:
            expected = torch.autograd.grad(own, list(network.parameters()), retain_graph=True)
            for gradient, parameter in zip(expected, batched.parameters(), strict=True):
                got = parameter.grad.reshape(3, -1)[r].view(gradient.shape if gradient.ndim < 2 else gradient.T.shape)
                # A bias under batch norm has no gradient but rounding, 1e-7 on one processor and less on another.
                torch.testing.assert_close(got, gradient if gradient.ndim < 2 else gradient.T, rtol=1e-4, atol=1e-6)


def test_a_pack_is_consecutive_points_and_order_within_it_counts():
    discriminator = PackedDiscriminator(1, 3, 1, 4, 2, seeded())
    x = torch.randn(1, 12, 2, generator=seeded())
    logits = discriminator(x)
    assert logits.shape == (1, 4, 1)
    x[0, 4] += 1  # a point of the second pack
    assert ((discriminator(x) - logits).flatten() != 0).tolist() == [False, True, False, False]


def test_the_first_step_is_adams_and_made_state_counts_for_nothing():
    """Adam's first step is the rate times the sign of the gradient, where eps is small beside it."""
    networks = build(TINY, Streams(0))
    optimizer = adam(networks, TINY)
    before = [p.detach().clone() for network in networks for p in network.parameters()]
    gradients_(networks, *torch.randn(2, 3, 20, 2, generator=seeded()), "nonsaturating")
    optimizer.step()
    now = [p for network in networks for p in network.parameters()]
    for old, new in zip(before, now, strict=True):
        clear = new.grad.abs() > 1e-4
        torch.testing.assert_close((new - old)[clear], -1e-2 * new.grad[clear].sign(), rtol=1e-3, atol=1e-7)


def test_the_start_has_the_stated_spread():
    weights = build(dataclasses.replace(TINY, generator_hidden=80, init_sd=0.02), Streams(0)).generator.layers[3].weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.03)


def test_coverage_counts_each_model_by_itself():
    """A model on all modes, one on a single mode, one beside the modes, one that is not finite."""
    mixture = MIXTURES["ring"]
    everywhere = mixture.centres.repeat(5, 1)
    samples = torch.stack([everywhere, mixture.centres[:1].repeat(40, 1), everywhere * 1.5, everywhere * math.nan])
    found = coverage_of_models(samples, mixture.centres, mixture.sd)
    assert found.modes.tolist() == [8, 1, 0, 0]
    assert found.high_quality.tolist() == [1, 1, 0, 0]
    assert found.reverse_kl.tolist() == pytest.approx([0, math.log(8), 0, math.log(8)])
    assert found.reverse_kl_high_quality.isnan().tolist() == [False, False, True, True]
    assert found.finite.tolist() == [True, True, True, False]


@pytest.mark.parametrize(("n", "expected"), [(100, [*range(10, 101, 10)]), (3, [1, 2, 3]), (1, [1])])
def test_the_curve_has_ten_points_and_the_end(n, expected):
    assert evaluation_steps(n) == expected


def test_the_rate_falls_to_zero_where_told():
    falling = dataclasses.replace(TINY, rate_falls=True)
    assert [learning_rate(c, 6) for c in (TINY, falling)] == [1e-2, 5e-3]
    assert learning_rate(falling, 0) == 1e-2


def test_a_run_has_its_scores_and_repeats_its_bits_after_a_kill(tmp_path, monkeypatch):
    with deterministic("cpu"):
        whole = toys(TINY, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        stopped = Workspace(tmp_path / "killed", 0)
        keep = stopped.keep

        def keep_and_stop(state, total, **parts):
            stopped.deadline = 0.0 if state["step"] == 7 else None
            keep(state, total, **parts)

        monkeypatch.setattr(stopped, "keep", keep_and_stop)
        with pytest.raises(OutOfTime):
            toys(TINY, stopped)
        resumed = Workspace(tmp_path / "killed", 0)
        again = toys(TINY, resumed)
    assert resumed.resumed_at == [7]
    assert torch.equal(whole.weights["samples"], again.weights["samples"])
    assert whole.history == again.history
    assert whole.weights["samples"].shape == (3, 50, 2)
    score = whole.scores["modes"]
    assert (score.n, score.protocol["averaged_over"], score.protocol["n_pack"]) == (3, "models", 2)
    per_model = torch.tensor(whole.facts["modes"])
    assert score.value == pytest.approx(per_model.mean().item())
    assert score.stderr == pytest.approx(per_model.std().item() / math.sqrt(3))
    assert whole.scores["high_quality_real"].value == pytest.approx(1 - math.exp(-4.5), abs=0.04)
    assert [row["step"] for row in whole.history] == evaluation_steps(12)


def test_the_loss_trains_towards_the_data(tmp_path):
    """The points start within 0.4 of the origin, and 400 steps bring most of them nearer to the circle of the modes."""
    config = dataclasses.replace(
        TINY, n_pack=1, n_steps=400, generator_hidden=32, maxout_units=32, maxout_pieces=2, batch=50, init_sd=0.1,
        learning_rate=5e-3, beta1=0.5, n_samples=500,
    )  # fmt: skip
    with deterministic("cpu"):
        start = sample(build(config, Streams(0)).generator, 3, 500, seeded())
        trained = toys(config, Workspace(tmp_path, 0)).weights["samples"].float()
    off_circle = [(points.norm(dim=-1) - 1).abs().median().item() for points in (start, trained)]
    assert off_circle[0] > 0.6
    assert off_circle[1] < 0.5
