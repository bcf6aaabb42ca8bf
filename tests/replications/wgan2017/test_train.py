"""Algorithm 1 against the authors' loop, signs, clips, the penalty, schedules, the record, and a killed run."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from lib.execution.execute import deterministic
from lib.execution.workspace import Diverged, OutOfTime, Workspace
from lib.training.randomness import Streams
from replications.wgan2017 import train as module
from replications.wgan2017.bench import PlainLoop
from replications.wgan2017.config import ImagesConfig
from replications.wgan2017.networks import Nets, build
from replications.wgan2017.pixels import Pixels
from replications.wgan2017.train import (
    critic_step,
    critic_steps,
    generator_step,
    gradient_penalty,
    players_of,
    points,
    train,
)

TINY = ImagesConfig(
    "made up", "wgan", "dcgan", "dcgan", 6, n_critic=2, learning_rate=1e-3, batch=8, n_latent=5, n_filters=4,
    n_hidden=8, n_layers=1, n_checkpoints=3, n_curve=10,
)  # fmt: skip
GAN = replace(TINY, algorithm="gan", optimizer="adam", beta1=0.5, n_critic=1)
GP = replace(TINY, algorithm="wgan-gp", optimizer="adam", beta2=0.9)
SHAPE = (1, 32, 32)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 40) -> torch.Tensor:
    """uint8 (n, 1, 32, 32) without structure: where a gradient is zero, RMSProp makes steps of its rounding errors."""
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=seeded(7))


def made_up() -> Pixels:
    images = pictures()
    return Pixels(images, images, None, "made up", "test")


def batch(config=TINY, seed=0):
    x = torch.rand(config.batch, *SHAPE, generator=seeded(seed)).mul(2).sub(1)
    z = torch.randn(config.batch, config.n_latent, generator=seeded(seed + 1))
    return x, z, torch.rand(config.batch, generator=seeded(seed + 2))


def test_three_iterations_are_those_of_the_authors_loop():
    """Critic and generator after three iterations, by the plain loop on PyTorch's own layers.

    In double precision: RMSProp's first steps have the size of the rate whatever the gradient's, so in single precision
    a gradient that rounding turns round is a whole step, and the two part ways.
    """
    config = replace(TINY, clip=0.05, init_sd=0.2)
    plain = PlainLoop(config, doubled(build(config, SHAPE, Streams(0))), pictures())
    plain.images = plain.images.double()
    nets = doubled(build(config, SHAPE, Streams(0)))
    players = players_of(nets, config)
    order = torch.randint(40, (3, config.n_critic, config.batch), generator=seeded())
    noise = torch.randn(3, config.n_critic + 1, config.batch, config.n_latent, generator=seeded(1)).double()
    drawn = iter(noise.flatten(0, 1))
    plain.noise = lambda: next(drawn)[..., None, None]
    batches = iter(plain.images[rows] for rows in order.flatten(0, 1))
    for step in range(3):
        plain.iteration(batches)
        for k in range(config.n_critic):
            x = plain.images[order[step, k]]
            critic_step(players, config, x, noise[step, k], torch.empty(0))
        generator_step(players, config, noise[step, -1])
    for ours, theirs in ((nets.generator, plain.netG), (nets.critic, plain.netD)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    start = build(config, SHAPE, Streams(0))
    assert (nets.generator[0].weight - start.generator[0].weight).abs().max() > 5e-3  # and they moved


def doubled(nets):
    return Nets(*(network.double() for network in nets))


def test_the_critic_climbs_its_estimate_and_the_generator_lowers_it():
    for config in (replace(TINY, clip=0.5), GP, GAN):  # a narrow clip would cut the first weights down at once
        players = players_of(build(config, SHAPE, Streams(0)), config)
        x, z, mix = batch(config)
        first = critic_step(players, config, x, z, mix)
        for _ in range(20):
            last = critic_step(players, config, x, z, mix)
        assert last > first, config.algorithm
        before = gap(players, x, z)
        for _ in range(20):
            generator_step(players, config, z)
        assert gap(players, x, z) < before, config.algorithm


@torch.no_grad()
def gap(players, x, z):
    """What the critic, or the discriminator's logit, gives real images above generated ones."""
    critic = players.critic.network
    return (critic(x).mean() - critic(players.generator.network(z)).mean()).item()


