"""Gulrajani et al. 2017, figure 1b: how gradients travel through a deep critic, and where clipped weights end.

WGANs of 12-layer networks on the swiss roll. Axis 0 of every tensor is the model: one clip bound after the other and
config.n_models repeats of each, all in one program; the models with a gradient penalty are a second one.
"""

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.datasets.mixtures import swiss_roll
from lib.execution.workspace import Outcome, Workspace
from lib.models.batched import BatchedLinear
from lib.models.flat import FlatParameters
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.wgan2017.config import DepthConfig
from replications.wgan2017.critic import critics, estimates, penalised_step_

ROLL_SD, ROLL_SCALE = 0.25, 7.5  # Gulrajani 2017, code
N_LATENT = 2  # Gulrajani 2017, code
N_CURVE_POINTS, BINS = 10, 61
PILED = 0.01  # a weight is piled up where it is within this share of its bound
LEAST = 1e-60  # what a gradient norm of exactly 0 counts as in a logarithm
PENALTY = "penalty"


class Game(NamedTuple):
    """R WGANs: generators (R, B, 2) -> (R, B, 2), critics (R, B, 2) -> (R, B, 1), and what updates them."""

    generator: nn.Sequential
    critic: nn.Sequential
    generator_flat: FlatParameters
    critic_flat: FlatParameters
    generator_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer
    bounds: Tensor | None  # (n,): of each of the critics' parameters; None where a penalty takes their place


def arm_of(clip: float) -> str:
    """The name of a bound in a score's name: `c0p01`."""
    return f"c{clip:g}".replace(".", "p")


def arms_of(config: DepthConfig) -> list[str]:
    return [*map(arm_of, config.clips), PENALTY]


def build(config: DepthConfig, streams: Streams, penalised: bool) -> Game:
    """The games as they start: He's uniform weights and biases of 0, as in the authors' code."""
    n_models = config.n_models * (1 if penalised else len(config.clips))
    rng = generator(streams.seed, f"{PENALTY if penalised else 'clip'} init")
    decoder = critics(n_models, N_LATENT, config.width, config.n_layers, rng)
    decoder[-1] = BatchedLinear(n_models, config.width, 2, rng)
    # NOTE wgan2017-N33: 12 hidden layers and a linear output; whether the paper's "12-layer" counts the output is open.
    networks = decoder, critics(n_models, 2, config.width, config.n_layers, rng)
    with torch.no_grad():
        for network in networks:
            for layer in linear_layers(network):
                layer.weight.mul_(math.sqrt(6))  # from U(-1, 1) / sqrt(n) to a variance of 2 / n
                layer.bias.zero_()
            network.to(streams.device)
    flats = [FlatParameters(network) for network in networks]
    optimizers: list[torch.optim.Optimizer] = []
    for flat in flats:
        if penalised:
            betas = (config.beta1, config.beta2)
            optimizers.append(torch.optim.Adam([flat.vector], config.penalty_rate, betas, fused=True))
        else:
            optimizers.append(torch.optim.RMSprop([flat.vector], config.clip_rate))
    one, other = (with_state(optimizer) for optimizer in optimizers)
    bounds = None if penalised else bounds_of(flats[1], config.clips)
    return Game(*networks, flats[0], flats[1], one, other, bounds)


def linear_layers(network: nn.Module) -> list[BatchedLinear]:
    return [layer for layer in network.modules() if isinstance(layer, BatchedLinear)]


