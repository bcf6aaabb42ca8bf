"""The image-to-image ResNet of Johnson et al. 2016 as Zhu et al. 2017 use it, for any width, depth and side.

One convolution at the image's side, two of stride 2, residual blocks at a quarter of the side, two transposed ones
back, and one to the output's channels with tanh. Every convolution has a bias.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.checks import require_count
from lib.models.instance_norm import InstanceNorm
from lib.models.winograd import TILE, reflected_conv3

FEW = 4  # channels out; two channels' worth of zeros would be as slow
MANY, MANY_PIXELS = 256, 1024  # from where tiles beat the direct sum on a CPU, measured


class ResnetGenerator(nn.Module):
    """Images (N, n_in, H, W) -> images (N, n_out, H, W) in -1 .. 1; H and W multiples of 4, at least 8.

    n_filters: channels of the first convolution; the blocks have four times as many. Raises ValueError for counts that
    are none, and at a call for sides that do not come back.
    """

    def __init__(self, n_in: int, n_out: int, n_filters: int, n_blocks: int) -> None:
        super().__init__()
        for name, count in (("n_in", n_in), ("n_out", n_out), ("n_filters", n_filters)):
            require_count(name, count, 1)
        require_count("n_blocks", n_blocks, 0)
        n = n_filters
        self.encode = nn.Sequential(
            ReflectedConv(n_in, n, 7), InstanceNorm(leak=0),
            nn.Conv2d(n, 2 * n, 3, 2, 1), InstanceNorm(leak=0),
            nn.Conv2d(2 * n, 4 * n, 3, 2, 1), InstanceNorm(leak=0),
        )  # fmt: skip
        self.blocks = nn.Sequential(*(ResidualBlock(4 * n) for _ in range(n_blocks)))
        self.decode = nn.Sequential(
            nn.ConvTranspose2d(4 * n, 2 * n, 3, 2, 1, output_padding=1), InstanceNorm(leak=0),
            nn.ConvTranspose2d(2 * n, n, 3, 2, 1, output_padding=1), InstanceNorm(leak=0),
            ReflectedConv(n, n_out, 7), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 4 or x.shape[-2] % 4 or min(x.shape[-2:]) < 8:
            raise ValueError(f"images are {x.shape[-2]} x {x.shape[-1]}: both sides must be multiples of 4, at least 8")
        h = self.encode(x)  # (N, n_in, H, W) -> (N, 4 n, H / 4, W / 4)
        h = self.blocks(h)  # (N, 4 n, H / 4, W / 4)
        y: Tensor = self.decode(h)  # -> (N, n_out, H, W)
        return y


class ResidualBlock(nn.Module):
    """x + norm(conv(ReLU(norm(conv(x))))), 3 x 3 convolutions with a reflected border; no activation behind the sum."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ReflectedConv(n, n, 3), InstanceNorm(leak=0), ReflectedConv(n, n, 3), InstanceNorm()
        )

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x)  # (N, n, h, w)
        return x + h


class ReflectedConv(nn.Conv2d):
    """An odd kernel over a map whose border is reflected, so that the side stays: (N, n_in, H, W) -> (N, n_out, H, W).

    On a CPU two cases are computed in a faster way and in the same numbers to rounding: many channels by 3 x 3 kernels,
    and few channels out.
    """

    def __init__(self, n_in: int, n_out: int, side: int) -> None:
        super().__init__(n_in, n_out, side)
        self.width = side // 2  # of the border

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        if x.device.type == "cpu":
            if self._by_tiles(x):
                return reflected_conv3(x, self.weight, self.bias)
            if self.out_channels <= FEW and not (x.shape[2] % 2 or x.shape[3] % 2):
                return self._by_fours(x)
        return F.conv2d(reflected(x, self.width), self.weight, self.bias)

    def _by_tiles(self, x: Tensor) -> bool:
        many = min(self.in_channels, self.out_channels) >= MANY and x.shape[0] * x.shape[2] * x.shape[3] >= MANY_PIXELS
        return many and self.kernel_size == (3, 3) and not (x.shape[2] % TILE or x.shape[3] % TILE)

    def _by_fours(self, x: Tensor) -> Tensor:
        """Four neighbouring pixels as four times the channels, by a kernel one wider and stride 2: a CPU's vectors hold
        16 channels, of which three would leave 13 empty."""
        assert self.bias is not None
        shifted = [F.pad(self.weight, (q, 1 - q, p, 1 - p)) for p in (0, 1) for q in (0, 1)]  # (C, n, k + 1, k + 1)
        kernel = torch.stack(shifted, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        fours = F.conv2d(reflected(x, self.width), kernel, self.bias.repeat_interleave(4), stride=2)
        return F.pixel_shuffle(fours, 2)  # (N, 4 C, H / 2, W / 2) -> (N, C, H, W)


def reflected(x: Tensor, width: int) -> Tensor:
    """x with a reflected border, (N, C, H, W) -> (N, C, H + 2 width, W + 2 width); deterministic, also its gradient."""
    if x.device.type == "cpu":
        return F.pad(x, 4 * (width,), mode="reflect")
    # PyTorch's own has a gradient that on CUDA adds in no fixed order.
    for axis in (-2, -1):
        before = x.narrow(axis, 1, width).flip(axis)
        after = x.narrow(axis, x.shape[axis] - 1 - width, width).flip(axis)
        x = torch.cat([before, x, after], axis)
    return x
