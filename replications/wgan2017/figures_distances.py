"""Figures and tables of the distances, drawn from finished runs."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.claims import NotRun, Reading, read_score, reported_text
from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.papers import Results
from replications.wgan2017.distances import HAS_MASS, SOURCE_MASSES, SOURCES, TARGET_MASSES, TARGETS
from replications.wgan2017.parallel_lines import key

EXPERIMENT = "distances"
ARMS = {  # column of the history -> label, line
    "w": ("W, same z on both lines", "-"),
    "w_fresh": ("W, new points at each step", "--"),
    "js": ("JS, exact", "-."),
    "js_trained": ("JS, trained discriminator", ":"),
}


def finished(results: Results) -> Finished | None:
    """The run of the lowest seed; None while a planned run of the experiment is missing or none finished."""
    try:
        _read(results, "w_error")
    except NotRun:
        return None
    return results.finished(EXPERIMENT)[0]


def _read(results: Results, name: str) -> Reading:
    return read_score(f"{EXPERIMENT}.{name}", results.outcomes)


def _run(results: Results) -> Finished:
    return results.finished(EXPERIMENT)[0]


def captions(results: Results) -> dict[str, str]:
    """What each exhibit shows, under which protocol, from the run's config; all empty where no run is finished."""
    names = ("figure_1", "lines", "descents", "rates", "discrete", "sequences", "transport", "sinkhorn", "checks")
    run = finished(results)
    if run is None:
        return dict.fromkeys(names, "")
    config, seeds = run.run.config, len(results.finished(EXPERIMENT))
    n, over = f"{config.n_points}", f"means over {seeds} seed{'s' if seeds > 1 else ''}"
    trained = (
        f"a network 2-{config.width}-{config.width}-1, {config.n_discriminator_steps} steps of Adam on half of the {n} "
        "points of each line, scored on the other half"
    )
    texts = (
        f"The paper's figure 1. Lines: {n} points at the same z on both lines. Dots: {n} points drawn for each line. "
        f"Crosses: log 2 − BCE of {trained}, ± 2 s.e.; below 0 it has learned its own points. Dots and crosses are "
        f"{over}.",
        f"Example 1. W and the divergences from {n} points at the same z; two samples of {n} points; JS and accuracy "
        f"of {trained}; {over}, ± s.e. over held-out pairs.",
        f"Gradient descent from θ = 1 at rate {config.descent_rate:g}, lowest seed. W's gradient is that of the "
        "optimal assignment's cost, JS's a central difference; the discriminator gets "
        f"{config.n_discriminator_steps} steps before the first step and {config.n_retrain_steps} before each other, "
        f"on {n} new points of each line.",
        "Left: dashed lines are the rates that are expected; random points are the mean of "
        f"{config.n_repeats} draws a seed. Right: {config.bias_repeats} pairs of samples of the uniform law on the "
        "unit cube of d dimensions for each size and seed; dashed, and in the legend ± s.e., the fitted power of n. "
        f"Bars are ± 2 s.e.; {over}.",
        "n points with equal masses against U[0, 1]. Random points: the exact mean from binomial deviations, and that "
        f"of {config.n_repeats} draws a seed, seeds pooled. The limit for large n is √(2/π) π/8.",
        "Theorem 2 on two sequences of distributions that converge in law to P, a point mass δ at 0. ∞ where one has "
        "mass and the other none.",
        "The cheapest plan from four sources to four targets, by linear programming. Lines are as wide as the mass "
        "they carry, which is written on them; the potential f falls by the distance along each. Dotted: a pair along "
        "which it falls as steeply and nothing moves, so that another plan costs as much.",
        f"The small case by Sinkhorn's iteration, {config.sinkhorn_steps:,} steps at each ε, against the linear "
        "program.",
        f"Checks of this section beside what claims.yaml says; {over}, the largest error of its kind where it is an "
        "error. A dash: nothing is claimed, or nothing was drawn.",
    )
    return dict(zip(names, texts, strict=True))


