"""Tables 2 to 5 and figures 4, 5 and 7 on scenes, drawn from finished runs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.execution.runs import Finished
from lib.reporting.sheets import image_sheet
from lib.reporting.tables import cell, reading
from replications.papers import Results


class Row(NamedTuple):
    """A row of a table: its name in the paper, its experiment, and what its scores' names end in."""

    name: str
    experiment: str
    suffix: str = ""


METHOD_ROWS = (
    Row("CoGAN", "scenes-cogan"), Row("BiGAN/ALI", "scenes-bigan"), Row("SimGAN", "scenes-simgan"),
    Row("feature loss + GAN", "scenes-feature"), Row("CycleGAN", "scenes-cyclegan"),
    Row("pix2pix", "scenes-pix2pix"), Row("real images", "anchors-scenes", "_real"),
    Row("random other scene", "anchors-scenes", "_other"),
    Row("the input left as it is", "anchors-scenes", "_input"),
)  # fmt: skip
MAJORITY = Row("one map for all, each pixel's majority", "anchors-scenes", "_majority")  # no photograph has it
FULL = Row("CycleGAN", "scenes-cyclegan")
ABLATION_ROWS: Mapping[str, tuple[Row, ...]] = {
    "photo": (
        Row("cycle alone", "scenes-cycle-alone"), Row("GAN alone", "scenes-gan-alone"),
        Row("GAN + forward cycle", "scenes-cycle-labels"), Row("GAN + backward cycle", "scenes-cycle-photos"), FULL,
    ),
    "label": (
        Row("cycle alone", "scenes-cycle-alone"), Row("GAN alone", "scenes-gan-alone"),
        Row("GAN + forward cycle", "scenes-cycle-photos"), Row("GAN + backward cycle", "scenes-cycle-labels"), FULL,
    ),
}  # fmt: skip
TABLES = {"table 2": ("photo", METHOD_ROWS), "table 3": ("label", (*METHOD_ROWS[:-1], MAJORITY, METHOD_ROWS[-1])),
          "table 4": ("photo", ABLATION_ROWS["photo"]), "table 5": ("label", ABLATION_ROWS["label"])}  # fmt: skip
COLUMNS = {"pixel": "pixel accuracy", "class": "class accuracy", "iou": "class IoU", "information": "information"}


def table(results: Results, name: str) -> pd.DataFrame:
    """Table 2, 3, 4 or 5: reported pixel accuracy, class accuracy and class IoU, then ours, mean ± sd over seeds.

    A row that was not run is left out, and so is one whose runs are older than its score (majority).
    """
    way, rows = TABLES[name]
    reported = results.paper.document["reported_tables"][name]
    lines = []
    for row in rows:
        runs = results.finished(row.experiment)
        if not runs or f"{way}_iou{row.suffix}" not in runs[0].scores:
            continue
        ours = {words: cell(runs, f"{way}_{key}{row.suffix}", 2) for key, words in COLUMNS.items()}
        theirs = " / ".join(reported[row.name]) if row.name in reported else "–"
        lines.append({"images by": row.name, "reported (theirs)": theirs, **ours, "seeds": str(len(runs))})
    return pd.DataFrame(lines)


def table_caption(results: Results, name: str) -> str:
    """How the table was made, from a run's own config."""
    config = results.finished("scenes-cyclegan")[0].run.config
    way = {"photo": "Labels to photographs, read by our segmenter", "label": "Photographs to labels, read by colour"}
    recalled = results.paper.document["reported_from_memory"].get(name, [])
    unchecked = f" From memory, not checked against the page: the reported {', '.join(recalled)}." if recalled else ""
    return (
        f"{name.capitalize()}. {way[TABLES[name][0]]}; {config.n_test} scenes of {config.side} × {config.side}, "
        f"{config.n_steps:,} steps of {config.batch}; mean over seeds ± standard deviation. Information: what the "
        "output's class tells of the true one, over the entropy of the true one; the place in the image alone tells "
        "some of it. Class IoU: of each class the pixels that both maps give it, of those that either does, mean over "
        "classes. Reported (pixel / class / IoU): Cityscapes and FCN-8s. Absolute values are not comparable; the "
        f"order of rows is what is judged.{unchecked}"
    )


def fooling_table(results: Results) -> pd.DataFrame:
    """In place of table 1: what the held-out discriminator takes for real, the classifier's accuracy, the KID."""
    rows = []
    for row in (*METHOD_ROWS, *ABLATION_ROWS["photo"][:4]):
        runs = results.finished(row.experiment)
        if runs:
            rows.append({
                "photographs by": row.name,
                "taken for real by the held-out discriminator": cell(runs, f"fooling_b{row.suffix}", 3),
                "told from real by a classifier": cell(runs, f"two_sample_b{row.suffix}", 3),
                "KID[scenes-fcn]": cell(runs, f"kid_b{row.suffix}", 3),
                "diversity": cell(runs, f"diversity_b{row.suffix}", 2),
                "seeds": str(len(runs)),
            })  # fmt: skip
    return pd.DataFrame(rows)


