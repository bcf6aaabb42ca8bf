"""Digits, paintings, shapes and photographs: tables and pictures, drawn from finished runs."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.metrics import metric_name
from lib.reporting.tables import cell, reading
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.figures_scenes import Row, pictures
from replications.papers import Results

FID = metric_name("FID", "digits-cnn")
KID = metric_name("KID", "digits-cnn")
WAYS = {"b": "MNIST to UCI", "a": "UCI to MNIST"}
DIGIT_ROWS = (
    Row("CycleGAN", "digits-cyclegan"), Row("GAN alone", "digits-gan-alone"),
    Row("real digits of the target, drawn at random (floor)", "anchors-digits", "_real"),
    Row("the input left as it is", "anchors-digits", "_input"),
)  # fmt: skip
SHAPE_ROWS = (
    Row("CycleGAN", "shapes-cyclegan"), Row("real shapes of the target", "anchors-shapes", "_real"),
    Row("the input left as it is", "anchors-shapes", "_input"),
)  # fmt: skip
OTHER_TASKS = ("scenes", "paintings", "digits", "shapes")


def digit_table(results: Results) -> pd.DataFrame:
    """Both directions: does the digit stay, and does it look like the target's hand; mean ± sd over seeds."""
    rows = []
    for way, words in WAYS.items():
        for row in DIGIT_ROWS:
            runs = results.finished(row.experiment)
            if runs:
                rows.append({
                    "direction": words,
                    "digits by": row.name,
                    "read as the input's digit": cell(runs, f"same_{way}{row.suffix}", 3),
                    "information": cell(runs, f"information_{way}{row.suffix}", 2),
                    FID: cell(runs, f"fid_{way}{row.suffix}", 1),
                    KID: cell(runs, f"kid_{way}{row.suffix}", 3),
                    "seeds": str(len(runs)),
                })  # fmt: skip
    return pd.DataFrame(rows)


def light_shifts(results: Results) -> Figure:
    """Figure 9 as a number: distance of mean colours of input and output, without and with the identity loss."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.6), sharey=True)
    arms = {"paintings-plain": "without", "paintings-identity": "with"}
    for axis, (way, title) in zip(
        axes, {"b": "paintings to photographs", "a": "photographs to paintings"}.items(), strict=True
    ):
        for place, experiment in enumerate(arms):
            if (read := reading(results.finished(experiment), f"shift_{way}")) is not None:
                axis.scatter([place] * len(read.values), read.values, s=30, color=sns.color_palette()[place])
        axis.set_xticks(range(2), [f"{word} identity loss" for word in arms.values()])
        axis.set(title=title, xlim=(-0.5, 1.5))
        axis.margins(y=0.1)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("shift of the mean colour\n(RGB levels)")
    return figure


def pairs(results: Results, experiments: Sequence[tuple[str, str]], keys: Sequence[str], n: int = 10) -> Figure:
    """Rows of pictures by several experiments, seed 0: the keys are the rows of each (a, fake_b, back_a, ...)."""
    found = [(name, words) for name, words in experiments if results.finished(name)]
    figure, axes = plt.subplots(1, len(found), figsize=(4.1 * len(found), 0.45 * len(keys) + 0.35), squeeze=False)
    for axis, (name, words) in zip(axes[0], found, strict=True):
        axis.imshow(pictures(results.finished(name)[0], keys, n))
        axis.set_title(words, fontsize="small")
        axis.axis("off")
    return figure


def shape_table(results: Results) -> pd.DataFrame:
    """Figure 17 as numbers: is the colour the target's, is the outline still the input's; both directions."""
    rows = []
    for way, words in {"b": "discs to triangles", "a": "triangles to discs"}.items():
        for row in SHAPE_ROWS:
            runs = results.finished(row.experiment)
            if runs:
                scores = {
                    "recoloured": "colour of the target",
                    "reshaped": "outline of the target",
                    "outline_kept": "outline of the input's kind",
                    "outline_iou": "IoU with the input's outline",
                }
                cells = {text: cell(runs, f"{key}_{way}{row.suffix}", 2) for key, text in scores.items()}
                rows.append({"direction": words, "images by": row.name, **cells, "seeds": str(len(runs))})  # fmt: skip
    return pd.DataFrame(rows)


def photo_experiments(results: Results) -> list[str]:
    """The experiments on photographs that have a finished run at this preset."""
    found = [o.run for o in results.finished() if isinstance(o.run.config, TranslationConfig)]
    return list(dict.fromkeys(run.experiment for run in found if run.config.task not in OTHER_TASKS))


def photo_table(results: Results) -> pd.DataFrame:
    """FID, KID and their floor for every photo task that was run."""
    rows = []
    for experiment in photo_experiments(results):
        runs = results.finished(experiment)
        anchors = results.finished(f"anchors-{runs[0].run.config.task.replace('/', '-')}")
        for way in ("b", "a"):
            sources = {
                "made": (runs, ""), "real training images (floor)": (anchors, "_real"),
                "the input left as it is": (anchors, "_input"),
            }  # fmt: skip
            for words, (found, suffix) in sources.items():
                row: dict[str, Any] = {"experiment": experiment, "into": way.upper(), "images": words}
                for key, text in (("fid", "FID[efficientnet-lite0]"), ("kid", "KID[efficientnet-lite0]")):
                    row[text] = cell(found, f"{key}_{way}{suffix}", 3)
                rows.append({**row, "seeds": str(len(found))})
    return pd.DataFrame(rows)


def reported_photos(results: Results) -> pd.DataFrame:
    """Other people's scores of CycleGAN on photographs, each under its own protocol: none compares with ours."""
    return pd.DataFrame(results.paper.document["reported_photos"]).fillna("–")
