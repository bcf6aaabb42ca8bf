"""Stacked MNIST, scored: how many of its 1,000 classes a set of colour images reaches, and how evenly."""

import math
from typing import Any

from torch import Tensor

from lib.metrics.extractors import extract, extractor
from lib.metrics.modes import class_coverage, stacked_label
from lib.results import Score

N_CLASSES = 1000
CLASSIFIER = "digits-cnn"
BATCH = 1000  # channels classified at once


def classes(images: Tensor) -> Tensor:
    """The class 0 .. 999 that the classifier gives each image: uint8 (N, 3, 28, 28) -> (N,), on the images' device."""
    network = extractor(CLASSIFIER, device=images.device)
    read = extract(network, images.flatten(0, 1)[:, None], BATCH, images.device)  # (3 N, 1, 28, 28)
    return stacked_label(*read.probabilities.argmax(1).view(len(images), -1).unbind(1))


def coverage_scores(images: Tensor, protocol: dict[str, Any]) -> dict[str, Score]:
    """modes, 1 .. 1000, and kl in nats, of the images' classes against equal shares, as Lin 2018's code counts them."""
    found = class_coverage(classes(images), N_CLASSES)
    made_by = {**protocol, "classifier": CLASSIFIER, "samples": found.n, "classes": N_CLASSES}
    return {
        "modes": Score(float(found.captured), math.nan, "modes", True, found.n, made_by),
        "kl": Score(found.kl_nats, math.nan, "nats", False, found.n, {**made_by, "against": "equal shares"}),
    }
