"""Section 4.3's negative result: WGAN "becomes unstable at times" with momentum on the critic, or at high rates.

Many small WGANs side by side, each an arm (the critic's optimiser and the rate) and a repeat. Axis 0 of every tensor is
the model, arm after arm, and no value crosses it. Fixed before any measurement: a critic step is blown up where the
critic's estimate, mean f(real) - mean f(fake) on its minibatch before the step, is negative after the first 50
generator updates, so that the critic is worse than a constant one; a model is unstable where more than 1 % of its
critic steps from then on are blown up, or a parameter or an output of it is not finite.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lib import datasets
from lib.datasets import Dataset
from lib.execution.workspace import Outcome, Workspace
from lib.metrics import to_uint8
from lib.models.batched import BatchedLinear
from lib.models.dcgan import LEAK, to_unit_range
from lib.reporting.sheets import image_sheet
from lib.training.randomness import Streams, generator
from replications.wgan2017.arms import Arm, OptimizerOfArms, arms_of, cosine
from replications.wgan2017.config import MomentumConfig
from replications.wgan2017.momentum_scores import arm_means, cosine_histograms, momentum_scores, of_record

POOL = 2  # 28 x 28 pixels to 14 x 14
SHEET = 10  # samples of the first model of each arm
N_CURVE_POINTS = 20
Minibatch = Callable[[int], Tensor]


class Record(nn.Module):
    """Estimate and cosine of every critic step, on the device; a module, so that checkpoints hold it."""

    estimate: Tensor  # (critic steps, R)
    cosine: Tensor  # (critic steps, R)

    def __init__(self, n_rows: int, n_models: int, device: torch.device) -> None:
        super().__init__()
        for name in ("estimate", "cosine"):
            self.register_buffer(name, torch.zeros(n_rows, n_models, device=device))


class Game(NamedTuple):
    """Generators (R, B, Z) -> (R, B, pixels), critics (R, B, pixels) -> (R, B, 1), and their optimisers."""

    generator: nn.Module
    critic: nn.Module
    generator_optimizer: OptimizerOfArms
    critic_optimizer: OptimizerOfArms


def build(config: MomentumConfig, n_pixels: int, seed: int, device: torch.device | str) -> Game:
    """The games as they start: a repeat starts from the same weights in every arm."""
    arms = arms_of(config)
    # DEVIATION wgan2017-D50: two hidden layers of a few units for 14 x 14 pixels, where the paper has its DCGAN critic,
    # or an MLP of four layers of 512, for 64 x 64.
    # NOTE wgan2017-N53: no tanh at the output, as in the authors' MLP_G; in the critic LeakyReLU, as in their DCGAN_D.
    # In a first run the critic had their MLP_D's ReLU, and at 5e-3 all its units died: constant, and no gradient left.
    g = _mlp(config, (config.n_latent, config.width, config.width, n_pixels), generator(seed, "generator"), 0.0)
    c = _mlp(config, (n_pixels, config.width, config.width, 1), generator(seed, "critic"), LEAK)
    for network in (g.to(device), c.to(device)):
        for layer in network:
            if isinstance(layer, BatchedLinear):
                layer.weight = nn.Parameter(layer.weight.data.repeat(len(arms), 1, 1))
                layer.bias = nn.Parameter(layer.bias.data.repeat(len(arms), 1, 1))
    by_model = [arm for arm in arms for _ in range(config.n_models)]
    # NOTE wgan2017-N50: the generator is always trained by RMSProp, at the rate of its critic, for Algorithm 1 has one
    # rate and section 4.3 speaks of Adam on the critic. The authors' --adam changes both.
    plain = [Arm(None, arm.rate) for arm in by_model]
    return Game(
        g, c,
        OptimizerOfArms(list(g.parameters()), plain, config.decay, config.beta2),
        OptimizerOfArms(list(c.parameters()), by_model, config.decay, config.beta2),
    )  # fmt: skip


def _mlp(config: MomentumConfig, sizes: Sequence[int], drawn: torch.Generator, leak: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [BatchedLinear(config.n_models, n_in, n_out, drawn), nn.LeakyReLU(leak)]
    return nn.Sequential(*layers[:-1])


def critic_step(game: Game, real: Tensor, z: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """One step of Algorithm 1's inner loop; real (R, B, pixels), z (R, B, Z).

    Returns each model's estimate before the step and the cosine of the step, before clipping, with the negative
    gradient: (R,) both.
    """
    with torch.no_grad():
        fake = game.generator(z)
    values = game.critic(torch.cat([real, fake], 1)).squeeze(2)  # (R, 2 B)
    estimate = values[:, : real.shape[1]].mean(1) - values[:, real.shape[1] :].mean(1)
    _gradients_(game.critic, -estimate.sum())
    directions = game.critic_optimizer.step()
    _clip_(game.critic, clip)
    return estimate.detach(), cosine(directions, [p.grad for p in game.critic.parameters() if p.grad is not None])


def generator_step(game: Game, z: Tensor) -> None:
    """One step of each generator down -mean f(g(z)); the critics are not touched."""
    _gradients_(game.generator, -game.critic(game.generator(z)).mean((1, 2)).sum())
    game.generator_optimizer.step()


def _gradients_(network: nn.Module, loss: Tensor) -> None:
    """loss: the sum over models, each model's own, so that its gradient is what it would be alone."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient


@torch.no_grad()
def _clip_(network: nn.Module, clip: float) -> None:
    for parameter in network.parameters():
        parameter.clamp_(-clip, clip)


