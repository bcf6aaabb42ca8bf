"""Stacked MNIST's score: the classifier reads the channels it is given, and the counts are right."""

import pytest
import torch

from lib import datasets
from lib.datasets.stacked import Stacked
from lib.metrics.modes import stacked_label
from lib.metrics.stacked_classes import classes, coverage_scores


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
