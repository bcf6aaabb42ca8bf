"""The classifier two-sample test: can a classifier tell generated images from real ones?"""

import math
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from lib.checks import require_count, require_features, require_same_width


class TwoSampleTest(NamedTuple):
    """See `classifier_two_sample_test`; n_test counts the rows classified, half of them from either sample."""

    accuracy: float
    stderr: float
    p_value: float
    n_test: int


def classifier_two_sample_test(
    x: Tensor, y: Tensor, *, classifier: Literal["logistic", "nearest-neighbour", "mlp"] = "logistic", seed: int
) -> TwoSampleTest:
    """Held-out accuracy of a classifier trained to tell x from y; Lopez-Paz & Oquab 2017, section 3.

    As many rows are drawn from x as from y (all of the smaller one), half of each to train and the rest to test, and
    every feature is scaled by the mean and standard deviation of the training rows. "logistic": logistic regression
    (L2 penalty, C = 1); "nearest-neighbour": a vote of k neighbours, k the square root of the number of training rows,
    made odd; "mlp": one hidden layer of 20 ReLU, Adam, 100 epochs, the authors' network. They run on the CPU.

    accuracy: 0 .. 1; 1/2 where the classifier finds no difference, and nearer to 1/2 is better for a generator. It
    shows what this classifier sees: logistic regression is blind to laws of equal means. stderr: its binomial standard
    error over the n_test rows. p_value: exact, P(Binomial(n_test, 1/2) >= hits). Since both classes have the same
    number of test rows, hits varies at most as much as that binomial where the laws agree, so the test's level holds.

    x: (N, D), y: (M, D), at least 4 rows each. seed: 0 .. 2^32 - 1, it decides the draw, the split and the mlp's
    start. Raises ValueError.
    """
    from scipy.stats import binomtest

    for name, features in (("x", x), ("y", y)):
        require_features(name, features, at_least=4)
    require_same_width("x", x, "y", y)
    require_count("seed", seed, 0, 2**32 - 1)
    draws, size = np.random.default_rng(seed), min(len(x), len(y))
    tables = [np.asarray(t.detach().double().cpu())[draws.permutation(len(t))[:size]] for t in (x, y)]
    half = size // 2
    train, test = (np.concatenate([t[part] for t in tables]) for part in (slice(half), slice(half, None)))
    label_train, label_test = np.repeat([0, 1], half), np.repeat([0, 1], size - half)

    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation == 0] = 1
    model = _classifier(classifier, len(train), seed)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*Maximum iterations"
        )  # 100 epochs are the definition, not a failure
        model.fit((train - mean) / deviation, label_train)
    hits = int((model.predict((test - mean) / deviation) == label_test).sum())
    n = len(label_test)
    p_value = float(binomtest(hits, n, 0.5, alternative="greater").pvalue)
    return TwoSampleTest(hits / n, math.sqrt(hits / n * (1 - hits / n) / n), p_value, n)


def _classifier(name: str, n_train: int, seed: int) -> Any:
    if name == "logistic":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)
    if name == "nearest-neighbour":
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(math.isqrt(n_train) - 1 | 1)  # the last odd number up to the root: no vote is tied
    if name == "mlp":
        from sklearn.neural_network import MLPClassifier

        return MLPClassifier(hidden_layer_sizes=(20,), max_iter=100, random_state=seed)
    raise ValueError(f'classifier is {name!r}: it must be "logistic", "nearest-neighbour" or "mlp"')
