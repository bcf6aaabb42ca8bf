"""Figure 1's experiment: its densities against scipy and closed forms, its step against one model alone."""

import dataclasses
import math

import pytest
import torch
from scipy import integrate, stats
from scipy.spatial.distance import jensenshannon

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.training.randomness import Streams, generator
from replications.gan2014.config import FigureOneConfig
from replications.gan2014.figure_one import (
    CENTRES,
    EDGES,
    HALF_WIDTH,
    NOISE,
    WIDTH,
    Minibatches,
    Mlp,
    data_cdf,
    data_quantiles,
    figure_one,
    jensen_shannon,
    measure,
    optimal_discriminator,
    players,
    pushed_cdf,
    pushed_density,
    value,
)

TINY = FigureOneConfig(n_steps=8, n_models=2, n_first=3, n_inner=4, n_moves=2, hidden=(5,), batch=8, k=2,
                       steps_between_rows=5)  # fmt: skip
BIWEIGHT = stats.beta(3, 3, loc=-HALF_WIDTH, scale=2 * HALF_WIDTH)


def test_p_data_is_the_biweight_of_unit_variance():
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    torch.testing.assert_close(data_cdf(x), torch.tensor(BIWEIGHT.cdf(x.numpy())), atol=1e-12, rtol=0)
    assert BIWEIGHT.var() == pytest.approx(1)
    p = torch.tensor([0.005, 0.3, 0.995], dtype=torch.float64)
    torch.testing.assert_close(data_quantiles(p), torch.tensor(BIWEIGHT.ppf(p.numpy())), atol=1e-9, rtol=0)


def test_minibatches_have_the_two_distributions_and_depend_on_the_step_alone():
    config = FigureOneConfig(n_steps=1, n_models=3, batch=500)
    x, z = Minibatches(config, Streams(0))(4)
    assert stats.kstest(x[0, 0].flatten().numpy(), BIWEIGHT.cdf).statistic < 0.01  # stratified: 1 / B at most
    assert stats.kstest(z[-1, 1].flatten().numpy(), stats.uniform(-NOISE, 2 * NOISE).cdf).statistic < 0.01
    again = Minibatches(config, Streams(0))
    again(3)
    assert torch.equal(again(4)[0], x)
    assert not torch.equal(x[0], x[1])


def test_a_linear_map_pushes_the_uniform_to_a_uniform():
    """x = 1/2 - z on (-1, 1): p_g = 1/2 on (-1/2, 3/2), by the change of variables."""
    z = torch.linspace(-1, 1, 101, dtype=torch.float64)
    density = pushed_density((0.5 - z)[None], EDGES)[0]
    expected = ((CENTRES > -0.5) & (CENTRES < 1.5)).double() / 2
    torch.testing.assert_close(density, expected, atol=1e-9, rtol=0)


def test_a_map_that_folds_adds_its_branches():
    """x = z^2 for z uniform on (-1, 1) has the distribution function sqrt(x)."""
    z = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    edges = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(pushed_cdf(z.square()[None], edges)[0], edges.sqrt(), atol=1e-5, rtol=0)


def test_mass_beyond_the_edges_is_counted():
    density = pushed_density(torch.full((1, 11), 9.0, dtype=torch.float64), EDGES)
    assert density.sum().item() * WIDTH == pytest.approx(1)


def test_the_optimal_discriminator_on_the_fact_sheets_case():
    p = torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0])
    q = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0])
    expected = torch.tensor([0.8333, 0.6, 0.4, 0.0, 0.5])  # fact sheet, theory 2; 1/2 where both are 0
    torch.testing.assert_close(optimal_discriminator(p, q), expected, atol=1e-4, rtol=0)


def test_divergence_and_value_against_scipy():
    x = torch.linspace(-8, 9, 4001, dtype=torch.float64)
    width = (x[1] - x[0]).item()
    p, q = (torch.tensor(stats.norm(m, 1).pdf(x.numpy())) for m in (0, 1))
    found = jensen_shannon(p, q, width).item()
    assert found == pytest.approx(0.111421, abs=1e-6)  # fact sheet, N(0, 1) against N(1, 1)
    assert found == pytest.approx(jensenshannon(p.numpy(), q.numpy()) ** 2, abs=1e-9)

    def integrand(t: float) -> float:
        d = 1 / (1 + math.exp(t - 0.5))  # D* of this pair: the logistic function of m^2 / 2 - m x
        return stats.norm.pdf(t) * math.log(d) + stats.norm.pdf(t, 1) * math.log(1 - d)

    best = value(p, q, optimal_discriminator(p, q), width).item()
    assert best == pytest.approx(integrate.quad(integrand, -8, 9)[0], abs=1e-6)
    assert best == pytest.approx(2 * found - math.log(4), abs=1e-9)  # Theorem 1
    assert value(p, q, torch.full_like(p, 0.5), width).item() < best


