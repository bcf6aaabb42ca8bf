"""3 x 3 convolution with a reflected border by Winograd's minimal filtering F(4 x 4, 3 x 3); Lavin and Gray 2016.

Each 4 x 4 tile of the output needs 36 products a pair of channels where the definition takes 144. The same function in
exact arithmetic; in float32 an entry is off by a few times the rounding of the direct sum.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Points 0, 1, -1, 2, -2 and infinity; Lavin and Gray 2016, section 4.4.
_INPUT = torch.tensor([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
], dtype=torch.float64)  # fmt: skip
_KERNEL = torch.tensor([
    [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
], dtype=torch.float64)  # fmt: skip
_OUTPUT = torch.tensor([
    [1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1],
], dtype=torch.float64)  # fmt: skip
TILE = 4


def reflected_conv3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """conv2d(x with its border reflected by 1, weight, bias): (N, n, H, W), (m, n, 3, 3), (m,) -> (N, m, H, W).

    H and W multiples of 4; channels last in memory. Differentiable once. Raises ValueError.
    """
    if x.shape[2] % TILE or x.shape[3] % TILE:
        raise ValueError(f"maps are {x.shape[2]} x {x.shape[3]}: tiles of {TILE} x {TILE} do not cover them")
    if weight.shape[2:] != (3, 3):
        raise ValueError(f"the kernel is {weight.shape[2]} x {weight.shape[3]}, not 3 x 3")
    y: Tensor = _Winograd.apply(x, weight, bias)
    return y


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        n, height, width, m = len(x), x.shape[2], x.shape[3], len(weight)
        inputs, kernels = _transformed_input(x), _transformed_kernel(weight)  # (36, T, n), (36, m, n)
        products = _by_transposed(inputs, kernels)  # (36, T, m)
        tiles = _times(_matrix("output", x), products.flatten(1))  # (16, T m)
        y = x.new_empty(n, height, width, m)
        _by_tile(y).copy_(tiles.view(TILE, TILE, n, height // TILE, width // TILE, m))
        return y.add_(bias).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (m, n), tiles = weight.shape[:2], x.shape[0] * x.shape[2] * x.shape[3] // TILE**2
        upstream = upstream.permute(0, 2, 3, 1).contiguous()
        of_products = _times(_matrix("output", x).T, _by_tile(upstream).reshape(TILE**2, -1)).view(-1, tiles, m)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            of_kernels = _by_transposed(of_products.transpose(1, 2), _transformed_input(x).transpose(1, 2))
            of_weight = _times(_matrix("kernel", x).T, of_kernels.flatten(1)).view(3, 3, m, n).permute(2, 3, 0, 1)
        if ctx.needs_input_grad[0]:
            of_inputs = _by_transposed(of_products, _transformed_kernel(weight).transpose(1, 2))  # (36, T, n)
            of_x = _gathered(_times(_matrix("input", x).T, of_inputs.flatten(1)), x)
        if ctx.needs_input_grad[2]:
            of_bias = upstream.view(-1, m).sum(0)
        return of_x, of_weight, of_bias


def _matrix(name: str, like: Tensor) -> Tensor:
    """The two-dimensional transform as one matrix: input (36, 36), kernel (36, 9), output (16, 36)."""
    one = {"input": _INPUT, "kernel": _KERNEL, "output": _OUTPUT}[name]
    return torch.kron(one, one).to(like)


def _transformed_input(x: Tensor) -> Tensor:
    """(N, n, H, W) -> (36, T, n) for T tiles of 6 x 6, whose outputs are 4 x 4."""
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect").permute(0, 2, 3, 1)  # (N, H + 2, W + 2, n)
    tiles = padded.unfold(1, 6, TILE).unfold(2, 6, TILE).permute(4, 5, 0, 1, 2, 3)  # (6, 6, N, H / 4, W / 4, n)
    return _times(_matrix("input", x), tiles.reshape(36, -1)).view(36, -1, x.shape[1])


def _transformed_kernel(weight: Tensor) -> Tensor:
    """(m, n, 3, 3) -> (36, m, n)."""
    kernels = _times(_matrix("kernel", weight), weight.permute(2, 3, 0, 1).reshape(9, -1))
    return kernels.view(36, *weight.shape[:2])


def _by_tile(image: Tensor) -> Tensor:
    """A view of (N, H, W, m) by place in the tile and by tile: (4, 4, N, H / 4, W / 4, m)."""
    n, height, width, m = image.shape
    return image.view(n, height // TILE, TILE, width // TILE, TILE, m).permute(2, 4, 0, 1, 3, 5)


def _gathered(tiles: Tensor, x: Tensor) -> Tensor:
    """Gradients of 6 x 6 tiles, (36, T n), added up where tiles overlap and where the border was reflected: as x."""
    n, channels, height, width = x.shape
    rows, columns = height // TILE, width // TILE
    tiles = tiles.view(6, 6, n, rows, columns, channels)
    padded = x.new_zeros(n, height + TILE, width + TILE, channels)  # its last two rows and columns stay empty
    parts = _by_tile(padded)
    parts[:, :, :, :rows, :columns] = tiles[:TILE, :TILE]
    parts[:2, :, :, 1:, :columns] += tiles[TILE:, :TILE]
    parts[:, :2, :, :rows, 1:] += tiles[:TILE, TILE:]
    parts[:2, :2, :, 1:, 1:] += tiles[TILE:, TILE:]
    for axis, size in ((1, height), (2, width)):
        for border, inside in ((0, 2), (size + 1, size - 1)):
            padded.select(axis, inside).add_(padded.select(axis, border))
    return padded[:, 1 : height + 1, 1 : width + 1].permute(0, 3, 1, 2)


# oneDNN multiplies with AVX-512 where MKL, which torch.mm calls, keeps to AVX2 on AMD's processors: half the time.
_ONEDNN = getattr(getattr(torch.ops, "mkldnn", None), "_linear_pointwise", None)


def _by_onednn(like: Tensor) -> bool:
    return _ONEDNN is not None and like.dtype == torch.float32 and like.device.type == "cpu"


def _times(a: Tensor, b: Tensor) -> Tensor:
    """a b: (p, q), (q, r) -> (p, r)."""
    return _ONEDNN(a, b.T, None, "none", [], "") if _by_onednn(b) else a @ b  # type: ignore[misc]


def _by_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a_k b_k^T of each k: (k, p, q), (k, r, q) -> (k, p, r)."""
    if not _by_onednn(a):
        return torch.bmm(a, b.transpose(1, 2))
    return torch.stack([_ONEDNN(one, other, None, "none", [], "") for one, other in zip(a, b, strict=True)])  # type: ignore[misc]
