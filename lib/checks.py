"""What metrics and estimators ask of their input: each refusal names the argument, what it was, and what is allowed."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def require_features(name: str, features: Tensor, at_least: int = 1) -> None:
    """Floating point (N, D), all finite, N >= at_least. Raises ValueError."""
    if features.ndim != 2:
        raise ValueError(f"{name} has the shape {tuple(features.shape)}: features are (N, D), one row an image")
    if not features.is_floating_point():
        raise ValueError(f"{name} is {features.dtype}: features are floating point; images go through an extractor")
    if len(features) < at_least:
        raise ValueError(f"{name} holds {len(features)} rows: at least {at_least} are needed")
    if features.shape[1] == 0:
        raise ValueError(f"{name} has no columns: at least one feature is needed")
    if not bool(torch.isfinite(features).all()):
        row = int((~torch.isfinite(features)).any(1).nonzero()[0, 0])
        raise ValueError(f"{name} holds nan or infinity, first in row {row}: every feature must be finite")


def require_same_width(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Two feature tables that can be compared at all. Raises ValueError."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{name_a} has {a.shape[1]} features and {name_b} {b.shape[1]}: both must come from the same extractor"
        )


def require_images(name: str, images: Tensor) -> None:
    """uint8 (N, C, H, W) with 1 or 3 channels, N >= 1. Raises ValueError."""
    if images.dtype != torch.uint8:
        advice = "convert a float in 0..1 with lib.metrics.to_uint8" if images.is_floating_point() else "convert it"
        raise ValueError(f"{name} is {images.dtype}: images are uint8 on the scale 0 .. 255; {advice}")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"{name} has the shape {tuple(images.shape)}: images are (N, C, H, W) with 1 or 3 channels")
    if images.numel() == 0:
        raise ValueError(f"{name} is empty, {tuple(images.shape)}: at least one image is needed")


def require_probabilities(name: str, probabilities: Tensor) -> None:
    """Rows (N, C) of class probabilities, each >= 0 with sum 1 to 1e-3. Raises ValueError."""
    require_features(name, probabilities)
    low, off = probabilities.min().item(), (probabilities.sum(1) - 1).abs().max().item()
    if low < 0 or off > 1e-3:
        raise ValueError(
            f"{name} is no table of probabilities: smallest entry {low:g}, row sums off by up to {off:g};"
            " entries must be >= 0 and each row must add up to 1 (apply softmax to logits)"
        )


def require_count(name: str, value: int, low: int, high: int | None = None) -> None:
    """An integer in low .. high. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} is {value!r}: it must be an integer, {allowed}")


def require_positive(name: str, value: float) -> None:
    """A finite number above zero. Raises ValueError."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value!r}: it must be a finite number above 0")


def require_same_protocol(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> None:
    """Refuse to compare features that were made in different ways; None means "not said". Raises ValueError."""
    if a is None or b is None:
        return
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            raise ValueError(
                f"the two sides were made by unlike protocols: {key} is {a.get(key)!r} and {b.get(key)!r};"
                " compare features of one extractor, resize and quantisation only"
            )


def to_uint8(images: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Float images on the scale low .. high as uint8 0 .. 255: rounded to the nearest level, ties to even.

    Truncation would darken every pixel by half a level on average. (N, C, H, W) float -> uint8. Values outside the
    scale, nan included, are refused: a generator's range is known, so clamp on purpose or mend the scale.
    Raises ValueError.
    """
    if not images.is_floating_point():
        raise ValueError(f"images is {images.dtype}: only floating point images are quantised, uint8 ones are ready")
    if not low < high:
        raise ValueError(f"low is {low} and high is {high}: low must be below high")
    if images.numel():
        smallest, largest = images.min().item(), images.max().item()
        if not (low <= smallest and largest <= high):  # also False where there is a nan
            raise ValueError(f"images lie in {smallest:g} .. {largest:g}: the scale given is {low:g} .. {high:g}")
    return ((images - low) * (255.0 / (high - low))).round().clamp(0, 255).to(torch.uint8)
