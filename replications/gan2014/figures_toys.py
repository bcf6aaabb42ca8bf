"""Mode collapse and sensitivity in figures and tables, drawn from finished runs."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.execution.runs import Finished
from lib.reporting.tables import number
from lib.results import Score
from replications.gan2014.config import SensitivityConfig, ToyConfig
from replications.gan2014.toys import MIXTURES
from replications.papers import Results

VARIANTS = {  # part of an experiment's name -> words
    "minimax": "minimax GAN",
    "nonsaturating": "non-saturating GAN",
    "pac2": "PacGAN2",
    "pac3": "PacGAN3",
}
# As printed, each under its authors' protocol and with their networks, from so many trials a model: modes, high quality
# in %, reverse KL in nats.
REPORTED = {
    ("Srivastava et al. 2017 (VEEGAN)", 5): {
        "ring": {"GAN": ("1", "99.3", "–"), "ALI": ("2.8", "0.13", "–"), "Unrolled GAN": ("7.6", "35.6", "–"),
                 "VEEGAN": ("8", "52.9", "–")},
        "grid": {"GAN": ("3.3", "0.5", "–"), "ALI": ("15.8", "1.6", "–"), "Unrolled GAN": ("23.6", "16", "–"),
                 "VEEGAN": ("24.6", "40", "–")},
    },
    ("Lin et al. 2018 (PacGAN)", 10): {
        "ring": {"GAN": ("6.3 ± 0.5", "98.2", "0.45"), "ALI": ("6.6 ± 0.3", "97.6", "0.36"),
                 "PacGAN2": ("7.9 ± 0.1", "95.6", "0.07"), "PacGAN3": ("7.8 ± 0.1", "97.7", "0.10")},
        "grid": {"GAN": ("17.3 ± 0.8", "94.8", "0.70"), "ALI": ("24.1 ± 0.4", "95.7", "0.14"),
                 "PacGAN2": ("23.8 ± 0.7", "91.3", "0.13"), "PacGAN3": ("24.6 ± 0.4", "94.2", "0.06")},
    },
}  # fmt: skip


def runs_of(results: Results, distribution: str) -> dict[str, Finished]:
    """The finished run of lowest seed of each variant that this preset has, in the order of VARIANTS."""
    found = {variant: results.finished(f"{distribution}-{variant}") for variant in VARIANTS}
    return {variant: runs[0] for variant, runs in found.items() if runs}


def distributions(results: Results) -> list[str]:
    return [distribution for distribution in MIXTURES if runs_of(results, distribution)]


def scatter(results: Results) -> Figure:
    """Samples of each variant's first model over the true centres, a row a distribution, a column a variant."""
    rows = distributions(results)
    columns = [variant for variant in VARIANTS if any(variant in runs_of(results, row) for row in rows)]
    size = (0.4 + 2.1 * len(columns), 0.5 + 2.1 * len(rows))
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout="constrained")
    for distribution, line in zip(rows, axes, strict=True):
        for variant, axis in zip(columns, line, strict=True):
            outcome = runs_of(results, distribution).get(variant)
            if outcome is None:
                axis.axis("off")
                continue
            _samples(axis, outcome, distribution)
            axis.set_title(VARIANTS[variant], fontsize="small")
        line[0].set_ylabel(f"{distribution}, $x_2$")
    for axis in axes[-1]:
        axis.set_xlabel("$x_1$")
    return figure


def _samples(axis: Any, outcome: Finished, distribution: str) -> None:
    points = outcome.tensors()["samples"][0].float().numpy()
    centres = MIXTURES[distribution].centres.numpy()
    reach = 1.35 * float(np.abs(centres).max())
    axis.scatter(*centres.T, s=34, facecolors="none", edgecolors=sns.color_palette()[3], linewidths=0.9, zorder=3)
    axis.scatter(*points.T, s=2, color=sns.color_palette()[0], alpha=0.35, linewidths=0, rasterized=True)
    ticks = sorted({-centres.max(), 0.0, centres.max()})
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=ticks, yticks=ticks)


