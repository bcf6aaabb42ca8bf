"""Gulrajani et al. 2017, figure 1a: value surfaces of clipped and of penalised critics on toys of known density.

The generator is held at data + N(0, I). Axis 0 of every tensor is the critic: three data sets, set after set, and
config.n_models critics of each. The kinds "clip" and "penalty" start from the same weights. "even" is clipped too and
starts from weights spread evenly between the bounds, for figure 1b's right half: where does training take them, when
the first clip has not already put them there? All see the same points.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.datasets.mixtures import grid, ring, swiss_roll
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.models.flat import FlatParameters
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.wgan2017.config import SurfacesConfig
from replications.wgan2017.critic import clipped_step_, critics, estimates, penalised_step_
from replications.wgan2017.depth import LEAST, histogram, piled, weights_of

# Gulrajani 2017, code: all are divided by about their standard deviation.
RING, GRID, ROLL_SD, ROLL_SCALE = ring(8, 2 / 1.414, 0.02 / 1.414), grid(5, 2 / 2.828, 0.05 / 2.828), 0.25, 7.5
SETS, KINDS = ("ring", "grid", "roll"), ("clip", "penalty")
CLIPPED = ("clip", "even")
REACH, CELLS, DRAWN = 3.0, 64, 400  # the surfaces are drawn on (-3, 3)^2, as theirs
N_CURVE_POINTS, N_CURVE = 10, 1000
N_ROLL = 600  # points that stand for the roll's line in its density: 0.03 apart at most, less than its sd


def draw_data(name: str, shape: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Real points of one set, (*shape, 2), in the scaled coordinates of the authors' code."""
    if name == "roll":
        return swiss_roll(shape, ROLL_SD, rng) / ROLL_SCALE
    return {"ring": RING, "grid": GRID}[name].to(rng.device).sample(shape, rng)


def draw(n_models: int, n: int, streams: Streams, stream: str, step: int = 0) -> Tensor:
    """Real points of all critics, (3 n_models, n, 2)."""
    return torch.cat([draw_data(name, (n_models, n), streams.at(f"{name} {stream}", step)) for name in SETS])


def perturbed(real: Tensor, rng: torch.Generator) -> Tensor:
    """The fixed generator: each real point with unit noise on it. (R, n, 2).

    NOTE wgan2017-N32: the penalty looks between a real point and its own perturbed copy, as in the authors' code; the
    paper's algorithm 1 pairs independent points.
    """
    return real + torch.randn(real.shape, generator=rng, device=rng.device)


class Side(NamedTuple):
    """The critics of one kind on all sets, (R, n, 2) -> (R, n, 1), and what updates them."""

    network: nn.Sequential
    flat: FlatParameters
    optimizer: torch.optim.Optimizer


def build(config: SurfacesConfig, streams: Streams) -> dict[str, Side]:
    """The critics of each kind as they start."""
    sides: dict[str, Side] = {}
    for kind in (*KINDS, "even"):
        rng = generator(streams.seed, "critics")
        network = critics(len(SETS) * config.n_models, 2, config.width, config.n_layers, rng)
        if kind == "even":
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.uniform_(-config.clip, config.clip, generator=rng)
        flat = FlatParameters(network.to(streams.device))
        if kind in CLIPPED:
            optimizer: torch.optim.Optimizer = torch.optim.RMSprop([flat.vector], config.clip_rate)
        else:
            betas = (config.beta1, config.beta2)
            optimizer = torch.optim.Adam([flat.vector], config.penalty_rate, betas, fused=True)
        sides[kind] = Side(network, flat, with_state(optimizer))
    return sides


def train_step(sides: dict[str, Side], config: SurfacesConfig, streams: Streams, step: int) -> None:
    """One update of every critic, all on the same points."""
    real = draw(config.n_models, config.batch, streams, "real", step)
    fake = perturbed(real, streams.at("noise", step))
    share = torch.rand(*real.shape[:2], 1, generator=streams.at("segments", step), device=streams.device)
    # DEVIATION wgan2017-D31: the rates fall linearly to 0, so that a short training ends at rest.
    left = 1 - step / config.n_steps
    for kind, side in sides.items():
        side.optimizer.param_groups[0]["lr"] = left * (config.clip_rate if kind in CLIPPED else config.penalty_rate)
    for kind in CLIPPED:
        clipped_step_(*sides[kind], real, fake, config.clip)
    penalised_step_(*sides["penalty"], real, fake, share, config.penalty)


