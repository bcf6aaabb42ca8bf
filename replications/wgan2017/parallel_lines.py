"""Example 1: two parallel lines, on which W says how far theta is from 0 and no other divergence does.

P_0 is the law of (0, Z), P_theta that of (theta, Z), Z uniform on [0, 1]; theta is the generator's parameter. Exact in
double precision but for the trained discriminator, which is in single; always on the CPU.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib import transport as ot
from lib.losses.adversarial import discriminator_loss, minimax_loss
from lib.models.batched import BatchedLinear
from lib.results import Score, mean_score
from lib.training.randomness import Streams, generator
from replications.wgan2017.config import DistancesConfig

Array = NDArray[np.float64]
Scores = dict[str, Score]
FIGURE_THETAS = 41  # of figure 1's axis, -1 .. 1
SLOPE_STEP = 1e-6  # of every central difference
UNITS = {"tv": "", "js": "nats", "kl": "nats", "kl_reverse": "nats", "w": "units"}


def key(name: str, **at: float) -> str:
    """A score's name at some place, `js_t_m0p5` for theta = -0.5: a dot would part experiment from score."""
    return name + "".join(f"_{k}{v:g}" for k, v in at.items()).replace("-", "m").replace(".", "p")


def exact(value: SupportsFloat, unit: str, protocol: Mapping[str, Any]) -> Score:
    return Score(float(value), math.nan, unit, False, 1, protocol)


def uniform(streams: Streams, stream: str, step: int, *shape: int) -> Array:
    """Draws of U[0, 1]."""
    draws: Array = torch.rand(shape, generator=streams.at(stream, step), dtype=torch.float64).numpy()
    return draws


def line(theta: float, z: Array) -> Array:
    """g_theta(z) = (theta, z) of example 1: (N,) -> (N, 2)."""
    return np.stack([np.full_like(z, theta), z], 1)


def midpoints(n: int) -> Array:
    return (np.arange(n) + 0.5) / n


class Divergences(NamedTuple):
    """Of P from Q on their common points; NOTE wgan2017-N10: JS with its halves, at most log 2.

    Section 2 defines JS as KL(P || M) + KL(Q || M), which is at most 2 log 2; example 1, figure 4 and the bound
    L <= 2 JS - 2 log 2 all mean half of it.
    """

    tv: float
    js: float
    kl: float
    kl_reverse: float


def divergences(p: Array, q: Array) -> Divergences:
    """p, q: (K,) masses."""
    return Divergences(
        ot.total_variation(p, q), ot.jensen_shannon(p, q), ot.kullback_leibler(p, q), ot.kullback_leibler(q, p)
    )


def figure_1(config: DistancesConfig) -> dict[str, list[float]]:
    """Both curves of figure 1 over theta, from n_points on each line at equal z."""
    z = midpoints(config.n_points)
    thetas = np.linspace(-1, 1, FIGURE_THETAS).round(12)
    w = [ot.optimal_assignment(line(theta, z), line(0, z)).value for theta in thetas]
    js = [divergences(*ot.common_support(line(0, z), line(theta, z))).js for theta in thetas]
    return {"theta": thetas.tolist(), "w": w, "js": js}


def line_scores(config: DistancesConfig, streams: Streams) -> Scores:
    """W by exact assignment, for the same z on both lines and for z of their own, and the divergences of the lines.

    w_error: largest | W - |theta| | at equal z. w_fresh: W of two samples, above |theta| by w_excess. Those named least
    are the smallest over theta other than 0.
    """
    n, z, scores = config.n_points, midpoints(config.n_points), Scores()
    errors, apart = [], []
    for index, theta in enumerate(config.thetas):
        protocol = {"theta": theta, "points": n, "z": "midpoints of n equal cells, the same on both lines"}
        of_lines = divergences(*ot.common_support(line(0, z), line(theta, z)))
        w = ot.optimal_assignment(line(theta, z), line(0, z)).value
        fresh = uniform(streams, "lines", index, 2, n)
        w_fresh = ot.optimal_assignment(line(theta, fresh[0]), line(0, fresh[1])).value
        for name, value in {**of_lines._asdict(), "w": w}.items():
            scores[key(name, t=theta)] = exact(value, UNITS[name], protocol)
        drawn = {**protocol, "z": "U[0, 1], drawn for each line"}
        scores[key("w_fresh", t=theta)] = exact(w_fresh, "units", drawn)
        scores[key("w_excess", t=theta)] = exact(w_fresh - abs(theta), "units", drawn)
        errors.append(abs(w - abs(theta)))
        apart += [of_lines] if theta else []
    protocol = {"theta": config.thetas, "points": n}
    infinite = [math.isinf(each.kl) and math.isinf(each.kl_reverse) for each in apart]
    return scores | {
        "w_error": exact(max(errors), "units", protocol),
        "js_least": exact(min(each.js for each in apart), "nats", protocol),
        "tv_least": exact(min(each.tv for each in apart), "", protocol),
        "kl_infinite": exact(np.mean(infinite), "share of theta other than 0", protocol),
    }


