"""The linear VAE's mean bound, its optimum and what is counted on it, beside exact linear-Gaussian models."""

import dataclasses
import math

import pytest
import torch

from lib import datasets
from lib.datasets import Dataset
from lib.execution.workspace import Workspace
from lib.losses.elbo import kl_to_standard_normal
from lib.models.gaussian_vae import Gaussian
from lib.models.linear_gaussian import LinearGaussian, principal_components
from lib.training.randomness import Streams, generator
from replications.vae2013.linear_vae import (
    UNITS,
    LinearVaeConfig,
    Setting,
    Trained,
    best_bound,
    dequantised,
    exact_optimum,
    linear_vae,
    mean_bound,
    measured,
    plain_bound,
    predicted_used,
    settings,
    train,
)

CONFIG = LinearVaeConfig("mnist-5k", fitted=(2,), n_latent=4, noise_variances=(0.5,), betas=(2.0,), n_models=2)
PLAIN, WEIGHTED = Setting("s2", 4, 0.5, 1.0), Setting("beta", 4, 0.5, 3.0)


@pytest.fixture(scope="module")
def points():
    """400 points in 6 dimensions with variances near 6, 3, 1.8, 1, .3 and .1, turned; a mean of its own."""
    rng = generator(0, "points")
    scale = torch.tensor([6.0, 3.0, 1.8, 1.0, 0.3, 0.1], dtype=torch.float64).sqrt()
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=rng))[0]
    return scale * torch.randn(400, 6, dtype=torch.float64, generator=rng) @ turn + 2


def random_model(d, k):
    rng = generator(0, "random model")
    draws = [torch.randn(shape, dtype=torch.float64, generator=rng) for shape in ((d, k), (k, d), (k,))]
    return Trained(*draws, 0)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_mean_bound_is_the_mean_of_the_bounds_of_all_points(points, beta):
    components = principal_components(points)
    found = random_model(6, 4)
    model = LinearGaussian(components.directions @ found.weight, components.mean, 0.5)
    code = (points - components.mean) @ components.directions @ found.encoder.T
    q = Gaussian(code, found.logvar.expand_as(code))
    alone = model.elbo(points, q) - (beta - 1) * kl_to_standard_normal(*q)
    value = mean_bound(components.variances, *found[:3], 0.5, beta)
    assert value.item() == pytest.approx(alone.mean().item(), rel=1e-12)


def test_the_best_bound_is_the_likelihood_of_probabilistic_pca(points):
    components = principal_components(points)
    exact = exact_optimum(components, PLAIN)
    assert best_bound(components.variances, PLAIN) == pytest.approx(exact.log_marginal(points).mean().item(), rel=1e-12)
    fitted = LinearGaussian.fit(components, 4)
    again = exact_optimum(components, Setting("k", 4, fitted.noise_variance, 1.0))
    torch.testing.assert_close(again.weight, fitted.weight)


def test_the_optimum_of_the_weighted_bound_has_no_slope_and_no_better_neighbour(points):
    components = principal_components(points)
    variances = components.variances
    level = WEIGHTED.beta * WEIGHTED.noise_variance  # 1.5: three variances are above it
    lengths = (variances[:4] - level).clamp_min(0).sqrt()
    weight = torch.zeros(6, 4, dtype=torch.float64)
    weight[range(4), range(4)] = lengths
    torch.testing.assert_close(exact_optimum(components, WEIGHTED).weight, components.directions @ weight)
    m = lengths.square() + level
    at = [weight, weight.T / m[:, None], (level / m).log()]
    free = [each.clone().requires_grad_() for each in at]
    value = mean_bound(variances, *free, 0.5, 3.0)
    for slope in torch.autograd.grad(value, free):
        assert slope.abs().max().item() < 1e-10
    rng = generator(0, "neighbours")
    for _ in range(200):
        near = [each + 0.02 * torch.randn(each.shape, dtype=torch.float64, generator=rng) for each in at]
        assert mean_bound(variances, *near, 0.5, 3.0) < value
    assert best_bound(variances, WEIGHTED) == pytest.approx(mean_bound(variances, *at, 0.5, 1.0).item(), rel=1e-12)
    assert best_bound(variances, WEIGHTED) < best_bound(variances, PLAIN)


@pytest.mark.parametrize(("setting", "used"), [(PLAIN, 4), (WEIGHTED, 3), (Setting("all", 4, 8.0, 1.0), 0)])
def test_training_uses_the_directions_above_the_level_and_reaches_the_best_bound(points, setting, used):
    components = principal_components(points)
    assert predicted_used(components.variances, setting) == used
    found = train(components.variances, setting, CONFIG, generator(0, "start"))
    values, spread = measured(found, components, points, setting)
    assert values.used == used
    assert values.shortfall == pytest.approx(0, abs=1e-4)
    wanted = (1 - setting.beta * setting.noise_variance / components.variances[:4]).clamp_min(0)
    torch.testing.assert_close(spread.sort(descending=True).values, wanted, rtol=0, atol=2e-3)
    if used:
        assert values.alignment == pytest.approx(1, abs=1e-3)
        assert values.length_error < 1e-3
    else:
        assert math.isnan(values.alignment)
    # By the trained encoder; at beta 1 it is the best one, and the closed form of the gap holds.
    assert values.gap == pytest.approx(values.gap_formula, abs=1e-4) if setting.beta == 1 else values.gap > 0.05


