"""Section 6's "Helvetica scenario": G trained on while D stays as it is sends too many z to the same x.

Ten small GANs at once play Algorithm 1 on a ring of overlapping Gaussians. Then each goes on twice from the same state:
once with D frozen, once (the control) as before; both see the same noise.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.adversarial import discriminator_loss, nonsaturating_loss
from lib.metrics import mode_coverage
from lib.models.batched import BatchedLinear
from lib.results import Score, mean_score
from lib.training.checkpoints import restore_, training_tensors
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.gan2014.config import HelveticaConfig

CURVE_EVERY, CURVE_SAMPLES, GRID, CELL, DRAWN = 25, 256, 81, 0.1, 400


class Game(NamedTuple):
    """Generators and discriminators of n_models games with their optimisers. Points are (R, B, 2)."""

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer


class Bounded(nn.Module):
    """x -> bound tanh(x)."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return self.bound * torch.tanh(x)


def build(config: HelveticaConfig, seed: int, device: torch.device | str) -> Game:
    """The games as they start: weights from (seed, "generator") and (seed, "discriminator"), Adam's moments at zero."""
    # NOTE gan2014-N21: the outputs are bounded, as pixels are. Over the whole plane the frozen logit of a ReLU network
    # has no maximum: it grows along some ray without end, and its generator runs off along it.
    decoder = nn.Sequential(*_layers(config, config.n_latent, 2, generator(seed, "generator")), Bounded(config.bound))
    classifier = nn.Sequential(*_layers(config, 2, 1, generator(seed, "discriminator")))
    networks = decoder.to(device), classifier.to(device)
    return Game(*networks, *(_adam(network, config) for network in networks))


def _layers(config: HelveticaConfig, n_in: int, n_out: int, drawn: torch.Generator) -> list[nn.Module]:
    r, h = config.n_models, config.width
    return [BatchedLinear(r, n_in, h, drawn), nn.ReLU(), BatchedLinear(r, h, h, drawn), nn.ReLU(),
            BatchedLinear(r, h, n_out, drawn)]  # fmt: skip


def _adam(network: nn.Module, config: HelveticaConfig) -> torch.optim.Adam:
    betas = (config.beta1, 0.999)
    return with_state(torch.optim.Adam(network.parameters(), config.learning_rate, betas, fused=True))


def ring(n_modes: int) -> Tensor:
    """Centres on the unit circle, the first at (1, 0): (n_modes, 2)."""
    angle = 2 * math.pi * torch.arange(n_modes) / n_modes
    return torch.stack([angle.cos(), angle.sin()], 1)


def draw_data(config: HelveticaConfig, centres: Tensor, streams: Streams, step: int) -> Tensor:
    """A minibatch for each model, from the equal mixture of N(centre, mode_sd^2 I): (R, B, 2)."""
    shape, device = (config.n_models, config.batch), streams.device
    mode = torch.randint(config.n_modes, shape, generator=streams.at("modes", step), device=device)
    noise = torch.randn(*shape, 2, generator=streams.at("data", step), device=device)
    return centres.index_select(0, mode.flatten()).view(*shape, 2) + config.mode_sd * noise


def discriminator_step(game: Game, real: Tensor, z: Tensor) -> None:
    """One ascent of D on V(D, G); real (R, B, 2), z (R, B, Z). The sum over models keeps their gradients apart."""
    with torch.no_grad():
        fake = game.generator(z)
    logits = game.discriminator(torch.cat([real, fake], 1))
    loss = len(z) * discriminator_loss(*logits.split(z.shape[1], 1))
    _update(game.discriminator, game.discriminator_optimizer, loss)


def generator_step(game: Game, z: Tensor) -> None:
    """One step of G, up log D(G(z)); D is not touched. z: (R, B, Z)."""
    loss = len(z) * nonsaturating_loss(game.discriminator(game.generator(z)))
    _update(game.generator, game.generator_optimizer, loss)


