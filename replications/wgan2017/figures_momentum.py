"""Momentum on the critic in figures and a table, drawn from a finished run."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.papers import Results
from replications.wgan2017.arms import Arm, arms_of
from replications.wgan2017.config import MomentumConfig

N_WINDOWS = 100  # of a curve
LINEAR_BELOW = 1e-4  # estimates nearer to 0 are drawn on a linear axis, larger ones on a logarithmic one
COLUMNS = {  # score -> heading, scale, digits
    "unstable": ("unstable models, %", 100, 0),
    "blown": ("steps blown up, %", 100, 2),
    "cosine_blown": ("cosine at these", 1, 2),
    "cosine_elsewhere": ("cosine elsewhere", 1, 2),
    "negative_blown": ("of these with cosine < 0, %", 100, 1),
    "negative_elsewhere": ("elsewhere, %", 100, 2),
    "drop": ("largest drop", 1, 4),
    "distance": ("distance of images", 1, 1),
}


class Cell(NamedTuple):
    """Where an arm stands in a grid of optimisers (rows) and rates (columns), and among all arms."""

    row: int
    column: int
    arm: Arm
    place: int


def momentum_run(results: Results) -> Finished | None:
    """The finished run of lowest seed; None where the preset has none."""
    return next(iter(results.finished("momentum")), None)


def optimizer_label(arm: Arm, joint: str = "\n") -> str:
    return "RMSProp" if arm.beta1 is None else rf"Adam{joint}$\beta_1$ = {arm.beta1:g}"


def _cells(config: MomentumConfig) -> Iterator[Cell]:
    n_rows = 1 + len(config.beta1s)
    for place, arm in enumerate(arms_of(config)):
        yield Cell(place % n_rows, place // n_rows, arm, place)


def _grid(config: MomentumConfig, parts: int, height: float) -> tuple[Figure, NDArray[np.object_]]:
    """Axes (optimisers, rates, parts): the parts of a cell stand above each other, the first one taller."""
    rows, columns = 1 + len(config.beta1s), len(config.learning_rates)
    figure, axes = plt.subplots(
        rows * parts, columns, figsize=(8.0, height * rows), sharex=True, squeeze=False,
        gridspec_kw={"height_ratios": ([1.0] if parts == 1 else [1.5, 1.0]) * rows},
    )  # fmt: skip
    return figure, axes.reshape(rows, parts, columns).transpose(0, 2, 1)


def curves(outcome: Finished) -> Figure:
    """Estimate and cosine of the first model of each arm: median of a window, band from its lowest to its highest."""
    config, drawn = outcome.run.config, outcome.tensors()
    figure, axes = _grid(config, 2, 2.0)
    for cell in _cells(config):
        pair = axes[cell.row, cell.column]
        for axis, name, colour in zip(pair, ("estimate", "cosine"), sns.color_palette(n_colors=2), strict=True):
            _windows(axis, drawn[name][:, cell.place].numpy(), config.n_critic, colour)
            axis.axhline(0, color="0.25", linewidth=0.8)
            axis.axvline(config.grace, color="0.5", linewidth=0.8, linestyle=":")
        pair[1].set(ylim=(-1, 1), yticks=(-1, 0, 1))
        pair[0].set_yscale("symlog", linthresh=LINEAR_BELOW)
        pair[0].set(ylim=(-0.2, 0.2), yticks=(-0.1, -0.001, 0, 0.001, 0.1))
        if cell.row == 0:
            pair[0].set_title(f"rate {cell.arm.rate:g}")
        if cell.column == 0:
            pair[0].set_ylabel(f"{optimizer_label(cell.arm, ', ')}\nestimate", fontsize="small")
            pair[1].set_ylabel("cosine", fontsize="small")
    for axis in axes[-1, :, -1]:
        axis.set_xlabel("generator updates")
    figure.align_ylabels()
    return figure


def _windows(axis: Axes, values: NDArray[np.float32], n_critic: int, colour: tuple[float, float, float]) -> None:
    parts = np.array_split(values.astype(float), min(N_WINDOWS, len(values)))
    ends = np.cumsum([len(part) for part in parts]) / n_critic
    low, middle, high = (
        [math.nan if np.isnan(part).all() else float(statistic(part)) for part in parts]
        for statistic in (np.nanmin, np.nanmedian, np.nanmax)
    )
    axis.fill_between(ends, low, high, color=colour, alpha=0.35, linewidth=0)
    axis.plot(ends, middle, color=colour, linewidth=1.1)


def heat_map(outcome: Finished) -> Figure:
    """Share of unstable models: rows optimiser, columns rate; with the mean share of blown-up critic steps."""
    config = outcome.run.config
    shares = np.zeros((1 + len(config.beta1s), len(config.learning_rates)))
    figure, axis = plt.subplots(figsize=(2.6 + 1.3 * shares.shape[1], 0.8 + 0.6 * shares.shape[0]))
    for cell in _cells(config):
        share, blown = (outcome.scores[f"{name}_{cell.arm.name}"].value for name in ("unstable", "blown"))
        shares[cell.row, cell.column] = share
        few = f"{100 * blown:.1f}" if blown == 0 or blown >= 0.001 else "below 0.1"
        text = f"{100 * share:.0f} %\n{few} % of steps"
        colour = "w" if share > 0.55 else "0.1"
        axis.text(cell.column, cell.row, text, ha="center", va="center", size="small", color=colour)
    image = axis.imshow(shares, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    rows = [optimizer_label(cell.arm, ", ") for cell in _cells(config) if cell.column == 0]
    axis.set(xlabel="learning rate", xticks=range(shares.shape[1]), yticks=range(shares.shape[0]))
    axis.set(xticklabels=[f"{rate:g}" for rate in config.learning_rates], yticklabels=rows)
    axis.grid(visible=False)
    figure.colorbar(image, ax=axis, label="share of unstable models")
    return figure


def cosines(outcome: Finished) -> Figure:
    """Distribution of the cosine at blow-ups (filled) and at other steps (line), each scaled to the same area."""
    config = outcome.run.config
    counts = outcome.tensors()["histogram"].double().numpy()  # (arms, 2, bins)
    edges = np.linspace(-1, 1, counts.shape[2] + 1)
    figure, axes = _grid(config, 1, 1.3)
    for cell in _cells(config):
        axis: Axes = axes[cell.row, cell.column, 0]
        blown, elsewhere = (row / max(row.sum(), 1) for row in counts[cell.place])
        axis.stairs(blown, edges, fill=True, color=sns.color_palette()[3], alpha=0.6, label="at blow-ups")
        axis.stairs(elsewhere, edges, color=sns.color_palette()[0], linewidth=1.4, label="at other steps")
        axis.axvline(0, color="0.25", linewidth=0.8)
        n_blown = int(counts[cell.place, 0].sum())
        axis.text(0.03, 0.93, f"{n_blown:,} blown up", transform=axis.transAxes, va="top", size="small")
        axis.set(xlim=(-1, 1), yticks=())
        if cell.row == 0:
            axis.set_title(f"rate {cell.arm.rate:g}")
        if cell.column == 0:
            axis.set_ylabel(optimizer_label(cell.arm), fontsize="small")
    for axis in axes[-1, :, 0]:
        axis.set_xlabel("cosine")
    figure.legend(*axes[0, 0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def samples(outcome: Finished) -> Figure:
    """The first images of the first model of each arm: a row an arm."""
    config, sheet = outcome.run.config, plt.imread(outcome.folder / "samples.png")
    labels = [f"{optimizer_label(arm, ', ')}, rate {arm.rate:g}" for arm in arms_of(config)]
    cell = sheet.shape[0] / len(labels)
    figure, axis = plt.subplots(figsize=(6.0, 6.0 * sheet.shape[0] / sheet.shape[1] * 0.72))
    axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_yticks([cell * (i + 0.5) for i in range(len(labels))], labels, fontsize="small")
    axis.set_xticks([])
    axis.grid(visible=False)
    sns.despine(ax=axis, left=True, bottom=True)
    return figure


def momentum_table(outcome: Finished) -> pd.DataFrame:
    """Every arm's numbers: means over models ± their standard deviation; a dash where there is no such step."""
    rows = []
    for arm in arms_of(outcome.run.config):
        beta1 = "RMSProp" if arm.beta1 is None else f"Adam, beta1 {arm.beta1:g}"
        row = {"critic's optimiser": beta1, "rate": f"{arm.rate:g}"}
        for name, (heading, scale, digits) in COLUMNS.items():
            score = outcome.scores.get(f"{name}_{arm.name}")
            spread = math.nan if score is None else scale * score.stderr * math.sqrt(score.n)
            row[heading] = "–" if score is None else number(scale * score.value, digits, spread)
        rows.append(row)
    return pd.DataFrame(rows)


def momentum_caption(outcome: Finished) -> str:
    """What was trained and what is counted, in words, from the run's config and scores."""
    config, protocol = outcome.run.config, outcome.scores["unstable_momentum"].protocol
    return (
        f"{config.n_models} models an arm on {config.data} at 14 × 14 pixels, two hidden layers of {config.width}, "
        f"{config.n_steps:,} generator updates of {config.n_critic} critic steps, clip {config.clip:g}. A critic "
        f"step is blown up: {protocol['blown']}. A model is unstable: {protocol['unstable']}."
    )


def table_caption(outcome: Finished) -> str:
    """How the table's distance is made and what its ends are, from the scores."""
    real, start = (outcome.scores[f"distance_{name}"] for name in ("real", "untrained"))
    return (
        "Means over models ± their standard deviation; a dash where no step of the kind occurred. Largest drop: of the "
        f"estimate, from one critic step to the next, in critic units. Distance: {real.protocol['distance']}, "
        f"{real.protocol['generated']:,} generated against {real.n:,} test images, and no FID; training images have "
        f"{number(real.value, 2)}, untrained generators {number(start.value, 1)}."
    )
