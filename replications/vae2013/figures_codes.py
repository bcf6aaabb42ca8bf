"""Figures 4 and 5 for Frey Face, and the numbers behind both figures for both data sets, drawn from finished runs."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import norm

from lib.execution.runs import Finished
from lib.metrics import metric_name
from lib.reporting.sheets import image_sheet
from lib.reporting.tables import cell, number
from lib.training.randomness import Streams
from replications.papers import Results
from replications.vae2013.config import AevbConfig
from replications.vae2013.evaluate import decoder_means
from replications.vae2013.frames import FRAME
from replications.vae2013.side_by_side import CurveConfig, build

QUALITY = {
    "fid": ("FID", 1),
    "is": ("IS", 2),
    "kid": ("KID", 3),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
}


def frey_runs(results: Results) -> list[Finished]:
    """The finished AEVB runs on Frey Face, fewest latents first."""
    found = [o for o in results.finished() if _is_frey(o) and o.run.config.algorithm == "aevb"]
    return sorted(found, key=lambda o: o.run.config.n_latent)


def _is_frey(outcome: Finished) -> bool:
    config = outcome.run.config
    return isinstance(config, CurveConfig) and config.data == "frey-face"


def frey_manifold(results: Results, side: int = 20) -> Figure:
    """Figure 4a: decoder means over the unit square, sent through the inverse Gaussian distribution function."""
    outcome = frey_runs(results)[0]
    models = build(outcome.run.config, math.prod(FRAME), Streams(0))
    models.load_state_dict(outcome.tensors())
    edge = norm.ppf((np.arange(side) + 0.5) / side)
    z = torch.tensor([[x, y] for y in edge[::-1] for x in edge], dtype=torch.float32)
    sheet = image_sheet(decoder_means(models.alone(0), z).view(-1, 1, *FRAME), side, padding=0)
    figure, axis = plt.subplots(figsize=(4.6, 6.4))
    axis.imshow(sheet[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.axis("off")
    return figure


def frey_sheets(results: Results) -> Figure:
    """The first samples of each model of Frey Face, as its run wrote them."""
    runs = frey_runs(results)
    figure, axes = plt.subplots(1, len(runs), figsize=(2.3 * len(runs), 3.4), squeeze=False)
    for axis, outcome in zip(axes[0], runs, strict=True):
        axis.imshow(plt.imread(outcome.folder / "samples.png"), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(f"$N_z$ = {outcome.run.config.n_latent}")
        axis.axis("off")
    return figure


def frey_table(results: Results) -> pd.DataFrame:
    """Whether codes keep the film's order: share of frames whose nearest other code is near in time; with floors."""
    rows = []
    for outcome in sorted((o for o in results.finished() if _is_frey(o)), key=lambda o: o.run.experiment):
        config, score = outcome.run.config, outcome.scores["near_test"]
        units = outcome.scores["active_units"]
        rows.append(
            {
                "features": f"posterior mean, {config.algorithm}, N_z = {config.n_latent}",
                "near in time, %": number(100 * score.value, 1, 100 * score.stderr),
                "active units": number(units.value, 1, units.stderr),
            }
        )
    baseline = results.finished("frey-baselines")[0].scores
    floors = {"pca": "two principal components", "pixels": "all 560 pixels", "chance": "chance"}
    for name, label in floors.items():
        score = baseline["near_chance" if name == "chance" else f"near_{name}_test"]
        rows.append({"features": label, "near in time, %": number(100 * score.value, 1), "active units": "–"})
    return pd.DataFrame(rows)


def frey_caption(results: Results) -> str:
    score = results.finished("frey-baselines")[0].scores["near_pca_test"]
    return (
        f"Frey Face, the {score.n} test frames: share whose nearest other code belongs to a frame at most "
        f"{score.protocol['frames']} away; models: mean ± standard error over models trained side by side."
    )


def quality_table(results: Results) -> pd.DataFrame:
    """Figure 5 in numbers, a row for each N_z, mean over seeds ± standard deviation; real digits as the floor."""
    extractor_name = results.finished("baselines")[0].scores["real_fid"].protocol["extractor"]

    def heading(name: str) -> str:
        plain = QUALITY[name][0]
        return plain if name in ("precision", "recall") else metric_name(plain, extractor_name)

    rows = []
    for n in sorted({o.run.config.n_latent for o in results.finished() if isinstance(o.run.config, AevbConfig)}):
        found = results.finished(f"aevb-nz{n}")
        cells = {heading(name): cell(found, name, digits) for name, (_, digits) in QUALITY.items()}
        rows.append({"samples of": f"AEVB, N_z = {n}", "active units": cell(found, "active_units", 1)} | cells)
    baseline = results.finished("baselines")
    for label, prefix in (("training images", "real"), ("independent pixels", "pixels")):
        cells = {heading(name): cell(baseline, f"{prefix}_{name}", digits) for name, (_, digits) in QUALITY.items()}
        rows.append({"samples of": label, "active units": "–"} | cells)
    return pd.DataFrame(rows)


def quality_caption(results: Results) -> str:
    score = results.finished("baselines")[0].scores["real_fid"]
    return (
        f"Decoder means of {score.n:,} draws from the prior against {score.protocol['real']:,} test images, features "
        f"of {score.protocol['extractor']}; mean ± standard deviation over seeds. Lower FID and KID are better; FID is "
        "biased upwards, alike in every row. Training images: the floor. Independent pixels: the trivial model, drawn."
    )
