"""Figure 1 of Gulrajani et al. 2017, drawn from finished runs: value surfaces, gradients by layer, weights."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.execution.runs import Finished
from lib.reporting.tables import number
from lib.results import Score
from replications.papers import Results
from replications.wgan2017.config import DepthConfig, SurfacesConfig
from replications.wgan2017.depth import PENALTY, arm_of, arms_of
from replications.wgan2017.surfaces import REACH, SETS

TITLES = {"ring": "8 Gaussians", "grid": "25 Gaussians", "roll": "swiss roll"}
KINDS = {"clip": "clipping", "penalty": "gradient penalty"}
LINES = {"clip": "-", "penalty": "--"}


def _weights(outcome: Finished) -> dict[str, np.ndarray]:
    return {name: each.float().numpy() for name, each in outcome.tensors().items()}


def value_surfaces(outcome: Finished) -> Figure:
    """Contours of the first critic of each kind on each set, each panel with its own levels; points are data."""
    kept = _weights(outcome)
    axis_values = np.linspace(-REACH, REACH, kept["surface"].shape[-1])
    figure, axes = plt.subplots(2, 3, figsize=(6.6, 4.6), sharex=True, sharey=True)
    for row, line, kind in zip(kept["surface"], axes, KINDS, strict=True):
        for values, axis, name, real in zip(row, line, SETS, kept["real"], strict=True):
            # The first index of the values is x1, which contour wants along the columns.
            axis.contourf(axis_values, axis_values, values.T, levels=14, cmap="viridis")
            axis.contour(axis_values, axis_values, values.T, levels=14, colors="w", linewidths=0.4, linestyles="solid")
            axis.scatter(*real.T, s=3, color=sns.color_palette()[3], linewidths=0, rasterized=True)
            auc = outcome.scores[f"auc_{kind}_{name}"].value
            axis.set_title(f"{TITLES[name]}, AUC {auc:.2f}" if kind == "clip" else f"AUC {auc:.2f}", fontsize="small")
            axis.set(aspect="equal", xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=(-2, 0, 2), yticks=(-2, 0, 2))
            axis.grid(visible=False)
        line[0].set_ylabel(f"{KINDS[kind]}\n$x_2$")
    for axis in axes[-1]:
        axis.set_xlabel("$x_1$")
    return figure


def surface_curves(outcome: Finished) -> Figure:
    """AUC along training, mean over critics; the dotted line is the ratio of the densities on the final points."""
    history = pd.DataFrame(outcome.history())
    figure, axes = plt.subplots(1, 3, figsize=(8.0, 2.9), sharey=True)
    for axis, name in zip(axes, SETS, strict=True):
        for place, (kind, label) in enumerate(KINDS.items()):
            style, colour = LINES[kind], sns.color_palette()[1 + place]
            axis.plot(history["step"], history[f"auc_{kind}_{name}"], style, marker=".", color=colour, label=label)
        best = outcome.scores[f"auc_optimal_{name}"].value
        axis.axhline(best, linestyle=":", color="0.3", label="ratio of the densities")
        axis.set(title=TITLES[name], xlabel="critic updates", ylim=(0.45, 1.02))
    axes[0].set_ylabel("AUC, real against fake")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def surfaces_table(outcome: Finished) -> pd.DataFrame:
    """Each kind of critic on each set: mean over critics ± standard error."""
    rows = []
    for name in SETS:
        for kind, label in KINDS.items():
            cells = {m: outcome.scores[f"{m}_{kind}_{name}"] for m in ("auc", "quadratic", "slope", "estimate")}
            rows.append({
                "data": TITLES[name], "critic": label, "AUC": _number(cells["auc"], 3),
                "explained by a quadratic, %": _number(cells["quadratic"], 1, 100),
                "mean |slope|": _number(cells["slope"], 2 if kind == PENALTY else 5),
                "mean f(real) − mean f(fake)": _number(cells["estimate"], 2 if kind == PENALTY else 6),
            })  # fmt: skip
        best = _number(outcome.scores[f"auc_optimal_{name}"], 3)
        rows.append({"data": TITLES[name], "critic": "ratio of the densities", "AUC": best})
    return pd.DataFrame(rows).fillna("–")


def _number(score: Score, digits: int, scale: float = 1) -> str:
    return number(scale * score.value, digits, scale * score.stderr)


def surfaces_caption(outcome: Finished) -> str:
    config: SurfacesConfig = outcome.run.config
    return (
        f"{config.n_models} critics of each kind on each set, {config.n_layers} hidden layers of {config.width} units, "
        f"{config.n_steps:,} updates on minibatches of {config.batch}; clipping at {config.clip:g} with RMSProp at "
        f"{config.clip_rate:g}, penalty λ = {config.penalty:g} with Adam at {config.penalty_rate:g}; rates fall "
        f"linearly to 0; {config.n_samples:,} fresh real points against as many fakes"
    )


def gradient_norms(outcome: Finished) -> Figure:
    """Norm of the gradient in each hidden layer's activations, a thin line a model and the geometric mean thick."""
    config: DepthConfig = outcome.run.config
    norms, layers = _weights(outcome)["norms"], np.arange(1, config.n_layers + 1)
    figure, axis = plt.subplots(figsize=(8.0, 3.6))
    for place, (arm, each) in enumerate(zip(arms_of(config), norms, strict=True)):
        colour, style = sns.color_palette()[place], ("-", "--", "-.", "-")[place]
        seen = np.where(each > 0, each, np.nan)
        axis.plot(layers, seen.T, style, color=colour, linewidth=0.6, alpha=0.6)
        mean = np.exp(np.log(seen).mean(0))
        marker = "o" if arm == PENALTY else "None"
        axis.plot(layers, mean, style, color=colour, linewidth=2.4, marker=marker, label=_arm_label(config, arm))
    axis.set(yscale="log", xlabel="hidden layer, counted from the input", ylabel="gradient norm, critic's units")
    axis.set_xticks(layers)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _arm_label(config: DepthConfig, arm: str) -> str:
    if arm == PENALTY:
        return f"gradient penalty, λ = {config.penalty:g}"
    return next(f"clipping, c = {clip:g}" for clip in config.clips if arm_of(clip) == arm)


