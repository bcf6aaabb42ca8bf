"""Mode collapse on mixtures of Gaussians: GAN and PacGAN of Lin et al. 2018, section 4.1, many models in one program.

R models, B packs a minibatch, m = n_pack points a pack. Axis 0 is the model, and no value crosses it.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.datasets.mixtures import GaussianMixture, grid, ring
from lib.execution.workspace import Outcome, Workspace
from lib.losses.adversarial import discriminator_loss, minimax_loss, nonsaturating_loss
from lib.metrics.modes import CoverageOfModels, coverage_of_models
from lib.models.batched import BatchedBatchNorm, BatchedLinear, BatchedMaxout
from lib.results import Score, mean_score
from lib.training.randomness import Streams, generator
from replications.gan2014.config import ToyConfig

MIXTURES = {"ring": ring(8, 1.0, 0.01), "grid": grid(5, 2.0, 0.05)}  # Lin 2018, section 4.1; VEEGAN, section 5.1
GENERATOR_LOSSES = {"minimax": minimax_loss, "nonsaturating": nonsaturating_loss}
N_LATENT = 2  # Lin 2018: z ~ N(0, I) in the plane
N_CURVE_POINTS = 10


class ToyGenerator(nn.Module):
    """Layers of a linear map, batch normalisation and ReLU, then a linear map into the plane.

    NOTE gan2014-N40: always normalised by the statistics of the batch at hand, that of the evaluated samples included;
    the authors' program samples with running averages, and normalises each place of a pack by itself.
    """

    def __init__(self, n_models: int, n_layers: int, n_hidden: int, rng: torch.Generator) -> None:
        super().__init__()
        widths = [N_LATENT] + n_layers * [n_hidden]
        self.layers = nn.Sequential()
        for n_in, n_out in pairwise(widths):
            self.layers.extend(
                [BatchedLinear(n_models, n_in, n_out, rng), BatchedBatchNorm(n_models, n_out), nn.ReLU()]
            )
        self.layers.append(BatchedLinear(n_models, widths[-1], 2, rng))

    def forward(self, z: Tensor) -> Tensor:
        points: Tensor = self.layers(z)  # (R, N, 2) -> (R, N, 2)
        return points


class PackedDiscriminator(nn.Module):
    """Judges m points at once, all real or all generated (Lin 2018, section 2); m = 1 is a GAN's discriminator."""

    def __init__(
        self, n_models: int, n_pack: int, n_layers: int, units: int, pieces: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        widths = [2 * n_pack] + n_layers * [units]
        hidden = [BatchedMaxout(n_models, n_in, units, pieces, rng) for n_in in widths[:-1]]
        self.n_pack, self.layers = n_pack, nn.Sequential(*hidden, BatchedLinear(n_models, widths[-1], 1, rng))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (R, B, 1) of points (R, B m, 2); m consecutive points are a pack, side by side as 2 m inputs."""
        logits: Tensor = self.layers(x.reshape(len(x), -1, 2 * self.n_pack))
        return logits


class Networks(NamedTuple):
    generator: ToyGenerator
    discriminator: PackedDiscriminator


@torch.no_grad()
def build(config: ToyConfig, streams: Streams) -> Networks:
    """The networks as they start: weights N(0, init_sd^2), biases 0, normalisation the identity."""
    rng, n = generator(streams.seed, "init"), config.n_models
    networks = Networks(
        ToyGenerator(n, config.generator_layers, config.generator_hidden, rng),
        PackedDiscriminator(
            n, config.n_pack, config.discriminator_layers, config.maxout_units, config.maxout_pieces, rng
        ),
    )
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, BatchedLinear):
                layer.weight.normal_(0, config.init_sd, generator=rng)
                layer.bias.zero_()
    return Networks(networks.generator.to(streams.device), networks.discriminator.to(streams.device))


def gradients_(networks: Networks, real: Tensor, z: Tensor, loss: str) -> None:
    """Each model's two gradients at one and the same point, into .grad; real, z: (R, B m, 2).

    NOTE gan2014-N41: both come from the same minibatch of generated points, as in the authors' program and in
    Goodfellow's own; Algorithm 1 would draw new ones for the generator.
    """
    n_models, (generator_net, discriminator) = len(real), networks
    fake = generator_net(z)
    of_real, of_fake = discriminator(torch.cat([real, fake], 1)).chunk(2, 1)
    # The losses are means over models too. A model alone would have R times its share of them.
    losses = n_models * discriminator_loss(of_real, of_fake), n_models * GENERATOR_LOSSES[loss](of_fake)
    for network, value in ((discriminator, losses[0]), (generator_net, losses[1])):
        parameters = list(network.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(value, parameters, retain_graph=True), strict=True
        ):
            parameter.grad = gradient


def adam(networks: Networks, config: ToyConfig) -> torch.optim.Adam:
    """One Adam for all parameters of all models, for its step is elementwise; with its state already made."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    optimizer = torch.optim.Adam(parameters, config.learning_rate, (config.beta1, 0.999), fused=True)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # by 0: it makes the state that a checkpoint is put back into
    for parameter in parameters:
        optimizer.state[parameter]["step"].zero_()
    return optimizer


def learning_rate(config: ToyConfig, step: int) -> float:
    """The rate of update number `step`, counted from 0."""
    # DEVIATION gan2014-D40: falls linearly to 0 where a preset says so; in Lin 2018 it stays.
    return config.learning_rate * (1 - step / config.n_steps if config.rate_falls else 1)


@torch.no_grad()
def sample(generator_net: ToyGenerator, n_models: int, n_samples: int, rng: torch.Generator) -> Tensor:
    """n_samples points of each model, (R, N, 2)."""
    return generator_net(torch.randn(n_models, n_samples, N_LATENT, generator=rng, device=rng.device))


def toys(config: ToyConfig, workspace: Workspace) -> Outcome:
    """Train config.n_models models side by side and count their modes; goes on from the workspace's checkpoint."""
    streams, mixture = workspace.streams, MIXTURES[config.distribution].to(workspace.device)
    networks = build(config, streams)
    optimizer = adam(networks, config)
    parts: dict[str, Any] = {"generator": networks.generator, "discriminator": networks.discriminator}
    state = workspace.resume_(**parts, optimizer=optimizer)
    due, points = set(evaluation_steps(config.n_steps)), (config.n_models, config.batch * config.n_pack)
    for step in range(state["step"], config.n_steps):
        optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        real = mixture.sample(points, streams.at("real", step))
        z = torch.randn(*points, N_LATENT, generator=streams.at("latent", step), device=streams.device)
        gradients_(networks, real, z, config.loss)
        optimizer.step()
        state["step"] = step + 1
        if step + 1 in due:
            found = _evaluated(networks, config, mixture, streams.at("evaluation", step + 1))[1]
            state["history"].append({"step": step + 1, **curve_point(found)})
        workspace.keep(state, config.n_steps, **parts, optimizer=optimizer)
    samples, found = _evaluated(networks, config, mixture, streams.at("evaluation", config.n_steps))
    real = mixture.sample((config.n_models, config.n_samples), streams.at("real-evaluation"))
    scores = {
        **coverage_scores(found, config),
        **coverage_scores(coverage_of_models(real, mixture.centres, mixture.sd), config, "_real"),
    }
    counts = [sum(p.numel() for p in network.parameters()) // config.n_models for network in networks]
    facts = {"parameters_a_model": dict(zip(("generator", "discriminator"), counts, strict=True)), **per_model(found)}
    return Outcome(scores, state["history"], {"samples": samples.half()}, facts=facts)


def _evaluated(
    networks: Networks, config: ToyConfig, mixture: GaussianMixture, rng: torch.Generator
) -> tuple[Tensor, CoverageOfModels]:
    samples = sample(networks.generator, config.n_models, config.n_samples, rng)
    return samples, coverage_of_models(samples, mixture.centres, mixture.sd)


def evaluation_steps(n_steps: int) -> list[int]:
    """Ten steps evenly along the training, the last one included; fewer where there are fewer steps."""
    return sorted({math.ceil(n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS)})


def curve_point(found: CoverageOfModels) -> dict[str, float]:
    """Mean over models and its standard error of the two counts."""
    row: dict[str, float] = {}
    for name in ("modes", "high_quality"):
        score = mean_score(getattr(found, name), "", True, {})
        row |= {name: score.value, f"{name}_stderr": score.stderr}
    return row


def coverage_scores(found: CoverageOfModels, config: ToyConfig, suffix: str = "") -> dict[str, Score]:
    """Means over models with their standard errors; suffix "_real": the same counts on draws of the mixture itself.

    NOTE gan2014-N42: the reverse KL takes all samples, each counted for its nearest mode, as Lin 2018 writes it; the
    authors' program counts only those of high quality. The latter is kept a model among the facts.
    """
    mixture = MIXTURES[config.distribution]
    protocol = {
        "averaged_over": "models", "distribution": config.distribution, "modes": len(mixture.centres),
        "sd": mixture.sd, "within_sd": 3, "samples": config.n_samples,
    }  # fmt: skip
    if not suffix:
        protocol |= {"loss": config.loss, "n_pack": config.n_pack, "steps": config.n_steps}
    units = {"modes": ("modes", True), "high_quality": ("share", True), "reverse_kl": ("nats", False)}
    return {
        f"{name}{suffix}": mean_score(getattr(found, name), unit, higher, protocol)
        for name, (unit, higher) in units.items()
    }


def per_model(found: CoverageOfModels) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in found._asdict().items()}
