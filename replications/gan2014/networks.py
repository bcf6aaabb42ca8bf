"""The paper's own networks with their initialisation: fully connected, and for CIFAR-10 also convolutional.

Sizes that all models share are in config.py; what only the convolutional file has stands here, beside its source.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lib.models.maxout import largest_piece
from lib.training.randomness import Streams
from replications.gan2014.config import GanConfig

CHANNELS = (32, 32, 192)  # cifar10_convolutional.yaml, maxout channels; its comment: 192 ran out of memory in the first
CHANNEL_PIECES = 2  # cifar10_convolutional.yaml
KERNELS = ((8, 4), (8, 3), (5, 3))  # cifar10_convolutional.yaml: side and padding of each convolution
POOLS = ((4, 2), (4, 2), (2, 2))  # cifar10_convolutional.yaml: window and stride
POOLED_SIDES = (16, 7, 5)  # 32 -> 33 -> 16 -> 15 -> 7 -> 9 -> 5, each pool keeping its partial last window
MAPS, MAP_SIDE = 80, 10  # cifar10_convolutional.yaml: the generator's 8,000 units as 80 maps of 10 x 10


class Generator(nn.Module):
    """z (n, Z) -> rows of pixels (n, D). For MNIST: ReLU, ReLU, sigmoid. For CIFAR-10: ReLU, sigmoid, linear."""

    def __init__(self, config: GanConfig, image: Sequence[int], bounded: bool) -> None:
        super().__init__()
        self.bounded, width = bounded, config.generator_hidden
        self.first = nn.Linear(config.n_latent, width)
        self.second = nn.Linear(width, width)
        if config.architecture == "conv":
            # NOTE gan2014-N7: the range of its first weights is not in our copy of the file; that of the hidden layers.
            self.output: nn.Module = nn.ConvTranspose2d(MAPS, image[0], 5, stride=3, bias=False)  # 10 -> 32
            self.output_bias = nn.Parameter(torch.zeros(tuple(image)))  # untied: one for each pixel
        else:
            self.output = nn.Linear(width, image[0] * image[1] * image[2])

    def forward(self, z: Tensor) -> Tensor:
        h = torch.relu(self.first(z))
        if self.bounded:
            return torch.sigmoid(self.output(torch.relu(self.second(h))))
        h = torch.sigmoid(self.second(h))
        if isinstance(self.output, nn.Linear):
            return self.output(h)
        return (self.output(h.unflatten(1, (MAPS, MAP_SIDE, MAP_SIDE))) + self.output_bias).flatten(1)


class MaxoutDiscriminator(nn.Module):
    """Rows of pixels (n, D) -> logits (n,), by two maxout layers; dropout on the pixels and on both layers' outputs."""

    def __init__(self, config: GanConfig, n_pixels: int) -> None:
        super().__init__()
        self.units, self.pieces = config.maxout_units, config.maxout_pieces
        self.mask_widths = (n_pixels, self.units, self.units)
        self.first = nn.Linear(n_pixels, self.units * self.pieces)
        self.second = nn.Linear(self.units, self.units * self.pieces)
        self.output = nn.Linear(self.units, 1)

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """masks: what each layer's input is multiplied by, (n, width) for each of mask_widths; None is no dropout."""
        pixels, first, second = masks or (1.0, 1.0, 1.0)
        h = self._maxout(self.first(x * pixels))
        h = self._maxout(self.second(h * first))
        return self.output(h * second).squeeze(1)

    def _maxout(self, pieces: Tensor) -> Tensor:
        return largest_piece(pieces.unflatten(1, (self.pieces, self.units)))


class ConvolutionalDiscriminator(nn.Module):
    """Rows of 3 x 32 x 32 pixels (n, 3072) -> logits (n,): three maxout convolutions with pooling, one maxout layer."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.units, self.pieces = config.maxout_units, config.maxout_pieces
        inputs = (3, *CHANNELS[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n_in, n_out * CHANNEL_PIECES, side, padding=padding)
            for n_in, n_out, (side, padding) in zip(inputs, CHANNELS, KERNELS, strict=True)
        )
        pooled = [channels * side**2 for channels, side in zip(CHANNELS, POOLED_SIDES, strict=True)]
        self.dense = nn.Linear(pooled[-1], self.units * self.pieces)
        self.output = nn.Linear(self.units, 1)
        self.mask_widths = (3 * 32 * 32, *pooled, self.units)

    def forward(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        scales: Sequence[Tensor | float] = masks or [1.0] * len(self.mask_widths)
        h = (x * scales[0]).unflatten(1, (3, 32, 32))
        for convolution, (window, stride), scale in zip(self.convolutions, POOLS, scales[1:-1], strict=True):
            h = convolution(h)
            h = largest_piece(h.unflatten(1, (CHANNEL_PIECES, -1)).flatten(2)).view(len(h), -1, *h.shape[2:])
            h = max_pool(h, window, stride)
            h = (h.flatten(1) * scale).view_as(h)
        h = largest_piece(self.dense(h.flatten(1)).unflatten(1, (self.pieces, self.units)))
        return self.output(h * scales[-1]).squeeze(1)


class Nets(NamedTuple):
    generator: Generator
    discriminator: MaxoutDiscriminator | ConvolutionalDiscriminator


def max_pool(x: Tensor, window: int, stride: int) -> Tensor:
    """Max pooling that keeps a partial last window: (n, C, H, W) -> (n, C, H', W') with H' = ceil((H - w) / s) + 1.

    By unfolding, because the gradient of torch's own pooling has no deterministic form on a GPU.
    """
    short = [(-(side - window)) % stride for side in x.shape[-2:]]
    x = pad(x, (0, short[1], 0, short[0]), value=float("-inf"))
    return x.unfold(2, window, stride).amax(-1).unfold(3, window, stride).amax(-1)


def build(config: GanConfig, image: Sequence[int], marginals: Tensor | None, streams: Streams) -> Nets:
    """Both networks on the streams' device. image: (C, H, W) of the data.

    marginals: (D,) mean training pixels in [0, 1] for a generator with sigmoid output, whose bias becomes their logit;
    None for one with linear output. Weights are U(-r, r), all other biases zero.
    """
    generator = Generator(config, image, bounded=marginals is not None)
    n_pixels = image[0] * image[1] * image[2]
    conv = config.architecture == "conv"
    nets = Nets(generator, ConvolutionalDiscriminator(config) if conv else MaxoutDiscriminator(config, n_pixels))
    for kind, network, bound in zip(
        nets._fields, nets, (config.generator_init, config.discriminator_init), strict=True
    ):
        network.to(streams.device)
        for place, (name, parameter) in enumerate(network.named_parameters()):
            if "bias" in name:
                nn.init.zeros_(parameter)
                continue
            last = kind == "generator" and name == "output.weight"
            bound_here = config.generator_output_init if last else bound
            nn.init.uniform_(parameter, -bound_here, bound_here, generator=streams.at(f"init {kind}", place))
    if marginals is not None and isinstance(generator.output, nn.Linear):
        # NOTE gan2014-N4: a pixel that is black in every training image has no finite logit. Ours to choose: means
        # are kept a millionth away from 0 and 1.
        generator.output.bias.data.copy_(torch.logit(marginals.clamp(1e-6, 1 - 1e-6)))
    return nets


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
