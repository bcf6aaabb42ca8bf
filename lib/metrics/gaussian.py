"""Mean and covariance of features, in float64, all at once or batch by batch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.checks import require_features


class GaussianStats(NamedTuple):
    """The Gaussian that a Frechet distance sees of a set of features."""

    mean: Tensor  # (D,) float64
    cov: Tensor  # (D, D) float64, divisor N - 1
    count: int  # type: ignore[assignment]  # N, images seen; design's name, and tuple has a method of it
    protocol: Mapping[str, Any] | None = None  # how the features were made; None: not said

    @property
    def rank_deficient(self) -> bool:
        """Whether fewer than D + 1 images were seen, so that the covariance cannot have full rank."""
        return self.count < len(self.mean) + 1


def gaussian_stats(features: Tensor, protocol: Mapping[str, Any] | None = None) -> GaussianStats:
    """Statistics of features (N, D), N >= 2, on their device. Raises ValueError (few rows, nan, not floating point)."""
    require_features("features", features, at_least=2)
    return unpack(update(empty(features.shape[1], features.device), features), protocol)


# A running sum of squares loses all digits where the mean is large beside the spread. So the state is (n, mean, M2),
# M2 the sum of squares about the mean, and two states are joined by the formula of Chan, Golub & LeVeque (1979). It is
# packed into one tensor: torchmetrics reduces state by state over processes, and these three cannot be joined apart.


def empty(n_features: int, device: torch.device | str = "cpu") -> Tensor:
    """The state of no images at all: (1 + D + D * D,) float64 zeros."""
    return torch.zeros(1 + n_features + n_features**2, dtype=torch.float64, device=device)


def update(state: Tensor, features: Tensor) -> Tensor:
    """`state` with a batch (N, D) added, in place; N may be 0."""
    if len(features) == 0:
        return state
    batch = features.to(state.device, torch.float64)
    n_features = batch.shape[1]
    count, mean, square = _views(state, n_features)
    batch_mean = batch.mean(0)
    centred = batch - batch_mean
    square.addmm_(centred.T, centred)
    _shift(count, mean, square, float(len(batch)), batch_mean)
    return state


def join(states: Tensor) -> Tensor:
    """One state from several, (S, 1 + D + D * D) -> (1 + D + D * D,), in their order."""
    n_features = _n_features(states.shape[1])
    whole = states[0].clone()
    count, mean, square = _views(whole, n_features)
    for state in states[1:]:
        other_count, other_mean, other_square = _views(state, n_features)
        square += other_square
        _shift(count, mean, square, other_count.item(), other_mean)
    return whole


def _shift(count: Tensor, mean: Tensor, square: Tensor, other_count: float, other_mean: Tensor) -> None:
    """Moves the mean to that of both parts and adds to M2 what lies between the two means; in place."""
    total = count.item() + other_count
    if total == 0:
        return
    apart = other_mean - mean
    square.addr_(apart, apart, alpha=count.item() * other_count / total)
    mean.add_(apart, alpha=other_count / total)
    count += other_count


def unpack(state: Tensor, protocol: Mapping[str, Any] | None = None) -> GaussianStats:
    """The statistics in a state. Raises ValueError below two images."""
    count, mean, square = _views(state, _n_features(len(state)))
    n = round(count.item())
    if n < 2:
        raise ValueError(f"features holds {n} rows: a covariance needs at least 2")
    cov = square / (n - 1)
    return GaussianStats(mean.clone(), (cov + cov.T) / 2, n, protocol)


def _n_features(length: int) -> int:
    return round((length - 0.75) ** 0.5 - 0.5)  # 1 + D + D * D = (D + 1/2) ** 2 + 3/4


def _views(state: Tensor, n_features: int) -> tuple[Tensor, Tensor, Tensor]:
    return state[0], state[1 : 1 + n_features], state[1 + n_features :].view(n_features, n_features)
