"""Stacked MNIST: how many of its 1,000 modes WGAN and WGAN-GP reach, and how evenly; section 4.3, no mode collapse.

The protocol is that of Lin et al. 2018 (PacGAN), section 4.2, as gan2014 has it, so that GAN, PacGAN and WGAN compare.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lib import datasets
from lib.datasets.stacked import Stacked
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.metrics.stacked_classes import coverage_scores
from lib.models.dcgan import DcganDiscriminator, DcganGenerator, draw_weights_, to_unit_range
from lib.reporting.sheets import image_sheet
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.randomness import MinibatchOrder, Streams, generator
from replications.wgan2017.config import ImagesConfig, StackedConfig
from replications.wgan2017.networks import Nets, n_parameters
from replications.wgan2017.pixels import generate
from replications.wgan2017.train import critic_step, draw_noise, generator_step, players_of, points

N_POINTS = 20  # of the curve
SHEET = 64  # images on the sample sheet


class Estimates(nn.Module):
    """Of the last critic step of each iteration, (n_steps,) on the device; a module, so that checkpoints hold it."""

    values: Tensor

    def __init__(self, n_steps: int, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(n_steps, device=device))


def as_images(config: StackedConfig) -> ImagesConfig:
    """The same training in the words of the step functions; what StackedConfig leaves out is as in Algorithm 1."""
    return ImagesConfig(
        data=config.data, algorithm=config.algorithm, generator="dcgan", critic="dcgan", n_steps=config.n_steps,
        n_critic=config.n_critic, optimizer=config.optimizer, learning_rate=config.learning_rate, beta1=config.beta1,
        beta2=config.beta2, batch=config.batch, n_latent=config.n_latent, n_filters=config.n_filters,
        init_sd=config.init_sd,
    )  # fmt: skip


def build(config: StackedConfig, image: tuple[int, ...], streams: Streams) -> Nets:
    """Networks for images (C, H, H) with their first weights; batch norm in the critic but for a gradient penalty."""
    # DEVIATION wgan2017-D54: the networks of gan2014's Stacked MNIST, for 28 x 28, so that the counts compare.
    channels, side = image[:2]
    sizes, penalised = (channels, side, config.n_filters, config.n_layers), config.algorithm == "wgan-gp"
    nets = Nets(
        nn.Sequential(DcganGenerator(config.n_latent, *sizes, batch_norm=True)),
        nn.Sequential(DcganDiscriminator(*sizes, batch_norm=not penalised)),
    )
    for name, network in (("generator", nets.generator), ("critic", nets.critic)):
        draw_weights_(network, config.init_sd, generator(streams.seed, f"init {name}"))
        network.to(streams.device).to(memory_format=torch.channels_last)
    return nets


def train(nets: Nets, images: Stacked, config: StackedConfig, workspace: Workspace) -> list[dict[str, float]]:
    """config.n_steps generator iterations; goes on from the workspace's checkpoint.

    Returns the curve: the median estimate since the last point, of an even number the lower of the two middle ones.
    """
    streams, device, played, processes = workspace.streams, workspace.device, as_images(config), workspace.processes
    players, estimates = players_of(nets, played, processes), Estimates(config.n_steps, device)
    trained: dict[str, Any] = {
        **nets._asdict(), "generator_optimizer": players.generator.optimizer,
        "critic_optimizer": players.critic.optimizer,
    }  # fmt: skip
    parts = {**trained, "estimates": estimates}
    state = workspace.resume_(**parts)
    tensors = training_tensors(**trained)
    update_critic = CapturedStep(lambda *inputs: critic_step(players, played, *inputs), tensors, device, processes)
    update_generator = CapturedStep(lambda z: generator_step(players, played, z), tensors, device, processes)
    order, due = MinibatchOrder(streams.seed, len(images), config.batch, device), points(config.n_steps, N_POINTS)
    for step in range(state["step"], config.n_steps):
        noise = processes.share(draw_noise(played, config.n_critic + 1, streams, step), dim=1)
        mix = torch.rand(config.n_critic, config.batch, generator=streams.at("mix", step), device=device)
        mix = processes.share(mix, dim=1)
        for k in range(config.n_critic):
            rows = processes.share(order(step * config.n_critic + k))
            x = to_unit_range(images(rows)).contiguous(memory_format=torch.channels_last)
            estimates.values[step] = update_critic(x, noise[k], mix[k])
        update_generator(noise[-1])
        state["step"] = step + 1
        if step + 1 in due:
            since = int(state["history"][-1]["step"]) if state["history"] else 0
            estimate = estimates.values[since : step + 1].median().item()
            state["history"].append({"step": step + 1, "estimate": estimate})
            require_finite(estimate, "The critic's estimate", step + 1, state["history"])
        workspace.keep(state, config.n_steps, **parts)
    history: list[dict[str, float]] = state["history"]
    return history


def stacked(config: StackedConfig, workspace: Workspace) -> Outcome:
    """Train on stacked digits, and count the classes of generated images and of as many real ones."""
    data, streams, device = datasets.load(config.data), workspace.streams, workspace.device
    # DEVIATION wgan2017-D53: digits of the training split alone; Lin 2018's code stacks all 70,000, test digits too.
    images = Stacked(
        data.split("train")[0].to(device), config.n_train, generator(streams.seed, "stacked training images")
    )
    channels, side = images.index.shape[1], images.images.shape[-1]
    nets = build(config, (channels, side, side), streams)
    history = train(nets, images, config, workspace)
    workspace.leave_scores_to_the_first()
    generated = generate(nets.generator, as_images(config), config.n_samples, streams.at("generate"))
    real = Stacked(data.split("test")[0].to(device), config.n_samples, generator(streams.seed, "stacked real images"))
    rows = torch.arange(len(real), device=device)
    protocol = {"data": data.name, "data_sha256": data.digest, "batch_norm": "running statistics"}
    made_by = {**protocol, "algorithm": config.algorithm, "steps": config.n_steps, "n_critic": config.n_critic}
    scores = coverage_scores(generated, made_by) | {
        f"real_{name}": score
        for name, score in coverage_scores(real(rows), {**protocol, "images": "test split"}).items()
    }
    sheet = image_sheet(generated[:SHEET].cpu(), 8, pad_value=255)
    facts = {"parameters": {name: n_parameters(network) for name, network in nets._asdict().items()}}
    return Outcome(scores, history, {}, sheet, facts)