def bounds_of(flat: FlatParameters, clips: tuple[float, ...]) -> Tensor:
    """The bound of each parameter's model, (n,); models lie clip after clip along each parameter's axis 0."""
    parts = []
    for parameter in flat.parameters:
        each = torch.tensor(clips, dtype=parameter.dtype).repeat_interleave(len(parameter) // len(clips))
        parts.append(each.view(-1, *(parameter.ndim - 1) * [1]).expand(parameter.shape).reshape(-1))
    return torch.cat(parts).to(flat.vector.device)


def critic_step(game: Game, config: DepthConfig, real: Tensor, z: Tensor, share: Tensor) -> None:
    """One update of the critics; real (R, B, 2), z (R, B, Z), share (R, B, 1) uniform, where the penalty looks."""
    with torch.no_grad():
        fake = game.generator(z)
    if game.bounds is None:
        penalised_step_(game.critic, game.critic_flat, game.critic_optimizer, real, fake, share, config.penalty)
        return
    game.critic_flat.take_gradient(-estimates(game.critic, real, fake).sum())
    game.critic_optimizer.step()
    game.critic_flat.vector.data.clamp_(-game.bounds, game.bounds)


def generator_step(game: Game, z: Tensor) -> None:
    """One update of the generators, down -mean f(g(z)); z (R, B, Z)."""
    game.generator_flat.take_gradient(-game.critic(game.generator(z)).mean((1, 2)).sum())
    game.generator_optimizer.step()


def draw(n_models: int, n: int, streams: Streams, stream: str, step: int = 0) -> Tensor:
    """Real points, (n_models, n, 2), in the scaled coordinates of the authors' code."""
    return swiss_roll((n_models, n), ROLL_SD, streams.at(stream, step)) / ROLL_SCALE


def train_step(game: Game, config: DepthConfig, streams: Streams, step: int) -> None:
    """n_critic updates of the critics and one of the generators."""
    name, n_models = "clip" if game.bounds is not None else PENALTY, len(linear_layers(game.critic)[0].weight)
    shape = (n_models, config.batch)
    for turn in range(step * config.n_critic, (step + 1) * config.n_critic):
        real = draw(*shape, streams, f"{name} real", turn)
        z = torch.randn(*shape, N_LATENT, generator=streams.at(f"{name} latent", turn), device=streams.device)
        share = torch.rand(*shape, 1, generator=streams.at(f"{name} segments", turn), device=streams.device)
        critic_step(game, config, real, z, share)
    z = torch.randn(*shape, N_LATENT, generator=streams.at(f"{name} generator", step), device=streams.device)
    generator_step(game, z)


def gradient_norms(network: nn.Module, points: Tensor) -> Tensor:
    """Root mean square over points of |df / dh_l| for the hidden layers l = 1 .. L: (R, n, 2) -> (R, L) float64.

    Up to its sign and the factor 1 / n this is the gradient of the critic's loss, mean f(fake) - mean f(real), in the
    activations of layer l, which figure 1b shows; without the factor it does not depend on the number of points.
    """
    network, h = copy.deepcopy(network).double(), points.double()
    activations: list[Tensor] = []
    for layer in network.children():
        h = layer(h)
        if isinstance(layer, nn.ReLU):
            activations.append(h)
    gradients = torch.autograd.grad(h.sum(), activations)
    return torch.stack([each.square().sum(-1).mean(1).sqrt() for each in gradients], 1)


def decades(norms: Tensor) -> Tensor:
    """log10 of the first hidden layer's norm over the last one's, (R, L) -> (R,).

    Negative where gradients vanish on their way back to the input, positive where they explode.
    """
    return (norms[:, 0].clamp_min(LEAST) / norms[:, -1].clamp_min(LEAST)).log10()


def weights_of(network: nn.Module) -> Tensor:
    """All weights of each model without the biases, (R, n)."""
    return torch.cat([layer.weight.detach().flatten(1) for layer in linear_layers(network)], 1)


def piled(network: nn.Module, bounds: Tensor) -> Tensor:
    """Share of each model's weights within PILED of its bound, on either side: (R,); bounds (R,)."""
    at_least = (1 - PILED) * bounds.unsqueeze(1)
    return (weights_of(network).abs() >= at_least).double().mean(1)


def clipped_start(config: DepthConfig, streams: Streams) -> nn.Sequential:
    """The clipped critics before their first step, put into their bounds: where they would be without any training."""
    game = build(config, streams, penalised=False)
    assert game.bounds is not None
    game.critic_flat.vector.data.clamp_(-game.bounds, game.bounds)
    return game.critic


def depth(config: DepthConfig, workspace: Workspace) -> Outcome:
    """Train all arms and look at their critics; goes on from the workspace's checkpoint."""
    streams = workspace.streams
    games = {"clip": build(config, streams, penalised=False), PENALTY: build(config, streams, penalised=True)}
    parts: dict[str, Any] = {}
    for name, game in games.items():
        parts |= {f"{name}_generator": game.generator, f"{name}_critic": game.critic}
        parts |= {f"{name}_generator_optimizer": game.generator_optimizer,
                  f"{name}_critic_optimizer": game.critic_optimizer}  # fmt: skip
    state = workspace.resume_(**parts)
    due = {math.ceil(config.n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS)}
    for step in range(state["step"], config.n_steps):
        for game in games.values():
            train_step(game, config, streams, step)
        state["step"] = step + 1
        if step + 1 in due:
            found = measured(games, config, streams)
            means = {name: each.mean().item() for name, each in found.items() if each.ndim == 1}
            state["history"].append({"step": float(step + 1), **means})
        workspace.keep(state, config.n_steps, **parts)
    found = measured(games, config, streams)
    scores, facts = scores_of(found, config)
    norms = torch.stack([found[f"norms_{arm}"] for arm in arms_of(config)])
    return Outcome(scores, state["history"], {"norms": norms}, facts=facts | histograms(games, config))


def measured(games: dict[str, Game], config: DepthConfig, streams: Streams) -> dict[str, Tensor]:
    """One value for each repeat of each arm, (n_models,) float64 on the CPU, and the norms themselves (n_models, L)."""
    values: dict[str, Tensor] = {}
    for name, game in games.items():
        arms = [PENALTY] if name == PENALTY else [arm_of(clip) for clip in config.clips]
        n_models, n = len(arms) * config.n_models, config.n_samples
        z = torch.randn(n_models, n, N_LATENT, generator=streams.at(f"{name} fresh latent"), device=streams.device)
        with torch.no_grad():
            points = torch.cat([draw(n_models, n, streams, f"{name} fresh"), game.generator(z)], 1)
        norms = gradient_norms(game.critic, points).cpu()
        found = {"norms": norms, "decades": decades(norms), "size": decades(norms).abs()}
        if game.bounds is not None:
            bounds = torch.tensor(config.clips, device=streams.device).repeat_interleave(config.n_models)
            start = clipped_start(config, streams)
            way = (weights_of(game.critic) - weights_of(start)).abs().mean(1) / bounds
            found |= {"piled": piled(game.critic, bounds), "piled_start": piled(start, bounds), "moved": way}
        for measure, each in found.items():
            for arm, part in zip(arms, each.double().cpu().unflatten(0, (len(arms), -1)), strict=True):
                values[f"{measure}_{arm}"] = part
    return values


UNITS = {"decades": "decades", "size": "decades", "piled": "share", "piled_start": "share", "moved": "c"}


def scores_of(found: dict[str, Tensor], config: DepthConfig) -> tuple[dict[str, Score], dict[str, Any]]:
    """Means over the repeats of an arm, and every repeat's value."""
    scores, facts = {}, {}
    for name, each in found.items():
        measure, _, arm = name.rpartition("_")
        facts[name] = each.tolist()
        if measure == "norms":
            continue
        protocol: dict[str, Any] = {
            "averaged_over": "models", "data": "swiss roll", "layers": config.n_layers, "width": config.width,
            "steps": config.n_steps, "n_critic": config.n_critic, "arm": arm, "first_layer": 1,
            "last_layer": config.n_layers, "points": 2 * config.n_samples, "piled_within": PILED,
        }  # fmt: skip
        scores[name] = mean_score(each, UNITS[measure], False, protocol)
    return scores, facts


def histogram(weights: Tensor) -> dict[str, Any]:
    """Counts of weights in BINS even bins from -reach to reach, a tenth more than the largest."""
    reach = 1.1 * weights.abs().max().item()
    return {"reach": reach, "counts": [int(count) for count in torch.histc(weights.cpu().float(), BINS, -reach, reach)]}


def histograms(games: dict[str, Game], config: DepthConfig) -> dict[str, Any]:
    """Of the weights of all repeats of each arm."""
    clipped = weights_of(games["clip"].critic).cpu().unflatten(0, (len(config.clips), -1))
    arms = dict(zip(arms_of(config), [*clipped, weights_of(games[PENALTY].critic).cpu()], strict=True))
    return {f"histogram_{arm}": histogram(weights) for arm, weights in arms.items()}