def discriminators(n_models: int, config: DistancesConfig, streams: Streams) -> tuple[nn.Module, torch.optim.Optimizer]:
    """R discriminators of points in the plane side by side, logits out: (R, B, 2) -> (R, B, 1)."""
    drawn, width = generator(streams.seed, "discriminators"), config.width
    net = nn.Sequential(
        BatchedLinear(n_models, 2, width, drawn), nn.ReLU(), BatchedLinear(n_models, width, width, drawn), nn.ReLU(),
        BatchedLinear(n_models, width, 1, drawn),
    )  # fmt: skip
    return net, torch.optim.Adam(net.parameters(), lr=config.discriminator_rate)


def train_(net: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, n_steps: int) -> None:
    """Full-batch steps up V(D, G); real, fake: (R, B, 2). The sum over models keeps their gradients apart."""
    both = torch.cat([real, fake], 1)
    for _ in range(n_steps):
        logits = net(both)  # (R, 2 B, 1)
        optimizer.zero_grad()
        (len(real) * discriminator_loss(*logits.split(real.shape[1], 1))).backward()
        optimizer.step()


def planes(thetas: Sequence[float], z: Array) -> Tensor:
    """Points of the line at each theta, single precision: z (R, B) -> (R, B, 2)."""
    return torch.from_numpy(np.stack([line(theta, row) for theta, row in zip(thetas, z, strict=True)])).float()


def trained_scores(config: DistancesConfig, streams: Streams) -> Scores:
    """JS as log 2 - BCE of a discriminator on the half of the points that it did not see, and its accuracy there.

    For any fixed D the expectation of log 2 - BCE is at most JS, so the estimate is a bound from below, and below 0
    where there is nothing to find.
    """
    thetas, half = config.thetas, config.n_points // 2
    z = uniform(streams, "trained lines", 0, 2, len(thetas), 2 * half)
    real, fake = planes([0.0] * len(thetas), z[0]), planes(thetas, z[1])
    net, optimizer = discriminators(len(thetas), config, streams)
    train_(net, optimizer, real[:, :half], fake[:, :half], config.n_discriminator_steps)
    with torch.no_grad():
        of_real, of_fake = (net(points[:, half:]).squeeze(-1).double() for points in (real, fake))  # (R, half)
    information = math.log(2) + (nn.functional.logsigmoid(of_real) + nn.functional.logsigmoid(-of_fake)) / 2
    right = torch.cat([of_real > 0, of_fake < 0], 1).double()
    trained = {
        "trained on": half, "held out": half, "steps": config.n_discriminator_steps,
        "network": f"2-{config.width}-{config.width}-1, ReLU", "optimiser": f"Adam, {config.discriminator_rate:g}",
    }  # fmt: skip
    scores = Scores()
    for theta, nats, hits in zip(thetas, information, right, strict=True):
        protocol = {"theta": theta, **trained}
        scores[key("js_trained", t=theta)] = mean_score(nats, "nats", False, protocol)
        scores[key("accuracy", t=theta)] = mean_score(hits, "", True, protocol)
    apart = [index for index, theta in enumerate(thetas) if theta]
    protocol = {"theta": thetas, **trained}
    scores["js_trained_least"] = exact(information[apart].mean(1).min(), "nats", protocol)
    scores["accuracy_least"] = exact(right[apart].mean(1).min(), "", protocol)
    return scores


