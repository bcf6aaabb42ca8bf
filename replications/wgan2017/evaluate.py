"""Scores of a training: quality of its images, and whether its estimate follows them; the anchors beside both."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib import datasets
from lib.execution.workspace import Outcome, Workspace
from lib.metrics.quality import extractor_for, quality
from lib.reporting.sheets import image_sheet
from lib.results import Score
from replications.wgan2017.config import AnchorsConfig, ImagesConfig
from replications.wgan2017.networks import build, n_parameters
from replications.wgan2017.pixels import cropped, generate, pixels_of
from replications.wgan2017.train import Trained, train

SHEET = 64  # images on the sample sheet
RESAMPLES = 2000  # behind the interval of a correlation
MOMENT_ROWS = 50_000  # images that stand in double precision at once: at 64 x 64 pixels they take 5 GB
FloatArray = NDArray[np.float64]


class Correlation(NamedTuple):
    """Spearman's correlation with its bootstrap: standard deviation and central 95 % over resampled checkpoints."""

    value: float
    sd: float
    low: float
    high: float
    n: int


def correlation(estimates: Sequence[float], distances: Sequence[float], seed: int) -> Correlation:
    """Spearman's rank correlation of estimate and distance over checkpoints; nan where one of them never moves.

    The bootstrap draws checkpoints with replacement, as if they were independent: neighbours of one training are not,
    so the interval is a lower bound of the uncertainty.
    """
    x, y = np.asarray(estimates), np.asarray(distances)
    rows = np.random.Generator(np.random.PCG64(seed)).integers(len(x), size=(RESAMPLES, len(x)))
    value = float(_spearman(x[None], y[None])[0])
    values = _spearman(x[rows], y[rows])
    values = values[np.isfinite(values)]
    if not len(values):
        return Correlation(value, math.nan, math.nan, math.nan, len(x))
    low, high = np.quantile(values, (0.025, 0.975))
    return Correlation(value, float(values.std(ddof=1)), float(low), float(high), len(x))


