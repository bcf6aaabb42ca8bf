"""Instance norm without scale, shift or running statistics (Ulyanov et al. 2016), with the activation behind it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPSILON = 1e-5  # PyTorch's own, inside the root


class InstanceNorm(nn.Module):
    """y = f((x - mean) / sqrt(var + 1e-5)), mean and biased variance of each image's channel over its pixels.

    (N, C, H, W) -> (N, C, H, W), of at least two pixels. leak: f(u) = u for u > 0 and leak u elsewhere, so 0 is ReLU, 1
    the identity. On a CPU made for channels-last maps, which PyTorch's own copies to and fro. Differentiable once.
    """

    def __init__(self, leak: float = 1.0) -> None:
        super().__init__()
        self.leak = leak

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and len(x) > 1:
            y: Tensor = _Normalised.apply(x, self.leak)
            return y
        # Of one image it is a batch norm, whose kernel for channels-last maps is PyTorch's fastest.
        y = F.batch_norm(x, None, None, training=True, eps=EPSILON) if len(x) == 1 else F.instance_norm(x, eps=EPSILON)
        if self.leak == 1:
            return y
        return F.relu_(y) if self.leak == 0 else F.leaky_relu_(y, self.leak)

    def extra_repr(self) -> str:
        return f"leak={self.leak:g}"


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, leak: float) -> Tensor:
        maps = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H W, C), a view of channels-last x
        y = maps - maps.mean(1, keepdim=True)
        scale = y.square().mean(1, keepdim=True).add_(EPSILON).rsqrt_()  # (N, 1, C)
        y.mul_(scale)
        ctx.save_for_backward(y, scale)
        ctx.leak = leak
        active = y if leak == 1 else torch.relu(y) if leak == 0 else F.leaky_relu(y, leak)
        return _as_images(active, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        g = upstream.permute(0, 2, 3, 1).flatten(1, 2)
        if ctx.leak != 1:
            g = torch.ops.aten.leaky_relu_backward(g, y, ctx.leak, False)
        of_x = torch.addcmul(g, y, (g * y).mean(1, keepdim=True), value=-1)
        return _as_images(of_x.sub_(g.mean(1, keepdim=True)).mul_(scale), upstream), None


def _as_images(maps: Tensor, like: Tensor) -> Tensor:
    """(N, H W, C) as (N, C, H, W), a view."""
    n, channels, height, width = like.shape
    return maps.view(n, height, width, channels).permute(0, 3, 1, 2)
