"""Why the cycle is not enough either: two mixtures of labelled modes in the plane, translated without pairs.

A is a ring of modes; B has as many, on a ring turned by a third of a step, on a grid, or in two groups. The intended
pairing is mode k of A with mode k of B, both counted anticlockwise. Unpaired draws cannot tell it from any other: turn
A's ring by any number of modes, and all that training sees is the same.

R models side by side: axis 0 holds the R translators G: A -> B and then the R translators F: B -> A, so one batched
product moves both ways at once; the discriminators D_B and D_A likewise. No value crosses axis 0 but where a
translation is handed to the other half, by `other_half`.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.datasets.mixtures import GaussianMixture, ring
from lib.execution.workspace import Outcome, Workspace
from lib.losses.adversarial import least_squares_loss
from lib.models.batched import BatchedLinear
from lib.models.flat import FlatParameters
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.cyclegan2017.config import MixturesConfig

N_MODES = 8  # of A and of B
SD = 0.05  # of a mode; A's ring has radius 1
TURN_DEGREES = 15.0  # of B's ring: mode k of B is 15 degrees from mode k of A, where the next is 30 degrees away
N_CURVE_POINTS = 10
LEAK = 0.2  # appendix, network architectures: of the discriminators' LeakyReLU


class Player(NamedTuple):
    """2R networks of one kind, their parameters as one vector, and what updates it."""

    network: nn.Sequential
    flat: FlatParameters
    optimizer: torch.optim.Optimizer


class Game(NamedTuple):
    """The two sides: points (2R, B, 2) to points, and points to values (2R, B, 1)."""

    translators: Player
    discriminators: Player


class Measures(NamedTuple):
    """One number a model, (R,) float64 each; see `measures`."""

    pairing: Tensor
    modes_hit: Tensor
    bijection: Tensor
    consistency: Tensor
    information: Tensor
    on_modes: Tensor
    cycle_error: Tensor
    moved: Tensor
    cycle_share: Tensor


UNITS = {  # of each measure, and whether more is better
    "pairing": ("share", True), "modes_hit": ("modes", True), "bijection": ("share", True),
    "consistency": ("share", True), "information": ("nats", True), "on_modes": ("share", True),
    "cycle_error": ("distance", False), "moved": ("distance", False), "cycle_share": ("share", False),
}  # fmt: skip


def domains(target: str) -> tuple[GaussianMixture, GaussianMixture]:
    """A and B, whose modes lie as `target` names it; mode k is number k of both. Raises ValueError."""
    a, quarter = ring(N_MODES, 1.0, SD), ring(N_MODES // 2, 0.3, SD).centres
    turn = _turn(TURN_DEGREES)
    match target:
        case "ring":
            centres = a.centres @ turn
        case "grid":
            centres = torch.cartesian_prod(torch.tensor([-1.5, -0.5, 0.5, 1.5]), torch.tensor([-0.5, 0.5]))
        case "groups":
            shift = torch.tensor([0.8, 0.0])
            centres = torch.cat([quarter @ turn - shift, quarter @ turn + shift])
        case _:
            raise ValueError(f"the target is {target!r}: there are ring, grid and groups")
    anticlockwise = (torch.atan2(centres[:, 1], centres[:, 0]) % (2 * math.pi)).argsort()
    return a, GaussianMixture(centres[anticlockwise], SD)


def _turn(degrees: float) -> Tensor:
    """What turns rows (n, 2) anticlockwise when multiplied from the right."""
    angle = math.radians(degrees)
    return torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def build(config: MixturesConfig, streams: Streams) -> Game:
    """The game as it starts, with PyTorch's own uniform weights."""
    # DEVIATION cyclegan2017-D40: multilayer perceptrons, for there is no image to convolve; no instance norm.
    rng = generator(streams.seed, "init")
    translators = _layers(config, 2, nn.ReLU(), rng)
    discriminators = _layers(config, 1, nn.LeakyReLU(LEAK), rng)
    return Game(*(_player(network.to(streams.device), config) for network in (translators, discriminators)))