def scores_by_row(results: Results) -> Figure:
    """Class IoU of every method and ablation, a dot a seed: labels to photographs left, photographs to labels right."""
    rows = [*METHOD_ROWS[:6], *ABLATION_ROWS["photo"][:4]]
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.6), sharey=True)
    titles = {"photo": "labels to photographs", "label": "photographs to labels"}
    for axis, (way, title) in zip(axes, titles.items(), strict=True):
        shown = [*METHOD_ROWS[:6], *ABLATION_ROWS[way][:4]]
        for place, row in enumerate(reversed(shown)):
            read = reading(results.finished(row.experiment), f"{way}_iou")
            if read is None:
                continue
            colour = sns.color_palette()[1 if row == FULL else 0 if row in METHOD_ROWS else 2]
            axis.scatter(read.values, [place] * len(read.values), s=24, color=colour, alpha=0.85, linewidths=0)
        for suffix, style in (("_other", ":"), ("_real", "--")):
            anchor = reading(results.finished("anchors-scenes"), f"{way}_iou{suffix}")
            if anchor is not None and anchor.mean < 0.999:
                axis.axvline(anchor.mean, color="0.4", linestyle=style, linewidth=1.2)
        axis.set(title=title, xlabel="class IoU", xlim=(0, None))
    names = [row.name for row in rows]
    axes[0].set_yticks(range(len(rows)), names[::-1], fontsize="small")
    return figure


def pictures(outcome: Finished, keys: Sequence[str], n: int) -> Any:
    """Rows of the first n images kept by a run, as one array for imshow."""
    kept = outcome.tensors()
    rows = in_colour([kept[key][:n] for key in keys])
    return image_sheet(rows, n, pad_value=255).permute(1, 2, 0).numpy()


def in_colour(rows: Sequence[Tensor]) -> Tensor:
    """Rows of grey or colour images (n, 1 or 3, H, W) as one of colour images."""
    return torch.cat([row.expand(-1, 3, -1, -1) if row.shape[1] == 1 else row for row in rows])


def round_trips(results: Results, experiment: str, n: int = 8) -> Figure:
    """Figure 4: input, output, reconstruction, both ways, the first test images of seed 0."""
    outcome = results.finished(experiment)[0]
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 1.75))
    ways = {
        "labels to photographs and back": ("a", "fake_b", "back_a"),
        "photographs to labels and back": ("b", "fake_a", "back_b"),
    }
    for axis, (title, keys) in zip(axes, ways.items(), strict=True):
        image = pictures(outcome, keys, n)
        axis.imshow(image)
        axis.set_title(title, fontsize="small")
        step = image.shape[0] / 3
        axis.set_yticks([step * (i + 0.5) for i in range(3)], ["input", "output", "back"], fontsize="x-small")
        axis.set_xticks([])
        axis.grid(visible=False)
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure


def side_by_side(results: Results, rows: Sequence[Row], way: str, n: int = 8) -> Figure:
    """Figures 5 to 7: inputs, then each method's outputs for them, then the truth; the first test scenes, seed 0."""
    given, made, truth = ("a", "fake_b", "b") if way == "photo" else ("b", "fake_a", "a")
    found = [(row.name, results.finished(row.experiment)) for row in rows if not row.suffix]
    found = [(name, runs) for name, runs in found if runs]
    first = found[0][1][0].tensors()
    images = [("input", first[given])]
    images += [(name, runs[0].tensors()[made]) for name, runs in found]
    images.append(("truth", first[truth]))
    figure, axis = plt.subplots(figsize=(6.6, 0.55 * len(images) + 0.1))
    sheet = image_sheet(in_colour([each[:n] for _, each in images]), n, pad_value=255).permute(1, 2, 0).numpy()
    axis.imshow(sheet)
    step = sheet.shape[0] / len(images)
    axis.set_yticks([step * (i + 0.5) for i in range(len(images))], [name for name, _ in images], fontsize="small")
    axis.set_xticks([])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


def hidden_code(results: Results) -> Figure:
    """What comes back of photographs and of labels when the translation is damaged a little; a dot a seed."""
    kinds = {"cycle": "untouched", "noise": "noise", "jpeg": "JPEG"}
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 2.9), sharey=True)
    titles = {"b": "photographs by way of label maps", "a": "label maps by way of photographs"}
    runs = results.finished("scenes-cyclegan")
    for axis, (domain, title) in zip(axes, titles.items(), strict=True):
        for place, key in enumerate(kinds):
            read = reading(runs, f"{key}_{domain}")
            if read is not None:
                offsets = np.linspace(-0.08, 0.08, len(read.values)) if len(read.values) > 1 else [0.0]
                axis.scatter(place + np.asarray(offsets), read.values, s=28, color=sns.color_palette()[place])
        axis.set_xticks(range(len(kinds)), list(kinds.values()))
        axis.set(title=title, xlim=(-0.5, len(kinds) - 0.5))
        axis.margins(y=0.1)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("reconstruction error\n(grey levels)")
    return figure


def curves(results: Results, experiment: str = "scenes-cyclegan") -> Figure:
    """Losses along the training: a panel a kind, a colour a seed."""
    runs = results.finished(experiment)
    columns = [name for name in pd.DataFrame(runs[0].history()).columns if name not in ("step", "rate")]
    kinds = sorted({name.rsplit("_", 1)[0] for name in columns})
    figure, axes = plt.subplots(1, len(kinds), figsize=(2.75 * len(kinds), 2.6), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for outcome, colour in zip(runs, sns.color_palette(), strict=False):
            history = pd.DataFrame(outcome.history())
            for domain, style in (("a", "-"), ("b", "--")):
                if f"{kind}_{domain}" in history:
                    axis.plot(history["step"], history[f"{kind}_{domain}"], style, color=colour, linewidth=1)
        axis.set(title=kind.replace("_", " "), xlabel="generator updates", ylim=(0, None))
    axes[0][0].set_ylabel("loss")
    return figure
