"""The test's level under the null, its power, Bayes' accuracy between two Gaussians, and its p-value by enumeration."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.metrics.two_sample import classifier_two_sample_test

CLASSIFIERS = ["logistic", "nearest-neighbour", "mlp"]


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 0] += shift
    return x


def phi(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


@pytest.mark.parametrize("m", [0.5, 1.0, 2.0])
def test_logistic_reaches_the_accuracy_of_bayes(m: float) -> None:
    """N(0, I) against N(m, I): Phi(m / 2). The classifier's own loss is O(d / n_train), far below the error."""
    got = classifier_two_sample_test(normal(20_000, 3, 0, m), normal(20_000, 3, 1), seed=0)
    assert got.n_test == 20_000
    assert abs(got.accuracy - phi(m / 2)) < 3.5 * got.stderr
    assert got.stderr == pytest.approx(math.sqrt(got.accuracy * (1 - got.accuracy) / 20_000), rel=1e-12)
    assert got.p_value < 1e-6


@pytest.mark.parametrize("classifier", ["logistic", "nearest-neighbour"])
def test_level_under_the_null(classifier) -> None:  # type: ignore[no-untyped-def]
    """300 repeats: p < .05 at most as often as .05 allows, within 3 binomial errors; accuracy 1/2 on average."""
    results = [
        classifier_two_sample_test(normal(60, 2, 2 * i), normal(60, 2, 2 * i + 1), classifier=classifier, seed=i)
        for i in range(300)
    ]
    share = np.mean([r.p_value < 0.05 for r in results])
    assert share < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    accuracy = np.array([r.accuracy for r in results])
    assert abs(accuracy.mean() - 0.5) < 3.5 * math.sqrt(0.25 / 60 / 300)
    assert 0.01 < np.mean([r.p_value < 0.2 for r in results]) < 0.2 + 3 * math.sqrt(0.2 * 0.8 / 300)


@pytest.mark.slow
def test_level_of_the_network_under_the_null() -> None:
    results = [
        classifier_two_sample_test(normal(60, 2, 2 * i), normal(60, 2, 2 * i + 1), classifier="mlp", seed=i)
        for i in range(200)
    ]
    assert np.mean([r.p_value < 0.05 for r in results]) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert abs(np.mean([r.accuracy for r in results]) - 0.5) < 3.5 * math.sqrt(0.25 / 60 / 200)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_power_against_a_shift(classifier) -> None:  # type: ignore[no-untyped-def]
    results = [
        classifier_two_sample_test(normal(600, 4, 2 * i, 2.0), normal(600, 4, 2 * i + 1), classifier=classifier, seed=i)
        for i in range(5)
    ]
    assert all(r.p_value < 1e-3 for r in results)
    assert np.mean([r.accuracy for r in results]) == pytest.approx(phi(1.0), abs=0.04)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_only_logistic_regression_is_blind_to_equal_means(classifier) -> None:  # type: ignore[no-untyped-def]
    got = classifier_two_sample_test(normal(1000, 2, 0), 4 * normal(1000, 2, 1), classifier=classifier, seed=0)
    assert (got.accuracy > 0.7) == (classifier != "logistic")


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_disjoint_samples_are_told_apart(classifier) -> None:  # type: ignore[no-untyped-def]
    """Every hit: accuracy 1, no error, p = 2^-n_test."""
    got = classifier_two_sample_test(normal(600, 1, 0, 50.0), normal(600, 1, 1), classifier=classifier, seed=0)
    assert got == (1.0, 0.0, pytest.approx(0.5**600, rel=1e-9, abs=0), 600)


def test_p_value_is_the_binomial_tail() -> None:
    for seed in range(8):
        got = classifier_two_sample_test(normal(15, 2, seed, 0.5), normal(15, 2, 100 + seed), seed=seed)
        n, hits = got.n_test, round(got.accuracy * got.n_test)
        assert n == 16  # 15 of each: 7 to train, 8 to test
        assert got.p_value == pytest.approx(sum(math.comb(n, j) for j in range(hits, n + 1)) / 2**n, rel=1e-12)


@pytest.mark.parametrize("seed", range(9, 21))
def test_logistic_agrees_with_a_fit_by_newton(seed: int) -> None:
    """The same split, the penalised likelihood maximised by hand (C = 1, free intercept), the same hits."""
    x, y = normal(50, 3, 0, 0.8), normal(50, 3, 1)
    draws = np.random.default_rng(seed)
    a, b = x.numpy()[draws.permutation(50)], y.numpy()[draws.permutation(50)]
    train, test = np.concatenate([a[:25], b[:25]]), np.concatenate([a[25:], b[25:]])
    train, test = ((t - np.concatenate([a[:25], b[:25]]).mean(0)) / train.std(0) for t in (train, test))
    label, design = np.repeat([0.0, 1.0], 25), np.column_stack([np.ones(50), train])
    weight, penalty = np.zeros(4), np.diag([0.0, 1.0, 1.0, 1.0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-design @ weight))
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + penalty
        weight -= np.linalg.solve(hessian, design.T @ (p - label) + penalty @ weight)
    hits = ((np.column_stack([np.ones(50), test]) @ weight > 0) == (label == 1)).sum()
    assert classifier_two_sample_test(x, y, seed=seed).accuracy == hits / 50


def test_unequal_samples_are_cut_to_the_smaller() -> None:
    """Else always answering with the larger one would be right more often than not."""
    got = classifier_two_sample_test(normal(400, 2, 0), normal(40, 2, 1), seed=0)
    assert got.n_test == 40
    shares = [classifier_two_sample_test(normal(200, 2, i), normal(40, 2, 999 - i), seed=i).accuracy for i in range(60)]
    assert abs(np.mean(shares) - 0.5) < 3.5 * math.sqrt(0.25 / 40 / 60)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_the_seed_is_the_only_randomness(classifier) -> None:  # type: ignore[no-untyped-def]
    x, y = normal(60, 3, 0, 0.7), normal(60, 3, 1)
    results = []
    for seed in (5, 5, *range(6, 12)):
        np.random.seed(len(results))  # noqa: NPY002
        results.append(classifier_two_sample_test(x, y, classifier=classifier, seed=seed))
    assert results[0] == results[1]
    assert len(set(results)) > 1


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_scale_and_a_constant_feature_do_not_matter(classifier) -> None:  # type: ignore[no-untyped-def]
    x, y = normal(60, 3, 0, 0.7), normal(60, 3, 1)
    want = classifier_two_sample_test(x, y, classifier=classifier, seed=5)
    scaled = (t * torch.tensor([4.0, 0.25, 1024.0]) for t in (x, y))  # powers of 2 scale without rounding
    assert classifier_two_sample_test(*scaled, classifier=classifier, seed=5) == want
    if classifier != "mlp":  # whose first weights depend on the number of features
        padded = (torch.cat([t, torch.full((60, 1), 3.0)], 1) for t in (x, y))
        assert classifier_two_sample_test(*padded, classifier=classifier, seed=5) == want


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (normal(3, 2, 0), normal(9, 2, 1), {"seed": 0}, "x holds 3 rows: at least 4"),
        (normal(9, 2, 0), normal(9, 3, 1), {"seed": 0}, "x has 2 features and y 3"),
        (normal(9, 2, 0), normal(9, 2, 1), {"seed": -1}, "seed is -1"),
        (normal(9, 2, 0), normal(9, 2, 1), {"seed": 0, "classifier": "svm"}, "classifier is 'svm'"),
    ],
)
def test_bad_input_is_refused(x: Tensor, y: Tensor, options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        classifier_two_sample_test(x, y, **options)