def test_one_of_many_models_moves_as_it_would_alone():
    """Model 0 of three after a step of each player, against plain autograd and torch's Adam on model 0 alone."""
    nets = [Mlp(3, (1, 4, 1), generator(0, name)) for name in ("G", "D")]
    alone = [[p[0].detach().clone().requires_grad_() for p in net.parameters()] for net in nets]
    pair = players(*nets, (0.0, 0.9))
    pair.set_rates(0.01, 0.02)
    x, z, fresh = torch.randn(3, 3, 6, 1, generator=generator(0, "points")).unbind(0)

    def net(parameters: list[torch.Tensor], points: torch.Tensor) -> torch.Tensor:
        return torch.tanh(points @ parameters[0] + parameters[1]) @ parameters[2] + parameters[3]

    adams = [torch.optim.Adam(p, lr=rate, betas=(0.0, 0.9)) for p, rate in zip(alone, (0.01, 0.02), strict=True)]
    d_real, d_fake = (net(alone[1], points).sigmoid() for points in (x[0], net(alone[0], z[0]).detach()))
    (-0.5 * (d_real.log().mean() + (1 - d_fake).log().mean())).backward()
    adams[1].step()
    slopes = [None, [p.grad.clone() for p in alone[1]]]  # before the generator's loss adds to them
    (-net(alone[1], net(alone[0], fresh[0])).sigmoid().log().mean()).backward()
    adams[0].step()
    slopes[0] = [p.grad for p in alone[0]]

    pair.update_discriminator(x, z)
    pair.update_generator(fresh)
    for batched, single, slope in zip((pair.generator, pair.discriminator), alone, slopes, strict=True):
        for many, one, gradient in zip(batched.parameters(), single, slope, strict=True):
            torch.testing.assert_close(many.grad[0], gradient, rtol=1e-4, atol=1e-7)  # Adam would hide a factor
            torch.testing.assert_close(many[0], one, rtol=1e-4, atol=1e-6)


def test_the_end_is_judged_as_said():
    """A perfect G and a D of 1/2 score 0; a D that is 0.1 off somewhere on the support misses the bound."""
    quantiles = data_quantiles(torch.linspace(0, 1, 2001, dtype=torch.float64))
    images = quantiles.expand(4, 2, -1)
    d = torch.full((4, 2, len(CENTRES)), 0.5, dtype=torch.float64)
    d[3, 1, 90] = 0.4
    scores, facts = measure(images, d, d[3], FigureOneConfig(1))
    assert scores["jsd_d"].value < 2e-4  # the map is piecewise linear, and steep at the ends
    assert scores["w1_d"].value < 2e-3
    assert facts["models"]["half_met"] == [1.0, 0.0]
    assert facts["models"]["half_gap"] == pytest.approx([0.0, 0.1])
    assert scores["optimal_half_gap"].value < 0.01
    assert scores["value_shortfall"].value == pytest.approx(0, abs=4e-4)


def test_phases_touch_one_player_and_the_game_goes_on_from_a(tmp_path):
    with deterministic("cpu"):
        outcome = figure_one(TINY, Workspace(tmp_path, 0))
    images, d = outcome.weights["images"], outcome.weights["d"]
    assert torch.equal(images[0], images[1])  # (b): G is fixed
    assert not torch.equal(d[0], d[1])
    assert not torch.equal(images[1], images[2])  # (c): D is fixed
    assert torch.equal(d[1], d[2])
    assert outcome.scores["jsd_d"].n == TINY.n_models
    assert outcome.scores["jsd_d"].protocol["averaged_over"] == "models"
    assert [row["step"] for row in outcome.history] == [5, 10, 14]


def test_the_branch_leaves_no_trace_in_the_game(tmp_path):
    """With no step after (c) both the playing and the averaged pair are those of (a), with fresh optimisers."""
    config = dataclasses.replace(TINY, n_steps=TINY.n_first)
    with deterministic("cpu"):
        outcome = figure_one(config, Workspace(tmp_path, 0))
    assert torch.equal(outcome.weights["d"][3], outcome.weights["d"][0])
    assert outcome.facts["models"]["half_gap_last"] == outcome.facts["models"]["half_gap"]
    pair = players(*(Mlp(2, (1, 3, 1), generator(0, name)) for name in ("G", "D")), (0.0, 0.9))
    pair.set_rates(0.1, 0.1)
    pair.update_discriminator(torch.ones(2, 4, 1), torch.ones(2, 4, 1))
    pair.restart()
    assert all(slot.abs().sum() == 0 for slots in pair.discriminator_adam.state.values() for slot in slots.values())
    assert torch.equal(pair.discriminator.layers[0].weight, pair.mean_discriminator.layers[0].weight)


def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    with deterministic("cpu"):
        whole = figure_one(TINY, Workspace(tmp_path / "whole", 0))
        for _ in range(20):  # past its deadline from the start, so one step an attempt
            workspace = Workspace(tmp_path, 0, deadline=0.0)
            try:
                figure_one(TINY, workspace)
            except OutOfTime:
                continue
            break
        pieces = figure_one(TINY, Workspace(tmp_path, 0))
    assert pieces.history == whole.history
    assert all(torch.equal(pieces.weights[name], tensor) for name, tensor in whole.weights.items())
