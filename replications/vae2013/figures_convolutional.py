"""Convolutional VAEs: reconstructions, samples and scores beside the MLP's, drawn from finished runs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import datasets
from lib.execution.runs import Finished
from lib.metrics import metric_name
from lib.reporting.tables import cell, number
from replications.papers import Results
from replications.vae2013.convolutional import N_SHOWN, ConvolutionalConfig

TITLES = {"convolutional-digits": "digits", "convolutional-cifar10": "CIFAR-10"}
COLUMNS = {  # score: heading, digits
    "elbo_train": ("bound, train", 1), "elbo_test": ("bound, test", 1), "iwae_test": ("L_k, test", 1),
    "bits_per_dim": ("bits/dim, at most", 2), "kl_test": ("KL term", 1), "active_units": ("active units", 1),
    "reconstruction_error": ("squared error", 4),
}  # fmt: skip


def runs_of(results: Results) -> dict[str, list[Finished]]:
    """Experiment -> finished runs, lowest seed first."""
    return {name: found for name in TITLES if (found := results.finished(name))}


def reconstructions(results: Results, samples_rows: int = 3) -> Figure:
    """The first test images, their reconstructions, and samples, of the lowest seed; a column of panels a data set."""
    runs = runs_of(results)
    figure, axes = plt.subplots(len(runs), 1, figsize=(7.0, 3.7 * len(runs)), squeeze=False)
    for axis, (name, found) in zip(axes[:, 0], runs.items(), strict=True):
        data = datasets.load(found[0].run.config.data)
        made = plt.imread(found[0].folder / "samples.png")
        height, width = data.images.shape[2:]
        made = made[..., None] if made.ndim == 2 else made[..., :3]
        originals = data.split("test")[0][:N_SHOWN].permute(0, 2, 3, 1).float().div(255).numpy()
        line = np.ones((height + 1, made.shape[1], made.shape[2]))
        for column, image in enumerate(originals):
            left = 1 + column * (width + 1)
            line[1:, left : left + width] = np.broadcast_to(image, (height, width, made.shape[2]))
        picture = np.concatenate([line, made[: (1 + samples_rows) * (height + 1) + 1]])
        axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(TITLES[name])
        centres = [(row + 0.5) * (height + 1) for row in (0, 1, 1 + (samples_rows + 1) / 2)]
        axis.set_yticks(centres, ["test images", "reconstructions", "samples"])
        axis.set_xticks([])
        axis.grid(False)
    return figure


def table(results: Results) -> pd.DataFrame:
    """Scores, mean ± standard deviation over seeds; the MLP with as many latents, and principal components, beside."""
    rows = []
    for name, found in runs_of(results).items():
        config: ConvolutionalConfig = found[0].run.config
        row = {"model": f"convolutional, {TITLES[name]}", "samples": f"{config.n_samples:,}"}
        rows.append(row | _cells(found))
        components = dict.fromkeys(rows[0], "–") | {"model": f"{config.n_latent} components, {TITLES[name]}"}
        rows.append(components | {"squared error": number(found[0].scores["pca_error"].value, 4)})
        mlp = results.finished(f"aevb-nz{config.n_latent}") if name == "convolutional-digits" else []
        if mlp:
            row = {
                "model": "MLP (AEVB), digits",
                "samples": f"{mlp[0].run.config.n_samples:,}",
            }
            rows.append(row | _cells(mlp))
        floor = results.finished("baselines") if name == "convolutional-digits" else []
        if floor:
            real = dict.fromkeys(rows[0], "–") | {"model": "training images in place of samples, digits"}
            rows.append(real | _fid(floor, "real_fid"))
    table = pd.DataFrame(rows).fillna("–")
    return table.loc[:, (table != "–").any()]  # bits per dimension only where there are bytes


def _cells(found: list[Finished]) -> dict[str, str]:
    cells = {heading: cell(found, score, digits) for score, (heading, digits) in COLUMNS.items()}
    return cells | _fid(found, "fid")


def _fid(found: list[Finished], score: str) -> dict[str, str]:
    """In a column that names the extractor: digits and CIFAR-10 have one each."""
    scores = [outcome.scores[score] for outcome in found if score in outcome.scores]
    return {metric_name("FID", scores[0].protocol["extractor"]): cell(found, score, 1)} if scores else {}


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; none where no run is finished."""
    runs = runs_of(results)
    if not runs:
        return {}
    found = next(iter(runs.values()))[0]
    weighted, error = found.scores["iwae_test"], found.scores["reconstruction_error"]
    return {
        "pictures": (
            f"The first {N_SHOWN} test images, their reconstructions (decoder mean at q's mean) and the first samples "
            "from the prior (decoder means), lowest seed, not selected."
        ),
        "table": (
            f"{found.run.config.n_latent} latents. Bounds in nats per image, mean ± standard deviation over seeds; k = "
            f"{weighted.protocol['draws']} for the convolutional models; squared error: of a pixel on 0 .. 1, "
            f"{error.n:,} test images. Bytes of CIFAR-10 have probabilities, digits binary ones: their bounds do not "
            "compare. The MLP saw another number of samples and another optimiser. FID of as many samples as there are "
            "test images, biased upwards: it compares within a column alone."
        ),
    }
