"""Figures and tables of the theory and of the frozen discriminator, drawn from finished runs."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.claims import Reading, read_score
from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.gan2014.closed_forms import key
from replications.papers import Results

ARMS = {"before": "at the freeze", "frozen": "D frozen", "control": "control, k = 1"}
ROUNDING = 1e-16  # differences below it are rounding in float64, and are drawn at it


def _read(results: Results, name: str) -> Reading:
    return read_score(f"theory.{name}", results.outcomes)


def _reported(results: Results) -> dict[str, float]:
    """Score -> the value that a claim of claims.yaml holds for it."""
    claims = [claim for claim in results.paper.document["claims"] if "value" in claim["reported"]]
    return {claim["test"]["score"]: claim["reported"]["value"] for claim in claims if "score" in claim.get("test", {})}


def captions(results: Results) -> dict[str, str]:
    """The captions of the theory's exhibits; none while a planned run of it is missing."""
    if not results.ended("theory"):
        return {}
    scores, settings = results.finished("theory")[0].scores, results.planned("theory").config
    error = scores["learned_error"]
    together, turns = (scores[f"radius_{name}"] for name in ("together", "turns"))
    return {
        "learned": (
            f"Above: the two densities. Below: the trained discriminator ({error.protocol['network']}) on the analytic "
            "one, lowest seed. The largest difference outside the grey, where the mean density is below 0.01, is "
            f"{error.value:.4f}."
        ),
        "theorem 1": (
            "Theorem 1 on two unit Gaussians at distance m. Expected values of C(G) are those of claims.yaml; draws: "
            f"{settings.n_monte_carlo:,} of each density and seed, ± the standard error with seeds pooled."
        ),
        "divergences": (
            "Left: the Jensen-Shannon divergence of N(0, 1) and N(m, 1), and on the right-hand axis C(G), which is a "
            "linear function of it; crosses are estimates from draws. Right: the same beside KL and total variation, "
            "log axis."
        ),
        "descent": (
            "The divergence of p_g from p_data, and how far D* is from 1/2 anywhere, after each gradient step. The "
            "grey band is rounding in double precision; smaller values are drawn at its edge."
        ),
        "checks": (
            "The checks of this section beside their expected values from claims.yaml; means over seeds. The "
            "network's, the regression's and the draws' rows vary with the seed, the others are exact up to rounding "
            "and quadrature."
        ),
        "gradients": (
            "Left: size of the two gradients in the logit. Right: mean size of the gradient in x over fakes of "
            "N(m, 1), where the data are N(0, 1) and D is optimal; lines by quadrature at the marked m, points from "
            "draws, ± 2 s.e."
        ),
        "orbits": (
            f"Gradient steps of {settings.game_rate:g} on x y from the dot at (1, 0). After {settings.game_steps} "
            f"steps the distance from the equilibrium is {together.value:.6f} for simultaneous steps and "
            f"{turns.value:.3f} in turns."
        ),
    }


def theorem1_table(results: Results) -> pd.DataFrame:
    """Theorem 1 on N(0, 1) and N(m, 1): C(G) as expected, by quadrature and from draws, beside three divergences."""
    expected, rows = _reported(results), []
    for shift in results.finished("theory")[0].run.config.shifts:
        exact = {name: _read(results, key(name, shift)).mean for name in ("jsd", "value", "kl", "tv")}
        sampled = _read(results, key("value_sampled", shift))
        rows.append(
            {
                "m": f"{shift:g}",
                "C(G), expected": number(expected.get(f"theory.{key('value', shift)}", math.nan), 6),
                "C(G), quadrature": number(exact["value"], 6),
                "C(G), draws ± s.e.": number(sampled.mean, 5, sampled.stderr),
                "−log 4 + 2 JSD": number(2 * exact["jsd"] - math.log(4), 6),
                "JSD": number(exact["jsd"], 6),
                "KL": number(exact["kl"], 4),
                "m²/2": number(shift**2 / 2, 4),
                "TV": number(exact["tv"], 6),
            }
        )
    return pd.DataFrame(rows)


