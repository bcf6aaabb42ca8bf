"""Frames of a film: neighbours in time where they are known, and the exact likelihood of independent pixels."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from lib.datasets import Dataset
from replications.vae2013.frames import NEAR, FramesConfig, chance_near, frame_baselines, near_in_time
from replications.vae2013.side_by_side import evaluation_images


def film(n=60):
    """A bar that moves by one pixel a frame, so that neighbours in pixels are those in time."""
    images = torch.full((n, 1, 8, 70), 100, dtype=torch.uint8)
    for frame in range(n):
        images[frame, :, :, frame : frame + 6] = 200
    splits = {"train": range(n), "test": range(n // 2, n)}
    return Dataset("frey-face", images, None, splits, "0" * 64, 255)


def test_neighbours_in_time_where_they_are_known():
    line = torch.arange(10.0)[:, None]
    assert near_in_time(line).all()
    far = torch.tensor([[0.0], [10.0], [20.0], [0.1], [10.2], [20.4]])  # nearest: three frames on or back
    assert not near_in_time(far).any()
    two_on = torch.tensor([[0.0], [50.0], [0.1], [90.0], [50.2], [130.0]])
    assert near_in_time(two_on).tolist() == [True, False, True, True, False, True]
    assert NEAR == 2


def test_a_frame_is_not_its_own_neighbour():
    assert not near_in_time(torch.tensor([[0.0], [7.0], [15.0], [24.0], [0.5]]))[0]


def test_chance_is_what_random_codes_give():
    n, repeats = 20, 400
    rng = torch.Generator().manual_seed(0)
    shares = torch.stack([near_in_time(torch.randn(n, 3, generator=rng)).double().mean() for _ in range(repeats)])
    assert chance_near(n) == pytest.approx((2 * (n - 1) + 2 * (n - 2)) / (n * (n - 1)))
    assert shares.mean().item() == pytest.approx(chance_near(n), abs=4 * shares.std().item() / math.sqrt(repeats))


def test_independent_pixels_are_scored_as_scipy_scores_them():
    data, config = film(), FramesConfig("frey-face", logvar_floor=-6.0)
    scores = frame_baselines(config, data)
    train, test = (
        evaluation_images(data, s, "gaussian", torch.device("cpu")).double().numpy() for s in ("train", "test")
    )
    sd = np.sqrt(np.maximum(train.var(0), math.exp(-6)))
    assert (train.var(0) < math.exp(-6)).any()  # or the floor would not be tested
    expected = scipy.stats.norm(train.mean(0), sd).logpdf(test).sum(1)
    assert scores["pixels_test"].value == pytest.approx(expected.mean())
    assert scores["pixels_test"].stderr == pytest.approx(expected.std(ddof=1) / math.sqrt(30))
    assert scores["pixels_test"].protocol["logvar_floor"] == -6.0


def test_codes_of_a_film_without_noise_keep_its_order():
    scores = frame_baselines(FramesConfig("frey-face"), film())
    assert scores["near_pixels_test"].value == 1
    assert 0.5 < scores["near_pca_test"].value <= 1
    assert scores["near_chance"].value == chance_near(30)
    assert {scores[name].n for name in scores} == {30}
