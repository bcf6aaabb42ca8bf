"""Scores of sample quality and memorisation: against SciPy, at their floors, and that nothing passes silently."""

from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from lib import datasets
from lib.datasets import Dataset
from lib.errors import UserError
from lib.metrics import extract, extractor
from replications.gan2014 import figures_scores, quality
from replications.gan2014.config import BaselinesConfig
from replications.gan2014.quality import extractor_for, image_scores, memorisation
from replications.gan2014.splits import reference_images, splits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return datasets.load("mnist-5k")


@pytest.fixture(scope="module")
def scored(data):
    train, real = data.split("train")[0][:300], reference_images(data)[:300]
    return image_scores(train, real, "digits-cnn", seed=0, device=CPU, protocol={"data": data.name})


def test_fid_is_that_of_scipy(data, scored):
    network = extractor("digits-cnn")
    a, b = (
        extract(network, images[:300]).features.double().numpy()
        for images in (data.split("train")[0], reference_images(data))
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
    real = reference_images(data)[:300]
    scores = image_scores(noise, real, "digits-cnn", seed=0, device=CPU, protocol={})
    assert scores["fid"].value > 50 * scored["fid"].value
    assert scores["is"].value < 1.1 < 7 < scored["is"].value
    assert scores["precision"].value == scores["recall"].value == 0 < 0.7 < scored["recall"].value


def test_one_digit_repeated_is_precise_and_lacks_recall(data):
    real = reference_images(data)[:200]
    scores = image_scores(real[:1].expand(200, -1, -1, -1), real, "digits-cnn", seed=0, device=CPU, protocol={})
    assert scores["precision"].value == 1
    assert scores["recall"].value < 0.05
    assert scores["is"].value == pytest.approx(1, abs=1e-6)


def test_real_features_are_kept_and_never_mistaken(data, monkeypatch):
    seen = []
    monkeypatch.setattr(quality, "extract", lambda *a: seen.append(len(a[1])) or extract(*a))
    quality._kept_features.cache_clear()
    real, made = reference_images(data)[:60].clone(), data.split("train")[0][:50]
    first, again = (image_scores(made, real, "digits-cnn", seed=0, device=CPU, protocol={}) for _ in range(2))
    assert seen == [50, 60, 50]
    assert first["fid"].value == again["fid"].value
    real[0] = 255 - real[0]
    other = image_scores(made, real, "digits-cnn", seed=0, device=CPU, protocol={})
    assert seen[3:] == [50, 60]
    assert other["fid"].value != first["fid"].value


def test_absent_extractors_are_facts(data, monkeypatch):
    assert extractor_for("frey-face") is None
    assert extractor_for("cifar10") == "efficientnet-lite0"
    images = data.split("train")[0][:20]
    scores, facts = quality.quality(images, images, "frey-face", seed=0, device=CPU, protocol={})
    assert scores == {}
    assert "frey-face" in facts["quality_left_out"]

    def absent(name, **_):
        raise UserError("the wheel is not installed")

    monkeypatch.setattr(quality, "extractor", absent)
    scores, facts = quality.quality(images, images, "mnist-5k", seed=0, device=CPU, protocol={})
    assert scores == {}
    assert facts["quality_left_out"] == "the wheel is not installed"


def test_memorisation_sees_copies_and_clears_the_unseen():
    train, test, unseen = torch.rand(3, 200, 20, generator=torch.Generator().manual_seed(0)).unbind()
    copied = memorisation(train[:100], train, test, seed=0, protocol={})
    assert copied["distance_ratio"].value == copied["nearest_train"].value == 0
    assert copied["share_nearer_train"].value == 1
    fresh = memorisation(unseen, train, test, seed=0, protocol={})
    assert fresh["distance_ratio"].value == pytest.approx(1, abs=0.05)
    assert abs(fresh["share_nearer_train"].value - 0.5) < 4 * fresh["share_nearer_train"].stderr
    assert fresh["nearest_train"].value > 0


def test_splits_share_no_image_and_name_what_is_missing(data):
    parts = splits(data, 3500, 500)
    assert [len(part) for part in parts] == [3500, 500, 1000]
    assert torch.equal(parts.validation, data.split("train")[0][3500:].flatten(1) / 255)
    assert parts.test.min() == 0
    assert parts.test.max() == 1
    with pytest.raises(ValueError, match=r"500 validation images.*501"):
        splits(data, 3500, 501)


def test_splits_take_the_split_named_validation_and_held_out_colour_images():
    images = torch.arange(60_000).remainder(256).to(torch.uint8).view(-1, 1, 1, 1)
    parts = {"train": range(50), "validation": range(50, 60), "test": range(60, 70)}
    given = Dataset("mnist", images[:70], None, MappingProxyType(parts), "digest", 255)
    assert (255 * splits(given, 40, 3).validation).round().flatten().tolist() == [50, 51, 52]
    parts = {"train": range(50_000), "test": range(50_000, 51_000)}
    cifar = Dataset("cifar10", images[:51_000], None, MappingProxyType(parts), "digest", 255)
    assert torch.equal(reference_images(cifar), images[40_000:50_000])


def _finished(experiment, config, scores, facts=()):
    run = SimpleNamespace(experiment=experiment, config=config, seed=0)
    return SimpleNamespace(run=run, scores=scores, record={"facts": dict(facts)})


def test_quality_tables_hold_every_generator_beside_its_own_baselines(scored):
    def shifted(by):
        return {name: s._replace(value=s.value + by) for name, s in scored.items()}

    floor = {f"{name}_real": score for name, score in scored.items()}
    few = {name: s._replace(protocol={**s.protocol, "generated": 100}) for name, s in shifted(1).items()}
    runs = [
        _finished("baselines", BaselinesConfig("mnist-5k"), floor),
        *(_finished("dcgan", SimpleNamespace(data="mnist-5k"), shifted(-1 - seed)) for seed in range(2)),
        _finished("short", SimpleNamespace(data="mnist-5k"), few),
        _finished("faces", SimpleNamespace(data="frey-face"), {}, {"quality_left_out": "no extractor"}),
    ]
    results = SimpleNamespace(finished=lambda name=None: [r for r in runs if name in (None, r.run.experiment)])
    first, second = figures_scores.quality_tables(results)
    assert list(first.frame["images of"]) == ["dcgan", "real training images"]  # best first
    fid = scored["fid"].value
    assert first.frame["FID[digits-cnn]"][0] == f"{fid - 1.5:.2f} ± {0.5**0.5:.2f}"
    assert (first.slug, second.slug) == ("mnist-5k", "mnist-5k-2")
    assert list(second.frame["images of"]) == ["short"]
    assert figures_scores.left_out(results) == "Left out for frey-face: no extractor."
