"""The modes in the plane in figures and a table, drawn from finished runs."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lib.execution.runs import Finished
from lib.reporting.tables import number
from lib.results import Score
from replications.cyclegan2017.config import MixturesConfig
from replications.cyclegan2017.mixtures import N_MODES, domains
from replications.papers import Results

VARIANTS = {  # also the order of colours
    "gan": "GAN alone", "forward": "GAN + forward", "cyclegan": "GAN + both", "cycle": "cycle alone",
    "identity": "both + identity",
}  # fmt: skip
EXPERIMENTS = [  # where B's modes are, and the variant; also the order of panels, dots and rows
    ("grid", "gan"), ("grid", "forward"), ("grid", "cyclegan"), ("grid", "cycle"), ("ring", "gan"),
    ("ring", "cyclegan"), ("ring", "identity"), ("groups", "gan"), ("groups", "cyclegan"),
]  # fmt: skip
REACH = 1.9  # of the panels
COLUMNS = {  # measure: heading, digits
    "pairing": ("intended mode, share", 3), "modes_hit": ("modes hit", 2), "bijection": ("bijections, share", 2),
    "consistency": ("with most of its mode, share", 3), "information": ("mutual information, nats", 3),
    "on_modes": ("within 3 sd, share", 3), "cycle_error": ("|F(G(a)) − a|", 3), "moved": ("|G(a) − a|", 3),
}  # fmt: skip


def runs_of(results: Results) -> dict[tuple[str, str], Finished]:
    """The finished run of each (target, variant) that this preset has, in the order of EXPERIMENTS."""
    found = {each: results.finished("mixtures-{}-{}".format(*each)) for each in EXPERIMENTS}
    return {each: runs[0] for each, runs in found.items() if runs}


def maps(results: Results) -> Figure:
    """A, coloured by mode, and where each variant's first model takes its points; below, more models of one variant."""
    runs = runs_of(results)
    figure, axes = plt.subplots(3, 5, figsize=(8.0, 6.2), sharex=True, sharey=True)
    panels = iter(axes[:2].flat)
    first = next(panels)
    _scatter(first, _kept(next(iter(runs.values())))["points"])
    first.set_title("A,\nthe input", fontsize="x-small")
    for ((target, variant), outcome), axis in zip(runs.items(), panels, strict=False):  # runs first: none is lost
        _mapped(axis, outcome, 0)
        axis.set_title(_name(target, variant), fontsize="x-small")
    more = runs.get(("grid", "cyclegan"))
    for model, axis in enumerate(axes[2], start=1):
        if more is None or model >= more.run.config.n_models:
            axis.axis("off")
        else:
            _mapped(axis, more, model)
            axis.set_title(f"{_name('grid', 'cyclegan')}, model {model + 1}", fontsize="x-small")
    for axis in panels:
        axis.axis("off")
    return figure


def _mapped(axis: Axes, outcome: Finished, model: int) -> None:
    """G(a) of one model over the modes of B, which have the colour of the mode that is meant to land there."""
    _scatter(axis, _kept(outcome)["mapped"][model])
    centres = domains(outcome.run.config.target)[1].centres.numpy()
    axis.scatter(centres[:, 0], centres[:, 1], s=75, facecolors="none", edgecolors=_colours(), linewidths=1.3)


def _kept(outcome: Finished) -> dict[str, Tensor]:
    return outcome.tensors()


def _name(target: str, variant: str) -> str:
    """Two lines, for a narrow panel."""
    return f"{target},\n{VARIANTS[variant]}"


def _colours() -> Any:
    """Neighbours on the ring have unlike colours, so that a step by one mode is seen."""
    return sns.color_palette("colorblind", N_MODES)


def _scatter(axis: Axes, points: Tensor) -> None:
    xy = points.float().numpy()
    colours = np.repeat(_colours(), len(xy) // N_MODES, axis=0)
    axis.scatter(xy[:, 0], xy[:, 1], s=3, c=colours, alpha=0.6, linewidths=0, rasterized=True)
    axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])


def dots(results: Results) -> Figure:
    """Share of points in the intended mode and number of modes hit, one point a model in rising order."""
    runs = runs_of(results)
    figure, axes = plt.subplots(2, 1, figsize=(8.0, 4.8), sharex=True)
    for axis, measure in zip(axes, ("pairing", "modes_hit"), strict=True):
        for place, ((_, variant), outcome) in enumerate(runs.items()):
            values = np.sort(np.array(outcome.facts[measure]))
            offset = np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else np.zeros(1)
            colour = sns.color_palette()[list(VARIANTS).index(variant)]
            axis.scatter(place + offset, values, s=14, color=colour, alpha=0.8, linewidths=0)
            axis.hlines(values.mean(), place - 0.36, place + 0.36, color="0.15", linewidth=1.6)
        axis.grid(visible=False, axis="x")
    axes[0].axhline(1 / N_MODES, linestyle="--", color="0.4", linewidth=1)
    axes[0].set(title="Points in the intended mode", ylabel="share", ylim=(-0.04, 1.04))
    axes[1].axhline(N_MODES, linestyle="--", color="0.4", linewidth=1)
    axes[1].set(title="Modes of B that most of some mode of A lands in", ylabel="modes", ylim=(0.4, N_MODES + 0.6))
    axes[1].set_xticks(range(len(runs)), [_name(*each).replace(" + ", "\n+ ") for each in runs], fontsize="x-small")
    return figure


def table(results: Results) -> pd.DataFrame:
    """Every measure of every variant, mean ± standard error over models."""
    rows = []
    for (target, variant), outcome in runs_of(results).items():
        cells = {heading: _cell(outcome.scores[name], digits) for name, (heading, digits) in COLUMNS.items()}
        rows.append({"B": target, "losses": VARIANTS[variant], **cells})
    return pd.DataFrame(rows)


def _cell(score: Score, digits: int) -> str:
    return number(score.value, digits, score.stderr)


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; none where no variant has a finished run."""
    runs = runs_of(results)
    if not runs:
        return {}
    config: MixturesConfig = next(iter(runs.values())).run.config
    k = N_MODES
    trained = (
        f"{config.n_models} models a variant, {config.n_steps:,} updates with minibatches of {config.batch}, Adam at "
        f"{config.learning_rate:g}, hidden layers of {config.width} units"
    )
    return {
        "maps": (
            "Points of A, coloured by their mode, and where the translator of each variant's first model, not "
            "selected, takes them; below, five more models of one variant. Circles: the modes of B, in the colour of "
            "the mode of A that is meant to land there. "
            f"{trained}."
        ),
        "dots": (
            f"One point a model in rising order; bars: means. Above: share of points that land in the intended mode of "
            f"B; dashed: 1/{k}, by chance. Below: how many modes of B get most of some mode of A; dashed: all {k}, a "
            f"bijection. {trained}."
        ),
        "table": (
            f"Mean ± standard error over models. A point lands in the nearest mode of B. By chance 1/{k} = {1 / k:.3f} "
            f"of the points land in the intended one; mutual information of the two mode numbers is at most "
            f"log {k} = {math.log(k):.3f} nats; of B itself {1 - math.exp(-4.5):.3f} lies within 3 sd. Distances are "
            f"Euclidean, in radii of A's ring. {trained}."
        ),
    }
