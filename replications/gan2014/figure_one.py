"""Figure 1 of Goodfellow et al. 2014 as an experiment: a one-dimensional game whose densities are all known.

R equal models play side by side (lib.models.batched). p_data is the biweight density, 15/16 (1 - t^2)^2 in
t = x / sqrt(7), of mean 0 and variance 1; z is uniform; x = G(z). The mass that G puts into each bin of x is exact for
the piecewise linear map through G's values on a fine grid of z, folds included. So the optimal discriminator and the
divergences are known as well.
"""

import copy
import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.adversarial import discriminator_loss, nonsaturating_loss
from lib.models.batched import BatchedLinear
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import Streams
from replications.gan2014.config import FigureOneConfig

# NOTE gan2014-N30: figure 1 names no densities. A continuous G of bounded noise has a bounded range, so p_g could never
# be a Gaussian; the biweight looks like one and ends.
HALF_WIDTH = math.sqrt(7)  # of p_data's support, at which its variance is 1
NOISE = math.sqrt(3)  # mnist.yaml: uniform noise of unit variance
EDGES = torch.linspace(-5, 5, 201, dtype=torch.float64)  # of the bins of x; what lies beyond counts in the end bins
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
WIDTH = 0.05  # of a bin
N_GRID = 2001  # points of z through which G is taken as piecewise linear
TABLE = 1 << 16  # quantiles of p_data from which minibatches are drawn
CENTRAL = 0.99  # of p_data's mass, on which the end is judged
LEVEL = 0.02  # moment (b) is judged where p_data + p_g exceeds this
JUMP = 0.2  # and not this near to an end of G's range, where p_g jumps, so D* does, and no continuous D can follow
BOUND = 0.05  # on |D - 1/2| at the end; the fact sheet's, fixed before the first run
MOMENTS = ("a", "b", "c", "d")