def descents(config: DistancesConfig, streams: Streams) -> list[dict[str, float]]:
    """theta after each step of gradient descent from 1 on W, at equal z and from samples, and on JS, exact and learned.

    W's gradient is that of the optimal assignment's cost, the plan held fixed (envelope theorem); exact JS's a central
    difference; the learned one's the minimax loss through a discriminator retrained before each step, on new points.
    NOTE wgan2017-N13: it is trained from scratch before the first step only, and goes on from there before the others:
    theta moves so little that its optimum hardly does.
    """
    z, n = midpoints(config.n_points), config.n_points
    real = line(0, z)

    def js(theta: float) -> float:
        return divergences(*ot.common_support(real, line(theta, z))).js

    net, optimizer = discriminators(1, config, streams)
    at = {"w": 1.0, "w_fresh": 1.0, "js": 1.0, "js_trained": 1.0}
    rows = [{"step": 0.0, **at, "js_slope": math.nan}]
    for step in range(config.descent_steps):
        fresh, points = uniform(streams, "descent", step, 2, n), uniform(streams, "descent points", step, 2, 1, n)
        n_steps = config.n_retrain_steps if step else config.n_discriminator_steps
        train_(net, optimizer, planes([0.0], points[0]), planes([at["js_trained"]], points[1]), n_steps)
        slopes = {
            "w": cost_slope(line(at["w"], z), real)[0].item(),
            "w_fresh": cost_slope(line(at["w_fresh"], fresh[0]), line(0, fresh[1]))[0].item(),
            "js": (js(at["js"] + SLOPE_STEP) - js(at["js"] - SLOPE_STEP)) / (2 * SLOPE_STEP),
            "js_trained": loss_slope(net, at["js_trained"], torch.from_numpy(points[1, 0]).float()),
        }
        at = {name: theta - config.descent_rate * slopes[name] for name, theta in at.items()}
        rows.append({"step": step + 1.0, **at, "js_slope": slopes["js"]})
    return rows


def cost_slope(x: Array, y: Array) -> Array:
    """Gradient of W1(x + t, y) in the shift t at 0, (2,): the mean of the unit vectors from each y to its x."""
    apart = x - y[ot.optimal_assignment(x, y).partner]  # (N, 2)
    length = np.linalg.norm(apart, axis=1, keepdims=True)
    slope: Array = (apart / np.where(length > 0, length, 1)).mean(0)  # where the points are one, 0 is a subgradient
    return slope


def loss_slope(net: nn.Module, theta: float, z: Tensor) -> float:
    """d/d theta of mean log(1 - D(theta, z)) through the discriminator; z: (N,)."""
    at = torch.tensor(theta, requires_grad=True)
    loss = minimax_loss(net(torch.stack([at.expand(len(z)), z], 1).unsqueeze(0)))
    return torch.autograd.grad(loss, at)[0].item()


def descent_scores(config: DistancesConfig, rows: list[dict[str, float]]) -> Scores:
    """Where each descent ends; how far JS's went; the steps after which W's from samples first is within one step."""
    protocol = {"start": 1.0, "steps": config.descent_steps, "rate": config.descent_rate, "points": config.n_points}
    trained = {**protocol, "first steps of D": config.n_discriminator_steps, "between": config.n_retrain_steps}
    arrived = [row["step"] for row in rows if abs(row["w_fresh"]) <= config.descent_rate]
    return {
        "descent_w": exact(abs(rows[-1]["w"]), "units", protocol),
        "descent_w_fresh": exact(abs(rows[-1]["w_fresh"]), "units", protocol),
        "descent_w_fresh_steps": exact(arrived[0] if arrived else math.inf, "steps", protocol),
        "descent_js_moved": exact(abs(rows[-1]["js"] - 1), "units", protocol),
        "descent_js_slope": exact(max(abs(row["js_slope"]) for row in rows[1:]), "nats/unit", protocol),
        "descent_js_trained_moved": exact(abs(rows[-1]["js_trained"] - 1), "units", trained),
    }
