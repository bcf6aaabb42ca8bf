"""What stands beside the scores of trained models: sources of "samples" that no network made.

Theis et al. 2016 ("A note on the evaluation of generative models") scored real images and k-means centres by a Parzen
window to show how little it says. Here these sources get every score that a generator gets, by the same protocol.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lib.datasets import Dataset
from lib.likelihood import parzen_score
from lib.metrics import to_uint8
from lib.metrics.quality import memorisation, quality
from lib.models.linear_gaussian import LinearGaussian
from lib.results import Score, mean_score
from lib.training.randomness import Streams
from replications.gan2014.annealed import dequantised
from replications.gan2014.config import BaselinesConfig
from replications.gan2014.splits import Splits, reference_images, reference_split, splits

ANCHORS = ("heldout", "copies")  # of the memorisation check: what it says of unseen images, and of a perfect copier


def compute_baselines(
    config: BaselinesConfig, data: Dataset, streams: Streams
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Scores named parzen_SOURCE, fid_SOURCE and so on, for real, kmeans, ppca, mean and noise; and facts.

    parzen_*: nats/image, protocol of parzen_ll.py. fid_*, is_*, kid_*, precision_*, recall_*: see lib.metrics.quality,
    as many images as the reference has, n_quality at the most (fewer where a source has no more); left out, with a
    fact, where no extractor fits. exact_ppca*: see there. distance_ratio_*, share_nearer_train_*, nearest_train_*: of
    held-out images and of training copies.
    """
    parts = Splits(*(part.to(streams.device) for part in splits(data, config.n_train, config.n_validation)))
    real = reference_images(data)[: config.n_quality]
    sources = image_sources(parts.train, max(config.n_samples, len(real)), config, streams)
    origin = {"data": data.name, "data_sha256": data.digest, "train": config.n_train}
    scores = memorisation_anchors(parts, origin, streams)
    scores |= exact_ppca(parts, config, origin)
    facts: dict[str, Any] = {}
    for source, images in sources.items():
        protocol = {**origin, "source": source}
        scores[f"parzen_{source}"] = parzen_score(
            images[: config.n_samples], parts.validation, parts.test, protocol={**protocol, "split": "test"}
        )
        pixels = to_uint8(images[: len(real)].unflatten(1, data.images.shape[1:]))
        if len(images) == 1:
            pixels = pixels.expand(len(real), -1, -1, -1)
        compared = {**protocol, "split": reference_split(data)}
        found, reason = quality(pixels, real, data.name, seed=streams.seed, device=streams.device, protocol=compared)
        scores |= {f"{name}_{source}": score for name, score in found.items()}
        facts |= reason
    return scores, facts


def image_sources(train: Tensor, n: int, config: BaselinesConfig, streams: Streams) -> dict[str, Tensor]:
    """Images of each source as rows (n, D) on the scale 0 .. 1, made from train (N, D) alone, in random order.

    real: training images without repetition, n or all there are. kmeans: n draws of the centres, each with its
    cluster's share of the training images. ppca: n draws of the mean W z + b of p(x|z), clipped to 0 .. 1. mean: one
    image. noise: n images of independent uniform pixels.
    """
    device, pixels = train.device, train.shape[1]
    order = torch.randperm(len(train), generator=streams.at("baselines real"), device=device)
    centres, masses = k_means(train, config.n_clusters, config.n_lloyd, streams)
    drawn = torch.multinomial(masses, n, replacement=True, generator=streams.at("baselines kmeans"))
    ppca = LinearGaussian.fit(train, config.n_factors)
    z = torch.randn(n, config.n_factors, dtype=torch.float64, generator=streams.at("baselines ppca"), device=device)
    return {
        "real": train[order[:n]],
        "kmeans": centres[drawn],
        "ppca": (z @ ppca.weight.T + ppca.offset).float().clamp(0, 1),
        "mean": train.mean(0, keepdim=True),
        "noise": torch.rand(n, pixels, generator=streams.at("baselines noise"), device=device),
    }


def k_means(x: Tensor, n_clusters: int, n_steps: int, streams: Streams) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from n_clusters random rows of x (N, D): centres (K, D), clipped by nothing, and masses (K,).

    Masses are the shares of rows whose last assignment was to the centre; they add up to 1. A centre that lost all its
    rows stays where it was, with mass 0. Raises ValueError for more clusters than rows.
    """
    if not 0 < n_clusters <= len(x):
        raise ValueError(f"n_clusters is {n_clusters}: it must lie between 1 and the number of rows, {len(x)}")
    order = torch.randperm(len(x), generator=streams.at("baselines centres"), device=x.device)
    centres, masses = x[order[:n_clusters]].clone(), x.new_zeros(n_clusters)
    for _ in range(n_steps):
        nearest = torch.addmm(centres.square().sum(1), x, centres.T, alpha=-2).argmin(1)
        counts = torch.zeros_like(masses).index_add_(0, nearest, x.new_ones(len(x)))
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1), centres)
        masses = counts / len(x)
    return centres, masses


def memorisation_anchors(parts: Splits, origin: Mapping[str, Any], streams: Streams) -> dict[str, Score]:
    """The memorisation check of images it must clear (held out of training) and must catch (training copies).

    Copies are drawn from all training images, as a generator that memorised them would: where the test set is the
    smaller one, the check sees only a part of them, and its numbers say how much it would notice.
    """
    order = torch.randperm(len(parts.train), generator=streams.at("baselines copies"), device=parts.train.device)
    copies = parts.train[order[: len(parts.validation)]]
    scores: dict[str, Score] = {}
    for anchor, images in zip(ANCHORS, (parts.validation, copies), strict=True):
        found = memorisation(images, parts.train, parts.test, seed=streams.seed, protocol={**origin, "source": anchor})
        scores |= {f"{name}_{anchor}": score for name, score in found.items()}
    return scores


def exact_ppca(parts: Splits, config: BaselinesConfig, origin: Mapping[str, Any]) -> dict[str, Score]:
    """log p(x) of probabilistic PCA, exact, on the dequantised pixels that annealed.py scores a GAN on; nats/image.

    exact_ppca: of all test images; exact_ppca_first: of the first n_ais_images, the ones of a GAN's ais_test.
    """
    device = parts.train.device
    train = dequantised(parts.train, "train").to(device).double()
    test = dequantised(parts.test, "test").to(device).double()
    protocol = {
        **origin,
        "split": "test",
        "estimator": "exact log-likelihood of probabilistic PCA",
        "factors": config.n_factors,
        "observation": "pixels dequantised: (k + u) / 256, one fixed draw",
    }
    values = LinearGaussian.fit(train, config.n_factors).log_marginal(test)
    return {
        "exact_ppca": mean_score(values, "nats/image", True, protocol),
        "exact_ppca_first": mean_score(values[: config.n_ais_images], "nats/image", True, protocol),
    }
