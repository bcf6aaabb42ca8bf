"""Section 4 and the generator's gradients as measurements, where every density is known; float64, on the CPU.

p is p_data and q is p_g; D* = p / (p + q), a = log D / (1 - D) the logit; the pair of Gaussians is p = N(0, 1) and
q = N(m, 1), whose D* has the logit m^2 / 2 - m x. JSD is the Jensen-Shannon divergence with its halves, at most log 2.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from lib.execution.workspace import Outcome
from lib.losses.adversarial import minimax_loss, nonsaturating_loss
from lib.results import Score, mean_score
from lib.training.randomness import Streams
from replications.gan2014.config import TheoryConfig

P, Q = (0.5, 0.3, 0.2, 0.0), (0.1, 0.2, 0.3, 0.4)  # the fact sheet's discrete pair
TAIL = 12.0  # standard deviations beyond which a Gaussian's mass is below 1e-32
GAUSSIANS = {"p_data": "N(0, 1)", "p_g": "N(m, 1)"}


def theory(config: TheoryConfig, streams: Streams) -> Outcome:
    """Every check of the theory; history holds Proposition 2's descent and the circling game, step by step."""
    descent, game = list(prop2_descent(config)), bilinear_game(config.n_steps, config.game_rate)
    learned, curves = learned_discriminator(config, streams)
    scores = {
        **discrete_checks(config),
        **gaussian_checks(config, streams),
        **gradient_checks(config, streams),
        **straight_logits(config, streams),
        **learned,
        **convexity_checks(config, streams),
        **_ends(descent, game, config),
    }
    history = [{**down, **orbit} for down, orbit in zip(descent, game, strict=True)]
    return Outcome(scores, history, curves)


