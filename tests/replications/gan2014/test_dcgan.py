"""DCGAN's run: which network an update moves, what batch norm sees, sampling, curves, and going on after a kill."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from lib import datasets
from lib.execution.execute import deterministic
from lib.execution.workspace import CHECKPOINT, Diverged, OutOfTime, Workspace
from lib.models.dcgan import pack, to_unit_range
from lib.training.randomness import Streams
from replications.gan2014 import dcgan as module
from replications.gan2014.config import DcganConfig, StackedConfig
from replications.gan2014.dcgan import (
    COLUMNS,
    build,
    curve_steps,
    dcgan,
    discriminator_update,
    generate,
    generator_update,
    train,
    uniform_noise,
)

TINY = DcganConfig("mnist-5k", n_steps=6, n_filters=2, batch=20, n_latent=5, n_generated=40)


@pytest.fixture
def nets():
    return build(TINY, (1, 28, 28), Streams(0))


@pytest.fixture
def images():
    return datasets.load("mnist-5k").split("train")[0][:60]


@pytest.fixture
def noise():
    return uniform_noise(20, 5, torch.Generator().manual_seed(1))


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def moved(network, before):
    return [not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]


def test_an_update_moves_its_own_network_alone(nets, images, noise):
    g, d = weights(nets.generator), weights(nets.discriminator)
    discriminator_update(nets, to_unit_range(images[:20]), noise)
    assert not any(moved(nets.generator, g))
    assert all(moved(nets.discriminator, d))
    d = weights(nets.discriminator)
    generator_update(nets, noise)
    assert not any(moved(nets.discriminator, d))
    assert all(moved(nets.generator, g))
    assert all(p.grad is not None for p in nets.generator.parameters())


def test_the_generators_update_computes_no_gradient_of_the_discriminators_weights(nets, noise):
    generator_update(nets, noise)
    assert all(parameter.grad is None for parameter in nets.discriminator.parameters())


def test_every_update_of_every_step_has_noise_of_its_own(images, tmp_path):
    seen, config = [], StackedConfig(1, 3, data="mnist-5k", n_filters=2, n_layers=3, n_latent=5, batch=20)
    nets = build(config, (1, 28, 28), Streams(0))
    nets.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    train(nets, lambda rows: images.index_select(0, rows), len(images), config, Workspace(tmp_path, 0))
    assert len(seen) == 3 * (1 + config.generator_updates)
    assert len({tuple(z.flatten().tolist()) for z in seen}) == len(seen)


def test_the_discriminators_update_is_plain_autograd_and_adam(nets, images, noise):
    """Adam's first step is lr g / (|g| + eps): gradients by another way, BCE on probabilities, halved as in ours."""
    real = to_unit_range(images[:20])
    d, before = nets.discriminator, weights(nets.discriminator)
    fake = nets.generator(noise).detach()
    ours = nn.functional.binary_cross_entropy(d(real).sigmoid(), torch.ones(20))
    theirs = nn.functional.binary_cross_entropy(d(fake).sigmoid(), torch.zeros(20))
    gradients = torch.autograd.grad((ours + theirs) / 2, list(d.parameters()))
    statistics = discriminator_update(nets, real, noise)
    assert statistics[0].item() == pytest.approx(((ours + theirs) / 2).item(), rel=1e-5)
    for old, new, gradient in zip(before, d.parameters(), gradients, strict=True):
        clear = gradient.abs() > 1e-4
        torch.testing.assert_close((new - old)[clear], -2e-4 * gradient[clear].sign(), rtol=2e-3, atol=2e-7)


def test_batch_norm_sees_real_and_generated_images_apart(nets, images, noise):
    """Of the discriminator's two passes each takes 20 images; one pass of 40 would move the running mean once."""
    norm = next(layer for layer in nets.discriminator.layers if isinstance(layer, nn.BatchNorm2d))
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    discriminator_update(nets, to_unit_range(images[:20]), noise)
    assert [len(batch) for batch in seen] == [20, 20]
    expected = torch.zeros(norm.num_features)
    for batch in seen:
        expected = 0.9 * expected + 0.1 * batch.mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected)


def test_packs_reach_the_discriminator_as_pairs_of_one_batch(images, noise):
    config = StackedConfig(2, 1, data="mnist-5k", n_filters=2, n_layers=3, n_latent=5)
    nets = build(config, (1, 28, 28), Streams(0))
    seen = []
    nets.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    real = to_unit_range(images[:20])
    discriminator_update(nets, real, noise, n_pack=2)
    generator_update(nets, noise, n_pack=2)
    assert [tuple(x.shape) for x in seen] == [(10, 2, 28, 28)] * 3
    assert torch.equal(seen[0], pack(real, 2))
    assert torch.equal(seen[0][3], real[6:8, 0])
    assert not torch.equal(seen[0][3, 0], seen[0][3, 1])


def test_first_weights_do_not_depend_on_the_order_of_building_and_do_on_the_seed(nets):
    again, other = build(TINY, (1, 28, 28), Streams(0)), build(TINY, (1, 28, 28), Streams(1))
    assert torch.equal(nets.generator.project.weight, again.generator.project.weight)
    assert not torch.equal(nets.generator.project.weight, other.generator.project.weight)
    weight = build(dataclasses.replace(TINY, n_filters=16), (1, 28, 28), Streams(0)).generator.project.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_noise_is_uniform_with_the_variance_of_its_range():
    z = uniform_noise(1000, 50, torch.Generator().manual_seed(0))
    assert z.min() >= -1
    assert z.max() <= 1
    assert z.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.01)


