"""Section 2's measurements against closed forms, SciPy and POT; theorem 3 against the plan held fixed; the exhibits."""

import dataclasses
import json
import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import ot as pot
import pytest
import torch
from scipy import integrate, stats

from lib import transport as ot
from lib.execution.execute import Options, deterministic, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import Workspace
from lib.results import readable_json, score_from_json, score_to_json
from lib.training.randomness import Streams
from replications.papers import Paper, Results
from replications.wgan2017 import distances as module
from replications.wgan2017 import figures_distances
from replications.wgan2017 import parallel_lines as lines
from replications.wgan2017.config import DistancesConfig

SMOKE = DistancesConfig(
    n_points=32, descent_steps=12, descent_rate=0.2, n_discriminator_steps=60, n_retrain_steps=5, width=16,
    grid_sizes=(1, 10, 50), n_repeats=40, n_pairs=5, epsilons=(1.0, 0.05), sinkhorn_steps=1500, n_cloud=16,
    n_generators=2, n_shifted=500, bias_sizes=(8, 16, 32), bias_repeats=6,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic("cpu"):
        yield


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    with deterministic("cpu"):
        return module.distances(SMOKE, Workspace(tmp_path_factory.mktemp("distances"), 0))


def value(outcome, name):
    return outcome.scores[name].value


def test_scores_are_finite_but_for_kl_and_survive_json(outcome):
    for name, score in outcome.scores.items():
        infinite = "kl" in name and math.isinf(score.value)
        assert math.isfinite(score.value) or infinite, name
        again = score_from_json(json.loads(readable_json(score_to_json(score))))
        assert again.value == score.value
        assert "." not in name
    assert value(outcome, "kl_t1") == value(outcome, "kl_reverse_tm0p1") == math.inf


def test_another_call_gives_the_same_bits_and_another_seed_others(outcome, tmp_path):
    again, other = (module.distances(SMOKE, Workspace(tmp_path, seed)) for seed in (0, 1))
    assert {name: score.value for name, score in again.scores.items()} == {
        name: score.value for name, score in outcome.scores.items()
    }
    assert [list(row.values())[1:5] for row in again.history] == [list(row.values())[1:5] for row in outcome.history]
    drawn = ("w_fresh_t0p5", "js_trained_t0", "descent_w_fresh", "w1_random_n10", "bias_d2_n16", "shift_w_error")
    assert not [name for name in drawn if value(other, name) == value(outcome, name)]
    fixed = ("w_error", "lp_value", "w1_left_n10", "descent_w", "sinkhorn_e0p05", "square_norm")
    assert not [name for name in fixed if value(other, name) != value(outcome, name)]


def test_a_run_is_read_back_as_it_was_computed(outcome, tmp_path):
    run, store = Run("wgan2017", "distances", "smoke", SMOKE, 0, {}, 1), Store(tmp_path)
    report = execute(run, lambda run, workspace: module.distances(run.config, workspace), store, Options())
    assert report.ending == "finished"
    read = store.read(run)
    assert {name: score.value for name, score in read.scores.items()} == {
        name: score.value for name, score in outcome.scores.items()
    }
    assert [list(row.values())[:5] for row in read.history()] == [list(row.values())[:5] for row in outcome.history]
    assert read.facts == outcome.facts


# --- example 1 ---


def test_example_1_has_the_papers_values(outcome):
    for theta in SMOKE.thetas:
        at = {name: value(outcome, lines.key(name, t=theta)) for name in ("w", "js", "tv", "kl", "kl_reverse")}
        apart = theta != 0
        infinite = math.inf if apart else 0
        expected = {
            "w": abs(theta),
            "js": apart * math.log(2),
            "tv": float(apart),
            "kl": infinite,
            "kl_reverse": infinite,
        }
        assert at == pytest.approx(expected, abs=1e-12)
    assert value(outcome, "w_error") < 1e-15
    assert value(outcome, "kl_infinite") == value(outcome, "tv_least") == 1
    assert value(outcome, "js_least") == pytest.approx(math.log(2), abs=1e-15)


def test_samples_of_the_lines_are_farther_apart_than_the_lines(outcome):
    for theta in SMOKE.thetas:
        excess = value(outcome, lines.key("w_excess", t=theta))
        assert 0 < excess < 0.2
        assert value(outcome, lines.key("w_fresh", t=theta)) == pytest.approx(abs(theta) + excess, abs=1e-15)
    assert value(outcome, "w_excess_t0") > 5 * value(outcome, "w_excess_t1")


def test_figure_1_is_a_v_beside_a_plateau_with_a_hole(outcome):
    drawn = {name: np.array(values) for name, values in outcome.facts["figure_1"].items()}
    assert drawn["w"] == pytest.approx(np.abs(drawn["theta"]), abs=1e-12)
    assert drawn["js"] == pytest.approx(np.where(drawn["theta"] == 0, 0, math.log(2)), abs=1e-12)
    assert (drawn["theta"] == 0).sum() == 1


def test_descents(outcome):
    start, *_, end = outcome.history
    assert [start[name] for name in ("step", "w", "w_fresh", "js", "js_trained")] == [0, 1, 1, 1, 1]
    assert [row["step"] for row in outcome.history] == list(range(SMOKE.descent_steps + 1))
    assert [row["w"] for row in outcome.history[:6]] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-12)
    assert abs(end["w"]) <= SMOKE.descent_rate + 1e-12
    assert all(abs(row["w_fresh"]) <= SMOKE.descent_rate for row in outcome.history[6:])
    assert {row["js"] for row in outcome.history} == {1.0}
    assert value(outcome, "descent_js_slope") == value(outcome, "descent_js_moved") == 0
    assert value(outcome, "descent_js_trained_moved") == abs(end["js_trained"] - 1)
    assert 0 < value(outcome, "descent_js_trained_moved") < 0.3
    assert value(outcome, "descent_w_fresh_steps") in (5, 6)