def test_each_step_moves_its_own_network_only():
    nets = build(TINY, SHAPE, Streams(0))
    players, (x, z, mix) = players_of(nets, TINY), batch()
    g, f = (player.flat.vector.detach().clone() for player in players)
    critic_step(players, TINY, x, z, mix)
    assert torch.equal(players.generator.flat.vector, g)
    assert not torch.equal(players.critic.flat.vector, f)
    f = players.critic.flat.vector.detach().clone()
    generator_step(players, TINY, z)
    assert torch.equal(players.critic.flat.vector, f)
    assert not torch.equal(players.generator.flat.vector, g)


def test_the_estimate_is_the_difference_of_means_and_of_js_for_the_gan():
    x, z, mix = batch()
    for config in (TINY, GAN):
        nets = build(config, SHAPE, Streams(0))
        with torch.no_grad():
            on_real, on_fake = nets.critic(x), nets.critic(nets.generator(z))
        if config is TINY:
            want = on_real.mean() - on_fake.mean()
        else:
            want = 0.5 * (on_real.sigmoid().log().mean() + (1 - on_fake.sigmoid()).log().mean()) + math.log(2)
        got = critic_step(players_of(nets, config), config, x, z, mix)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_the_generators_loss_is_returned_as_it_was_before_the_update():
    _, z, _ = batch()
    for config in (TINY, GAN):
        nets = build(config, SHAPE, Streams(0))
        with torch.no_grad():
            values = nets.critic(nets.generator(z))
        want = -values.mean() if config is TINY else -values.sigmoid().log().mean()
        torch.testing.assert_close(generator_step(players_of(nets, config), config, z), want, rtol=1e-4, atol=1e-6)


def test_clip_after_the_step_bounds_the_critic_that_the_generator_meets_and_clip_before_does_not():
    x, z, mix = batch()
    largest = {}
    for when in ("after", "before"):
        config = replace(TINY, clip_when=when, learning_rate=1e-3)
        players = players_of(build(config, SHAPE, Streams(0)), config)
        for _ in range(3):
            critic_step(players, config, x, z, mix)
        largest[when] = players.critic.flat.vector.abs().max().item()
    assert largest["after"] == pytest.approx(config.clip)
    # RMSProp's first steps are up to ten times the rate: the fact sheet's hazard 1.
    assert config.clip < largest["before"] <= config.clip + 10 * config.learning_rate


def test_clip_at_the_start_bounds_the_first_weights_and_then_clips_after_each_step():
    config = replace(TINY, clip_when="start", learning_rate=1e-3)
    drawn = build(config, SHAPE, Streams(0)).critic
    players = players_of(build(config, SHAPE, Streams(0)), config)
    for first, clipped in zip(drawn.parameters(), players.critic.network.parameters(), strict=True):
        torch.testing.assert_close(clipped, first.clamp(-config.clip, config.clip), rtol=0, atol=0)
    critic_step(players, config, *batch())
    assert players.critic.flat.vector.abs().max().item() == pytest.approx(config.clip)


def test_neither_the_gan_nor_the_penalty_clips():
    for config in (GAN, GP):
        players, (x, z, mix) = players_of(build(config, SHAPE, Streams(0)), config), batch(config)
        critic_step(players, config, x, z, mix)
        assert players.critic.flat.vector.abs().max() > 0.02, config.algorithm


class Slope(nn.Module):
    """f(x) = slope times the first pixel, plus half of curvature times its square."""

    def __init__(self, slope, curvature=0.0):
        super().__init__()
        self.slope, self.curvature = nn.Parameter(torch.tensor(slope)), curvature

    def forward(self, x):
        first = x.flatten(1)[:, 0]
        return self.slope * first + 0.5 * self.curvature * first.square()


@pytest.mark.parametrize(("slope", "penalty"), [(1.0, 0.0), (3.0, 4.0), (0.5, 0.25), (-2.0, 1.0)])
def test_the_penalty_of_a_linear_critic(slope, penalty):
    """(|slope| - 1)^2 wherever it is taken, from both sides."""
    x, _, mix = batch()
    found = gradient_penalty(Slope(slope), x, -x, mix)
    assert found.item() == pytest.approx(penalty, abs=1e-6)


