"""Moments in float64: the textbook's values, whatever the batches, the order, or the distance from zero."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.metrics.gaussian import empty, gaussian_stats, join, unpack, update


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_numpy_agrees() -> None:
    x = normal(50, 7)
    stats = gaussian_stats(x)
    np.testing.assert_allclose(stats.mean.numpy(), x.numpy().mean(0), rtol=0, atol=1e-14)
    np.testing.assert_allclose(stats.cov.numpy(), np.cov(x.numpy().T), rtol=1e-12, atol=1e-14)
    assert stats.count == 50


def test_by_hand() -> None:
    stats = gaussian_stats(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 7.0]]))
    assert stats.mean.tolist() == [2.0, 3.0]
    assert stats.cov.tolist() == [[4.0, 6.0], [6.0, 12.0]]
    assert stats.mean.dtype == stats.cov.dtype == torch.float64


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 2**30))
def test_batches_change_nothing(sizes: list[int], seed: int) -> None:
    x = normal(sum(sizes) + 2, 5, seed) * 3 + 10
    state = update(empty(5), x[:2])
    for batch in x[2:].split(sizes):
        update(state, batch)
    got, want = unpack(state), gaussian_stats(x)
    torch.testing.assert_close(got.mean, want.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(got.cov, want.cov, rtol=1e-11, atol=1e-13)
    assert got.count == len(x)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(4)), st.integers(0, 2**30))
def test_parts_join_in_any_order(order: list[int], seed: int) -> None:
    x = normal(40, 6, seed) - 3
    parts = [x[:1], x[1:9], x[9:9], x[9:]]  # one image, and none at all, are parts too
    states = torch.stack([update(empty(6), parts[i]) for i in order])
    got, want = unpack(join(states)), gaussian_stats(x)
    torch.testing.assert_close(got.mean, want.mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(got.cov, want.cov, rtol=1e-11, atol=1e-13)
    assert got.count == 40


def test_joining_leaves_the_parts_alone() -> None:
    states = torch.stack([update(empty(3), normal(5, 3, seed)) for seed in (0, 1)])
    before = states.clone()
    join(states)
    assert torch.equal(states, before)


def test_far_from_zero_no_digits_are_lost() -> None:
    """Sums of squares would keep none: the mean is 1e8 times the spread."""
    x = normal(4000, 3)
    state = empty(3)
    for batch in (x + 1e8).split(64):
        update(state, batch)
    torch.testing.assert_close(unpack(state).cov, gaussian_stats(x).cov, rtol=1e-6, atol=1e-7)


def test_float32_is_summed_in_float64() -> None:
    x = (normal(3000, 4) + 100).float()
    torch.testing.assert_close(gaussian_stats(x).cov, torch.cov(x.double().T), rtol=1e-11, atol=1e-12)


def test_rank_deficient_is_said_below_d_plus_one() -> None:
    assert gaussian_stats(normal(5, 5)).rank_deficient
    assert not gaussian_stats(normal(6, 5)).rank_deficient


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(1, 3), "features holds 1 rows: at least 2"),
        (torch.zeros(0, 3), "features holds 0 rows"),
        (torch.tensor([[0.0, float("nan")], [0.0, 0.0]]), "nan or infinity, first in row 0"),
        (torch.tensor([[0.0, 1.0], [0.0, float("inf")]]), "first in row 1"),
        (torch.zeros(4, 3, dtype=torch.uint8), "features is torch.uint8"),
        (torch.zeros(4, 3, 2), r"shape \(4, 3, 2\)"),
        (torch.zeros(4, 0), "no columns"),
    ],
)
def test_bad_features_are_refused(features: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gaussian_stats(features)


@pytest.mark.parametrize("n", [0, 1])
def test_a_state_of_too_few_images_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"holds {n} rows"):
        unpack(update(empty(3), normal(n, 3)))
