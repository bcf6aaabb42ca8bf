"""Figures and tables of trained critics against the exact W and of figure 2, drawn from finished runs.

Each kind of critic has its own panel, axis and scale: an estimate means nothing beside one of another clip or depth.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.papers import Results
from replications.wgan2017.calibration import BOUND, CLOUDS, FAMILIES, NAMES
from replications.wgan2017.config import CalibrationConfig, FigureTwoConfig
from replications.wgan2017.figure_two import KINDS

CRITICS = ("critic-clip-0p001", "critic-clip-0p01", "critic-clip-0p1", "critic-clip-0p01-deep", "critic-penalty")
LAWS = {"gaussians": ("Gaussians", "o", "-"), "lines": ("parallel lines", "s", "--"), "clouds": ("clouds", "^", "")}
CLOUD_TITLES = {"ring": "blob to ring", "blobs": "two blobs, moved apart", "roll": "swiss roll to blob"}


def critic_runs(results: Results) -> list[Finished]:
    """The finished run of lowest seed of each kind of critic that this preset has."""
    found = [results.finished(name) for name in CRITICS]
    return [runs[0] for runs in found if runs]


def kind_of(outcome: Finished) -> str:
    """`c = 0.01, 2 hidden layers` or `penalty, λ = 10, 2 hidden layers`."""
    config: CalibrationConfig = outcome.run.config
    bound = f"c = {config.clip:g}" if config.kind == "clip" else f"penalty, λ = {config.penalty:g}"
    return f"{bound}, {config.n_layers} hidden layers"


def exact(outcome: Finished) -> np.ndarray:
    """W of every law, in the order of NAMES."""
    shifts = [float(name.split("_")[1][1:].replace("p", ".")) for name in NAMES if not name.startswith("cloud")]
    return np.array([*shifts, *(outcome.scores[f"exact_cloud_{name}"].value for name in CLOUDS)])


def ratios(results: Results) -> Figure:
    """Estimate / W against W, a panel and an axis each kind: mean over repeats ± their standard deviation."""
    runs = critic_runs(results)
    rows = math.ceil((len(runs) + 1) / 3)
    figure, axes = plt.subplots(rows, 3, figsize=(8.0, 0.3 + 2.6 * rows), squeeze=False)
    panels = axes.flatten().tolist()
    for axis, outcome in zip(panels, runs, strict=False):
        _ratio_panel(axis, outcome)
    for axis in panels[len(runs) :]:
        axis.axis("off")
    handles, labels = panels[len(runs) - 1].get_legend_handles_labels()
    panels[len(runs)].legend(handles, labels, loc="center left")
    return figure


def _ratio_panel(axis: Axes, outcome: Finished) -> None:
    config, w = outcome.run.config, exact(outcome)
    repeats = np.array([outcome.facts["ratios"][name] for name in NAMES])
    power = math.floor(math.log10(np.abs(repeats).mean()))
    scale = 1.0 if config.kind == "penalty" or power > -2 else 10.0**power
    for family, (label, marker, line) in LAWS.items():
        part, aside = FAMILIES[family], {"gaussians": 0.96, "lines": 1.04}.get(family, 1.0)
        each = repeats[part] / scale
        error = each.std(1, ddof=1) if each.shape[1] > 1 else None
        axis.errorbar(
            aside * w[part], each.mean(1), yerr=error, fmt=marker + line, capsize=3, label=label, markersize=5
        )
    if config.kind == "penalty":
        axis.axhline(1, color="0.4", linestyle=":", linewidth=1, label="exact")
        x = np.geomspace(0.22, 4.5, 50)
        axis.plot(x, 1 + x / (2 * config.penalty), color="k", linewidth=1, label="1 + W / (2 λ)")
    else:
        axis.set_ylim(bottom=0)
    axis.set_xscale("log", base=2)
    axis.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
    unit = "" if scale == 1 else f", $10^{{{power}}}$"
    axis.set(xlabel="exact W", ylabel=f"estimate / W{unit}")
    axis.set_title(kind_of(outcome).replace(", 2", ",\n2").replace(", 4", ",\n4"), fontsize="small")


def ratio_table(results: Results) -> pd.DataFrame:
    """Each kind of critic: estimate / W by family ± sd over repeats, its change with the shift, and the bound K."""
    rows = []
    for outcome in critic_runs(results):
        scores = outcome.scores
        row = {"critic": kind_of(outcome)}
        for family, (label, *_) in LAWS.items():
            row[f"estimate / W, {label}"] = _ratio(scores[f"ratio_{family}"].value, _sd(outcome, f"ratio_{family}"))
        for family in ("gaussians", "lines"):
            row[f"spread over shifts, {LAWS[family][0]}, %"] = number(100 * scores[f"spread_{family}"].value, 1)
        row["K, product of norms"] = _ratio(scores["lipschitz_bound"].value)
        row["largest estimate / (K W)"] = number(scores["largest_over_bound"].value, 2)
        row["last change, %"] = number(100 * scores["drift"].value, 1)
        rows.append(row)
    return pd.DataFrame(rows)


def _sd(outcome: Finished, name: str) -> float:
    score = outcome.scores[name]
    return score.stderr * math.sqrt(score.n)


def _ratio(value: float, sd: float = math.nan) -> str:
    """`0.00035, 0.00003` as `(3.5 ± 0.3) × 10^-4`, in signs."""
    if math.isnan(value) or abs(value) >= 0.01 or value == 0:
        return number(value, 3, sd)
    power = math.floor(math.log10(abs(value)))
    raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    text = number(value / 10.0**power, 1, sd / 10.0**power)
    return f"{text if math.isnan(sd) else f'({text})'} × 10{raised}"


def critics_caption(results: Results) -> str:
    """What was trained and how it was measured, in words, from the configs of the runs."""
    configs = [outcome.run.config for outcome in critic_runs(results)]
    first, steps = configs[0], sorted({config.n_steps for config in configs})
    span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    points = critic_runs(results)[0].scores["ratio_gaussians"].protocol["evaluation_points"]
    return (
        f"MLPs of {first.width} ReLU units a layer, {span} critic steps of {first.batch} points of each side, "
        f"{first.n_models} repeats a law, lowest seed. Gaussians and lines are measured on {points:,} new points, each "
        f"fake a moved real point; clouds of {first.batch} points are measured whole, and their W is that of the exact "
        "assignment."
    )


def cloud_runs(results: Results) -> list[Finished]:
    return [o for o in critic_runs(results) if o.run.experiment in ("critic-clip-0p01", "critic-penalty")]


def cloud_surfaces(results: Results) -> Figure:
    """The clouds with their exact plan, over level lines of a critic of each kind: c = 0.01 and the penalty."""
    runs = cloud_runs(results)
    size = (6.4, 0.4 + 2.2 * len(runs))
    figure, axes = plt.subplots(len(runs), len(CLOUDS), figsize=size, sharex=True, sharey=True, squeeze=False)
    for row, outcome in enumerate(runs):
        drawn = {name: t.numpy() for name, t in outcome.tensors().items()}
        for place, name in enumerate(CLOUDS):
            axis = axes[row][place]
            _cloud_panel(axis, drawn["clouds"][:, place], drawn["matching"][place], drawn["surfaces"][place])
            if row == 0:
                w = outcome.scores[f"exact_cloud_{name}"].value
                axis.set_title(f"{CLOUD_TITLES[name]}\nW = {w:.3f}", fontsize="small")
            if row == len(runs) - 1:
                axis.set_xlabel("$x_1$")
        axes[row][0].set_ylabel(f"{kind_of(outcome).rpartition(',')[0]}\n$x_2$")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _cloud_panel(axis: Axes, points: np.ndarray, matching: np.ndarray, surface: np.ndarray) -> None:
    """The first index of the surface is x, the second y. Level lines are spaced evenly in the critic's own values."""
    real, fake = points[0], points[1][matching]
    along = np.linspace(-BOUND, BOUND, len(surface))
    axis.contour(along, along, surface.T, levels=14, colors="0.75", linewidths=0.8, linestyles="-", zorder=1)
    axis.plot([real[:, 0], fake[:, 0]], [real[:, 1], fake[:, 1]], color="0.25", linewidth=0.5, zorder=2)
    axis.plot(*real.T, "o", markersize=3, color="C0", label="real", zorder=3)
    axis.plot(*fake.T, "s", markersize=3, color="C1", label="fake", zorder=3)
    axis.set(aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2), xlim=(-BOUND, BOUND), ylim=(-BOUND, BOUND))
    axis.plot([], [], color="0.25", linewidth=0.8, label="exact plan")
    axis.grid(visible=False)


