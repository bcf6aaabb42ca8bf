"""The likelihood table from made-up runs: one bound a column, ours and theirs apart."""

import math

import matplotlib.pyplot as plt
import pytest

from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import Outcome
from lib.results import Score
from replications.papers import Results
from replications.vae2013 import figures_likelihoods as figures
from replications.vae2013.config import AevbConfig
from replications.vae2013.iwae import IwaeConfig


def outcome(base, **facts):
    settings = {"n_chains": 5, "n_distributions": 60, "n_leapfrog": 5, "data": "mnist-5k", "observation": "binary",
                "draws": 50}  # fmt: skip
    names = [*figures.COLUMNS, *figures.BRACKET, "elbo_test", "iwae_test", "active_units"]
    scores = {name: Score(base + n, 0.25, "nats/image", True, 50, settings) for n, name in enumerate(names)}
    history = [{"samples": n, "elbo_test": base - gain} for n, gain in ((1, 9.0), (4, 3.0), (13, 0.0))]
    return Outcome(scores, history, {}, facts=facts)


PLANNED = [
    ("iwae-k5", 0, IwaeConfig("mnist-5k", 5, 3), outcome(-90.0, epochs=13)),
    ("iwae-k1", 0, IwaeConfig("mnist-5k", 1, 3), outcome(-95.0, epochs=13)),
    ("iwae-k1", 1, IwaeConfig("mnist-5k", 1, 3), outcome(-97.0, epochs=13)),
    ("aevb-nz20", 0, AevbConfig("mnist-5k", 20, 100, n_few=4), outcome(-130.0)),
    ("aevb-nz3", 0, AevbConfig("mnist-5k", 3, 100, n_few=4), outcome(-170.0)),
    ("aevb-nz2", 0, AevbConfig("mnist-5k", 2, 100), Outcome({}, [], {})),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    store, outcomes = Store(tmp_path_factory.mktemp("runs")), []
    for experiment, seed, config, made in PLANNED:
        run = Run("vae2013", experiment, "smoke", config, seed, {}, 1)
        execute(run, lambda run, workspace, made=made: made, store, Options())
        outcomes.append((run, store.read(run)))
    return Results(None, "smoke", store, outcomes)


def test_models_stand_in_order_and_without_those_that_lack_the_bounds(results):
    labels = [label for label, _ in figures.models(results).values()]
    assert labels == [
        "AEVB, one layer of 500, N_z = 3", "AEVB, one layer of 500, N_z = 20",
        "Burda's, two layers of 200, N_z = 50, VAE, 13 epochs",
        "Burda's, two layers of 200, N_z = 50, IWAE, k = 5, 13 epochs",
    ]  # fmt: skip


def test_each_bound_has_its_column(results):
    rows = figures.table(results).to_dict("records")
    assert rows[2] == {
        "model": "Burda's, two layers of 200, N_z = 50, VAE, 13 epochs", "seeds": "2", "ELBO": "−96.00 ± 1.41",
        "L_5": "−95.00 ± 1.41", "L_50": "−94.00 ± 1.41", "L_5,000": "−93.00 ± 1.41",
        "AIS, lower bound": "−92.00 ± 1.41", "s.e. over images": "0.25",
    }  # fmt: skip
    simulated = figures.bracket_table(results).to_dict("records")[0]
    assert simulated["upper − lower"] == "−162.00"
    assert not any("arzen" in column for column in figures.table(results))


def test_all_test_images_have_their_own_table(results):
    row = figures.all_test_images(results).to_dict("records")[0]
    assert (row["ELBO"], row["L_50"], row["active units"]) == ("−161.00", "−160.00", "−159.0")


def test_the_schedule_is_told_stage_by_stage(results):
    rows = figures.schedule_table(results).to_dict("records")
    assert [row["model"] for row in rows] == [label for label, _ in figures.models(results).values()][2:]
    stages = {"ELBO at epoch 1": "−105.0 ± 1.4", "ELBO at epoch 4": "−99.0 ± 1.4", "ELBO at epoch 13": "−96.0 ± 1.4"}
    assert rows[0] == {"model": rows[0]["model"], "seeds": "2", **stages, "last gain / the one before": "0.50"}
    assert rows[1]["ELBO at epoch 13"] == "−90.0"
    assert figures.schedule_table(Results(None, "smoke", results.store, [])).empty


def test_ours_and_theirs_share_no_column():
    assert not {"ELBO", "L_5,000", "AIS, lower bound"} & set(figures.theirs())
    assert figures.theirs().notna().all().all()


def test_the_figure_has_a_line_and_a_level_for_each_model(results):
    figure = figures.bounds(results)
    lines = figure.axes[0].get_lines()
    plt.close(figure)
    assert len(lines) == 8
    assert list(lines[0].get_xdata()) == [1, 5, 50, 5000]
    assert list(lines[0].get_ydata()) == [-170, -169, -168, -167]
    assert set(lines[1].get_ydata()) == {-166}


def test_captions_name_the_protocol_or_are_absent(results):
    found = figures.captions(results)
    assert "same 50 test images of mnist-5k (binary)" in found["table"]
    assert "60 distributions" in found["bracket"]
    assert figures.captions(Results(None, "smoke", results.store, [])) == {}
    assert not math.isnan(figures.models(results)["iwae-k1"][1][0].scores["few_ais"].stderr)
