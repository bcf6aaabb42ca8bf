"""Trained critics against the exact W: shifted Gaussians, parallel lines and clouds in the plane, all side by side.

L laws, M repeats, R = L M models; model l M + r is repeat r of law l. Every repeat starts from the same weights at each
law, so that its ratios estimate / W differ by the law alone.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.datasets.mixtures import swiss_roll
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.models.flat import FlatParameters
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.wgan2017.config import CalibrationConfig
from replications.wgan2017.critic import clipped_step_, critics, estimates, lipschitz_bounds, penalised_step_

GAUSSIANS, LINES = (0.25, 0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 1.0, 2.0)  # the shifts m and theta, which are the W
CLOUDS = ("ring", "blobs", "roll")
FAMILIES = {"gaussians": slice(0, 5), "lines": slice(5, 9), "clouds": slice(9, 12)}
NAMES = (
    *(f"gaussian_m{shift:g}".replace(".", "p") for shift in GAUSSIANS),
    *(f"line_t{shift:g}".replace(".", "p") for shift in LINES),
    *(f"cloud_{name}" for name in CLOUDS),
)
N_CURVE_POINTS, TILES, CURVE_TILES, GRID, BOUND = 20, 32, 4, 61, 3.0
NOTHING = 1e-30  # stands for an estimate of 0, of a critic whose units are all off, where 0 has no logarithm or inverse


class Laws(NamedTuple):
    """shift: (R of the Gaussians and lines, 1, 2), fake = real + shift; clouds: (2, 3, n, 2), real and fake points."""

    shift: Tensor
    clouds: Tensor
    matching: Tensor  # (3, n): the fake point that goes with each real point in the exact plan
    truth: Tensor  # (L,) float64: W


def clouds(n: int, rng: torch.Generator) -> Tensor:
    """A blob and a ring, two blobs and the same moved apart, a swiss roll and a blob: (2, 3, n, 2), real then fake."""
    noise = 0.3 * torch.randn(5, n, 2, generator=rng, device=rng.device)
    angle = 2 * math.pi * torch.rand(n, generator=rng, device=rng.device)
    ring = 2 * torch.stack([angle.cos(), angle.sin()], 1) + noise[1] / 3
    side = torch.where(torch.arange(n, device=rng.device) % 2 == 0, -1.0, 1.0)
    apart, moved = (torch.stack([1.5 * side, up * side], 1) for up in (0.0, 1.5))
    roll = swiss_roll((n,), 0.3, rng) / 7
    return torch.stack(
        [torch.stack([noise[0], apart + noise[2], roll]), torch.stack([ring, moved + noise[3], noise[4]])]
    )


def matched(real: Tensor, fake: Tensor) -> tuple[float, Tensor]:
    """W between the empirical measures of (n, d) and (n, d), Euclidean, and the fake point of each real one (n,)."""
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(real.double().cpu(), fake.double().cpu())
    rows, columns = linear_sum_assignment(cost.numpy())
    return cost[rows, columns].mean().item(), torch.as_tensor(columns)


# NOTE wgan2017-N25: clipped weights and biases of one size bend a network at distance 1 from the origin.
# NOTE wgan2017-N26: pilots whose ratios were looked at chose width, rates and numbers of steps.
def laws(config: CalibrationConfig, streams: Streams) -> Laws:
    """What real and fake are, and how far apart; the clouds are drawn once a run from (seed, "clouds")."""
    drawn = clouds(config.batch, streams.at("clouds"))
    plans = [matched(real, fake) for real, fake in zip(*drawn, strict=True)]
    along = torch.tensor(GAUSSIANS + LINES, device=streams.device).repeat_interleave(config.n_models)
    shift = torch.stack([along, torch.zeros_like(along)], 1).unsqueeze(1)
    truth = torch.tensor([*GAUSSIANS, *LINES, *(plan[0] for plan in plans)], dtype=torch.float64)
    return Laws(shift, drawn, torch.stack([plan[1] for plan in plans]), truth)


def draw(
    config: CalibrationConfig, laws: Laws, rng: torch.Generator, tiles: int = 1, paired: bool = False
) -> tuple[Tensor, Tensor]:
    """Real and fake points of every model, (R, batch tiles, 2) each; clouds come whole, `tiles` times, in random order.

    paired: the fakes of Gaussians and lines are the real points, moved. The mean of f(real) - f(fake) is the same and
    its noise far smaller; estimates are measured so, and trained on without (NOTE wgan2017-N23).
    """
    n, m, device = config.batch * tiles, config.n_models, rng.device
    sides = 1 if paired else 2
    gaussian = torch.randn(sides, len(GAUSSIANS) * m, n, 2, generator=rng, device=device)
    line = torch.rand(sides, len(LINES) * m, n, 2, generator=rng, device=device)
    line[..., 0] = 0
    free = torch.cat([gaussian, line], 1)
    # In random order, for the penalty's segments run between real point i and fake point i.
    order = torch.rand(2, len(CLOUDS) * m, config.batch, generator=rng, device=device).argsort(-1)
    cloud = laws.clouds.repeat_interleave(m, 1).gather(2, order.unsqueeze(-1).expand(-1, -1, -1, 2))
    cloud = cloud.repeat(1, 1, tiles, 1)
    return torch.cat([free[0], cloud[0]]), torch.cat([free[-1] + laws.shift, cloud[1]])


@torch.no_grad()
def build(config: CalibrationConfig, streams: Streams) -> nn.Sequential:
    """The critics as they start: weights from (seed, "critic"), the same M at every law (NOTE wgan2017-N23)."""
    n_laws = len(NAMES)
    critic = critics(n_laws * config.n_models, 2, config.width, config.n_layers, generator(streams.seed, "critic"))
    for parameter in critic.parameters():
        parameter.copy_(parameter[: config.n_models].repeat(n_laws, 1, 1))
    return critic.to(streams.device)


def optimizer_of(config: CalibrationConfig, flat: FlatParameters) -> torch.optim.Optimizer:
    # DEVIATION wgan2017-D20: the presets' rate is clip / 200, as Algorithm 1 has it at its own clip, so that every clip
    # is crossed in as many steps.
    if config.kind == "clip":
        return with_state(torch.optim.RMSprop([flat.vector], config.learning_rate))
    return with_state(torch.optim.Adam([flat.vector], config.learning_rate, (0.0, 0.9), fused=True))


def learning_rate(config: CalibrationConfig, step: int) -> float:
    """The rate of critic step number `step`, counted from 0."""
    # DEVIATION wgan2017-D21: with a penalty it starts higher than Gulrajani's 1e-4 and falls linearly to 0, so that the
    # critic ends at its optimum.
    return config.learning_rate * (1 - step / config.n_steps if config.kind == "penalty" else 1)


def calibration(config: CalibrationConfig, workspace: Workspace) -> Outcome:
    """Train one kind of critic on every law and hold its estimates against W; goes on from the checkpoint."""
    streams = workspace.streams
    known, critic = laws(config, streams), build(config, streams)
    flat = FlatParameters(critic)
    optimizer = optimizer_of(config, flat)
    state = workspace.resume_(critic=critic, optimizer=optimizer)
    history, every = state["history"], math.ceil(config.n_steps / N_CURVE_POINTS)
    for step in range(state["step"], config.n_steps):
        optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        real, fake = draw(config, known, streams.at("points", step))
        if config.kind == "clip":
            clipped_step_(critic, flat, optimizer, real, fake, config.clip)
        else:
            share = torch.rand(*real.shape[:2], 1, generator=streams.at("segments", step), device=streams.device)
            penalised_step_(critic, flat, optimizer, real, fake, share, config.penalty)
        state["step"] = step + 1
        if (step + 1) % every == 0 or step + 1 == config.n_steps:
            now = ratios(config, critic, known, streams.at("curve"), CURVE_TILES).mean(1).tolist()
            history.append({"step": step + 1, **dict(zip(NAMES, now, strict=True))})
            require_finite(sum(now), "The sum of the critics' estimates", step + 1, history)
        workspace.keep(state, config.n_steps, critic=critic, optimizer=optimizer)
    found = ratios(config, critic, known, streams.at("evaluation"), TILES)
    scores = scores_of(config, known, found, lipschitz_bounds(critic).view_as(found), history)
    weights = {"clouds": known.clouds, "matching": known.matching, "surfaces": surfaces(config, critic)}
    facts = {"ratios": {name: row.tolist() for name, row in zip(NAMES, found, strict=True)},
             "parameters": flat.vector.numel() // len(found.flatten())}  # fmt: skip
    return Outcome(scores, history, weights, facts=facts)


@torch.no_grad()
def ratios(config: CalibrationConfig, critic: nn.Module, laws: Laws, rng: torch.Generator, tiles: int) -> Tensor:
    """Estimate / W on points that no step saw (clouds: on all their points), (L, M) float64 on the CPU."""
    found = estimates(critic, *draw(config, laws, rng, tiles, paired=True))
    return found.double().cpu().view(len(NAMES), -1) / laws.truth.unsqueeze(1)


@torch.no_grad()
def surfaces(config: CalibrationConfig, critic: nn.Module) -> Tensor:
    """The first repeat's values over each cloud, on a grid of the square of half-side BOUND: (3, GRID, GRID)."""
    device = next(critic.parameters()).device
    axis = torch.linspace(-BOUND, BOUND, GRID, device=device)
    n_models = len(NAMES) * config.n_models
    values = critic(torch.cartesian_prod(axis, axis).expand(n_models, -1, -1))  # (R, GRID^2, 1)
    first = values.view(len(NAMES), config.n_models, GRID, GRID)[FAMILIES["clouds"], 0]
    return first.contiguous()


