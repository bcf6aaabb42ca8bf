"""Figures and tables of estimators, tightness and appendix F, from tiny runs; also where some are missing."""

import matplotlib.pyplot as plt
import pytest

from lib import datasets
from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from replications.papers import Results
from replications.vae2013 import figures_gradients
from replications.vae2013.full_bayes import ConjugateConfig, FullBayesConfig, conjugate, full_bayes
from replications.vae2013.gradients import GradientsConfig, ReparametrisationConfig, gradients, reparametrisation
from replications.vae2013.linear_vae import LinearVaeConfig, linear_vae

CONFIGS = {
    "reparametrisation": ReparametrisationConfig(n_recipes=200, n_draws=200, dimensions=(1, 10)),
    "gradients": GradientsConfig("mnist-5k", n_hidden=5, n_latent=2, n_samples=200, images=(1, 3), draws=(1, 2),
                                 n_repeats=(3, 3), n_bounds=2, n_images=10),
    "linear-vae": LinearVaeConfig("mnist-5k", fitted=(2,), n_latent=4, noise_variances=(2.0,), betas=(2.0,),
                                  beta_noise=2.0, n_directions=12, n_models=2, n_iterations=30),
    "conjugate": ConjugateConfig(n_repeats=200),
    "full-bayes-100": FullBayesConfig("uci-digits", 100, n_steps=2, n_models=2, n_hidden=4, batch=5,
                                      n_parameter_draws=1, n_elbo_draws=1),
}  # fmt: skip
SEEDS = {"gradients": 2}


def compute(run, workspace):
    match run.config:
        case ReparametrisationConfig():
            return reparametrisation(run.config, workspace)
        case ConjugateConfig():
            return conjugate(run.config, workspace)
        case GradientsConfig():
            return gradients(run.config, datasets.load(run.config.data), workspace)
        case LinearVaeConfig():
            return linear_vae(run.config, datasets.load(run.config.data), workspace)
    return full_bayes(run.config, datasets.load(run.config.data), workspace)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    store, outcomes = Store(tmp_path_factory.mktemp("runs")), []
    for experiment, config in CONFIGS.items():
        for seed in range(SEEDS.get(experiment, 1)):
            run = Run("vae2013", experiment, "smoke", config, seed, {}, 1)
            execute(run, compute, store, Options())
            outcomes.append((run, store.read(run)))
    yield Results(None, "smoke", store, outcomes)
    plt.close("all")


def test_tables_show_the_scores(results):
    recipes = figures_gradients.recipes_table(results)
    assert len(recipes) == 20
    assert recipes.set_index("law").loc["Cauchy", "mean and variance, s.e."] == "–"
    worst = results.finished("reparametrisation")[0].scores["ks_composition"].value
    of_kind = recipes[recipes["recipe"] == "composition"]["√n × KS distance"]
    assert f"{worst:.2f}" == max(of_kind)
    linear = figures_gradients.linear_table(results)
    assert linear["β"].tolist() == ["1", "1", "2"]
    assert linear["λ above β s²"].tolist()[1:] == ["6", "1"]
    gap = results.finished("linear-vae")[0].scores["gap_beta_2"].value
    assert linear["gap"][2] == f"{gap:.4f}"
    rows = figures_gradients.full_bayes_table(results)
    assert rows["trained by"].tolist() == ["MAP", "appendix F"]
    score = results.finished("full-bayes-100")[0].scores["full_bound"]
    assert rows["appendix F's bound"].tolist() == ["–", f"−{-score.value:.2f} ± {score.stderr:.2f}"]
    shared = figures_gradients.conjugate_table(results)["gap of the bound"][0]
    assert float(shared) == pytest.approx(results.finished("conjugate")[0].scores["gap_shared"].value, abs=1e-4)


def test_the_table_of_estimators_is_over_seeds(results):
    found = results.finished("gradients")
    rows = figures_gradients.estimators_table(results)
    assert len(rows) == 6
    mean = sum(outcome.scores["trained_bound_a"].value for outcome in found) / 2
    assert rows["estimator A, nats²"][3].startswith(f"{mean:,.2f} ± ")
    ratio = sum(outcome.scores["trained_gradient_ratio"].value for outcome in found) / 2
    assert rows["A / B"][4].startswith(f"{ratio:.3f} ± ")


def test_figures_draw_what_was_measured(results):
    left, mean, variance = figures_gradients.variances(results).axes
    assert len(left.collections) == 3
    squares = results.finished("reparametrisation")[0].facts["squares"]
    assert left.collections[0].get_offsets()[1].tolist() == pytest.approx([10, squares[4]["variance"]])
    assert len(mean.lines) == 3  # by temperature, by score function, truth
    assert len(variance.lines) == 2
    before, after = figures_gradients.estimators(results).axes
    assert len(before.lines) == len(after.lines) == 8  # A and B, two L, with and without the choice of images
    rows = [outcome.facts["start"] for outcome in results.finished("gradients")]
    expected = [sum(each[i]["variance_a"] for each in rows) / 2 for i in (0, 2)]
    assert before.lines[0].get_ydata().tolist() == pytest.approx(expected)
    each, counted = figures_gradients.collapse(results).axes
    assert [len(points.get_offsets()) for points in each.collections] == [4, 4]
    used = [results.finished("linear-vae")[0].scores[f"used_{name}"].value for name in ("s2_2", "beta_2")]
    assert [points.get_offsets()[0].tolist() for points in counted.collections] == [[2, used[0]], [4, used[1]]]
    picture = figures_gradients.directions(results).axes[0].images[0].get_array()
    assert picture.shape[0] > 2 * 28
    assert picture[:28].std() > 0.05


def test_captions_are_of_the_runs_that_are_there(results):
    assert set(figures_gradients.captions(results)) == {
        "recipes", "variances", "estimators", "estimators_table", "collapse", "directions", "linear", "conjugate",
        "full_bayes",
    }  # fmt: skip
    assert figures_gradients.captions(results._replace(outcomes=[])) == {}
    some = results._replace(outcomes=[pair for pair in results.outcomes if pair[0].experiment == "linear-vae"])
    assert set(figures_gradients.captions(some)) == {"collapse", "directions", "linear"}
    assert figures_gradients.full_bayes_table(some).empty