def figure_1(results: Results) -> Figure:
    """The paper's figure 1, W left and JS right of example 1, and what samples and a discriminator say of them."""
    run = _run(results)
    exact, thetas = run.facts["figure_1"], run.run.config.thetas
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4))
    left.plot(exact["theta"], exact["w"], label="exact assignment, same z")
    fresh = [_read(results, key("w_fresh", t=theta)).mean for theta in thetas]
    left.plot(thetas, fresh, "o", color="C1", label="two samples")
    left.set(title="Earth-Mover distance", xlabel=r"$\theta$", ylabel=r"$W(P_0, P_\theta)$, units", ylim=(-0.05, 1.15))
    left.legend(loc="upper center")
    theta, js = np.array(exact["theta"]), np.array(exact["js"])
    for side in (theta < 0, theta > 0):
        reach = np.sort(np.append(theta[side], 0.0))  # up to the hole
        right.plot(reach, np.full(len(reach), js[side].max()), color="C0", label="exact" if side[0] else None)
    right.plot(0, js[theta == 0], "o", color="C0")
    right.plot(0, js[theta != 0].max(), "o", color="C0", markerfacecolor="w", zorder=3)
    trained = [_read(results, key("js_trained", t=theta)) for theta in thetas]
    right.errorbar(thetas, [r.mean for r in trained], yerr=[2 * r.stderr for r in trained], fmt="x", color="C1",
                   markersize=8, capsize=3, label="trained discriminator", zorder=4)  # fmt: skip
    right.set(title="Jensen-Shannon divergence", xlabel=r"$\theta$", ylabel=r"$JS(P_0, P_\theta)$, nats")
    right.set_ylim(-0.12, 0.8)
    right.legend(loc="center left", bbox_to_anchor=(0.0, 0.4))
    return figure


def lines_table(results: Results) -> pd.DataFrame:
    """Example 1 at each theta: expected, and measured as exactly as may be, from samples, and by training."""
    rows = []
    for theta in _run(results).run.config.thetas:
        at = {name: _read(results, key(name, t=theta)) for name in
              ("w", "w_fresh", "js", "js_trained", "accuracy", "tv", "kl", "kl_reverse")}  # fmt: skip
        rows.append(
            {
                "θ": f"{theta:g}".replace("-", "−"),
                "|θ|": f"{abs(theta):g}",
                "W": number(at["w"].mean, 6),
                "W, two samples": number(at["w_fresh"].mean, 4),
                "JS": number(at["js"].mean, 6),
                "JS, trained": number(at["js_trained"].mean, 4, at["js_trained"].stderr),
                "accuracy": number(at["accuracy"].mean, 3),
                "TV": number(at["tv"].mean, 3),
                "KL": _long(at["kl"].mean),
                "KL, reverse": _long(at["kl_reverse"].mean),
            }
        )
    return pd.DataFrame(rows)


def _long(value: float, digits: int = 4) -> str:
    return "∞" if math.isinf(value) else number(value, digits)


def descents(results: Results) -> Figure:
    """theta after each step of the four descents of the lowest seed, and again near 0."""
    run = _run(results)
    rows, config = pd.DataFrame(run.history()), run.run.config
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4), width_ratios=(1.3, 1))
    for axis in (left, right):
        axis.axhline(0, color="0.4", linewidth=1)
        for place, (name, (label, line)) in enumerate(ARMS.items()):
            axis.plot(rows["step"], rows[name], line, color=f"C{place}", linewidth=2.2, label=label)
        axis.set(xlabel="gradient step", ylabel=r"$\theta$")
    left.set(title=r"$\theta$ on its way", ylim=(-1.2 * max(config.descent_rate, 0.06), 1.1))
    left.legend(loc="center right", bbox_to_anchor=(1.0, 0.64), fontsize="small")
    right.axhspan(-config.descent_rate, config.descent_rate, color="0.9", linewidth=0, zorder=0)
    right.text(
        0.97, 0.05, "within one step of 0", color="0.35", fontsize="small", ha="right", transform=right.transAxes
    )
    right.set(title="near 0", ylim=(-2.2 * config.descent_rate, 4 * config.descent_rate))
    right.set_xlim(min(0.8 / config.descent_rate, config.descent_steps / 2), config.descent_steps)
    return figure