def test_the_penalty_is_taken_between_the_pairs_and_can_be_descended():
    x, fake = torch.full((2, 1, 8, 8), 3.0), torch.full((2, 1, 8, 8), 1.0)
    mix = torch.tensor([0.25, 1.0])  # points 1.5 and 3: the share of the real image
    critic = Slope(0.0, 1.0)
    found = gradient_penalty(critic, x, fake, mix)
    assert found.item() == pytest.approx(((1.5 - 1) ** 2 + (3 - 1) ** 2) / 2)
    found.backward()
    assert critic.slope.grad.item() == pytest.approx((1.5 - 1) + (3 - 1))


def test_schedules():
    constant = ImagesConfig("x", "wgan", "dcgan", "dcgan", 1)
    authors = replace(constant, schedule="authors")
    assert {critic_steps(constant, step) for step in range(1001)} == {5}
    long = [step for step in range(1001) if critic_steps(authors, step) == 100]
    assert long == [*range(25), 500, 1000]
    assert critic_steps(authors, 25) == 5


def test_points_end_with_the_last_step():
    assert points(400, 4) == {100: 0, 200: 1, 300: 2, 400: 3}
    assert set(points(3, 20)) == {1, 2, 3}
    assert max(points(301, 20)) == 301


def space(tmp_path, name, **options):
    (tmp_path / name).mkdir(exist_ok=True)
    return Workspace(tmp_path / name, 0, checkpoint_seconds=0, **options)


@pytest.mark.parametrize("config", [TINY, GAN, GP, replace(TINY, schedule="authors", n_critic_long=4, n_long_start=2)])
def test_a_killed_training_goes_on_in_the_same_bits(tmp_path, config):
    with deterministic("cpu"):
        whole = train(config, made_up(), space(tmp_path, "whole"))
        for _ in range(3):  # the second and third go on from a checkpoint, a step each
            with pytest.raises(OutOfTime):
                train(config, made_up(), space(tmp_path, "killed", deadline=1.0))
        killed = train(config, made_up(), space(tmp_path, "killed"))
    assert [repr(row) for row in whole.history] == [repr(row) for row in killed.history]  # nan too
    for a, b in zip((*whole.nets, whole.record), (*killed.nets, killed.record), strict=True):
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor, b.state_dict()[name]), name
    assert whole.record.estimates.count_nonzero() == config.n_steps
    assert whole.history[-1]["critic_steps"] == sum(critic_steps(config, step) for step in range(config.n_steps))


def test_progress_counts_critic_steps_of_which_iterations_have_unequally_many(tmp_path):
    told = []
    config = replace(TINY, schedule="authors", n_critic_long=4, n_long_start=2)
    train(config, made_up(), space(tmp_path, "x", progress=lambda *counts: told.append(counts)))
    assert told[-1] == (4 + 4 + 4 * 2, 4 + 4 + 4 * 2)


def test_history_holds_the_median_since_the_last_row(tmp_path):
    found = train(replace(TINY, init_sd=0.3), made_up(), space(tmp_path, "x"))
    assert [row["step"] for row in found.history] == [1, 2, 3, 4, 5, 6]
    assert [row["estimate"] for row in found.history] == found.record.estimates.tolist()
    assert all(math.isnan(row["distance"]) for row in found.history)  # no extractor fits these images
    assert found.record.strips.shape == (4, 16, *SHAPE)
    assert found.record.strips.float().std() > 5  # pictures, not one grey


def test_of_an_even_number_of_iterations_a_row_has_the_lower_of_the_two_middle_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "N_POINTS", 3)
    found = train(replace(TINY, init_sd=0.3), made_up(), space(tmp_path, "x"))
    assert [row["step"] for row in found.history] == [2, 4, 6]
    pairs = found.record.estimates.view(3, 2)
    assert [row["estimate"] for row in found.history] == pairs.amin(1).tolist() != pairs.mean(1).tolist()


def test_the_last_images_that_fill_no_minibatch_are_never_seen(tmp_path):
    images = pictures(20)
    records = []
    for changed in (None, slice(16, 20), slice(12, 16)):
        others = images.clone()
        if changed:
            others[changed] = 255 - others[changed]
        of_run = train(TINY, Pixels(others, images, None, "made up", "test"), space(tmp_path, f"{changed}"))
        records.append(of_run.record.estimates)
    assert torch.equal(records[0], records[1])
    assert not torch.equal(records[0], records[2])


def test_a_training_that_diverges_is_stopped(tmp_path):
    config = replace(GP, learning_rate=1e30)
    with pytest.raises(Diverged, match="estimate became"):
        train(config, made_up(), space(tmp_path, "x"))
