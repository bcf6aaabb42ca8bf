"""Splits share no image, and the quality tables keep unlike protocols apart."""

from types import MappingProxyType, SimpleNamespace

import pytest
import torch

from lib import datasets
from lib.datasets import Dataset
from lib.metrics.quality import image_scores
from replications.gan2014 import figures_scores
from replications.gan2014.config import BaselinesConfig
from replications.gan2014.splits import reference_images, splits


@pytest.fixture(scope="module")
def data():
    return datasets.load("mnist-5k")


@pytest.fixture(scope="module")
def scored(data):
    train, real = data.split("train")[0][:300], reference_images(data)[:300]
    return image_scores(train, real, "digits-cnn", seed=0, device=torch.device("cpu"), protocol={"data": data.name})


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