def rates(results: Results) -> Figure:
    """Left: n points against U[0, 1]. Right: W between two samples of one law in d dimensions, with fitted powers."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.9))
    _against_uniform(left, results)
    _one_law(right, results)
    return figure


def _against_uniform(axis: Axes, results: Results) -> None:
    """Dashed: what each rate should be."""
    n = np.array(_run(results).run.config.grid_sizes, dtype=float)
    axis.plot(n, np.full_like(n, _read(results, "tv_discrete").mean), "^", color="C3", label="TV, any of them")
    drawn = [_read(results, key("w1_random", n=size)) for size in n]
    mean, error = (np.array(values) / np.sqrt(n) for values in zip(*((r.mean, r.stderr) for r in drawn), strict=True))
    axis.errorbar(n, mean, yerr=2 * error, fmt="o", color="C0", capsize=3, label="W, random points")
    for name, label, marker, colour in (("left", "W, left ends", "s", "C1"), ("midpoints", "W, midpoints", "D", "C2")):
        exact = [_read(results, key(f"w1_{name}", n=size)).mean for size in n]
        axis.plot(n, exact, marker, color=colour, label=label)
    limit = math.sqrt(2 / math.pi) * math.pi / 8
    for start, power, colour in ((1, 0, "C3"), (limit, -0.5, "C0"), (0.5, -1, "C1"), (0.25, -1, "C2")):
        axis.plot(n, start * n ** float(power), color=colour, linewidth=1, linestyle="--", zorder=1)
    axis.set(title="n points against U[0, 1]", xlabel="n", ylabel="distance", xscale="log", yscale="log")
    axis.legend(loc="lower left", fontsize="small")


def _one_law(axis: Axes, results: Results) -> None:
    """Dashed: the fitted powers."""
    config = _run(results).run.config
    sizes = np.array(config.bias_sizes, dtype=float)
    for place, d in enumerate(config.dimensions):
        readings = [_read(results, key("bias", d=d, n=size)) for size in config.bias_sizes]
        power, colour = _read(results, key("bias_exponent", d=d)), f"C{place}"
        mean, error = (np.array(values) for values in zip(*((r.mean, r.stderr) for r in readings), strict=True))
        label = f"d = {d}: power {number(power.mean, 3, power.stderr)}"
        axis.errorbar(sizes, mean, yerr=2 * error, fmt="osD^v"[place % 5], color=colour, capsize=3, label=label)
        at_1 = math.exp(np.log(mean).mean() - power.mean * np.log(sizes).mean())
        axis.plot(sizes, at_1 * sizes**power.mean, color=colour, linewidth=1, linestyle="--", zorder=1)
    axis.set(title="two samples of one law", xlabel="points in each sample", xscale="log", yscale="log")
    axis.set_ylabel("W between the samples")
    axis.set_ylim(bottom=0.003)
    axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axis.set_xticks([], minor=True)
    axis.legend(loc="lower left", fontsize="small")


def discrete_table(results: Results) -> pd.DataFrame:
    """n points against U[0, 1]: expected beside measured, random points scaled by the root of n."""
    rows = []
    for n in _run(results).run.config.grid_sizes:
        drawn = _read(results, key("w1_random", n=n))
        rows.append(
            {
                "n": f"{n:,}",
                "midpoints, 1/(4n)": f"{1 / (4 * n):g}",
                "measured": f"{_read(results, key('w1_midpoints', n=n)).mean:.6g}",
                "left ends, 1/(2n)": f"{1 / (2 * n):g}",
                "measured ": f"{_read(results, key('w1_left', n=n)).mean:.6g}",
                "random, √n E W, exact": number(_read(results, key("w1_random_exact", n=n)).mean, 5),
                "draws ± s.e.": number(drawn.mean, 4, drawn.stderr),
                "TV": number(_read(results, "tv_discrete").mean, 3),
            }
        )
    return pd.DataFrame(rows)


def sequences_table(results: Results) -> pd.DataFrame:
    """Theorem 2: both sequences at each n."""
    rows = []
    for name, label in (("moving", "δ at 1/n"), ("leaking", "(1 − 1/n) δ at 0 + (1/n) δ at 1")):
        for n in _run(results).run.config.grid_sizes:
            at = {what: _read(results, key(f"{name}_{what}", n=n)).mean for what in
                  ("kl_reverse", "kl", "tv", "js", "w")}  # fmt: skip
            titles = ("KL(P ‖ Pₙ)", "KL(Pₙ ‖ P)", "TV", "JS", "W")
            rows.append(
                {"Pₙ": label, "n": f"{n:,}"} | {t: _long(v, 6) for t, v in zip(titles, at.values(), strict=True)}
            )
    return pd.DataFrame(rows)


def transport(results: Results) -> Figure:
    """The small case's cheapest plan: lines as wide as the mass they carry, the potential printed at each point."""
    drawn = _run(results).facts["small_case"]
    plan, potential = np.array(drawn["plan"]), np.array(drawn["potential"])
    figure, axis = plt.subplots(figsize=(8.0, 5.4))
    for i, j in np.argwhere(plan > HAS_MASS):
        _mass(axis, SOURCES[i], TARGETS[j], plan[i, j])
    fall = potential[:4, None] - potential[4:]
    length = np.linalg.norm(np.subtract(np.array(SOURCES)[:, None], TARGETS), axis=-1)
    for i, j in np.argwhere((plan <= HAS_MASS) & (np.abs(fall - length) < HAS_MASS)):
        axis.plot(*zip(SOURCES[i], TARGETS[j], strict=True), ":", color="0.45", linewidth=1.4, zorder=1)
    sides = ((SOURCES, SOURCE_MASSES, "C0", "o", "sources"), (TARGETS, TARGET_MASSES, "C1", "s", "targets"))
    for (points, masses, colour, marker, label), values in zip(sides, np.split(potential, 2), strict=True):
        across, up = np.transpose(points)
        axis.scatter(across, up, 900 * np.array(masses), color=colour, marker=marker, zorder=3, label=label)
        for (x, y), mass, value in zip(points, masses, values, strict=True):
            text = f"mass {mass:g}\nf = {number(value + 0.0, 3)}"
            left, below = x == 0, y == 0
            axis.annotate(text, (x, y), (-14 if left else 14, -16 if below else 16), textcoords="offset points",
                          ha="right" if left else "left", va="top" if below else "bottom", fontsize="small", zorder=4,
                          bbox={"facecolor": "w", "edgecolor": "none", "pad": 1, "alpha": 0.8})  # fmt: skip
    axis.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-0.7, 2.65), ylim=(-0.42, 2.45), aspect="equal")
    axis.set(xticks=(0, 1, 2), yticks=(0, 1, 2))
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles, labels, loc="upper right", markerscale=0.7)
    return figure


