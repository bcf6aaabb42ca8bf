"""The Inception score: how sure a classifier is of each image, and how evenly it spreads over its classes."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count, require_probabilities


class InceptionScoreResult(NamedTuple):
    """value is the mean over `splits` parts, spread their standard deviation; spread is no standard error of value."""

    value: float
    spread: float
    splits: int


def inception_score(
    probabilities: Tensor,
    splits: int = 10,
    *,
    seed: int | None,
    spread: Literal["population", "sample"] = "population",
) -> InceptionScoreResult:
    """exp(mean over x of KL(p(y|x) || p(y))), p(y) the mean of p(y|x); Salimans et al. 2016, section 4.

    probabilities: (N, K) rows p(y|x), any device; computed in float64 with 0 log 0 = 0. Range 1 .. K, higher is
    better: 1 where every image has the same prediction, K where predictions are certain and all classes equally
    frequent. The images are cut into `splits` parts, part i being rows i N // splits up to (i + 1) N // splits, each is
    scored by its own p(y), and the scores are averaged. A part of n images can score at most n, and fewer images score
    lower, so values of unlike N or splits are not comparable. `seed` shuffles the rows first; None keeps their order,
    which is right only where the order carries no class (a sorted data set scores 1 in each part).

    spread: "population" divides the variance over parts by their number, as the authors' code and torch-fidelity do,
    "sample" by one less, as torchmetrics does; the latter is nan for one part.

    The score never sees a real image: one perfect image a class, memorised or not, has the highest score there is.
    Raises ValueError for rows that are no probabilities, or splits outside 1 .. N.
    """
    require_probabilities("probabilities", probabilities)
    n = len(probabilities)
    require_count("splits", splits, 1, n)
    if spread not in ("population", "sample"):
        raise ValueError(f'spread is {spread!r}: it must be "population" or "sample"')
    order = torch.arange(n) if seed is None else torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    order = order.to(probabilities.device)
    parts = [order[i * n // splits : (i + 1) * n // splits] for i in range(splits)]
    scores = torch.stack([_score(probabilities[part].double()) for part in parts])
    if spread == "sample" and splits == 1:
        deviation = math.nan
    else:
        deviation = scores.std(correction=int(spread == "sample")).item()
    return InceptionScoreResult(scores.mean().item(), deviation, splits)


def _score(p: Tensor) -> Tensor:
    # The mean of subnormal entries can underflow to 0 although an entry is not 0; its share of the sum is nil.
    marginal = p.mean(0).clamp_min(torch.finfo(p.dtype).tiny)
    return (torch.xlogy(p, p) - torch.xlogy(p, marginal)).sum(1).mean().exp()  # (n, K) -> ()