def jensen_shannon(p: Tensor, q: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """JSD(p, q) in nats, 0 .. log 2, over the last axis; equation 5, with 1/2 on each divergence.

    p, q: (..., K) masses, or densities at nodes with their quadrature `weight`; nowhere both 0.
    """
    middle = (p + q) / 2
    return 0.5 * (weight * (torch.xlogy(p, p / middle) + torch.xlogy(q, q / middle))).sum(-1)


def criterion(p: Tensor, q: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """C(G) = V(D*, G) in nats, -log 4 .. 0, lower is better for G; equation 4. Arguments as in `jensen_shannon`."""
    return (weight * (torch.xlogy(p, p / (p + q)) + torch.xlogy(q, q / (p + q)))).sum(-1)


def discrete_checks(config: TheoryConfig) -> dict[str, Score]:
    """Proposition 1 with D(x) itself free at each point, as in its proof, and Theorem 1's value for that pair."""
    p, q = (torch.tensor(masses, dtype=torch.float64) for masses in (P, Q))
    learned, optimal = torch.full_like(p, 0.5), p / (p + q)
    for _ in range(config.n_ascent_steps):
        learned += config.ascent_rate * (p / learned - q / (1 - learned))
        learned.clamp_(1e-12, 1 - 1e-12)
    protocol = {"p_data": P, "p_g": Q}
    ascent = {**protocol, "steps": config.n_ascent_steps, "rate": config.ascent_rate, "free": "D(x) at each x"}
    return {
        "discrete_error": _exact((learned - optimal).abs().max(), "", ascent),
        "discrete_ratio_error": _exact((q * learned / (1 - learned) - p).abs().max(), "", ascent),
        "discrete_value": _exact(torch.xlogy(p, learned).sum() + torch.xlogy(q, 1 - learned).sum(), "nats", ascent),
        "discrete_jsd": _exact(jensen_shannon(p, q), "nats", protocol),
    }


class Pair(NamedTuple):
    """N(0, 1) and N(m, 1) at the nodes of a quadrature: all (K,), weights included."""

    x: Tensor
    weight: Tensor
    p: Tensor
    q: Tensor
    logit: Tensor  # of D*


def gaussian_pair(shift: float) -> Pair:
    """Gauss-Legendre nodes on both sides of m / 2, where p = q and |p - q| has its corner."""
    node, node_weight = _legendre(200)
    low, middle, high = -TAIL, shift / 2, shift + TAIL
    x = torch.cat([(low + middle + (middle - low) * node) / 2, (middle + high + (high - middle) * node) / 2])
    weight = torch.cat([(middle - low) / 2 * node_weight, (high - middle) / 2 * node_weight])
    p, q = (torch.exp(-(y**2) / 2) / math.sqrt(2 * math.pi) for y in (x, x - shift))
    return Pair(x, weight, p, q, shift**2 / 2 - shift * x)


@cache
def _legendre(n: int) -> tuple[Tensor, Tensor]:
    from numpy.polynomial.legendre import leggauss

    node, weight = leggauss(n)
    return torch.from_numpy(node), torch.from_numpy(weight)


def gaussian_checks(config: TheoryConfig, streams: Streams) -> dict[str, Score]:
    """Theorem 1 on the Gaussians: JSD, C(G), KL, TV by quadrature, and C(G) from draws alone."""
    scores: dict[str, Score] = {}
    residuals, kl_errors, tv_errors, far = [], [], [], []
    for index, shift in enumerate(config.shifts):
        _, weight, p, q, logit = gaussian_pair(shift)
        protocol = {**GAUSSIANS, "m": shift}
        value = (weight * (p * logsigmoid(logit) + q * logsigmoid(-logit))).sum()
        jsd, kl = jensen_shannon(p, q, weight), (weight * p * logit).sum()
        tv = 0.5 * (weight * (p - q).abs()).sum()
        named = {"jsd": (jsd, "nats"), "value": (value, "nats"), "kl": (kl, "nats"), "tv": (tv, "")}
        scores |= {key(name, shift): _exact(number, unit, protocol) for name, (number, unit) in named.items()}
        scores[key("value_sampled", shift)] = sampled = _sampled_value(config, streams, shift, index)
        residuals.append((value - 2 * jsd + math.log(4)).abs())
        kl_errors.append((kl - shift**2 / 2).abs())
        tv_errors.append((tv - math.erf(shift / math.sqrt(8))).abs())
        # NOTE gan2014-N20: at m = 8 the value rests on the few draws in 30,000 that fall between the two densities, too
        # few for a standard error that could be trusted; at m = 0 every draw gives the same value and there is none.
        if 0 < shift <= 6:
            far.append(abs(sampled.value - value.item()) / sampled.stderr)
    protocol = {**GAUSSIANS, "m": config.shifts}
    scores["identity_residual"] = _exact(torch.stack(residuals).max(), "nats", protocol)
    scores["kl_error"] = _exact(torch.stack(kl_errors).max(), "nats", protocol)
    scores["tv_error"] = _exact(torch.stack(tv_errors).max(), "", protocol)
    scores["sampled_worst"] = _exact(max(far), "standard errors", {**protocol, "draws": config.n_monte_carlo})
    return scores


def _sampled_value(config: TheoryConfig, streams: Streams, shift: float, index: int) -> Score:
    """V(D*, G) by Monte Carlo, with as many fakes as real points: each pair of draws is one term of the mean."""
    draws = torch.randn(2, config.n_monte_carlo, generator=streams.at("value", index), dtype=torch.float64)
    real, fake = (shift**2 / 2 - shift * x for x in (draws[0], draws[1] + shift))
    protocol = {**GAUSSIANS, "m": shift, "draws": config.n_monte_carlo, "discriminator": "D*"}
    return mean_score(logsigmoid(real) + logsigmoid(-fake), "nats", False, protocol)


def gradient_checks(config: TheoryConfig, streams: Streams) -> dict[str, Score]:
    """Section 3's two generator losses: how strong their gradients are, and of which divergence, at D = D*.

    Means are of |d loss / dx| over fakes, per unit of x. Derivatives of the divergences are central differences in m;
    Arjovsky & Bottou 2017, theorem 2.5 and the remark before it, with the halves in the JSD.
    """
    scores: dict[str, Score] = {"logit_gradient_error": logit_gradient_error()}
    saturating, nonsaturating = [], []
    for index, shift in enumerate(config.gradient_shifts):
        _, weight, _, q, logit = gaussian_pair(shift)
        expected = {
            "saturating": shift * (weight * q * torch.sigmoid(logit)).sum(),
            "nonsaturating": shift * (weight * q * torch.sigmoid(-logit)).sum(),
        }
        protocol = {**GAUSSIANS, "m": shift, "discriminator": "D*"}
        z = torch.randn(config.n_monte_carlo, generator=streams.at("gradient", index), dtype=torch.float64)
        for name, loss in (("saturating", minimax_loss), ("nonsaturating", nonsaturating_loss)):
            scores[key(name, shift)] = _exact(expected[name], "nats/unit", protocol)
            fake = (z + shift).requires_grad_()
            (slope,) = torch.autograd.grad(len(z) * loss(shift**2 / 2 - shift * fake), fake)
            drawn = {**protocol, "draws": len(z)}
            scores[key(f"{name}_sampled", shift)] = mean_score(slope.abs(), "nats/unit", True, drawn)
        js_slope, kl_slope = (_slope(divergence, shift) for divergence in (_jsd, _kl_to_data))
        saturating.append((expected["saturating"] - 2 * js_slope).abs())
        nonsaturating.append((expected["nonsaturating"] - (kl_slope - 2 * js_slope)).abs())
    protocol = {**GAUSSIANS, "m": config.gradient_shifts, "derivative": "central difference, 1e-4"}
    scores["saturating_residual"] = _exact(torch.stack(saturating).max(), "nats/unit", protocol)
    scores["nonsaturating_residual"] = _exact(torch.stack(nonsaturating).max(), "nats/unit", protocol)
    return scores


def _jsd(shift: float) -> Tensor:
    pair = gaussian_pair(shift)
    return jensen_shannon(pair.p, pair.q, pair.weight)


def _kl_to_data(shift: float) -> Tensor:
    pair = gaussian_pair(shift)
    return -(pair.weight * pair.q * pair.logit).sum()


def _slope(function: Any, at: float, step: float = 1e-4) -> Tensor:
    derivative: Tensor = (function(at + step) - function(at - step)) / (2 * step)
    return derivative


def logit_gradients(logit: Tensor) -> tuple[Tensor, Tensor]:
    """|d loss / da| of the minimax and the non-saturating loss at each logit (N,), by autograd through lib's losses."""
    sizes = []
    for loss in (minimax_loss, nonsaturating_loss):
        a = logit.clone().requires_grad_()
        sizes.append(torch.autograd.grad(len(a) * loss(a), a)[0].abs())
    return sizes[0], sizes[1]


def logit_gradient_error() -> Score:
    """Largest difference of the two from D and 1 - D, what section 3 says they are."""
    logit = torch.linspace(-20, 20, 401, dtype=torch.float64)
    saturating, nonsaturating = logit_gradients(logit)
    errors = torch.stack([saturating - torch.sigmoid(logit), nonsaturating - torch.sigmoid(-logit)])
    return _exact(errors.abs().max(), "nats per nat", {"logits": "401 from -20 to 20"})


def straight_logits(config: TheoryConfig, streams: Streams) -> dict[str, Score]:
    """Proposition 1 from draws: logistic regression between N(0, 1) and N(m, 1) finds the straight logit of D*."""
    scores = {}
    for index, shift in enumerate(config.logistic_shifts):
        draws = torch.randn(2, config.n_logistic, generator=streams.at("logistic", index), dtype=torch.float64)
        slope, stderr = logistic_slope(draws[0], draws[1] + shift)
        protocol = {**GAUSSIANS, "m": shift, "draws": 2 * config.n_logistic, "fit": "maximum likelihood, Newton"}
        scores[key("slope_ratio", shift)] = Score(
            -slope / shift, stderr / shift, "", False, 2 * len(draws[0]), protocol
        )
    return scores


def logistic_slope(real: Tensor, fake: Tensor, n_newton: int = 12) -> tuple[float, float]:
    """Slope of the logit a = b + w x that maximises mean log D(real) + mean log(1 - D(fake)), and its standard error.

    real, fake: (N,) each. The error is that of maximum likelihood, from the inverse Fisher information.
    """
    x = torch.cat([real, fake])
    features = torch.stack([torch.ones_like(x), x], 1)  # (2N, 2)
    label = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    weights = torch.zeros(2, dtype=x.dtype)
    for _ in range(n_newton):
        d = torch.sigmoid(features @ weights)
        information = features.T @ (features * (d * (1 - d)).unsqueeze(1))
        weights = weights + torch.linalg.solve(information, features.T @ (label - d))
    return weights[1].item(), torch.linalg.inv(information)[1, 1].sqrt().item()


def learned_discriminator(config: TheoryConfig, streams: Streams) -> tuple[dict[str, Score], dict[str, Tensor]]:
    """Proposition 1 with a network that knows no density's form: V maximised by L-BFGS, then D beside D*.

    The densities are a mixture and a wide Gaussian, whose logit is no straight line; V is a sum over a fine grid, so
    that only the network and its optimiser stand between D and D*. Off the support V does not see D, so the error is
    taken where (p + q) / 2 > 0.01.
    """
    x = torch.linspace(-6, 6, 481, dtype=torch.float64)
    p = 0.5 * (_normal(x, -2.0, 0.6) + _normal(x, 1.5, 0.8))
    q, step = _normal(x, 0.0, 1.5), 12 / 480
    net = nn.Sequential(nn.Linear(1, config.width), nn.Tanh(), nn.Linear(config.width, 1)).double()
    for index, parameter in enumerate(net.parameters()):
        nn.init.normal_(parameter, generator=streams.at("init", index))
    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=config.n_lbfgs, history_size=50, tolerance_grad=1e-9, tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def value() -> Tensor:
        logit = net(x.unsqueeze(1)).squeeze(1)
        total: Tensor = (p * logsigmoid(logit) + q * logsigmoid(-logit)).sum()
        return step * total

    def closure() -> float:
        optimizer.zero_grad()
        loss = -value()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    with torch.no_grad():
        learned, reached = torch.sigmoid(net(x.unsqueeze(1)).squeeze(1)), value()
    optimal, seen = p / (p + q), (p + q) / 2 > 0.01
    protocol = {
        "p_data": "(N(-2, .6^2) + N(1.5, .8^2)) / 2", "p_g": "N(0, 1.5^2)", "grid": "481 points from -6 to 6",
        "network": f"1-{config.width}-1, tanh", "optimiser": f"L-BFGS, at most {config.n_lbfgs} iterations",
        "support": "(p + q) / 2 > 0.01",
    }  # fmt: skip
    best = criterion(p, q, step)
    scores = {
        "learned_error": _exact((learned - optimal).abs()[seen].max(), "", protocol),
        "learned_value_gap": _exact(best - reached, "nats", protocol),
        "learned_ratio_error": _exact((q * learned / (1 - learned) - p).abs()[seen].max(), "density", protocol),
    }
    return scores, {"x": x, "p": p, "q": q, "learned": learned, "optimal": optimal}


def _normal(x: Tensor, mean: float, sd: float) -> Tensor:
    return torch.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))


