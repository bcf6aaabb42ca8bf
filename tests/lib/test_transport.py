"""Exact transport by hand, in its limits, against SciPy and POT, and where nothing may matter."""

import math

import numpy as np
import ot as pot
import pytest
import torch
from scipy import stats
from scipy.optimize import linprog
from scipy.spatial.distance import jensenshannon

from lib import transport as ot

CLOSE = 1e-9
SOURCES, TARGETS = [[0, 0], [1, 0], [0, 1], [1, 1]], [[2, 0], [2, 1], [0, 2], [1, 2]]
A, B = [0.4, 0.3, 0.2, 0.1], [0.25] * 4


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def simplex(*shape, seed=0):
    masses = np.random.default_rng(seed).exponential(size=shape)
    return masses / masses.sum(-1, keepdims=True)


def small_plan():
    return ot.transport_plan(ot.distances_between(SOURCES, TARGETS), A, B)


# --- on a line ---


def test_line_by_hand():
    assert ot.wasserstein_on_line([0, 1], [2, 3]) == 2
    assert ot.wasserstein_on_line([3, 0], [1, 1]) == pytest.approx((1 + 2) / 2, abs=1e-15)
    assert ot.wasserstein_on_line([0.0, 1.0], [0.0], [0.75, 0.25], [1.0]) == pytest.approx(0.25, abs=1e-15)
    assert ot.wasserstein_on_line([0.3], [0.3]) == 0


@pytest.mark.parametrize("n", [1, 2, 50])
def test_line_agrees_with_scipy(n):
    x, y, a, b = draws(n), draws(n, seed=1), simplex(n), simplex(n + 3, seed=1)
    assert ot.wasserstein_on_line(x, y) == pytest.approx(stats.wasserstein_distance(x, y), abs=CLOSE)
    wide = draws(n + 3, seed=2)
    theirs = stats.wasserstein_distance(x, wide, a, b)
    assert ot.wasserstein_on_line(x, wide, a, b) == pytest.approx(theirs, abs=CLOSE)
    equal = np.full(n, 1 / n)
    assert ot.wasserstein_on_line(x, y, equal, equal) == pytest.approx(ot.wasserstein_on_line(x, y), abs=CLOSE)


def test_line_ignores_order_and_a_common_shift():
    x, y, order = draws(20), draws(20, seed=1), np.random.default_rng(3).permutation(20)
    value = ot.wasserstein_on_line(x, y)
    assert ot.wasserstein_on_line(x[order], y) == pytest.approx(value, abs=1e-12)
    assert ot.wasserstein_on_line(x + 7, y + 7) == pytest.approx(value, abs=1e-12)
    assert ot.wasserstein_on_line(y, x) == pytest.approx(value, abs=1e-12)
    assert ot.wasserstein_on_line(x + 100, y) == pytest.approx(100 + x.mean() - y.mean(), abs=1e-10)
    a = simplex(20)
    moved = ot.wasserstein_on_line(x[order] + 7, y + 7, a[order], np.full(20, 0.05))
    assert moved == pytest.approx(ot.wasserstein_on_line(x, y, a, np.full(20, 0.05)), abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 10, 1000])
def test_grids_against_the_uniform(n):
    assert ot.wasserstein_to_uniform((np.arange(n) + 0.5) / n) == pytest.approx(1 / (4 * n), rel=CLOSE)
    assert ot.wasserstein_to_uniform(np.arange(n) / n) == pytest.approx(1 / (2 * n), rel=CLOSE)
    assert ot.wasserstein_to_uniform(np.arange(1, n + 1) / n) == pytest.approx(1 / (2 * n), rel=CLOSE)


