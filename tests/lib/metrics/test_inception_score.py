"""The score's limits, two other programs on the same rows, and what the order and the number of parts may change."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.metrics.inception_score import inception_score

# torch-fidelity 0.4.0, isc_features_to_metric(3 sin(i j), splits=4, shuffle=False), i < 40, 1 <= j <= 4.
PINNED = (1.7488397300371494, 0.02778913736548287)


def logits(n: int, k: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("spread", ["population", "sample"])
def test_certain_and_even_predictions_score_the_number_of_classes(spread) -> None:  # type: ignore[no-untyped-def]
    rows = torch.eye(7, dtype=torch.float64).repeat(30, 1)
    assert inception_score(rows, 10, seed=None, spread=spread) == (pytest.approx(7, rel=1e-13), pytest.approx(0), 10)


def test_equal_predictions_score_one() -> None:
    rows = torch.tensor([[0.2, 0.5, 0.3, 0.0]], dtype=torch.float64).expand(40, 4)
    got = inception_score(rows, 4, seed=1)
    assert got.value == pytest.approx(1, abs=1e-14)
    assert got.spread == pytest.approx(0, abs=1e-14)


def test_two_classes_have_the_closed_form() -> None:
    """p(y|x) = (a, 1 - a) or (1 - a, a) equally often: log score = log 2 - H(a)."""
    a = 0.9
    rows = torch.tensor([[a, 1 - a], [1 - a, a]], dtype=torch.float64).repeat(10, 1)
    entropy = -a * math.log(a) - (1 - a) * math.log(1 - a)
    assert inception_score(rows, 5, seed=None).value == pytest.approx(2 * math.exp(-entropy), rel=1e-14)


@pytest.mark.parametrize(("n", "splits"), [(100, 10), (97, 10), (23, 7), (5, 1), (5, 5)])
def test_agrees_with_torch_fidelity(n: int, splits: int) -> None:
    other = pytest.importorskip("torch_fidelity.metric_isc")
    features = logits(n, 12)
    want = other.isc_features_to_metric(features, splits=splits, shuffle=False)
    got = inception_score(features.softmax(1), splits, seed=None)
    assert got.value == pytest.approx(want["inception_score_mean"], rel=1e-10)
    assert got.spread == pytest.approx(want["inception_score_std"], rel=1e-10, abs=1e-14)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save")
def test_agrees_with_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.image.inception import InceptionScore

    features = logits(100, 12)
    metric = InceptionScore(feature=torch.nn.Identity(), splits=10).set_dtype(torch.float64)
    metric.update(features)
    monkeypatch.setattr(torch, "randperm", lambda n: torch.arange(n))  # it shuffles with the global generator
    value, deviation = metric.compute()
    got = inception_score(features.softmax(1), 10, seed=None, spread="sample")
    assert got.value == pytest.approx(value.item(), rel=1e-12)
    assert got.spread == pytest.approx(deviation.item(), rel=1e-12)


def test_the_seed_is_the_only_randomness() -> None:
    rows = logits(60, 5).softmax(1)
    torch.manual_seed(1)
    first = inception_score(rows, 6, seed=3)
    torch.manual_seed(2)
    assert inception_score(rows, 6, seed=3) == first
    assert inception_score(rows, 6, seed=4) != first
    shuffled = rows[torch.randperm(60, generator=torch.Generator().manual_seed(3))]
    assert inception_score(shuffled, 6, seed=None) == first


def test_sorted_rows_need_the_shuffle() -> None:
    rows = torch.eye(5, dtype=torch.float64).repeat_interleave(40, 0)
    assert inception_score(rows, 5, seed=None).value == pytest.approx(1)
    assert inception_score(rows, 5, seed=0).value > 4.5


def test_float32_rows_are_reduced_in_float64() -> None:
    rows = logits(4000, 10).softmax(1).float()
    got, want = inception_score(rows, 1, seed=None).value, inception_score(rows.double(), 1, seed=None).value
    assert got == want


def test_entries_that_almost_vanish_stay_finite() -> None:
    rows = torch.tensor([[1.0, 5e-324], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert inception_score(rows, 1, seed=None).value == pytest.approx(1)


def test_pinned_value() -> None:
    grid = torch.arange(40, dtype=torch.float64)[:, None] * torch.arange(1, 5, dtype=torch.float64)[None]
    got = inception_score((3 * grid.sin()).softmax(1), 4, seed=None)
    assert got == (pytest.approx(PINNED[0], rel=1e-12), pytest.approx(PINNED[1], rel=1e-10), 4)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40), k=st.integers(1, 9), splits=st.integers(1, 2))
def test_range_and_invariances(seed: int, n: int, k: int, splits: int) -> None:
    rows = (3 * logits(n, k, seed)).softmax(1)
    got = inception_score(rows, splits, seed=None)
    assert 1 - 1e-12 <= got.value <= k + 1e-12
    classes = torch.from_numpy(np.random.default_rng(seed).permutation(k))
    assert inception_score(rows[:, classes], splits, seed=None).value == pytest.approx(got.value, rel=1e-12)
    if splits == 1:
        assert inception_score(rows, 1, seed=seed).value == pytest.approx(got.value, rel=1e-12)


def test_one_part_has_no_sample_deviation() -> None:
    rows = logits(6, 3).softmax(1)
    assert inception_score(rows, 1, seed=None).spread == 0
    assert math.isnan(inception_score(rows, 1, seed=None, spread="sample").spread)


@pytest.mark.parametrize(
    ("rows", "splits", "spread", "message"),
    [
        (torch.eye(3), 4, "population", "splits is 4: it must be an integer, between 1 and 3"),
        (torch.eye(3), 0, "population", "splits is 0"),
        (torch.eye(3), 1, "stderr", "spread is 'stderr'"),
        (2 * torch.eye(3), 1, "population", "no table of probabilities"),
        (torch.eye(3)[0], 1, "population", "shape"),
    ],
)
def test_bad_input_is_refused(rows: Tensor, splits: int, spread, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        inception_score(rows, splits, seed=None, spread=spread)
