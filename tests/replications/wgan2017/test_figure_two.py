"""Figure 2: D* and its gradients by quadrature, measures of known functions, the discriminator's step, resumption."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn
from torch.nn import functional as F

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.training.randomness import Streams
from replications.wgan2017.config import FigureTwoConfig
from replications.wgan2017.figure_two import (
    EDGE,
    KINDS,
    N_GRID,
    build,
    correlation,
    density,
    discriminator_step_,
    draw,
    figure_two,
    measured,
    optimal_logit,
    values_and_slopes,
)

TINY = FigureTwoConfig(n_steps=12, n_models=2, width=8, batch=16)
OTHER = FigureTwoConfig(real_mean=2.0, fake_mean=-1.0, sd=1.2)  # the other way round, and not in the middle
GRID = torch.linspace(-EDGE, EDGE, N_GRID, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic("cpu"):
        yield


def found_for(config, critic, critic_slope, logit=None, slope=None):
    """The measures where both critics are (values, slopes) and the discriminator is D* unless given."""
    if logit is None:
        logit = optimal_logit(config, GRID)
        slope = torch.full_like(logit, (config.real_mean - config.fake_mean) / config.sd**2)
    drawn = {"discriminator": (logit[None], slope[None]), "clip": (critic[None], critic_slope[None])}
    return measured(config, GRID, {**drawn, "penalty": drawn["clip"]})


@pytest.mark.parametrize("config", [TINY, OTHER], ids=["tiny", "other"])
def test_optimal_logit_is_the_difference_of_log_densities(config):
    x = GRID.numpy()
    expected = norm.logpdf(x, config.real_mean, config.sd) - norm.logpdf(x, config.fake_mean, config.sd)
    np.testing.assert_allclose(optimal_logit(config, GRID).numpy(), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        density(GRID, config.fake_mean, config.sd).numpy(), norm.pdf(x, config.fake_mean, config.sd), rtol=1e-9
    )


@pytest.mark.parametrize("config", [TINY, OTHER], ids=["tiny", "other"])
def test_exact_gradients_are_those_of_quadrature(config):
    p, q = norm(config.real_mean, config.sd), norm(config.fake_mean, config.sd)

    def d(x):
        return p.pdf(x) / (p.pdf(x) + q.pdf(x))

    def rest(x):
        return q.pdf(x) / (p.pdf(x) + q.pdf(x))

    def mean_slope(f, step=1e-4):
        return quad(lambda x: q.pdf(x) * abs(f(x + step) - f(x - step)) / (2 * step), -7.9, 7.9, limit=300)[0]

    _, exact = found_for(config, GRID, torch.ones_like(GRID))
    assert exact["discriminator_gradient"] == pytest.approx(mean_slope(d), rel=1e-3)
    assert exact["saturating_gradient"] == pytest.approx(mean_slope(lambda x: math.log(rest(x))), rel=2e-3)
    assert exact["nonsaturating_gradient"] == pytest.approx(mean_slope(lambda x: math.log(d(x))), rel=2e-3)
    largest = abs(config.real_mean - config.fake_mean) / config.sd**2 / 4  # the sigmoid's slope is 1/4 at most
    assert exact["discriminator_slope"] == pytest.approx(exact["discriminator_gradient"] / largest, rel=1e-3)


def test_measures_of_a_straight_critic():
    for config in (TINY, OTHER):
        sign = math.copysign(1, config.real_mean - config.fake_mean)
        found, _ = found_for(config, 3 * sign * GRID + 5, torch.full_like(GRID, 3 * sign))
        assert found["clip_linearity"].item() == pytest.approx(1)
        assert found["clip_slope"].item() == pytest.approx(1)
        assert found["penalty_ratio"].item() == pytest.approx(3, rel=1e-3)  # its slope
        turned, _ = found_for(config, -3 * sign * GRID, torch.full_like(GRID, -3 * sign))
        assert turned["penalty_linearity"].item() == pytest.approx(-1)
        assert turned["penalty_ratio"].item() == pytest.approx(-3, rel=1e-3)


def test_measures_of_bent_critics():
    flat_on_fakes = -GRID.clamp(max=0.0)  # slope -1 left of 0, where the reals are
    found, _ = found_for(TINY, flat_on_fakes, -(GRID < 0).double())
    assert found["clip_slope"].item() == pytest.approx(norm.cdf(0, 3, 1), abs=5e-5)  # a step at 0, on the grid
    between = np.linspace(-3, 3, 601)
    expected = np.corrcoef(-np.minimum(between, 0), -between)[0, 1]
    assert found["clip_linearity"].item() == pytest.approx(expected, abs=1e-3)
    wild_outside = torch.where(GRID.abs() > 3.01, 40 * GRID.sin(), -GRID)  # beyond the modes nothing is asked
    assert found_for(TINY, wild_outside, GRID)[0]["clip_linearity"].item() == pytest.approx(1)


def test_error_of_a_discriminator_that_knows_nothing():
    found, _ = found_for(TINY, GRID, torch.ones_like(GRID), torch.zeros_like(GRID), torch.zeros_like(GRID))
    p, q = norm(-3, 1), norm(3, 1)
    expected = quad(lambda x: abs(p.pdf(x) - q.pdf(x)) / 4, -8, 8)[0]
    assert found["discriminator_error"].item() == pytest.approx(expected, rel=1e-3)
    assert found_for(TINY, GRID, torch.ones_like(GRID))[0]["discriminator_error"].item() == pytest.approx(0, abs=1e-12)


def test_correlation_is_numpys():
    values = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    line = torch.linspace(2, -1, 50, dtype=torch.float64)
    expected = [np.corrcoef(row.numpy(), line.numpy())[0, 1] for row in values]
    assert correlation(values, line).tolist() == pytest.approx(expected)


def test_slopes_are_finite_differences_of_the_values():
    network = build(TINY, 0, torch.device("cpu"))["penalty"].network.double()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64) + 0.01
    values, slopes = values_and_slopes(network, x)
    assert values.shape == slopes.shape == (2, 9)
    with torch.no_grad():
        above, below = (network((x + h).view(1, -1, 1).repeat(2, 1, 1)).squeeze(-1) for h in (1e-7, -1e-7))
    torch.testing.assert_close(slopes, (above - below) / 2e-7, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(slopes[0], slopes[1])


def test_points_are_the_two_gaussians():
    config = FigureTwoConfig(n_models=2, batch=20_000, sd=0.5)
    real, fake = draw(config, Streams(0), 1)
    assert real.shape == (2, 20_000, 1)
    assert [side.mean().item() for side in (real, fake)] == pytest.approx([-3, 3], abs=0.02)
    assert [side.std().item() for side in (real, fake)] == pytest.approx([0.5, 0.5], abs=0.01)
    assert not torch.equal(real[0], real[1])
    assert not torch.allclose(real + 3, fake - 3)
    assert not torch.equal(real, draw(config, Streams(0), 2)[0])


def test_kinds_start_alike():
    kinds = build(TINY, 0, torch.device("cpu"))
    assert tuple(kinds) == KINDS
    for kind in KINDS[1:]:
        assert torch.equal(kinds[kind].flat.vector, kinds["discriminator"].flat.vector)
    assert not torch.equal(kinds["clip"].network[0].weight[0], kinds["clip"].network[0].weight[1])


def test_discriminator_step_is_that_of_a_plain_one():
    discriminator = build(TINY, 0, torch.device("cpu"))["discriminator"]
    real, fake = draw(TINY, Streams(0), 0)
    layers = [nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)]
    for mine, theirs in zip(discriminator.network, layers, strict=True):
        if hasattr(mine, "weight"):
            theirs.weight.data, theirs.bias.data = mine.weight[1].data.T.clone(), mine.bias[1, 0].data.clone()
    witness = nn.Sequential(*layers)
    label = torch.cat([torch.ones(16, 1), torch.zeros(16, 1)])
    F.binary_cross_entropy_with_logits(witness(torch.cat([real[1], fake[1]])), label).backward()
    discriminator_step_(discriminator, real, fake)
    gradient = discriminator.flat.vector.grad[: 2 * 8].view(2, 8)[1]  # of the first weights of model 1
    torch.testing.assert_close(gradient, witness[0].weight.grad[:, 0], rtol=1e-4, atol=1e-7)


def test_a_killed_run_ends_in_the_same_bits(tmp_path, monkeypatch):
    whole = figure_two(TINY, Workspace(tmp_path / "whole", 0))
    (tmp_path / "part").mkdir()
    steps, keep = iter(range(5)), Workspace.keep

    def stopping(self, state, total, **parts):
        if next(steps, None) is None:
            self.deadline = 0.0
        keep(self, state, total, **parts)

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "keep", stopping)
        with pytest.raises(OutOfTime):
            figure_two(TINY, Workspace(tmp_path / "part", 0))
    resumed = figure_two(TINY, Workspace(tmp_path / "part", 0))
    assert resumed.facts == whole.facts
    assert resumed.history == whole.history
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)


def test_outcome_is_whole(tmp_path):
    outcome = figure_two(TINY, Workspace(tmp_path, 3))
    assert all(math.isfinite(score.value) for score in outcome.scores.values())
    assert [row["step"] for row in outcome.history] == list(range(1, 13))
    assert len({tuple(row) for row in outcome.history}) == 1
    for name, values in outcome.facts.items():
        score = outcome.scores[name]
        assert score.value == pytest.approx(np.mean(values))
        assert (score.n, score.protocol["averaged_over"]) == (2, "models")
    assert outcome.scores["discriminator_gradient_exact"].value == pytest.approx(0.0062266, abs=1e-6)
    assert set(outcome.weights) == {"x", *(f"{kind}_values" for kind in KINDS)}
    bound = 1.02 * TINY.clip  # no parameter is beyond the clip, so neither is the value at 0
    value_at_0 = outcome.weights["clip_values"][:, N_GRID // 2].abs().max().item()
    assert value_at_0 <= bound * (1 + TINY.width * bound * (1 + TINY.width * bound))
    assert outcome.weights["penalty_values"].abs().max() > 10 * value_at_0


def test_a_short_training_finds_d_star_and_straight_critics(tmp_path):
    config = FigureTwoConfig(n_steps=500, n_models=2, width=16, clip_rate=5e-4, adam_rate=5e-3)
    outcome = figure_two(config, Workspace(tmp_path, 1))
    assert outcome.scores["discriminator_error"].value < 0.01
    # NOTE wgan2017-N21: 1 + W / (2 lambda); now and then a critic stays folded, so the best of them counts.
    assert max(outcome.facts["penalty_ratio"]) == pytest.approx(1 + 6 / 20, abs=0.03)
    assert max(outcome.facts["penalty_linearity"]) > 0.999
    assert outcome.scores["clip_linearity"].value > 0.95
