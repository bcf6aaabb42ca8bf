"""Mode collapse on mixtures of Gaussians under Algorithm 1, under its gradient penalty and in the standard GAN.

R models side by side, B points a minibatch. Axis 0 is the model, and no value crosses it. The three algorithms train
the same networks; a critic is a discriminator whose output is read as a value and not as a logit.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.datasets.mixtures import GaussianMixture, grid, ring
from lib.execution.workspace import Outcome, Workspace
from lib.losses.adversarial import discriminator_loss, nonsaturating_loss
from lib.metrics.modes import CoverageOfModels, coverage_of_models
from lib.models.batched import BatchedBatchNorm, BatchedLinear
from lib.models.flat import FlatParameters
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.wgan2017.config import ToyConfig
from replications.wgan2017.critic import clipped_step_, critics, penalised_step_

MIXTURES = {"ring": ring(8, 1.0, 0.01), "grid": grid(5, 2.0, 0.05)}  # Lin 2018, section 4.1; VEEGAN, section 5.1
N_LATENT = 2  # Lin 2018: z ~ N(0, I) in the plane
N_CURVE_POINTS = 10


class Player(NamedTuple):
    """R networks of one kind, their parameters as one vector, and what updates it."""

    network: nn.Sequential
    flat: FlatParameters
    optimizer: torch.optim.Optimizer


class Game(NamedTuple):
    """The two sides. Points are (R, B, 2), values of the critic (R, B, 1)."""

    generator: Player
    critic: Player


def build(config: ToyConfig, streams: Streams) -> Game:
    """The game as it starts, with PyTorch's own uniform weights; batch norm in the generator alone."""
    rng, layers = generator(streams.seed, "init"), nn.Sequential()
    for n_in in [N_LATENT, *(config.generator_layers - 1) * [config.width]]:
        layers.append(BatchedLinear(config.n_models, n_in, config.width, rng))
        layers.extend([BatchedBatchNorm(config.n_models, config.width), nn.ReLU()])
    layers.append(BatchedLinear(config.n_models, config.width, 2, rng))
    critic = critics(config.n_models, 2, config.width, config.critic_layers, rng)
    return Game(*(_player(network.to(streams.device), config) for network in (layers, critic)))


def _player(network: nn.Sequential, config: ToyConfig) -> Player:
    flat = FlatParameters(network)
    optimizer: torch.optim.Optimizer
    if config.algorithm == "wgan":
        optimizer = torch.optim.RMSprop([flat.vector], config.learning_rate)
    else:
        optimizer = torch.optim.Adam([flat.vector], config.learning_rate, (config.beta1, config.beta2), fused=True)
    return Player(network, flat, with_state(optimizer))


def critic_step(game: Game, real: Tensor, z: Tensor, share: Tensor, config: ToyConfig) -> None:
    """One update of the critics; real (R, B, 2), z (R, B, Z), share (R, B, 1) uniform, where the penalty looks."""
    critic = game.critic
    with torch.no_grad():
        fake = game.generator.network(z)
    match config.algorithm:
        case "wgan":
            clipped_step_(*critic, real, fake, config.clip)
        case "wgan-gp":
            penalised_step_(*critic, real, fake, share, config.penalty)
        case "gan":
            of_real, of_fake = critic.network(torch.cat([real, fake], 1)).chunk(2, 1)
            # A mean over models too, of which a model alone would have R times its share.
            critic.flat.take_gradient(len(real) * discriminator_loss(of_real, of_fake))
            critic.optimizer.step()


def generator_step(game: Game, z: Tensor, config: ToyConfig) -> None:
    """One update of the generators; z (R, B, Z)."""
    of_fake = game.critic.network(game.generator.network(z))
    loss = nonsaturating_loss(of_fake) if config.algorithm == "gan" else -of_fake.mean()
    game.generator.flat.take_gradient(len(z) * loss)
    game.generator.optimizer.step()


def learning_rate(config: ToyConfig, step: int) -> float:
    """The rate of generator update number `step`, counted from 0, and of the critic updates before it."""
    # DEVIATION wgan2017-D31: falls linearly to 0 where a preset says so; in Algorithm 1 it stays.
    return config.learning_rate * (1 - step / config.n_steps if config.rate_falls else 1)


