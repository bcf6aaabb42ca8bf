"""Figures 3 to 7 and the tables of scores on images, drawn from finished runs."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from torch import Tensor

from lib.execution.runs import Failed, Finished
from lib.metrics import metric_name
from lib.metrics.quality import extractor_for
from lib.reporting.sheets import image_sheet
from lib.reporting.tables import cell, number, reading
from replications.papers import Results
from replications.wgan2017.config import ImagesConfig
from replications.wgan2017.presets import ARCHITECTURES

ALGORITHMS = {"wgan": "WGAN", "gan": "GAN"}
NAMES = {
    "dcgan": "DCGAN",
    "constant": "constant width, no batch norm",
    "mlp": "MLP generator",
    "mlp-mlp": "MLP and MLP critic, high rate",
    "mlp-he": "MLP, He's first weights",
}
TITLES = {  # the same, over narrow panels
    "dcgan": "DCGAN",
    "constant": "constant width,\nno batch norm",
    "mlp": "MLP generator",
    "mlp-mlp": "MLPs for both,\nhigh rate",
    "mlp-he": "MLP, He's\nfirst weights",
}
OPTIONS = {
    "wgan-dcgan": "Algorithm 1",
    "wgan-clip-before": "clip before the step (N1)",
    "wgan-clip-start": "clip after the step and once before the first",
    "wgan-schedule": "longer critic training at times (N2)",
    "wgan-paper-rate": "the paper's learning rate",
    "wgan-gp": "gradient penalty (Gulrajani et al. 2017)",
}
ANCHORS = {
    "real": "real training images (floor)",
    "gaussian": "a Gaussian fitted to the pixels",
    "untrained": "an untrained DCGAN",
    "noise": "uniform noise",
}
METRICS = {
    "fid": ("FID", 1),
    "is": ("IS", 2),
    "kid": ("KID", 3),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
}


def experiments(results: Results) -> list[str]:
    """The image experiments that have a finished run at this preset, in the order of the plan."""
    found = dict.fromkeys(o.run.experiment for o in results.finished() if isinstance(o.run.config, ImagesConfig))
    return list(found)


def pairs(results: Results, among: Iterable[str] = NAMES) -> list[str]:
    """The pairs of networks that have a finished run; among ARCHITECTURES those of figures 3 and 4."""
    return [name for name in among if any(results.finished(f"{a}-{name}") for a in ALGORITHMS)]


def options(results: Results) -> list[str]:
    """The variants of Algorithm 1 that have a finished run."""
    return [name for name in OPTIONS if results.finished(name)]


def data_name(results: Results) -> str:
    """The data set of the trainings on images."""
    return str(results.planned("wgan-dcgan").config.data)


def label(experiment: str) -> str:
    algorithm, _, architecture = experiment.partition("-")
    if experiment in OPTIONS and experiment != "wgan-dcgan":
        return f"WGAN, DCGAN: {OPTIONS[experiment]}"
    return f"{ALGORITHMS[algorithm]}, {NAMES[architecture]}"


def estimates(results: Results) -> Figure:
    """Figures 3 and 4: a column an architecture, WGAN's estimate above and the GAN's below, each on its own axis."""
    columns = pairs(results, ARCHITECTURES)
    figure, axes = plt.subplots(2, len(columns), figsize=(0.6 + 2.35 * len(columns), 4.4), squeeze=False)
    for row, algorithm in zip(axes, ALGORITHMS, strict=True):
        for axis, name in zip(row, columns, strict=True):
            for outcome, colour in zip(results.finished(f"{algorithm}-{name}"), sns.color_palette(), strict=False):
                history = pd.DataFrame(outcome.history())
                axis.plot(history["step"], history["estimate"], color=colour, alpha=0.25, linewidth=0.8)
                window = max(3, len(history) // 20)
                smooth = history["estimate"].rolling(window, center=True, min_periods=1).median()
                axis.plot(history["step"], smooth, color=colour, label=f"seed {outcome.run.seed}")
            if algorithm == "gan":
                axis.axhline(math.log(2), color="0.4", linestyle=":", linewidth=1.2)
                axis.set_xlabel("generator iterations")
            axis.set_title(TITLES[name] if algorithm == "wgan" else "", fontsize="small")
            axis.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
    axes[0][0].set_ylabel("WGAN: critic's estimate\n(critic units)")
    axes[1][0].set_ylabel("GAN: estimate of JS\n(nats)")
    axes[0][0].legend(fontsize="x-small", loc="best")
    return figure


def quality_curves(results: Results) -> Figure:
    """FID against updates of either network: a panel an architecture, a line an algorithm and seed."""
    names = pairs(results)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    size = (0.6 + 2.5 * columns, 0.4 + 2.3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for place, algorithm in enumerate(ALGORITHMS):
            for outcome in results.finished(f"{algorithm}-{name}"):
                scored = checkpoints(outcome)
                style = {"color": sns.color_palette()[place], "linestyle": ("-", "--")[place]}
                text = ALGORITHMS[algorithm] if outcome.run.seed == 0 else None
                axis.plot(
                    scored["step"] + scored["critic_steps"], scored["distance"], label=text, linewidth=1.2, **style
                )
        if (floor := reading(results.finished("anchors"), "fid_gaussian")) is not None:
            axis.axhline(floor.mean, color="0.4", linestyle=":", linewidth=1.2)
        axis.set(title=TITLES[name], yscale="log")
        axis.title.set_fontsize("medium")
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    figure.supxlabel("updates of either network", fontsize="medium")
    figure.supylabel(fid_name(results), fontsize="medium")
    axes[0][0].legend(fontsize="small")
    return figure


def fid_name(results: Results) -> str:
    return metric_name("FID", extractor_for(data_name(results)) or "no extractor")


def checkpoints(outcome: Finished) -> pd.DataFrame:
    """The rows of the history at which images were scored."""
    history = pd.DataFrame(outcome.history())
    return history[history["distance"].notna()]


def correlations(results: Results) -> Figure:
    """Spearman's correlation of estimate and FID over checkpoints: a row an experiment, a dot a seed."""
    rows = [name for name in experiments(results) if reading(results.finished(name), "spearman") is not None]
    figure, axis = plt.subplots(figsize=(7.6, 0.36 * len(rows) + 1.0))
    for place, name in enumerate(reversed(rows)):
        colour = sns.color_palette()[1 if name.startswith("gan") else 0]
        for outcome in results.finished(name):
            score = outcome.scores.get("spearman")
            if score is None or not math.isfinite(score.value):
                continue
            height = place + 0.18 * (outcome.run.seed - 1)
            low, high = outcome.facts["spearman_interval"]
            axis.plot([low, high], [height, height], color=colour, linewidth=1.2, alpha=0.6)
            axis.plot(score.value, height, "o" if name.startswith("wgan") else "s", color=colour, markersize=4.5)
    axis.axvline(0, color="0.4", linewidth=1)
    axis.axvline(0.8, color="0.4", linewidth=1, linestyle="--")
    axis.set_yticks(range(len(rows)), [label(name) for name in reversed(rows)], fontsize="small")
    axis.set(xlim=(-1.05, 1.05), xlabel="Spearman's correlation of the estimate with the FID, over checkpoints")
    return figure


