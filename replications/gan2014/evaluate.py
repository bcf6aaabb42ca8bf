"""What is measured on the paper's own models, under which protocol. Two generators a run: the chosen and the last."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lib.checks import to_uint8
from lib.datasets import Dataset
from lib.likelihood import parzen_score
from lib.metrics import nearest_neighbour
from lib.metrics.quality import memorisation, quality
from lib.reporting.sheets import image_sheet
from lib.results import Score, mean_score
from lib.training.randomness import Streams
from replications.gan2014.annealed import annealed_scores
from replications.gan2014.config import GanConfig
from replications.gan2014.pixels import contrast_normalised, mean_contrast, rendered
from replications.gan2014.splits import Splits, reference_images, reference_split, splits
from replications.gan2014.train import Training, draw_noise, generate

N_PATHS, PATH_POINTS = 100, 11  # ours: straight lines in z behind the score of figure 3, and points on each
N_MEMORISED = 1000  # ours: samples behind the memorisation ratio
SHEET_SIDE = 10


def rows_for(config: GanConfig, data: Dataset, device: torch.device) -> Splits:
    """The pixels that training sees, as rows on the device: 0 .. 1, or contrast-normalised for CIFAR-10."""
    parts = splits(data, config.n_train, config.n_validation)
    return Splits(*((part if config.bounded else contrast_normalised(part)).to(device) for part in parts))


def evaluate(
    training: Training, rows: Splits, data: Dataset, config: GanConfig, streams: Streams
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Scores of the chosen generator; those named _last are of the generator after the last step."""
    chosen, last = training.chosen, training.nets.generator
    scores: dict[str, Score] = {}
    protocol = {"data": data.name, "data_sha256": data.digest, "split": "test"}
    if config.bounded:
        for name, generator in (("parzen_test", chosen), ("parzen_last", last)):
            samples = generate(generator, config, config.n_parzen, streams.at("parzen"))
            scores[name] = parzen_score(samples, rows.validation, rows.test, protocol=protocol)
        samples = generate(chosen, config, N_MEMORISED, streams.at("memorisation"))
        scores |= memorisation(samples, rows.train, rows.test, seed=streams.seed, protocol=protocol)
        scores |= path_scores(chosen, rows, config, streams)
    scores |= course_scores(training, config)
    images = Images(data, config, streams.device)
    for suffix, generator in (("", chosen), ("_last", last)):
        found, facts = images.score(generator, config, streams)
        scores |= {name + suffix: found[name] for name in (found if not suffix else ("fid",) if found else ())}
    if config.n_ais_images:
        scores |= annealed_scores(
            chosen, config.n_latent, config.noise == "uniform", rows.validation, rows.test, streams=streams,
            n_images=config.n_ais_images, n_distributions=config.n_ais_distributions,
            n_chains=config.n_ais_chains, protocol=protocol,
        )  # fmt: skip
    return scores, facts


def course_scores(training: Training, config: GanConfig) -> dict[str, Score]:
    """d_fake: mean D on samples after the last step, without dropout, as is d_validation on held-out images.

    early_gradient_ratio: norm of the generator's non-saturating over that of its minimax gradient, the largest of the
    moments in GRADIENT_STEPS.
    """
    protocol = {"data": config.data, "update": config.update, "epoch": training.history[-1]["epoch"]}
    ratios = [row["norm_nonsaturating"] / max(row["norm_minimax"], 1e-30) for row in training.gradients]
    last = {name: training.history[-1][name] for name in ("d_fake", "d_validation")}
    return {name: Score(value, math.nan, "probability", True, config.n_validation, protocol)
            for name, value in last.items()} | {
        "early_gradient_ratio": Score(max(ratios), math.nan, "times", True, len(ratios), protocol)
    }  # fmt: skip


class Images:
    """Samples as uint8 images, and the real ones they are compared with, made the same way."""

    def __init__(self, data: Dataset, config: GanConfig, device: torch.device) -> None:
        self.data, self.shape, self.device = data, data.images.shape[1:], device
        self.real, self.contrast = reference_images(data), 0.0
        self.made = "pixels as they are"
        if not config.bounded:
            train = data.split("train")[0][: config.n_train].flatten(1).float() / data.max_value
            self.contrast = mean_contrast(train)
            self.real = self.of_data(self.real)
            self.made = "contrast-normalised, rendered with the mean contrast"

    def of(self, rows: Tensor) -> Tensor:
        """Rows of pixels as the network makes them -> uint8 (N, C, H, W)."""
        flat = rendered(rows, self.contrast) if self.contrast else to_uint8(rows)
        return flat.unflatten(1, self.shape)

    def of_data(self, images: Tensor) -> Tensor:
        """Images of the data set, uint8 (N, C, H, W), as they look to the network: contrast-normalised where it is."""
        if not self.contrast:
            return images
        return self.of(contrast_normalised(images.flatten(1).float() / self.data.max_value))

    def score(
        self, generator: nn.Module, config: GanConfig, streams: Streams
    ) -> tuple[dict[str, Score], dict[str, str]]:
        samples = self.of(generate(generator, config, len(self.real), streams.at("quality")))
        protocol = {
            "data": self.data.name,
            "data_sha256": self.data.digest,
            "split": reference_split(self.data),
            "images": self.made,
        }
        return quality(samples, self.real, self.data.name, seed=streams.seed, device=self.device, protocol=protocol)


@torch.no_grad()
def path_scores(generator: nn.Module, rows: Splits, config: GanConfig, streams: Streams) -> dict[str, Score]:
    """Figure 3 as numbers: how far the images along straight lines in z are from the nearest training image.

    path_nearest: mean distance over the inner points of N_PATHS lines; ends_nearest: over their ends, which are plain
    samples; test_nearest: over test images, which no model copied. Euclidean in pixels 0 .. 1, stderr over lines.
    A path through copies would touch 0.
    """
    ends = draw_noise(config, 2 * N_PATHS, streams.at("paths")).view(2, N_PATHS, 1, -1)
    along = torch.linspace(0, 1, PATH_POINTS, device=ends.device).view(1, -1, 1)
    images = generator(torch.lerp(ends[0], ends[1], along).flatten(0, 1))
    distances = nearest_neighbour(images, rows.train)[0].view(N_PATHS, PATH_POINTS)
    test = nearest_neighbour(rows.test[:N_MEMORISED], rows.train)[0]
    protocol = {"data": config.data, "lines": N_PATHS, "points": PATH_POINTS, "distance": "Euclidean, pixels 0 .. 1",
                "train": len(rows.train)}  # fmt: skip
    return {
        name: mean_score(values, "pixel distance", True, protocol)
        for name, values in (
            ("path_nearest", distances[:, 1:-1].mean(1)),
            ("path_closest", distances[:, 1:-1].amin(1)),
            ("ends_nearest", distances[:, [0, -1]].mean(1)),
            ("test_nearest", test),
        )
    }


def sample_sheet(training: Training, data: Dataset, config: GanConfig, streams: Streams) -> Tensor:
    """The chosen generator's first samples, SHEET_SIDE squared, not selected: uint8 (C, H, W)."""
    samples = generate(training.chosen, config, SHEET_SIDE**2, streams.at("samples"))
    images = Images(data, config, streams.device).of(samples)
    return (image_sheet(images.cpu().float() / 255, SHEET_SIDE) * 255).round().to(torch.uint8)
