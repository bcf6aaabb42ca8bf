"""Section 2.4's three recipes for z = g(noise; parameters): inverse distribution function, location-scale, composition.

Each recipe is held against scipy's own law of that name: distribution, mean and variance, and the derivative of
E z^2 that its draws give, since draws whose distribution is right may still be differentiated wrongly.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.results import Score

N_UNIFORM, N_NORMAL = 15, 11  # rows of noise; the most that a recipe takes
KINDS = ("inverse_cdf", "location_scale", "composition")
EULER = 0.5772156649015329


class Recipe(NamedTuple):
    """A law with parameters theta: how to draw it, what scipy calls it, and E z^2 where theta can be moved."""

    kind: str
    name: str
    theta: tuple[float, ...]
    draw: Callable[[Tensor, Tensor, Tensor], Tensor]  # theta (P,) or (P, n), uniform (U, n), normal (E, n) -> (n,)
    scipy: str
    scipy_values: dict[str, float]
    square: Callable[[Tensor], Tensor] | None = None  # theta -> E z^2, written apart from `draw`
    moments: bool = True  # whether mean and variance exist


def _gamma(u: Tensor) -> Tensor:
    """Gamma with an integer shape, as many as there are rows: a sum of exponentials, each by its inverse."""
    return -u.log().sum(0)


def _dirichlet(u: Tensor) -> Tensor:
    """The first weight of Dirichlet(1, 2, 3), whose law is Beta(1, 5)."""
    parts = torch.stack([_gamma(u[:1]), _gamma(u[1:3]), _gamma(u[3:6])])
    return parts[0] / parts.sum(0)


RECIPES = (
    Recipe("inverse_cdf", "exponential", (0.5,), lambda t, u, e: -u[0].log() / t[0], "expon", {"scale": 2.0},
           lambda t: 2 / t[0] ** 2),
    Recipe("inverse_cdf", "Cauchy", (1.0, 2.0), lambda t, u, e: t[0] + t[1] * torch.tan(math.pi * (u[0] - 0.5)),
           "cauchy", {"loc": 1.0, "scale": 2.0}, moments=False),
    Recipe("inverse_cdf", "logistic", (1.0, 2.0), lambda t, u, e: t[0] + t[1] * torch.logit(u[0]), "logistic",
           {"loc": 1.0, "scale": 2.0}, lambda t: t[0] ** 2 + math.pi**2 / 3 * t[1] ** 2),
    Recipe("inverse_cdf", "Rayleigh", (2.0,), lambda t, u, e: t[0] * (-2 * u[0].log()).sqrt(), "rayleigh",
           {"scale": 2.0}, lambda t: 2 * t[0] ** 2),
    Recipe("inverse_cdf", "Pareto", (12.0,), lambda t, u, e: u[0] ** (-1 / t[0]), "pareto", {"b": 12.0},
           lambda t: t[0] / (t[0] - 2)),
    Recipe("inverse_cdf", "Weibull", (1.5, 2.0), lambda t, u, e: t[1] * (-u[0].log()) ** (1 / t[0]), "weibull_min",
           {"c": 1.5, "scale": 2.0}, lambda t: t[1] ** 2 * torch.lgamma(1 + 2 / t[0]).exp()),
    Recipe("inverse_cdf", "reciprocal", (4.0,), lambda t, u, e: t[0] ** u[0], "reciprocal", {"a": 1.0, "b": 4.0},
           lambda t: (t[0] ** 2 - 1) / (2 * t[0].log())),
    Recipe("inverse_cdf", "Gompertz", (0.7,), lambda t, u, e: (1 - u[0].log() / t[0]).log(), "gompertz", {"c": 0.7}),
    Recipe("inverse_cdf", "Gumbel", (1.0, 2.0), lambda t, u, e: t[0] - t[1] * (-u[0].log()).log(), "gumbel_r",
           {"loc": 1.0, "scale": 2.0}, lambda t: (t[0] + EULER * t[1]) ** 2 + math.pi**2 / 6 * t[1] ** 2),
    Recipe("location_scale", "Gaussian", (1.0, 2.0), lambda t, u, e: t[0] + t[1] * e[0], "norm",
           {"loc": 1.0, "scale": 2.0}, lambda t: t[0] ** 2 + t[1] ** 2),
    Recipe("location_scale", "Laplace", (1.0, 2.0), lambda t, u, e: t[0] + t[1] * (u[0].log() - u[1].log()), "laplace",
           {"loc": 1.0, "scale": 2.0}, lambda t: t[0] ** 2 + 2 * t[1] ** 2),
    Recipe("location_scale", "Student's t", (1.0, 2.0),
           lambda t, u, e: t[0] + t[1] * e[0] * (e[1:11].square().mean(0)).rsqrt(), "t",
           {"df": 10.0, "loc": 1.0, "scale": 2.0}, lambda t: t[0] ** 2 + 1.25 * t[1] ** 2),
    Recipe("location_scale", "uniform", (1.0, 2.0), lambda t, u, e: t[0] + t[1] * u[0], "uniform",
           {"loc": 1.0, "scale": 2.0}, lambda t: t[0] ** 2 + t[0] * t[1] + t[1] ** 2 / 3),
    Recipe("location_scale", "triangular", (1.0, 2.0), lambda t, u, e: t[0] + t[1] * (u[0] + u[1]) / 2, "triang",
           {"c": 0.5, "loc": 1.0, "scale": 2.0}, lambda t: t[0] ** 2 + t[0] * t[1] + 7 / 24 * t[1] ** 2),
    Recipe("composition", "log-normal", (0.2, 0.5), lambda t, u, e: (t[0] + t[1] * e[0]).exp(), "lognorm",
           {"s": 0.5, "scale": math.exp(0.2)}, lambda t: (2 * t[0] + 2 * t[1] ** 2).exp()),
    Recipe("composition", "gamma", (0.5,), lambda t, u, e: _gamma(u[:3]) / t[0], "gamma", {"a": 3.0, "scale": 2.0},
           lambda t: 12 / t[0] ** 2),
    Recipe("composition", "chi-squared", (), lambda t, u, e: e[:4].square().sum(0), "chi2", {"df": 4.0}),
    Recipe("composition", "beta", (), lambda t, u, e: _gamma(u[:2]) / _gamma(u[:5]), "beta", {"a": 2.0, "b": 3.0}),
    Recipe("composition", "Dirichlet", (), lambda t, u, e: _dirichlet(u), "beta", {"a": 1.0, "b": 5.0}),
    Recipe("composition", "F", (), lambda t, u, e: 4 * _gamma(u[:3]) / _gamma(u[3:15]), "f", {"dfn": 6.0, "dfd": 24.0}),
)  # fmt: skip


class Judged(NamedTuple):
    """How far a recipe's draws are from the law: three distances in units of what chance would give."""

    name: str
    kind: str
    ks: float  # sqrt(n) times the largest distance of the distribution functions: Kolmogorov's law, above 1.95 in 0.1 %
    moments: float  # the larger of |mean - truth| and |variance - truth|, in standard errors; nan where there are none
    derivatives: float  # the largest |d E z^2 / d theta_i - truth| in standard errors; nan without a parameter


