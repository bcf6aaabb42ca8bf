"""Mode collapse on ring and grid in figures and tables, drawn from finished runs."""

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
from replications.wgan2017.config import ToyConfig
from replications.wgan2017.toys import MIXTURES

ALGORITHMS = {"gan": "standard GAN", "wgan": "WGAN, clipping", "wgan-gp": "WGAN-GP"}  # also the order of colours
LINES = ("--", "-", "-.")
KL_TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def runs_of(results: Results, distribution: str) -> dict[str, Finished]:
    """The finished run of lowest seed of each algorithm that this preset has, in the order of ALGORITHMS."""
    found = {algorithm: results.finished(f"{distribution}-{algorithm}") for algorithm in ALGORITHMS}
    return {algorithm: runs[0] for algorithm, runs in found.items() if runs}


def distributions(results: Results) -> list[str]:
    return [distribution for distribution in MIXTURES if runs_of(results, distribution)]


def scatter(results: Results, model: int = 0) -> Figure:
    """Samples of one model over the true centres, a row a distribution, a column an algorithm."""
    rows = distributions(results)
    figure, axes = plt.subplots(len(rows), 3, figsize=(8.0, 0.4 + 2.6 * len(rows)), squeeze=False)
    for distribution, line in zip(rows, axes, strict=True):
        for algorithm, axis in zip(ALGORITHMS, line, strict=True):
            outcome = runs_of(results, distribution).get(algorithm)
            if outcome is None:
                axis.axis("off")
                continue
            _samples(axis, outcome, model)
            axis.set_title(ALGORITHMS[algorithm], fontsize="small")
        line[0].set_ylabel(f"{distribution}, $x_2$")
    for axis in axes[-1]:
        axis.set_xlabel("$x_1$")
    return figure


def _samples(axis: Axes, outcome: Finished, model: int) -> None:
    points = outcome.tensors()["samples"][model].float().numpy()
    centres = MIXTURES[outcome.run.config.distribution].centres.numpy()
    reach = 1.35 * float(np.abs(centres).max())
    axis.scatter(
        centres[:, 0],
        centres[:, 1],
        s=34,
        facecolors="none",
        edgecolors=sns.color_palette()[3],
        linewidths=0.9,
        zorder=3,
    )
    axis.scatter(
        points[:, 0], points[:, 1], s=2, color=sns.color_palette()[0], alpha=0.35, linewidths=0, rasterized=True
    )
    ticks = sorted({-centres.max(), 0.0, centres.max()})
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=ticks, yticks=ticks)


def captured(results: Results) -> Figure:
    """Modes captured, a point a model and a line at the mean; the dashed line is how many modes there are."""
    rows = distributions(results)
    figure, axes = plt.subplots(1, len(rows), figsize=(4.0 * len(rows), 2.9), squeeze=False)
    for distribution, axis in zip(rows, axes[0], strict=True):
        runs = runs_of(results, distribution)
        for place, (algorithm, outcome) in enumerate(runs.items()):
            modes = np.sort(np.array(outcome.facts["modes"]))
            offset = np.linspace(-0.25, 0.25, len(modes)) if len(modes) > 1 else np.zeros(1)
            axis.scatter(place + offset, modes, s=22, color=_colour(algorithm), alpha=0.8, linewidths=0)
            axis.hlines(modes.mean(), place - 0.35, place + 0.35, color="0.15", linewidth=1.6)
        n_modes = len(MIXTURES[distribution].centres)
        axis.axhline(n_modes, linestyle="--", color="0.4", linewidth=1)
        axis.set(title=f"{distribution} of {n_modes}", ylim=(-0.04 * n_modes, 1.08 * n_modes), ylabel="modes captured")
        axis.set_xticks(range(len(runs)), [ALGORITHMS[each].replace(" ", "\n") for each in runs])
        axis.set_xlim(-0.6, len(runs) - 0.4)
        axis.grid(visible=False, axis="x")
    return figure


def _colour(algorithm: str) -> Any:
    return sns.color_palette()[list(ALGORITHMS).index(algorithm)]


