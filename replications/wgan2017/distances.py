"""Section 2 as measurements: W beside JS, KL and TV where all are known, and W's plan, its critic and its gradient.

Exact, or from draws with a standard error; double precision, always on the CPU. W and W1 are one thing, f and g the
dual potentials of a plan: f_i + g_j <= c_ij. A critic in the paper's sense is large on real points: it is -f on fakes
and g on real points.
"""

import math
from itertools import permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib import transport as ot
from lib.execution.workspace import Outcome, Workspace
from lib.results import mean_score
from lib.training.randomness import Streams
from replications.wgan2017.config import DistancesConfig
from replications.wgan2017.parallel_lines import (
    SLOPE_STEP,
    UNITS,
    Array,
    Scores,
    descent_scores,
    descents,
    divergences,
    exact,
    figure_1,
    key,
    line_scores,
    midpoints,
    trained_scores,
    uniform,
)

# The lecture's case: four sources with masses, four targets with a quarter each.
SOURCES, SOURCE_MASSES = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), (0.4, 0.3, 0.2, 0.1)
TARGETS, TARGET_MASSES = ((2.0, 0.0), (2.0, 1.0), (0.0, 2.0), (1.0, 2.0)), (0.25, 0.25, 0.25, 0.25)
HAS_MASS = 1e-9  # a plan's entry below it is a zero of the solver
SHIFTS = (-2.0, -1.0, 1.0, 2.0)  # ours: of N(theta, 1) from N(0, 1) in theorem 3


def distances(config: DistancesConfig, workspace: Workspace) -> Outcome:
    """Every check; history holds the four descents of theta step by step, facts what the figures draw."""
    streams = Streams(workspace.streams.seed)
    history = descents(config, streams)
    small, drawn = small_case(config)
    scores = {
        **line_scores(config, streams),
        **trained_scores(config, streams),
        **descent_scores(config, history),
        **discrete_scores(config, streams),
        **sequence_scores(config),
        **metric_scores(config, streams),
        **small,
        **theorem_3_scores(config, streams),
        **bias_scores(config, streams),
    }
    return Outcome(scores, history, {}, facts={"figure_1": figure_1(config), "small_case": drawn})


# --- discrete against continuous, theorem 2, section 5 ---


def discrete_scores(config: DistancesConfig, streams: Streams) -> Scores:
    """n points with equal masses against U[0, 1]: W1 shrinks at its rate, TV stays at 1.

    The points hold all of P and, being finitely many, nothing of U[0, 1]: on {each point, the rest} the masses are
    (1/n, ..., 1/n, 0) and (0, ..., 0, 1), and no finer event tells the two further apart.
    """
    scores, apart, far = Scores(), [], []
    errors: dict[str, list[float]] = {"midpoints": [], "left": []}
    for index, n in enumerate(config.grid_sizes):
        protocol = {"points": n, "against": "U[0, 1]"}
        for name, points, expected in (
            ("midpoints", midpoints(n), 1 / (4 * n)),
            ("left", np.arange(n) / n, 1 / (2 * n)),
        ):
            w = ot.wasserstein_to_uniform(points)
            scores[key(f"w1_{name}", n=n)] = exact(w, "units", protocol)
            errors[name].append(abs(w / expected - 1))
        draws = uniform(streams, "random points", index, config.n_repeats, n)
        scaled = torch.tensor([math.sqrt(n) * ot.wasserstein_to_uniform(points) for points in draws])
        mean, expected = mean_score(scaled, "units sqrt(n)", False, protocol), random_points_mean(n)
        scores |= {key("w1_random", n=n): mean, key("w1_random_exact", n=n): exact(expected, mean.unit, protocol)}
        far.append(abs(mean.value - expected) / mean.stderr)
        apart.append(divergences(np.append(np.full(n, 1 / n), 0), np.append(np.zeros(n), 1)))
    protocol = {"against": "U[0, 1]", "points": config.grid_sizes}
    scores |= {f"w1_{name}_error": exact(max(each), "relative", protocol) for name, each in errors.items()}
    scores["w1_random_worst"] = exact(max(far), "standard errors", {**protocol, "repeats": config.n_repeats})
    scores["w1_delta"] = exact(ot.wasserstein_to_uniform([0.0]), "units", {"against": "U[0, 1]"})
    scores["w1_bernoulli"] = exact(ot.wasserstein_to_uniform([0.0, 1.0]), "units", {"against": "U[0, 1]"})
    scores["tv_discrete"] = exact(min(each.tv for each in apart), "", protocol)
    scores["js_discrete"] = exact(min(each.js for each in apart), "nats", protocol)
    cost = ot.distances_between([[0.0], [1.0]], [[2.0], [3.0]])
    costs = np.array([cost[range(2), order].mean() for order in map(list, permutations(range(2)))])
    protocol = {"from": (0, 1), "to": (2, 3), "masses": "equal"}
    scores["two_plans_w"] = exact(ot.wasserstein_on_line([0, 1], [2, 3]), "units", protocol)
    scores["two_plans_count"] = exact(int((costs < costs.min() + 1e-12).sum()), "optimal permutations", protocol)
    return scores


