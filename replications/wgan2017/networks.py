"""The authors' networks: DCGAN with and without batch norm, the generator of constant width, the MLPs; first weights.

Convolutions are 4 x 4 with stride 2 and padding 1 and have no bias where the authors' have none. Three of them are
computed in a faster way and in the same numbers: from a side of 1 or to a side of 1 as a matrix product, and to the
image as a 3 x 3 convolution at half its side.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.errors import UserError
from lib.models.activations import tanh
from lib.models.dcgan import LEAK
from lib.training.randomness import Streams, generator
from replications.wgan2017.config import ImagesConfig

INNER_SIDE = 4  # code: of the innermost feature maps


class FromPoint(nn.Module):
    """Transposed 4 x 4 convolution from a side of 1: z (B, Z) -> (B, n, 4, 4). weight as in nn.ConvTranspose2d."""

    def __init__(self, n_latent: int, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_latent, n, INNER_SIDE, INNER_SIDE))

    def forward(self, z: Tensor) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1)  # (Z, n, 4, 4) -> (Z, 4, 4, n)
        maps = z @ weight.flatten(1)  # (B, Z) -> (B, 16 n)
        return maps.view(len(z), *weight.shape[1:]).permute(0, 3, 1, 2)


class ToPoint(nn.Module):
    """4 x 4 convolution to a side of 1 and one channel: (B, n, 4, 4) -> (B,). weight as in nn.Conv2d."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, n, INNER_SIDE, INNER_SIDE))

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1) @ self.weight.permute(0, 2, 3, 1).flatten()


class ToImage(nn.Module):
    """Transposed 4 x 4 convolution of stride 2, padding 1: (B, n, h, h) -> (B, C, 2 h, 2 h). weight as in PyTorch's.

    Output pixels of one parity see a 2 x 2 part of the kernel each, so the four parities are four channels of a 3 x 3
    convolution whose other weights are zero. For one or three channels that takes a third of the time on a CPU.
    """

    taps: Tensor

    def __init__(self, n: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n, channels, 4, 4))
        # Row 2 i + p of the image takes row k of the kernel from row i + t of the map, k = p + 1 - 2 t; row 4 is zero.
        taps = [p + 1 - 2 * t if 0 <= p + 1 - 2 * t < 4 else 4 for p in (0, 1) for t in (-1, 0, 1)]
        self.register_buffer("taps", torch.tensor(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, channels = self.weight.shape[:2]
        spread = F.pad(self.weight, (0, 1, 0, 1)).index_select(2, self.taps).index_select(3, self.taps)
        spread = spread.view(n, channels, 2, 3, 2, 3).permute(1, 2, 4, 0, 3, 5)  # (C, p, q, n, 3, 3)
        kernel = spread.reshape(4 * channels, n, 3, 3).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(F.conv2d(x, kernel, padding=1), 2)


class Tanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


def n_doublings(side: int) -> int:
    """How often a side of 4 is doubled to reach the image's. Raises UserError for another side."""
    doublings = side.bit_length() - INNER_SIDE.bit_length()
    if doublings < 1 or INNER_SIDE << doublings != side:
        raise UserError(f"The WGAN's networks take images of side 8, 16, 32, 64, ..., not {side}.")
    return doublings


def convolutional_generator(n_latent: int, image: tuple[int, ...], n_filters: int, constant: bool) -> nn.Sequential:
    """z (B, Z) -> (B, C, H, H) in -1 .. 1. code: DCGAN_G; constant is figure 6's, n_filters everywhere, no batch norm.

    3,576,704 parameters for 3 x 64 x 64 and 64 filters, 302,080 if constant.
    """
    channels, side = image[:2]
    doublings = n_doublings(side)
    widths = [n_filters * (1 if constant else 2**i) for i in reversed(range(doublings))]

    def after(n: int) -> list[nn.Module]:
        # NOTE wgan2017-N3: the code's --noBN leaves the filters as they are; the paper's text is what is built here.
        return [nn.ReLU(inplace=True)] if constant else [nn.BatchNorm2d(n), nn.ReLU(inplace=True)]

    layers: list[nn.Module] = [FromPoint(n_latent, widths[0]), *after(widths[0])]
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.ConvTranspose2d(n_in, n_out, 4, 2, 1, bias=False), *after(n_out)]
    return nn.Sequential(*layers, ToImage(widths[-1], channels), Tanh())


def convolutional_critic(image: tuple[int, ...], n_filters: int, batch_norm: bool) -> nn.Sequential:
    """(B, C, H, H) -> values or logits (B,). code: DCGAN_D without the mean over the batch; 2,765,568 parameters for
    3 x 64 x 64 and 64 filters. Without batch norm, for a gradient penalty, its convolutions have biases."""
    channels, side = image[:2]
    layers: list[nn.Module] = []
    n_in = channels
    for i in range(n_doublings(side)):
        n_out = n_filters * 2**i
        layers += [nn.Conv2d(n_in, n_out, 4, 2, 1, bias=not batch_norm)]
        # Always the batch's own statistics: the critic is never asked about an image by itself.
        layers += [nn.BatchNorm2d(n_out, track_running_stats=False)] if batch_norm and i else []
        layers += [nn.LeakyReLU(LEAK, inplace=True)]
        n_in = n_out
    return nn.Sequential(*layers, ToPoint(n_in))


def mlp_generator(n_latent: int, image: tuple[int, ...], n_hidden: int, n_layers: int) -> nn.Sequential:
    """z (B, Z) -> (B, C, H, H), unbounded: the code's MLP has no tanh; NOTE wgan2017-N4."""
    channels, side = image[:2]
    widths = [n_latent] + n_layers * [n_hidden]
    hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], channels * side**2), nn.Unflatten(1, (channels, side, side)))