def test_single_points_against_the_uniform():
    assert ot.wasserstein_to_uniform([0.0]) == pytest.approx(1 / 2, abs=1e-15)
    assert ot.wasserstein_to_uniform([0.0, 1.0]) == pytest.approx(1 / 4, abs=1e-15)
    assert ot.wasserstein_to_uniform([-2.0]) == pytest.approx(2.5, abs=1e-15)
    assert ot.wasserstein_to_uniform([4.0]) == pytest.approx(3.5, abs=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_the_uniform_as_a_fine_grid(seed):
    """SciPy's W1 to 2 10^5 midpoints, which are themselves 1.25e-6 from U[0, 1]."""
    points = 0.5 + 0.6 * draws(7, seed=seed)  # some outside [0, 1]
    fine = (np.arange(200_000) + 0.5) / 200_000
    theirs = stats.wasserstein_distance(points, fine)
    assert ot.wasserstein_to_uniform(points) == pytest.approx(theirs, abs=1.3e-6)
    assert ot.wasserstein_to_uniform(points[::-1].copy()) == ot.wasserstein_to_uniform(points)


# --- plans ---


def test_assignment_by_hand():
    found = ot.optimal_assignment([[0, 0], [10, 0]], [[10, 1], [0, 2]])
    assert found.value == pytest.approx(1.5, abs=1e-15)
    assert found.partner.tolist() == [1, 0]


@pytest.mark.parametrize("d", [1, 2, 5])
def test_assignment_agrees_with_pot(d):
    x, y = draws(30, d), draws(30, d, seed=1) + 0.5
    found = ot.optimal_assignment(x, y)
    cost = pot.dist(x, y, metric="euclidean")
    assert found.value == pytest.approx(pot.emd2(np.full(30, 1 / 30), np.full(30, 1 / 30), cost), abs=CLOSE)
    assert sorted(found.partner) == list(range(30))
    assert found.value == pytest.approx(np.linalg.norm(x - y[found.partner], axis=1).mean(), abs=1e-12)
    if d == 1:
        assert found.value == pytest.approx(ot.wasserstein_on_line(x[:, 0], y[:, 0]), abs=CLOSE)


def test_assignment_in_its_limits_and_what_must_not_matter():
    x, y, order = draws(25, 2), draws(25, 2, seed=1), np.random.default_rng(3).permutation(25)
    found = ot.optimal_assignment(x, y)
    again = ot.optimal_assignment(x[order] + 3, y + 3)
    assert again.value == pytest.approx(found.value, abs=1e-12)
    assert again.partner.tolist() == found.partner[order].tolist()
    assert ot.optimal_assignment(x, x[order]).value == 0
    shift = np.array([3.0, 4.0])
    assert ot.optimal_assignment(x, x + shift).value == pytest.approx(5, abs=1e-12)
    assert ot.optimal_assignment(torch.from_numpy(x), torch.from_numpy(y)).value == found.value


@pytest.mark.parametrize("seed", range(3))
def test_assignment_potentials_are_dual_and_from_inside(seed):
    x, y = draws(20, 2, seed=seed), draws(20, 2, seed=seed + 10) + 1
    cost, found = ot.distances_between(x, y), ot.optimal_assignment(x, y)
    f, g = ot.assignment_potentials(cost, found.partner)
    slack = cost - f[:, None] - g
    matched = np.zeros_like(slack, dtype=bool)
    matched[np.arange(20), found.partner] = True
    assert f.mean() + g.mean() == pytest.approx(found.value, abs=CLOSE)
    assert np.abs(slack[matched]).max() < 1e-12
    assert slack[~matched].min() > 1e-9  # a vertex of the optimal set has 19 zeros here
    vertex = ot.transport_plan(cost, np.full(20, 1 / 20), np.full(20, 1 / 20))
    assert (cost - vertex.f[:, None] - vertex.g < 1e-9).sum() > 30  # of which 20 are matched


def test_assignment_potentials_where_two_plans_are_optimal():
    cost = ot.distances_between([[0.0], [1.0]], [[2.0], [3.0]])
    f, g = ot.assignment_potentials(cost, np.array([0, 1]))
    assert cost - f[:, None] - g == pytest.approx(np.zeros((2, 2)), abs=1e-12)


def test_the_lectures_plan():
    plan = small_plan()
    assert plan.value == pytest.approx(1.5033344702, abs=5e-11)
    assert plan.f - plan.f[0] == pytest.approx([0, -0.822, -1, -1.236], abs=5e-4)
    assert -plan.g - plan.f[0] == pytest.approx([-1.822, -2.236, -2, -2.236], abs=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_plans_agree_with_pot_and_their_dual(seed):
    x, y = draws(7, 3, seed=seed), draws(9, 3, seed=seed + 10)
    a, b = simplex(7, seed=seed), simplex(9, seed=seed + 10)
    cost = ot.distances_between(x, y)
    assert cost == pytest.approx(pot.dist(x, y, metric="euclidean"), abs=1e-12)
    found = ot.transport_plan(cost, a, b)
    assert found.value == pytest.approx(pot.emd2(a, b, cost), abs=CLOSE)
    assert found.plan.sum(1) == pytest.approx(a, abs=CLOSE)
    assert found.plan.sum(0) == pytest.approx(b, abs=CLOSE)
    assert (found.plan * cost).sum() == pytest.approx(found.value, abs=CLOSE)
    slack = cost - found.f[:, None] - found.g
    assert a @ found.f + b @ found.g == pytest.approx(found.value, abs=CLOSE)
    assert slack.min() > -CLOSE
    assert np.abs(slack[found.plan > 1e-9]).max() < CLOSE


def test_plans_in_their_limits_and_what_must_not_matter():
    cost, a, b = ot.distances_between(draws(5, 2), draws(6, 2, seed=1)), simplex(5), simplex(6, seed=1)
    rows, columns = np.random.default_rng(3).permutation(5), np.random.default_rng(4).permutation(6)
    value = ot.transport_plan(cost, a, b).value
    assert ot.transport_plan(cost[rows][:, columns], a[rows], b[columns]).value == pytest.approx(value, abs=CLOSE)
    assert ot.transport_plan(cost.T, b, a).value == pytest.approx(value, abs=CLOSE)
    assert ot.transport_plan(cost + 1, a, b).value == pytest.approx(value + 1, abs=CLOSE)
    assert ot.transport_plan(cost, a, np.eye(6)[2]).plan[:, 2] == pytest.approx(a, abs=CLOSE)
    x = draws(6, 2)
    assert ot.transport_plan(ot.distances_between(x, x), b, b).value == pytest.approx(0, abs=CLOSE)
    n = 12
    equal = np.full(n, 1 / n)
    clouds = draws(n, 2), draws(n, 2, seed=1)
    plan = ot.transport_plan(ot.distances_between(*clouds), equal, equal)
    assert plan.value == pytest.approx(ot.optimal_assignment(*clouds).value, abs=CLOSE)


# --- critics ---


def test_the_critic_of_two_points():
    value, critic = ot.lipschitz_critic([[0.0], [3.0]], [1, 0], [0, 1])
    assert (value, critic.tolist()) == (3, [0, -3])
    assert ot.lipschitz_critic([[0.0], [3.0]], [0.5, 0.5], [0.5, 0.5])[0] == 0


@pytest.mark.parametrize("bound", [1.0, 0.01, 5.0])
def test_the_best_critic_is_worth_the_plan(bound):
    points, p, q = draws(8, 2), simplex(8), simplex(8, seed=1)
    value, critic = ot.lipschitz_critic(points, p, q, bound)
    table = ot.distances_between(points, points)
    assert value == pytest.approx(bound * pot.emd2(p, q, table), abs=CLOSE)
    assert p @ critic - q @ critic == pytest.approx(value, abs=CLOSE)
    assert (np.abs(critic[:, None] - critic) - bound * table).max() < CLOSE
    moved = ot.lipschitz_critic(points[::-1].copy() + 4, p[::-1].copy(), q[::-1].copy(), bound)[0]
    assert moved == pytest.approx(value, abs=CLOSE)


def test_an_extension_is_lipschitz_and_keeps_the_values():
    plan = small_plan()
    points, values = np.array(SOURCES + TARGETS), np.concatenate([plan.f, -plan.g])
    assert ot.extend_potential(points, values, points) == pytest.approx(values, abs=CLOSE)
    at = 2 * draws(40, 2)
    extended, table = ot.extend_potential(points, values, at), ot.distances_between(at, at)
    assert (np.abs(extended[:, None] - extended) - table).max() < 1e-12
    order = np.random.default_rng(3).permutation(8)
    assert ot.extend_potential(points[order] + 5, values[order], at + 5) == pytest.approx(extended, abs=1e-12)
    assert ot.extend_potential([[0.0], [4.0]], [1.0, 0.0], [[0.0], [1.0], [3.5], [9.0]]).tolist() == [1, 2, 0.5, 5]


# --- entropic ---


def test_sinkhorn_agrees_with_pot():
    x, y, a, b = draws(6, 2), draws(8, 2, seed=1), simplex(6), simplex(8, seed=1)
    cost = ot.distances_between(x, y)
    for epsilon in (1.0, 0.1):
        found = ot.sinkhorn(cost, a, b, epsilon, 3000)
        theirs = pot.bregman.sinkhorn_log(a, b, cost, epsilon, numItermax=3000, stopThr=1e-15)
        assert found.plan == pytest.approx(theirs, abs=CLOSE)
        assert found.cost == pytest.approx((theirs * cost).sum(), abs=CLOSE)
        entropy = (theirs * np.log(theirs / np.outer(a, b))).sum()
        assert found.value == pytest.approx((theirs * cost).sum() + epsilon * entropy, abs=CLOSE)
        assert found.error < CLOSE
        assert found.plan.sum(0) == pytest.approx(b, abs=1e-12)


def test_sinkhorn_between_its_two_limits():
    cost = ot.distances_between(SOURCES, TARGETS)
    values = [ot.sinkhorn(cost, A, B, epsilon, 4000).value for epsilon in (1.0, 0.1, 0.01)]
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] - small_plan().value < 0.01 * math.log(16)  # epsilon KL(P || a b') <= epsilon log(N M)
    wide = ot.sinkhorn(cost, A, B, 1e9, 10)
    assert wide.plan == pytest.approx(np.outer(A, B), abs=1e-8)
    assert wide.value == pytest.approx(np.array(A) @ cost @ np.array(B), abs=1e-6)
    for epsilon in (0.3, 1e-5):  # exp(-2.5 / 1e-5) is no number of float64
        assert ot.sinkhorn([[2.5]], [1], [1], epsilon, 1).value == pytest.approx(2.5, abs=1e-12)


def test_sinkhorn_reports_that_it_has_not_converged():
    cost = ot.distances_between(SOURCES, TARGETS)
    short, long = (ot.sinkhorn(cost, A, B, 0.05, steps) for steps in (2, 2000))
    assert short.error == pytest.approx(np.abs(short.plan.sum(1) - A).max(), abs=1e-15)
    assert short.error > 1e-3 > 1e-12 > long.error


def test_a_point_without_mass_takes_no_part():
    cost = ot.distances_between(SOURCES, TARGETS)
    without = ot.sinkhorn(cost[:3], [0.4, 0.3, 0.3], B, 0.2, 500)
    found = ot.sinkhorn(cost, [0.4, 0.3, 0.3, 0], B, 0.2, 500)
    assert found.value == pytest.approx(without.value, abs=1e-12)
    assert found.plan[3].tolist() == [0] * 4
    assert ot.transport_plan(cost, [0.4, 0.3, 0.3, 0], B).plan[3] == pytest.approx([0] * 4, abs=CLOSE)


def test_the_debiased_divergence():
    x, a, order = draws(6, 2), simplex(6), np.random.default_rng(3).permutation(6)
    y, b = draws(6, 2, seed=1) + 1, simplex(6, seed=1)
    table = ot.distances_between(x, x)
    assert ot.sinkhorn(table, a, a, 0.3, 2000).value > 0.1
    assert ot.sinkhorn_divergence(x, x[order], a, a[order], 0.3, 2000) == pytest.approx(0, abs=CLOSE)
    apart = ot.sinkhorn_divergence(x, y, a, b, 0.3, 2000)
    assert apart > 0.1
    assert ot.sinkhorn_divergence(y[order] + 2, x + 2, b[order], a, 0.3, 2000) == pytest.approx(apart, abs=CLOSE)
    value = pot.emd2(a, b, pot.dist(x, y, metric="euclidean"))
    assert ot.sinkhorn_divergence(x, y, a, b, 0.01, 4000) == pytest.approx(value, abs=0.02)
    parts = [
        pot.solve(pot.dist(s, t, metric="euclidean"), p, q, reg=0.3, reg_type="KL", max_iter=5000, tol=1e-14).value
        for s, t, p, q in ((x, y, a, b), (x, x, a, a), (y, y, b, b))
    ]
    assert apart == pytest.approx(parts[0] - parts[1] / 2 - parts[2] / 2, abs=CLOSE)


# --- divergences ---


def test_divergences_by_hand():
    p, q = [0.5, 0.5, 0], [0.25, 0.25, 0.5]
    assert ot.total_variation(p, q) == 0.5
    assert ot.kullback_leibler(p, q) == pytest.approx(math.log(2), abs=1e-15)
    assert ot.kullback_leibler(q, p) == math.inf
    left, right = math.log(4 / 3), math.log(2 / 3) / 2 + math.log(2) / 2
    assert ot.jensen_shannon(p, q) == pytest.approx((left + right) / 2, abs=1e-15)


def test_divergences_in_their_limits():
    p, q = [0.25, 0.75, 0, 0], [0, 0, 0.5, 0.5]
    assert ot.total_variation(p, q) == 1
    assert ot.kullback_leibler(p, q) == ot.kullback_leibler(q, p) == math.inf
    assert ot.jensen_shannon(p, q) == pytest.approx(math.log(2), abs=1e-15)
    assert ot.total_variation(p, p) == ot.kullback_leibler(p, p) == ot.jensen_shannon(p, p) == 0


@pytest.mark.parametrize("seed", range(3))
def test_divergences_agree_with_scipy_and_with_the_largest_difference_on_a_set(seed):
    p, q = simplex(2, 8, seed=seed)
    sets = np.arange(256)[:, None] >> np.arange(8) & 1
    assert ot.total_variation(p, q) == pytest.approx(np.abs(sets @ (p - q)).max(), abs=1e-12)
    assert ot.kullback_leibler(p, q) == pytest.approx(stats.entropy(p, q), abs=1e-12)
    assert ot.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-12)
    order = np.random.default_rng(3).permutation(8)
    for divergence in (ot.total_variation, ot.kullback_leibler, ot.jensen_shannon):
        assert divergence(p[order], q[order]) == pytest.approx(divergence(p, q), abs=1e-12)
    bounded = -linprog(q - p, bounds=(-1, 1)).fun  # the integral probability metric over functions into [-1, 1]
    assert ot.total_variation(p, q) == pytest.approx(bounded / 2, abs=CLOSE)