def scatter(results: Results) -> Figure:
    """The estimate against the FID at each checkpoint: a panel an experiment with its own axes, a colour a seed."""
    names = [f"{a}-{n}" for a in ALGORITHMS for n in ARCHITECTURES if results.finished(f"{a}-{n}")]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(0.4 + 2.6 * columns, 0.3 + 2.3 * rows), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for outcome, colour in zip(results.finished(name), sns.color_palette(), strict=False):
            points = checkpoints(outcome)
            shades = np.linspace(0.25, 1.0, len(points))
            axis.scatter(points["estimate"], points["distance"], s=14, color=colour, alpha=shades, linewidths=0)
        axis.set_title(label(name).replace(", ", ":\n", 1), fontsize="small")
        axis.set_yscale("log")
        axis.tick_params(which="both", labelsize="small")
        axis.ticklabel_format(axis="x", scilimits=(-3, 4))
        axis.set_xlabel("JS estimate, nats" if name.startswith("gan") else "estimate, critic units", fontsize="small")
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    for row in axes:
        row[0].set_ylabel(fid_name(results), fontsize="small")
    return figure


def _pictures(sheet: Tensor) -> Any:
    return sheet.permute(1, 2, 0).squeeze(-1).numpy()


def strips(results: Results) -> Figure:
    """Figure 3's samples: fixed noise at a quarter, a half, three quarters and the end; WGAN above, GAN below."""
    columns = pairs(results, ARCHITECTURES)
    figure, axes = plt.subplots(2, len(columns), figsize=(1.75 * len(columns), 2.75), squeeze=False)
    for axis, algorithm, name in _panels(axes, columns):
        if found := results.finished(f"{algorithm}-{name}"):
            moments = found[0].tensors()["strips"]  # (4, 16, C, H, H)
            axis.imshow(_pictures(image_sheet(moments[:, :7].flatten(0, 1), 7, pad_value=255)))
    return figure