def _update(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


def helvetica(config: HelveticaConfig, workspace: Workspace) -> Outcome:
    """Train, freeze, train on; goes on from the workspace's checkpoint."""
    streams, device = workspace.streams, workspace.device
    centres = ring(config.n_modes).to(device)
    control, frozen = (build(config, streams.seed, device) for _ in range(2))
    before = build(config, streams.seed, device).generator  # the generators at the freeze, for the comparison
    parts = {**_parts("control", control), **_parts("frozen", frozen), "before": before}
    state = workspace.resume_(**parts)
    history, total = state["history"], config.n_steps + config.n_frozen_steps
    for step in range(state["step"], total):
        if step == config.n_steps:
            restore_(_tensors(frozen), _tensors(control))
            before.load_state_dict(control.generator.state_dict())
        shape = (2, config.n_models, config.batch, config.n_latent)
        z = torch.randn(shape, generator=streams.at("noise", step), device=device)
        discriminator_step(control, draw_data(config, centres, streams, step), z[0])
        generator_step(control, z[1])
        if step >= config.n_steps:
            generator_step(frozen, z[1])
        state["step"] = step + 1
        if (step + 1) % CURVE_EVERY == 0 or step + 1 == total:
            history.append(_curve_point(config, control, frozen, streams, step + 1))
            require_finite(sum(history[-1].values()), "The sum of the generators' spreads", step + 1, history)
        workspace.keep(state, total, **parts)
    generators = {"before": before, "frozen": frozen.generator, "control": control.generator}
    scores, facts, weights = evaluate(config, generators, frozen.discriminator, streams)
    return Outcome(scores, history, weights, facts=facts)


def _parts(name: str, game: Game) -> dict[str, Any]:
    return {f"{name}_{field}": part for field, part in game._asdict().items()}


def _tensors(game: Game) -> dict[str, Tensor]:
    return training_tensors(**game._asdict())


@torch.no_grad()
def _curve_point(config: HelveticaConfig, control: Game, frozen: Game, streams: Streams, step: int) -> dict[str, float]:
    """Spread of each model in each arm; before the freeze there is one arm, shown as both."""
    z = _noise(config, CURVE_SAMPLES, streams, "curve noise")
    row = {"step": float(step)}
    for name, game in (("frozen", frozen if step > config.n_steps else control), ("control", control)):
        values = spread(game.generator(z)).tolist()
        row |= {f"{name}_{model}": value for model, value in enumerate(values)}
    return row


def _noise(config: HelveticaConfig, n: int, streams: Streams, stream: str) -> Tensor:
    shape = (config.n_models, n, config.n_latent)
    return torch.randn(shape, generator=streams.at(stream), device=streams.device)


def spread(x: Tensor) -> Tensor:
    """Root of the total variance of each model's points, (R, N, 2) -> (R,); 0 where all z go to the same x."""
    return x.var(1).sum(-1).sqrt()


def distinct(x: Tensor, bound: float) -> Tensor:
    """Cells of side CELL that hold a point, (R, N, 2) in (-bound, bound) -> (R,): 1 .. N, 1 where all z go together."""
    side = math.ceil(2 * bound / CELL)
    row, column = ((x + bound) / CELL).long().clamp(0, side - 1).unbind(-1)
    cells = torch.nn.functional.one_hot(row * side + column, side * side)
    return cells.amax(1).sum(-1).double()


@torch.no_grad()
def evaluate(
    config: HelveticaConfig, generators: Mapping[str, nn.Module], frozen: nn.Module, streams: Streams
) -> tuple[dict[str, Score], dict[str, Any], dict[str, Tensor]]:
    """Scores of each arm over models, the values of each model, and what the figure draws."""
    z = _noise(config, config.n_samples, streams, "samples")
    x = {name: network(z).cpu() for name, network in generators.items()}
    axis = torch.linspace(-config.bound, config.bound, GRID, device=streams.device)
    points = torch.cartesian_prod(axis, axis)
    logits = frozen(points.expand(config.n_models, -1, -1)).squeeze(-1)  # (R, GRID^2)
    peak = points[logits.argmax(1)].cpu()  # (R, 2)
    centres = ring(config.n_modes)
    values: dict[str, Tensor] = {}
    for name, fakes in x.items():
        values[f"spread_{name}"] = spread(fakes)
        values[f"distance_{name}"] = (fakes - peak.unsqueeze(1)).norm(dim=-1).mean(1)
        values[f"distinct_{name}"] = distinct(fakes, config.bound)
        captured = [mode_coverage(each, centres, config.mode_sd).captured for each in fakes]
        values[f"modes_{name}"] = torch.tensor(captured, dtype=torch.float64)
    for name in ("frozen", "control"):
        values[f"ratio_{name}"] = values[f"spread_{name}"] / values["spread_before"]
    protocol = {
        "averaged_over": "models", "data": f"ring of {config.n_modes}, sd {config.mode_sd:g}", "k": 1,
        "steps": config.n_steps, "steps_after": config.n_frozen_steps, "samples": config.n_samples,
    }  # fmt: skip
    scores = {name: mean_score(each, _unit(name), "distance" not in name, protocol) for name, each in values.items()}
    facts = {name: [round(value, 6) for value in each.tolist()] for name, each in values.items()}
    drawn = {f"samples_{name}": fakes[:, :DRAWN].float() for name, fakes in x.items()}
    return scores, facts, {**drawn, "logits": logits.view(-1, GRID, GRID).float(), "peak": peak.float()}


def _unit(name: str) -> str:
    kind = name.partition("_")[0]
    return {"modes": "modes", "distinct": "cells", "ratio": ""}.get(kind, "radii")