def test_common_support():
    p, q = ot.common_support([[0, 0], [1, 0]], [[1, 0], [2, 0], [-0.0, 0.0]])
    assert p.tolist() == [0.5, 0.5, 0]
    assert q == pytest.approx([1 / 3] * 3, abs=1e-15)
    p, q = ot.common_support([[3.0], [3.0], [1.0]], [[1.0]], [0.2, 0.3, 0.5], [1.0])
    assert (p.tolist(), q.tolist()) == ([0.5, 0.5], [1, 0])
    apart = ot.common_support(draws(5, 2), draws(7, 2, seed=1))
    assert [masses.sum() for masses in apart] == pytest.approx([1, 1], abs=1e-15)
    assert (len(apart[0]), (apart[0] * apart[1]).sum()) == (12, 0)


@pytest.mark.parametrize("masses", [torch.full((10,), 0.1), torch.full((300,), 1 / 300), torch.randn(100).softmax(0)])
def test_shares_in_single_precision_are_masses(masses):
    value = ot.wasserstein_on_line(np.arange(len(masses)), [0.0], masses, [1.0])
    assert value == pytest.approx((masses.double() / masses.double().sum() * torch.arange(len(masses))).sum().item())


# --- refusals ---

COST = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ot.wasserstein_on_line([0, 1], [2]), "x holds 2 points and y 1: both must hold as many"),
        (lambda: ot.wasserstein_on_line([0, 1], [2], [0.5, 0.5]), "one side only"),
        (lambda: ot.wasserstein_on_line([0, 1], [2], [1.5, -0.5], [1]), "a holds -0.5: no mass may be negative"),
        (lambda: ot.wasserstein_on_line([0, 1], [2], [0.5, 0.4], [1]), "a adds up to 0.9: masses must add up to 1"),
        (lambda: ot.wasserstein_on_line([0, 1], [2], [1], [1]), "a holds 1 masses where there are 2 points"),
        (lambda: ot.wasserstein_to_uniform([]), "points has the shape"),
        (lambda: ot.wasserstein_to_uniform([[0.5]]), "points has the shape"),
        (lambda: ot.wasserstein_to_uniform([math.nan]), "points holds nan or infinity"),
        (lambda: ot.distances_between([[0.0]], [[0.0, 1.0]]), "x has 1 coordinates and y 2"),
        (lambda: ot.optimal_assignment([[0.0], [1.0]], [[0.0]]), "x holds 2 points and y 1: an assignment"),
        (lambda: ot.transport_plan(COST, [0.5, 0.5], [0.5, 0.6]), "b adds up to 1.1"),
        (lambda: ot.transport_plan(COST, [0.5, 0.5], [1.0]), "b holds 1 masses where there are 2"),
        (lambda: ot.transport_plan(COST, [1.5, -0.5], [0.5, 0.5]), "a holds -0.5"),
        (lambda: ot.lipschitz_critic([[0.0], [1.0]], [1, 0], [0, 1], 0.0), "bound is 0.0"),
        (lambda: ot.extend_potential([[0.0], [1.0]], [1.0], [[0.5]]), "points holds 2 points and values 1"),
        (lambda: ot.sinkhorn(COST, [0.5, 0.5], [0.5, 0.5], 0.0, 10), "epsilon is 0.0"),
        (lambda: ot.sinkhorn(COST, [0.5, 0.5], [0.5, 0.5], 0.1, 0), "n_steps is 0"),
        (lambda: ot.total_variation([0.5, 0.5], [1.0]), "p holds 2 masses and q 1"),
        (lambda: ot.jensen_shannon([0.5, 0.5], [2.0, -1.0]), "q holds -1: no mass may be negative"),
        (lambda: ot.kullback_leibler([0.5, 0.4], [0.5, 0.5]), "p adds up to 0.9"),
        (lambda: ot.common_support([[0.0]], [[0.0, 1.0]]), "x has 1 coordinates and y 2"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
