"""Figures 2 and 3, the course of training and the two gradients, drawn from finished runs of the paper's own models."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib import datasets
from lib.claims import read_score
from lib.execution.runs import Finished
from lib.metrics import nearest_neighbour
from lib.reporting.sheets import image_sheet
from lib.reporting.tables import cell, number
from lib.training.randomness import Streams
from replications.gan2014.config import GanConfig
from replications.gan2014.evaluate import SHEET_SIDE, Images
from replications.gan2014.networks import Generator
from replications.gan2014.train import draw_noise
from replications.papers import Results

UPDATES = {"digits-simultaneous": "at once (the authors' code)", "digits-alternating": "in turn (Algorithm 1)"}
MODELS = {"digits-simultaneous": "a", "frey": "b", "cifar-mlp": "c", "cifar-conv": "d"}  # figure 2's panels
ROWS, SAMPLES = 4, 5  # of a panel of figure 2; its last column is the neighbour of the fifth sample


def trained(outcome: Finished, image: tuple[int, ...]) -> Generator:
    """The chosen generator of a finished run, with its weights. image: (C, H, W)."""
    generator = Generator(outcome.run.config, image, bounded=True)
    generator.load_state_dict(outcome.tensors())
    return generator


def sheet_samples(outcome: Finished, image: tuple[int, ...]) -> Tensor:
    """The run's first 100 samples, cut from its sheet: uint8 (100, C, H, W)."""
    channels, height, width = image
    sheet = np.atleast_3d(np.asarray(plt.imread(outcome.folder / "samples.png")))[..., :channels]
    cells = sheet[1:, 1:].reshape(SHEET_SIDE, height + 1, SHEET_SIDE, width + 1, channels)[:, :-1, :, :-1]
    samples = cells.transpose(0, 2, 4, 1, 3).reshape(-1, channels, height, width)
    return torch.from_numpy((255 * samples).round().astype(np.uint8))


def figure_2_panel(outcome: Finished) -> tuple[Tensor, float]:
    """One panel: 4 rows of 5 samples, and the training image nearest to the fifth; the median of those 4 distances.

    The first samples drawn, not selected. Nearest in Euclidean distance of the pixels as the network sees them.
    """
    config: GanConfig = outcome.run.config
    data = datasets.load(config.data)
    image = tuple(data.images.shape[1:])
    samples = sheet_samples(outcome, image)[: ROWS * SAMPLES].view(ROWS, SAMPLES, *image)
    train = Images(data, config, torch.device("cpu")).of_data(data.split("train")[0][: config.n_train])
    distance, index = nearest_neighbour(samples[:, -1].flatten(1).float() / 255, train.flatten(1).float() / 255)
    panel = torch.cat([samples, train[index][:, None]], 1)
    sheet = image_sheet(panel.flatten(0, 1).float() / 255, SAMPLES + 1, padding=2)
    return sheet, distance.median().item()


