"""The U-statistic against power sums, two other programs, its law under the null, and its standard error."""

import math
from functools import cache
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.metrics.kernel_distance import kernel_distance, kernel_distance_over_subsets


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def simulated(shift: float, repeats: int = 400) -> tuple[Tensor, Tensor]:
    """Values and standard errors of independent repeats, 60 against 40 rows in 4 dimensions."""
    results = [kernel_distance(normal(60, 4, 2 * i, shift), normal(40, 4, 2 * i + 1)) for i in range(repeats)]
    values, errors = ([float(r[field]) for r in results] for field in (0, 1))
    return torch.tensor(values, dtype=torch.float64), torch.tensor(errors, dtype=torch.float64)


def by_power_sums(x: Tensor, y: Tensor, degree: int, gamma: float, coef0: float) -> float:
    """One feature: k(a, b) = sum_j C(degree, j) gamma^j coef0^(degree - j) a^j b^j, so power sums say it all."""
    n, m, total = len(x), len(y), 0.0
    for j in range(degree + 1):
        sx, sy, sx2, sy2 = (v.pow(p).sum().item() for v, p in ((x, j), (y, j), (x, 2 * j), (y, 2 * j)))
        u = (sx**2 - sx2) / (n * (n - 1)) + (sy**2 - sy2) / (m * (m - 1)) - 2 * sx * sy / (n * m)
        total += math.comb(degree, j) * gamma**j * coef0 ** (degree - j) * u
    return total


@pytest.mark.parametrize(("degree", "gamma", "coef0"), [(1, 1.0, 0.0), (2, 0.5, 1.0), (3, 1.0, 1.0), (3, 2.0, 0.3)])
def test_one_feature_has_a_closed_form(degree: int, gamma: float, coef0: float) -> None:
    x, y = normal(17, 1, 0), normal(11, 1, 1, 0.5)
    got = kernel_distance(x, y, degree=degree, gamma=gamma, coef0=coef0)
    assert got.value == pytest.approx(by_power_sums(x, y, degree, gamma, coef0), rel=1e-11)
    assert got[2:] == (17, 11)


def test_linear_kernel_compares_means() -> None:
    """U = gamma (|difference of means|^2 - trace of covariance over n, of either sample)."""
    x, y = normal(30, 6, 0), normal(20, 6, 1, 0.3)
    noise = x.var(0).sum() / len(x) + y.var(0).sum() / len(y)
    want = 0.1 * ((x.mean(0) - y.mean(0)).square().sum() - noise).item()
    assert kernel_distance(x, y, degree=1, gamma=0.1).value == pytest.approx(want, rel=1e-11)


def test_two_points_have_the_value_of_their_kernel() -> None:
    """All x at a and all y at b: k(a, a) + k(b, b) - 2 k(a, b), without error."""
    x, y = torch.tensor([[1.0, 2.0]]).expand(5, 2), torch.tensor([[0.0, -1.0]]).expand(4, 2)
    got = kernel_distance(x, y, degree=3, gamma=1.0)
    assert got.value == pytest.approx(6**3 + 2**3 - 2 * (-1) ** 3, rel=1e-13)
    assert got.stderr == pytest.approx(0, abs=1e-12)


def test_a_sample_against_itself_is_below_zero() -> None:
    x = normal(50, 5, 0)
    assert kernel_distance(x, x).value < 0


def test_stderr_is_the_jackknife_written_out() -> None:
    x, y = normal(9, 3, 0), normal(7, 3, 1, 0.4)
    left_x = torch.tensor(
        [kernel_distance(torch.cat([x[:i], x[i + 1 :]]), y).value for i in range(9)], dtype=torch.float64
    )
    left_y = torch.tensor(
        [kernel_distance(x, torch.cat([y[:i], y[i + 1 :]])).value for i in range(7)], dtype=torch.float64
    )
    want = sum(((len(v) - 1) / len(v) * (v - v.mean()).square().sum()).item() for v in (left_x, left_y))
    assert kernel_distance(x, y).stderr == pytest.approx(math.sqrt(want), rel=1e-10)


def test_mean_is_zero_where_the_laws_agree() -> None:
    values, _ = simulated(0.0)
    error = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item()) < 3 * error
    assert error < 0.01  # with the diagonals left in, the mean would be above .1
    assert 0.3 < (values < 0).double().mean().item() < 0.8


def test_stderr_is_calibrated() -> None:
    """Root mean square of stderr over the true deviation: sqrt 2 under the null, 1 far from it; 400 repeats."""
    for shift, want in ((0.0, math.sqrt(2)), (1.5, 1.0)):
        values, errors = simulated(shift)
        assert errors.square().mean().sqrt().item() / values.std().item() == pytest.approx(want, rel=0.15)


