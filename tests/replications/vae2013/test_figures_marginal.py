"""Figure 3 and its table, from tiny runs; also where some are missing."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lib import datasets
from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from replications.papers import Results
from replications.vae2013 import figures_marginal
from replications.vae2013.marginal import MarginalConfig
from replications.vae2013.monte_carlo_em import figure_three

PLANNED = [("mcem", 200), ("aevb", 200), ("wake-sleep", 100)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    store, outcomes = Store(tmp_path_factory.mktemp("runs")), []
    for algorithm, n_train in PLANNED:
        config = MarginalConfig(
            "mnist-5k", algorithm, n_train, n_samples=600, n_models=2, n_hidden=4, n_latent=2, n_trial_steps=2,
            n_points=2, n_images=4, n_posterior=10, burn_in=4, n_start=4, n_importance=10,
        )  # fmt: skip
        data = {"mnist-5k": datasets.digest("mnist-5k")}
        run = Run("vae2013", f"marginal-{algorithm}-{n_train}", "smoke", config, 0, data, 1)
        execute(run, lambda run, workspace: figure_three(run.config, workspace), store, Options())
        outcomes.append((run, store.read(run)))
    return Results(None, "smoke", store, outcomes)


def test_each_estimator_has_a_column_of_its_own(results):
    rows = figures_marginal.table(results)
    assert rows["N"].tolist() == ["100", "200", "200"]
    assert rows["algorithm"].tolist() == ["wake-sleep", "AEVB", "Monte Carlo EM"]
    assert rows["IS, encoder, test"][2] == "–"
    for name, heading in (("is_fitted_test", "IS, fitted Gaussian, test"), ("appendix_d_test", "appendix D, test")):
        score = results.finished("marginal-mcem-200")[0].scores[name]
        assert rows[heading][2] == f"{score.value:,.1f} ± {score.stderr:.1f}".replace("-", "−")


def test_curves_are_the_runs_histories(results):
    figure = figures_marginal.curves(results)
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in figure.axes[:2]] == ["N = 100", "N = 200"]
    history = results.finished("marginal-mcem-200")[0].history()
    lines = {(tuple(np.round(line.get_xdata(), 6)), line.get_linestyle()): line.get_ydata()
             for axis in figure.axes for line in axis.lines}  # fmt: skip
    for over, scale in (("samples", 1e-3), ("gflop", 1)):
        for split, style in (("train", "--"), ("test", "-")):
            x = tuple(round(row[over] * scale, 6) for row in history)
            assert lines[x, style].tolist() == pytest.approx([row[f"appendix_d_{split}"] for row in history])
    plt.close("all")


def test_captions_say_what_each_algorithm_costs_and_vanish_without_runs(results):
    captions = figures_marginal.captions(results)
    assert set(captions) == {"curves", "table"}
    assert "5 AEVB, 37 Monte Carlo EM" in captions["curves"]
    assert "2 models an algorithm, 4 hidden units, 2 latents; the first 4 training" in captions["table"]
    assert figures_marginal.captions(results._replace(outcomes=[])) == {}