def judged(recipe: Recipe, uniform: Tensor, normal: Tensor) -> Judged:
    """Draws against scipy's law. uniform: (U, n) in (0, 1), normal: (E, n); float64."""
    from scipy import stats  # here, for other runs start without it

    law = getattr(stats, recipe.scipy)(**recipe.scipy_values)
    theta = torch.tensor(recipe.theta, dtype=torch.float64)
    z = recipe.draw(theta, uniform, normal)  # (n,)
    ks = math.sqrt(len(z)) * stats.kstest(z.numpy(), law.cdf, mode="asymp").statistic
    moments = derivatives = math.nan
    if recipe.moments:
        mean, variance = (float(each) for each in law.stats("mv"))
        moments = max(_standard_errors(z, mean), _standard_errors((z - mean).square(), variance))
    if recipe.square is not None:
        moved = theta.clone().requires_grad_()
        (truth,) = torch.autograd.grad(recipe.square(moved), moved)  # (P,)
        each = theta[:, None].repeat(1, len(z)).requires_grad_()  # a copy of theta for each draw
        (slopes,) = torch.autograd.grad(recipe.draw(each, uniform, normal).square().sum(), each)  # (P, n)
        derivatives = max(_standard_errors(row, value.item()) for row, value in zip(slopes, truth, strict=True))
    return Judged(recipe.name, recipe.kind, float(ks), moments, derivatives)


def _standard_errors(values: Tensor, truth: float) -> float:
    """|mean - truth| in standard errors; where nothing varies, 0 for the truth and infinity for anything else."""
    off, error = abs(values.mean().item() - truth), values.std().item() / math.sqrt(len(values))
    if error <= 1e-12:
        return 0.0 if off <= 1e-12 else math.inf
    return off / error


def noise(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """uniform (U, n), kept off 0 and 1 by half a step of float64's grid, and normal (E, n)."""
    tiny = 2.0**-54
    uniform = torch.rand(N_UNIFORM, n, dtype=torch.float64, generator=rng).clamp(tiny, 1 - 2 * tiny)
    return uniform, torch.randn(N_NORMAL, n, dtype=torch.float64, generator=rng)


def recipe_checks(n: int, rng: torch.Generator) -> tuple[dict[str, Score], list[dict[str, Any]]]:
    """ks_<kind>, moments_<kind>: the worst recipe of each kind; derivatives: the worst of all. And a row a recipe."""
    rows = [judged(recipe, *noise(n, rng)) for recipe in RECIPES]
    chosen = {
        f"{name}_{kind}": [getattr(row, name) for row in rows if row.kind == kind]
        for name in ("ks", "moments")
        for kind in KINDS
    }
    chosen["derivatives"] = [row.derivatives for row in rows]
    scores = {}
    for name, values in chosen.items():
        known = [value for value in values if not math.isnan(value)]
        unit = "sqrt(n) x distance" if name.startswith("ks") else "standard errors"
        protocol = {"draws": n, "laws": len(known), "reduced": "the worst of them"}
        scores[name] = Score(max(known), math.nan, unit, False, n, protocol)
    return scores, [row._asdict() for row in rows]
