"""Minibatches of models side by side, what they observe, and their start and optimiser beside those of one model."""

import dataclasses

import pytest
import torch

from lib import datasets
from lib.datasets.observation import dynamic_binarisation
from lib.training.randomness import Streams, generator
from replications.vae2013.evaluate import binarised
from replications.vae2013.side_by_side import (
    CurveConfig,
    Minibatches,
    adagrad,
    build,
    evaluation_images,
    hand_gradients,
    observed,
)

TINY = CurveConfig("mnist-5k", "wake-sleep", 3, 400, n_models=2, n_hidden=8, batch=10)
FREY = dataclasses.replace(TINY, observation="gaussian")


@pytest.fixture(scope="module")
def images():
    """35 images, each of one grey value that tells its number; 3 minibatches of 10, and 5 left over."""
    return (7 * torch.arange(35, dtype=torch.uint8))[:, None].expand(35, 64)


def numbers(x):
    """Which images a Gaussian minibatch (R, M, D) holds: (R, M)."""
    return (x.mean(-1) * 256 / 7).floor().long()


def test_each_model_sees_every_epoch_once_in_an_order_of_its_own(images):
    minibatches = Minibatches(images, FREY, Streams(0))
    epochs = [torch.cat([numbers(minibatches(3 * e + i).x) for i in range(3)], 1) for e in range(4)]  # (2, 30) each
    for epoch in epochs:
        assert all(len(order.unique()) == 30 for order in epoch)
        assert not torch.equal(epoch[0], epoch[1])
    assert not torch.equal(epochs[0], epochs[1])
    assert len(torch.cat(epochs, 1)[0].unique()) == 35  # what one epoch leaves over, another brings
    with pytest.raises(ValueError, match="35 images do not fill one minibatch of 40"):
        Minibatches(images, dataclasses.replace(TINY, batch=40), Streams(0))


def test_a_step_is_a_function_of_seed_and_step_alone(images):
    one, other = Minibatches(images, TINY, Streams(0)), Minibatches(images, TINY, Streams(0))
    one(0), one(5)
    for got, expected in zip(one(4), other(4), strict=True):
        assert torch.equal(got, expected)
    for got, later, elsewhere in zip(one(4), one(5), Minibatches(images, TINY, Streams(1))(4), strict=True):
        assert not torch.equal(got, later)
        assert not torch.equal(got, elsewhere)


@pytest.mark.parametrize("config", [TINY, FREY], ids=["bernoulli", "gaussian"])
def test_pixels_are_drawn_anew_at_each_visit(config):
    minibatches = Minibatches(torch.full((20, 64), 128, dtype=torch.uint8), config, Streams(0))
    first, second = minibatches(0).x, minibatches(1).x
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("config", [TINY, FREY], ids=["bernoulli", "gaussian"])
def test_draws_have_their_distributions_and_no_two_share_one(images, config):
    draws = Minibatches(images, dataclasses.replace(config, n_latent=500), Streams(0))(0)
    assert draws.x.shape == draws.dream_noise.shape == (2, 10, 64)
    for normal in (draws.noise, draws.dream_z):
        assert normal.mean().item() == pytest.approx(0, abs=0.04)  # 4 standard errors
        assert normal.std().item() == pytest.approx(1, abs=0.03)
    stacked = torch.stack([draws.noise, draws.dream_z]).flatten(2).flatten(0, 1)
    correlations = torch.corrcoef(stacked) - torch.eye(4)
    assert correlations.abs().max().item() < 0.06
    spread = 1 / 12**0.5 if config.observation == "bernoulli" else 1.0
    assert draws.dream_noise.std().item() == pytest.approx(spread, rel=0.08)
    assert not torch.equal(draws.dream_noise[0], draws.dream_noise[1])


def test_aevb_needs_no_dreams(images):
    draws = Minibatches(images, dataclasses.replace(TINY, algorithm="aevb"), Streams(0))(0)
    wake = Minibatches(images, TINY, Streams(0))(0)
    assert torch.equal(draws.x, wake.x)  # the same images and noise as wake-sleep of the same seed
    assert torch.equal(draws.noise, wake.noise)
    assert draws.dream_z.numel() == draws.dream_noise.numel() == 0


def test_bytes_become_binary_pixels_or_fill_their_cell():
    images = torch.tensor([0, 1, 128, 255], dtype=torch.uint8).repeat_interleave(5000).view(4, 5000)
    binary = observed(images, "bernoulli", generator(0, "test"))
    assert torch.equal(binary, dynamic_binarisation(images, generator(0, "test")))
    cells = observed(images, "gaussian", generator(0, "test")) * 256 - images
    assert (cells.min().item(), cells.max().item()) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))
    assert cells.mean(1).tolist() == pytest.approx(4 * [0.5], abs=0.017)  # 4 standard errors


def test_evaluation_images_are_those_of_the_other_runs_and_fixed():
    data, cpu = datasets.load("mnist-5k"), torch.device("cpu")
    assert torch.equal(evaluation_images(data, "test", "bernoulli", cpu), binarised(data, "test", cpu))
    grey = evaluation_images(data, "test", "gaussian", cpu)
    assert torch.equal(grey, evaluation_images(data, "test", "gaussian", cpu))
    cells = grey * 256 - data.split("test")[0].flatten(1)
    assert 0 <= cells.min().item() < 1e-3
    assert 0.999 < cells.max().item() <= 1


def test_every_parameter_starts_from_the_stated_normal():
    model = build(dataclasses.replace(TINY, init_sd=0.3, n_hidden=200), 60, Streams(0))
    for name, parameter in model.named_parameters():
        n = parameter.numel()
        assert parameter.std().item() == pytest.approx(0.3, rel=4 / (2 * n) ** 0.5), name
        assert not torch.equal(parameter[0], parameter[1])
    firsts = [parameter.flatten()[0].item() for parameter in model.parameters()]
    assert len(set(firsts)) == 8
    other = build(TINY, 60, Streams(1))
    assert not torch.equal(other.encoder_out.bias, build(TINY, 60, Streams(0)).encoder_out.bias)


def test_each_model_moves_by_its_own_step_size_and_the_prior():
    """Adagrad's second step by hand: rate g2 / sqrt(g1^2 + g2^2), g the loss gradient plus parameter / N."""
    model = build(TINY, 6, Streams(0))
    optimizer = adagrad(model, [0.01, 0.1], dataclasses.replace(TINY, prior_precision=2.0), n_train=50)
    expected = [parameter.detach().clone() for parameter in model.parameters()]
    totals = [torch.zeros_like(each) for each in expected]
    rates = torch.tensor([0.01, 0.1]).view(2, 1, 1)
    rng = torch.Generator().manual_seed(0)
    for _ in range(2):
        for parameter, value, total in zip(model.parameters(), expected, totals, strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=rng)
            gradient = parameter.grad + 2.0 / 50 * value
            total += gradient.square()
            value -= rates * gradient / total.sqrt()
        hand_gradients(model, optimizer)
        optimizer.step()
    for parameter, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)