def random_points_mean(n: int) -> float:
    """sqrt(n) E W1(n random points, U[0, 1]) = the integral of E |Bin(n, u) - n u| du / sqrt(n), by quadrature.

    De Moivre: E |X - n u| = 2 m C(n, m) u^m (1 - u)^(n - m + 1), m = floor(n u) + 1; smooth between multiples of 1/n.
    Tends to sqrt(2 / pi) pi / 8 = 0.31333.
    """
    node, weight = np.polynomial.legendre.leggauss(20)
    m = np.arange(1, n + 1)[:, None]
    u = (m - 0.5 + node / 2) / n  # (n, 20)
    log_choose = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in m[:, 0]])[:, None]
    deviation = 2 * m * np.exp(log_choose + m * np.log(u) + (n - m + 1) * np.log1p(-u))
    return float((deviation @ weight).sum() / (2 * n) / math.sqrt(n))


def sequence_scores(config: DistancesConfig) -> Scores:
    """Theorem 2 on two sequences P_n against P = delta_0: delta_(1/n), and (1 - 1/n) delta_0 + (1/n) delta_1.

    Along the first W goes to 0 and nothing else moves; along the second KL(P || P_n), TV, JS and W all go to 0.
    """
    scores, kept, last = Scores(), [], 0.0
    for n in config.grid_sizes:
        for name, points, masses in (
            ("moving", [1 / n], [1.0]),
            ("leaking", [0.0, 1.0], [1 - 1 / n, 1 / n]),
        ):
            apart = divergences(*ot.common_support(np.reshape(points, (-1, 1)), [[0.0]], masses, [1.0]))
            w = ot.wasserstein_on_line(points, [0.0], masses, [1.0])
            for what, value in {**apart._asdict(), "w": w}.items():
                scores[key(f"{name}_{what}", n=n)] = exact(value, UNITS[what], {"n": n, "P": "delta_0"})
            if name == "moving":
                kept += [apart.tv, apart.js / math.log(2)]
            else:
                last = max(apart.tv, apart.js, apart.kl_reverse, w)
    protocol = {"P": "delta_0", "n": config.grid_sizes}
    scores["moving_least"] = exact(min(kept), "of the largest TV, JS", protocol)
    scores["leaking_largest"] = exact(last, "of TV, JS, KL, W at the last n", protocol)
    return scores


def metric_scores(config: DistancesConfig, streams: Streams) -> Scores:
    """Section 5: sup of E_P f - E_Q f over f into [-1, 1], on random pairs of distributions on ten points.

    Both by their definitions: the supremum by linear programming, TV as the largest |P(A) - Q(A)| of all 2^10 sets A.
    NOTE wgan2017-N11: section 5 calls the supremum TV; with section 2's TV it is twice TV.
    """
    from scipy.optimize import linprog

    draws = -np.log(uniform(streams, "pairs", 0, config.n_pairs, 2, 10))
    sets = np.arange(1 << 10)[:, None] >> np.arange(10) & 1  # (1024, 10) indicators
    ratios, errors = [], []
    for p, q in draws / draws.sum(-1, keepdims=True):
        variation = np.abs(sets @ (p - q)).max()
        ratios.append(-linprog(q - p, bounds=(-1, 1), method="highs").fun / variation)
        errors.append(abs(variation - ot.total_variation(p, q)))
    protocol = {"pairs": config.n_pairs, "points": 10, "masses": "uniform on the simplex"}
    return {
        "ipm_over_tv": exact(np.mean(ratios), "times", protocol),
        "ipm_error": exact(np.abs(np.subtract(ratios, 2)).max(), "times", protocol),
        "tv_error": exact(max(errors), "", protocol),
    }


