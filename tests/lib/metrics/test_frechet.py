"""The Frechet distance against closed forms, SciPy, torchmetrics and torch-fidelity, and where others return nan."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.metrics.frechet import (
    frechet_distance,
    frechet_distance_at_infinity,
    frechet_distance_of_features,
    frechet_interval,
)
from lib.metrics.gaussian import GaussianStats, gaussian_stats


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normal(d, d, seed + 1000))[0]


def features(n: int, d: int, seed: int = 0) -> Tensor:
    """Correlated, of very unlike spread (1 to 1e-3), about a mean that is not zero: as an extractor's are."""
    return normal(n, d, seed) * torch.logspace(0, -3, d, dtype=torch.float64) @ rotation(d, seed) + 0.5


def exact(mean: Tensor, cov: Tensor, count: int = 10**6) -> GaussianStats:
    return GaussianStats(mean.double(), cov.double(), count)


# --- closed forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 7, 64])
def test_diagonal_gaussians(d: int) -> None:
    a = torch.arange(1.0, d + 1)
    b = a.flip(0)
    want = d + (a.double().sqrt() - b.double().sqrt()).square().sum().item()  # the means are one apart in each axis
    got = frechet_distance(exact(torch.zeros(d), a.diag()), exact(torch.ones(d), b.diag()))
    assert got == pytest.approx(want, rel=1e-12)


# None between 0 and 1e-3: what is below the rounding of the largest is lost in the covariance that is handed over.
VARIANCES = st.floats(1e-3, 1e4) | st.just(0.0)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(VARIANCES, VARIANCES), min_size=1, max_size=9),
    st.floats(-10, 10),
    st.integers(0, 2**30),
)
def test_commuting_gaussians(variances: list[tuple[float, float]], shift: float, seed: int) -> None:
    """One basis for both: the roots subtract axis by axis. Variances of zero are among them."""
    pairs = torch.tensor(variances, dtype=torch.float64)
    d, basis = len(pairs), rotation(len(pairs), seed)
    a, b = (basis @ pairs[:, i].diag() @ basis.T for i in (0, 1))
    a, b = (a + a.T) / 2, (b + b.T) / 2
    want = d * shift**2 + (pairs[:, 0].sqrt() - pairs[:, 1].sqrt()).square().sum().item()
    got = frechet_distance(exact(torch.zeros(d), a), exact(torch.full((d,), shift, dtype=torch.float64), b))
    scale = pairs.sum().item() + 1
    assert got == pytest.approx(want, rel=1e-9, abs=2e-6 * scale if 0 in pairs else 1e-9 * scale)


def test_two_by_two_by_hand() -> None:
    """tr (AB)^(1/2) = sqrt(tr AB + 2 sqrt det AB) for two by two: no basis in common here."""
    a = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    b = torch.tensor([[5.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    root = math.sqrt((a @ b).trace().item() + 2 * math.sqrt(5.0 * 4.0))
    assert frechet_distance(exact(torch.zeros(2), a), exact(torch.zeros(2), b)) == pytest.approx(
        11 - 2 * root, rel=1e-12
    )


# --- other implementations ---------------------------------------------------------------------------------------


def test_scipy_sqrtm_agrees() -> None:
    import scipy.linalg

    a, b = gaussian_stats(features(300, 40, 1)), gaussian_stats(features(300, 40, 2) * 1.5)
    root = np.trace(scipy.linalg.sqrtm((a.cov @ b.cov).numpy())).real
    want = (a.mean - b.mean).square().sum().item() + a.cov.trace().item() + b.cov.trace().item() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-9)


def test_torchmetrics_agrees() -> None:
    from torchmetrics.image.fid import _compute_fid

    a, b = gaussian_stats(features(300, 40, 1)), gaussian_stats(features(200, 40, 2) * 1.5)
    want = _compute_fid(a.mean, a.cov, b.mean, b.cov).item()
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-6)


def test_torch_fidelity_agrees() -> None:
    fid = pytest.importorskip("torch_fidelity.metric_fid", reason="torch-fidelity is not installed")
    x, y = features(300, 40, 1).float(), (features(200, 40, 2) * 1.5).float()
    witness = fid.fid_statistics_to_metric(
        fid.fid_features_to_statistics(x), fid.fid_features_to_statistics(y), verbose=False
    )
    want = witness["frechet_inception_distance"]
    assert frechet_distance(gaussian_stats(x), gaussian_stats(y)) == pytest.approx(want, rel=1e-6)
    assert frechet_distance_of_features(x, y) == pytest.approx(want, rel=1e-6)


# --- where a square root of a matrix product fails ---------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 10, 39, 40, 41, 400])
def test_a_gaussian_is_no_distance_from_itself(n: int) -> None:
    stats = gaussian_stats(features(n, 40))
    assert 0 <= frechet_distance(stats, stats) < 1e-9
    assert 0 <= frechet_distance_of_features(features(n, 40), features(n, 40)) < 1e-9


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 500), (20, 30), (60, 25), (60, 61), (500, 59)])
def test_few_images_both_ways(n: int, m: int) -> None:
    """The small matrix of inner products and the pivoted factors of singular covariances meet."""
    x, y = features(n, 60, 1), features(m, 60, 2) * 2
    by_stats = frechet_distance(gaussian_stats(x), gaussian_stats(y))
    assert frechet_distance_of_features(x, y) == pytest.approx(by_stats, rel=1e-9)
    assert math.isfinite(by_stats)


