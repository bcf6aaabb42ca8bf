"""Toys: a step of each algorithm beside a plain one, what a step touches, distance from the modes, resuming, a run."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.datasets.mixtures import GaussianMixture
from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.batched import BatchedBatchNorm, BatchedLinear
from lib.training.randomness import Streams
from replications.wgan2017 import toys as module
from replications.wgan2017.config import ToyConfig
from replications.wgan2017.toys import (
    MIXTURES,
    build,
    critic_step,
    evaluated,
    evaluation_steps,
    generator_step,
    learning_rate,
    off_modes,
    toys,
)

ALGORITHMS = ("wgan", "wgan-gp", "gan")
TINY = ToyConfig(
    "ring", "wgan", 12, n_critic=2, clip=0.3, penalty=2.0, n_models=3, width=6, batch=10, learning_rate=1e-2,
    n_samples=50,
)  # fmt: skip


@pytest.fixture
def double():
    """Float64 throughout: a bias that moves nothing has a gradient of rounding errors, which optimisers scale up."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def config_of(algorithm):
    return dataclasses.replace(TINY, algorithm=algorithm)


def minibatch(seed=0):
    rng = torch.Generator().manual_seed(seed)
    real, z, more = torch.randn(3, 3, 10, 2, generator=rng)
    return real, z, torch.rand(3, 10, 1, generator=rng), more


def alone(network, r):
    """Model r as plain PyTorch layers."""

    def copied(layer):
        match layer:
            case BatchedLinear():
                plain = nn.Linear(*layer.weight.shape[1:])
                with torch.no_grad():
                    plain.weight.copy_(layer.weight[r].T)
                    plain.bias.copy_(layer.bias[r, 0])
                return plain
            case BatchedBatchNorm():
                plain = nn.BatchNorm1d(TINY.width, track_running_stats=False)
                with torch.no_grad():
                    plain.weight.copy_(layer.scale.view(TINY.n_models, -1)[r])
                    plain.bias.copy_(layer.shift.view(TINY.n_models, -1)[r])
                return plain
        return nn.ReLU()

    return nn.Sequential(*map(copied, network))