def figure_two(outcome: Finished) -> Figure:
    """The densities with D above D*, and each critic on an axis of its own: the first model thick, the others thin."""
    config: FigureTwoConfig = outcome.run.config
    drawn = {name: t[..., ::8].numpy() for name, t in outcome.tensors().items()}
    x = drawn["x"]
    figure, axes = plt.subplots(3, 1, figsize=(8.0, 6.0), sharex=True, height_ratios=(3, 2, 2))
    for mean, label, colour in (
        (config.real_mean, "density of real", "C2"),
        (config.fake_mean, "density of fake", "C1"),
    ):
        density = np.exp(-0.5 * ((x - mean) / config.sd) ** 2) / (config.sd * math.sqrt(2 * math.pi))
        axes[0].fill_between(x, density, color=colour, alpha=0.35, linewidth=0, label=label)
    slope = (config.real_mean - config.fake_mean) / config.sd**2
    axes[0].plot(x, _sigmoid(slope * (x - (config.real_mean + config.fake_mean) / 2)), color="0.65", linewidth=4,
                 label="D*, exact")  # fmt: skip
    titles = {"discriminator": "GAN discriminator", "clip": f"WGAN critic, c = {config.clip:g}",
              "penalty": f"WGAN critic, penalty with λ = {config.penalty:g}"}  # fmt: skip
    for axis, kind in zip(axes, KINDS, strict=True):
        values = drawn[f"{kind}_values"]
        curves = _sigmoid(values) if kind == "discriminator" else values - values.mean(1, keepdims=True)
        axis.plot(x, curves[1:].T, color="C0", linewidth=0.6, alpha=0.6)
        axis.plot(x, curves[0], color="C0", linestyle="--" if kind == "discriminator" else "-",
                  label="D, trained" if kind == "discriminator" else None)  # fmt: skip
        axis.set_title(titles[kind])
        for mean in (config.real_mean, config.fake_mean):
            axis.axvline(mean, color="0.5", linewidth=0.8, linestyle=":")
    axes[0].set(ylabel="D(x), density", xlim=(x[0], x[-1]))
    axes[0].legend(loc="center left", fontsize="small")
    axes[1].set_ylabel("f(x), own units")
    axes[2].set(ylabel="f(x), own units", xlabel="x")
    return figure


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(logit / 2))