CHECKS = {
    "discrete_error": "Proposition 1, discrete pair: largest |D − D*|",
    "discrete_ratio_error": "… largest |q D / (1 − D) − p|",
    "learned_error": "Proposition 1, network: largest |D − D*| on the support",
    "learned_value_gap": "… V(D*, G) − V(D, G), nats",
    "slope_ratio_m1": "Proposition 1, logistic regression: slope / (−m) at m = 1",
    "slope_ratio_m2": "… at m = 2",
    "identity_residual": "Theorem 1: largest |C(G) + log 4 − 2 JSD|, nats",
    "sampled_worst": "… sampled C(G), m up to 6: furthest from quadrature, standard errors",
    "excess_over_tv": "… smallest (C(G) + log 4) / TV², random p_g",
    "convexity_violation": "Proposition 2: largest violation of convexity, nats",
    "descent_jsd": "… JSD at the end of the descent, nats",
    "saturating_residual": "log(1 − D): largest |gradient − d(2 JSD)/dm|",
    "nonsaturating_residual": "−log D: largest |gradient − d(KL − 2 JSD)/dm|",
}


def checks_table(results: Results) -> pd.DataFrame:
    """The other checks of section 4: what each should be, from claims.yaml, and what was measured, seeds pooled."""
    claims = {claim["test"]["score"]: claim for claim in results.paper.document["claims"]
              if "score" in claim.get("test", {})}  # fmt: skip
    rows = []
    for name, label in CHECKS.items():
        reading = _read(results, name)
        reported = claims.get(f"theory.{name}", {}).get("reported", {})
        low, high = reported.get("range", (math.nan, math.nan))
        span = f"≥ {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
        rows.append(
            {
                "check": label,
                "should be": span if "range" in reported else f"{reported['value']:g}" if reported else "–",
                "measured": _short(reading.mean),
                "standard error": _short(reading.stderr),
            }
        )
    return pd.DataFrame(rows)


def _short(value: float) -> str:
    if math.isnan(value):
        return "–"
    return (f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}" if value else "0").replace("-", "−")


def divergences(results: Results) -> Figure:
    """What each divergence says of N(0, 1) and N(m, 1) as m grows; the left panel's second axis is C(G)."""
    shifts = results.finished("theory")[0].run.config.shifts
    values = {name: [_read(results, key(name, m)).mean for m in shifts] for name in ("jsd", "kl", "tv")}
    sampled = [_read(results, key("value_sampled", m)) for m in shifts]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4))
    left.axhline(math.log(2), color="0.4", linestyle=":", label="log 2")
    left.plot(shifts, values["jsd"], marker="o", label="JSD, quadrature")
    left.errorbar(shifts, [(r.mean + math.log(4)) / 2 for r in sampled], yerr=[2 * r.stderr for r in sampled], fmt="x",
                  markersize=9, capsize=4, color="C1", label="from draws, ± 2 s.e.")  # fmt: skip
    second = left.secondary_yaxis("right", (lambda y: 2 * y - math.log(4), lambda c: (c + math.log(4)) / 2))
    second.set_ylabel("C(G), nats")
    left.set(title="C(G) is the JSD", xlabel="m", ylabel="JSD, nats")
    left.legend(loc="lower right")
    for name, label, marker in (("kl", "KL, nats", "s"), ("tv", "TV", "^"), ("jsd", "JSD, nats", "o")):
        points = [(m, y) for m, y in zip(shifts, values[name], strict=True) if m > 0]
        right.plot(*zip(*points, strict=True), marker=marker, label=label)
    right.set(title="beside KL and TV", xlabel="m", yscale="log", ylabel="divergence")
    right.legend(loc="lower right")
    right.yaxis.labelpad = 14  # clear of the left panel's second axis
    return figure


