"""Annealed importance sampling of a generator, where log p(x) is known exactly or by quadrature."""

import math

import pytest
import torch

from lib.execution.execute import deterministic
from lib.models.linear_gaussian import LinearGaussian
from lib.training.randomness import Streams
from replications.gan2014.annealed import SIGMAS, annealed_scores, choose_sigma, dequantised

WEIGHT = torch.tensor([[0.12, 0.02], [0.05, 0.1], [0.0, 0.08], [-0.06, 0.03], [0.04, 0.0], [0.02, -0.09]])
OFFSET = torch.tensor([0.5, 0.4, 0.6, 0.5, 0.45, 0.55])
SIGMA = 0.1


def linear(z):
    return z @ WEIGHT.T + OFFSET


def images(n, seed=0):
    """Pixels k / 255 of the linear model with its noise."""
    noise = torch.Generator().manual_seed(seed)
    x = linear(torch.randn(n, 2, generator=noise)) + SIGMA * torch.randn(n, 6, generator=noise)
    return (x.clamp(0, 1) * 255).round() / 255


def test_a_linear_generators_likelihood_is_the_exact_one():
    validation, test = images(400, 1), images(40, 2)
    with deterministic("cpu"):
        scores = annealed_scores(
            linear, 2, False, validation, test, n_images=40, n_distributions=80, streams=Streams(0), sigmas=(SIGMA,)
        )
    exact = LinearGaussian(WEIGHT, OFFSET, SIGMA**2).log_marginal(dequantised(test, "test"))
    assert scores["ais_test"].value == pytest.approx(exact.mean().item(), abs=0.05)
    assert scores["ais_test"].n == 40
    assert scores["ais_bdmc_gap"].n == 20
    assert abs(scores["ais_bdmc_gap"].value) < 0.15
    assert not scores["ais_bdmc_gap"].higher_is_better
    assert scores["ais_test"].protocol["sigma"] == SIGMA


def test_a_uniform_prior_is_integrated_over_its_own_width():
    direction = torch.tensor([0.1, -0.05, 0.08])

    def line(z):
        return 0.5 + z * direction

    test = (line(torch.tensor([[-1.7], [-0.4], [0.9], [1.6], [0.0]])) * 255).round() / 255
    scores = annealed_scores(
        line, 1, True, test, test, n_images=5, n_distributions=60, streams=Streams(0), sigmas=(0.05,)
    )
    x, half = dequantised(test, "test").double(), math.sqrt(3)
    z = torch.linspace(-half, half, 20_001, dtype=torch.float64)
    square = (x[:, None] - line(z[:, None]).double()).square().sum(-1)
    density = torch.exp(-square / (2 * 0.05**2)) / (2 * math.pi * 0.05**2) ** 1.5
    want = (torch.trapezoid(density, z, dim=1) / (2 * half)).log().mean().item()
    assert scores["ais_test"].value == pytest.approx(want, abs=0.1)
    gaussian = annealed_scores(
        line, 1, False, test, test, n_images=5, n_distributions=60, streams=Streams(0), sigmas=(0.05,)
    )
    assert abs(gaussian["ais_test"].value - want) > 0.1  # another prior is another model
    assert (scores["ais_test"].protocol["noise"], gaussian["ais_test"].protocol["noise"]) == ("uniform", "gaussian")


def test_sigma_is_the_one_that_made_the_images():
    settings = {"n_chains": 16, "n_leapfrog": 10, "n_distributions": 20}
    choice = choose_sigma(linear, 2, dequantised(images(300, 3), "validation"), SIGMAS, Streams(0), **settings)
    assert choice.sigma == SIGMA
    assert len(choice.means) == len(SIGMAS)
    best = choice.means.index(max(choice.means))
    assert list(choice.means[: best + 1]) == sorted(choice.means[: best + 1])  # one peak


def test_a_generator_that_left_the_numbers_is_refused():
    settings = {"n_chains": 2, "n_leapfrog": 2, "n_distributions": 2}
    x = dequantised(images(4), "validation")

    def explodes(z):
        return z @ WEIGHT.T + math.inf

    with pytest.raises(ValueError, match="finite likelihood"):
        choose_sigma(explodes, 2, x, SIGMAS, Streams(0), **settings)


def test_dequantised_pixels_keep_their_level_and_their_noise():
    x = images(50)
    dequantised_x = dequantised(x, "test")
    assert torch.equal((dequantised_x * 256).floor(), (x * 255).round())
    assert torch.equal(dequantised(x[:20], "test"), dequantised_x[:20])
    assert not torch.equal(dequantised(x, "validation"), dequantised_x)
    assert dequantised_x.min() >= 0
    assert dequantised_x.max() < 1
