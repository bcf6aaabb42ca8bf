"""Mode collapse, counted: on mixtures whose centres are known, and on classes that a classifier names."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lib.checks import require_features, require_positive, require_same_width
from lib.metrics.neighbours import nearest_neighbour


class ModeCoverage(NamedTuple):
    """See `mode_coverage`; captured counts modes of n_modes, high_quality is a share of the n samples."""

    captured: int
    n_modes: int
    high_quality: float
    kl_nats: float
    kl_high_quality_nats: float
    n: int


class ClassCoverage(NamedTuple):
    """See `class_coverage`; captured counts classes of n_classes, n counts labels."""

    captured: int
    n_classes: int
    kl_nats: float
    n: int


def mode_coverage(samples: Tensor, centres: Tensor, sd: float, *, within: float = 3.0) -> ModeCoverage:
    """Modes captured and share of high-quality samples for an equal mixture of N(centre, sd^2 I) components.

    Srivastava et al. 2017 (VEEGAN), section 5.1: a sample is of high quality if it lies within `within` standard
    deviations of its nearest centre (3; for their 1200 dimensions 10), and a mode is captured if it is nearest to at
    least one such sample. Lin et al. 2018 (PacGAN), section 4.1, count the same two and add a reverse KL of the
    samples' histogram over nearest modes to the uniform one, KL(generated || uniform) = sum p_k log(K p_k) with
    0 log 0 = 0, so an empty mode adds nothing by itself. Which samples enter is the one open point: kl_nats takes all
    of them, kl_high_quality_nats only those of high quality, as the authors' program does (extensions.py,
    MetricLogger). The latter is nan where there is none. The border does not count as within, as in that program.

    samples: (N, D), centres: (K, D), any device. captured: 0 .. K and high_quality: 0 .. 1, higher is better; both
    KLs: 0 .. log K nats, lower is better, and about (K - 1) / (2 N) for samples of the mixture itself. Such samples
    have a high-quality share of P(chi2_D < within^2), .9889 for D = 2 and within = 3, and next to 0 in many dimensions.
    Equally near centres: the first one is the nearest. Raises ValueError.
    """
    require_features("samples", samples)
    require_features("centres", centres)
    require_same_width("samples", samples, "centres", centres)
    require_positive("sd", sd)
    require_positive("within", within)
    distances, nearest = nearest_neighbour(samples, centres)
    good = distances < within * sd
    every = torch.bincount(nearest, minlength=len(centres))
    best = torch.bincount(nearest[good], minlength=len(centres))
    n_good, uniform = int(good.sum()), torch.ones_like(every)
    return ModeCoverage(
        captured=int((best > 0).sum()),
        n_modes=len(centres),
        high_quality=n_good / len(samples),
        kl_nats=_kl(every, uniform),
        kl_high_quality_nats=_kl(best, uniform) if n_good else math.nan,
        n=len(samples),
    )


class CoverageOfModels(NamedTuple):
    """One number a model, (R,) float64, named as in ModeCoverage; finite: (R,) bool."""

    modes: Tensor
    high_quality: Tensor
    reverse_kl: Tensor  # of all samples
    reverse_kl_high_quality: Tensor  # of those of high quality, nan where there are none
    finite: Tensor


def coverage_of_models(samples: Tensor, centres: Tensor, sd: float) -> CoverageOfModels:
    """`mode_coverage` of each model's samples (R, N, D), N points a model; centres (K, D), on any device.

    A model whose samples are not all finite has no modes, no quality, and the largest reverse KL there is, log K.
    """
    samples, centres = samples.cpu(), centres.cpu()
    finite, rows = samples.isfinite().flatten(1).all(1), []
    for points, usable in zip(samples, finite.tolist(), strict=True):
        if usable:
            found = mode_coverage(points, centres, sd)
            rows.append((found.captured, found.high_quality, found.kl_nats, found.kl_high_quality_nats))
        else:
            rows.append((0, 0.0, math.log(len(centres)), math.nan))
    modes, quality, kl, kl_of_best = torch.tensor(rows, dtype=torch.float64).T
    return CoverageOfModels(modes, quality, kl, kl_of_best, finite)


def class_coverage(labels: Tensor, n_classes: int, weights: Tensor | None = None) -> ClassCoverage:
    """Distinct classes among the labels, and KL(histogram of the labels || classes of the data) in nats.

    The Stacked MNIST score of VEEGAN, section 5.2, and PacGAN, section 4.2: 26 000 samples, 1000 classes.
    labels: (N,) integers in 0 .. n_classes - 1, any device. weights: (n_classes,) shares or counts of the classes in
    the data, scaled to sum 1 here; uniform where None. captured: 1 .. n_classes, higher is better. kl_nats: >= 0,
    log n_classes at most for uniform weights, lower is better; infinite where a label has weight 0. N uniform draws
    have an expected KL of about (n_classes - 1) / (2 N), .0192 for Stacked MNIST, so that is the floor.
    Raises ValueError.
    """
    _require_labels("labels", labels, n_classes)
    if weights is None:
        weights = torch.ones(n_classes, dtype=torch.float64)
    if weights.shape != (n_classes,):
        raise ValueError(f"weights has the shape {tuple(weights.shape)}: it must be ({n_classes},), one a class")
    weights = weights.double()
    if not (bool(torch.isfinite(weights).all()) and weights.min().item() >= 0 and weights.sum().item() > 0):
        raise ValueError(f"weights holds {weights.min().item():g} or is all 0: shares are finite, >= 0 and not all 0")
    counts = torch.bincount(labels.long(), minlength=n_classes)
    return ClassCoverage(int((counts > 0).sum()), n_classes, _kl(counts, weights.to(counts.device)), len(labels))


def stacked_label(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """The class 0 .. 999 of a Stacked MNIST image from the digits (N,) of its channels: 100 red + 10 green + blue.

    Any order of the channels would do, for it only renames the classes. Raises ValueError for what is no digit.
    """
    for name, digits in (("red", red), ("green", green), ("blue", blue)):
        _require_labels(name, digits, 10)
    if not len(red) == len(green) == len(blue):
        raise ValueError(f"red, green and blue hold {len(red)}, {len(green)} and {len(blue)} digits: one an image each")
    return 100 * red.long() + 10 * green.long() + blue.long()


def _kl(counts: Tensor, weights: Tensor) -> float:
    """KL(counts || weights) in nats, each scaled to sum 1, with 0 log 0 = 0."""
    p, q = counts.double() / counts.sum(), weights.double() / weights.sum()
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().clamp_min(0).item()  # rounding alone can make it negative


def _require_labels(name: str, labels: Tensor, n_classes: int) -> None:
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"{name} has the shape {tuple(labels.shape)}: labels are (N,), one an image, N at least 1")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} is {labels.dtype}: labels are integers")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise ValueError(f"{name} holds {low if low < 0 else high}: labels lie in 0 .. {n_classes - 1}")
