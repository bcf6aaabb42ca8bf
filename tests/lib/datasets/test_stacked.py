"""Stacked MNIST: channels are the digits the table names, drawn evenly and by the generator alone."""

import pytest
import torch

from lib import datasets
from lib.datasets.stacked import Stacked
from lib.metrics.modes import stacked_label


@pytest.fixture(scope="module")
def digits():
    return datasets.load("mnist-5k").split("test")


def made(images, n, seed=0):
    return Stacked(images, n, torch.Generator().manual_seed(seed))


def test_channels_and_labels_are_those_of_the_same_digits(digits):
    images, labels = digits
    stacked = made(images, 50)
    rows = torch.tensor([7, 3, 3, 49])
    colour, names = stacked(rows), stacked.labels(labels)
    assert colour.shape == (4, 3, 28, 28)
    assert colour.dtype == torch.uint8
    assert names.shape == (50, 3)
    for image, row in zip(colour, rows.tolist(), strict=True):
        for channel in range(3):
            found = [i for i in range(len(images)) if torch.equal(images[i, 0], image[channel])]
            assert stacked.index[row, channel] in found
            assert names[row, channel] == labels[found[0]]
    red, green, blue = names.unbind(1)
    assert stacked_label(red, green, blue)[3] == 100 * red[3] + 10 * green[3] + blue[3]


def test_every_digit_is_drawn_for_every_channel_with_equal_chance():
    """Chi-squared of 3 x 10 counts against equal chances, below its 1 - 1e-6 quantile for 27 degrees of freedom."""
    stacked = made(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), 20_000)
    counts = torch.stack([torch.bincount(channel, minlength=10) for channel in stacked.index.unbind(1)])
    assert ((counts - 2000.0) ** 2 / 2000).sum() < 80
    both = torch.bincount(stacked.index[:, 0] * 10 + stacked.index[:, 1], minlength=100)  # channels are independent
    assert ((both - 200.0) ** 2 / 200).sum() < 180


def test_equal_generators_stack_equally_and_others_do_not(digits):
    assert torch.equal(made(digits[0], 9).index, made(digits[0], 9).index)
    assert not torch.equal(made(digits[0], 9).index, made(digits[0], 9, seed=1).index)
    assert len(made(digits[0], 9)) == 9


def test_colour_and_wrong_labels_are_refused(digits):
    with pytest.raises(ValueError, match=r"only \(N, 1, H, W\)"):
        made(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), 2)
    with pytest.raises(ValueError, match="one for each of 1000 images"):
        made(digits[0], 2).labels(digits[1][:5])