def momentum(config: MomentumConfig, workspace: Workspace) -> Outcome:
    """Train all arms by Algorithm 1, and count blow-ups; goes on from the workspace's checkpoint."""
    data, streams = datasets.load(config.data), workspace.streams
    images = pixels(data, "train").to(workspace.device)
    game = build(config, images.shape[1], streams.seed, workspace.device)
    arms, n_rows = arms_of(config), config.n_steps * config.n_critic
    record = Record(n_rows, len(arms) * config.n_models, workspace.device)
    parts: dict[str, Any] = {**game._asdict(), "record": record}
    untrained = generate(config, game, streams)[: config.n_models].clamp(-1, 1)
    state = workspace.resume_(**parts)
    for step in range(state["step"], config.n_steps):
        real, z = minibatches(config, images, streams, step)
        for k in range(config.n_critic):
            row = step * config.n_critic + k
            record.estimate[row], record.cosine[row] = critic_step(game, real(k), z(k), config.clip)
        generator_step(game, z(config.n_critic))
        state["step"] = step + 1
        if step + 1 in curve_steps(config.n_steps):
            since = config.n_critic * int(state["history"][-1]["step"] if state["history"] else 0)
            state["history"].append({"step": step + 1, **_curve_point(config, record, since, row + 1)})
        workspace.keep(state, config.n_steps, **parts)
    outputs = generate(config, game, streams)
    later = config.grace * config.n_critic
    estimate, cosines = record.estimate[later:].cpu(), record.cosine[later:].cpu()
    found, made = of_record(estimate, cosines, are_finite(game, outputs)), outputs.clamp(-1, 1)
    scores, facts = momentum_scores(config, found, untrained, made, pixels(data, "train"), pixels(data, "test"))
    drawn = _drawn(config, record) | {"histogram": cosine_histograms(estimate, cosines, config.n_models)}
    return Outcome(scores, state["history"], drawn, _sheet(config, made), facts)


def pixels(data: Dataset, split: str) -> Tensor:
    """Images of one channel as means of 2 x 2 pixels, -1 .. 1: (N, pixels)."""
    return avg_pool2d(to_unit_range(data.split(split)[0]), POOL).flatten(1)


def minibatches(config: MomentumConfig, images: Tensor, streams: Streams, step: int) -> tuple[Minibatch, Minibatch]:
    """Functions of 0 .. n_critic - 1 to real minibatches (R, B, pixels), and of 0 .. n_critic to noise (R, B, Z)."""
    # NOTE wgan2017-N52: each repeat has minibatches, drawn with replacement, and noise of its own, and they are the
    # same in every arm: arms differ in the optimiser alone.
    n_arms, shape = len(arms_of(config)), (config.n_models, config.batch)
    rows = torch.randint(len(images), (config.n_critic, *shape), generator=streams.at("real", step),
                         device=streams.device)  # fmt: skip
    noise = torch.randn(config.n_critic + 1, *shape, config.n_latent, generator=streams.at("noise", step),
                        device=streams.device)  # fmt: skip

    def real(k: int) -> Tensor:
        return images.index_select(0, rows[k].flatten()).view(*shape, -1).repeat(n_arms, 1, 1)

    return real, lambda k: noise[k].repeat(n_arms, 1, 1)


def curve_steps(n_steps: int) -> set[int]:
    """N_CURVE_POINTS steps at even distances, the last among them; all, where there are fewer."""
    return {n_steps * (i + 1) // N_CURVE_POINTS for i in range(N_CURVE_POINTS)} - {0}


def _curve_point(config: MomentumConfig, record: Record, since: int, until: int) -> dict[str, float]:
    """Means over the critic steps since the last point, then over an arm's models."""
    return {
        f"{name}_{arm.name}": value
        for name, rows in (("estimate", record.estimate), ("cosine", record.cosine))
        for arm, value in zip(arms_of(config), arm_means(rows[since:until], config.n_models), strict=True)
    }


@torch.no_grad()
def generate(config: MomentumConfig, game: Game, streams: Streams) -> Tensor:
    """Outputs for fresh noise, (R, n_generated, pixels) on the CPU; the same noise in every arm."""
    shape = (config.n_models, config.n_generated, config.n_latent)
    z = torch.randn(shape, generator=streams.at("generate"), device=streams.device)
    outputs: Tensor = game.generator(z.repeat(len(arms_of(config)), 1, 1))
    return outputs.cpu()


def are_finite(game: Game, outputs: Tensor) -> Tensor:
    """(R,) bool: all parameters of a model and all its outputs (R, N, pixels) are finite."""
    tensors = [*game.generator.parameters(), *game.critic.parameters(), outputs]
    return torch.stack([tensor.detach().isfinite().flatten(1).all(1).cpu() for tensor in tensors]).all(0)


def _drawn(config: MomentumConfig, record: Record) -> dict[str, Tensor]:
    """Every critic step of the first model of each arm, (critic steps, arms), for the figures."""
    return {name: rows[:, :: config.n_models].cpu() for name, rows in record.named_buffers()}


def _sheet(config: MomentumConfig, made: Tensor) -> Tensor:
    """The first samples of the first model of each arm, a row an arm: uint8 (1, H', W')."""
    first = made[:: config.n_models, :SHEET].nan_to_num(0.0)  # (arms, SHEET, pixels)
    side = round(first.shape[-1] ** 0.5)
    return image_sheet(to_uint8(first.reshape(-1, 1, side, side), -1, 1), SHEET, pad_value=255)