def learned_discriminator(outcome: Finished) -> Figure:
    """Proposition 1: the densities, and the trained network's D on the analytic D*."""
    drawn = {name: tensor.numpy() for name, tensor in outcome.tensors().items()}
    figure, (above, below) = plt.subplots(2, 1, figsize=(8.0, 4.4), sharex=True, height_ratios=(2, 3))
    x, unseen = drawn["x"], (drawn["p"] + drawn["q"]) / 2 <= 0.01
    for axis in (above, below):
        axis.fill_between(x, 0, 1, where=unseen, transform=axis.get_xaxis_transform(), color="0.93", linewidth=0)
    above.plot(x, drawn["p"], "k:", label="$p_{data}$")
    above.plot(x, drawn["q"], color="C2", label="$p_g$")
    above.set_ylabel("density")
    above.legend(loc="upper left")
    below.plot(x, drawn["optimal"], color="0.6", linewidth=5, label="$D^*$, analytic")
    below.plot(x, drawn["learned"], color="C0", linestyle="--", label="D, trained")
    below.set(xlabel="x", ylabel="D(x)", ylim=(-0.03, 1.03), xlim=(x[0], x[-1]))
    below.legend(loc="upper left")
    return figure


def descent(outcome: Finished) -> Figure:
    """Proposition 2: how far p_g is from p_data, and D from 1/2, at each step of the descent."""
    rows = pd.DataFrame(outcome.history())
    figure, axis = plt.subplots(figsize=(8.0, 3.2))
    axis.axhspan(1e-17, ROUNDING, color="0.93", linewidth=0)
    axis.plot(rows["step"], rows["jsd"].clip(lower=ROUNDING), label="JSD$(p_{data}, p_g)$, nats")
    axis.plot(rows["step"], rows["half_gap"].clip(lower=ROUNDING), "--", label="largest $|D^* - 1/2|$")
    axis.set(yscale="log", xlabel="gradient step of $p_g$, D optimal at each", ylabel="distance from equilibrium")
    axis.set_ylim(bottom=1e-17)
    axis.legend()
    return figure