class Mlp(nn.Module):
    """tanh networks of R models, linear at the end: (R, B, sizes[0]) -> (R, B, sizes[-1])."""

    def __init__(self, n_models: int, sizes: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        layers = (BatchedLinear(n_models, n_in, n_out, generator) for n_in, n_out in pairwise(sizes))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:  # type: ignore[union-attr]
            x = torch.tanh(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


def adam(module: nn.Module, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam whose state is there before its first step, so that a checkpoint can be put into it; the caller sets lr."""
    return with_state(torch.optim.Adam(module.parameters(), lr=0.0, betas=betas, fused=True))


class Players(NamedTuple):
    """Both networks, their running means and their optimisers."""

    generator: Mlp
    discriminator: Mlp
    mean_generator: Mlp
    mean_discriminator: Mlp
    generator_adam: torch.optim.Adam
    discriminator_adam: torch.optim.Adam

    def set_rates(self, generator: float, discriminator: float) -> None:
        self.generator_adam.param_groups[0]["lr"] = generator
        self.discriminator_adam.param_groups[0]["lr"] = discriminator

    def update_discriminator(self, x: Tensor, z: Tensor) -> Tensor:
        """One Adam step of D on x and G(z), (R, B, n); returns the loss, () nats, the mean over models."""
        with torch.no_grad():
            fake = self.generator(z)
        real_logits, fake_logits = self.discriminator(torch.cat([x, fake], 1)).chunk(2, 1)
        loss = discriminator_loss(real_logits, fake_logits)
        _descend(loss, len(x), self.discriminator_adam)
        return loss.detach()

    def update_generator(self, z: Tensor) -> Tensor:
        """One Adam step of G on the non-saturating loss; returns it, () nats, the mean over models."""
        self.discriminator.requires_grad_(False)  # spares the gradients that nobody reads
        loss = nonsaturating_loss(self.discriminator(self.generator(z)))
        _descend(loss, len(z), self.generator_adam)
        self.discriminator.requires_grad_(True)
        return loss.detach()

    @torch.no_grad()
    def update_means(self, weight: float) -> None:
        for mean, now in zip(self._means(), self._players(), strict=True):
            mean.lerp_(now, weight)

    @torch.no_grad()
    def restart(self) -> None:
        """Put the means in place of the networks and empty both optimisers."""
        for now, mean in zip(self._players(), self._means(), strict=True):
            now.copy_(mean)
        for optimizer in (self.generator_adam, self.discriminator_adam):
            for slots in optimizer.state.values():
                for slot in slots.values():
                    slot.zero_()

    def _means(self) -> list[Tensor]:
        return [*self.mean_generator.parameters(), *self.mean_discriminator.parameters()]

    def _players(self) -> list[Tensor]:
        return [*self.generator.parameters(), *self.discriminator.parameters()]


def _descend(loss: Tensor, n_models: int, optimizer: torch.optim.Optimizer) -> None:
    """Step down the sum over models: the losses are means over models too, which would divide each gradient by R."""
    optimizer.zero_grad(set_to_none=True)
    (loss * n_models).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def players(generator: Mlp, discriminator: Mlp, betas: tuple[float, float]) -> Players:
    means = copy.deepcopy(generator), copy.deepcopy(discriminator)
    return Players(generator, discriminator, *means, adam(generator, betas), adam(discriminator, betas))


def data_cdf(x: Tensor) -> Tensor:
    """P(X <= x) under p_data, any shape, in [0, 1]: the integral of 15/16 (1 - t^2)^2 / sqrt(7)."""
    t = (x / HALF_WIDTH).clamp(-1, 1)
    return 0.5 + 15 / 16 * (t - 2 * t**3 / 3 + t**5 / 5)


def data_quantiles(p: Tensor) -> Tensor:
    """The inverse of data_cdf at p (N,) in [0, 1], float64, by bisection."""
    low, high = torch.full_like(p, -HALF_WIDTH), torch.full_like(p, HALF_WIDTH)
    for _ in range(60):
        middle = (low + high) / 2
        below = data_cdf(middle) < p
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def pushed_cdf(images: Tensor, edges: Tensor) -> Tensor:
    """P(G(z) <= edge), (R, E), for z uniform and G linear between its values `images` (R, N) on an even grid of z.

    Each piece spreads its 1 / (N - 1) of mass evenly between its two ends; pieces may run backwards.
    """
    low, high = torch.minimum(images[:, 1:], images[:, :-1]), torch.maximum(images[:, 1:], images[:, :-1])
    width = (high - low).clamp_min(1e-12)  # a piece of no width is a point of mass
    return torch.stack([((edge - low) / width).clamp(0, 1).mean(1) for edge in edges], 1)


def pushed_density(images: Tensor, edges: Tensor) -> Tensor:
    """Mean density of G(z) in each bin, (R, E - 1); mass beyond the edges counts in the end bins."""
    cdf = pushed_cdf(images, edges)
    cdf[:, 0], cdf[:, -1] = 0.0, 1.0
    return cdf.diff(dim=1) / edges.diff()


def optimal_discriminator(data: Tensor, model: Tensor) -> Tensor:
    """D* = p_data / (p_data + p_g), Proposition 1, in [0, 1]; 1/2 where both are 0 and any value is optimal."""
    total = data + model
    return torch.where(total > 0, data / total.clamp_min(1e-300), 0.5)


def jensen_shannon(data: Tensor, model: Tensor, width: float) -> Tensor:
    """JSD with the factors 1/2, nats, in [0, log 2], of densities on even bins (..., E) -> (...)."""
    middle = (data + model) / 2
    terms = torch.xlogy(data, data / middle) + torch.xlogy(model, model / middle)
    return terms.nan_to_num(0.0).sum(-1) * width / 2  # 0 / 0 where neither has mass


def value(data: Tensor, model: Tensor, d: Tensor, width: float) -> Tensor:
    """V(D, G) of equation 1 in nats, at most -log 4 + 2 JSD (Theorem 1): E log D(x) + E log(1 - D(G(z))) over bins."""
    return (torch.xlogy(data, d) + torch.xlogy(model, 1 - d)).sum(-1) * width


class Minibatches:
    """x and z of step t, a function of (seed, t) alone.

    NOTE gan2014-N31: minibatches are stratified, one point from each of B equal slices of the mass. Each point has the
    right distribution and the empty slices that make small batches rough do not occur.
    """

    def __init__(self, config: FigureOneConfig, streams: Streams) -> None:
        self.config, self.streams, device = config, streams, streams.device
        table = data_quantiles((torch.arange(TABLE, dtype=torch.float64) + 0.5) / TABLE)
        self.quantiles = table.float().to(device)
        self.slices = torch.arange(config.batch, device=device)[:, None]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """x (k, R, B, 1) and z (k + 1, R, B, 1); the last z is the generator's, fresh as in Algorithm 1."""
        c = self.config
        shape = (2 * c.k + 1, c.n_models, c.batch, 1)
        u = torch.rand(shape, generator=self.streams.at("minibatch", step), device=self.streams.device)
        u = (self.slices + u) / c.batch
        x = self.quantiles[(u[: c.k] * TABLE).long().clamp_max(TABLE - 1)]
        return x, NOISE * (2 * u[c.k :] - 1)


class Moments(nn.Module):
    """What a panel of figure 1 needs, at each of four moments: G on a grid of z and D at the centres of the bins."""

    z: Tensor  # (N,)
    images: Tensor  # (4, R, N)
    d: Tensor  # (4, R, E)

    def __init__(self, n_models: int, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("z", torch.linspace(-NOISE, NOISE, N_GRID, device=device))
        self.register_buffer("images", torch.zeros(len(MOMENTS), n_models, N_GRID, dtype=torch.float64, device=device))
        shape = (len(MOMENTS), n_models, len(CENTRES))
        self.register_buffer("d", torch.zeros(shape, dtype=torch.float64, device=device))

    @torch.no_grad()
    def look(self, generator: Mlp, discriminator: Mlp) -> tuple[Tensor, Tensor]:
        """G on the grid, (R, N), and D at the centres, (R, E), float64."""
        n_models, z = self.images.shape[1], self.z
        x = CENTRES.to(z)
        images = generator(z[:, None].expand(n_models, -1, -1))[..., 0].double()
        return images, torch.sigmoid(discriminator(x[:, None].expand(n_models, -1, -1))[..., 0].double())

    def keep(self, moment: str, generator: Mlp, discriminator: Mlp) -> None:
        index = MOMENTS.index(moment)
        self.images[index], self.d[index] = self.look(generator, discriminator)


def figure_one(config: FigureOneConfig, workspace: Workspace) -> Outcome:
    """Play the game through the four moments of figure 1 and measure each."""
    pair, moments = _start(config, workspace)
    parts: dict[str, Any] = {**pair._asdict(), "moments": moments}
    state = workspace.resume_(**parts)
    minibatches = Minibatches(config, workspace.streams)
    ends = _ends(config)
    for step in range(state["step"], ends["d"]):
        _turn(pair, minibatches, step, config)
        state["step"] = done = step + 1
        for moment in ("a", "b", "c"):
            if done == ends[moment]:
                moments.keep(moment, pair.generator, pair.discriminator)
        # NOTE gan2014-N34: (b) and (c) are a branch off (a). The game then goes on from (a), for a discriminator that
        # was trained to the end is too steep for the generator to move fast against it.
        if done == ends["a"]:
            pair.update_means(1.0)  # the means keep (a) meanwhile
        if done == ends["c"]:
            pair.restart()
        if done % config.steps_between_rows == 0 or done == ends["d"]:
            state["history"].append({"step": done, **_row(moments, pair)})
            require_finite(state["history"][-1]["jsd"], "The divergence", done, state["history"])
        workspace.keep(state, ends["d"], **parts)
    moments.keep("d", pair.mean_generator, pair.mean_discriminator)
    last = moments.look(pair.generator, pair.discriminator)
    scores, facts = measure(moments.images.cpu(), moments.d.cpu(), last[1].cpu(), config)
    density = pushed_density(moments.images.flatten(0, 1), EDGES.to(workspace.device)).unflatten(0, (len(MOMENTS), -1))
    weights = {"density": density, "d": moments.d, "z": moments.z[:: N_GRID // 20], "x": CENTRES, "data": _data()}
    return Outcome(scores, state["history"], {**weights, "images": moments.images[..., :: N_GRID // 20]}, facts=facts)


def _start(config: FigureOneConfig, workspace: Workspace) -> tuple[Players, Moments]:
    # Drawn on the CPU: a run on an accelerator starts from the same weights.
    drawn = Streams(workspace.streams.seed)
    sizes = (1, *config.hidden, 1)
    generator, discriminator = (Mlp(config.n_models, sizes, drawn.at(f"init {who}")) for who in ("G", "D"))
    with torch.no_grad():
        generator.layers[-1].bias.add_(config.offset)  # type: ignore[operator, union-attr]
    device = workspace.device
    pair = players(generator.to(device), discriminator.to(device), config.betas)
    return pair, Moments(config.n_models, device)


def _ends(config: FigureOneConfig) -> dict[str, int]:
    """The step after which each moment is reached."""
    b = config.n_first + config.n_inner
    return {"a": config.n_first, "b": b, "c": b + config.n_moves, "d": config.n_steps + config.n_inner + config.n_moves}


def _turn(pair: Players, minibatches: Minibatches, step: int, config: FigureOneConfig) -> None:
    """One step of the phase that `step` lies in: both players, D alone, G alone, both players to the end."""
    x, z = minibatches(step)
    ends = _ends(config)
    if ends["a"] <= step < ends["b"]:
        pair.set_rates(0.0, config.discriminator_rate * (ends["b"] - step) / config.n_inner)
        pair.update_discriminator(x[0], z[0])
        return
    if ends["b"] <= step < ends["c"]:
        pair.set_rates(config.move_rate, 0.0)
        pair.update_generator(z[-1])
        return
    before = 0 if step < ends["a"] else config.n_inner + config.n_moves
    left = 1 - (step - before) / config.n_steps
    pair.set_rates(config.generator_rate * left, config.discriminator_rate * left)
    for inner in range(config.k):
        pair.update_discriminator(x[inner], z[inner])
    pair.update_generator(z[-1])
    pair.update_means(config.averaging)


def _data() -> Tensor:
    """p_data as the mean density of each bin, (E,)."""
    return data_cdf(EDGES).diff() / EDGES.diff()


def _central() -> Tensor:
    """Bins whose centre lies in the central mass of p_data, (E,) bool."""
    ends = data_quantiles(torch.tensor([(1 - CENTRAL) / 2, (1 + CENTRAL) / 2], dtype=torch.float64))
    return (ends[0] < CENTRES) & (ends[1] > CENTRES)


def _row(moments: Moments, pair: Players) -> dict[str, float]:
    """The playing pair's state, means over models: JSD in nats, largest |D - 1/2| and |D* - 1/2| on the support."""
    images, d = (part.cpu() for part in moments.look(pair.generator, pair.discriminator))
    data, model, inside = _data(), pushed_density(images, EDGES), _central()
    best = optimal_discriminator(data, model)
    return {
        "jsd": jensen_shannon(data, model, WIDTH).mean().item(),
        "half_gap": (d - 0.5).abs()[:, inside].amax(1).mean().item(),
        "optimal_half_gap": (best - 0.5).abs()[:, inside].amax(1).mean().item(),
    }


def measure(
    images: Tensor, d: Tensor, d_last: Tensor, config: FigureOneConfig
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Scores, means over models, and per-model values.

    images: (4, R, N), G on the grid of z; d: (4, R, E), D at the centres; d_last: (R, E), the last D unaveraged.
    """
    data, inside = _data(), _central()
    protocol = {
        "averaged_over": "models", "p_data": "biweight, variance 1", "bins": f"{len(CENTRES)} of {WIDTH}",
        "grid_of_z": N_GRID, "alternating_steps": config.n_steps, "k": config.k, "batch": config.batch,
    }  # fmt: skip
    values: dict[str, tuple[Tensor, str, bool, dict[str, Any]]] = {}
    density = {moment: pushed_density(images[i], EDGES) for i, moment in enumerate(MOMENTS)}
    for moment, model in density.items():
        cdf_gap = (model.cumsum(1) - data.cumsum(0)).abs().sum(1) * WIDTH**2  # W1 is the integral of |F - F_data|
        values[f"jsd_{moment}"] = jensen_shannon(data, model, WIDTH), "nats", False, {}
        values[f"w1_{moment}"] = cdf_gap, "", False, {}

    where = {"where": f"p_data + p_g > {LEVEL}, {JUMP} away from the ends of G's range"}
    best, judged = optimal_discriminator(data, density["b"]), _judged(images[1], density["b"])
    values["optimal_gap"] = ((d[1] - best).abs() * judged).amax(1), "", False, where
    weight = (data + density["b"]) * WIDTH / 2
    values["optimal_gap_mean"] = ((d[1] - best).abs() * weight).sum(1), "", False, {"weight": "(p_data + p_g) / 2"}
    shortfall = 2 * values["jsd_b"][0] - math.log(4) - value(data, density["b"], d[1], WIDTH)
    values["value_shortfall"] = shortfall, "nats", False, {"value": "-log 4 + 2 JSD - V(D, G)"}

    where = {"where": f"central {CENTRAL:.0%} of p_data's mass"}
    half, averaged = (d[3] - 0.5).abs()[:, inside].amax(1), {"weights": f"running mean, {config.averaging} a step"}
    off = (optimal_discriminator(data, density["d"]) - 0.5).abs()
    values["half_gap"] = half, "", False, where | averaged
    values["half_met"] = (half < BOUND).double(), "share of models", True, where | averaged | {"bound": BOUND}
    values["half_gap_last"] = (d_last - 0.5).abs()[:, inside].amax(1), "", False, where | {"weights": "last"}
    values["optimal_half_gap"] = off[:, inside].amax(1), "", False, where | averaged
    close = ((off < BOUND) * data * inside).sum(1) / (data * inside).sum()
    values["optimal_half_mass"] = close, "share of mass", True, where | averaged | {"bound": BOUND}
    scores = {name: mean_score(v, unit, up, protocol | more) for name, (v, unit, up, more) in values.items()}
    return scores, {"models": {name: v.tolist() for name, (v, *_) in values.items()}}


def _judged(images: Tensor, model: Tensor) -> Tensor:
    """Where moment (b) is judged, (R, E) bool: mass enough, and away from where D* jumps."""
    # A tanh network may fold, but p_g jumps where the noise ends, and there only by design.
    ends = torch.stack([images[:, 0], images[:, -1]], 1)
    clear = ((CENTRES - ends[..., None]).abs() > JUMP).all(1)
    return (_data() + model > LEVEL) & clear