def figure_two_table(outcome: Finished) -> pd.DataFrame:
    """Slopes on the fakes, means over models ± standard deviation, beside those of the exact D*."""
    rows = [
        ("mean |dD/dx| on fakes", "discriminator_gradient", 5),
        ("mean |d log(1 − D)/dx| on fakes", "saturating_gradient", 4),
        ("mean |d log D/dx| on fakes", "nonsaturating_gradient", 2),
        ("D: mean slope on fakes / largest slope", "discriminator_slope", 4),
        ("D: mean |D − D*|", "discriminator_error", 5),
        ("critic, clipped: mean slope on fakes / largest slope", "clip_slope", 3),
        ("critic, penalty: mean slope on fakes / largest slope", "penalty_slope", 3),
        ("critic, clipped: correlation with a line between the modes", "clip_linearity", 4),
        ("critic, penalty: correlation with a line between the modes", "penalty_linearity", 6),
        ("critic, penalty: estimate / W", "penalty_ratio", 3),
    ]
    table = []
    for label, name, digits in rows:
        beside = outcome.scores.get(f"{name}_exact")
        table.append(
            {
                "measured": label,
                "trained": number(outcome.scores[name].value, digits, _sd(outcome, name)),
                "exact D*": "–" if beside is None else number(beside.value, digits),
            }
        )
    return pd.DataFrame(table)


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; those whose run is not finished are left out."""
    found: dict[str, str] = {}
    if critic_runs(results):
        trained = critics_caption(results)
        found |= {
            "ratios": (
                "Estimate / W against W, mean over repeats ± their standard deviation; Gaussians and lines are drawn a "
                "little to the left and right of their W. Every panel has its own scale: the ratios to W can be read "
                f"side by side, the estimates themselves cannot. {trained}"
            ),
            "table": (
                "Estimate / W by kind of critic, means over laws and repeats ± standard deviation over repeats; the "
                "spread is the relative standard deviation over the shifts of one repeat, averaged. A ratio to W has "
                f"one unit for all kinds, so the columns may be read downwards. {trained}"
            ),
        }
    if cloud_runs(results):
        found["clouds"] = (
            "Three pairs of clouds with the exact plan between them, and level lines of the trained critic of the "
            f"first repeat, evenly spaced in its own values. {critics_caption(results)}"
        )
    if two := results.finished("figure-two"):
        config = two[0].run.config
        found["figure_2"] = (
            f"Trained on N({config.real_mean:g}, {config.sd**2:g}) and N({config.fake_mean:g}, {config.sd**2:g}) for "
            f"{config.n_steps:,} steps of {config.batch} points of each side. Thick: the first of "
            f"{config.n_models} models; thin: the others. A critic's values are counted from its mean, in its own "
            "units. Dotted: the two means."
        )
        found["figure_2_table"] = (
            f"Figure 2 in numbers, means over {config.n_models} models ± standard deviation; all averages are sums on "
            f"a grid with the densities as weights. Correlation is with a straight line between {config.real_mean:g} "
            f"and {config.fake_mean:g}."
        )
    return found