def mlp_critic(image: tuple[int, ...], n_hidden: int, n_layers: int) -> nn.Sequential:
    """(B, C, H, H) -> values or logits (B,)."""
    widths = [image[0] * image[1] ** 2] + n_layers * [n_hidden]
    hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], 1), nn.Flatten(0))


class Nets(NamedTuple):
    generator: nn.Sequential
    critic: nn.Sequential  # of the standard GAN: its discriminator, whose values are logits


def build(config: ImagesConfig, image: tuple[int, ...], streams: Streams) -> Nets:
    """Both networks with their first weights, on the streams' device; equal seeds start equal on every device."""
    if config.generator == "mlp":
        g = mlp_generator(config.n_latent, image, config.n_hidden, config.n_layers)
    else:
        g = convolutional_generator(config.n_latent, image, config.n_filters, config.generator == "constant")
    if config.critic == "mlp":
        critic = mlp_critic(image, config.n_hidden, config.n_layers)
    else:
        critic = convolutional_critic(image, config.n_filters, config.algorithm != "wgan-gp")
    for name, network in (("generator", g), ("critic", critic)):
        draw_weights_(network, config.init_sd, config.init_linear, generator(streams.seed, f"init {name}"))
        network.to(streams.device).to(memory_format=torch.channels_last)
    return Nets(g, critic)


@torch.no_grad()
def draw_weights_(network: nn.Module, sd: float, linear: str, rng: torch.Generator) -> None:
    """code: convolutions N(0, sd^2), batch norm's scales N(1, sd^2), their biases 0; linear layers keep PyTorch's own
    U(-1, 1) / sqrt(n_in). linear "he": N(0, 2 / n_in) and biases 0 (He et al. 2015). rng is on the CPU, as the weights
    are."""
    for layer in network.modules():
        own = dict(layer.named_parameters(recurse=False))
        if isinstance(layer, nn.Linear) and linear == "he":
            # NOTE wgan2017-N60: PyTorch's first weights pass on a sixth of the mean square at each ReLU, and their
            # biases drown what is left of the noise, so all noise makes nearly one image; He's pass on all of it.
            layer.weight.normal_(0.0, (2 / layer.in_features) ** 0.5, generator=rng)
            layer.bias.zero_()
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            for parameter in own.values():
                parameter.uniform_(-bound, bound, generator=rng)
        elif own:
            own["weight"].normal_(1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0, sd, generator=rng)
            if "bias" in own:
                own["bias"].zero_()


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