def _layers(config: MixturesConfig, n_out: int, activation: nn.Module, rng: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in in [2, *(config.n_layers - 1) * [config.width]]:
        layers += [BatchedLinear(2 * config.n_models, n_in, config.width, rng), activation]
    return nn.Sequential(*layers, BatchedLinear(2 * config.n_models, config.width, n_out, rng))


def _player(network: nn.Sequential, config: MixturesConfig) -> Player:
    flat = FlatParameters(network)
    betas = config.beta1, config.beta2
    return Player(network, flat, with_state(torch.optim.Adam([flat.vector], config.learning_rate, betas, fused=True)))


def other_half(x: Tensor) -> Tensor:
    """What belongs to G in F's place and the other way round, model by model: (2R, ...) -> (2R, ...)."""
    return x.roll(len(x) // 2, 0)


def translators_step(game: Game, ab: Tensor, config: MixturesConfig) -> Tensor:
    """One update of G and F, section 3; ab: (2R, B, 2), points of A for the Gs above points of B for the Fs.

    Returns the translations before the update, (2R, B, 2): G(a) above F(b), without gradient.
    """
    translate = game.translators.network
    fake = translate(ab)  # (2R, B, 2): G(a) above F(b)
    loss = fake.new_zeros(())
    if config.adversarial:
        # Equation 1 with section 4's least squares: D_B(G(a)) and D_A(F(b)) towards 1.
        loss = loss + config.adversarial * least_squares_loss(game.discriminators.network(fake), 1)
    if config.cycle_a or config.cycle_b:
        # NOTE cyclegan2017-N40: the mean over coordinates of equation 2's L1 norm, as the authors' code has it.
        back = translate(other_half(fake))  # (2R, B, 2): G(F(b)) above F(G(a))
        error = (back - other_half(ab)).abs().mean((1, 2))  # (2R,)
        weights = error.new_tensor([config.cycle_b, config.cycle_a]).repeat_interleave(len(ab) // 2)
        loss = loss + (weights * error).mean()
    if config.identity:
        target = other_half(ab)  # section 5.2: |G(b) - b| above |F(a) - a|
        loss = loss + config.identity * (translate(target) - target).abs().mean()
    # Means over models too, of which a model alone would have 2R times its share.
    game.translators.flat.take_gradient(len(ab) * loss)
    game.translators.optimizer.step()
    return fake.detach()


def discriminators_step(game: Game, ba: Tensor, fake: Tensor) -> None:
    """One update of D_B and D_A by section 4's least squares, halved; ba, fake: (2R, B, 2), of B above of A."""
    # DEVIATION cyclegan2017-D41: the newest translations, without the pool of 50; a batch holds more than the pool.
    of_real, of_fake = game.discriminators.network(torch.cat([ba, fake], 1)).chunk(2, 1)
    loss = 0.5 * (least_squares_loss(of_real, 1) + least_squares_loss(of_fake, 0))
    game.discriminators.flat.take_gradient(len(ba) * loss)
    game.discriminators.optimizer.step()


def learning_rate(config: MixturesConfig, step: int) -> float:
    """Constant and then linear to 0, section 4, at update number `step`, counted from 0."""
    done = step / config.n_steps
    return config.learning_rate * min(1.0, (1 - done) / (1 - config.decay_from))


def mixtures(config: MixturesConfig, workspace: Workspace) -> Outcome:
    """Train config.n_models models side by side and measure their maps; goes on from the workspace's checkpoint."""
    streams, device = workspace.streams, workspace.device
    a, b = (each.to(device) for each in domains(config.target))
    game = build(config, streams)
    parts: dict[str, Any] = {
        "translators": game.translators.network, "translators_optimizer": game.translators.optimizer,
        "discriminators": game.discriminators.network, "discriminators_optimizer": game.discriminators.optimizer,
    }  # fmt: skip
    state = workspace.resume_(**parts)
    due, shape = set(evaluation_steps(config.n_steps)), (config.n_models, config.batch)
    for step in range(state["step"], config.n_steps):
        for player in game:
            player.optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        # Two streams: a point of A says nothing about the point of B beside it.
        ab = torch.cat([a.sample(shape, streams.at("a", step)), b.sample(shape, streams.at("b", step))])
        fake = translators_step(game, ab, config)
        if config.adversarial:
            discriminators_step(game, other_half(ab), fake)
        state["step"] = step + 1
        if step + 1 in due:
            found = evaluated(game, config, streams.at("evaluation", step + 1))[0]
            state["history"].append({"step": step + 1, **curve_point(found)})
        workspace.keep(state, config.n_steps, **parts)
    found, points, mapped = evaluated(game, config, streams.at("evaluation", config.n_steps))
    counts = {name: len(player.flat.vector) // (2 * config.n_models) for name, player in game._asdict().items()}
    facts = {"parameters": counts, **{name: values.tolist() for name, values in found._asdict().items()}}
    kept = {"points": points.half(), "mapped": mapped.half()}
    return Outcome(scores(found, config), state["history"], kept, facts=facts)


def fresh_points(mixture: GaussianMixture, n: int, rng: torch.Generator) -> Tensor:
    """n draws of each mode, those of a mode next to each other: (K n, 2)."""
    centres = mixture.centres.repeat_interleave(n, 0)
    return centres + mixture.sd * torch.randn(centres.shape, generator=rng, device=rng.device)


@torch.no_grad()
def evaluated(game: Game, config: MixturesConfig, rng: torch.Generator) -> tuple[Measures, Tensor, Tensor]:
    """The measures of G, the points of A that they rest on, (K n, 2), and where each model maps them, (R, K n, 2)."""
    a, b = (each.to(rng.device) for each in domains(config.target))
    points = fresh_points(a, config.n_points, rng)
    both = points.expand(2 * config.n_models, -1, -1)
    mapped = game.translators.network(both)[: config.n_models]  # (R, K n, 2): G(a)
    back = game.translators.network(other_half(torch.cat([mapped, mapped])))[config.n_models :]  # (R, K n, 2): F(G(a))
    return measures(points, mapped, back, b), points, mapped


def measures(points: Tensor, mapped: Tensor, back: Tensor, target: GaussianMixture) -> Measures:
    """What a map of labelled points does to the modes; a point lands in the mode of B whose centre is nearest.

    points: (K n, 2), n of each of the K modes of A in order; mapped, back: (R, K n, 2), G(a) and F(G(a)).
    pairing: share of points that land in the mode of their own number, 0 .. 1; 1/K by chance.
    modes_hit: distinct modes of B that are the one most points of some mode of A land in, 1 .. K.
    bijection: 1 where modes_hit is K, else 0. consistency: share of points that land with most of their mode, 1/K .. 1.
    information: mutual information of the two mode numbers in nats, 0 .. log K, from their joint histogram; about
    (K - 1)^2 / (2 K n) too high where it is small. on_modes: share of G(a) within 3 sd of a centre; of draws of B
    1 - exp(-9/2). cycle_error, moved: mean Euclidean distances of F(G(a)) and of G(a) from a, and cycle_share the
    first divided by the second.
    """
    k, n_models = len(target.centres), len(mapped)
    near = torch.cdist(mapped.double(), target.centres.double().expand(n_models, -1, -1)).min(-1)  # (R, K n)
    joint = nn.functional.one_hot(near.indices, k).double().unflatten(1, (k, -1)).mean(2) / k  # (R, K, K), sums to 1
    own = joint.diagonal(dim1=1, dim2=2).sum(1)
    most = joint.max(2)
    hit = nn.functional.one_hot(most.indices, k).amax(1).sum(1).double()
    of_target = joint.sum(1, keepdim=True)
    information = (torch.xlogy(joint, joint) - torch.xlogy(joint, of_target / k)).sum((1, 2)).clamp_min(0)
    error, moved = ((each.double() - points.double()).norm(dim=-1).mean(1) for each in (back, mapped))
    on_modes = (near.values < 3 * target.sd).double().mean(1)
    found = (own, hit, (hit == k).double(), most.values.sum(1), information, on_modes, error, moved, error / moved)
    return Measures(*(each.cpu() for each in found))


def evaluation_steps(n_steps: int) -> list[int]:
    """Ten steps evenly along the training, the last one included; fewer where there are fewer steps."""
    return sorted({math.ceil(n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS)})


def curve_point(found: Measures) -> dict[str, float]:
    """Mean over models of every measure."""
    return {name: values.mean().item() for name, values in found._asdict().items()}


def scores(found: Measures, config: MixturesConfig) -> dict[str, Score]:
    """Means over models with their standard errors."""
    protocol: dict[str, Any] = {
        "averaged_over": "models", "target": config.target, "modes": N_MODES, "sd": SD,
        "adversarial": config.adversarial, "cycle_a": config.cycle_a, "cycle_b": config.cycle_b,
        "identity": config.identity, "steps": config.n_steps, "batch": config.batch,
        "points": N_MODES * config.n_points, "lands_in": "nearest centre", "within_sd": 3,
    }  # fmt: skip
    return {
        name: mean_score(values, UNITS[name][0], UNITS[name][1], protocol) for name, values in found._asdict().items()
    }