# --- discrete against continuous, theorem 2, section 5 ---


def test_discrete_against_continuous(outcome):
    for n in SMOKE.grid_sizes:
        assert value(outcome, f"w1_midpoints_n{n}") == pytest.approx(1 / (4 * n), rel=1e-12)
        assert value(outcome, f"w1_left_n{n}") == pytest.approx(1 / (2 * n), rel=1e-12)
        score = outcome.scores[f"w1_random_n{n}"]
        assert score.n == SMOKE.n_repeats
        assert abs(score.value - value(outcome, f"w1_random_exact_n{n}")) < 4 * score.stderr
    exact = {name: value(outcome, name) for name in ("w1_delta", "w1_bernoulli", "tv_discrete", "js_discrete")}
    expected = {"w1_delta": 0.5, "w1_bernoulli": 0.25, "tv_discrete": 1, "js_discrete": math.log(2)}
    assert exact == pytest.approx(expected, abs=1e-12)
    assert (value(outcome, "two_plans_w"), value(outcome, "two_plans_count")) == (2, 2)


@pytest.mark.parametrize("n", [1, 7, 40])
def test_the_mean_of_random_points_agrees_with_scipys_binomials(n):
    def deviation(u):
        return stats.binom(n, u).expect(lambda k: np.abs(k - n * u))

    points = np.arange(n + 1) / n
    whole = sum(integrate.fixed_quad(np.vectorize(deviation), a, b, n=12)[0] for a, b in pairwise(points))
    assert module.random_points_mean(n) == pytest.approx(whole / math.sqrt(n), abs=1e-9)


def test_the_mean_of_random_points_tends_to_the_lectures_limit():
    assert module.random_points_mean(1) == pytest.approx(1 / 3, abs=1e-12)
    assert module.random_points_mean(100_000) == pytest.approx(math.sqrt(2 / math.pi) * math.pi / 8, abs=1e-6)


def test_theorem_2s_sequences(outcome):
    for n in SMOKE.grid_sizes:
        moving = [value(outcome, f"moving_{what}_n{n}") for what in ("w", "tv", "js", "kl", "kl_reverse")]
        assert moving == pytest.approx([1 / n, 1, math.log(2), math.inf, math.inf], abs=1e-12)
        share, middle = 1 / n, 1 / (2 * n)
        js = (stats.entropy([1 - share, share], [1 - middle, middle]) + stats.entropy([1, 0], [1 - middle, middle])) / 2
        kl = -math.log1p(-share) if n > 1 else math.inf
        leaking = [value(outcome, f"leaking_{what}_n{n}") for what in ("w", "tv", "js", "kl", "kl_reverse")]
        assert leaking == pytest.approx([share, share, js, math.inf, kl], abs=1e-12)
    assert value(outcome, "moving_least") == pytest.approx(1, abs=1e-12)
    assert value(outcome, "leaking_largest") == pytest.approx(-math.log(1 - 1 / 50), abs=1e-12)