def curves(results: Results) -> Figure:
    """Modes, quality and evenness along training: mean over models, band one standard error each side."""
    rows = distributions(results)
    columns = {"modes": "modes captured", "high_quality": "high quality, %", "reverse_kl": "reverse KL, nats"}
    figure, axes = plt.subplots(len(rows), 3, figsize=(8.6, 0.7 + 2.2 * len(rows)), squeeze=False)
    for distribution, line in zip(rows, axes, strict=True):
        for axis, (column, label) in zip(line, columns.items(), strict=True):
            for algorithm, outcome in runs_of(results, distribution).items():
                _curve(axis, pd.DataFrame(outcome.history()), column, algorithm)
            axis.set(title=distribution, ylabel=label)
            if column == "reverse_kl":
                axis.set_yscale("log")
                limits = _around(axis.get_ylim())
                axis.set_yticks(KL_TICKS, [f"{tick:g}" for tick in KL_TICKS])
                axis.minorticks_off()
                axis.set_ylim(limits)  # after the ticks, which widen it
            else:
                axis.set_ylim(bottom=0)
        n_modes = len(MIXTURES[distribution].centres)
        line[0].axhline(n_modes, linestyle="--", color="0.4", linewidth=1)
        line[0].set_ylim(0, 1.08 * n_modes)
    for axis in axes[-1]:
        axis.set_xlabel("share of training, %")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _around(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits of an axis that take in the nearest of KL_TICKS on each side."""
    low, high = max([t for t in KL_TICKS if t <= limits[0]], default=KL_TICKS[0]), limits[1]
    return low, min([t for t in KL_TICKS if t >= high], default=KL_TICKS[-1])


def _curve(axis: Axes, history: pd.DataFrame, column: str, algorithm: str) -> None:
    """Over the share of training, for a GAN's generator is updated three times as often."""
    scale, along = 100 if column == "high_quality" else 1, 100 * history["step"] / history["step"].iloc[-1]
    mean, error = scale * history[column], scale * history[f"{column}_stderr"].fillna(0)
    style, colour = LINES[list(ALGORITHMS).index(algorithm)], _colour(algorithm)
    axis.plot(along, mean, style, color=colour, label=ALGORITHMS[algorithm])
    low = (mean - error).clip(lower=1e-4) if column == "reverse_kl" else mean - error
    axis.fill_between(along, low, mean + error, color=colour, alpha=0.2, linewidth=0)


def mode_table(results: Results) -> pd.DataFrame:
    """Ours, mean ± standard error over models, above the reported rows of two papers under their own protocols."""
    rows = []
    for distribution in distributions(results):
        runs = runs_of(results, distribution)
        rows += [_ours(distribution, ALGORITHMS[name], outcome.scores, "") for name, outcome in runs.items()]
        rows.append(_ours(distribution, "draws of the mixture itself", next(iter(runs.values())).scores, "_real"))
        for table in results.paper.document.get("reported_modes", []):
            for model, cells in table[distribution].items():
                shown = (*map(str, cells), "–")
                rows.append(_row(distribution, f"{model} (theirs)", table["source"], str(table["trials"]), *shown))
    return pd.DataFrame(rows)


def _ours(distribution: str, model: str, scores: Mapping[str, Score], suffix: str) -> dict[str, str]:
    modes, quality, kl, distance = (
        scores[f"{name}{suffix}"] for name in ("modes", "high_quality", "reverse_kl", "distance")
    )
    cells = (
        number(modes.value, 1, modes.stderr), number(100 * quality.value, 1, 100 * quality.stderr),
        number(kl.value, 3, kl.stderr), number(distance.value, 1, distance.stderr),
    )  # fmt: skip
    return _row(distribution, model, "this run", "–" if suffix else str(modes.n), *cells)


def _row(
    distribution: str, model: str, source: str, n: str, modes: str, quality: str, kl: str, distance: str
) -> dict[str, str]:
    where = f"{distribution} of {len(MIXTURES[distribution].centres)}"
    return {
        "data": where, "model": model, "source": source, "models trained": n, "modes captured": modes,
        "high quality, %": quality, "reverse KL, nats": kl, "median distance from a mode, sd": distance,
    }  # fmt: skip


def toy_caption(results: Results) -> str:
    """What was trained, in words, from the configs of the runs."""
    runs = runs_of(results, distributions(results)[0])
    parts = []
    for algorithm, outcome in runs.items():
        config: ToyConfig = outcome.run.config
        extra = {"wgan": f", c = {config.clip:g}", "wgan-gp": f", λ = {config.penalty:g}"}.get(algorithm, "")
        optimizer = "RMSProp" if algorithm == "wgan" else "Adam"
        parts.append(
            f"{ALGORITHMS[algorithm]}: {config.n_steps:,} generator updates, {config.n_critic} of the other network "
            f"before each, {optimizer} at {config.learning_rate:g}{extra}"
        )
    falls = "; rates fall linearly to 0" if config.rate_falls else ""
    return (
        f"{config.n_models} models an algorithm, minibatches of {config.batch}, hidden layers of {config.width} units; "
        f"{'; '.join(parts)}{falls}. {config.n_samples:,} samples a model"
    )


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; none where neither ring nor grid has a finished run."""
    if not distributions(results):
        return {}
    trained = f"{toy_caption(results)}."
    return {
        "modes": (
            "Samples of each algorithm's first model, not selected (points), over the true modes (circles, drawn "
            f"larger than three standard deviations). {trained}"
        ),
        "captured": (
            "Modes captured, one point a model in rising order; bar: their mean; dashed line: the number of modes. "
            f"{trained}"
        ),
        "curves": (
            "Modes captured, share of high-quality samples and reverse KL (log axis, lower is more even) while "
            "training: mean over models, band one standard error to each side. Dashed line: the number of modes. The "
            "GAN's generator is updated three times as often, so the axis is the share of training done."
        ),
        "table": (
            f"Ours: mean ± standard error over models. {trained} Rows marked theirs: as printed in the source, with "
            "its standard errors where it gives any."
        ),
    }