def two_bumps() -> Tensor:
    """p_data of Proposition 2's descent: ten points, two bumps, no mass below 0.02; (10,)."""
    k = torch.arange(10, dtype=torch.float64)
    masses = torch.exp(-((k - 2) ** 2) / 2) + torch.exp(-((k - 7) ** 2) / 2)
    return masses / masses.sum()


def prop2_descent(config: TheoryConfig) -> Iterator[dict[str, float]]:
    """Proposition 2: D is optimal at each step, then p_g = softmax(w) goes downhill on V(D, G) with that D held fixed.

    Yields step 0 and each of config.n_steps after it. The start has nearly all mass on one point.
    """
    p = two_bumps()
    w = torch.zeros_like(p)
    w[0] = 5.0
    for step in range(config.n_steps + 1):
        q = torch.softmax(w, 0)
        d = p / (p + q)
        yield {
            "step": float(step),
            "jsd": jensen_shannon(p, q).clamp_min(0).item(),
            "value": criterion(p, q).item(),
            "half_gap": (d - 0.5).abs().max().item(),
        }
        slope = torch.log1p(-d)  # of V in p_g, with D fixed
        w = w - config.descent_rate * q * (slope - (q * slope).sum())


def convexity_checks(config: TheoryConfig, streams: Streams) -> dict[str, Score]:
    """C is convex in p_g (Proposition 2) and above -log 4 off p_data (Theorem 1), on random p_g.

    excess_over_tv: the smallest (C(G) + log 4) / TV(p_data, p_g)^2, at least 1 by Pinsker's inequality, so that C is
    above its minimum wherever p_g differs from p_data.
    """
    p = two_bumps()
    draws = torch.empty(2, config.n_segments, len(p), dtype=torch.float64)
    ends = draws.exponential_(generator=streams.at("segments"))
    ends /= ends.sum(-1, keepdim=True)  # uniform on the simplex
    t = torch.rand(config.n_segments, 1, generator=streams.at("segment points"), dtype=torch.float64)
    one, other = criterion(p, ends[0]), criterion(p, ends[1])
    gap = t[:, 0] * one + (1 - t[:, 0]) * other - criterion(p, t * ends[0] + (1 - t) * ends[1])
    tv = 0.5 * (p - ends[0]).abs().sum(-1)
    protocol = {"points": len(p), "segments": config.n_segments, "ends": "uniform on the simplex"}
    return {
        "convexity_violation": _exact((-gap).max().clamp_min(0), "nats", protocol),
        "excess_over_tv": _exact(((one + math.log(4)) / tv**2).min(), "nats", protocol),
    }


