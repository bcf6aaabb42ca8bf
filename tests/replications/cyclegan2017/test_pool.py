"""The image pool beside the authors' own loop, over minibatches that meet themselves."""

import pytest
import torch

from replications.cyclegan2017.pool import ImagePool


class OneByOne:
    """util/image_pool.py of the authors, its two draws an image given."""

    def __init__(self, size):
        self.size, self.images = size, []

    def query(self, images, chance):
        returned = []
        for image, (whether, which) in zip(images, chance.T.tolist(), strict=True):
            if len(self.images) < self.size:
                self.images.append(image)
                returned.append(image)
            elif whether > 0.5:
                place = int(which * self.size)
                returned.append(self.images[place].clone())
                self.images[place] = image
            else:
                returned.append(image)
        return torch.stack(returned)


@pytest.mark.parametrize(("size", "batch"), [(50, 1), (5, 1), (5, 3), (3, 8), (1, 4), (4, 4)])
def test_it_is_the_authors_pool_image_by_image(size, batch):
    """Also where a minibatch fills the pool halfway, and where an image comes back that came with it."""
    ours, theirs = ImagePool(size, (1, 2, 2)), OneByOne(size)
    for step in range(60):
        g = torch.Generator().manual_seed(step)
        new, chance = torch.randn(batch, 1, 2, 2, generator=g), torch.rand(2, batch, generator=g)
        assert torch.equal(ours(new, chance), theirs.query(new, chance)), step
        assert ours.count == len(theirs.images)
    assert torch.equal(ours.images, torch.stack(theirs.images))


def test_half_of_the_images_come_back_and_the_others_are_old():
    pool = ImagePool(50, (1, 1, 1))
    back = torch.cat([pool(torch.full((1, 1, 1, 1), float(step)), pool.draw(1, torch.Generator().manual_seed(step)))
                      for step in range(2050)]).flatten()  # fmt: skip
    new = torch.arange(2050.0)
    assert torch.equal(back[:50], new[:50])
    age = (new - back)[50:]
    assert age.eq(0).float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 2000**0.5)
    # An image waits until one of 50 places is drawn at one in two steps: 100 steps in the mean.
    assert age[age > 0].mean().item() == pytest.approx(100, rel=0.15)


def test_images_come_back_without_their_graph_and_the_pool_keeps_copies():
    pool = ImagePool(2, (1, 1, 1))
    x = torch.ones(1, 1, 1, 1, requires_grad=True)
    assert not pool(x * 2, torch.zeros(2, 1)).requires_grad
    new = torch.full((1, 1, 1, 1), 3.0)
    pool(new, torch.zeros(2, 1))
    new.fill_(9.0)
    assert pool.images.flatten().tolist() == [2, 3]


def test_a_pool_of_nothing_hands_back_what_it_gets():
    pool = ImagePool(0, (1, 2, 2))
    new = torch.randn(3, 1, 2, 2)
    assert torch.equal(pool(new, torch.ones(2, 3)), new)


def test_its_images_are_part_of_a_checkpoint():
    pool = ImagePool(3, (1, 1, 1))
    pool(torch.ones(2, 1, 1, 1), torch.zeros(2, 2))
    again = ImagePool(3, (1, 1, 1))
    again.load_state_dict(pool.state_dict())
    assert again.count == 2
    assert again.images.flatten().tolist() == [1, 1, 0]