def test_value_is_unbiased_under_a_shift() -> None:
    """Degree 2, one feature, gamma 1, coef0 1: (E x^2 - E y^2)^2 + 2 (E x - E y)^2 = s^4 + 2 s^2."""
    values = [kernel_distance(normal(20, 1, i, 0.7), normal(30, 1, 10_000 + i), degree=2).value for i in range(600)]
    got = torch.tensor(values, dtype=torch.float64)
    assert abs(got.mean().item() - (0.7**4 + 2 * 0.7**2)) < 3 * got.std().item() / math.sqrt(600)


@pytest.mark.parametrize(("degree", "gamma", "coef0"), [(3, None, 1.0), (2, 0.3, 0.5)])
def test_agrees_with_torchmetrics(degree: int, gamma: float | None, coef0: float) -> None:
    from torchmetrics.image.kid import poly_mmd

    x, y = normal(40, 8, 0), normal(40, 8, 1, 0.2)
    want = poly_mmd(x, y, degree, gamma, coef0).item()
    assert kernel_distance(x, y, degree=degree, gamma=gamma, coef0=coef0).value == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize(("subsets", "size", "seed"), [(7, 20, 2020), (3, 35, 5), (2, 50, 0)])
def test_subsets_agree_with_torch_fidelity(subsets: int, size: int, seed: int) -> None:
    other = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = normal(60, 8, 0), normal(50, 8, 1, 0.2)
    options = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": seed, "verbose": False}
    want = other.kid_features_to_metric(x, y, **options)
    got = kernel_distance_over_subsets(x, y, subsets=subsets, subset_size=size, seed=seed)
    assert got.value == pytest.approx(want["kernel_inception_distance_mean"], rel=1e-8)
    assert got.spread == pytest.approx(want["kernel_inception_distance_std"], rel=1e-8)
    assert got[2:] == (subsets, size)


def test_the_whole_sample_is_one_subset() -> None:
    x, y = normal(30, 4, 0), normal(30, 4, 1)
    got = kernel_distance_over_subsets(x, y, subsets=3, subset_size=30, seed=1)
    assert got.value == pytest.approx(kernel_distance(x, y).value, rel=1e-10)
    assert got.spread == pytest.approx(0, abs=1e-12)


def test_subsets_depend_on_the_seed_alone() -> None:
    x, y = normal(30, 4, 0), normal(30, 4, 1)
    first = kernel_distance_over_subsets(x, y, subsets=4, subset_size=10, seed=1)
    assert kernel_distance_over_subsets(x, y, subsets=4, subset_size=10, seed=1) == first
    assert kernel_distance_over_subsets(x, y, subsets=4, subset_size=10, seed=2) != first


@pytest.mark.parametrize("block", [1, 64, 10**6])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(23, 4, 0), normal(31, 4, 1)
    want = kernel_distance(x, y)
    # By name: the package exports a function that is called as its module is.
    monkeypatch.setattr(import_module("lib.metrics.kernel_distance"), "BLOCK", block)
    assert kernel_distance(x, y) == (
        pytest.approx(want.value, rel=1e-11),
        pytest.approx(want.stderr, rel=1e-11),
        23,
        31,
    )


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), m=st.integers(3, 12), d=st.integers(1, 5))
def test_order_side_and_rotation_do_not_matter(seed: int, n: int, m: int, d: int) -> None:
    x, y = normal(n, d, seed), normal(m, d, seed + 1, 0.5)
    value, stderr, _, _ = kernel_distance(x, y)
    assert kernel_distance(y, x)[:2] == (pytest.approx(value, abs=1e-9), pytest.approx(stderr, abs=1e-9))
    rotation = torch.linalg.qr(normal(d, d, seed + 2)).Q
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    turned = kernel_distance(x[rows] @ rotation, y @ rotation)
    assert turned[:2] == (pytest.approx(value, abs=1e-9), pytest.approx(stderr, abs=1e-9))


def test_float32_features_are_reduced_in_float64() -> None:
    x, y = (100 + normal(40, 8, seed).float() for seed in (0, 1))
    assert kernel_distance(x, y) == kernel_distance(x.double(), y.double())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.ones(2, 3), torch.ones(5, 3)), {}, "x holds 2 rows: at least 3"),
        ((torch.ones(5, 3), torch.ones(5, 4)), {}, "x has 3 features and y 4"),
        ((torch.ones(5, 3), torch.full((5, 3), math.nan)), {}, "y holds nan"),
        ((torch.ones(5, 3), torch.ones(5, 3)), {"degree": 0}, "degree is 0"),
        ((torch.ones(5, 3), torch.ones(5, 3)), {"gamma": -1.0}, "gamma is -1.0"),
        ((torch.ones(5, 3), torch.ones(5, 3)), {"coef0": -0.5}, "coef0 is -0.5"),
    ],
)
def test_bad_input_is_refused(arguments, options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        kernel_distance(*arguments, **options)


@pytest.mark.parametrize(("name", "value"), [("subset_size", 6), ("subset_size", 1), ("subsets", 0), ("seed", -1)])
def test_bad_subsets_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        kernel_distance_over_subsets(normal(5, 2, 0), normal(7, 2, 1), **{"subset_size": 4, "seed": 0, name: value})
