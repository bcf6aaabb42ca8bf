"""Metrics that rest on nearest neighbours, by exact Euclidean distances at the cost of a matrix product.

|a|^2 + |b|^2 - 2 a.b is fast but loses small distances: a copied image would not be at distance 0, and ties would be
broken at random. So it only screens. Whatever lies within its rounding error of a decision is computed again from the
differences a - b, which gives every pair the same bits wherever it stands. All of it in float64.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count, require_features, require_same_width

BLOCK = 2**24  # numbers alive at a time, 128 MB in float64
MARGIN = 8  # candidates beyond the k-th that are computed exactly before a whole row has to be


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    density: float
    coverage: float


class DistanceRatio(NamedTuple):
    """See `distance_ratio`; n counts generated images, n_reference the images of either reference set."""

    median_ratio: float
    share_nearer_train: float
    stderr: float
    n: int
    n_reference: int


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall; Kynkaanniemi et al. 2019, eq. 1 and 2.

    precision: the share of generated images that lie in the ball of some real image, whose radius is the distance to
    its k-th nearest other real image; recall: the share of real images in the ball of some generated one. Balls are
    closed (<=) as in eq. 1 and torch-fidelity; the package prdc has them open, which differs only for ties.

    real: (N, D), generated: (M, D), features of one extractor, any device; 1 <= k < min(N, M). Both are in 0 .. 1 and
    higher is better; both depend on N and M, so compare at equal numbers. Raises ValueError.
    """
    real, generated = _checked(real, generated, k)
    return PrecisionRecall(
        _share_inside(generated, real, _radii(real, k)), _share_inside(real, generated, _radii(generated, k))
    )