# --- plan and critic ---


def small_case(config: DistancesConfig) -> tuple[Scores, dict[str, Any]]:
    """The lecture's eight points: primal, dual and critic by linear programming, Sinkhorn beside them; what to draw."""
    cost, points = ot.distances_between(SOURCES, TARGETS), np.array(SOURCES + TARGETS)
    plan = ot.transport_plan(cost, SOURCE_MASSES, TARGET_MASSES)
    slack, moved = cost - plan.f[:, None] - plan.g, plan.plan > HAS_MASS
    potential = np.concatenate([plan.f, -plan.g]) - plan.f[0]  # (8,), falls by the distance along every transport
    table = ot.distances_between(points, points)
    steepest = (np.abs(potential[:, None] - potential) / np.where(table > 0, table, np.inf)).max()
    p, q = np.append(SOURCE_MASSES, np.zeros(4)), np.append(np.zeros(4), TARGET_MASSES)
    critic, triple = (ot.lipschitz_critic(points, p, q, bound)[0] for bound in (1.0, 3.0))
    dual = float(np.dot(SOURCE_MASSES, plan.f) + np.dot(TARGET_MASSES, plan.g))
    protocol = {"sources": SOURCES, "masses": SOURCE_MASSES, "targets": TARGETS, "their masses": TARGET_MASSES}
    scores = {
        "lp_value": exact(plan.value, "units", protocol),
        "lp_dual": exact(dual, "units", protocol),
        "lp_critic": exact(critic, "units", protocol),
        "lp_gap": exact(max(abs(dual - plan.value), abs(critic - plan.value)), "units", protocol),
        "lp_critic_k3": exact(triple / critic, "times", protocol),
        "slack_moved": exact(np.abs(slack[moved]).max(), "units", protocol),
        "slack_unmoved": exact(slack[~moved].min(), "units", protocol),
        "potential_lipschitz": exact(steepest, "", protocol),
        **gradient_scores(points, potential, moved, protocol),
        **sinkhorn_scores(config, cost, plan.value, protocol),
    }
    return scores, {"plan": plan.plan.tolist(), "potential": potential.tolist()}


def critic_gradient(points: Array, potential: Array, at: Array) -> Array:
    """Gradient (K, 2) at `at` (K, 2) of the mean of the largest and the smallest 1-Lipschitz extension.

    All 1-Lipschitz functions with these values lie between the two. Either is made of cones, with a gradient of norm 1
    almost everywhere; their mean has one where it must. Central differences.
    """
    columns = []
    for step in SLOPE_STEP * np.eye(2):
        largest, smallest = (
            sign * (ot.extend_potential(points, sign * potential, at + step) -
                    ot.extend_potential(points, sign * potential, at - step))
            for sign in (1, -1)
        )  # fmt: skip
        columns.append((largest + smallest) / (4 * SLOPE_STEP))
    return np.stack(columns, 1)


