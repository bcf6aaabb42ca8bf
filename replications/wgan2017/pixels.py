"""Real images for the networks, generated images for the scores, and the distance between the two along the curve."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.datasets import Dataset
from lib.metrics import extract, extractor, frechet_distance_of_features, to_uint8
from lib.metrics.quality import extractor_for, features_of_real
from lib.metrics.weights import PackageAbsent
from lib.training.randomness import Streams
from replications.wgan2017.config import ImagesConfig

CHUNK = 100  # images generated or scored at once; 500 at once took a CPU twice as long
TRAIN_IS_REFERENCE = ("cifar10", "lsun-bedroom")  # NOTE wgan2017-N7
SIDE = 32  # of the networks' images, at least; MNIST's 28 get a frame of black pixels


class Pixels(NamedTuple):
    """Images of one data set, on the device. The reference is what generated images are compared with."""

    train: Tensor  # (N, C, H, H) uint8, H the networks' side
    reference: Tensor  # (M, C, h, h) uint8, as the data set has them
    features: Tensor | None  # (n, D) of the first n reference images, for the curve; None without an extractor
    data: str
    split: str  # which images the reference is

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape[1:])

    def minibatch(self, rows: Tensor) -> Tensor:
        """(B,) row numbers -> (B, C, H, H) in -1 .. 1, channels last."""
        images = self.train.index_select(0, rows).contiguous(memory_format=torch.channels_last)
        return images.float().div_(127.5).sub_(1)


def pixels_of(data: Dataset, n_curve: int, device: torch.device) -> Pixels:
    """The training split, padded to SIDE, and the images that scores compare with."""
    # DEVIATION wgan2017-D5: digits of 28 x 28 stand in a black frame of two pixels; scores look at the 28 x 28.
    # DEVIATION wgan2017-D61: of LSUN's 3,033,042 bedrooms the first 300,000, lib/datasets/lsun.py.
    train = data.split("train")[0].to(device)
    if (frame := max(0, SIDE - train.shape[-1]) // 2) > 0:
        train = F.pad(train, 4 * (frame,))
    # NOTE wgan2017-N7: CIFAR-10's test split has 1,000 images here; there the first training images are the reference,
    # as in most published FIDs of CIFAR-10; LSUN has no other split here.
    own = data.name in TRAIN_IS_REFERENCE
    reference = (data.split("train")[0][:10_000] if own else data.split("test")[0]).to(device)
    split = "train, the first 10,000" if own else "test"
    return Pixels(train, reference, _features_of(reference[:n_curve], data.name), data.name, split)


def _features_of(reference: Tensor, data_name: str) -> Tensor | None:
    """Features (n, D) by the data set's extractor; None where it is not installed."""
    name = extractor_for(data_name)
    if name is None:
        return None
    try:
        extractor(name)
    except PackageAbsent:
        return None
    return features_of_real(reference, name, reference.device, CHUNK).features


@torch.no_grad()
def generate(generator: nn.Module, config: ImagesConfig, n: int, rng: torch.Generator) -> Tensor:
    """n images, uint8 (n, C, H, H), with batch norm's running statistics; the network is left in training mode."""
    # NOTE wgan2017-N8: so that an image depends on its own noise alone; the authors' code never leaves training mode.
    z = torch.randn(n, config.n_latent, generator=rng, device=rng.device)
    generator.eval()
    # The MLP's outputs have no bound: what lies beyond black and white is black and white.
    images = torch.cat([to_uint8(generator(part).nan_to_num().clamp(-1, 1), -1, 1) for part in z.split(CHUNK)])
    generator.train()
    return images


def cropped(images: Tensor, side: int) -> Tensor:
    """The middle side x side pixels: the frame that the training images got is taken off."""
    frame = (images.shape[-1] - side) // 2
    return images[..., frame : frame + side, frame : frame + side]


def curve_distance(generator: nn.Module, pixels: Pixels, config: ImagesConfig, streams: Streams) -> float:
    """Fréchet distance of config.n_curve generated images to as many of the reference; nan without an extractor.

    The same noise at every point of the curve, so that the curve shows the generator move and not the draw.
    """
    if pixels.features is None:
        return math.nan
    images = cropped(generate(generator, config, config.n_curve, streams.at("curve")), pixels.reference.shape[-1])
    network = extractor(extractor_for(pixels.data) or "", device=images.device)
    return frechet_distance_of_features(extract(network, images, CHUNK, images.device).features, pixels.features)
