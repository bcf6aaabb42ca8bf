"""Figure 1 and the push-forward, drawn from finished runs."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.gan2014.figure_one import BOUND, MOMENTS, NOISE
from replications.papers import Results

DATA = ("connected", "disconnected")
TITLES = ("(a) near convergence", "(b) D to its optimum", "(c) G has moved", "(d) the end")
BELOW, BOTTOM = -0.12, -0.42  # heights of the axes of x and of z, below the densities


def _weights(outcome: Finished) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in outcome.tensors().items()}


def figure_one(results: Results, model: int = 0) -> Figure:
    """The paper's four panels: p_data dotted, p_g solid, D dashed, D* thin; below, where G carries even steps of z."""
    kept = _weights(results.finished("figure-1")[0])
    black, green, blue, grey = "0.1", sns.color_palette()[2], sns.color_palette()[0], "0.55"
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 3.5), sharex=True, sharey=True, layout="constrained")
    for index, axis in enumerate(axes):
        density, d = kept["density"][index, model], kept["d"][index, model]
        total = kept["data"] + density
        best = np.divide(kept["data"], total, out=np.full_like(total, np.nan), where=total > 0)
        axis.plot(kept["x"], best, color=grey, lw=1, label=r"$D^*$")
        axis.plot(kept["x"], kept["data"], ":", color=black, lw=2, label=r"$p_{data}$")
        axis.plot(kept["x"], density, color=green, label="$p_g$")
        axis.plot(kept["x"], d, "--", color=blue, label="$D$")
        # A G that runs backwards is drawn from the mirrored z: the noise is symmetric, and no arrows cross.
        images = kept["images"][index, model]
        _arrows(axis, kept["z"] / NOISE * 2.2, images if images[-1] > images[0] else images[::-1])
        axis.set(title=TITLES[index], xlabel="$x$", xlim=(-3.2, 3.2), ylim=(BOTTOM - 0.06, 1.12))
        axis.set_yticks([0, 0.5, 1])
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("density, or D")
    for height, name in ((BELOW, "x"), (BOTTOM, "z")):
        axes[0].text(-3.1, height + 0.02, name, style="italic", va="bottom")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _arrows(axis: plt.Axes, z: np.ndarray, x: np.ndarray) -> None:
    for height in (BELOW, BOTTOM):
        axis.axhline(height, color="0.2", lw=1)
    for start, end in zip(z, x, strict=True):
        if abs(end) < 3.2:
            style = {"arrowstyle": "->", "color": "0.45", "lw": 0.7, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", xy=(end, BELOW), xytext=(start, BOTTOM), arrowprops=style)


MOMENT_ROWS = {
    "jsd": "JSD of p_g from p_data, nats",
    "w1": "W1 of p_g from p_data",
}
FIGURE_ONE_ROWS = {
    "optimal_gap": "(b) largest |D − D*|",
    "optimal_gap_mean": "(b) mean |D − D*|",
    "value_shortfall": "(b) optimal value minus V(D, G), nats",
    "half_gap": "(d) largest |D − 1/2|, running means",
    "half_gap_last": "(d) largest |D − 1/2|, last weights",
    "half_met": "(d) share of models within the bound",
    "optimal_half_gap": "(d) largest |D* − 1/2|, from p_g",
    "optimal_half_mass": "(d) share of mass with |D* − 1/2| within the bound",
}


def moments_table(results: Results) -> pd.DataFrame:
    """Distance of p_g from p_data at the four moments, mean over models ± standard deviation over models."""
    outcome = results.finished("figure-1")[0]
    rows = [
        {"quantity": label, **{TITLES[i]: _cell(outcome, f"{name}_{moment}") for i, moment in enumerate(MOMENTS)}}
        for name, label in MOMENT_ROWS.items()
    ]
    return pd.DataFrame(rows)


def figure_one_table(results: Results) -> pd.DataFrame:
    """What figure 1 claims, as numbers: mean over models ± standard deviation over models, and the worst model."""
    outcome = results.finished("figure-1")[0]
    rows = []
    for name, label in FIGURE_ONE_ROWS.items():
        values, score = outcome.record["facts"]["models"][name], outcome.scores[name]
        worst = number(min(values) if score.higher_is_better else max(values), 3)
        rows.append({"quantity": label, "mean over models": _cell(outcome, name), "worst model": worst,
                     "where": str(score.protocol.get("where", "everywhere"))})  # fmt: skip
    return pd.DataFrame(rows)


def figure_one_caption(results: Results) -> str:
    """Settings and the bound, from the plan."""
    config = results.planned("figure-1").config
    return (
        f"{config.n_models} models side by side, {config.n_steps:,} alternating steps of k = {config.k}; "
        f"± is the standard deviation over models. The bound on |D − 1/2| is {BOUND:g}."
    )


def _cell(outcome: Finished, name: str, digits: int = 3) -> str:
    score = outcome.scores[name]
    return number(score.value, digits, score.stderr * math.sqrt(score.n))


def push_forward(results: Results, model: int = 0) -> Figure:
    """A row for each data set: the square of noise, its image over the data, and the logarithm of |det dG/dz|."""
    figure, axes = plt.subplots(2, 3, figsize=(9.2, 5.6), layout="constrained")
    for row, name in zip(axes, DATA, strict=True):
        kept = _weights(results.finished(f"push-forward-{name}")[0])
        side = math.isqrt(kept["images"].shape[1])
        line = np.linspace(-NOISE, NOISE, side)
        square = np.stack(np.meshgrid(line, line), -1)
        _net(row[0], square)
        row[1].scatter(*kept["real"].T, s=3, color="0.78", linewidth=0, label="data", rasterized=True)
        _net(row[1], kept["images"][model].reshape(side, side, 2))
        cells = math.isqrt(kept["log_det"].shape[1])
        area = kept["log_det"][model].reshape(cells, cells) / math.log(10)
        extent = (-NOISE, NOISE, -NOISE, NOISE)
        shown = row[2].imshow(area, origin="lower", extent=extent, cmap="viridis", vmin=-2.5, vmax=1)
        row[2].contour(
            kept["sign"][model].reshape(cells, cells), levels=[0], colors="white", linewidths=1, extent=extent
        )
        figure.colorbar(shown, ax=row[2], label=r"$\log_{10}|\det\, dG/dz|$", extend="both")
        row[0].set(xlabel="$z_1$", ylabel=f"{name} data\n$z_2$")
        row[1].set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-1.7, 1.7), ylim=(-0.4, 1.7))
        row[2].set(xlabel="$z_1$", ylabel="$z_2$")
        for axis in row:
            axis.set_aspect("equal")
            axis.grid(visible=False)
    for axis, title in zip(axes[0], ("noise", "its image, over the data", "area factor"), strict=True):
        axis.set_title(title)
    return figure