def bilinear_game(n_steps: int, rate: float) -> list[dict[str, float]]:
    """min over x, max over y of x y by gradient steps from (1, 0): both at once, or y first and then x.

    Step 0 and each after it. The maximiser goes first where they take turns, as D does in Algorithm 1.
    """
    x, y, u, v = 1.0, 0.0, 1.0, 0.0
    rows = []
    for _ in range(n_steps + 1):
        rows.append({"together_x": x, "together_y": y, "turns_x": u, "turns_y": v})
        x, y = x - rate * y, y + rate * x
        v += rate * u
        u -= rate * v
    return rows


def _ends(descent: list[dict[str, float]], game: list[dict[str, float]], config: TheoryConfig) -> dict[str, Score]:
    """The descent's last divergence; the game's radii after config.game_steps, and the widest of taking turns."""
    last = descent[-1]
    fall = {"points": len(two_bumps()), "steps": config.n_steps, "rate": config.descent_rate}
    circle = {"start": (1, 0), "rate": config.game_rate, "steps": config.game_steps}
    at = game[config.game_steps]
    widest = max(math.hypot(row["turns_x"], row["turns_y"]) for row in game)
    return {
        "descent_jsd": _exact(last["jsd"], "nats", fall),
        "descent_half_gap": _exact(last["half_gap"], "", fall),
        "descent_rises": _exact(max(b["value"] - a["value"] for a, b in pairwise(descent)), "nats", fall),
        "radius_together": _exact(math.hypot(at["together_x"], at["together_y"]), "", circle),
        "radius_turns": _exact(math.hypot(at["turns_x"], at["turns_y"]), "", circle),
        "radius_turns_widest": _exact(widest, "", {**circle, "steps": config.n_steps}),
    }  # fmt: skip


def key(name: str, shift: float) -> str:
    """A score's name at one m: `jsd_m0p5`; a dot would part experiment from score in claims.yaml."""
    return f"{name}_m{shift:g}".replace(".", "p")


def _exact(value: Tensor | float, unit: str, protocol: Mapping[str, Any]) -> Score:
    return Score(float(value), math.nan, unit, False, 1, protocol)
