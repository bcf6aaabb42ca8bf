"""The correlation and its interval, the trivial generator, the frame of the digits, and a whole small run."""

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from lib.datasets import load
from lib.execution.execute import deterministic
from lib.execution.workspace import Workspace
from replications.wgan2017.config import AnchorsConfig, ImagesConfig
from replications.wgan2017.evaluate import _between, _spearman, anchors, correlation, gaussian_draws, images
from replications.wgan2017.pixels import cropped, curve_distance, generate, pixels_of

CPU = torch.device("cpu")
SMALL = ImagesConfig("mnist-5k", "wgan", "dcgan", "dcgan", 6, n_critic=1, n_filters=4, n_checkpoints=3, n_curve=60,
                     n_generated=60)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_correlation_is_scipys_and_ranks_alone_count():
    x, y = np.random.Generator(np.random.PCG64(0)).normal(size=(2, 20))
    y = y + x
    found = correlation(x, y, 0)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.n == 20
    assert found.low < found.value < found.high
    assert correlation(np.exp(x), y**3, 0).value == pytest.approx(found.value)
    assert correlation(-x, y, 0).value == pytest.approx(-found.value)
    assert found.sd == pytest.approx(np.sqrt((1 - found.value**2) ** 2 / 20), rel=0.5)  # the delta method's


@pytest.mark.parametrize("n", [2, 3, 7, 31, 400])
def test_ranks_of_many_rows_have_the_bits_of_numpys_correlation_of_each(n):
    x = np.random.Generator(np.random.PCG64(n)).normal(size=(300, n))
    y = np.random.Generator(np.random.PCG64(n + 1)).integers(n, size=(300, n)) + x.round(1)  # with ties
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = [np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in zip(x, y, strict=True)]
    np.testing.assert_array_equal(_spearman(x, y), expected)


def test_a_perfect_order_is_one_and_what_never_moves_has_none():
    assert correlation([1, 2, 3, 4], [10, 20, 30, 40], 0).value == pytest.approx(1)
    assert correlation([1, 2, 3, 4], [4, 3, 2, 1], 0).value == pytest.approx(-1)
    flat = correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], 0)
    assert math.isnan(flat.value)
    assert math.isnan(flat.low)


def test_the_gaussian_has_the_pixels_two_moments():
    rng = seeded()
    mixing = torch.randn(12, 12, generator=rng)
    pixels = 128 + 6 * torch.randn(3000, 12, generator=rng) @ mixing  # stays well inside 0 .. 255
    pictures = pixels.round().clamp(0, 255).to(torch.uint8).view(-1, 1, 3, 4)
    draws = gaussian_draws(pictures, 20_000, seeded(1))
    assert draws.shape == (20_000, 1, 3, 4)
    a, b = (rows.flatten(1).double() for rows in (pictures, draws))
    torch.testing.assert_close(a.mean(0), b.mean(0), atol=1.0, rtol=0)
    torch.testing.assert_close(a.T.cov(), b.T.cov(), rtol=0.1, atol=20.0)


def test_digits_stand_in_a_black_frame_that_scores_take_off():
    data = load("mnist-5k")
    pixels = pixels_of(data, 50, CPU)
    assert pixels.train.shape == (4000, 1, 32, 32)
    assert torch.equal(cropped(pixels.train, 28), data.split("train")[0])
    assert pixels.train[:, :, :2].max() == pixels.train[..., -2:].max() == 0
    assert torch.equal(pixels.reference, data.split("test")[0])
    x = pixels.minibatch(torch.tensor([5, 3]))
    assert torch.equal(x, pixels.train[[5, 3]].float() / 127.5 - 1)
    assert x.min() == -1


def test_generated_images_depend_on_their_own_noise_alone_and_leave_training_mode_on():
    from lib.training.randomness import Streams
    from replications.wgan2017.networks import build

    network = build(SMALL, (1, 32, 32), Streams(0)).generator
    with torch.no_grad():
        network(torch.randn(50, 100, generator=seeded()))
    few, many = generate(network, SMALL, 3, seeded(1)), generate(network, SMALL, 40, seeded(1))
    assert few.dtype == torch.uint8
    assert (few.int() - many[:3].int()).abs().max() <= 1  # of rounding
    assert network.training
    pixels = pixels_of(load("mnist-5k"), SMALL.n_curve, CPU)
    first = curve_distance(network, pixels, SMALL, Streams(0))
    assert first == curve_distance(network, pixels, SMALL, Streams(0))  # the same noise each time
    assert first > 10  # an untrained generator is far away


def test_a_run_has_every_score_with_its_protocol(tmp_path):
    with deterministic("cpu"):
        outcome = images(SMALL, Workspace(tmp_path, 0))
    assert set(outcome.scores) == {
        "fid",
        "is",
        "kid",
        "precision",
        "recall",
        "estimate",
        "spearman",
        "spearman_generator_loss",
    }
    assert all(math.isfinite(score.value) for score in outcome.scores.values())
    assert outcome.scores["fid"].protocol["generated"] == outcome.scores["fid"].protocol["real"] == 60
    assert outcome.scores["spearman"].n == 3
    assert [math.isfinite(row["distance"]) for row in outcome.history] == [False, True] * 3
    assert outcome.facts["critic_steps"] == 6
    assert outcome.samples is not None
    assert outcome.samples.shape[0] == 1


@pytest.mark.parametrize(("last", "n"), [(0.05, 1), (0.4, 3), (0.6, 4)])
def test_the_last_estimate_is_a_median_of_the_last_iterations(tmp_path, last, n):
    with deterministic("cpu"):
        outcome = images(replace(SMALL, last=last), Workspace(tmp_path, 0))
    of_iterations = [row["estimate"] for row in outcome.history]
    assert len(of_iterations) == SMALL.n_steps
    assert outcome.scores["estimate"].value == statistics.median_low(of_iterations[-n:])
    assert outcome.scores["estimate"].protocol["iterations"] == n


def test_estimates_between_checkpoints_are_medians():
    estimates = torch.tensor([1.0, 9.0, 2.0, 5.0, 4.0, 6.0])
    assert _between(estimates, [{"step": 3}, {"step": 6}]) == [2, 5]
    assert _between(estimates, [{"step": 2}, {"step": 6}]) == [1, 4]  # of an even number the lower of the middle two


def test_anchors_are_in_their_order(tmp_path):
    """Real images are the floor; a Gaussian of the pixels knows more than noise."""
    with deterministic("cpu"):
        outcome = anchors(AnchorsConfig("mnist-5k", n_filters=4, n_generated=300), Workspace(tmp_path, 0))
    fid = {name.removeprefix("fid_"): s.value for name, s in outcome.scores.items() if name.startswith("fid_")}
    assert fid["real"] < 3 < fid["gaussian"] < fid["noise"]
    assert fid["real"] < fid["untrained"]
    assert abs(outcome.scores["kid_real"].value) < 5 * outcome.scores["kid_real"].stderr + 0.05


def test_a_data_set_without_extractor_is_trained_and_not_scored(tmp_path, monkeypatch):
    from lib.metrics import quality
    from lib.metrics.weights import PackageAbsent
    from replications.wgan2017 import pixels

    def absent(name, **_):
        raise PackageAbsent("the wheel is not installed")

    monkeypatch.setattr(quality, "extractor", absent)
    monkeypatch.setattr(pixels, "extractor", absent)
    with deterministic("cpu"):
        outcome = images(SMALL, Workspace(tmp_path, 0))
    assert set(outcome.scores) == {"estimate"}
    assert outcome.facts["quality_left_out"] == "the wheel is not installed"
