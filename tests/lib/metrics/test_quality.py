"""Scores of sample quality and memorisation: against SciPy, at their floors, and that nothing passes silently."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from lib import datasets
from lib.errors import UserError
from lib.metrics import extract, extractor, quality
from lib.metrics.quality import extractor_for, features_of_real, image_scores, memorisation
from lib.metrics.weights import PackageAbsent

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return datasets.load("mnist-5k")


@pytest.fixture(scope="module")
def scored(data):
    train, real = data.split("train")[0][:300], data.split("test")[0][:300]
    return image_scores(train, real, "digits-cnn", seed=0, device=CPU, protocol={"data": data.name})


def test_fid_is_that_of_scipy(data, scored):
    network = extractor("digits-cnn")
    a, b = (
        extract(network, images[:300]).features.double().numpy()
        for images in (data.split("train")[0], data.split("test")[0])
    )
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = sqrtm(cov_a @ cov_b).real
    want = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert scored["fid"].value == pytest.approx(want, rel=1e-3)
    assert 0 < scored["fid"].stderr < scored["fid"].value


def test_protocol_tells_what_moves_the_numbers(data, scored):
    assert set(scored) == {"fid", "is", "kid", "precision", "recall"}
    for score in scored.values():
        assert {
            "generated": 300,
            "real": 300,
            "extractor": "digits-cnn",
            "data": data.name,
        }.items() <= score.protocol.items()
        assert score.protocol["weights"] == extractor("digits-cnn").digest
    assert [scored[name].higher_is_better for name in ("fid", "is", "kid", "precision")] == [False, True, False, True]
    assert scored["precision"].stderr == pytest.approx(
        (scored["precision"].value * (1 - scored["precision"].value) / 300) ** 0.5
    )


def test_noise_is_far_from_digits(data, scored):
    noise = torch.randint(0, 256, (300, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    real = data.split("test")[0][:300]
    scores = image_scores(noise, real, "digits-cnn", seed=0, device=CPU, protocol={})
    assert scores["fid"].value > 50 * scored["fid"].value
    assert scores["is"].value < 1.1 < 7 < scored["is"].value
    assert scores["precision"].value == scores["recall"].value == 0 < 0.7 < scored["recall"].value


def test_one_digit_repeated_is_precise_and_lacks_recall(data):
    real = data.split("test")[0][:200]
    scores = image_scores(real[:1].expand(200, -1, -1, -1), real, "digits-cnn", seed=0, device=CPU, protocol={})
    assert scores["precision"].value == 1
    assert scores["recall"].value < 0.05
    assert scores["is"].value == pytest.approx(1, abs=1e-6)


def test_real_features_are_kept_and_never_mistaken(data, monkeypatch):
    seen = []
    monkeypatch.setattr(quality, "extract", lambda *a: seen.append(len(a[1])) or extract(*a))
    quality._kept_features.cache_clear()
    real, made = data.split("test")[0][:60].clone(), data.split("train")[0][:50]
    first, again = (image_scores(made, real, "digits-cnn", seed=0, device=CPU, protocol={}) for _ in range(2))
    assert seen == [50, 60, 50]
    assert first["fid"].value == again["fid"].value
    real[0] = 255 - real[0]
    other = image_scores(made, real, "digits-cnn", seed=0, device=CPU, protocol={})
    assert seen[3:] == [50, 60]
    assert other["fid"].value != first["fid"].value
    for _ in range(2):
        features_of_real(real, "digits-cnn", CPU, 30)  # another batch moves the rounding: its features are its own
    assert seen[5:] == [60]


def test_absent_extractors_are_facts(data, monkeypatch):
    assert extractor_for("frey-face") is None
    assert extractor_for("cifar10") == "efficientnet-lite0"
    images = data.split("train")[0][:20]
    scores, facts = quality.quality(images, images, "frey-face", seed=0, device=CPU, protocol={})
    assert scores == {}
    assert "frey-face" in facts["quality_left_out"]

    def absent(name, **_):
        raise PackageAbsent("the wheel is not installed")

    monkeypatch.setattr(quality, "extractor", absent)
    scores, facts = quality.quality(images, images, "mnist-5k", seed=0, device=CPU, protocol={})
    assert scores == {}
    assert facts["quality_left_out"] == "the wheel is not installed"

    def damaged(name, **_):
        raise UserError("other bytes")

    monkeypatch.setattr(quality, "extractor", damaged)
    with pytest.raises(UserError, match="other bytes"):  # a run without these scores would count as finished for ever
        quality.quality(images, images, "mnist-5k", seed=0, device=CPU, protocol={})


def test_memorisation_sees_copies_and_clears_the_unseen():
    train, test, unseen = torch.rand(3, 200, 20, generator=torch.Generator().manual_seed(0)).unbind()
    copied = memorisation(train[:100], train, test, seed=0, protocol={})
    assert copied["distance_ratio"].value == copied["nearest_train"].value == 0
    assert copied["share_nearer_train"].value == 1
    fresh = memorisation(unseen, train, test, seed=0, protocol={})
    assert fresh["distance_ratio"].value == pytest.approx(1, abs=0.05)
    assert abs(fresh["share_nearer_train"].value - 0.5) < 4 * fresh["share_nearer_train"].stderr
    assert fresh["nearest_train"].value > 0
