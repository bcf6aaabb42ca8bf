"""Figure 2: an optimal discriminator and two optimal critics between the same two Gaussians on a line.

R models of each of three kinds, all from the same weights: "discriminator" maximises equation 1 of the GAN, "clip" is
the critic of Algorithm 1, "penalty" that of Gulrajani et al. 2017. Everything is measured by quadrature on a grid.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.adversarial import discriminator_loss
from lib.models.flat import FlatParameters
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.wgan2017.config import FigureTwoConfig
from replications.wgan2017.critic import clipped_step_, critics, estimates, penalised_step_

KINDS = ("discriminator", "clip", "penalty")
EDGE, N_GRID, N_CURVE_POINTS = 8.0, 1601, 30  # figure 2 shows -8 .. 8


class Trained(NamedTuple):
    """One kind: its R networks, (R, B, 1) -> (R, B, 1), and their optimiser."""

    network: nn.Sequential
    flat: FlatParameters
    optimizer: torch.optim.Optimizer


def build(config: FigureTwoConfig, seed: int, device: torch.device) -> dict[str, Trained]:
    """The three kinds as they start, each from (seed, "networks")."""
    kinds: dict[str, Trained] = {}
    for kind in KINDS:
        drawn = generator(seed, "networks")
        network = critics(config.n_models, 1, config.width, config.n_layers, drawn).to(device)
        flat = FlatParameters(network)
        optimizer: torch.optim.Optimizer
        if kind == "clip":
            optimizer = torch.optim.RMSprop([flat.vector], config.clip_rate)
        else:
            # NOTE wgan2017-N22: points between the modes are rare and give the discriminator most of its gradient. With
            # Gulrajani's short memory of squares it ended steeper than D* in a first run; PyTorch's default mends that.
            betas = (0.9, 0.999) if kind == "discriminator" else (0.0, 0.9)
            optimizer = torch.optim.Adam([flat.vector], config.adam_rate, betas, fused=True)
        kinds[kind] = Trained(network, flat, with_state(optimizer))
    return kinds


def draw(config: FigureTwoConfig, streams: Streams, step: int) -> tuple[Tensor, Tensor]:
    """Real and fake points of every model, (R, B, 1) each."""
    # NOTE wgan2017-N20: the paper states neither Gaussian. These two share 0.3 % of their mass, and five standard
    # deviations of each lie within the figure's axis.
    shape = (2, config.n_models, config.batch, 1)
    noise = config.sd * torch.randn(shape, generator=streams.at("points", step), device=streams.device)
    return config.real_mean + noise[0], config.fake_mean + noise[1]


def discriminator_step_(discriminator: Trained, real: Tensor, fake: Tensor) -> None:
    """One step up equation 1 of the GAN; the mean over models times their number keeps each one's gradient its own."""
    of_real, of_fake = discriminator.network(torch.cat([real, fake], 1)).chunk(2, 1)
    discriminator.flat.take_gradient(len(real) * discriminator_loss(of_real, of_fake))
    discriminator.optimizer.step()


def figure_two(config: FigureTwoConfig, workspace: Workspace) -> Outcome:
    """Train the three kinds side by side and measure their slopes; goes on from the workspace's checkpoint."""
    streams = workspace.streams
    kinds = build(config, streams.seed, streams.device)
    parts: dict[str, Any] = {f"{kind}_network": each.network for kind, each in kinds.items()}
    parts |= {f"{kind}_optimizer": each.optimizer for kind, each in kinds.items()}
    state = workspace.resume_(**parts)
    history, every = state["history"], math.ceil(config.n_steps / N_CURVE_POINTS)
    clip, penalty = kinds["clip"], kinds["penalty"]
    for step in range(state["step"], config.n_steps):
        for kind in ("discriminator", "penalty"):
            kinds[kind].optimizer.param_groups[0]["lr"] = config.adam_rate * (1 - step / config.n_steps)
        real, fake = draw(config, streams, step)
        share = torch.rand(real.shape, generator=streams.at("segments", step), device=streams.device)
        discriminator_step_(kinds["discriminator"], real, fake)
        clipped_step_(clip.network, clip.flat, clip.optimizer, real, fake, config.clip)
        penalised_step_(penalty.network, penalty.flat, penalty.optimizer, real, fake, share, config.penalty)
        state["step"] = step + 1
        if (step + 1) % every == 0 or step + 1 == config.n_steps:
            history.append({"step": step + 1, **curve_point(kinds, real, fake)})
            require_finite(sum(history[-1].values()), "The sum of the losses", step + 1, history)
        workspace.keep(state, config.n_steps, **parts)
    x = torch.linspace(-EDGE, EDGE, N_GRID, device=streams.device)
    drawn = {kind: values_and_slopes(each.network, x) for kind, each in kinds.items()}
    found, exact = measured(config, x.double().cpu(), drawn)
    weights = {f"{kind}_values": values.float() for kind, (values, _) in drawn.items()}
    facts = {name: values.tolist() for name, values in found.items()}
    return Outcome(scores_of(config, found, exact), history, {**weights, "x": x}, facts=facts)


