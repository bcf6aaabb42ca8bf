"""One step against plain NumPy-like arithmetic, the schedules against the authors' rule, and kills that lose no bit."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.execution.workspace import Diverged, OutOfTime, Workspace
from lib.losses.adversarial import discriminator_loss, nonsaturating_loss
from lib.training.randomness import Streams
from replications.gan2014.config import GanConfig
from replications.gan2014.networks import build
from replications.gan2014.splits import Splits
from replications.gan2014.train import (
    Minibatches,
    Noise,
    alternating_step,
    draw_noise,
    dropout_masks,
    optimizers_of,
    schedule_,
    simultaneous_step,
    train,
)

TINY = {
    "data": "mnist-5k",
    "n_train": 100,
    "n_epochs": 3,
    "generator_hidden": 16,
    "maxout_units": 6,
    "batch": 20,
    "n_parzen": 50,
    "epochs_between_choices": 1,
}
IMAGE = (1, 28, 28)


def config(**values: object) -> GanConfig:
    return GanConfig(**TINY | values)  # type: ignore[arg-type]


@pytest.fixture
def rows():
    random = torch.rand(3, 100, 784, generator=torch.Generator().manual_seed(0))
    return Splits(*random)


def start(rows: Splits, a_config: GanConfig):
    nets = build(a_config, IMAGE, rows.train.mean(0), Streams(0))
    minibatches = Minibatches(rows.train, sum(nets.discriminator.mask_widths), a_config, Streams(0))
    optimizers = optimizers_of(nets)
    schedule_(optimizers, a_config, 0, 5)
    return nets, optimizers, minibatches


def plain_gradients(nets, a_config, x, noise):
    """Both losses written out once more, each differentiated by a whole backward pass."""
    real, fake = dropout_masks(noise.dropout, nets.discriminator.mask_widths, a_config)
    samples = nets.generator(noise.z)
    on_real, on_fake = (torch.sigmoid(nets.discriminator(x_, m)) for x_, m in ((x, real), (samples, fake)))
    bce = nn.functional.binary_cross_entropy
    d_loss = 0.5 * (bce(on_real, torch.ones(20)) + bce(on_fake, torch.zeros(20)))
    g_loss = bce(on_fake, torch.ones(20))
    d = torch.autograd.grad(d_loss, list(nets.discriminator.parameters()), retain_graph=True)
    return d, torch.autograd.grad(g_loss, list(nets.generator.parameters()))


class TestSimultaneous:
    def test_both_move_from_the_same_point_by_the_authors_losses(self, rows):
        nets, optimizers, minibatches = start(rows, config())
        x, noise = minibatches.images(0), minibatches.noise("step", 0)
        before = copy.deepcopy(nets)
        expected = plain_gradients(before, config(), x, noise)
        simultaneous_step(nets, optimizers, config(), x, noise)
        for now, then, gradients in zip(nets, before, reversed(expected), strict=True):
            for moved, parameter, gradient in zip(now.parameters(), then.parameters(), gradients, strict=True):
                torch.testing.assert_close(moved, parameter - 0.1 * gradient, rtol=1e-4, atol=1e-7)

    def test_momentum_is_the_authors_velocity_while_the_rate_falls(self, rows):
        """v = m v - lr_t g_t with a rate that halves each step, written out, against five steps of the optimiser."""
        falling = config(learning_rate_divisor=2.0, momentum=(0.5, 0.9), momentum_epochs=2)
        nets, optimizers, _ = start(rows, falling)
        parameter = nets.generator.first.weight
        position, velocity = parameter.detach().clone(), torch.zeros_like(parameter)
        for step in range(5):
            gradient = torch.full_like(parameter, float(step + 1))
            for each in nets.generator.parameters():
                each.grad = torch.zeros_like(each)
            parameter.grad = gradient.clone()
            schedule_(optimizers, falling, step, 2)
            optimizers.generator.step()
            momentum = 0.5 if step < 2 else 0.9
            velocity = momentum * velocity - 0.1 / 2**step * gradient
            position += velocity
            torch.testing.assert_close(parameter, position)


class TestAlternating:
    def test_the_generator_meets_the_new_discriminator_and_fresh_noise(self, rows):
        nets, optimizers, minibatches = start(rows, config())
        x, noise, again = minibatches.images(0), minibatches.noise("step", 0), minibatches.noise("again", 0, passes=1)
        before = copy.deepcopy(nets)
        alternating_step(nets, optimizers, config(), x, noise, again)
        d_gradients, _ = plain_gradients(before, config(), x, noise)
        for moved, parameter, gradient in zip(
            nets.discriminator.parameters(), before.discriminator.parameters(), d_gradients, strict=True
        ):
            torch.testing.assert_close(moved, parameter - 0.1 * gradient, rtol=1e-4, atol=1e-7)
        (masks,) = dropout_masks(again.dropout, nets.discriminator.mask_widths, config())
        loss = nonsaturating_loss(nets.discriminator(before.generator(again.z), masks))
        gradients = torch.autograd.grad(loss, list(before.generator.parameters()))
        for moved, parameter, gradient in zip(
            nets.generator.parameters(), before.generator.parameters(), gradients, strict=True
        ):
            torch.testing.assert_close(moved, parameter - 0.1 * gradient, rtol=1e-4, atol=1e-7)


class TestSchedule:
    @pytest.mark.parametrize(("epoch", "rate"), [(50, 0.0905), (100, 0.0819), (250, 0.0607), (1000, 0.0135)])
    def test_the_rate_at_the_sheets_epochs(self, rows, epoch, rate):
        _, optimizers, _ = start(rows, config())
        schedule_(optimizers, GanConfig("mnist", 50_000, 250), 500 * epoch, 500)
        assert optimizers.generator.param_groups[0]["lr"].item() == pytest.approx(rate, abs=6e-5)

    def test_the_rate_has_a_floor_reached_after_2880000_updates(self, rows):
        _, optimizers, _ = start(rows, config())
        for step, floored in ((2_870_000, False), (2_890_000, True)):
            schedule_(optimizers, GanConfig("mnist", 50_000, 250), step, 500)
            assert (optimizers.generator.param_groups[0]["lr"].item() == pytest.approx(1e-6, rel=1e-6)) == floored

    @pytest.mark.parametrize(("epoch", "momentum"), [(0, 0.5), (249, 0.7), (400, 0.7)])
    def test_the_momentum_ramp(self, rows, epoch, momentum):
        _, optimizers, _ = start(rows, config())
        schedule_(optimizers, GanConfig("mnist", 50_000, 250), 500 * epoch + 499, 500)
        for optimizer in optimizers:
            assert optimizer.param_groups[0]["momentum"] == pytest.approx(momentum, rel=1e-5)

    def test_it_says_when_the_momentum_moved(self, rows):
        _, optimizers, _ = start(rows, config())
        steps = [schedule_(optimizers, GanConfig("mnist", 50_000, 250), step, 500) for step in (1, 2, 499, 500, 501)]
        assert steps == [True, False, False, True, False]


class TestNoise:
    def test_uniform_noise_has_unit_variance_and_walls(self):
        z = draw_noise(config(), 4000, torch.Generator().manual_seed(0))
        assert z.shape == (4000, 100)
        assert z.abs().max().item() == pytest.approx(3**0.5, rel=1e-4)
        assert z.var().item() == pytest.approx(1, abs=0.01)

    def test_gaussian_noise_has_none(self):
        z = draw_noise(config(noise="gaussian"), 4000, torch.Generator().manual_seed(0))
        assert z.abs().max() > 3**0.5
        assert z.var().item() == pytest.approx(1, abs=0.01)

    def test_dropout_keeps_and_rescales_as_the_yaml_says(self):
        uniform = torch.rand(2, 4000, 30, generator=torch.Generator().manual_seed(0))
        for passes in dropout_masks(uniform, (10, 12, 8), config()):
            for mask, keep in zip(passes, (0.8, 0.5, 0.5), strict=True):
                assert mask.unique().tolist() == pytest.approx([0.0, 1 / keep])
                assert mask.mean().item() == pytest.approx(1, abs=0.03)

    def test_every_step_and_pass_has_its_own(self, rows):
        _, _, minibatches = start(rows, config())
        first, second = minibatches.noise("step", 0), minibatches.noise("step", 1)
        assert not torch.equal(first.z, second.z)
        assert not torch.equal(first.dropout[0], first.dropout[1])
        again: Noise = minibatches.noise("step", 0)
        assert torch.equal(first.dropout, again.dropout)


class TestTrain:
    @pytest.mark.parametrize("update", ["simultaneous", "alternating"])
    def test_a_killed_run_goes_on_in_the_same_bits(self, rows, tmp_path: Path, update):
        whole = train(config(update=update), rows, IMAGE, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        for _ in range(20):
            workspace = Workspace(tmp_path / "killed", 0, checkpoint_seconds=0, deadline=0)  # stops at every step
            try:
                killed = train(config(update=update), rows, IMAGE, workspace)
                break
            except OutOfTime:
                continue
        assert len(workspace.resumed_at) > 10
        for part in ("generator", "discriminator"):
            one, other = (getattr(t.nets, part).state_dict() for t in (whole, killed))
            assert all(torch.equal(one[name], other[name]) for name in one)
        assert whole.history == killed.history
        assert whole.gradients == killed.gradients

    def test_the_chosen_generator_is_the_one_that_validation_liked_best(self, rows, tmp_path: Path):
        training = train(config(n_epochs=8), rows, IMAGE, Workspace(tmp_path, 0))
        values = [row["parzen_validation"] for row in training.history]
        assert len(values) == 8
        assert training.chosen_epoch == 1 + max(range(8), key=values.__getitem__)
        last, chosen = (net.state_dict()["output.bias"] for net in (training.nets.generator, training.chosen))
        assert torch.equal(last, chosen) == (training.chosen_epoch == 8)

    def test_at_the_start_both_gradients_are_equal_for_d_is_one_half(self, rows, tmp_path: Path):
        first = train(config(), rows, IMAGE, Workspace(tmp_path, 0)).gradients[0]
        assert first["d_fake"] == pytest.approx(0.5, abs=1e-3)
        assert first["norm_minimax"] == pytest.approx(first["norm_nonsaturating"], rel=1e-2)

    def test_the_discriminator_learns_to_tell_black_and_white_from_the_grey_the_generator_starts_with(self, tmp_path):
        coins = (torch.rand(100, 1, generator=torch.Generator().manual_seed(0)) < 0.5).float().expand(-1, 784)
        training = train(
            config(n_epochs=20, discriminator_init=0.05, maxout_units=30, learning_rate=0.15),
            Splits(coins, coins, coins),
            IMAGE,
            Workspace(tmp_path, 0),
        )
        losses = [row["loss_discriminator"] for row in training.history]
        assert discriminator_loss(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(losses[0], abs=0.2)
        assert min(losses) < 0.6

    def test_a_run_that_leaves_the_numbers_says_so_and_keeps_its_history(self, rows, tmp_path: Path):
        with pytest.raises(Diverged, match="discriminator's loss became") as diverged:
            train(config(learning_rate=1e4, discriminator_init=1.0), rows, IMAGE, Workspace(tmp_path, 0))
        assert diverged.value.history[-1]["epoch"] >= 1

    def test_an_update_of_no_known_kind_is_refused(self, rows, tmp_path: Path):
        with pytest.raises(ValueError, match="'sideways'"):
            train(config(update="sideways"), rows, IMAGE, Workspace(tmp_path, 0))
