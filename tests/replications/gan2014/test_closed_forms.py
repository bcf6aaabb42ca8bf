"""The theory's measurements against the fact sheet's digits, SciPy, scikit-learn and autograd."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.spatial.distance import jensenshannon
from sklearn.linear_model import LogisticRegression

from lib.execution.execute import deterministic
from lib.training.randomness import Streams, generator
from replications.gan2014 import closed_forms
from replications.gan2014.config import TheoryConfig

SMALL = TheoryConfig(n_monte_carlo=20_000, n_logistic=5_000, n_lbfgs=60, n_segments=200)
# m, JSD, C(G), TV of N(0, 1) and N(m, 1): the fact sheet, theory 2, as printed there.
SHEET = (
    (0.0, 0, -1.386294, 0),
    (0.5, 0.030311, -1.325672, 0.197413),
    (1.0, 0.111421, -1.163451, 0.382925),
    (2.0, 0.336831, -0.712633, 0.682689),
    (3.0, 0.526777, -0.332740, 0.866386),
    (4.0, 0.632720, -0.120854, 0.9545),
    (6.0, 0.689298, -0.007698, 0.9973),
    (8.0, 0.693054, -0.000187, 0.999937),
)


@pytest.fixture(scope="module")
def outcome():
    with deterministic("cpu"):
        return closed_forms.theory(SMALL, Streams(0))


def simplex(*shape):
    draws = torch.empty(shape, dtype=torch.float64).exponential_(generator=generator(0, "simplex"))
    return draws / draws.sum(-1, keepdim=True)


@pytest.mark.parametrize(("shift", "jsd", "value", "tv"), SHEET)
def test_gaussian_table_has_the_fact_sheets_digits(outcome, shift, jsd, value, tv):
    measured = {name: outcome.scores[closed_forms.key(name, shift)].value for name in ("jsd", "value", "kl", "tv")}
    assert measured == pytest.approx({"jsd": jsd, "value": value, "kl": shift**2 / 2, "tv": tv}, abs=5.1e-7)


@pytest.mark.parametrize("shift", [0.5, 2.0, 6.0])
def test_gaussian_divergences_agree_with_quad(outcome, shift):
    def density(x):
        p, q = stats.norm.pdf(x), stats.norm.pdf(x, shift)
        return 0.5 * (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q)))

    jsd = integrate.quad(density, -10, shift + 10, points=(0, shift), epsabs=1e-12)[0]
    assert outcome.scores[closed_forms.key("jsd", shift)].value == pytest.approx(jsd, abs=1e-10)


def test_jensen_shannon_agrees_with_scipy():
    p, q = simplex(2, 20, 6)
    theirs = [jensenshannon(a, b) ** 2 for a, b in zip(p.numpy(), q.numpy(), strict=True)]
    assert closed_forms.jensen_shannon(p, q).tolist() == pytest.approx(theirs, abs=1e-12)


def test_jensen_shannon_is_log_2_for_disjoint_supports():
    p, q = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert closed_forms.jensen_shannon(p, q).item() == pytest.approx(math.log(2))


def test_criterion_is_the_most_any_discriminator_reaches():
    p, q = simplex(2, 5)
    d = torch.rand(1000, 5, generator=generator(0, "d"), dtype=torch.float64)
    values = (p * d.log() + q * torch.log1p(-d)).sum(-1)
    assert values.max() < closed_forms.criterion(p, q)
    d = p / (p + q)
    assert (p * d.log() + q * torch.log1p(-d)).sum() == pytest.approx(closed_forms.criterion(p, q).item(), abs=1e-14)


def test_discrete_case_has_the_fact_sheets_digits(outcome):
    assert outcome.scores["discrete_jsd"].value == pytest.approx(0.221473, abs=5e-7)
    assert outcome.scores["discrete_value"].value == pytest.approx(-0.943348, abs=5e-7)
    assert outcome.scores["discrete_error"].value < 1e-9
    assert outcome.scores["discrete_ratio_error"].value < 1e-9


def test_discrete_ascent_is_not_there_after_a_few_steps():
    few = closed_forms.discrete_checks(dataclasses.replace(SMALL, n_ascent_steps=10))
    assert few["discrete_error"].value > 0.1


def test_identities_hold_and_draws_agree(outcome):
    scores = {name: score.value for name, score in outcome.scores.items()}
    assert max(scores[name] for name in ("identity_residual", "kl_error", "tv_error")) < 1e-9
    assert 0 < scores["sampled_worst"] < 5
    sampled = outcome.scores["value_sampled_m1"]
    draws = stats.norm.rvs(size=(2, 100_000), random_state=1)
    terms = -np.logaddexp(0, draws[0] - 0.5) - np.logaddexp(0, 0.5 - (draws[1] + 1))
    assert sampled.stderr == pytest.approx(terms.std() / math.sqrt(SMALL.n_monte_carlo), rel=0.03)


def test_logit_gradients_are_d_and_one_minus_d():
    logit = torch.tensor([-10.0, -5.0, -2.0, 0.0], dtype=torch.float64)
    saturating, nonsaturating = closed_forms.logit_gradients(logit)
    assert saturating.tolist() == pytest.approx([4.54e-5, 0.0067, 0.119, 0.5], rel=2e-3)  # lecture topic 3, as printed
    assert nonsaturating.tolist() == pytest.approx([0.99995, 0.9933, 0.881, 0.5], rel=3e-4)
    assert closed_forms.logit_gradient_error().value < 1e-12


@pytest.mark.parametrize("shift", [1.0, 2.0, 4.0, 8.0])
def test_gradients_on_fakes_agree_with_quad_and_with_draws(outcome, shift):
    def d_on_fakes(x):
        return stats.norm.pdf(x, shift) / (1 + math.exp(shift * x - shift**2 / 2))

    saturating = shift * integrate.quad(d_on_fakes, -9, shift + 9, epsabs=1e-13)[0]
    exact = {"saturating": saturating, "nonsaturating": shift - saturating}
    for name, value in exact.items():
        assert outcome.scores[closed_forms.key(name, shift)].value == pytest.approx(value, abs=1e-9)
        if shift < 8:  # few draws decide at 8: NOTE gan2014-N20
            sampled = outcome.scores[closed_forms.key(f"{name}_sampled", shift)]
            assert sampled.value == pytest.approx(value, abs=5 * sampled.stderr)


def test_gradients_are_those_of_the_divergences(outcome):
    assert outcome.scores["saturating_residual"].value < 1e-7
    assert outcome.scores["nonsaturating_residual"].value < 1e-7
    assert closed_forms._slope(closed_forms._kl_to_data, 2.0).item() == pytest.approx(2.0, abs=1e-7)  # of m^2 / 2


def test_logistic_slope_agrees_with_scikit_learn_and_its_error_with_the_hessian():
    draws = torch.randn(2, 4000, generator=generator(0, "draws"), dtype=torch.float64)
    real, fake = draws[0], draws[1] + 1
    slope, stderr = closed_forms.logistic_slope(real, fake)
    x, label = torch.cat([real, fake]), torch.cat([torch.ones(4000), torch.zeros(4000)]).double()
    theirs = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(x[:, None].numpy(), label.numpy())
    assert slope == pytest.approx(theirs.coef_[0, 0], abs=1e-5)

    def loss(weights):
        logit = weights[0] + weights[1] * x
        return torch.nn.functional.binary_cross_entropy_with_logits(logit, label, reduction="sum")

    at = torch.tensor([theirs.intercept_[0], theirs.coef_[0, 0]], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(loss, at)
    assert stderr == pytest.approx(math.sqrt(torch.linalg.inv(hessian)[1, 1].item()), rel=1e-4)


def test_slopes_are_near_the_theory(outcome):
    for shift in SMALL.logistic_shifts:
        score = outcome.scores[closed_forms.key("slope_ratio", shift)]
        assert score.value == pytest.approx(1, abs=5 * score.stderr)
        assert score.stderr < 0.03


def test_learned_discriminator_nears_the_optimal_one(outcome):
    with deterministic("cpu"):
        scores, curves = closed_forms.learned_discriminator(dataclasses.replace(SMALL, n_lbfgs=300), Streams(1))
    assert scores["learned_error"].value < 0.02
    assert 0 < scores["learned_value_gap"].value < 1e-4 < outcome.scores["learned_value_gap"].value + 1e-4
    p, q = (curves[name] for name in ("p", "q"))
    wide = stats.norm.pdf(curves["x"].numpy(), 0, 1.5)
    assert q.tolist() == pytest.approx(wide.tolist(), abs=1e-12)
    assert (p.sum() * 12 / 480).item() == pytest.approx(1, abs=1e-6)
    assert curves["learned"].shape == p.shape


def test_descent_follows_the_gradient_of_c_and_reaches_the_data():
    rows = list(closed_forms.prop2_descent(SMALL))
    p, w = closed_forms.two_bumps(), torch.zeros(10, dtype=torch.float64)
    w[0] = 5.0
    for row in rows[:20]:  # autograd through C itself, not through V with D held
        w = w.detach().requires_grad_()
        value = closed_forms.criterion(p, torch.softmax(w, 0))
        assert row["value"] == pytest.approx(value.item(), abs=1e-12)
        w = w - SMALL.descent_rate * torch.autograd.grad(value, w)[0]
    assert rows[0]["jsd"] > 0.3
    assert rows[-1]["jsd"] < 1e-8
    assert len(rows) == SMALL.n_steps + 1


def test_convexity_and_minimum(outcome):
    assert outcome.scores["convexity_violation"].value < 1e-12
    assert 1 <= outcome.scores["excess_over_tv"].value < 2


def test_a_concave_criterion_would_be_found_out(monkeypatch):
    criterion = closed_forms.criterion
    monkeypatch.setattr(closed_forms, "criterion", lambda p, q: -criterion(p, q))
    assert closed_forms.convexity_checks(SMALL, Streams(0))["convexity_violation"].value > 1e-3


def test_game_grows_at_once_and_stays_bounded_in_turns():
    rows = closed_forms.bilinear_game(100, 0.1)
    together = [math.hypot(row["together_x"], row["together_y"]) for row in rows]
    assert together == pytest.approx([1.01 ** (t / 2) for t in range(101)])
    assert together[-1] == pytest.approx(1.644632, abs=5e-7)  # lecture topic 3
    turn = np.array([[1, -0.1], [0, 1]]) @ np.array([[1, 0], [0.1, 1]])  # first y, then x
    end = np.linalg.matrix_power(turn, 100) @ (1, 0)
    assert (rows[-1]["turns_x"], rows[-1]["turns_y"]) == pytest.approx(tuple(end))
    assert np.hypot(*end) == pytest.approx(0.978, abs=5e-4)


def test_turns_never_leave_their_ellipse_and_steps_at_once_do(outcome):
    """x^2 + y^2 + rate x y keeps its value, so the radius is at most 1 / sqrt(1 - rate / 2), here nearly reached."""
    rows = closed_forms.bilinear_game(SMALL.n_steps, SMALL.game_rate)
    kept = [r["turns_x"] ** 2 + r["turns_y"] ** 2 + SMALL.game_rate * r["turns_x"] * r["turns_y"] for r in rows]
    assert kept == pytest.approx([1.0] * len(rows))
    bound = 1 / math.sqrt(1 - SMALL.game_rate / 2)
    assert bound == pytest.approx(1.025979, abs=1e-6)  # the claim's
    assert bound - 1e-4 < outcome.scores["radius_turns_widest"].value <= bound
    assert max(math.hypot(row["together_x"], row["together_y"]) for row in rows) > bound


def test_theory_is_whole_repeatable_and_varies_with_the_seed(outcome):
    with deterministic("cpu"):
        again, other = (closed_forms.theory(SMALL, Streams(seed)) for seed in (0, 1))
    assert {name: score.value for name, score in again.scores.items()} == {
        name: score.value for name, score in outcome.scores.items()
    }
    assert other.scores["value_sampled_m1"].value != outcome.scores["value_sampled_m1"].value
    assert other.scores["value_m1"].value == outcome.scores["value_m1"].value
    assert all(math.isfinite(score.value) and "." not in name for name, score in outcome.scores.items())
    assert {tuple(row) for row in outcome.history} == {tuple(outcome.history[0])}
    assert [row["step"] for row in outcome.history] == list(range(SMALL.n_steps + 1))