@torch.no_grad()
def curve_point(kinds: dict[str, Trained], real: Tensor, fake: Tensor) -> dict[str, float]:
    """Mean over models of what each kind optimises, on the minibatch at hand."""
    of_real, of_fake = kinds["discriminator"].network(torch.cat([real, fake], 1)).chunk(2, 1)
    row = {"discriminator_loss": discriminator_loss(of_real, of_fake).item()}
    for kind in ("clip", "penalty"):
        row[f"{kind}_estimate"] = estimates(kinds[kind].network, real, fake).mean().item()
    return row


def values_and_slopes(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """f and df/dx of each model on the grid (G,): (R, G) each, float64 on the CPU. Of a discriminator: its logit's."""
    n_models = len(next(network.parameters()))
    points = x.view(1, -1, 1).repeat(n_models, 1, 1).requires_grad_()
    values = network(points)
    (slopes,) = torch.autograd.grad(values.sum(), points)
    return values.detach().squeeze(-1).double().cpu(), slopes.squeeze(-1).double().cpu()


def density(x: Tensor, mean: float, sd: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))


def optimal_logit(config: FigureTwoConfig, x: Tensor) -> Tensor:
    """log p(x) - log q(x), the logit of D*: a straight line of slope (real_mean - fake_mean) / sd^2."""
    middle = (config.real_mean + config.fake_mean) / 2
    return (config.real_mean - config.fake_mean) / config.sd**2 * (x - middle)


def measured(
    config: FigureTwoConfig, x: Tensor, drawn: dict[str, tuple[Tensor, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Per model (R,), and of D*. Means over fakes and reals are sums on the grid with their densities as weights."""
    fakes, reals = (w / w.sum() for w in (density(x, mean, config.sd) for mean in (config.fake_mean, config.real_mean)))
    line = optimal_logit(config, x).unsqueeze(0)
    slope = torch.full_like(line, (config.real_mean - config.fake_mean) / config.sd**2)
    exact = {name: values.item() for name, values in of_discriminator(line, slope, fakes).items()}
    found = of_discriminator(*drawn["discriminator"], fakes)
    error = (torch.sigmoid(drawn["discriminator"][0]) - torch.sigmoid(line)).abs()
    found["discriminator_error"] = (error * (reals + fakes) / 2).sum(1)
    lowest, highest = sorted((config.real_mean, config.fake_mean))
    between = (x >= lowest) & (x <= highest)
    for kind in ("clip", "penalty"):
        values, slopes = drawn[kind]
        found[f"{kind}_slope"] = (slopes.abs() * fakes).sum(1) / slopes.abs().amax(1)
        found[f"{kind}_linearity"] = correlation(values[:, between], line[0, between])
    values = drawn["penalty"][0]
    found["penalty_ratio"] = (values * (reals - fakes)).sum(1) / abs(config.real_mean - config.fake_mean)
    return found, exact


def of_discriminator(logit: Tensor, slope: Tensor, fakes: Tensor) -> dict[str, Tensor]:
    """Mean gradients over fakes, weights (G,), of D and of both generator losses; logit and its slope: (R, G)."""
    d, rest = torch.sigmoid(logit), torch.sigmoid(-logit)  # each exact where the other rounds to 1
    gradient = d * rest * slope.abs()
    return {
        "discriminator_gradient": (gradient * fakes).sum(1),
        "discriminator_slope": (gradient * fakes).sum(1) / gradient.amax(1),
        "saturating_gradient": (d * slope.abs() * fakes).sum(1),
        "nonsaturating_gradient": (rest * slope.abs() * fakes).sum(1),
    }


def correlation(values: Tensor, line: Tensor) -> Tensor:
    """Pearson's with a falling or rising straight line, (R, G) and (G,) -> (R,): 1 is a line, -1 one turned over."""
    values, line = values - values.mean(1, keepdim=True), line - line.mean()
    return (values * line).sum(1) / (values.norm(dim=1) * line.norm())


def scores_of(config: FigureTwoConfig, found: dict[str, Tensor], exact: dict[str, float]) -> dict[str, Score]:
    gaussians = {
        "real": f"N({config.real_mean:g}, {config.sd**2:g})",
        "fake": f"N({config.fake_mean:g}, {config.sd**2:g})",
    }
    protocol = {
        "averaged_over": "models", **gaussians, "steps": config.n_steps, "batch": config.batch, "width": config.width,
        "hidden_layers": config.n_layers, "clip": config.clip, "penalty": config.penalty, "grid_points": N_GRID,
    }  # fmt: skip
    scores = {
        name: mean_score(values, _unit(name), name != "discriminator_error", protocol) for name, values in found.items()
    }
    for name, value in exact.items():
        scores[f"{name}_exact"] = Score(value, math.nan, _unit(name), True, N_GRID, gaussians)
    return scores


def _unit(name: str) -> str:
    return "1/length" if name.endswith("gradient") else ""
