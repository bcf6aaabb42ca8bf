"""The toy's figures and table, from tiny runs; also where some runs are missing."""

import math

import matplotlib.pyplot as plt
import pytest

from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from replications.cyclegan2017 import figures_mixtures
from replications.cyclegan2017.config import MixturesConfig
from replications.cyclegan2017.mixtures import mixtures
from replications.papers import Results

PLANNED = [("grid", "gan"), ("grid", "cyclegan"), ("ring", "identity")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    store, outcomes = Store(tmp_path_factory.mktemp("runs")), []
    for target, variant in PLANNED:
        config = MixturesConfig(target, n_steps=2, n_models=3, width=4, batch=4, n_points=5)
        run = Run("cyclegan2017", f"mixtures-{target}-{variant}", "smoke", config, 0, {}, 1)
        execute(run, lambda run, workspace: mixtures(run.config, workspace), store, Options())
        outcomes.append((run, store.read(run)))
    return Results(None, "smoke", store, outcomes)


def test_the_table_has_each_run_with_its_scores(results):
    rows = figures_mixtures.table(results)
    assert rows["B"].tolist() == ["grid", "grid", "ring"]
    assert rows["losses"].tolist() == ["GAN alone", "GAN + both", "both + identity"]
    score = results.finished("mixtures-ring-identity")[0].scores["moved"]
    assert rows["|G(a) − a|"][2] == f"{score.value:.3f} ± {score.stderr:.3f}"


def test_figures_show_each_run_and_only_the_models_there_are(results):
    figure = figures_mixtures.maps(results)
    used = [axis for axis in figure.axes if axis.axison]
    assert len(used) == 1 + len(PLANNED) + 2  # A, each variant's first model, and models 2 and 3 of one variant
    n_points = [len(collection.get_offsets()) for axis in used for collection in axis.collections]
    assert sorted(n_points) == 5 * [8] + 6 * [40]  # circles; points
    dots = figures_mixtures.dots(results)
    heights = [y for _, y in dots.axes[0].collections[0].get_offsets()]
    assert heights == pytest.approx(sorted(results.finished("mixtures-grid-gan")[0].facts["pairing"]))
    plt.close("all")


def test_captions_say_what_was_trained_and_vanish_without_runs(results):
    captions = figures_mixtures.captions(results)
    assert set(captions) == {"maps", "dots", "table"}
    assert all("3 models a variant, 2 updates with minibatches of 4" in text for text in captions.values())
    assert f"{math.log(8):.3f} nats" in captions["table"]
    assert figures_mixtures.captions(results._replace(outcomes=[])) == {}