def _spearman(x: FloatArray, y: FloatArray) -> FloatArray:
    """(B,) of x and y, (B, N): the correlation of their ranks, by numpy.corrcoef's arithmetic for all rows at once.

    Ranks less their mean are multiples of a half, so their products sum exactly, in whatever order.
    """
    from scipy.stats import rankdata

    of_x, of_y = (ranks - ranks.mean(1, keepdims=True) for ranks in (rankdata(x, axis=1), rankdata(y, axis=1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.true_divide(1, x.shape[1] - 1)
        r = (of_x * of_y).sum(1) * scale
        for ranks in (of_x, of_y):
            r = r / np.sqrt((ranks * ranks).sum(1) * scale)
    return r.clip(-1, 1)


def images(config: ImagesConfig, workspace: Workspace) -> Outcome:
    """Train by config and score the last generator."""
    data, streams = datasets.load(config.data), workspace.streams
    pixels = pixels_of(data, config.n_curve, workspace.device)
    trained = train(config, pixels, workspace)
    workspace.leave_scores_to_the_first()
    generated = generate(trained.nets.generator, config, config.n_generated, streams.at("generate"))
    protocol = {
        "data": data.name, "data_sha256": data.digest, "split": pixels.split,
        "algorithm": config.algorithm, "generator": config.generator,
        "critic": config.critic, "generator_steps": config.n_steps, "batch_norm": "running statistics",
        "model": "the last generator", "outputs": "clamped to -1 .. 1",
    }  # fmt: skip
    scores, left_out = _scored(generated, pixels.reference[: config.n_generated], data.name, workspace, protocol)
    told, curve = _curve_scores(trained, config, streams.seed, protocol)
    facts = {
        "parameters": {name: n_parameters(network) for name, network in trained.nets._asdict().items()},
        "critic_steps": trained.history[-1]["critic_steps"],
        **curve,
        **left_out,
    }
    weights = {**trained.nets.generator.state_dict(), "strips": trained.record.strips}
    sheet = image_sheet(generated[:SHEET].cpu(), 8, pad_value=255)
    return Outcome(scores | told, trained.history, weights, sheet, facts)


def _scored(
    made: Tensor, real: Tensor, data_name: str, workspace: Workspace, protocol: Mapping[str, Any]
) -> tuple[dict[str, Score], dict[str, str]]:
    made = cropped(made, real.shape[-1])
    return quality(made, real, data_name, seed=workspace.streams.seed, device=workspace.device, protocol=dict(protocol))


def _curve_scores(
    trained: Trained, config: ImagesConfig, seed: int, protocol: Mapping[str, Any]
) -> tuple[dict[str, Score], dict[str, Any]]:
    """The estimate's correlation with the distance over checkpoints, and the last estimate.

    Medians are torch.median's: of an even number of iterations the lower of the two middle ones.
    """
    rows = [row for row in trained.history if math.isfinite(row["distance"])]
    unit = "nats" if config.algorithm == "gan" else "critic units"
    last = trained.record.estimates[-math.ceil(config.last * config.n_steps) :]
    read = {**protocol, "estimate": "median of the last iterations", "iterations": len(last)}
    scores = {"estimate": Score(last.median().item(), math.nan, unit, False, 1, read)}
    if len(rows) < 3:
        return scores, {}
    distances = [row["distance"] for row in rows]
    how = {
        **protocol, "correlation": "Spearman", "over": "checkpoints, evenly spaced",
        "curve": "median of the steps since the last checkpoint", "images a checkpoint": config.n_curve,
        "extractor": extractor_for(config.data), "stderr": f"bootstrap of checkpoints, {RESAMPLES} resamples",
    }  # fmt: skip
    facts: dict[str, Any] = {}
    curves = {"spearman": trained.record.estimates, "spearman_generator_loss": trained.record.losses}
    for name, values in curves.items():
        found = correlation(_between(values, rows), distances, seed)
        scores[name] = Score(found.value, found.sd, "rank correlation", True, found.n, how)
        facts[f"{name}_interval"] = [found.low, found.high]
    return scores, facts


def _between(values: Tensor, rows: Sequence[Mapping[str, float]]) -> list[float]:
    """The median value between each checkpoint and the one before it: the paper filters by a median, too.

    Of an even number of values it is the lower of the two middle ones.
    """
    ends = [int(row["step"]) for row in rows]
    return [values[a:b].median().item() for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def anchors(config: AnchorsConfig, workspace: Workspace) -> Outcome:
    """The same scores of images that no WGAN made: real ones, a Gaussian's, an untrained generator's, and noise."""
    data, streams = datasets.load(config.data), workspace.streams
    pixels = pixels_of(data, 1, workspace.device)
    n, real = config.n_generated, pixels.reference[: config.n_generated]
    train_images = data.split("train")[0].to(workspace.device)
    unused = train_images[-n:]  # at cifar10 the reference is the first ones
    untrained = ImagesConfig(data.name, "wgan", "dcgan", "dcgan", 1, n_filters=config.n_filters)
    network = build(untrained, pixels.shape, streams).generator
    made = {
        "real": unused[torch.randperm(len(unused), generator=streams.at("real"), device=workspace.device)],
        "gaussian": gaussian_draws(train_images, n, streams.at("gaussian")),
        "untrained": generate(network, untrained, n, streams.at("untrained")),
        "noise": torch.randint(0, 256, real.shape, dtype=torch.uint8, generator=streams.at("noise"),
                               device=workspace.device),
    }  # fmt: skip
    scores: dict[str, Score] = {}
    facts: dict[str, str] = {}
    for name, pictures in made.items():
        protocol = {"data": data.name, "data_sha256": data.digest, "split": pixels.split, "images": name}
        found, left_out = _scored(pictures, real, data.name, workspace, protocol)
        scores |= {f"{metric}_{name}": score for metric, score in found.items()}
        facts |= left_out
    return Outcome(scores, [], {}, image_sheet(made["gaussian"][:SHEET].cpu(), 8, pad_value=255), facts)


def gaussian_draws(images: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """n draws of N(mean, covariance) of the images' pixels, rounded and clamped to uint8: (n, C, H, H).

    The trivial generator: two moments of the pixels, and no more.
    """
    rows = images.flatten(1)
    parts = rows.split(MOMENT_ROWS)
    mean = torch.stack([part.sum(0, dtype=torch.float64) for part in parts]).sum(0) / len(rows)
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=rows.device)
    for part in parts:
        centred = part.double() - mean
        scatter.addmm_(centred.T, centred)
    eigenvalues, directions = torch.linalg.eigh(scatter / (len(rows) - 1))
    z = torch.randn(n, len(mean), generator=rng, device=rng.device, dtype=torch.float64)
    draws = mean + z * eigenvalues.clamp_min(0).sqrt() @ directions.T
    return draws.round().clamp(0, 255).to(torch.uint8).view(n, *images.shape[1:])
