"""The images of two domains."""

from typing import NamedTuple

from torch import Tensor


class Domains(NamedTuple):
    """Images of A and of B, uint8 (N, C, H, W) on the device; C 1 or 3, N and C of the two may differ.

    Training images are config.crop_from wide where they are to be cropped, config.side otherwise.
    """

    a: Tensor
    b: Tensor
    test_a: Tensor
    test_b: Tensor