def test_few_images_against_the_eigenvalues() -> None:
    """Rank 9 and rank 14 in 30 dimensions, with the root taken in the basis of the first."""
    a, b = gaussian_stats(features(10, 30, 1)), gaussian_stats(features(15, 30, 2))
    values, vectors = torch.linalg.eigh(a.cov)
    half = vectors * values.clamp_min(0).sqrt()
    root = torch.linalg.eigvalsh(half.T @ b.cov @ half)
    root = root[root > 1e-12 * root.max()].sqrt().sum().item()
    want = (a.mean - b.mean).square().sum().item() + a.cov.trace().item() + b.cov.trace().item() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-6)


def test_features_that_never_fire() -> None:
    x, y = features(100, 10, 1), features(100, 10, 2)
    dead = torch.zeros(100, 5, dtype=torch.float64)
    with_dead = frechet_distance_of_features(torch.cat([x, dead], 1), torch.cat([y, dead], 1))
    assert with_dead == pytest.approx(frechet_distance_of_features(x, y), rel=1e-12)


def test_constant_images() -> None:
    a = gaussian_stats(torch.zeros(4, 3))
    assert frechet_distance(a, gaussian_stats(torch.ones(4, 3))) == 3.0
    spread = exact(torch.zeros(3), torch.eye(3))
    assert frechet_distance(a, spread) == pytest.approx(3.0, rel=1e-12)


# --- what must not matter ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 12), st.integers(0, 2**30))
def test_rotation_order_and_sides(n: int, m: int, d: int, seed: int) -> None:
    x, y = normal(n, d, seed), normal(m, d, seed + 1) * 2 + 1
    want = frechet_distance_of_features(x, y)
    close = pytest.approx(want, rel=1e-8)
    basis, axes = rotation(d, seed), torch.randperm(d, generator=torch.Generator().manual_seed(seed))
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert frechet_distance_of_features(x @ basis + 7, y @ basis + 7) == close
    assert frechet_distance_of_features(x[:, axes], y[:, axes]) == close
    assert frechet_distance_of_features(x[rows], y) == close
    assert frechet_distance_of_features(y, x) == close
    assert frechet_distance(gaussian_stats(x), gaussian_stats(y)) == close
    assert want >= 0


def test_scale_is_squared() -> None:
    x, y = features(90, 8, 1), features(80, 8, 2)
    assert frechet_distance_of_features(3 * x, 3 * y) == pytest.approx(9 * frechet_distance_of_features(x, y), rel=1e-9)


def test_the_global_generator_is_not_asked() -> None:
    x, y = normal(60, 3, 1), normal(60, 3, 2)
    torch.manual_seed(0)
    first = frechet_interval(x, y, resamples=10, seed=3)
    torch.manual_seed(1)
    assert frechet_interval(x, y, resamples=10, seed=3) == first
    assert frechet_interval(x, y, resamples=10, seed=4) != first


# --- interval and limit ------------------------------------------------------------------------------------------


def test_the_interval_covers_what_such_samples_give_on_average() -> None:
    """150 pairs of samples: about 95 % of their intervals hold the mean distance of all pairs."""
    pairs = [(normal(80, 4, 2 * i), normal(80, 4, 2 * i + 1) * 1.2 + 0.3) for i in range(150)]
    found = [frechet_interval(x, y, resamples=60, seed=i) for i, (x, y) in enumerate(pairs)]
    values = torch.tensor([f.value for f in found])
    covered = sum(f.low <= values.mean().item() <= f.high for f in found) / len(found)
    assert 0.88 <= covered <= 0.99
    assert torch.tensor([f.sd for f in found]).mean().item() == pytest.approx(values.std().item(), rel=0.25)


