"""DCGAN, a convolutional generator and discriminator (Radford et al. 2016), for any image side, width and depth.

Both halve or double the side n_layers times; n_filters is the width next to the image and doubles with every halving.
An odd side is halved upwards, 28, 14, 7, 4, 2, and its convolution has a 3 x 3 kernel where the others have 4 x 4: so
every kernel covers its image exactly, with one row of padding all around.
"""

import torch
from torch import Tensor, nn

from lib.checks import require_count, require_images, require_positive

LEAK = 0.2  # of LeakyReLU; Radford et al. 2016, section 4


def map_sides(side: int, n_layers: int) -> tuple[int, ...]:
    """Sides of the feature maps from the image to the innermost: (28, 14, 7, 4) for 28 and 3. Raises ValueError."""
    require_count("side", side, 2)
    require_count("n_layers", n_layers, 1)
    sides = [side]
    for _ in range(n_layers):
        sides.append((sides[-1] + 1) // 2)
    if sides[-2] < 2:
        raise ValueError(f"a side of {side} cannot be halved {n_layers} times: it is 1 before the last")
    return tuple(sides)


class DcganGenerator(nn.Module):
    """z (n, Z) -> images (n, C, H, H) in -1 .. 1: a linear layer, then transposed convolutions of stride 2.

    ReLU after every layer but the last, which is followed by tanh; batch norm (if asked for) before every ReLU and not
    at the output, Radford et al. 2016, section 3. Layers without batch norm have biases.
    """

    def __init__(
        self, n_latent: int, n_channels: int, side: int, n_filters: int, n_layers: int, batch_norm: bool
    ) -> None:
        super().__init__()
        for name, count in (("n_latent", n_latent), ("n_channels", n_channels), ("n_filters", n_filters)):
            require_count(name, count, 1)
        sides = map_sides(side, n_layers)[::-1]
        widths = [n_filters * 2**i for i in reversed(range(n_layers))]
        self.n_latent, self.inner = n_latent, (widths[0], sides[0], sides[0])
        self.project = nn.Linear(n_latent, widths[0] * sides[0] ** 2, bias=not batch_norm)
        layers: list[nn.Module] = []
        for i, (width, after) in enumerate(zip(widths, [*widths[1:], n_channels], strict=True)):
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers += [nn.ReLU(inplace=True)]
            bias = not batch_norm or i == n_layers - 1
            layers += [nn.ConvTranspose2d(width, after, _kernel(sides[i + 1]), 2, 1, bias=bias)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.layers(self.project(z).unflatten(1, self.inner))
        return images


class DcganDiscriminator(nn.Module):
    """Images (n, C, H, H) -> logits (n,): convolutions of stride 2, then a linear layer. Also a critic: no sigmoid.

    LeakyReLU after every convolution; batch norm (if asked for) before it, but not in the first layer, Radford et al.
    2016, section 3. For packed images (`pack`) C is the channels of the whole pack.
    """

    def __init__(self, n_channels: int, side: int, n_filters: int, n_layers: int, batch_norm: bool) -> None:
        super().__init__()
        for name, count in (("n_channels", n_channels), ("n_filters", n_filters)):
            require_count(name, count, 1)
        sides = map_sides(side, n_layers)
        widths = [n_filters * 2**i for i in range(n_layers)]
        layers: list[nn.Module] = []
        for i, (before, width) in enumerate(zip([n_channels, *widths[:-1]], widths, strict=True)):
            norm = batch_norm and i > 0
            layers += [nn.Conv2d(before, width, _kernel(sides[i]), 2, 1, bias=not norm)]
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers += [nn.LeakyReLU(LEAK, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(widths[-1] * sides[-1] ** 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.layers(x).flatten(1)).squeeze(1)
        return logits


def _kernel(large: int) -> int:
    """With stride 2 and padding 1 it joins a side `large` to (large + 1) // 2, in both directions."""
    return 3 if large % 2 else 4


@torch.no_grad()
def draw_weights_(network: nn.Module, sd: float, generator: torch.Generator) -> None:
    """Convolutions and linear layers from N(0, sd^2), batch norm's scales from N(1, sd^2), every bias 0.

    Radford et al. 2016, section 4 ("all weights"); the scales' mean of 1 is in the authors' code alone. `generator` is
    on the parameters' device. Raises ValueError if sd is not positive, TypeError for a layer of another kind.
    """
    require_positive("sd", sd)
    for layer in network.modules():
        own = dict(layer.named_parameters(recurse=False))
        if not own:
            continue
        if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            raise TypeError(f"DCGAN's initialisation says nothing of {type(layer).__name__}")
        own["weight"].normal_(1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0, sd, generator=generator)
        if "bias" in own:
            own["bias"].zero_()


def pack(images: Tensor, n_pack: int) -> Tensor:
    """Each n_pack images that follow each other, as one of n_pack times the channels; Lin et al. 2018 (PacGAN).

    (n n_pack, C, H, W) -> (n, n_pack C, H, W), a view. No image is in two packs. Raises ValueError where a pack would
    stay incomplete.
    """
    require_count("n_pack", n_pack, 1)
    if len(images) % n_pack:
        raise ValueError(f"{len(images)} images do not divide into packs of {n_pack}")
    return images.reshape(len(images) // n_pack, n_pack * images.shape[1], *images.shape[2:])


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0 .. 255 as float32 -1 .. 1, the range of tanh: (N, C, H, W) -> (N, C, H, W). Raises ValueError."""
    require_images("images", images)
    return images.float().div_(127.5).sub_(1)
