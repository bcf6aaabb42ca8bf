"""Figures and tables of hierarchies and decoders, from tiny runs; also where some runs are missing."""

import math

import matplotlib.pyplot as plt
import pytest

from lib import datasets
from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from replications.papers import Results
from replications.vae2013 import figures_hierarchies as figures
from replications.vae2013 import hierarchies as deep
from replications.vae2013 import strong_decoder as strong

CHOSEN = ("hierarchy-5-plain", "hierarchy-5-ladder", "hierarchy-2-free-bits", "decoder-weak", "decoder-none")


def compute(run, workspace):
    of = deep.hierarchies if isinstance(run.config, deep.HierarchiesConfig) else strong.strong_decoder
    return of(run.config, workspace)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    store, outcomes = Store(tmp_path_factory.mktemp("runs")), []
    smoke = deep.presets()["smoke"] | strong.presets()["smoke"]
    for name in CHOSEN:
        run = Run("vae2013", name, "smoke", smoke[name], 0, {"mnist-5k": datasets.digest("mnist-5k")}, 1)
        execute(run, compute, store, Options())
        outcomes.append((run, store.read(run)))
    return Results(None, "smoke", store, outcomes)


def test_bars_are_the_scores_with_their_spread(results):
    figure = figures.layers(results)
    two, five = figure.axes[0], figure.axes[1]
    assert len(two.containers) == 4  # two layers, each of bars and error bars
    assert [axis.get_title(loc="left") or axis.get_title() for axis in (two, five)] == [
        "2 stochastic layers", "5 stochastic layers",
    ]  # fmt: skip
    plain, ladder = (results.finished(f"hierarchy-5-{variant}")[0].scores for variant in ("plain", "ladder"))
    bars = [container for container in five.containers if hasattr(container, "patches")]
    assert [patch.get_height() for patch in bars[2].patches] == pytest.approx(
        [plain["kl_3"].value, ladder["kl_3"].value]
    )
    low, high = bars[2].errorbar.lines[2][0].get_segments()[1][:, 1]
    assert high - low == pytest.approx(2 * ladder["kl_3"].stderr * math.sqrt(2))
    below = figure.axes[3]
    assert below.lines[-1].get_ydata().tolist() == pytest.approx(
        [ladder[f"units_variance_{level}"].value for level in range(1, 6)]
    )
    plt.close("all")


def test_the_table_of_bounds_has_each_run(results):
    rows = figures.bounds_table(results)
    assert rows["layers"].tolist() == ["2", "5", "5"]
    assert rows["trained"].tolist() == ["free bits", "plain", "ladder + batch norm + warm-up"]
    score = results.finished("hierarchy-5-plain")[0].scores["iwae_test"]
    expected = f"{score.value:.1f} ± {score.stderr * math.sqrt(2):.1f}".replace("-", "−")
    assert rows["L_4 bound, test"][1] == expected
    assert [len(cell.split(", ")) for cell in rows["active by KL, layers 1 up"]] == [2, 5, 5]


def test_the_table_of_decoders_keeps_an_exact_likelihood_and_a_bound_apart(results):
    rows = figures.decoders_table(results)
    assert rows["decoder"].tolist() == ["pixels independent given z", "autoregressive, without z"]
    assert rows["log p(x), exact"][0] == rows["bound"][1] == rows["KL"][1] == "–"
    score = results.finished("decoder-weak")[0].scores["used"]
    assert rows["log p(x|z) lost, z from the prior"][0].startswith(f"{score.value:.2f} ±".replace("-", "−"))


def test_sheets_of_fixed_latents(results):
    figure = figures.fixed_latents(results)
    assert len(figure.axes) == 2
    assert figure.axes[0].images[0].get_array().shape == (2 * 15 + 1, 3 * 15 + 1)
    plt.close("all")


def test_captions_say_what_was_trained_and_vanish_without_runs(results):
    captions = figures.captions(results)
    assert set(captions) == {"layers", "bounds", "fixed", "decoders"}
    assert "2 models a variant, 6 updates with minibatches of 20; latents 8, 4, 4, 2, 2" in captions["layers"]
    assert "4 updates" in captions["fixed"]
    assert figures.captions(results._replace(outcomes=[])) == {}
    only = results._replace(outcomes=[(run, o) for run, o in results.outcomes if "decoder" in run.experiment])
    assert set(figures.captions(only)) == {"fixed", "decoders"}
