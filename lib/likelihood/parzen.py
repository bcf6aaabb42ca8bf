"""The Parzen-window log-likelihood of data under samples: the score of early generative-model papers, and a weak one.

A Parzen number is no likelihood of the model that drew the samples. With 10,000 samples in 784 dimensions it is far
from convergence, and it ranks models wrongly: by Goodfellow's protocol real MNIST images score about 244 nats, and
k-means centres more (Theis et al. 2016). Read it beside those two anchors, and never beside another estimator.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.checks import require_features, require_positive, require_same_width
from lib.results import Score, mean_score

PARZEN_GRID: tuple[float, ...] = tuple(np.logspace(-1, 0, 10).tolist())  # Goodfellow et al. 2014, parzen_ll.py

_BLOCK = 2**24  # distances alive at a time: 64 MiB in float32
_ROWS = 64  # but at least so many images, or the product waits for memory; the samples take more than these rows
_NEGLIGIBLE_NATS = 1e-3  # a bound on rounding below which float32 products are left as they are
_WEIGHT_NATS = 5.0  # kernels this far below an image's largest weigh under 1 %: their rounding does not matter
_VANISHING_NATS = 80.0  # a kernel this far below the largest adds nothing, and exp of less is slow: subnormal numbers
_PAIRS = 64  # recomputing more pairs an image than this costs more than the whole block in float64


class Bandwidth(NamedTuple):
    """A kernel width chosen on validation data, and what it was chosen from."""

    sigma: float  # same unit as the data
    grid: tuple[float, ...]
    means: tuple[float, ...]  # nats per image, mean validation log-likelihood of each sigma in grid


def parzen_log_likelihood(samples: Tensor, data: Tensor, sigma: float) -> Tensor:
    """log (1/M) sum_m N(x; s_m, sigma^2 I) of each image x, normaliser included; Breuleux et al. 2011.

    samples: (M, D) and data: (N, D), floating point on one device, any real values: both on the scale of the pixels the
    number is quoted for (0 .. 1 for MNIST), as rescaling by c adds D log c. Returns (N,) float64, nats per image,
    -D/2 log(2 pi sigma^2) at the most; higher is better. Within 1e-3 nats for float32 pixels of 0 .. 1 and sigma of .05
    or more; float32 values many sigma from their mean lose by its subtraction. float64 is exact to rounding. Not
    differentiable. Raises ValueError.
    """
    require_positive("sigma", sigma)
    return _log_likelihoods(samples, data, (sigma,), "data")[0]


def select_bandwidth(samples: Tensor, validation: Tensor, grid: Sequence[float] = PARZEN_GRID) -> Bandwidth:
    """The sigma of `grid` with the highest mean log-likelihood of validation (N, D); the first of equals.

    Distances are computed once for the whole grid. Raises ValueError.
    """
    if len(grid) == 0:
        raise ValueError("grid is empty: at least one sigma is needed")
    for position, sigma in enumerate(grid):
        require_positive(f"grid[{position}]", sigma)
    means = _log_likelihoods(samples, validation, grid, "validation").mean(1)
    return Bandwidth(float(grid[int(means.argmax())]), tuple(map(float, grid)), tuple(means.tolist()))


def parzen_score(
    samples: Tensor,
    validation: Tensor,
    test: Tensor,
    grid: Sequence[float] = PARZEN_GRID,
    protocol: Mapping[str, Any] | None = None,
) -> Score:
    """Mean test log-likelihood at the sigma that suits validation best, nats/image; Goodfellow et al. 2014, table 1.

    Their parzen_ll.py takes M = 10,000 samples, the first 1,000 validation images, all 10,000 test images and the grid
    above; stderr = sd / sqrt(N) over test images, so it is blind to the draw of the samples. See the module's warning:
    a proxy of low quality, by which memorised or blurred images can beat real ones. More samples raise it.
    protocol: what the caller knows besides (data set, split); sigma, grid and counts are added. Raises ValueError.
    """
    bandwidth = select_bandwidth(samples, validation, grid)
    values = _log_likelihoods(samples, test, (bandwidth.sigma,), "test")[0]
    made_by = {
        "estimator": "Parzen window, isotropic Gaussian kernel",
        "sigma": bandwidth.sigma,
        "grid": list(bandwidth.grid),
        "samples": len(samples),
        "validation": len(validation),
    }
    return mean_score(values, "nats/image", True, {**(protocol or {}), **made_by})


@torch.no_grad()
def _log_likelihoods(samples: Tensor, data: Tensor, sigmas: Sequence[float], data_name: str) -> Tensor:
    """(S, N) float64: one pass over the distances for all sigmas."""
    _require_images("samples", samples)
    _require_images(data_name, data)
    require_same_width("samples", samples, data_name, data)
    dtype = torch.float32 if samples.dtype == data.dtype == torch.float32 else torch.float64
    sigmas = [float(sigma) for sigma in sigmas]
    centre = samples.mean(0, dtype=torch.float64).to(dtype)
    samples, data = samples.to(dtype) - centre, data.to(dtype) - centre  # |x|^2 - 2 x.s + |s|^2 cancels the less
    half_data, half_samples = _half_square_norms(data), _half_square_norms(samples)
    rounding = _float32_rounding(half_data, half_samples, samples.shape[1])
    quick = _has_float32_products(samples) and rounding < min(sigmas) ** 2
    # The reach of the pairs that are recomputed: to the widest kernel whose sum float32 would spoil.
    spoilt = [sigma for sigma in sigmas if rounding > _NEGLIGIBLE_NATS * sigma**2]
    reach = _WEIGHT_NATS * max(spoilt) ** 2 + rounding if quick and spoilt else None

    values = torch.empty(len(sigmas), len(data), dtype=torch.float64, device=data.device)
    size = min(len(data), max(_ROWS, _BLOCK // len(samples)))
    products = data.new_empty(size, len(samples), dtype=torch.float32 if quick else torch.float64)
    kernels = torch.empty_like(products) if len(sigmas) > 1 else products
    for rows in _slices(len(data), size):
        x, half_x = data[rows], half_data[rows]
        block, scratch = products[: len(x)], kernels[: len(x)]
        if quick:
            top = _float32_block(block, x, samples, half_x, half_samples, reach)
        else:
            top = _float64_block(block, x, samples, half_x, half_samples)
        for index, sigma in enumerate(sigmas):
            total = torch.div(block, sigma**2, out=scratch).clamp_(min=-_VANISHING_NATS).exp_().sum(1).double()
            values[index, rows] = (top - half_x) / sigma**2 + total.log_()
    widths = torch.tensor(sigmas, dtype=torch.float64, device=data.device)
    normaliser = math.log(len(samples)) + samples.shape[1] * (widths.log() + 0.5 * math.log(2 * math.pi))
    return values - normaliser[:, None]


def _float64_block(block: Tensor, x: Tensor, samples: Tensor, half_x: Tensor, half_samples: Tensor) -> Tensor:
    """Fills block (n, M) with -|x - s|^2 / 2 less its largest in the row; returns largest + |x|^2 / 2, (n,) float64."""
    exact = block if block.dtype == torch.float64 else torch.empty_like(block, dtype=torch.float64)
    wide = x.double()
    for columns in _slices(len(samples), _BLOCK // samples.shape[1]):
        torch.addmm(-half_samples[columns], wide, samples[columns].double().T, out=exact[:, columns])
    torch.minimum(exact, half_x[:, None], out=exact)  # a squared distance is not negative
    top = exact.amax(1)
    torch.sub(exact, top[:, None], out=exact)
    if exact is not block:
        block.copy_(exact)
    return top


def _float32_block(
    block: Tensor, x: Tensor, samples: Tensor, half_x: Tensor, half_samples: Tensor, reach: float | None
) -> Tensor:
    """The same from float32 products, with the pairs that decide the sum recomputed from their differences.

    MNIST needs it: at sigma = .1 an error of 1e-5 in |x|^2 = 50 moves the exponent by 5e-4 nats.
    """
    torch.mm(x, samples.T, out=block)
    block.sub_(half_samples.float())
    torch.minimum(block, half_x.float()[:, None], out=block)
    top = block.amax(1)
    block.sub_(top[:, None])
    if reach is not None:
        rows, columns = (block >= -reach).nonzero(as_tuple=True)
        if len(rows) > _PAIRS * len(x):
            return _float64_block(block, x, samples, half_x, half_samples)
        for part in _slices(len(rows), _BLOCK // x.shape[1]):
            row, column = rows[part], columns[part]
            half_square = 0.5 * (x[row] - samples[column]).double().square_().sum(1)
            block[row, column] = (half_x[row] - half_square - top[row].double()).float()
    return top.double()


def _float32_rounding(half_data: Tensor, half_samples: Tensor, width: int) -> float:
    """What float32 may do to a half squared distance: errors of D products add up like a random walk's steps."""
    largest = 2 * max(half_data.max().item(), half_samples.max().item())
    return math.sqrt(width) * torch.finfo(torch.float32).eps * largest


def _has_float32_products(x: Tensor) -> bool:
    """Not on accelerators, nor where torch may round factors to TF32 or bfloat16: float64 is out of their reach."""
    plain = torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")  # type: ignore[attr-defined]
    return x.dtype == torch.float32 and x.device.type == "cpu" and plain


def _half_square_norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).square_().div_(2)


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, max(1, size)):
        yield slice(start, start + max(1, size))


def _require_images(name: str, images: Tensor) -> None:
    if not images.is_floating_point():
        raise ValueError(f"{name} is {images.dtype}: a Parzen window takes real numbers; scale pixels to 0..1 floats")
    require_features(name, images)
