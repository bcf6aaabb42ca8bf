"""Stacked MNIST: how many of its 1,000 modes DCGAN and PacDCGAN2 (Lin et al. 2018) reach, and how evenly."""

import torch

from lib import datasets
from lib.datasets.stacked import Stacked
from lib.execution.workspace import Outcome, Workspace
from lib.metrics.stacked_classes import coverage_scores
from lib.training.randomness import generator
from replications.gan2014.config import StackedConfig
from replications.gan2014.dcgan import build, generate, n_parameters, sample_sheet, train


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
    workspace.leave_scores_to_the_first()
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