def depth_table(outcome: Finished) -> pd.DataFrame:
    """Decades between the first and the last hidden layer, and where the weights are; mean ± standard error."""
    config: DepthConfig = outcome.run.config
    rows = []
    for arm in arms_of(config):
        row = {"critic": _arm_label(config, arm), "first over last layer, decades": _number(
            outcome.scores[f"decades_{arm}"], 1)}  # fmt: skip
        for measure, title in (
            ("piled_start", "weights at ±c after the first clip, %"), ("piled", "at the end, %"),
            ("moved", "mean way since the first clip, % of c"),
        ):  # fmt: skip
            row[title] = "–" if arm == PENALTY else _number(outcome.scores[f"{measure}_{arm}"], 1, 100)
        rows.append(row)
    return pd.DataFrame(rows)


def depth_caption(outcome: Finished) -> str:
    config: DepthConfig = outcome.run.config
    return (
        f"{config.n_models} WGANs of each kind on the swiss roll, generator and critic of {config.n_layers} hidden "
        f"layers of {config.width} units, {config.n_steps:,} generator updates with {config.n_critic} critic updates "
        f"before each; RMSProp at {config.clip_rate:g} with clipping, Adam at {config.penalty_rate:g} with the "
        f"penalty; {2 * config.n_samples:,} fresh points"
    )


def weight_histograms(deep: Finished | None, shallow: Finished | None) -> Figure:
    """Where weights end: above in the deep critics, below in those of the roll's value surface, from two starts."""
    rows: list[dict[str, Mapping[str, Any]]] = []
    if deep is not None:
        config: DepthConfig = deep.run.config
        middle = arm_of(config.clips[len(config.clips) // 2])
        label = f"{config.n_layers} layers, {{}}"
        rows.append({
            label.format(_arm_label(config, middle)): deep.facts[f"histogram_{middle}"],
            label.format("gradient penalty"): deep.facts[f"histogram_{PENALTY}"],
        })  # fmt: skip
    if shallow is not None:
        label = f"{shallow.run.config.n_layers} layers, {{}}"
        names = {"clip": f"clipping, c = {shallow.run.config.clip:g}", "penalty": "gradient penalty",
                 "even": "clipping, even start"}  # fmt: skip
        rows.append({label.format(name): shallow.facts[f"histogram_{kind}_roll"] for kind, name in names.items()})
    figure, axes = plt.subplots(len(rows), 3, figsize=(8.0, 2.5 * len(rows)), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, histogram) in zip(line, row.items(), strict=False):
            _histogram(axis, histogram, sns.color_palette()[1 if "clipping" in title else 2])
            axis.set_title(title, fontsize="small")
        line[0].set_ylabel("share of weights, %")
        for axis in line[len(row) :]:
            axis.axis("off")
    return figure


def _histogram(axis: Axes, histogram: Mapping[str, Any], colour: Any) -> None:
    counts, reach = np.array(histogram["counts"]), histogram["reach"]
    axis.stairs(100 * counts / counts.sum(), np.linspace(-reach, reach, len(counts) + 1), fill=True, color=colour)
    axis.set(xlabel="weight", xlim=(-reach, reach))
    axis.locator_params(axis="x", nbins=3)


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; those whose run is not finished are left out."""
    surfaces, deep = results.finished("surfaces"), results.finished("depth")
    found: dict[str, str] = {}
    if surfaces:
        trained = f"{surfaces_caption(surfaces[0])}."
        found |= {
            "surfaces": (
                "Value surfaces of the first critic of each kind on each set, not selected: brighter is more real. "
                "Every panel has levels of its own, evenly spaced between its lowest and highest value; a clipped "
                f"critic's values are smaller by powers of ten. Points are data. AUC: mean over critics. {trained}"
            ),
            "auc": (
                "AUC along training on one and the same set of fresh points, mean over critics. Dotted: the ratio of "
                f"the two densities, the best there is. {trained}"
            ),
            "surfaces_table": (
                "Mean over critics ± standard error. Slopes are taken between real points and their perturbed copies. "
                f"Values of the two kinds are on unlike scales. {trained}"
            ),
        }
    if deep:
        trained = f"{depth_caption(deep[0])}."
        found |= {
            "depth": (
                "Norm of the gradient of f in the activations of each hidden layer after training, root mean square "
                "over points; for the critic's loss it is the same but for a factor. A thin line a model, their "
                f"geometric mean thick; log axis. {trained}"
            ),
            "depth_table": (
                "Decades between the gradient norms of the first and the last hidden layer: below 0 gradients vanish "
                "on their way to the input, above 0 they explode. Weights at ±c: within 1 % of a bound. Mean over "
                f"models ± standard error. {trained}"
            ),
        }
    if surfaces and deep:
        start, end = (surfaces[0].scores[f"piled_even{when}_roll"].value for when in ("_start", ""))
        found["weights"] = (
            "Weights at the end of training, all models of a kind; the axes differ. Below: critics of the swiss roll's "
            f"value surface; from the even start the share within 1 % of a bound went from {100 * start:.1f} % to "
            f"{100 * end:.1f} %. With 12 layers: {depth_caption(deep[0])}."
        )
    return found
