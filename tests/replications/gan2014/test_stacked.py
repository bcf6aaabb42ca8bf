"""Stacked MNIST's run: the classifier reads the channels it is given, counts are right, packs see their channels."""

import pytest
import torch

from lib import datasets
from lib.datasets.stacked import Stacked
from lib.execution.execute import deterministic
from lib.execution.workspace import Workspace
from lib.metrics.modes import stacked_label
from replications.gan2014.config import StackedConfig
from replications.gan2014.stacked import classes, coverage_scores, stacked


@pytest.fixture(scope="module")
def real():
    """300 stacked test digits and their classes by the labels."""
    images, labels = datasets.load("mnist-5k").split("test")
    made = Stacked(images, 300, torch.Generator().manual_seed(0))
    return made(torch.arange(300)), stacked_label(*made.labels(labels).unbind(1))


def test_the_classifier_reads_every_channel_in_its_place(real):
    images, labels = real
    read = classes(images)
    assert (read == labels).float().mean() > 0.93  # three digits right at once; the classifier alone reads 99 %
    turned = classes(images.flip(1))
    assert ((turned % 10) == (read // 100)).all()
    assert ((turned // 100) == (read % 10)).all()


def test_scores_are_those_of_the_labels_histogram(real):
    images, _ = real
    repeated = images[:1].expand(50, -1, -1, -1)
    alone = coverage_scores(repeated, {"data": "x"})
    assert alone["modes"].value == 1
    assert alone["kl"].value == pytest.approx(torch.tensor(1000.0).log().item())
    many = coverage_scores(images, {"data": "x"})
    read = classes(images)
    assert many["modes"].value == len(set(read.tolist()))
    p = torch.bincount(read, minlength=1000).double() / 300
    expected = torch.special.xlogy(p, 1000 * p).sum().item()
    assert many["kl"].value == pytest.approx(expected)
    assert many["modes"].n == 300
    assert many["kl"].protocol["data"] == "x"


@pytest.mark.parametrize("n_pack", [1, 2])
def test_a_run_has_generated_and_real_counts(n_pack, tmp_path):
    config = StackedConfig(n_pack, 2, data="mnist-5k", n_train=64, n_filters=2, n_latent=5, batch=16, n_samples=90)
    with deterministic("cpu"):
        outcome = stacked(config, Workspace(tmp_path, 0))
    scores = outcome.scores
    assert set(scores) == {"modes", "kl", "real_modes", "real_kl"}
    assert scores["modes"].value <= 90
    assert 70 < scores["real_modes"].value <= 90  # 90 draws of 1,000 classes hit 86 on average
    assert scores["modes"].protocol["n_pack"] == n_pack
    assert scores["real_kl"].protocol["images"] == "test split"
    assert outcome.samples.shape == (3, 8 * 29 + 1, 8 * 29 + 1)
    assert len(outcome.history) == 2