def gradients(results: Results) -> Figure:
    """The two generator losses: gradient in the logit, and mean gradient on a fake where D is optimal."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4))
    logit = np.linspace(-10, 10, 401)
    right_of = {"saturating": ("log(1 − D)", "-", "o", 1.0), "nonsaturating": ("−log D", "--", "s", -1.0)}
    shifts = results.finished("theory")[0].run.config.gradient_shifts
    for name, (label, line, marker, sign) in right_of.items():
        left.plot(logit, 1 / (1 + np.exp(-sign * logit)), line, label=label)
        exact = [_read(results, key(name, m)).mean for m in shifts]
        (drawn,) = right.plot(shifts, exact, line, label=f"{label}, quadrature")
        sampled = [_read(results, key(f"{name}_sampled", m)) for m in shifts]
        right.errorbar(shifts, [r.mean for r in sampled], yerr=[2 * r.stderr for r in sampled], fmt=marker, capsize=4,
                       color=drawn.get_color(), label=f"{label}, draws")  # fmt: skip
    left.set(title="in the logit of D", xlabel="logit of D(G(z))", ylabel="|gradient|", yscale="log")
    left.text(-9.6, 0.1, "D is sure that\nit is a fake", color="0.35")
    left.legend(loc="lower center")
    right.set(title="on fakes, D optimal", xlabel="m, distance of the Gaussians", ylabel="mean |gradient| in x")
    right.set(yscale="log", ylim=(1e-4, 2e1))
    right.legend(loc="lower left")
    return figure


def orbits(outcome: Finished) -> Figure:
    """The game min over x, max over y of x y: its orbits as far as the claim goes, and the radius at every step."""
    rows, config = pd.DataFrame(outcome.history()), outcome.run.config
    seen = rows[: config.game_steps + 1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.6), width_ratios=(1, 1.3))
    for name, label, line in (("together", "both at once", "-"), ("turns", "in turns", "--")):
        left.plot(seen[f"{name}_x"], seen[f"{name}_y"], line, label=label)
        radius = np.hypot(rows[f"{name}_x"], rows[f"{name}_y"])
        right.plot(rows["step"], radius, line, label=label)
    left.plot(0, 0, "k+", markersize=10)
    left.plot(*seen[["together_x", "together_y"]].iloc[0], "ko", markersize=5)
    left.set(title=f"{config.game_steps} steps", xlabel="x, minimises x y", ylabel="y, maximises x y", aspect="equal")
    growth = (1 + config.game_rate**2) ** (rows["step"] / 2)
    right.plot(rows["step"], growth, ":", color="k", label=r"$(1 + \eta^2)^{t/2}$")
    right.set(title="distance from the equilibrium", xlabel="step t", ylabel="radius", yscale="log")
    right.set_yticks([1, 2, 4, 6], ["1", "2", "4", "6"])
    right.set_yticks([], minor=True)
    right.legend(loc="upper left")
    return figure


def helvetica_samples(outcome: Finished, models: tuple[int, ...] = (0, 1, 2)) -> Figure:
    """Samples of the first models in each arm on the frozen logit, whose highest point is the star."""
    drawn = {name: tensor.numpy() for name, tensor in outcome.tensors().items()}
    bound = outcome.run.config.bound
    figure, axes = plt.subplots(len(models), 3, figsize=(8.0, 2.3 * len(models)), sharex=True, sharey=True,
                                squeeze=False)  # fmt: skip
    for row, model in zip(axes, models, strict=True):
        for axis, (arm, label) in zip(row, ARMS.items(), strict=True):
            image = _logit_image(axis, drawn["logits"][model], bound)
            axis.plot(*drawn["peak"][model], "*", markersize=15, color="w", markeredgecolor="k", clip_on=False)
            axis.plot(*drawn[f"samples_{arm}"][model].T, ".", markersize=3, color="C3", clip_on=False)
            axis.set(title=label if model == models[0] else "", aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        row[0].set_ylabel(f"model {model}")
        figure.colorbar(image, ax=list(row), label="logit of frozen D", shrink=0.85)
    return figure


def _logit_image(axis: Axes, logits: np.ndarray, bound: float):  # type: ignore[no-untyped-def]
    """The first index of logits is x, the second y; a palette of one hue, for the samples have the other."""
    low = np.quantile(logits, 0.25)  # the corners' far lower values would flatten what lies near the data
    axis.grid(False)
    return axis.imshow(logits.T, origin="lower", extent=(-bound, bound, -bound, bound), cmap=sns.color_palette(
        "light:#0173b2", as_cmap=True), vmin=low)  # fmt: skip


def helvetica_curves(outcome: Finished) -> Figure:
    """Spread of the samples, a thin line for each model and the mean over models, in both arms."""
    rows, config = pd.DataFrame(outcome.history()), outcome.run.config
    figure, axis = plt.subplots(figsize=(8.0, 3.6))
    for name, line, colour in (("control", "-", "C0"), ("frozen", "--", "C3")):
        part = rows if name == "control" else rows[rows["step"] >= config.n_steps]
        each = part[[f"{name}_{model}" for model in range(config.n_models)]]
        axis.plot(part["step"], each, color=colour, linewidth=0.6, alpha=0.6)
        axis.plot(part["step"], each.mean(axis=1), line, color=colour, linewidth=2.6, label=f"{ARMS[name]}, mean")
    axis.axvline(config.n_steps, color="0.4", linestyle=":")
    axis.axhline(math.sqrt(1 + 2 * config.mode_sd**2), color="k", linewidth=1, linestyle="-.", label="data")
    axis.set(xlabel="update of G", ylabel="spread of G(z)", ylim=(0, None), xlim=(0, rows["step"].iloc[-1]))
    axis.legend(loc="upper left", ncols=3)
    return figure


def helvetica_table(results: Results) -> pd.DataFrame:
    """Spread, distance to the frozen argmax of D, cells and modes of each arm: means over models ± their sd."""
    scores = results.finished("helvetica")[0].scores
    rows = []
    for arm, label in ARMS.items():
        row = {"samples": label}
        for name, title, digits in (
            ("spread", "spread", 3), ("distance", "distance to argmax D", 3), ("distinct", "cells occupied", 0),
            ("modes", "modes", 1),
        ):  # fmt: skip
            score = scores[f"{name}_{arm}"]
            row[title] = number(score.value, digits, score.stderr * math.sqrt(score.n))
        rows.append(row)
    return pd.DataFrame(rows)