def sheets(results: Results) -> Figure:
    """Figures 5 to 7: the first 32 images of each generator, seed 0; WGAN above, GAN below."""
    columns = pairs(results)
    figure, axes = plt.subplots(2, len(columns), figsize=(1.5 * len(columns), 2.5), squeeze=False)
    for axis, algorithm, name in _panels(axes, columns):
        if found := results.finished(f"{algorithm}-{name}"):
            axis.imshow(_upper_half(found[0]))
    return figure


def _panels(axes: Any, columns: Sequence[str]) -> Iterator[tuple[Any, str, str]]:
    """Each axis with its algorithm and architecture, titled and without a frame."""
    for row, algorithm in zip(axes, ALGORITHMS, strict=True):
        for axis, name in zip(row, columns, strict=True):
            axis.axis("off")
            axis.set_title(f"{ALGORITHMS[algorithm]}: {TITLES[name]}", fontsize="x-small")
            yield axis, algorithm, name


def _upper_half(outcome: Finished) -> Any:
    sheet = plt.imread(outcome.folder / "samples.png")
    return sheet[: len(sheet) // 2 + 1]


def option_sheets(results: Results) -> Figure:
    """The first 32 images of each variant of Algorithm 1 on the DCGAN, seed 0."""
    names = options(results)
    figure, axes = plt.subplots(2, -(-len(names) // 2), figsize=(1.9 * -(-len(names) // 2), 2.5), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        axis.imshow(_upper_half(results.finished(name)[0]))
        axis.set_title(textwrap.fill(OPTIONS[name], 26), fontsize="x-small")
    return figure


def failures(results: Results, experiment: str) -> tuple[int, int]:
    """How many runs of an experiment failed, of how many: FID above the pixel Gaussian's, or diverged."""
    bar = reading(results.finished("anchors"), "fid_gaussian")
    ended = [o for run, o in results.outcomes if run.experiment == experiment and o is not None]
    failed = sum(
        isinstance(o, Failed) or (bar is not None and "fid" in o.scores and o.scores["fid"].value > bar.mean)
        for o in ended
    )
    return failed, len(ended)


def quality_table(results: Results) -> pd.DataFrame:
    """FID, IS, KID, precision and recall of every arm, best FID first, and of what stands beside them."""
    found = results.finished("anchors")
    rows: list[tuple[float, dict[str, str]]] = []
    for name in experiments(results):
        runs = results.finished(name)
        cells = {metric: cell(runs, metric, digits) for metric, (_, digits) in METRICS.items()}
        failed, ended = failures(results, name)
        fid = reading(runs, "fid")
        rows.append((math.inf if fid is None else fid.mean, _row(results, label(name), len(runs), cells,
                                                                  f"{failed} of {ended}")))  # fmt: skip
    for key, words in ANCHORS.items():
        cells = {metric: cell(found, f"{metric}_{key}", digits) for metric, (_, digits) in METRICS.items()}
        fid = reading(found, f"fid_{key}")
        rows.append((math.inf if fid is None else fid.mean, _row(results, words, len(found), cells, "–")))
    return pd.DataFrame([row for _, row in sorted(rows, key=lambda pair: pair[0])])


def _row(results: Results, images_of: str, seeds: int, cells: dict[str, str], failed: str) -> dict[str, str]:
    bracket = fid_name(results).removeprefix("FID")
    named = {f"{name}{bracket}" if key in ("fid", "is", "kid") else name: cells[key]
             for key, (name, _) in METRICS.items()}  # fmt: skip
    return {"images of": images_of, "seeds": str(seeds), **named, "failed runs": failed}


def options_table(results: Results) -> pd.DataFrame:
    """Algorithm 1 beside its variants on the same networks; no estimates: those of unlike critics do not compare."""
    rows = []
    for name in options(results):
        runs = results.finished(name)
        config = runs[0].run.config
        rows.append({
            "variant": OPTIONS[name],
            "seeds": str(len(runs)),
            "generator iterations": f"{config.n_steps:,}",
            "critic steps": f"{runs[0].facts['critic_steps']:,.0f}",
            "learning rate": f"{config.learning_rate:g}",
            fid_name(results): cell(runs, "fid", 1),
            "recall": cell(runs, "recall", 2),
            "Spearman with FID": cell(runs, "spearman", 2),
        })  # fmt: skip
    return pd.DataFrame(rows)


def correlation_table(results: Results) -> pd.DataFrame:
    """Spearman's correlation, mean over seeds ± sd over seeds; each seed's bootstrap interval is in the figure."""
    rows = []
    for name in experiments(results):
        runs = results.finished(name)
        read = reading(runs, "spearman")
        count = runs[0].scores["spearman"].n if "spearman" in runs[0].scores else 0
        rows.append({
            "experiment": label(name),
            "seeds": str(len(runs)),
            "checkpoints": str(count or "–"),
            "Spearman with FID": cell(runs, "spearman", 2),
            "each seed": "–" if read is None else ", ".join(number(value, 2) for value in read.values),
            # A critic's has a unit of its own: in a column of several they would be read against each other.
            "last estimate of JS, nats": cell(runs, "estimate", 3) if runs[0].run.config.algorithm == "gan" else "–",
        })  # fmt: skip
    return pd.DataFrame(rows)


def reported_table(results: Results) -> pd.DataFrame:
    """Other people's numbers on CIFAR-10 and MNIST under their own protocols: none compares with ours."""
    rows = [
        {
            "model": row["model"],
            "data": row["data"],
            "FID": "–" if row.get("fid") is None else number(row["fid"], 2, row.get("fid_spread", math.nan)),
            "IS": "–" if row.get("is") is None else number(row["is"], 2, row.get("is_spread", math.nan)),
            "whose number": row["source"],
        }
        for row in results.paper.document["reported_quality"]
    ]
    return pd.DataFrame(rows)


def caption_of_images(results: Results) -> str:
    """What is trained, in words, from the plan's own configs."""
    config, gan = (results.planned(f"{algorithm}-dcgan").config for algorithm in ALGORITHMS)
    return (
        f"{config.data}, {config.n_filters} filters, {config.n_steps:,} generator iterations of the WGAN and "
        f"{gan.n_steps:,} of the GAN, minibatches of {config.batch}"
    )