def test_samples_are_bytes_that_depend_on_their_own_noise(nets, images):
    with torch.no_grad():
        for _ in range(20):  # running statistics other than those of the start
            nets.generator(uniform_noise(50, 5, torch.Generator().manual_seed(2)))
    whole = generate(nets.generator, 30, Streams(3))
    assert whole.shape == (30, 1, 28, 28)
    assert whole.dtype == torch.uint8
    assert whole.float().std() > 0
    z = uniform_noise(30, 5, Streams(3).at("generate", 0))
    alone = ((nets.generator(z[4:5]) + 1) * 127.5).round().to(torch.uint8)
    assert (whole[4:5].int() - alone.int()).abs().max() <= 1  # a level, by rounding of another batch size
    assert torch.equal(whole, generate(nets.generator, 30, Streams(3)))


def run(config, images, folder, seed=0, stop_after=None, **options):
    """Train on images; stop_after stands for a kill, in the midst of the step that follows so many."""
    workspace, steps = Workspace(folder, seed, **options), iter(range(10**6))

    def minibatch(rows):
        if next(steps) == stop_after:
            raise KeyboardInterrupt
        return images.index_select(0, rows)

    with deterministic("cpu"):
        nets = build(config, (1, 28, 28), workspace.streams)
        history = train(nets, minibatch, len(images), config, workspace)
    return nets, history, workspace


def test_a_killed_run_goes_on_in_the_same_bits(images, tmp_path):
    """Stopped in the middle of an interval of the curve, with Adam's moments, batch norm and the sums under way."""
    config, begun = dataclasses.replace(TINY, n_steps=45), tmp_path / "begun"
    whole, history, _ = run(config, images, tmp_path / "whole")
    assert 7 not in curve_steps(45)
    with pytest.raises(KeyboardInterrupt):
        run(config, images, begun, stop_after=7, checkpoint_seconds=0.0)
    assert (begun / CHECKPOINT).exists()
    again, resumed, workspace = run(config, images, begun)
    assert workspace.resumed_at == [7]
    assert resumed == history
    for network in ("generator", "discriminator"):
        ours, theirs = getattr(whole, network).state_dict(), getattr(again, network).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_equal_seeds_give_equal_bits_and_others_do_not(images, tmp_path):
    first, again, other = (run(TINY, images, tmp_path / str(i), seed)[1] for i, seed in enumerate((0, 0, 1)))
    assert first == again
    assert first[-1] != other[-1]


def test_a_run_out_of_time_keeps_its_state(images, tmp_path):
    with pytest.raises(OutOfTime, match="after step 1 of 6"):
        run(TINY, images, tmp_path, deadline=0.0)
    assert (tmp_path / CHECKPOINT).exists()


def test_the_curve_averages_the_steps_between_its_points(images, tmp_path, monkeypatch):
    """A run whose curve has every step, averaged by hand over the intervals of the real curve."""
    config = dataclasses.replace(TINY, n_steps=40)
    _, history, _ = run(config, images, tmp_path / "a")
    monkeypatch.setattr(module, "curve_steps", lambda n: set(range(1, n + 1)))
    _, every, _ = run(config, images, tmp_path / "b")
    assert [row["step"] for row in history] == list(range(2, 41, 2))
    for i, row in enumerate(history):
        for name in COLUMNS:
            assert row[name] == pytest.approx((every[2 * i][name] + every[2 * i + 1][name]) / 2, rel=1e-5)
    assert all(0 < row["d_fake"] < 1 and 0 < row["d_real"] < 1 for row in history)


def test_curves_have_few_points_and_end_at_the_end():
    assert len(curve_steps(12_345)) == 20
    assert max(curve_steps(12_345)) == 12_345
    assert curve_steps(3) == {1, 2, 3}


def test_a_diverging_run_stops_with_a_sentence(images, tmp_path):
    with pytest.raises(Diverged, match=r"The mean .* loss became nan at step"):
        run(dataclasses.replace(TINY, learning_rate=math.inf), images, tmp_path)


def test_a_run_is_scored_beside_the_untrained_network(tmp_path):
    with deterministic("cpu"):
        outcome = dcgan(TINY, Workspace(tmp_path, 0))
    assert {"fid", "is", "kid", "precision", "recall", "fid_untrained"} == set(outcome.scores)
    assert outcome.scores["fid"].n == 40
    assert outcome.scores["fid"].protocol["batch_norm"] == "running statistics"
    assert outcome.samples.shape == (1, 5 * 29 + 1, 8 * 29 + 1)
    assert outcome.samples.dtype == torch.uint8
    assert outcome.facts["images_trained_on"] == 4000
    assert outcome.weights["project.weight"].dtype == torch.float32


@pytest.mark.slow
def test_images_come_nearer_to_digits(tmp_path):
    """A network of eight filters, 400 steps: its FID falls to three quarters of the untrained one's, or lower."""
    config = dataclasses.replace(TINY, n_steps=400, n_filters=8, n_latent=50, n_generated=500, learning_rate=1e-3)
    with deterministic("cpu"):
        scores = dcgan(config, Workspace(tmp_path, 0)).scores
    assert scores["fid"].value < 0.75 * scores["fid_untrained"].value


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_repeats_its_bits_and_starts_where_a_cpu_does(images, tmp_path):
    ends, config = [], dataclasses.replace(TINY, n_filters=8)
    for place in ("a", "b"):
        workspace = Workspace(tmp_path / place, 0, "cuda")
        with deterministic("cuda"):
            nets, there = build(config, (1, 28, 28), workspace.streams), images.cuda()
            start = nets.generator.project.weight.detach().cpu().clone()
            train(nets, lambda rows, there=there: there.index_select(0, rows), len(there), config, workspace)
        ends.append(nets.generator.project.weight.detach().cpu())
    assert torch.equal(*ends)
    assert torch.equal(start, build(config, (1, 28, 28), Streams(0)).generator.project.weight.detach())