def captured(results: Results) -> Figure:
    """Modes captured, a point a model and a line at the mean; the dashed line is how many modes there are."""
    rows = distributions(results)
    figure, axes = plt.subplots(1, len(rows), figsize=(4.0 * len(rows), 2.9), squeeze=False, layout="constrained")
    for distribution, axis in zip(rows, axes[0], strict=True):
        runs = runs_of(results, distribution)
        for place, (outcome, colour) in enumerate(zip(runs.values(), sns.color_palette(n_colors=4), strict=False)):
            modes = np.sort(np.array(outcome.record["facts"]["modes"]))
            offset = np.linspace(-0.25, 0.25, len(modes)) if len(modes) > 1 else np.zeros(1)
            axis.scatter(place + offset, modes, s=22, color=colour, alpha=0.8, linewidths=0)
            axis.hlines(modes.mean(), place - 0.35, place + 0.35, color="0.15", linewidth=1.6)
        n_modes = len(MIXTURES[distribution].centres)
        axis.axhline(n_modes, linestyle="--", color="0.4", linewidth=1)
        axis.set(title=f"{distribution} of {n_modes}", ylim=(-0.04 * n_modes, 1.08 * n_modes), ylabel="modes captured")
        axis.set_xticks(
            range(len(runs)), [VARIANTS[v].replace(" ", "\n").replace("-", "-\n") for v in runs], fontsize="small"
        )
        axis.set_xlim(-0.6, len(runs) - 0.4)
        axis.grid(visible=False, axis="x")
    return figure


def curves(results: Results) -> Figure:
    """Modes captured and share of high quality along training: mean over models, band one standard error each side."""
    rows, columns = distributions(results), {"modes": "modes captured", "high_quality": "high quality, %"}
    figure, axes = plt.subplots(len(rows), 2, figsize=(8.0, 0.5 + 2.3 * len(rows)), squeeze=False, layout="constrained")
    for distribution, line in zip(rows, axes, strict=True):
        for axis, (column, label) in zip(line, columns.items(), strict=True):
            for variant, outcome in runs_of(results, distribution).items():
                history = pd.DataFrame(outcome.history())
                _curve(axis, history, column, list(VARIANTS).index(variant), VARIANTS[variant])
            axis.set(title=distribution, ylabel=label)
            axis.set_ylim(bottom=0)
        n_modes = len(MIXTURES[distribution].centres)
        line[0].axhline(n_modes, linestyle="--", color="0.4", linewidth=1)
        line[0].set_ylim(0, 1.08 * n_modes)
    for axis in axes[-1]:
        axis.set_xlabel("updates of both networks")
    figure.legend(*axes[0][1].get_legend_handles_labels(), loc="outside upper center", ncols=len(VARIANTS))
    return figure


def _curve(axis: Any, history: pd.DataFrame, column: str, place: int, label: str) -> None:
    scale = 100 if column == "high_quality" else 1
    mean, error = scale * history[column], scale * history[f"{column}_stderr"].fillna(0)
    colour, style = sns.color_palette()[place], ("--", "-", "-.", ":")[place]
    axis.plot(history["step"], mean, style, color=colour, label=label)
    axis.fill_between(history["step"], mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)


def mode_table(results: Results) -> pd.DataFrame:
    """Ours, mean ± standard error over models, above the reported rows of two papers under their own protocols."""
    rows = []
    for distribution in distributions(results):
        runs = runs_of(results, distribution)
        for variant, outcome in runs.items():
            rows.append(_ours(distribution, VARIANTS[variant], outcome.scores, ""))
        rows.append(_ours(distribution, "draws of the mixture itself", next(iter(runs.values())).scores, "_real"))
        for (source, trials), tables in REPORTED.items():
            for model, cells in tables[distribution].items():
                rows.append(_row(distribution, f"{model} (theirs)", source, str(trials), *cells))
    return pd.DataFrame(rows)


