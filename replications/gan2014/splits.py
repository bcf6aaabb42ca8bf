"""Which images train, which choose, which test: one rule for every experiment of the paper."""

from typing import NamedTuple

from torch import Tensor

from lib.datasets import Dataset

HELD_OUT = {"cifar10": 40_000}  # its test split here has 1,000 images: the authors' validation images stand in for it


class Splits(NamedTuple):
    """Pixels as rows of floats on the scale 0 .. 1."""

    train: Tensor  # (N, D)
    validation: Tensor  # (V, D)
    test: Tensor  # (T, D)


def splits(data: Dataset, n_train: int, n_validation: int) -> Splits:
    """The first n_train training images, n_validation validation images, and the whole test split; float32 copies.

    Validation images are the first ones of the split of that name, as in parzen_ll.py (images 50,000 to 50,999 of
    MNIST). Raises ValueError where a split holds too few images.
    """
    train = data.split("train")[0]
    # DEVIATION gan2014-D60: mnist-5k and cifar10 have no validation split: the training images that follow the first
    # n_train ones, which no training sees, are validation there.
    validation = data.split("validation")[0] if "validation" in data.splits else train[n_train:]
    for name, images, wanted in (("training", train, n_train), ("validation", validation, n_validation)):
        if not 0 < wanted <= len(images):
            raise ValueError(f"{data.name} has {len(images)} {name} images for these splits: {wanted} were asked for")
    chosen = (train[:n_train], validation[:n_validation], data.split("test")[0])
    return Splits(*(images.flatten(1).float() / data.max_value for images in chosen))


def reference_images(data: Dataset) -> Tensor:
    """The real images that generated ones are compared with, unseen in training: uint8 (M, C, H, W).

    The test split. DEVIATION gan2014-D61: for cifar10 the last 10,000 training images, of which none is trained on.
    """
    if data.name in HELD_OUT:
        return data.split("train")[0][HELD_OUT[data.name] :]
    return data.split("test")[0]


def reference_split(data: Dataset) -> str:
    """Which images those are, for a score's protocol."""
    return f"train from {HELD_OUT[data.name]:,} on" if data.name in HELD_OUT else "test"
