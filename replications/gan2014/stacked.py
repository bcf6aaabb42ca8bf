"""Stacked MNIST: how many of its 1,000 modes DCGAN and PacDCGAN2 (Lin et al. 2018) reach, and how evenly."""

import math
from typing import Any

import torch
from torch import Tensor

from lib import datasets
from lib.datasets.stacked import Stacked
from lib.execution.workspace import Outcome, Workspace
from lib.metrics import class_coverage, extract, extractor
from lib.metrics.modes import stacked_label
from lib.results import Score
from lib.training.randomness import generator
from replications.gan2014.config import StackedConfig
from replications.gan2014.dcgan import build, generate, n_parameters, sample_sheet, train

N_CLASSES = 1000
CLASSIFIER = "digits-cnn"
BATCH = 1000  # channels classified at once


def stacked(config: StackedConfig, workspace: Workspace) -> Outcome:
    """Train on stacked digits, and count the classes of generated images and of as many real ones."""
    data, streams, device = datasets.load(config.data), workspace.streams, workspace.device
    # DEVIATION gan2014-D53: digits of the training split alone; Lin 2018's code stacks all 70,000, test digits too.
    images = Stacked(
        data.split("train")[0].to(device), config.n_train, generator(streams.seed, "stacked training images")
    )
    channels, side = images.index.shape[1], images.images.shape[-1]
    nets = build(config, (channels, side, side), streams)
    history = train(nets, images, len(images), config, workspace)
    generated = generate(nets.generator, config.n_samples, streams)
    real = Stacked(data.split("test")[0].to(device), config.n_samples, generator(streams.seed, "stacked real images"))
    rows = torch.arange(len(real), device=device)
    protocol = {
        "data": data.name,
        "data_sha256": data.digest,
        "n_pack": config.n_pack,
        "batch_norm": "running statistics",
    }
    scores = coverage_scores(generated, protocol) | {
        f"real_{name}": score
        for name, score in coverage_scores(real(rows), {**protocol, "images": "test split"}).items()
    }
    return Outcome(scores, history, {}, sample_sheet(generated), {"parameters": n_parameters(nets)})


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