def _mass(axis: Axes, start: Any, end: Any, mass: float) -> None:
    axis.plot(
        *zip(start, end, strict=True), color="C2", linewidth=40 * mass, alpha=0.55, solid_capstyle="butt", zorder=1
    )
    x, y = 0.62 * np.array(start) + 0.38 * np.array(end)
    axis.text(x, y, f"{mass:.2f}", ha="center", va="center", fontsize="small", zorder=2)


def sinkhorn(results: Results) -> Figure:
    """Entropic cost and the cost of its plan above the linear program's value, against epsilon."""
    epsilons = np.array(_run(results).run.config.epsilons)
    exact = _read(results, "lp_value").mean
    figure, axis = plt.subplots(figsize=(8.0, 3.4))
    for name, label, marker in (
        ("sinkhorn", r"$\langle P, C \rangle + \epsilon\, KL(P\, \|\, a b^\top)$", "o"),
        ("sinkhorn_cost", r"$\langle P, C \rangle$ of the same plan", "s"),
    ):
        above = np.array([_read(results, key(name, e=epsilon)).mean for epsilon in epsilons]) - exact
        axis.plot(epsilons, above.clip(min=1e-9), marker=marker, label=label)
    axis.set(xlabel=r"$\epsilon$, units", ylabel="above the linear program, units", xscale="log", yscale="log")
    axis.legend(loc="lower right")
    return figure


