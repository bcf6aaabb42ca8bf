"""Section 2.4's recipes: right ones pass, wrong ones are caught, by distribution, moments or derivative."""

import math

import pytest
import torch

from lib.training.randomness import generator
from replications.vae2013.recipes import KINDS, RECIPES, judged, noise, recipe_checks

OF = {recipe.name: recipe for recipe in RECIPES}


@pytest.mark.parametrize("name", OF)
def test_draws_have_the_law_its_moments_and_its_derivative(name):
    found = judged(OF[name], *noise(20_000, generator(3, name)))
    assert found.ks < 2.2
    assert math.isnan(found.moments) == (name == "Cauchy")
    assert not found.moments > 4
    assert math.isnan(found.derivatives) == (OF[name].square is None)
    assert not found.derivatives > 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("exponential", 2 * math.log(2)), ("Cauchy", 1.0), ("logistic", 1.0), ("Rayleigh", 2 * math.sqrt(2 * math.log(2))),
     ("reciprocal", 2.0), ("Gumbel", 1 - 2 * math.log(math.log(2))), ("uniform", 2.0), ("Gaussian", 2.0),
     ("Laplace", 1.0), ("gamma", 6 * math.log(2)), ("beta", 0.4), ("chi-squared", 1.0)],
)  # fmt: skip
def test_values_at_half_are_those_by_hand(name, value):
    """u = 1/2 everywhere and e = 1/2 everywhere: medians where the recipe is an inverse."""
    u, e = torch.full((15, 1), 0.5, dtype=torch.float64), torch.full((11, 1), 0.5, dtype=torch.float64)
    drawn = OF[name].draw(torch.tensor(OF[name].theta, dtype=torch.float64), u, e)
    assert drawn.item() == pytest.approx(value, abs=1e-12)


def test_a_wrong_scale_and_a_lost_derivative_are_caught():
    gaussian, rng = OF["Gaussian"], generator(0, "wrong")
    wide = gaussian._replace(draw=lambda t, u, e: t[0] + 1.03 * t[1] * e[0])
    lost = gaussian._replace(draw=lambda t, u, e: t[0] + t[1].detach() * e[0] + 0 * t[1])
    exponential = OF["exponential"]
    cut = exponential._replace(draw=lambda t, u, e: -u[0].log() / t[0].detach() + 0 * t[0])
    u, e = noise(100_000, rng)
    assert judged(wide, u, e).ks > 2.2
    assert judged(wide, u, e).moments > 4
    assert judged(lost, u, e).ks < 2.2
    assert judged(lost, u, e).derivatives > 100
    assert judged(cut, u, e).ks < 2.2
    assert judged(cut, u, e).derivatives > 100


def test_the_worst_of_each_kind_is_reported():
    scores, rows = recipe_checks(2000, generator(0, "worst"))
    assert [row["name"] for row in rows] == list(OF)
    for kind in KINDS:
        of_kind = [row["ks"] for row in rows if row["kind"] == kind]
        assert scores[f"ks_{kind}"].value == max(of_kind)
        assert scores[f"ks_{kind}"].protocol["laws"] == len(of_kind) >= 5
    for kind, n_laws in zip(KINDS, (8, 5, 6), strict=True):  # the Cauchy law has no moments
        moments = [row["moments"] for row in rows if row["kind"] == kind and row["name"] != "Cauchy"]
        assert scores[f"moments_{kind}"].value == max(moments)
        assert scores[f"moments_{kind}"].protocol["laws"] == n_laws
    slopes = [row["derivatives"] for row in rows if OF[row["name"]].square is not None]
    assert scores["derivatives"].value == max(slopes)
    assert scores["derivatives"].protocol["laws"] == sum(recipe.square is not None for recipe in RECIPES)


def test_draws_of_laws_keep_to_their_support():
    u, e = noise(1000, generator(0, "support"))
    for name, low, high in (("beta", 0, 1), ("Dirichlet", 0, 1), ("reciprocal", 1, 4), ("uniform", 1, 3), ("F", 0, 99)):
        z = OF[name].draw(torch.tensor(OF[name].theta, dtype=torch.float64), u, e)
        assert low < z.min() < z.max() < high
