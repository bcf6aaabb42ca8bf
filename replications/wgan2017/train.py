"""Algorithm 1 on images, its gradient penalty, and the standard GAN: one generator iteration, and the training.

Signs as in the paper: the critic f rises on real images, and the estimate is E f(x) - E f(G(z)), K times a lower bound
of W for a critic of Lipschitz constant K. (The authors' code has the critic -f; NOTE wgan2017-N5.)
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.execution.workspace import Workspace, require_finite
from lib.losses.adversarial import discriminator_loss, nonsaturating_loss
from lib.models.batch_norm import share_batch_norm_
from lib.models.flat import FlatParameters
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.optimizers import with_state
from lib.training.processes import ALONE, Processes
from lib.training.randomness import MinibatchOrder, Streams
from replications.wgan2017.config import ImagesConfig
from replications.wgan2017.networks import Nets, build
from replications.wgan2017.pixels import Pixels, curve_distance, generate

N_POINTS = 200  # of the curve of estimates
N_STRIPS, STRIP = 4, 16  # moments at which samples of fixed noise are kept for figure 3, and how many


class Player(NamedTuple):
    """A network, its parameters as one vector, the optimiser of that vector, and the processes that train it."""

    network: nn.Sequential
    flat: FlatParameters
    optimizer: torch.optim.Optimizer
    processes: Processes

    def descend(self, loss: Tensor) -> None:
        """loss: (), of this process's share of the minibatch."""
        self.flat.take_gradient(loss)
        assert self.flat.vector.grad is not None
        self.processes.mean_(self.flat.vector.grad)
        self.optimizer.step()


class Players(NamedTuple):
    generator: Player
    critic: Player


def critic_step(players: Players, config: ImagesConfig, x: Tensor, z: Tensor, mix: Tensor) -> Tensor:
    """One update of the critic. x: (B, C, H, H) in -1 .. 1, z: (B, Z), mix: (B,) uniform for the penalty's points.

    Of several processes each takes its share. Returns the estimate before the update over all of them, (), in the
    critic's own units (of JS in nats for the standard GAN).
    """
    generator, critic = players.generator.network, players.critic
    with torch.no_grad():
        fake = generator(z)
    if config.algorithm == "wgan" and config.clip_when == "before":
        # NOTE wgan2017-N1: the authors' main.py clips before the step, so there the generator meets a critic whose last
        # step was never clipped; Algorithm 1 clips after it.
        critic.flat.clip_(config.clip)
    # Two passes: where batch norm stands in the critic, real and generated images must not share their statistics.
    on_real, on_fake = critic.network(x), critic.network(fake)
    if config.algorithm == "gan":
        loss = discriminator_loss(on_real, on_fake)
        estimate = math.log(2) - loss  # JS >= log 2 + V / 2, with equality for the best discriminator
    else:
        estimate = on_real.mean() - on_fake.mean()
        loss = -estimate
        if config.algorithm == "wgan-gp":
            loss = loss + config.penalty * gradient_penalty(critic.network, x, fake, mix)
    critic.descend(loss)
    if config.algorithm == "wgan" and config.clip_when != "before":
        critic.flat.clip_(config.clip)
    estimate = estimate.detach()
    critic.processes.mean_(estimate)
    return estimate


def generator_step(players: Players, config: ImagesConfig, z: Tensor) -> Tensor:
    """One update of the generator: up the critic's value, or up log D in the standard GAN. z: (B, Z).

    Returns its loss before the update, (): -E f(G(z)), or -E log D(G(z)) in nats.
    """
    values = players.critic.network(players.generator.network(z))
    loss = nonsaturating_loss(values) if config.algorithm == "gan" else -values.mean()
    players.generator.descend(loss)
    loss = loss.detach()
    players.generator.processes.mean_(loss)
    return loss