CHECKS = {  # score -> label
    "w_error": "Example 1: largest error of W",
    "js_least": "… smallest JS, θ other than 0",
    "js_trained_least": "… smallest JS of a trained discriminator",
    "accuracy_least": "… its smallest accuracy",
    "descent_w": "Descent on W: |θ| at the end, same z",
    "descent_w_fresh": "… new points at each step",
    "descent_js_moved": "Descent on JS: how far θ went",
    "descent_js_trained_moved": "… through a trained discriminator",
    "w1_delta": "W of δ at 0 from U[0, 1]",
    "w1_bernoulli": "W of Bernoulli(1/2) from U[0, 1]",
    "two_plans_w": "W of {0, 1} from {2, 3}",
    "two_plans_count": "… optimal permutations",
    "ipm_over_tv": "Section 5: supremum over functions into [−1, 1], over TV",
    "lp_value": "Small case: cheapest plan",
    "lp_dual": "… dual potentials",
    "lp_critic": "… best 1-Lipschitz critic",
    "lp_critic_k3": "… best 3-Lipschitz critic, over that",
    "slack_moved": "… largest slack of a pair with mass",
    "potential_lipschitz": "… steepest slope of the potential",
    "line_norm_error": "… critic's gradient on the lines: furthest norm from 1",
    "square_norm": "… mean norm over the whole square",
    "sinkhorn_excess": "Sinkhorn at the smallest ε: above the plan",
    "sinkhorn_equal": "… cost of equal distributions, ε = 0.1",
    "sinkhorn_equal_debiased": "… debiased",
    "theorem3_error": "Theorem 3 in the plane: relative error of the gradient",
    "theorem3_vertex_error": "… through a linear program's potential",
    "theorem3_vertex_kinks": "… share of points at its kinks",
    "shift_slope_error": "Theorem 3 on the line: furthest from sign(θ)",
    "shift_w_error": "… W furthest from |θ|",
    "bias_exponent_d1": "Samples of one law: power of n, d = 1",
    "bias_exponent_d2": "… d = 2",
    "bias_exponent_d8": "… d = 8",
}
TEN_DIGITS = ("lp_value", "lp_dual", "lp_critic")


def checks_table(results: Results) -> pd.DataFrame:
    """Every check beside what claims.yaml says it should be, seeds pooled; a dash where it claims nothing."""
    claims = {claim["test"]["score"]: claim for claim in results.paper.document["claims"]
              if "score" in claim.get("test", {})}  # fmt: skip
    rows = []
    for name, label in CHECKS.items():
        reading, claim = _read(results, name), claims.get(f"{EXPERIMENT}.{name}")
        rows.append(
            {
                "check": label,
                "should be": "–" if claim is None else reported_text(claim).replace("-", "−"),
                "measured": number(reading.mean, 10) if name in TEN_DIGITS else _short(reading.mean),
                "standard error": _short(reading.stderr),
            }
        )
    return pd.DataFrame(rows)


def _short(value: float) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return (f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.5g}").replace("-", "−")
