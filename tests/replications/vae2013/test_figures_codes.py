"""Figures 4 and 5: the manifold and the sheets of Frey Face, and the tables of both data sets, from made-up runs."""

import math

import matplotlib.pyplot as plt
import pytest
import torch

from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import Outcome
from lib.results import Score
from lib.training.randomness import Streams
from replications.papers import Results
from replications.vae2013 import figures_codes as figures
from replications.vae2013.config import AevbConfig, BaselinesConfig
from replications.vae2013.evaluate import decoder_means
from replications.vae2013.frames import FramesConfig
from replications.vae2013.side_by_side import CurveConfig, build


def frey(algorithm, n_latent):
    return CurveConfig("frey-face", algorithm, n_latent, 100, "gaussian", n_models=2, n_hidden=5)


def share(value, stderr=math.nan):
    return Score(value, stderr, "share", True, 200, {"frames": 2})


def fid(value):
    return Score(value, 1.0, "squared feature distance", False, 1000, {"real": 900, "extractor": "digits-cnn"})


def frey_outcome(config):
    models = build(config, 28 * 20, Streams(3))
    scores = {"near_test": share(0.1 * config.n_latent, 0.01), "active_units": Score(2.0, 0.5, "units", True, 2, {})}
    return Outcome(scores, [], models.state_dict(), torch.full((1, 9, 9), 10 * config.n_latent, dtype=torch.uint8))


def aevb_outcome(value):
    return Outcome({"fid": fid(value), "active_units": Score(7.0, math.nan, "units", True, 9, {})}, [], {})


PLANNED = [
    ("frey-aevb-nz5", 0, frey("aevb", 5), frey_outcome(frey("aevb", 5))),
    ("frey-aevb-nz2", 0, frey("aevb", 2), frey_outcome(frey("aevb", 2))),
    ("frey-wake-sleep-nz2", 0, frey("wake-sleep", 2), frey_outcome(frey("wake-sleep", 2))),
    ("frey-baselines", 0, FramesConfig("frey-face"),
     Outcome({"near_pca_test": share(0.21), "near_pixels_test": share(0.5), "near_chance": share(0.02)}, [], {})),
    ("aevb-nz2", 0, AevbConfig("mnist-5k", 2, 100), aevb_outcome(40.0)),
    ("aevb-nz2", 1, AevbConfig("mnist-5k", 2, 100), aevb_outcome(42.0)),
    ("baselines", 0, BaselinesConfig("mnist-5k"), Outcome({"real_fid": fid(0.9), "pixels_fid": fid(150.0)}, [], {})),
]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    store, outcomes = Store(tmp_path_factory.mktemp("runs")), []
    for experiment, seed, config, outcome in PLANNED:
        run = Run("vae2013", experiment, "smoke", config, seed, {}, 1)
        execute(run, lambda run, workspace, outcome=outcome: outcome, store, Options())
        outcomes.append((run, store.read(run)))
    return Results(None, "smoke", store, outcomes)


def test_the_manifold_is_that_of_the_first_model_with_fewest_latents(results):
    figure = figures.frey_manifold(results, side=3)
    drawn = torch.from_numpy(figure.axes[0].get_images()[0].get_array().data)
    plt.close(figure)
    assert drawn.shape == (3 * 28, 3 * 20)
    model = build(frey("aevb", 2), 560, Streams(3)).alone(0)
    edge = torch.distributions.Normal(0, 1).icdf(torch.tensor([1 / 6, 1 / 2, 5 / 6]))
    top_right = decoder_means(model, torch.stack([edge[2], edge[2]])[None]).view(28, 20)
    bottom_left = decoder_means(model, torch.stack([edge[0], edge[0]])[None]).view(28, 20)
    assert torch.allclose(drawn[:28, 40:], top_right, atol=1e-6)
    assert torch.allclose(drawn[56:, :20], bottom_left, atol=1e-6)
    assert not torch.allclose(top_right, bottom_left, atol=1e-3)


def test_sheets_stand_in_the_order_of_latents(results):
    figure = figures.frey_sheets(results)
    assert [axis.get_title() for axis in figure.axes] == ["$N_z$ = 2", "$N_z$ = 5"]
    levels = [float(axis.get_images()[0].get_array().mean()) for axis in figure.axes]
    plt.close(figure)
    assert levels == pytest.approx([20 / 255, 50 / 255], abs=1e-3)


def test_the_table_of_frames_has_models_and_floors(results):
    rows = figures.frey_table(results).to_dict("records")
    near = {row["features"]: row["near in time, %"] for row in rows}
    assert near == {
        "posterior mean, aevb, N_z = 2": "20.0 ± 1.0", "posterior mean, aevb, N_z = 5": "50.0 ± 1.0",
        "posterior mean, wake-sleep, N_z = 2": "20.0 ± 1.0", "two principal components": "21.0",
        "all 560 pixels": "50.0", "chance": "2.0",
    }  # fmt: skip
    assert [row["active units"] for row in rows] == ["2.0 ± 0.5"] * 3 + ["–"] * 3
    assert "the 200 test frames" in figures.frey_caption(results)


def test_the_table_of_samples_has_models_and_floors(results):
    rows = figures.quality_table(results).to_dict("records")
    assert [(row["samples of"], row["FID[digits-cnn]"]) for row in rows] == [
        ("AEVB, N_z = 2", "41.0 ± 1.4"), ("training images", "0.9"), ("independent pixels", "150.0"),
    ]  # fmt: skip
    assert rows[0]["active units"] == "7.0 ± 0.0"
    assert rows[0]["recall"] == "–"
    assert "1,000 draws from the prior against 900 test images" in figures.quality_caption(results)