def gradient_penalty(critic: nn.Module, x: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E (|df/dx^| - 1)^2, (), at x^ uniform on segments between pairs; Gulrajani et al. 2017, equation 3."""
    t = mix.view(-1, *(1 for _ in x.shape[1:]))
    between = torch.lerp(fake, x, t).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


class Record(nn.Module):
    """What the curve is made of; a module, so that checkpoints hold it."""

    estimates: Tensor  # (n_steps,): of the last critic step of each iteration, as the authors log it
    losses: Tensor  # (n_steps,): the generator's
    strips: Tensor  # (N_STRIPS, STRIP, C, H, H) uint8

    def __init__(self, config: ImagesConfig, image: tuple[int, ...], device: torch.device) -> None:
        super().__init__()
        self.register_buffer("estimates", torch.zeros(config.n_steps, device=device))
        self.register_buffer("losses", torch.zeros(config.n_steps, device=device))
        self.register_buffer("strips", torch.zeros(N_STRIPS, STRIP, *image, dtype=torch.uint8, device=device))


def player(network: nn.Sequential, config: ImagesConfig, processes: Processes = ALONE) -> Player:
    """The network with its optimiser by config; the network already on its device."""
    share_batch_norm_(network, processes)
    flat = FlatParameters(network)
    on_cuda = flat.vector.device.type == "cuda"  # only there can a step be captured
    if config.optimizer == "adam":
        betas = config.beta1, config.beta2
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            [flat.vector], config.learning_rate, betas, fused=True, capturable=on_cuda
        )
    else:
        # NOTE wgan2017-N6: PyTorch's RMSProp, as in the authors' code: decay .99, epsilon 1e-8 outside the root.
        optimizer = torch.optim.RMSprop([flat.vector], config.learning_rate, alpha=0.99, capturable=on_cuda)
    return Player(network, flat, with_state(optimizer), processes)


def players_of(nets: Nets, config: ImagesConfig, processes: Processes = ALONE) -> Players:
    players = Players(*(player(network, config, processes) for network in nets))
    if config.clip_when == "start":
        players.critic.flat.clip_(config.clip)
    return players


def critic_steps(config: ImagesConfig, step: int) -> int:
    """Critic steps before generator update number `step`, counted from 0."""
    # NOTE wgan2017-N2: the authors' code, not the paper, takes 100 critic steps at the start and every 500th time.
    if config.schedule == "authors" and (step < config.n_long_start or step % config.long_every == 0):
        return config.n_critic_long
    return config.n_critic


class Trained(NamedTuple):
    nets: Nets
    record: Record
    history: list[dict[str, float]]


def train(config: ImagesConfig, pixels: Pixels, workspace: Workspace) -> Trained:
    """config.n_steps generator iterations; goes on from the workspace's checkpoint.

    The last training images, which fill no minibatch, are never seen (NOTE wgan2017-N7).
    """
    streams, device, image, processes = workspace.streams, workspace.device, pixels.shape, workspace.processes
    nets = build(config, image, streams)
    players, record = players_of(nets, config, processes), Record(config, image, device)
    parts: dict[str, Any] = {
        **nets._asdict(), "generator_optimizer": players.generator.optimizer,
        "critic_optimizer": players.critic.optimizer, "record": record,
    }  # fmt: skip
    state: dict[str, Any] = {"critic_steps": 0} | workspace.resume_(**parts)
    tensors = training_tensors(**{name: part for name, part in parts.items() if part is not record})
    update_critic = CapturedStep(lambda *inputs: critic_step(players, config, *inputs), tensors, device, processes)
    update_generator = CapturedStep(lambda z: generator_step(players, config, z), tensors, device, processes)
    order = MinibatchOrder(streams.seed, len(pixels.train) // config.batch * config.batch, config.batch, device)
    n_updates = sum(critic_steps(config, step) for step in range(config.n_steps))
    for step in range(state["step"], config.n_steps):
        n = critic_steps(config, step)
        *noise, last = processes.share(draw_noise(config, n + 1, streams, step), dim=1)
        mixes = processes.share(torch.rand(n, config.batch, generator=streams.at("mix", step), device=device), dim=1)
        for k in range(n):
            x = pixels.minibatch(processes.share(order(state["critic_steps"] + k)))
            record.estimates[step] = update_critic(x, noise[k], mixes[k])
        record.losses[step] = update_generator(last)
        state["step"], state["critic_steps"] = step + 1, state["critic_steps"] + n
        if step + 1 in points(config.n_steps, max(N_POINTS, config.n_checkpoints)):
            _look(nets, record, pixels, config, state, workspace)
        workspace.keep(state, config.n_steps, (state["critic_steps"], n_updates), **parts)
    return Trained(nets, record, state["history"])


def draw_noise(config: ImagesConfig, n: int, streams: Streams, step: int) -> Tensor:
    """z of n minibatches, N(0, I): (n, B, Z) on the streams' device."""
    shape = n, config.batch, config.n_latent
    return torch.randn(shape, generator=streams.at("noise", step), device=streams.device)


def points(n_steps: int, n: int) -> dict[int, int]:
    """n counts of finished steps at even distances, the last among them, to their place; all, where there are fewer."""
    return {n_steps * (i + 1) // n: i for i in range(n) if n_steps * (i + 1) // n > 0}


def _look(
    nets: Nets, record: Record, pixels: Pixels, config: ImagesConfig, state: dict[str, Any], workspace: Workspace
) -> None:
    """A row of the history: the median estimate since the last row and, at a checkpoint, the distance of the images.

    As torch.median has it: of an even number of iterations the lower of the two middle ones.
    """
    step, history, streams = state["step"], state["history"], workspace.streams
    before = int(history[-1]["step"]) if history else 0
    estimate, loss = (values[before:step].median().item() for values in (record.estimates, record.losses))
    distance = math.nan
    if step in points(config.n_steps, config.n_checkpoints):
        distance = workspace.processes.told(lambda: curve_distance(nets.generator, pixels, config, streams))
    if (place := points(config.n_steps, N_STRIPS).get(step)) is not None:
        record.strips[place] = generate(nets.generator, config, STRIP, streams.at("strip"))
    row = {"step": step, "critic_steps": state["critic_steps"], "estimate": estimate, "generator_loss": loss}
    history.append({**row, "distance": distance})
    require_finite(estimate, "The critic's estimate", step, history)