def density_coverage(real: Tensor, generated: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage; Naeem et al. 2020, section 3.

    density: how many of the real images' k-nearest-neighbour balls hold a generated image, on average, over k; 0 or
    more, in expectation 1 where the laws agree, and above 1 where generated images crowd where real ones are dense.
    coverage: the share of real images with a generated one in their ball, 0 .. 1; where the laws agree its expectation
    is 1 - (N - 1)...(N - k) / ((M + N - 1)...(M + N - k)). Higher is better. Balls are open (<), as in the
    authors' package prdc: a generated copy of a real image counts, an image exactly on a border does not.

    real: (N, D), generated: (M, D), any device; 1 <= k < N. Raises ValueError.
    """
    real, generated = _checked(real, generated, k, generated_too=False)
    radii = _radii(real, k)
    hits = sum(int(inside.sum()) for inside in _inside(generated, real, radii, closed=False))
    nearest, _ = _nearest(real, generated, 1)
    covered = int((nearest[:, 0] < radii).sum())
    return DensityCoverage(hits / (k * len(generated)), covered / len(real))


def nearest_neighbour(x: Tensor, reference: Tensor, *, exclude_self: bool = False) -> tuple[Tensor, Tensor]:
    """The Euclidean distance of each row of x to the nearest row of reference, and that row's number.

    x: (N, D), reference: (M, D), any device. Returns distances (N,), float64, 0 for an exact copy and only then, and
    indices (N,), the lowest of equally near rows. exclude_self skips reference[i] for x[i], for a table against
    itself. Raises ValueError; also where exclude_self is set and the tables differ in length.
    """
    require_features("x", x)
    require_features("reference", reference, at_least=2 if exclude_self else 1)
    require_same_width("x", x, "reference", reference)
    if exclude_self and len(x) != len(reference):
        raise ValueError(f"exclude_self needs one table twice, but x has {len(x)} rows and reference {len(reference)}")
    distances, indices = _nearest(x.double(), reference.double(), 1, exclude_self)
    return distances[:, 0], indices[:, 0]


def distance_ratio(generated: Tensor, train: Tensor, test: Tensor, *, seed: int) -> DistanceRatio:
    """Is a generated image nearer to the training images than to images the model never saw?

    Of the larger of train and test as many rows are drawn (by `seed`, without replacement) as the smaller one has:
    among more images the nearest is nearer by number alone. Each generated image then has the ratio
    (distance to the nearest training image) / (distance to the nearest test image), 1 where both are 0.

    median_ratio: about 1 without memorisation, 0 where most images are copies of training images; >= 0.
    share_nearer_train: the share of images with a ratio below 1, ties counting half; .5 without memorisation, 1 where
    all are copies. stderr: its binomial standard error sqrt(share (1 - share) / n). That one takes the reference
    sets as given. Their own draw adds to it, the more the smaller they are beside n: simulated with one law throughout
    (10 dimensions, n_reference 500), the share's true standard deviation was 1.07 times stderr at n = 500 (600
    repeats) and 1.29 times at n = 2000 (300 repeats). Copies of training images that were not drawn go unseen, so have
    train and test of one size, or repeat with other seeds.

    generated: (N, D), train: (A, D), test: (B, D), any device. Raises ValueError.
    """
    for name, features in (("generated", generated), ("train", train), ("test", test)):
        require_features(name, features)
    require_same_width("generated", generated, "train", train)
    require_same_width("generated", generated, "test", test)
    size, generator = min(len(train), len(test)), torch.Generator().manual_seed(seed)
    train, test = (_drawn(table, size, generator) for table in (train, test))
    to_train, _ = nearest_neighbour(generated, train)
    to_test, _ = nearest_neighbour(generated, test)
    ratios = torch.where(to_train == to_test, 1.0, to_train / to_test).sort().values  # infinite where to_test is 0
    n = len(ratios)
    share = ((to_train < to_test).sum() + 0.5 * (to_train == to_test).sum()).item() / n
    median = (ratios[(n - 1) // 2] + ratios[n // 2]).item() / 2
    return DistanceRatio(median, share, math.sqrt(share * (1 - share) / n), n, size)


def _drawn(table: Tensor, size: int, generator: torch.Generator) -> Tensor:
    if len(table) == size:
        return table
    return table[torch.randperm(len(table), generator=generator)[:size].to(table.device)]


def _checked(real: Tensor, generated: Tensor, k: int, generated_too: bool = True) -> tuple[Tensor, Tensor]:
    require_features("real", real, at_least=2)
    require_features("generated", generated, at_least=2 if generated_too else 1)
    require_same_width("real", real, "generated", generated)
    require_count("k", k, 1, (min(len(real), len(generated)) if generated_too else len(real)) - 1)
    return real.double(), generated.double()


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Distances from differences: (..., N, D) and (..., M, D) -> (..., N, M)."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _screened(x: Tensor, y: Tensor, rows: int) -> Iterator[tuple[slice, Tensor, float]]:
    """Blocks of `rows` rows of the approximate squared distances (rows, M), with a bound on their error."""
    x2, y2 = x.square().sum(1), y.square().sum(1)
    # Each of the three sums of D products is off by at most D eps times its size, and 2 |a.b| <= |a|^2 + |b|^2.
    error = (2 * x.shape[1] + 16) * torch.finfo(x.dtype).eps * (x2.max() + y2.max()).item()
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        yield block, torch.addmm(y2, x[block], y.T, alpha=-2).add_(x2[block, None]), error


def _nearest(x: Tensor, y: Tensor, k: int, exclude_self: bool = False) -> tuple[Tensor, Tensor]:
    """The k smallest exact distances, rising, and their columns, the lower first of equals: 2 x (N, k)."""
    available = len(y) - exclude_self
    n_candidates = min(k + MARGIN, available)
    distances, indices = [], []
    for block, squared, error in _screened(x, y, max(1, BLOCK // max(len(y), n_candidates * x.shape[1]))):
        if exclude_self:
            squared.diagonal(offset=block.start).fill_(math.inf)
        screen, columns = squared.topk(n_candidates, dim=1, largest=False)
        columns = columns.sort(1).values
        exact, order = _pairwise(x[block, None], y[columns])[:, 0].sort(dim=1, stable=True)
        columns = columns.gather(1, order)
        if n_candidates < available:  # a row that was left out may be as near as the k-th: look at all of them
            unsure = (screen[:, -1] <= screen[:, k - 1] + 2 * error).nonzero()[:, 0]
            if len(unsure):
                whole = _pairwise(x[block][unsure], y)
                if exclude_self:
                    whole[torch.arange(len(unsure), device=x.device), block.start + unsure] = math.inf
                whole, order = whole.sort(dim=1, stable=True)
                exact[unsure], columns[unsure] = whole[:, :n_candidates], order[:, :n_candidates]
        distances.append(exact[:, :k])
        indices.append(columns[:, :k])
    return torch.cat(distances), torch.cat(indices)


def _radii(features: Tensor, k: int) -> Tensor:
    """The distance of each row to the k-th nearest other row: (N, D) -> (N,)."""
    return _nearest(features, features, k, exclude_self=True)[0][:, -1]


def _inside(points: Tensor, centres: Tensor, radii: Tensor, closed: bool) -> Iterator[Tensor]:
    """Blocks of rows of the table "point i lies in the ball around centre j": (rows, M) bool."""
    for block, squared, error in _screened(points, centres, max(1, BLOCK // len(centres))):
        gap = squared - radii.square()
        inside = gap < 0
        for pairs in (gap.abs() <= 2 * error).nonzero().split(max(1, BLOCK // points.shape[1])):
            i, j = pairs.unbind(1)
            exact = _pairwise(points[block][i, None], centres[j, None])[:, 0, 0]
            inside[i, j] = exact <= radii[j] if closed else exact < radii[j]
        yield inside


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    return sum(int(inside.any(1).sum()) for inside in _inside(points, centres, radii, closed=True)) / len(points)
