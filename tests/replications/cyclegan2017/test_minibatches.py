"""Unpaired minibatches: orders, crops, mirrors, ranges, refusals."""

from dataclasses import replace

import pytest
import torch

from lib.errors import UserError
from lib.training.randomness import Streams
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.domains import Domains
from replications.cyclegan2017.minibatches import Minibatches, crops

TINY = TranslationConfig("made up", "cyclegan", 8, 4, 0, 0, batch=2)


def numbered(n: int, side: int = 8, channels: int = 1) -> torch.Tensor:
    """Image i is all i."""
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, channels, side, side).contiguous()


def domains(n_a: int = 6, n_b: int = 9, side: int = 8) -> Domains:
    a, b = numbered(n_a, side), numbered(n_b, side, 3) + 100
    return Domains(a, b, a, b)


def shown(minibatch: torch.Tensor) -> list[int]:
    return ((minibatch[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_each_domain_has_epochs_of_its_own():
    found = Minibatches(TINY, domains(), Streams(0))
    batches = [found(step) for step in range(12)]
    a = [i for x, _ in batches[:3] for i in shown(x)]
    assert sorted(a) == list(range(6))
    assert sorted(i for x, _ in batches[3:6] for i in shown(x)) == list(range(6))
    b = [i for _, y in batches[:4] for i in shown(y)]
    assert sorted(b) == list(range(100, 108))  # the ninth does not fill a minibatch
    assert [i for _, y in batches[4:8] for i in shown(y)] != b
    again = Minibatches(TINY, domains(), Streams(0))
    assert torch.equal(again(7)[1], batches[7][1])  # without the steps before it
    other = Minibatches(TINY, domains(), Streams(1))
    assert [shown(other(step)[0]) for step in range(3)] != [shown(x) for x, _ in batches[:3]]


def test_the_orders_of_equally_large_domains_are_unrelated_unless_paired():
    same = domains(8, 8)
    for paired in (False, True):
        found = Minibatches(TINY, same, Streams(0), paired)
        a, b = ([i for step in range(4) for i in shown(found(step)[k])] for k in (0, 1))
        assert (a == [i - 100 for i in b]) == paired


def test_images_fill_the_range_of_tanh_channels_last():
    images = torch.tensor([0, 51, 255, 255], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    a, b = Minibatches(replace(TINY, batch=4), Domains(images, images, images, images), Streams(0))(0)
    assert sorted(a[:, 0, 0, 0].tolist()) == pytest.approx([-1, -0.6, 1, 1])
    assert a.is_contiguous(memory_format=torch.channels_last)
    assert b.dtype == torch.float32


def test_a_crop_is_a_part_of_its_own_image_mirrored_or_not():
    images = torch.arange(3 * 2 * 6 * 7, dtype=torch.int64).view(3, 2, 6, 7)
    chance = torch.tensor([[0.0, 0.999, 0.5], [0.999, 0.0, 0.5], [0.4, 0.6, 0.1]])
    found = crops(images, torch.tensor([2, 0, 2]), 4, chance, flip=True)
    want = [images[2, :, 0:4, 3:7].flip(-1), images[0, :, 2:6, 0:4], images[2, :, 1:5, 2:6].flip(-1)]
    assert torch.equal(found, torch.stack(want))
    assert torch.equal(crops(images, torch.tensor([2]), 4, chance[:, :1], flip=False)[0], images[2, :, 0:4, 3:7])


def test_crops_reach_every_place_equally_often_and_half_are_mirrored():
    ramp = torch.arange(10, dtype=torch.uint8).expand(2, 1, 10, 10)
    config = replace(TINY, crop_from=10, flip=True)
    found = Minibatches(config, Domains(ramp, ramp, ramp, ramp), Streams(0))
    rows = torch.cat([found(step)[0][:, 0, 0] for step in range(600)]).add(1).mul(127.5).round()
    left = rows.amin(1)
    assert [left.eq(i).float().mean().item() for i in range(3)] == pytest.approx(3 * [1 / 3], abs=0.06)
    assert (rows[:, 0] > rows[:, -1]).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_pairs_are_cropped_and_mirrored_alike_and_others_are_not():
    noise = torch.randint(0, 256, (2, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    config = replace(TINY, crop_from=12, flip=True)
    for paired in (True, False):
        found = Minibatches(config, Domains(noise, noise, noise, noise), Streams(0), paired)
        assert all(torch.equal(*found(step)) for step in range(10)) == paired


def test_domains_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="Domain B has 1 training images, which is less than one minibatch of 2"):
        Minibatches(TINY, domains(4, 1), Streams(0))
    with pytest.raises(ValueError, match="images of a are 8 x 8, not 12 x 12"):
        Minibatches(replace(TINY, crop_from=12), domains(), Streams(0))
    with pytest.raises(ValueError, match="pairs need as many images of A as of B, not 6 and 9"):
        Minibatches(TINY, domains(), Streams(0), paired=True)
