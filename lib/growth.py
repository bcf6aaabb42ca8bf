"""`regen bench growth`: how the cost of metrics and estimators grows, in seconds while one number grows.

How a training step grows with latents and with models side by side is measured by the papers' own parts.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lib import datasets
from lib.execution.execute import deterministic
from lib.likelihood import importance_weighted_bound, parzen_log_likelihood
from lib.metrics import frechet_distance, gaussian_stats, kernel_distance, precision_recall
from lib.models.gaussian_vae import BernoulliVAE
from lib.timing import take_turns

ROUNDS = 3
IMAGES = (500, 1000, 2000, 4000)
FEATURES = (256, 512, 1024, 2048)
IMPORTANCE_SAMPLES = (500, 1000, 2000, 4000)


def measure() -> list[dict[str, Any]]:
    """A row a piece of work, on one thread: the sizes, seconds at each (medians over rounds), and the exponent."""
    with deterministic("cpu"):
        digits = datasets.load("mnist-5k").images.flatten(1).float() / 255
        return [
            _row("Parzen window, 4,000 samples of 784 pixels", "images", IMAGES,
                 lambda n: lambda: parzen_log_likelihood(digits[:4000], digits[-n:], 0.2)),
            _row("Fréchet distance of two Gaussians", "features", FEATURES, _frechet),
            _row("kernel distance, 64 features", "images a side", IMAGES,
                 lambda n: partial(kernel_distance, _features(n, 64, 0), _features(n, 64, 1))),
            _row("precision and recall, 64 features", "images a side", IMAGES,
                 lambda n: partial(precision_recall, _features(n, 64, 0), _features(n, 64, 1))),
            _row("importance-weighted bound of 10 images, 500-unit VAE", "importance samples", IMPORTANCE_SAMPLES,
                 lambda k: _bound(digits[:10], k)),
        ]  # fmt: skip


def _row(what: str, grows: str, sizes: Sequence[int], made: Callable[[int], Callable[[], object]]) -> dict[str, Any]:
    """made(size): the work at that size, with all that it needs ready. Sizes take turns in every round."""
    works = {str(size): made(size) for size in sizes}
    taken = take_turns(works, ROUNDS, repeats=1, warm_up=1)
    seconds = [statistics.median(times) for times in taken.values()]
    exponent = exponent_of(sizes, seconds)
    return {"work": what, "what grows": grows, "sizes": list(sizes), "seconds": seconds, "exponent": round(exponent, 2)}


def exponent_of(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size by least squares: 1 is proportional, 2 quadratic."""
    slope: float = statistics.linear_regression([math.log(n) for n in sizes], [math.log(s) for s in seconds]).slope
    return slope


def _features(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + seed / 10


def _frechet(d: int) -> Callable[[], object]:
    a, b = (gaussian_stats(_features(2 * d, d, seed).double()) for seed in (0, 1))
    return lambda: frechet_distance(a, b)


def _bound(x: Tensor, k: int) -> Callable[[], object]:
    torch.manual_seed(0)  # the first weights are drawn from the global generator
    model, generator = BernoulliVAE(784, 500, 20), torch.Generator().manual_seed(0)
    return lambda: importance_weighted_bound(model, x.round(), k, generator)