def scores_of(
    config: CalibrationConfig, laws: Laws, found: Tensor, bounds: Tensor, history: list[dict[str, float]]
) -> dict[str, Score]:
    """Ratios (L, M) by law and family, their spread over shifts, and what the bounds K (L, M) allow."""
    protocol = protocol_of(config)
    repeats: dict[str, Tensor] = {f"ratio_{name}": row for name, row in zip(NAMES, found, strict=True)}
    for family, part in FAMILIES.items():
        repeats[f"ratio_{family}"] = found[part].mean(0)
        repeats[f"spread_{family}"] = found[part].std(0) / found[part].mean(0)
    repeats["decades_gaussians"] = repeats["ratio_gaussians"].clamp_min(NOTHING).log10()
    if config.kind == "penalty":
        # NOTE wgan2017-N21: with a penalty the best slope between two lines is 1 + theta / (2 lambda), not 1.
        theta = laws.truth[FAMILIES["lines"]].unsqueeze(1)
        repeats["excess_lines"] = ((found[FAMILIES["lines"]] - 1) * theta).sum(0) / theta.square().sum()
    repeats["lipschitz_bound"] = bounds.mean(0)
    repeats["over_bound"] = (found / bounds).mean(0)
    scores = {name: mean_score(each, _unit(name), _higher(name), protocol) for name, each in repeats.items()}
    one = {key: value for key, value in protocol.items() if key != "averaged_over"}
    scores["largest_over_bound"] = Score((found / bounds).max().item(), math.nan, "", False, found.numel(), one)
    scores["drift"] = Score(drift(history), math.nan, "", False, len(NAMES), one)
    for name, value in zip(NAMES, laws.truth.tolist(), strict=True):
        if name.startswith("cloud"):
            scores[f"exact_{name}"] = Score(value, math.nan, "length", False, config.batch, {"cost": "Euclidean"})
    return scores


def protocol_of(config: CalibrationConfig) -> dict[str, Any]:
    bound = {"clip": config.clip} if config.kind == "clip" else {"penalty": config.penalty}
    return {
        "averaged_over": "models", "kind": config.kind, **bound, "steps": config.n_steps,
        "learning_rate": config.learning_rate, "width": config.width, "hidden_layers": config.n_layers,
        "batch": config.batch, "evaluation_points": config.batch * TILES, "fakes": "the real points, moved",
    }  # fmt: skip


def drift(history: list[dict[str, float]]) -> float:
    """Largest relative change of a law's mean ratio over the last quarter of the training."""
    last = history[-1]
    before = max((row for row in history if row["step"] <= 0.75 * last["step"]), key=lambda row: row["step"])
    return max(abs(last[name] - before[name]) / max(abs(last[name]), NOTHING) for name in NAMES)


def _unit(name: str) -> str:
    return {"decades": "log10", "lipschitz": "slope", "excess": "1/length"}.get(name.partition("_")[0], "")


def _higher(name: str) -> bool:
    return not name.startswith(("spread", "lipschitz", "excess"))