def _net(axis: plt.Axes, points: np.ndarray) -> None:
    """The grid's lines (side, side, 2) in the colour of their place in the square: hue along z1, lightness along z2."""
    side = len(points)
    for first in (points, points.swapaxes(0, 1)):
        upright = first is not points
        segments = np.stack([first[:, :-1], first[:, 1:]], 2).reshape(-1, 2, 2)
        across, along = np.meshgrid((np.arange(side - 1) + 0.5) / (side - 1), np.arange(side) / (side - 1))
        u, v = (along, across) if upright else (across, along)
        colours = plt.get_cmap("plasma")(0.9 * u.ravel())
        colours[:, :3] *= (0.55 + 0.45 * v.ravel())[:, None]
        axis.add_collection(LineCollection(list(segments), colors=colours, linewidths=0.6))
    axis.autoscale_view()


PUSH_FORWARD_ROWS = {
    "stray_mass": ("stray mass, share", 4),
    "max_stretch": ("largest stretch", 2),
    "median_stretch": ("median stretch", 2),
    "folded_area": ("folded part of the square, share", 3),
    "preimages": ("points of z behind a generated point", 2),
    "density_ratio": ("density, counted over change of variables (median)", 3),
    "density_close": ("density, share within 20 %", 3),
    "sector_distance": ("distance between shares of sectors", 3),
}


def push_forward_table(results: Results) -> pd.DataFrame:
    """Measures of the map for both data sets, mean over models ± standard deviation over models; and the floor."""
    outcomes = {name: results.finished(f"push-forward-{name}")[0] for name in DATA}
    rows = [
        {"quantity": label, **{f"{name} data": _cell(outcome, key, digits) for name, outcome in outcomes.items()}}
        for key, (label, digits) in PUSH_FORWARD_ROWS.items()
    ]
    floor = {f"{name} data": number(o.scores["stray_mass_real"].value, 4) for name, o in outcomes.items()}
    return pd.DataFrame([{"quantity": "stray mass of real data, share", **floor}, *rows])


def push_forward_caption(results: Results) -> str:
    """Settings of the measures, from the scores' own protocol."""
    outcome = results.finished("push-forward-disconnected")[0]
    stray, stretch = outcome.scores["stray_mass"].protocol, outcome.scores["max_stretch"].protocol
    return (
        f"{outcome.run.config.n_models} models on each data set, {outcome.run.config.n_steps:,} steps; ± is the "
        f"standard deviation over models. Stray: farther than {stray['tolerance']:g} from the data's support, of "
        f"{stray['samples']:,} points. Stretch: largest singular value of dG/dz on a grid of {stretch['grid']}."
    )