def plain_critic_loss(algorithm, critic, real, fake, share):
    """Arjovsky 2017, Algorithm 1; Gulrajani 2017, algorithm 1; Goodfellow 2014 with its half."""
    if algorithm == "gan":
        label = torch.cat([torch.ones(len(real), 1), torch.zeros(len(fake), 1)])
        return F.binary_cross_entropy_with_logits(critic(torch.cat([real, fake])), label)
    loss = critic(fake).mean() - critic(real).mean()
    if algorithm == "wgan":
        return loss
    x = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return loss + TINY.penalty * ((slope.norm(dim=1) - 1) ** 2).mean()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_steps_are_those_of_a_plain_model_alone(algorithm):
    config, game = config_of(algorithm), build(config_of(algorithm), Streams(0))
    g, d = (alone(player.network, 1) for player in game)

    def optimizer(network):
        if algorithm == "wgan":
            return torch.optim.RMSprop(network.parameters(), 1e-2)
        return torch.optim.Adam(network.parameters(), 1e-2, (config.beta1, config.beta2))

    for_g, for_d = optimizer(g), optimizer(d)
    for step in range(4):
        real, z, share, more = minibatch(step)
        critic_step(game, real, z, share, config)
        generator_step(game, more, config)
        for_d.zero_grad()
        plain_critic_loss(algorithm, d, real[1], g(z[1]).detach(), share[1]).backward()
        for_d.step()
        if algorithm == "wgan":
            for parameter in d.parameters():
                parameter.data.clamp_(-0.3, 0.3)
        for_g.zero_grad()
        of_fake = d(g(more[1]))
        (F.softplus(-of_fake).mean() if algorithm == "gan" else -of_fake.mean()).backward()
        for_g.step()
    for plain, player in ((g, game.generator), (d, game.critic)):
        got = alone(player.network, 1).state_dict()
        for name, expected in plain.state_dict().items():
            torch.testing.assert_close(got[name], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_step_touches_one_network(algorithm):
    game = build(config_of(algorithm), Streams(0))
    real, z, share, more = minibatch()
    before = [player.flat.vector.detach().clone() for player in game]
    critic_step(game, real, z, share, config_of(algorithm))
    assert torch.equal(game.generator.flat.vector, before[0])
    assert not torch.equal(game.critic.flat.vector, before[1])
    before = [player.flat.vector.detach().clone() for player in game]
    generator_step(game, more, config_of(algorithm))
    assert not torch.equal(game.generator.flat.vector, before[0])
    assert torch.equal(game.critic.flat.vector, before[1])


@pytest.mark.parametrize(("algorithm", "clipped"), [("wgan", True), ("wgan-gp", False), ("gan", False)])
def test_only_algorithm_1_clips(algorithm, clipped):
    game = build(config_of(algorithm), Streams(0))
    critic_step(game, *minibatch()[:3], config_of(algorithm))
    largest = [player.flat.vector.abs().max().item() for player in game]
    assert largest[0] > 0.3  # the generator never is
    assert largest[1] == pytest.approx(0.3) if clipped else largest[1] > 0.31


def test_all_algorithms_start_from_the_same_networks():
    starts = [build(config_of(algorithm), Streams(4)) for algorithm in ALGORITHMS]
    for one in starts[1:]:
        for player, first in zip(one, starts[0], strict=True):
            assert torch.equal(player.flat.vector, first.flat.vector)


def test_the_rate_falls_to_zero_where_told():
    falling = dataclasses.replace(TINY, rate_falls=True)
    assert [learning_rate(c, 6) for c in (TINY, falling)] == [1e-2, 5e-3]
    assert learning_rate(falling, 0) == 1e-2


@pytest.mark.parametrize(("n", "expected"), [(100, [*range(10, 101, 10)]), (3, [1, 2, 3]), (1, [1])])
def test_the_curve_has_ten_points_and_the_end(n, expected):
    assert evaluation_steps(n) == expected


def test_distance_from_the_modes():
    mixture = MIXTURES["grid"]
    beside = torch.stack([mixture.centres, mixture.centres + torch.tensor([0.3, 0.4])])
    assert off_modes(beside, mixture).tolist() == pytest.approx([0, 0.5 / 0.05], rel=1e-5)
    drawn = mixture.sample((1, 40_000), torch.Generator().manual_seed(0))
    assert off_modes(drawn, mixture).item() == pytest.approx(math.sqrt(2 * math.log(2)), rel=0.01)
    one = GaussianMixture(torch.zeros(1, 2), 2.0)
    assert off_modes(torch.tensor([[[0.0, 2.0], [0.0, 6.0], [60.0, 80.0]]]), one).tolist() == [3.0]
    assert off_modes(torch.tensor([[[0.0, 2.0], [0.0, 6.0]]]), one).tolist() == [1.0]  # the lower of the middle two


def test_batch_norm_takes_the_statistics_of_what_it_is_given():
    """The first hidden layer of the evaluated samples has mean 0 and variance 1 in every unit of every model."""
    game = build(TINY, Streams(0))
    rng = torch.Generator().manual_seed(1)
    samples, _ = evaluated(game, dataclasses.replace(TINY, n_samples=500), MIXTURES["ring"], rng)
    z = torch.randn(3, 500, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(game.generator.network(z), samples)
    normed = game.generator.network[:2](z)
    torch.testing.assert_close(normed.mean(1), torch.zeros(3, 6), rtol=0, atol=1e-5)
    torch.testing.assert_close(normed.var(1, correction=0), torch.ones(3, 6), rtol=0, atol=2e-3)


def test_every_step_sees_fresh_points(tmp_path, monkeypatch):
    seen = []

    def noting(game, real, z, share, config):
        seen.extend([real, z, share])

    monkeypatch.setattr(module, "critic_step", noting)
    monkeypatch.setattr(module, "generator_step", lambda game, z, config: seen.append(z))
    with deterministic("cpu"):
        toys(TINY, Workspace(tmp_path, 0))
    firsts = [tensor[0, 0, 0].item() for tensor in seen]
    assert len(firsts) == len(set(firsts)) == TINY.n_steps * (3 * TINY.n_critic + 1)


def stopped_at(workspace, step):
    """The workspace, out of time after that step."""
    keep = workspace.keep

    def keep_and_stop(state, total, **parts):
        workspace.deadline = 0.0 if state["step"] == step else None
        keep(state, total, **parts)

    workspace.keep = keep_and_stop
    return workspace


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_has_its_scores_and_repeats_its_bits_after_a_kill(tmp_path, algorithm):
    config = dataclasses.replace(config_of(algorithm), rate_falls=True)
    with deterministic("cpu"):
        whole = toys(config, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        with pytest.raises(OutOfTime):
            toys(config, stopped_at(Workspace(tmp_path / "killed", 0), 7))
        resumed = Workspace(tmp_path / "killed", 0)
        again = toys(config, resumed)
    assert resumed.resumed_at == [7]
    assert torch.equal(whole.weights["samples"], again.weights["samples"])
    assert whole.history == again.history
    assert [row["step"] for row in whole.history] == evaluation_steps(12)
    measures = ("modes", "high_quality", "reverse_kl", "distance")
    assert set(whole.scores) == {*measures, *(f"{name}_real" for name in measures)}
    assert all(math.isfinite(score.value) for score in whole.scores.values())
    score, per_model = whole.scores["modes"], torch.tensor(whole.facts["modes"])
    assert (score.n, score.protocol["averaged_over"], score.protocol["algorithm"]) == (3, "models", algorithm)
    assert score.value == pytest.approx(per_model.mean().item())
    assert whole.scores["high_quality_real"].value == pytest.approx(1 - math.exp(-4.5), abs=0.04)
    assert whole.facts["parameters_a_model"]["critic"] == 3 * 6 + 7 * 6 + 7


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_goes_towards_the_data(tmp_path, algorithm):
    """The points start within .4 of the origin; 150 steps bring half of them near the circle of the modes."""
    config = dataclasses.replace(
        config_of(algorithm), n_steps=150, n_critic=5, clip=0.1, penalty=0.1, width=24, batch=40, n_samples=300,
        learning_rate=5e-3,
    )  # fmt: skip
    with deterministic("cpu"):
        start = evaluated(build(config, Streams(0)), config, MIXTURES["ring"], Streams(0).at("evaluation"))[0]
        trained = toys(config, Workspace(tmp_path, 0)).weights["samples"].float()
    off_circle = [(points.norm(dim=-1) - 1).abs().median().item() for points in (start, trained)]
    assert off_circle[0] > 0.5
    assert off_circle[1] < 0.3
