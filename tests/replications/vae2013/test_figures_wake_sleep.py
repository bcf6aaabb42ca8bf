"""Figure 2 and its tables, from runs whose curves are known; also where some runs are missing."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import Outcome
from lib.results import Score
from lib.training.randomness import Streams
from replications.papers import Results
from replications.vae2013 import figures_wake_sleep as figures
from replications.vae2013.config import AevbConfig
from replications.vae2013.side_by_side import CurveConfig, Minibatches, adagrad, build
from replications.vae2013.wake_sleep import STEPS

SCORES = {
    name: Score(value, error, "nats/image", True, 2, {"averaged_over": "models"})
    for name, value, error in (
        ("elbo_train", -101.0, 0.5), ("elbo_test", -104.0, 0.25), ("gap", 3.0, 0.1), ("kl_test", 20.0, 1.0),
        ("active_units", 3.0, 0.0),
    )
}  # fmt: skip


def of_one_model(bounds):
    return [{"samples": s, "elbo_train": b + 5, "elbo_test": b} for s, b in bounds.items()]


def of_three(bounds):
    """Three models whose median is given; one far above, so that a mean is another number."""
    return [
        {"samples": s, "elbo_train": b + 30, "elbo_train_0": b - 3, "elbo_train_1": b + 90, "elbo_train_2": b + 1,
         "elbo_test": b + 29, "elbo_test_0": b - 4, "elbo_test_1": b + 90, "elbo_test_2": b}
        for s, b in bounds.items()
    ]  # fmt: skip


AEVB = {100: -900, 1000: -250, 2000: -200, 5000: -150, 10_000: -120, 20_000: -110}
WAKE_SLEEP = {500: -9e6, 1000: -400, 5000: -175, 10_000: -150}
LATE = {500: -9e6, 1000: -240, 5000: -180, 10_000: -100}
PLANNED = {
    ("aevb-nz3", 0): (AevbConfig("mnist-5k", 3, 20_000), of_one_model({s: b - 10 for s, b in AEVB.items()})),
    ("aevb-nz3", 1): (AevbConfig("mnist-5k", 3, 20_000), of_one_model({s: b + 10 for s, b in AEVB.items()})),
    ("aevb-nz2", 0): (AevbConfig("mnist-5k", 2, 20_000), of_one_model(AEVB)),  # no wake-sleep: no panel
    ("wake-sleep-nz3", 0): (CurveConfig("mnist-5k", "wake-sleep", 3, 10_000, n_models=3), of_three(WAKE_SLEEP)),
    ("wake-sleep-nz20", 0): (CurveConfig("mnist-5k", "wake-sleep", 20, 10_000, n_models=3), of_three(WAKE_SLEEP)),
    ("wake-sleep-nz20", 1): (CurveConfig("mnist-5k", "wake-sleep", 20, 10_000, n_models=3), of_three(WAKE_SLEEP)),
    ("frey-aevb-nz2", 0): (CurveConfig("frey-face", "aevb", 2, 10_000, "gaussian", n_models=3),
                           of_three({1000: -250, 5000: -150, 10_000: -130})),
    ("frey-wake-sleep-nz2", 0): (CurveConfig("frey-face", "wake-sleep", 2, 10_000, "gaussian", n_models=3),
                                 of_three(LATE)),
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    store, outcomes = Store(tmp_path_factory.mktemp("runs")), []
    for (experiment, seed), (config, history) in PLANNED.items():
        run = Run("vae2013", experiment, "smoke", config, seed, {}, 1)
        outcome = Outcome(SCORES, history, {})
        execute(run, lambda run, workspace, outcome=outcome: outcome, store, Options())
        outcomes.append((run, store.read(run)))
    return Results(None, "smoke", store, outcomes)


def test_curves_hold_every_model_of_every_run(results):
    data = figures.curves(results)
    at = data[(data["N_z"] == 3) & (data["samples"] == 1000) & (data["images"] == "test")]
    assert sorted(at.loc[at["algorithm"] == "aevb", "bound"]) == [-260, -240]
    assert sorted(at.loc[at["algorithm"] == "wake-sleep", "bound"]) == [-404, -400, -310]
    assert sorted(at["model"]) == [0, 0, 1, 1, 2]
    assert sorted(data.loc[(data["N_z"] == 20) & (data["samples"] == 1000), "model"].unique()) == [*range(6)]
    assert figures.panels(data) == [("mnist-5k", 3), ("mnist-5k", 20), ("frey-face", 2)]


def test_leads_are_those_of_the_median_curves_at_shared_points(results):
    """N_z = 3: leads 150, 25, 30; level -150 reached at 5,000 of 10,000. Frey Face: ahead once of three times."""
    three, frey = figures.leads(results).to_dict("records")  # without AEVB, N_z = 20 has no row
    assert (three["data"], three["N_z"], three["ahead"], three["points"]) == ("mnist-5k", 3, 3, 3)
    assert (three["lead_least"], three["at"], three["lead_end"], three["level"]) == (25, 5000, 30, -150)
    assert (three["reached"], three["factor"]) == (5000, 2)
    assert (frey["ahead"], frey["points"], frey["lead_least"], frey["lead_end"]) == (1, 3, -30, -30)
    assert math.isnan(frey["reached"])
    assert math.isnan(frey["factor"])
    rows = figures.leads_table(results)
    assert rows["AEVB ahead, points"].tolist() == ["3 of 3", "1 of 3"]
    assert rows["times fewer samples"].tolist() == ["2.0", "–"]
    assert rows["AEVB there after"].tolist() == ["5,000", "not reached"]


def test_a_level_reached_at_the_first_point_gives_a_least_factor(results, monkeypatch):
    known = figures.leads(results).head(1).assign(reached=1000.0, factor=10.0)
    monkeypatch.setattr(figures, "leads", lambda results: known)
    assert figures.leads_table(results)["times fewer samples"].tolist() == ["≥ 10.0"]


def test_a_panel_shows_both_algorithms_and_both_splits(results):
    figure = figures.learning_curves(results)
    used = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in used] == ["$N_z$ = 3", "$N_z$ = 20", "$N_z$ = 2"]
    lines = {line.get_label(): line for line in used[0].lines}
    assert set(lines) == {f"{a}, {i}" for a in ("AEVB", "wake-sleep") for i in ("train", "test")}
    assert lines["wake-sleep, train"].get_linestyle() == "--"
    assert lines["AEVB, test"].get_linestyle() == "-"
    assert lines["AEVB, test"].get_xydata().tolist() == [[s, b] for s, b in AEVB.items() if s >= 1000]
    assert lines["wake-sleep, test"].get_xydata().tolist() == [[s, b] for s, b in WAKE_SLEEP.items() if s >= 1000]
    assert lines["AEVB, test"].get_color() == lines["AEVB, train"].get_color() != lines["wake-sleep, test"].get_color()
    band = used[0].collections[[line.get_label() for line in used[0].lines].index("wake-sleep, test")]
    ends = [y for x, y in band.get_paths()[0].vertices if x == 10_000]
    assert (min(ends), max(ends)) == (-154, -60)
    assert len(used[1].lines) == 2  # no AEVB there
    low, high = used[0].get_ylim()
    assert high == pytest.approx(-105 + 0.06 * 95)
    assert low == pytest.approx(-200 - 95)  # AEVB from 2,000 samples on lies in -200 .. -105; wake-sleep's start is cut
    plt.close("all")


def test_the_table_has_the_runs_side_by_side_alone(results):
    rows = figures.bounds_table(results)
    assert rows["trained by"].tolist() == ["wake-sleep", "wake-sleep", "wake-sleep", "AEVB", "wake-sleep"]
    assert rows["N_z"].tolist() == ["3", "20", "20", "2", "2"]
    assert rows["data"].tolist() == 3 * ["MNIST-5k"] + 2 * ["Frey Face"]
    assert rows["bound, test"].tolist() == 5 * ["−104.0 ± 0.2"]


def test_captions_say_what_was_measured_and_vanish_without_runs(results):
    captions = figures.captions(results)
    assert set(captions) == {"curves", "leads", "bounds"}
    assert "10,000 samples" in captions["leads"]
    assert "log variances at least -8" in captions["curves"]
    empty = results._replace(outcomes=[])
    assert figures.captions(empty) == {}
    assert figures.leads(empty).empty
    assert figures.leads_table(empty).empty
    figures.learning_curves(empty)
    plt.close("all")


def test_large_products_are_those_that_torch_counts():
    """By torch's own counter, less the products with latents; wake-sleep's and AEVB's, both kinds of pixels."""
    for algorithm, step in STEPS.items():
        for observation, name in (("bernoulli", "mnist-5k"), ("gaussian", "frey-face")):
            n_pixels = figures.PIXELS[name]
            config = CurveConfig(name, algorithm, 1, 100, observation, n_models=2, n_hidden=50, batch=3)
            streams = Streams(0)
            model = build(config, n_pixels, streams)
            draws = Minibatches(torch.zeros(9, n_pixels, dtype=torch.uint8), config, streams)(0)
            optimizer = adagrad(model, [0.01, 0.01], config, 9)
            with FlopCounterMode(display=False) as counter:
                step(model, optimizer, draws)
            small = 2 * 2 * 3 * 50 * (9 if algorithm == "aevb" else 12)  # at most: layers to and from one latent
            excess = counter.get_total_flops() - 2 * 3 * figures.large_flop(config, n_pixels)
            assert 0 < excess <= small, (algorithm, observation)


def test_the_paper_stands_below_our_speed(results):
    rows = figures.speed_table(results).to_dict("records")
    assert [row["run"] for row in rows][-1] == "the paper, section 5"
    assert len(rows) == 7  # no seed but 0
    row = next(row for row in rows if row["run"].startswith("wake-sleep-nz3"))
    assert row["models × samples"] == "3 × 10,000"
    seconds = next(o for o in results.finished() if o.run.experiment == "wake-sleep-nz3").provenance["wall_seconds"]
    assert float(row["minutes a million samples"]) == pytest.approx(seconds / 60 / 0.03, abs=0.006)
    rate = 3 * 10_000 * 2 * 784 * 500 * 7 / seconds / 1e9
    assert float(row["GFLOP/s in large products"].replace(",", "")) == pytest.approx(rate, rel=0.01, abs=0.06)
