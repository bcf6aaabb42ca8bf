"""The Frechet distance between Gaussians: its value, how far it would move with other images, and its limit."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count, require_features, require_same_protocol, require_same_width
from lib.metrics.gaussian import GaussianStats, gaussian_stats


def frechet_distance(a: GaussianStats, b: GaussianStats) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), >= 0, lower is better; Heusel et al. 2017 (squared as there).

    Dowson & Landau 1982. With C = L L', the trace of the root is the sum of the singular values of L_a' L_b: real,
    never negative, and accurate to rounding where a covariance is singular, as no square root of a matrix product is.
    L comes from a pivoted Cholesky factorisation and has as many columns as C has rank, so few images are also fast.
    Computed on the CPU in float64. Raises ValueError (unlike widths or protocols, nan, no covariance).
    """
    require_same_protocol(a.protocol, b.protocol)
    require_same_width("a", a.mean[None], "b", b.mean[None])
    root = _nuclear_norm(_factor("a", a).T @ _factor("b", b))
    apart = (a.mean.cpu() - b.mean.cpu()).double().square().sum()
    return _distance(apart, a.cov.diagonal().sum(), b.cov.diagonal().sum(), root)


def frechet_distance_of_features(x: Tensor, y: Tensor) -> float:
    """frechet_distance(gaussian_stats(x), gaussian_stats(y)) for x (N, D) and y (M, D), by the features if N or M <= D.

    Then the singular values are those of the N x M matrix X Y' / sqrt((N - 1)(M - 1)) of centred features, and no
    covariance is formed: faster where both counts are below some 2 D, slower where one is many times D. Raises
    ValueError as both do.
    """
    for name, features in (("x", x), ("y", y)):
        require_features(name, features, at_least=2)
    require_same_width("x", x, "y", y)
    if min(len(x), len(y)) > x.shape[1]:
        return frechet_distance(gaussian_stats(x), gaussian_stats(y))
    (mean_x, x), (mean_y, y) = _centred(x), _centred(y)
    trace_x, trace_y = x.square().sum(), y.square().sum()
    return _distance((mean_x - mean_y).square().sum(), trace_x, trace_y, _nuclear_norm(x @ y.T))


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and F with F' F = the covariance; on the CPU, where LAPACK is."""
    features = features.cpu().double()
    mean = features.mean(0)
    return mean, (features - mean) / math.sqrt(len(features) - 1)


def _distance(apart: Tensor, trace_a: Tensor, trace_b: Tensor, root: Tensor) -> float:
    """Rounding leaves equal Gaussians some 1e-15 of their traces apart, to either side of zero."""
    return max(0.0, (apart.cpu() + trace_a.cpu() + trace_b.cpu() - 2 * root).item())


def _nuclear_norm(matrix: Tensor) -> Tensor:
    # Not by eigenvalues of M M', four times as fast: a singular value below 1e-8 of the largest would be lost.
    return torch.linalg.svdvals(matrix).sum()


def _factor(name: str, stats: GaussianStats) -> Tensor:
    """L (D, rank) with L L' = C, by LAPACK's dpstrf; float64 on the CPU."""
    from scipy.linalg.lapack import dpstrf  # scipy.linalg is not needed where only training goes on

    cov, n = stats.cov.detach().cpu().double(), len(stats.mean)
    if cov.shape != (n, n) or stats.count < 2:
        raise ValueError(
            f"{name} has a mean of {n} features, a covariance {tuple(cov.shape)} and {stats.count} images:"
            f" the covariance must be ({n}, {n}), of at least 2 images"
        )
    if not (bool(torch.isfinite(cov).all()) and bool(torch.isfinite(stats.mean).all())):
        raise ValueError(f"{name} holds nan or infinity: mean and covariance must be finite")
    packed, pivots, rank, _ = dpstrf(cov.numpy(), lower=1)
    lower = torch.from_numpy(packed).tril()[:, : min(int(rank), stats.count - 1)]
    factor = torch.empty_like(lower)
    factor[torch.from_numpy(pivots).long() - 1] = lower  # undo the pivoting: rows back in their order
    scale = cov.diagonal().abs().max()
    if (cov - cov.T).abs().max() > 1e-9 * scale:
        raise ValueError(f"{name} has a covariance that is not symmetric")
    if (cov.diagonal() - factor.square().sum(1)).abs().max() > 1e-9 * scale:
        raise ValueError(
            f"{name} has a covariance that {stats.count} images cannot have: no axis may be negative, nor the rank"
            f" above {stats.count - 1}"
        )
    return factor