def surfaces(config: SurfacesConfig, workspace: Workspace) -> Outcome:
    """Train both kinds of critic on all sets; goes on from the workspace's checkpoint."""
    streams = workspace.streams
    sides = build(config, streams)
    parts: dict[str, Any] = {kind: side.network for kind, side in sides.items()}
    parts |= {f"{kind}_optimizer": side.optimizer for kind, side in sides.items()}
    state = workspace.resume_(**parts)
    due = {math.ceil(config.n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS)}
    for step in range(state["step"], config.n_steps):
        train_step(sides, config, streams, step)
        state["step"] = step + 1
        if step + 1 in due:
            row = curve_point(sides, config, streams)
            state["history"].append({"step": float(step + 1), **row})
            require_finite(sum(row.values()), "A critic's value", step + 1, state["history"])
        workspace.keep(state, config.n_steps, **parts)
    return _outcome(sides, config, streams, state["history"])


def fresh(config: SurfacesConfig, streams: Streams, n: int) -> tuple[Tensor, Tensor]:
    """Real points and fakes that no training saw, independent of one another: (R, n, 2) each."""
    real, base = (draw(config.n_models, n, streams, f"fresh {side}") for side in ("real", "base"))
    return real, perturbed(base, streams.at("fresh noise"))


@torch.no_grad()
def curve_point(sides: dict[str, Side], config: SurfacesConfig, streams: Streams) -> dict[str, float]:
    """AUC and estimate, means over the critics of a kind on a set; always on the same points."""
    real, fake = fresh(config, streams, N_CURVE)
    row: dict[str, float] = {}
    for kind in KINDS:
        side = sides[kind]
        found = {"auc": auc(side.network(real)[..., 0], side.network(fake)[..., 0]),
                 "estimate": estimates(side.network, real, fake)}  # fmt: skip
        for name, values in found.items():
            means = values.view(len(SETS), -1).mean(1).tolist()
            row |= {f"{name}_{kind}_{on}": mean for on, mean in zip(SETS, means, strict=True)}
    return row


def auc(of_real: Tensor, of_fake: Tensor) -> Tensor:
    """P(a real point's value > a fake's) + P(equal) / 2, each row by itself: (R, n), (R, m) -> (R,) float64 in 0 .. 1.

    1 where every real point has the higher value, 1/2 where the values tell nothing; the area under the ROC curve.
    """
    ordered, of_fake = of_real.contiguous().sort(-1).values, of_fake.contiguous()
    below = torch.searchsorted(ordered, of_fake).double() + torch.searchsorted(ordered, of_fake, right=True).double()
    return 1 - below.mean(-1) / (2 * of_real.shape[-1])


def log_ratio(name: str, points: Tensor) -> Tensor:
    """log p(x) - log q(x) of the set and of the set with unit noise, which ranks points best: (n, 2) -> (n,) float64.

    Both are mixtures of Gaussians about the same centres; the roll's line is replaced by N_ROLL of its points.
    """
    if name == "roll":
        t = 1.5 * math.pi * (1 + 2 * (torch.arange(N_ROLL, dtype=torch.float64) + 0.5) / N_ROLL)
        centres, sd = torch.stack([t * t.cos(), t * t.sin()], -1) / ROLL_SCALE, ROLL_SD / ROLL_SCALE
    else:
        mixture = {"ring": RING, "grid": GRID}[name]
        centres, sd = mixture.centres.double(), mixture.sd
    squares = torch.cdist(points.cpu().double(), centres).square()
    log_p, log_q = (torch.logsumexp(-squares / (2 * v), 1) - math.log(v) for v in (sd**2, sd**2 + 1))
    return log_p - log_q


def best_values(points: Tensor) -> Tensor:
    """log_ratio of every critic's points, each by its own set: (R, n, 2) -> (R, n)."""
    parts = zip(SETS, points.chunk(len(SETS)), strict=True)
    return torch.stack([log_ratio(name, each) for name, part in parts for each in part])


def slopes(network: nn.Module, points: Tensor) -> Tensor:
    """Mean of |grad f| over each critic's points (R, n, 2) -> (R,)."""
    points = points.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(points).sum(), points)
    return torch.linalg.vector_norm(slope, dim=-1).mean(1)


