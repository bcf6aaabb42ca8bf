"""Batch norm over a minibatch that lies on several processes: the statistics are those of the whole minibatch."""

import torch
from torch import Tensor, nn

from lib.training.processes import Processes


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`layer`, with its parameters and buffers, for shares of equal size: (B / processes, C, H, W) -> the same shape.

    As torch's SyncBatchNorm, which takes no tensors on a CPU. In eval mode it is the layer as it was, and then needs no
    other process. Raises ValueError for a layer without scale and shift, or with cumulative statistics.
    """

    def __init__(self, layer: nn.BatchNorm2d, processes: Processes) -> None:
        if not layer.affine or layer.momentum is None:
            raise ValueError("only batch norm with scale, shift and a momentum is shared here")
        super().__init__(layer.num_features, layer.eps, layer.momentum, True, layer.track_running_stats)
        self._parameters, self._buffers, self.processes = layer._parameters, layer._buffers, processes
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        own = torch.stack([x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)])  # (2, C)
        means, variances = self.processes.stacked(own).unbind(1)  # (processes, C) each
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)  # no difference of squares
        if self.running_mean is not None:
            self._remember(mean.detach(), variance.detach(), self.processes.world * x.numel() // x.shape[1])
        centred, scale = x - mean.view(-1, 1, 1), self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias.view(-1, 1, 1), centred, scale.view(-1, 1, 1))

    def _remember(self, mean: Tensor, variance: Tensor, n: int) -> None:
        """Running statistics as nn.BatchNorm2d keeps them, the variance unbiased."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
        self.num_batches_tracked.add_(1)


def share_batch_norm_(network: nn.Module, processes: Processes) -> None:
    """Every BatchNorm2d inside a network becomes shared; parameters, buffers and their names stay. Alone: nothing."""
    if processes.alone:
        return
    for name, layer in network.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            setattr(network, name, SharedBatchNorm2d(layer, processes))
        else:
            share_batch_norm_(layer, processes)