class FrechetInterval(NamedTuple):
    """A Frechet distance and how far other images, as many as these, would move it."""

    value: float
    low: float
    high: float
    sd: float  # over resamples
    level: float


def frechet_interval(
    x: Tensor, y: Tensor, *, resamples: int = 200, level: float = 0.95, seed: int = 0
) -> FrechetInterval:
    """Bootstrap interval of the distance between the images behind x (N, D) and y (M, D), both sides resampled.

    Repeated images make a resample's distance too large, so its quantiles are moved by the mean excess over `value`
    (Efron & Tibshirani 1993, 10.2). The interval holds what this many images give on average: the bias that comes from
    their number is in it, and frechet_distance_at_infinity speaks of that. Each resample costs one distance.
    Raises ValueError.
    """
    require_count("resamples", resamples, 10)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: it must lie between 0 and 1")
    value = frechet_distance_of_features(x, y)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(resamples, dtype=torch.float64)
    for i in range(resamples):
        rows_x = torch.randint(len(x), (len(x),), generator=generator).to(x.device)
        rows_y = torch.randint(len(y), (len(y),), generator=generator).to(y.device)
        drawn[i] = frechet_distance_of_features(x[rows_x], y[rows_y])
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = (torch.quantile(drawn, tails) - drawn.mean() + value).tolist()
    return FrechetInterval(value, max(0.0, low), high, drawn.std().item(), level)


class FrechetLimit(NamedTuple):
    """The straight line through distances against 1 / N, read off at 1 / N = 0."""

    value: float  # FID_infinity; may come out below zero
    stderr: float  # of the line's end alone: the subsets share images, so it is too small as an error of `value`
    slope: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_distance_at_infinity(
    reference: GaussianStats, generated: Tensor, *, points: int = 15, smallest: int | None = None, seed: int = 0
) -> FrechetLimit:
    """The distance extrapolated to infinitely many generated images; Chong & Forsyth 2020, section 3.

    A distance from N images exceeds its limit by about slope / N. Distances of `points` random subsets of `generated`
    (N, D), from `smallest` (default: N / 10, at least D + 1) to N images, are fitted by least squares. The images
    behind `reference` stay as many as they are, and so does the bias that comes from them. Raises ValueError.
    """
    n, d = generated.shape if generated.ndim == 2 else (0, 0)
    require_features("generated", generated, at_least=2)
    require_count("points", points, 3)
    smallest = max(n // 10, d + 1) if smallest is None else smallest
    require_count("smallest", smallest, d + 1)
    if smallest >= n:
        raise ValueError(f"generated holds {n} rows: more than {smallest} of {d} features are needed to extrapolate")
    generator = torch.Generator().manual_seed(seed)
    counts = torch.linspace(smallest, n, points, dtype=torch.float64).round().long().tolist()
    distances = [
        frechet_distance(
            reference._replace(protocol=None),
            gaussian_stats(generated[torch.randperm(n, generator=generator)[:count].to(generated.device)]),
        )
        for count in counts
    ]
    x, y = 1 / torch.tensor(counts, dtype=torch.float64), torch.tensor(distances, dtype=torch.float64)
    spread = (x - x.mean()).square().sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    end = y.mean() - slope * x.mean()
    residual = (y - end - slope * x).square().sum() / (points - 2)
    stderr = (residual * (1 / points + x.mean().square() / spread)).sqrt()
    return FrechetLimit(end.item(), stderr.item(), slope.item(), tuple(counts), tuple(distances))