def test_measures_of_a_model_made_by_hand(points):
    """Two columns turned by 30 degrees in the first two directions, one column of 0."""
    components = principal_components(points)
    c, s = math.cos(math.pi / 6), 0.5
    weight = torch.zeros(6, 3, dtype=torch.float64)
    weight[:2, :2] = 2 * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    model = LinearGaussian(weight, torch.zeros(6, dtype=torch.float64), 0.5)
    encoder = torch.linalg.solve(model.precision, weight.T / 0.5)
    found = Trained(weight, encoder, -model.precision.diagonal().log(), 0)
    setting = Setting("hand", 3, 0.5, 1.0)
    values, spread = measured(found, components, points, setting)
    assert values.used == 2
    assert spread[2].item() == 0
    best = exact_optimum(components, setting).log_marginal(points).mean().item()
    assert values.shortfall == pytest.approx(best - values.bound)  # the same points: a bound below the best there is
    assert values.shortfall > 0.1
    assert values.alignment == pytest.approx(c)
    lengths = components.variances[:3] - 0.5
    off = (torch.tensor([4.0, 4.0, 0.0], dtype=torch.float64) - lengths).abs().max() / lengths.max()
    assert values.length_error == pytest.approx(off.item())
    assert values.gap == pytest.approx(values.gap_formula, abs=1e-9)
    assert values.gap == pytest.approx(0, abs=1e-9)  # equal lengths: W'W stays diagonal when turned
    turned = LinearGaussian(components.directions @ weight, components.mean, 0.5)
    assert values.log_marginal == pytest.approx(turned.log_marginal(points).mean().item())


def test_directions_that_are_not_sought_are_noise(points):
    components = principal_components(points)
    part = random_model(4, 3)
    whole = Trained(torch.cat([part.weight, torch.zeros(2, 3)]), torch.cat([part.encoder, torch.zeros(3, 2)], 1),
                    part.logvar, 0)  # fmt: skip
    setting = Setting("part", 3, 0.5, 1.0)
    full = mean_bound(components.variances, *whole[:3], 0.5, 1.0)
    assert plain_bound(components.variances, part, setting) == pytest.approx(full.item(), rel=1e-12)
    few, many = (measured(each, components, points, setting)[0] for each in (part, whole))
    assert few == pytest.approx(many)


def test_dequantised_pixels_are_spread_over_their_step():
    images = torch.full((300, 1, 4, 4), 7, dtype=torch.uint8)
    data = Dataset("one", images, None, {"train": range(300)}, "", 255)
    values = dequantised(data, "train", Streams(0))
    assert values.shape == (300, 16)
    assert 7 / 256 <= values.min() < 7.01 / 256
    assert 7.99 / 256 < values.max() < 8 / 256
    assert values.mean().item() == pytest.approx(7.5 / 256, abs=1e-4)


def test_settings_are_the_fitted_ones_and_both_sweeps(points):
    made = settings(principal_components(points), CONFIG)
    assert [s.name for s in made] == ["k2", "s2_0p5", "beta_2"]
    assert made[0].noise_variance == pytest.approx(principal_components(points).variances[2:].mean().item())
    assert [(s.n_latent, s.noise_variance, s.beta) for s in made[1:]] == [(4, 0.5, 1.0), (4, 0.5, 2.0)]


def test_a_run_has_a_score_for_each_measure_and_setting(tmp_path):
    config = dataclasses.replace(CONFIG, n_directions=12, n_iterations=15)
    outcome = linear_vae(config, datasets.load("mnist-5k"), Workspace(tmp_path, 0))
    names = [model["name"] for model in outcome.facts["models"]]
    assert set(outcome.scores) == {f"{m}_{n}" for m in (*UNITS, "surplus") for n in names}
    score = outcome.scores["bound_beta_2"]
    assert (score.n, score.protocol["averaged_over"], score.protocol["beta"]) == (2, "models", 2.0)
    assert score.stderr > 0  # starts differ
    surplus = outcome.facts["models"][1]["predicted_used"] - outcome.scores["used_s2_0p5"].value
    assert outcome.scores["surplus_s2_0p5"].value >= abs(surplus)
    assert outcome.weights["weight_k2"].shape == (12, 2)
    assert outcome.facts["models"][1]["above"] == 22  # of the 4,000 digits; independent of the training