def gradient_scores(points: Array, potential: Array, moved: NDArray[np.bool_], protocol: dict[str, Any]) -> Scores:
    """Gulrajani et al. 2017, proposition 1: along a line of transport the critic's gradient is its unit vector."""
    share = np.linspace(0.1, 0.9, 9)[:, None]
    errors, lengths = [], []
    for i, j in np.argwhere(moved):
        start, end = np.array(SOURCES[i]), np.array(TARGETS[j])
        gradient = critic_gradient(points, potential, start + share * (end - start))
        errors.append(np.abs(gradient + (end - start) / np.linalg.norm(end - start)).max())
        lengths.append(np.abs(np.linalg.norm(gradient, axis=1) - 1).max())
    axis = 2 * midpoints(40)
    everywhere = np.linalg.norm(
        critic_gradient(points, potential, np.array(np.meshgrid(axis, axis)).reshape(2, -1).T), axis=1
    )
    protocol = {**protocol, "critic": "mean of the largest and the smallest 1-Lipschitz extension"}
    lines = {**protocol, "places": "9 inside each of the lines with mass"}
    return {
        "line_norm_error": exact(max(lengths), "", lines),
        "line_gradient_error": exact(max(errors), "", lines),
        "square_norm": exact(everywhere.mean(), "", {**protocol, "places": "40 x 40 on the square of side 2"}),
    }


def sinkhorn_scores(config: DistancesConfig, cost: Array, value: float, protocol: dict[str, Any]) -> Scores:
    """Entropic cost and transport cost for each epsilon, how far above `value` at the last, and the bias removed."""
    scores, errors = Scores(), []
    for epsilon in config.epsilons:
        found = ot.sinkhorn(cost, SOURCE_MASSES, TARGET_MASSES, epsilon, config.sinkhorn_steps)
        here = {**protocol, "epsilon": epsilon, "steps": config.sinkhorn_steps}
        scores[key("sinkhorn", e=epsilon)] = exact(found.value, "units", here)
        scores[key("sinkhorn_cost", e=epsilon)] = exact(found.cost, "units", here)
        errors.append(found.error)
    scores["sinkhorn_excess"] = exact(found.value - value, "units", here)
    scores["sinkhorn_rows"] = exact(max(errors), "mass", {**protocol, "epsilon": config.epsilons})
    again, masses = SOURCES[::-1], SOURCE_MASSES[::-1]  # the same distribution, listed backwards
    here = {"points": SOURCES, "masses": SOURCE_MASSES, "epsilon": 0.1, "steps": config.sinkhorn_steps}
    same = (SOURCES, again, SOURCE_MASSES, masses, 0.1, config.sinkhorn_steps)
    biased = ot.sinkhorn(ot.distances_between(SOURCES, again), *same[2:])
    scores["sinkhorn_equal"] = exact(biased.value, "units", here)
    scores["sinkhorn_equal_debiased"] = exact(ot.sinkhorn_divergence(*same), "units", here)
    return scores


# --- theorem 3 and the bias of samples ---


def theorem_3_scores(config: DistancesConfig, streams: Streams) -> Scores:
    """grad W(theta) through the optimal critic against central differences of the exact W, g_theta(z) = A z + b.

    On the line, N(theta, 1) against N(0, 1): the derivative of W is sign(theta), W itself |theta|.
    """
    found = []
    for index in range(config.n_generators):
        z, real = uniform(streams, "clouds", index, 2, config.n_cloud, 2)
        theta = torch.randn(6, generator=streams.at("generators", index), dtype=torch.float64).numpy()
        found.append(plane_errors(theta, z, real))
    error, margin, vertex_error, kinks = zip(*found, strict=True)
    protocol = {"points": config.n_cloud, "generators": config.n_generators, "z, real": "U[0, 1]^2", "A, b": "N(0, 1)"}
    vertex = {**protocol, "potential": "the linear program's"}
    scores = {
        "theorem3_error": exact(max(error), "relative", protocol),
        "theorem3_margin": exact(min(margin), "units", protocol),
        "theorem3_vertex_error": exact(max(vertex_error), "relative", vertex),
        "theorem3_vertex_kinks": exact(np.mean(kinks), "share of points", vertex),
    }
    draws = torch.randn(2, config.n_shifted, generator=streams.at("shifted"), dtype=torch.float64).numpy()
    slopes, values = [], []
    for shift in SHIFTS:
        down, at, up = (ot.wasserstein_on_line(draws[0], draws[1] + shift + s) for s in (-SLOPE_STEP, 0, SLOPE_STEP))
        slopes.append(abs((up - down) / (2 * SLOPE_STEP) - math.copysign(1, shift)))
        values.append(abs(at - abs(shift)))
    protocol = {"draws": config.n_shifted, "theta": SHIFTS}
    scores["shift_slope_error"] = exact(max(slopes), "", protocol)
    scores["shift_w_error"] = exact(max(values), "units", protocol)
    return scores