def test_section_5s_metric_is_twice_total_variation(outcome):
    assert value(outcome, "ipm_over_tv") == pytest.approx(2, abs=1e-9)
    assert value(outcome, "ipm_error") < 1e-9
    assert value(outcome, "tv_error") < 1e-12


# --- plan and critic ---


def test_the_small_case(outcome):
    cost = np.linalg.norm(np.subtract(np.array(module.SOURCES)[:, None], module.TARGETS), axis=-1)
    theirs = pot.emd2(np.array(module.SOURCE_MASSES), np.array(module.TARGET_MASSES), cost)
    for name in ("lp_value", "lp_dual", "lp_critic"):
        assert value(outcome, name) == pytest.approx(1.5033344702, abs=5e-11)
        assert value(outcome, name) == pytest.approx(theirs, abs=1e-9)
    zeros = ("lp_gap", "slack_moved", "line_norm_error", "line_gradient_error", "sinkhorn_rows")
    assert max(abs(value(outcome, name)) for name in zeros) < 1e-6
    assert value(outcome, "lp_critic_k3") == pytest.approx(3, abs=1e-9)
    assert value(outcome, "potential_lipschitz") == pytest.approx(1, abs=1e-9)
    assert 0.5 < value(outcome, "square_norm") < 0.99
    plan, potential = (np.array(outcome.facts["small_case"][name]) for name in ("plan", "potential"))
    assert plan.sum(1) == pytest.approx(module.SOURCE_MASSES, abs=1e-9)
    assert plan.sum(0) == pytest.approx(module.TARGET_MASSES, abs=1e-9)
    assert potential == pytest.approx([0, -0.822, -1, -1.236, -1.822, -2.236, -2, -2.236], abs=5e-4)


def test_the_critics_gradient_on_and_off_a_line():
    """Two points two apart: 1 on the line between; off it the two extensions turn away from each other."""
    points, potential = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([0.0, -2.0])
    at = np.array([[0.5, 0.0], [1.9, 0.0], [1.0, 3.0]])
    gradient = module.critic_gradient(points, potential, at)
    assert gradient[:2] == pytest.approx(np.array([[-1, 0], [-1, 0]]), abs=1e-8)
    largest, smallest = np.array([-1.0, 3.0]), -np.array([1.0, 3.0])  # up from (2, 0), down from (0, 0)
    assert gradient[2] == pytest.approx((largest + smallest) / 2 / math.sqrt(10), abs=1e-8)


def test_sinkhorn_scores(outcome):
    lp = value(outcome, "lp_value")
    wide, narrow = (value(outcome, lines.key("sinkhorn", e=e)) for e in SMOKE.epsilons)
    assert wide > narrow > lp
    assert value(outcome, "sinkhorn_excess") == pytest.approx(narrow - lp, abs=1e-12)
    assert value(outcome, "sinkhorn_cost_e0p05") == pytest.approx(lp, abs=0.01)
    assert value(outcome, "sinkhorn_cost_e1") < wide
    assert value(outcome, "sinkhorn_equal") > 0.05
    assert value(outcome, "sinkhorn_equal_debiased") == pytest.approx(0, abs=1e-9)


# --- theorem 3, samples ---


def test_theorem_3(outcome):
    assert value(outcome, "theorem3_error") < 1e-6
    assert value(outcome, "theorem3_margin") > 1e-12
    assert value(outcome, "theorem3_vertex_error") > 100 * value(outcome, "theorem3_error")
    assert value(outcome, "theorem3_vertex_kinks") > 0.4
    assert value(outcome, "shift_slope_error") < 0.01
    assert value(outcome, "shift_w_error") < 4 * math.sqrt(2 / SMOKE.n_shifted)