def quadratic_shares(values: Tensor, points: Tensor) -> Tensor:
    """Share of the variance of f that a quadratic in (x1, x2) explains, least squares: (R, n), (R, n, 2) -> (R,).

    1 where f is a quadratic. In float64 on the CPU.
    """
    x, y = points.cpu().double().unbind(-1)
    features = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], -1)
    f = values.cpu().double().unsqueeze(-1)
    f = f - f.mean(1, keepdim=True)
    left = f - features @ torch.linalg.lstsq(features, f).solution
    return 1 - left.square().mean((1, 2)) / f.square().mean((1, 2)).clamp_min(LEAST)  # a constant is a quadratic too


def _outcome(
    sides: dict[str, Side], config: SurfacesConfig, streams: Streams, history: list[dict[str, float]]
) -> Outcome:
    real, fake = fresh(config, streams, config.n_samples)
    share = torch.rand(*real.shape[:2], 1, generator=streams.at("fresh segments"), device=streams.device)
    between = torch.lerp(perturbed(real, streams.at("fresh pairs")), real, share)
    values: dict[str, Tensor] = {}
    for kind in KINDS:
        side = sides[kind]
        with torch.no_grad():
            of_real, of_fake = side.network(real)[..., 0], side.network(fake)[..., 0]
            values[f"estimate_{kind}"] = estimates(side.network, real, fake)
        values[f"auc_{kind}"] = auc(of_real, of_fake)
        values[f"slope_{kind}"] = slopes(side.network, between)
        everywhere = torch.cat([of_real, of_fake], 1), torch.cat([real, fake], 1)
        values[f"quadratic_{kind}"] = quadratic_shares(*everywhere)
    values["auc_optimal"] = auc(best_values(real), best_values(fake))
    values |= shares_at_bounds(sides, config, streams)
    scores, facts = scores_of(values, config)
    for kind, side in sides.items():
        facts[f"histogram_{kind}_roll"] = histogram(weights_of(side.network)[-config.n_models :])
    drawn = {"surface": surface(sides, config), "real": real[:: config.n_models, :DRAWN].float(),
             "fake": fake[:: config.n_models, :DRAWN].float()}  # fmt: skip
    return Outcome(scores, history, drawn, facts=facts)


def shares_at_bounds(sides: dict[str, Side], config: SurfacesConfig, streams: Streams) -> dict[str, Tensor]:
    """Share of weights at +-c of each kind that is clipped, and before the first step at +-c or beyond: (R,) each.

    What lies beyond is what the first clip puts at a bound.
    """
    start, values = build(config, streams), {}
    bounds = torch.full((len(SETS) * config.n_models,), config.clip, device=streams.device)
    for kind in CLIPPED:
        values[f"piled_{kind}"] = piled(sides[kind].network, bounds)
        values[f"piled_{kind}_start"] = piled(start[kind].network, bounds)
    return values


@torch.no_grad()
def surface(sides: dict[str, Side], config: SurfacesConfig) -> Tensor:
    """Values of each kind's first critic on each set, (kinds, sets, CELLS, CELLS); the third index is x1."""
    parameter = sides["clip"].flat.vector
    axis = torch.linspace(-REACH, REACH, CELLS, device=parameter.device)
    points = torch.cartesian_prod(axis, axis).expand(len(SETS) * config.n_models, -1, -1)
    every = torch.stack([sides[kind].network(points)[..., 0] for kind in KINDS])
    return every[:, :: config.n_models].unflatten(-1, (CELLS, CELLS)).clone()


UNITS = {
    "estimate": "of the critic", "auc": "", "slope": "per unit length", "quadratic": "share of variance",
    "piled": "share of weights",
}  # fmt: skip


def scores_of(values: dict[str, Tensor], config: SurfacesConfig) -> tuple[dict[str, Score], dict[str, Any]]:
    """Means over the critics of a kind on a set, and every critic's value."""
    scores, facts = {}, {}
    for name, every in values.items():
        measure, _, kind = name.partition("_")
        for on, each in zip(SETS, every.double().cpu().view(len(SETS), -1), strict=True):
            protocol: dict[str, Any] = {
                "averaged_over": "models", "data": on, "fake": "data + N(0, I)", "samples": config.n_samples,
            }  # fmt: skip
            if kind != "optimal":
                protocol |= {"kind": kind, "steps": config.n_steps, "width": config.width, "layers": config.n_layers}
                protocol |= {"penalty": config.penalty} if kind == "penalty" else {"clip": config.clip}
            key = f"{name}_{on}"
            scores[key] = mean_score(each, UNITS[measure], measure not in ("quadratic", "piled"), protocol)
            facts[key] = each.tolist()
    return scores, facts
