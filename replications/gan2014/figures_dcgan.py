"""DCGAN's figures: samples of every seed, training curves, and Stacked MNIST beside what was reported."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.claims import reported_text
from lib.execution.runs import Finished
from lib.metrics import metric_name
from lib.reporting.tables import number
from replications.papers import Results

STACKED = {"stacked-dcgan": "DCGAN", "stacked-pac2": "PacDCGAN2"}
LOSSES = {"discriminator_loss": "discriminator", "generator_loss": "generator"}
OUTPUTS = {"d_real": "on training images", "d_fake": "on generated images"}


def sample_sheets(results: Results) -> Figure:
    """The first images of every seed's generator, a sheet for each seed."""
    return _sheets([(f"seed {o.run.seed}", o) for o in results.finished("dcgan")])


def stacked_sheets(results: Results) -> Figure | None:
    """The first stacked digits of DCGAN and PacDCGAN2, lowest seed each; None where the preset has none."""
    found = [(name, o[0]) for experiment, name in STACKED.items() if (o := results.finished(experiment))]
    return _sheets(found) if found else None


def _sheets(titled: Sequence[tuple[str, Finished]]) -> Figure:
    width = min(8.0 / len(titled), 4.0)
    figure, axes = plt.subplots(1, len(titled), figsize=(width * len(titled), width + 0.25), squeeze=False)
    for axis, (title, outcome) in zip(axes[0], titled, strict=True):
        axis.imshow(plt.imread(outcome.folder / "samples.png"), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    return figure


def training_curves(results: Results) -> Figure:
    """Left: both losses. Right: the discriminator's mean output. A line a seed; each point is a mean over its steps."""
    runs = results.finished("dcgan")
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.2))
    _lines(left, runs, LOSSES)
    _lines(right, runs, OUTPUTS)
    left.axhline(math.log(2), color="0.5", linewidth=1, linestyle=":")
    left.text(0.99, 0.72, "log 2", transform=left.get_yaxis_transform(), ha="right", va="bottom", color="0.4")
    left.set(ylabel="loss, nats", ylim=(0, None), title="Losses")
    right.axhline(0.5, color="0.5", linewidth=1, linestyle=":")
    right.set(ylabel="mean output D", ylim=(0, 1), title="Discriminator")
    return figure


def _lines(axis: Axes, runs: Sequence[Finished], columns: dict[str, str]) -> None:
    for colour, style, (column, label) in zip(sns.color_palette(n_colors=2), ("-", "--"), columns.items(), strict=True):
        for i, outcome in enumerate(runs):
            rows = outcome.history()
            steps, values = [row["step"] for row in rows], [row[column] for row in rows]
            axis.plot(steps, values, style, color=colour, alpha=0.85, label=label if i == 0 else None)
    axis.set_xlabel("steps")
    axis.legend(frameon=True, framealpha=1, edgecolor="none")  # opaque: the dotted line runs behind it


def scores_table(results: Results) -> pd.DataFrame:
    """DCGAN's scores of sample quality, mean over seeds ± standard deviation over seeds, by the extractor's name."""
    runs = results.finished("dcgan")
    scored = [o for o in runs if "fid" in o.scores]
    if not scored:
        said = {str(o.record["facts"].get("quality_left_out", "")) for o in runs}
        return pd.DataFrame([{"score": "none", "why": "; ".join(sorted(said))}])
    rows = []
    for name, label, digits in (("fid", "FID", 1), ("fid_untrained", "FID, untrained generator", 1), ("is", "IS", 2),
                                ("kid", "KID", 3), ("precision", "precision", 3), ("recall", "recall", 3)):  # fmt: skip
        values = pd.Series([o.scores[name].value for o in scored])
        short, _, rest = label.partition(",")
        title = metric_name(short, scored[0].scores[name].protocol["extractor"]) + ("," + rest if rest else "")
        better = "higher" if scored[0].scores[name].higher_is_better else "lower"
        rows.append({"score": title, "better": better, "value": number(values.mean(), digits, values.std()),
                     "seeds": len(values)})  # fmt: skip
    return pd.DataFrame(rows)


def scores_caption(results: Results) -> str:
    """What the table of scores was measured on."""
    run = results.finished("dcgan")[0]
    score = run.scores.get("fid")
    counts = f"{score.n:,} generated and {score.protocol['real']:,} real images" if score else "not scored"
    return (
        f"DCGAN on {run.run.config.data}, {run.run.config.n_steps:,} steps of {run.run.config.batch} images, {counts} "
        "that no training saw; mean over seeds ± standard deviation over seeds."
    )


def stacked_table(results: Results) -> pd.DataFrame:
    """Modes and KL: reported rows from claims.yaml, then ours, then real images read by the same classifier."""
    claims = {claim["id"]: claim for claim in results.paper.document["claims"]}
    rows: list[dict[str, Any]] = [
        {
            "images": name,
            "whose": "reported, Lin et al. 2018, their protocol",
            "modes of 1,000": reported_text(claims[f"stacked-modes-{key}"]),
            "KL, nats": reported_text(claims[f"stacked-kl-{key}"]).removesuffix(" nats"),
            "seeds": "10",
        }
        for key, name in (("dcgan", "DCGAN"), ("pac2", "PacDCGAN2"))
    ]
    for experiment, name in STACKED.items():
        if runs := results.finished(experiment):
            rows.append({"images": name, "whose": "measured here", **_coverage(runs, "")})
    if every := [o for experiment in STACKED for o in results.finished(experiment)]:
        distinct = {o.run.seed: o for o in every}  # both experiments stack the same real images of a seed
        rows.append(
            {"images": "real digits, stacked", "whose": "measured here", **_coverage([*distinct.values()], "real_")}
        )
    return pd.DataFrame(rows)


def _coverage(runs: Sequence[Finished], prefix: str) -> dict[str, str]:
    modes, kl = (pd.Series([o.scores[prefix + name].value for o in runs]) for name in ("modes", "kl"))
    return {
        "modes of 1,000": number(modes.mean(), 1, modes.std()),
        "KL, nats": number(kl.mean(), 3, kl.std()),
        "seeds": str(len(runs)),
    }


def stacked_caption(results: Results) -> str:
    """How the counts were made, from the runs; or that the preset has none."""
    runs = [o for experiment in STACKED for o in results.finished(experiment)]
    if not runs:
        return "Stacked MNIST: what was reported. No run of it is finished at this preset."
    config, made_by = runs[0].run.config, runs[0].scores["modes"].protocol
    return (
        f"Stacked MNIST: classes that {made_by['classifier']} finds among {made_by['samples']:,} images, and the "
        "KL of their histogram to equal shares. ± is the standard deviation over seeds, in reported rows the standard "
        f"error. Ours stop after {config.n_steps:,} steps of {config.batch} packs, earlier than theirs."
    )
