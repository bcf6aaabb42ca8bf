"""PatchGAN (Isola et al. 2017): a convolutional discriminator that judges every patch of an image by itself."""

from torch import Tensor, nn

from lib.checks import require_count
from lib.models.dcgan import LEAK
from lib.models.instance_norm import InstanceNorm

MOST = 8  # the widest layer has this many times the first one's channels


class PatchDiscriminator(nn.Module):
    """Images (N, n_in, H, W) -> one value a patch (N, h, w), unbounded; 256 x 256 -> 30 x 30 for n_layers 3.

    n_layers convolutions of stride 2, then one of stride 1, all 4 x 4 with LeakyReLU(.2), their channels doubling from
    n_filters up to 8 times that; a last 4 x 4 convolution makes the value. Instance norm behind all but the first and
    the last. Every convolution has a bias and a border of one zero. Raises ValueError for counts that are none, and at
    a call for images that are too small.
    """

    def __init__(self, n_in: int, n_filters: int, n_layers: int) -> None:
        super().__init__()
        for name, count in (("n_in", n_in), ("n_filters", n_filters), ("n_layers", n_layers)):
            require_count(name, count, 1)
        widths = [n_filters * min(2**i, MOST) for i in range(n_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(n_in, widths[0], 4, 2, 1), nn.LeakyReLU(LEAK)]
        for i in range(n_layers):
            stride = 2 if i < n_layers - 1 else 1
            layers += [nn.Conv2d(widths[i], widths[i + 1], 4, stride, 1), InstanceNorm(LEAK)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.smallest = 3 * 2**n_layers  # its last norm has 2 x 2 pixels, below that one or none

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < self.smallest:
            raise ValueError(f"images are {x.shape[-2]} x {x.shape[-1]}: both sides must be {self.smallest} at least")
        values: Tensor = self.layers(x)  # (N, n_in, H, W) -> (N, 1, H / 2^n_layers - 2, W / 2^n_layers - 2)
        return values.squeeze(1)


def receptive_field(discriminator: nn.Module) -> int:
    """Side in pixels of the patch that one value sees, from the kernels and strides of the convolutions in their order.

    Norms are left out: an instance norm's statistics see the whole image.
    """
    side = 1
    for layer in reversed([layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d)]):
        side = (side - 1) * layer.stride[0] + layer.kernel_size[0]
    return side
