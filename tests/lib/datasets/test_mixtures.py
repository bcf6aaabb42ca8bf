"""Centres by hand, the laws of the draws, and the spiral against scikit-learn's."""

import math

import pytest
import torch

from lib.datasets.mixtures import GaussianMixture, grid, ring, swiss_roll


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_rings_centres_are_the_roots_of_unity():
    h = math.sqrt(0.5)
    expected = [[1, 0], [h, h], [0, 1], [-h, h], [-1, 0], [-h, -h], [0, -1], [h, -h]]
    torch.testing.assert_close(ring(8, 1.0, 0.01).centres, torch.tensor(expected), rtol=0, atol=1e-7)
    assert torch.pdist(ring(8, 2.0, 0.01).centres).min().item() == pytest.approx(4 * math.sin(math.pi / 8), rel=1e-6)


def test_the_grids_centres_are_every_pair_of_edges():
    expected = {(x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-4.0, -2.0, 0.0, 2.0, 4.0)}
    assert {tuple(row) for row in grid(5, 2.0, 0.05).centres.tolist()} == expected
    assert grid(2, 3.0, 1.0).centres.tolist() == [[-1.5, -1.5], [-1.5, 1.5], [1.5, -1.5], [1.5, 1.5]]


def test_draws_have_equal_modes_and_the_stated_spread():
    """20,000 draws: each mode's count within 4 binomial standard errors, the spread within 2 %."""
    mixture, n = grid(3, 10.0, 0.5), 20_000
    points = mixture.sample((4, n // 4), seeded())
    assert points.shape == (4, n // 4, 2)
    assert points.dtype == torch.float32
    distances = torch.cdist(points.view(-1, 2), mixture.centres)
    nearest = distances.argmin(1)
    error = math.sqrt(n * (1 / 9) * (8 / 9))
    assert (torch.bincount(nearest, minlength=9) - n / 9).abs().max().item() < 4 * error
    assert (points.view(-1, 2) - mixture.centres[nearest]).std().item() == pytest.approx(0.5, rel=0.02)


def test_draws_repeat_with_the_generator_and_differ_without():
    mixture = ring(8, 1.0, 0.1)
    assert torch.equal(mixture.sample((5,), seeded(1)), mixture.sample((5,), seeded(1)))
    assert not torch.equal(mixture.sample((5,), seeded(1)), mixture.sample((5,), seeded(2)))


def test_a_mixture_of_any_dimension_can_be_sampled():
    mixture = GaussianMixture(torch.tensor([[0.0, 0.0, 9.0]]), 1e-3)
    torch.testing.assert_close(mixture.sample((2, 3), seeded()).mean((0, 1)), mixture.centres[0], rtol=0, atol=0.01)


def test_the_spiral_is_scikit_learns():
    """The same distribution of the radius and of the angle it implies: two-sample Kolmogorov-Smirnov."""
    from scipy.stats import ks_2samp
    from sklearn.datasets import make_swiss_roll

    ours = swiss_roll((4000,), 0.3, seeded()).double().numpy()
    theirs = make_swiss_roll(4000, noise=0.3, random_state=0)[0][:, [0, 2]]
    for a, b in ((ours[:, 0], theirs[:, 0]), (ours[:, 1], theirs[:, 1]), ((ours**2).sum(1), (theirs**2).sum(1))):
        assert ks_2samp(a, b).pvalue > 0.01
    clean = swiss_roll((1000,), 0.0, seeded())
    radius = clean.norm(dim=1)
    torch.testing.assert_close(clean, radius[:, None] * torch.stack([radius.cos(), radius.sin()], 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ring(0, 1.0, 0.1), "n_modes"),
        (lambda: ring(8, -1.0, 0.1), "radius"),
        (lambda: ring(8, 1.0, 0.0), "sd"),
        (lambda: grid(0, 1.0, 0.1), "side"),
        (lambda: grid(3, math.inf, 0.1), "spacing"),
    ],
)
def test_a_mixture_that_is_none_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