def test_the_critics_slope_agrees_with_autograd_through_the_plan():
    """The envelope theorem: the cost of the plan held fixed has the same gradient as the critic's mean."""
    draws = np.random.default_rng(0)
    z, real, theta = draws.random((12, 2)), draws.random((12, 2)), draws.normal(size=6)
    fake = module.generated(theta, z)
    assert fake[3] == pytest.approx(theta[:4].reshape(2, 2) @ z[3] + theta[4:], abs=1e-15)
    found = ot.optimal_assignment(fake, real)
    _, g = ot.assignment_potentials(ot.distances_between(fake, real), found.partner)
    at = torch.tensor(theta, requires_grad=True)
    points = torch.from_numpy(z) @ at[:4].view(2, 2).T + at[4:]
    (points - torch.from_numpy(real[found.partner])).norm(dim=1).mean().backward()
    assert module.critic_slope(theta, z, real, g) == pytest.approx(at.grad.numpy(), abs=1e-12)


def test_the_bias_of_samples(outcome):
    for d in SMOKE.dimensions:
        means = [value(outcome, f"bias_d{d}_n{n}") for n in SMOKE.bias_sizes]
        assert means == sorted(means, reverse=True)
        slope = outcome.scores[f"bias_exponent_d{d}"]
        assert slope.n == SMOKE.bias_repeats
        assert slope.value == pytest.approx({1: -0.5, 2: -0.45, 8: -0.16}[d], abs=max(0.08, 4 * slope.stderr))
    on_line = outcome.scores["bias_d1_n32"]
    limit = 2 / math.sqrt(math.pi) * math.pi / 8  # sqrt(n) times the mean, the lecture's limit times sqrt(2)
    assert abs(math.sqrt(32) * on_line.value - limit) < 4 * math.sqrt(32) * on_line.stderr


def test_the_power_is_fitted_to_logarithms(monkeypatch):
    """Clouds whose distance is 3 n^-0.3 to the digit."""
    monkeypatch.setattr(module, "uniform", lambda streams, stream, step, *shape: np.empty(shape))
    monkeypatch.setattr(ot, "wasserstein_on_line", lambda x, y: 3 * len(x) ** -0.3)
    scores = module.bias_scores(dataclasses.replace(SMOKE, dimensions=(1,)), Streams(0))
    assert scores["bias_exponent_d1"].value == pytest.approx(-0.3, abs=1e-12)
    assert scores["bias_d1_n16"].value == pytest.approx(3 * 16**-0.3, abs=1e-12)


# --- exhibits ---


def test_exhibits_are_drawn_from_runs_and_absent_without(outcome, tmp_path):
    run, store = Run("wgan2017", "distances", "smoke", SMOKE, 0, {}, 1), Store(tmp_path)
    claim = {"test": {"score": "distances.lp_value"}, "reported": {"text": "as in the sheet"}}
    paper = Paper("wgan2017", lines, {"claims": [claim]})
    absent = Results(paper, "smoke", store, [(run, None)])
    assert figures_distances.finished(absent) is None
    assert set(figures_distances.captions(absent).values()) == {""}
    execute(run, lambda run, workspace: outcome, store, Options())
    results = Results(paper, "smoke", store, [(run, store.read(run))])
    assert figures_distances.finished(results).scores == store.read(run).scores
    assert all(figures_distances.captions(results).values())
    checks = figures_distances.checks_table(results).set_index("check")
    assert checks.loc["Small case: cheapest plan"].tolist() == ["as in the sheet", "1.5033344702", "–"]
    assert checks.loc["… d = 2", "should be"] == "–"
    table = figures_distances.lines_table(results)
    assert table["KL"].tolist() == ["∞"] * 3 + ["0.0000"] + ["∞"] * 3
    assert table["|θ|"].tolist() == ["1", "0.5", "0.1", "0", "0.1", "0.5", "1"]
    assert figures_distances.sequences_table(results)["W"].tolist() == ["1.000000", "0.100000", "0.020000"] * 2
    assert figures_distances.discrete_table(results)["measured"].tolist() == ["0.25", "0.025", "0.005"]
    for draw in ("figure_1", "descents", "rates", "transport", "sinkhorn"):
        figure = getattr(figures_distances, draw)(results)
        assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
        plt.close(figure)