def test_the_interval_holds_its_value_and_narrows_with_images() -> None:
    few = frechet_interval(normal(50, 3, 1), normal(50, 3, 2) + 1, resamples=50)
    many = frechet_interval(normal(2000, 3, 1), normal(2000, 3, 2) + 1, resamples=50)
    assert few.low < few.value < few.high
    assert many.high - many.low < 0.4 * (few.high - few.low)
    narrow = frechet_interval(normal(50, 3, 1), normal(50, 3, 2) + 1, resamples=50, level=0.5)
    assert few.low < narrow.low < narrow.high < few.high


def test_the_limit_is_the_distance_of_the_laws() -> None:
    """The reference is exact and the law the same, so the whole of a plain distance is the bias of 3,000 images."""
    d = 16
    reference = exact(torch.zeros(d), torch.eye(d))
    limits, plain = [], []
    for seed in range(12):
        x = normal(3000, d, seed)
        limits.append(frechet_distance_at_infinity(reference, x, seed=seed).value)
        plain.append(frechet_distance(reference, gaussian_stats(x)))
    limit, biased = torch.tensor(limits), torch.tensor(plain)
    assert abs(limit.mean().item()) < 4 * limit.std().item() / math.sqrt(12)
    assert biased.mean().item() > 10 * biased.std().item() / math.sqrt(12)
    assert abs(limit.mean().item()) < 0.1 * biased.mean().item()


def test_the_limit_of_a_straight_line_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import lib.metrics.frechet as module

    monkeypatch.setattr(module, "frechet_distance", lambda reference, stats: 5 + 300 / stats.count)
    found = frechet_distance_at_infinity(exact(torch.zeros(2), torch.eye(2)), normal(500, 2))
    assert found.value == pytest.approx(5, rel=1e-12)
    assert found.slope == pytest.approx(300, rel=1e-12)
    assert found.stderr == pytest.approx(0, abs=1e-9)
    assert found.counts[0] == 50
    assert found.counts[-1] == 500
    assert len(found.counts) == 15


def test_the_limit_and_its_error_are_those_of_a_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.stats import linregress

    import lib.metrics.frechet as module

    wobble = itertools.cycle([0.3, -0.5, 0.1, 0.4, -0.2])
    monkeypatch.setattr(module, "frechet_distance", lambda reference, stats: 5 + 300 / stats.count + next(wobble))
    found = frechet_distance_at_infinity(exact(torch.zeros(2), torch.eye(2)), normal(500, 2))
    want = linregress([1 / count for count in found.counts], found.distances)
    assert (found.value, found.slope) == pytest.approx((want.intercept, want.slope), rel=1e-10)
    assert found.stderr == pytest.approx(want.intercept_stderr, rel=1e-10)


# --- bad input ---------------------------------------------------------------------------------------------------


def test_unlike_protocols_are_refused() -> None:
    stats = gaussian_stats(normal(9, 3), {"extractor": "digits-cnn", "resize": "none"})
    other = gaussian_stats(normal(9, 3), {"extractor": "efficientnet-lite0", "resize": "none"})
    with pytest.raises(ValueError, match="extractor is 'digits-cnn' and 'efficientnet-lite0'"):
        frechet_distance(stats, other)
    assert frechet_distance(stats, gaussian_stats(normal(9, 3))) >= 0  # not said: not refused


def test_bad_statistics_are_refused() -> None:
    good = exact(torch.zeros(2), torch.eye(2))
    cases = [
        (exact(torch.zeros(3), torch.eye(3)), "a has 3 features and b 2"),
        (exact(torch.tensor([0.0, math.nan]), torch.eye(2)), "a holds nan"),
        (exact(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "no axis may be negative"),
        (exact(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
        (exact(torch.zeros(2), torch.eye(2), count=2), "nor the rank above 1"),
        (exact(torch.zeros(2), torch.eye(2), count=1), "1 images"),
        (exact(torch.zeros(2), torch.eye(3)), r"covariance \(3, 3\)"),
    ]
    for stats, message in cases:
        with pytest.raises(ValueError, match=message):
            frechet_distance(stats, good)


def test_bad_features_are_refused() -> None:
    x = normal(5, 3)
    with pytest.raises(ValueError, match="y holds 1 rows: at least 2"):
        frechet_distance_of_features(x, x[:1])
    with pytest.raises(ValueError, match="x has 3 features and y 2"):
        frechet_distance_of_features(x, x[:, :2])
    with pytest.raises(ValueError, match="level is 1"):
        frechet_interval(x, x, level=1)
    with pytest.raises(ValueError, match="resamples is 5"):
        frechet_interval(x, x, resamples=5)
    with pytest.raises(ValueError, match="generated holds 5 rows: more than 5 of 3"):
        frechet_distance_at_infinity(gaussian_stats(x), x, smallest=5)
    with pytest.raises(ValueError, match="points is 2"):
        frechet_distance_at_infinity(gaussian_stats(x), x, points=2)