def toys(config: ToyConfig, workspace: Workspace) -> Outcome:
    """Train config.n_models models side by side and count their modes; goes on from the workspace's checkpoint."""
    streams, mixture = workspace.streams, MIXTURES[config.distribution].to(workspace.device)
    game = build(config, streams)
    parts: dict[str, Any] = {
        "generator": game.generator.network, "generator_optimizer": game.generator.optimizer,
        "critic": game.critic.network, "critic_optimizer": game.critic.optimizer,
    }  # fmt: skip
    state = workspace.resume_(**parts)
    due, shape = set(evaluation_steps(config.n_steps)), (config.n_models, config.batch)
    for step in range(state["step"], config.n_steps):
        for player in game:
            player.optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        for turn in range(step * config.n_critic, (step + 1) * config.n_critic):
            real = mixture.sample(shape, streams.at("real", turn))
            z = torch.randn(*shape, N_LATENT, generator=streams.at("latent", turn), device=streams.device)
            share = torch.rand(*shape, 1, generator=streams.at("segments", turn), device=streams.device)
            critic_step(game, real, z, share, config)
        z = torch.randn(*shape, N_LATENT, generator=streams.at("generator latent", step), device=streams.device)
        generator_step(game, z, config)
        state["step"] = step + 1
        if step + 1 in due:
            found = evaluated(game, config, mixture, streams.at("evaluation", step + 1))[1]
            state["history"].append({"step": step + 1, **curve_point(found)})
        workspace.keep(state, config.n_steps, **parts)
    return _outcome(game, config, mixture, streams, state["history"])


def _outcome(
    game: Game, config: ToyConfig, mixture: GaussianMixture, streams: Streams, history: list[dict[str, float]]
) -> Outcome:
    """Scores of the trained generators, and of draws of the mixture itself under the same measures ("_real")."""
    shape = (config.n_models, config.n_samples)
    samples, found = evaluated(game, config, mixture, streams.at("evaluation", config.n_steps))
    real = mixture.sample(shape, streams.at("real-evaluation"))
    scores = coverage_scores(found, off_modes(samples, mixture), config)
    of_real = coverage_of_models(real, mixture.centres, mixture.sd)
    scores |= coverage_scores(of_real, off_modes(real, mixture), config, "_real")
    counts = {name: len(player.flat.vector) // config.n_models for name, player in game._asdict().items()}
    facts = {"parameters_a_model": counts, **{name: values.tolist() for name, values in found._asdict().items()}}
    return Outcome(scores, history, {"samples": samples.half()}, facts=facts)


@torch.no_grad()
def evaluated(
    game: Game, config: ToyConfig, mixture: GaussianMixture, rng: torch.Generator
) -> tuple[Tensor, CoverageOfModels]:
    """config.n_samples points of each model, (R, N, 2), and their coverage.

    NOTE wgan2017-N31: batch norm takes the statistics of these samples, as it takes those of a minibatch in training;
    there are no running averages.
    """
    z = torch.randn(config.n_models, config.n_samples, N_LATENT, generator=rng, device=rng.device)
    samples = game.generator.network(z)
    return samples, coverage_of_models(samples, mixture.centres, mixture.sd)


def off_modes(samples: Tensor, mixture: GaussianMixture) -> Tensor:
    """Median distance of each model's points (R, N, 2) from the nearest centre, in sd: (R,) float64 on the CPU, >= 0.

    sqrt(2 log 2) = 1.177 for draws of modes far apart: the median of a Rayleigh distribution. Says how far from the
    modes the points are where a share within three sd says only that they are not on them. Of an even number of points
    the median is the lower of the two middle ones.
    """
    distances = torch.cdist(samples.cpu().double(), mixture.centres.cpu().double().expand(len(samples), -1, -1))
    return distances.amin(-1).median(-1).values / mixture.sd


def evaluation_steps(n_steps: int) -> list[int]:
    """Ten steps evenly along the training, the last one included; fewer where there are fewer steps."""
    return sorted({math.ceil(n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS)})


def curve_point(found: CoverageOfModels) -> dict[str, float]:
    """Mean over models and its standard error of the two counts and of the reverse KL."""
    row: dict[str, float] = {}
    for name in ("modes", "high_quality", "reverse_kl"):
        score = mean_score(getattr(found, name), "", True, {})
        row |= {name: score.value, f"{name}_stderr": score.stderr}
    return row


def coverage_scores(
    found: CoverageOfModels, distances: Tensor, config: ToyConfig, suffix: str = ""
) -> dict[str, Score]:
    """Means over models with their standard errors. The reverse KL takes all samples, each for its nearest mode."""
    mixture = MIXTURES[config.distribution]
    protocol: dict[str, Any] = {
        "averaged_over": "models", "distribution": config.distribution, "modes": len(mixture.centres),
        "sd": mixture.sd, "within_sd": 3, "samples": config.n_samples,
    }  # fmt: skip
    if not suffix:
        protocol |= {"algorithm": config.algorithm, "steps": config.n_steps, "n_critic": config.n_critic}
    return {
        f"modes{suffix}": mean_score(found.modes, "modes", True, protocol),
        f"high_quality{suffix}": mean_score(found.high_quality, "share", True, protocol),
        f"reverse_kl{suffix}": mean_score(found.reverse_kl, "nats", False, protocol),
        f"distance{suffix}": mean_score(distances, "sd", False, protocol),
    }