def generated(theta: Array, z: Array) -> Array:
    """A z + b with theta = (A, b): (6,) and (N, 2) -> (N, 2)."""
    points: Array = z @ theta[:4].reshape(2, 2).T + theta[4:]
    return points


def plane_errors(theta: Array, z: Array, real: Array) -> tuple[float, float, float, float]:
    """Relative error of the critic's gradient against central differences of W, and the least slack of unmatched pairs.

    The slack is above 0 where the plan is unique, and W then differentiable. Then the error through the potential that
    a linear program returns, and the share of points where that has a kink.
    NOTE wgan2017-N12: theorem 3 asks for both sides to be defined, and at a kink the critic's is not. A solver's
    potential, a vertex of the optimal set, has them nearly everywhere in the cloud; assignment_potentials has none.
    """
    steps, n = SLOPE_STEP * np.eye(6), len(z)
    w = [[ot.optimal_assignment(generated(t, z), real).value for t in (theta + s, theta - s)] for s in steps]
    differences = np.array([(up - down) / (2 * SLOPE_STEP) for up, down in w])
    fake = generated(theta, z)
    cost, partner = ot.distances_between(fake, real), ot.optimal_assignment(fake, real).partner
    f, g = ot.assignment_potentials(cost, partner)
    vertex = ot.transport_plan(cost, np.full(n, 1 / n), np.full(n, 1 / n))
    error, vertex_error = (
        float(np.linalg.norm(critic_slope(theta, z, real, of_real) - differences) / np.linalg.norm(differences))
        for of_real in (g, vertex.g)
    )
    slack, matched = cost - f[:, None] - g, np.zeros_like(cost, dtype=bool)
    matched[np.arange(n), partner] = True
    tight = (cost - vertex.f[:, None] - vertex.g < HAS_MASS).sum(1)
    return error, float(slack[~matched].min()), vertex_error, float((tight > 1).mean())


def critic_slope(theta: Array, z: Array, real: Array, of_real: Array) -> Array:
    """Theorem 3: -E grad_theta critic(g_theta(z)), (6,), by autograd through critic(x) = max_j (of_real_j - |x - y_j|).

    That is the smallest 1-Lipschitz function with the values of_real (N,) at the real points y (N, 2).
    """
    at = torch.from_numpy(theta.copy()).requires_grad_()
    points = torch.from_numpy(z) @ at[:4].view(2, 2).T + at[4:]
    apart = (points.unsqueeze(1) - torch.from_numpy(real)).norm(dim=-1)  # (N, N)
    (slope,) = torch.autograd.grad(-(torch.from_numpy(of_real) - apart).amax(1).mean(), at)
    return np.asarray(slope.numpy(), dtype=np.float64)


def bias_scores(config: DistancesConfig, streams: Streams) -> Scores:
    """W between two samples of one law, which is 0 for the law itself: by size and dimension, and the fitted power."""
    scores = Scores()
    for d in config.dimensions:
        values = np.empty((len(config.bias_sizes), config.bias_repeats))
        for index, n in enumerate(config.bias_sizes):
            for repeat in range(config.bias_repeats):
                x, y = uniform(streams, f"one law {d} {n}", repeat, 2, n, d)
                on_line = d == 1
                values[index, repeat] = (
                    ot.wasserstein_on_line(x[:, 0], y[:, 0]) if on_line else ot.optimal_assignment(x, y).value
                )
            protocol = {"law": f"U[0, 1]^{d}", "points": n}
            scores[key("bias", d=d, n=n)] = mean_score(torch.from_numpy(values[index]), "units", False, protocol)
        power = np.polyfit(np.log(config.bias_sizes), np.log(values), 1)[0]  # one a repeat
        protocol = {"law": f"U[0, 1]^{d}", "points": config.bias_sizes, "fit": "least squares of logarithms"}
        scores[key("bias_exponent", d=d)] = mean_score(torch.from_numpy(power), "", False, protocol)
    return scores