def _ours(distribution: str, model: str, scores: Mapping[str, Score], suffix: str) -> dict[str, str]:
    modes, quality, kl = (scores[f"{name}{suffix}"] for name in ("modes", "high_quality", "reverse_kl"))
    cells = (
        number(modes.value, 1, modes.stderr), number(100 * quality.value, 1, 100 * quality.stderr),
        number(kl.value, 3, kl.stderr),
    )  # fmt: skip
    return _row(distribution, model, "this run", "–" if suffix else str(modes.n), *cells)


def _row(distribution: str, model: str, source: str, n: str, modes: str, quality: str, kl: str) -> dict[str, str]:
    where = f"{distribution} of {len(MIXTURES[distribution].centres)}"
    return {
        "data": where, "model": model, "source": source, "models trained": n, "modes captured": modes,
        "high quality, %": quality, "reverse KL, nats": kl,
    }  # fmt: skip


def toy_caption(results: Results) -> str:
    """What was trained and how it was measured, in words, from the configs of the runs."""
    config = next(iter(runs_of(results, distributions(results)[0]).values())).run.config
    assert isinstance(config, ToyConfig)
    falls = ", falling linearly to 0" if config.rate_falls else ""
    return (
        f"{config.n_models} models a variant, {config.n_steps:,} updates, generator {config.generator_layers} × "
        f"{config.generator_hidden}, discriminator {config.discriminator_layers} × {config.maxout_units} maxout units, "
        f"Adam at {config.learning_rate:g}{falls}; {config.n_samples:,} samples a model"
    )


def sensitivity_runs(results: Results) -> list[Finished]:
    return [outcome for outcome in results.finished() if isinstance(outcome.run.config, SensitivityConfig)]


def failures(results: Results) -> Figure:
    """Share of failed models for each learning rate (row), width (column) and update ratio (panel)."""
    runs = {(o.run.config.ratio, o.run.config.width): o for o in reversed(sensitivity_runs(results))}
    ratios, widths = (sorted({key[place] for key in runs}) for place in (0, 1))
    rates = next(iter(runs.values())).run.config.learning_rates
    size = (1.6 + (0.8 + 1.0 * len(widths)) * len(ratios), 1.1 + 0.62 * len(rates))
    figure, axes = plt.subplots(1, len(ratios), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for ratio, axis in zip(ratios, axes[0], strict=True):
        shares = np.full((len(rates), len(widths)), np.nan)
        for column, width in enumerate(widths):
            for row, rate in enumerate(rates):
                if (outcome := runs.get((ratio, width))) is None:
                    continue
                shares[row, column] = outcome.scores[f"failed_lr{rate:g}"].value
                text = f"{100 * shares[row, column]:.0f} %\n{outcome.scores[f'modes_lr{rate:g}'].value:.1f} modes"
                dark = shares[row, column] > 0.55
                axis.text(column, row, text, ha="center", va="center", size="small", color="w" if dark else "0.1")
        image = axis.imshow(shares, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
        axis.set(title=f"k = {ratio}", xlabel="width", xticks=range(len(widths)), xticklabels=widths)
        axis.grid(visible=False)
    axes[0][0].set(ylabel="learning rate", yticks=range(len(rates)), yticklabels=[f"{rate:g}" for rate in rates])
    figure.colorbar(image, ax=axes[0].tolist(), label="share of failed models")
    return figure


def failures_caption(results: Results) -> str:
    config = sensitivity_runs(results)[0].run.config
    rate = config.learning_rates[0]
    rule = sensitivity_runs(results)[0].scores[f"failed_lr{rate:g}"].protocol["failed"]
    return (
        f"Share of models that failed, and the mean number of modes captured of 8; {config.n_models} models a cell, "
        f"{config.n_steps:,} generator updates each, ring with standard deviation {config.sd:g}. A model failed with "
        f"{rule}. k is the number of discriminator updates a generator update."
    )