def figure_2(results: Results) -> Figure:
    """Samples of each model, lowest seed, with the training image nearest to the last sample of each row."""
    found = {name: results.finished(name)[0] for name in MODELS if results.finished(name)}
    figure, axes = plt.subplots(1, len(found), figsize=(4.0 * len(found), 3.3), squeeze=False, layout="constrained")
    for axis, (name, outcome) in zip(axes[0], found.items(), strict=True):
        sheet, _ = figure_2_panel(outcome)
        axis.imshow(sheet.permute(1, 2, 0).numpy().squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        edge = sheet.shape[2] * SAMPLES / (SAMPLES + 1)
        axis.axvline(edge, color=sns.color_palette("colorblind")[1], linewidth=2.5)
        axis.set_title(f"({MODELS[name]}) {outcome.run.config.data}, {outcome.run.config.architecture}")
        axis.axis("off")
    return figure


def sample_sheets(results: Results) -> Figure:
    """The first samples of every model of the paper, a row a model and a column a seed, as the runs wrote them."""
    found = {name: runs for name in [*UPDATES, *MODELS] if (runs := results.finished(name))}
    columns = max(map(len, found.values()))
    figure, axes = plt.subplots(len(found), columns, figsize=(2.7 * columns, 2.9 * len(found)), squeeze=False,
                                layout="constrained")  # fmt: skip
    for row, (name, runs) in zip(axes, found.items(), strict=True):
        for axis in row:
            axis.axis("off")
        for axis, outcome in zip(row, runs, strict=False):
            axis.imshow(plt.imread(outcome.folder / "samples.png"), cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"{name}, seed {outcome.run.seed}", fontsize="small")
    return figure


def figure_3(outcome: Finished, n_lines: int = 4, n_points: int = 11) -> Figure:
    """Straight lines in z, one a row, and under each the distance of its images to the nearest training image."""
    data, config = datasets.load(outcome.run.config.data), outcome.run.config
    image = tuple(data.images.shape[1:])
    ends = draw_noise(config, 2 * n_lines, Streams(outcome.run.seed).at("figure 3")).view(2, n_lines, 1, -1)
    along = torch.linspace(0, 1, n_points).view(1, -1, 1)
    with torch.no_grad():
        images = trained(outcome, image)(torch.lerp(ends[0], ends[1], along).flatten(0, 1))
    rows = data.split("train")[0][: config.n_train].flatten(1).float() / data.max_value
    distances = nearest_neighbour(images, rows)[0].view(n_lines, n_points)
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7.2, 5.4), height_ratios=(n_lines / n_points * 2.4, 1), layout="constrained"
    )
    sheet = image_sheet(images.view(-1, *image), n_points)
    top.imshow(sheet[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    top.axis("off")
    for line, row in enumerate(distances):
        bottom.plot(along.flatten(), row, "o-", markersize=3, label=f"row {line + 1}")
    held_out = outcome.scores["test_nearest"].value
    bottom.axhline(held_out, color="0.35", linestyle="--", label="held-out digits, mean")
    bottom.set(xlabel="place on the line in z", ylabel="distance to nearest\ntraining image", ylim=(0, None))
    bottom.legend(ncols=3, fontsize="small", loc="lower center")
    return figure


def training_curves(results: Results) -> Figure:
    """Validation Parzen, and D's mean output on training, held-out and generated images, for both kinds of update."""
    found = [name for name in UPDATES if results.finished(name)]
    figure, axes = plt.subplots(2, len(found), figsize=(4.4 * len(found), 5.2), sharex=True, sharey="row",
                                squeeze=False, layout="constrained")  # fmt: skip
    colours = sns.color_palette("colorblind")
    for column, name in enumerate(found):
        for outcome in results.finished(name):
            rows = pd.DataFrame(outcome.history())
            axes[0][column].plot(rows["epoch"], rows["parzen_validation"], "o-", markersize=3, color=colours[0])
            for place, key in enumerate(("train", "validation", "fake")):
                axes[1][column].plot(rows["epoch"], rows[f"d_{key}"], color=colours[place + 1], alpha=0.8,
                                     linestyle=("-", "--", ":")[place])  # fmt: skip
        axes[0][column].set_title(f"updates {UPDATES[name]}")
        axes[1][column].set(xlabel="epoch", ylim=(-0.02, 1.02))
    axes[0][0].set_ylabel("validation Parzen,\nnats per image")
    axes[1][0].set_ylabel("mean D, without dropout")
    handles = [plt.Line2D([], [], color=colours[i + 1], linestyle=("-", "--", ":")[i]) for i in range(3)]
    axes[1][-1].legend(handles, ["training images", "held-out images", "samples"], fontsize="small")
    return figure


def updates_table(results: Results) -> pd.DataFrame:
    """Validation Parzen at the last epoch of the shorter training, for both kinds of update and every seed."""
    found = {name: results.finished(name) for name in UPDATES if results.finished(name)}
    epoch = min(runs[0].run.config.n_epochs for runs in found.values())
    rows = []
    for name, runs in found.items():
        at = [row["parzen_validation"] for o in runs for row in o.history() if row["epoch"] == epoch]
        rows.append({"updates": UPDATES[name], "epoch": str(epoch),
                     "validation Parzen, a value a seed": ", ".join(number(value, 1) for value in at)})  # fmt: skip
    return pd.DataFrame(rows)


def gradient_figure(results: Results) -> Figure:
    """Both generator gradients at the same points of the first steps, and D's mean output there."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.3), layout="constrained")
    rows = gradient_rows(results)
    for name, label, style in (("minimax", "saturating, log(1 − D)", "o--"), ("nonsaturating", "−log D", "s-")):
        mean = rows.groupby("step")[f"norm_{name}"].mean()
        left.plot(mean.index + 1, mean, style, markersize=4, label=label)
    left.set(xscale="log", yscale="log", xlabel="update", ylabel="norm of the generator's gradient")
    left.legend()
    for _, run in rows.groupby("seed"):
        right.plot(run["step"] + 1, run["d_fake"], "o-", markersize=3, color="0.3", alpha=0.7)
    right.set(xscale="log", xlabel="update", ylabel="mean D on samples", ylim=(0, None))
    return figure


def gradient_rows(results: Results) -> pd.DataFrame:
    return pd.DataFrame(
        [row | {"seed": o.run.seed} for o in results.finished("digits-simultaneous") for row in o.facts["gradients"]]
    )


def models_table(results: Results) -> pd.DataFrame:
    """Each trained model: parameters of both networks, epochs, the chosen one, Parzen of the chosen and the last."""
    rows = []
    for name in [*UPDATES, "frey", "cifar-mlp", "cifar-conv"]:
        found = results.finished(name)
        if not found:
            continue
        config, parameters = found[0].run.config, found[0].facts["parameters"]
        bounded = "parzen_test" in found[0].scores
        rows.append(
            {
                "experiment": name,
                "updates": {"simultaneous": "at once", "alternating": "in turn"}[config.update],
                "generator": f"{parameters['generator']:,}",
                "discriminator": f"{parameters['discriminator']:,}",
                "epochs": str(config.n_epochs),
                "chosen epoch": ", ".join(str(o.facts["chosen_epoch"]) for o in found) if bounded else "the last",
                "seeds": str(len(found)),
                "Parzen, chosen": cell(found, "parzen_test", 1),
                "Parzen, last": cell(found, "parzen_last", 1),
            }
        )
    return pd.DataFrame(rows)


def path_table(results: Results) -> pd.DataFrame:
    """Distances to the nearest training image along lines in z, beside samples and held-out digits."""
    labels = {
        "path_nearest": "inner points of the lines, mean",
        "path_closest": "the closest inner point of each line",
        "ends_nearest": "ends of the lines (plain samples)",
        "test_nearest": "held-out digits",
    }
    rows = []
    for name, label in labels.items():
        reading = read_score(f"digits-simultaneous.{name}", results.outcomes)
        rows.append({"images": label, "distance to the nearest training image": number(reading.mean, 2, reading.spread),
                     "seeds": str(len(reading.values))})  # fmt: skip
    return pd.DataFrame(rows)
