"""Stacked MNIST: colour images whose three channels are three random digits, 1,000 classes (Metz et al. 2017)."""

import torch
from torch import Tensor

from lib.checks import require_count

CHANNELS = 3


class Stacked:
    """n colour images made of a one-channel set's images, each channel drawn from all of them with equal chance.

    Only the table of which image stands in which channel is kept, (n, 3), on the images' device; colour images are put
    together when asked for: 128,000 of 28 x 28 pixels would take 300 MB. `generator` is on the CPU, so that every
    device stacks the same images. images: (N, 1, H, W). Raises ValueError.
    """

    def __init__(self, images: Tensor, n: int, generator: torch.Generator) -> None:
        if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
            raise ValueError(f"images has the shape {tuple(images.shape)}: only (N, 1, H, W), N at least 1, stacks")
        require_count("n", n, 1)
        self.images = images
        self.index = torch.randint(len(images), (n, CHANNELS), generator=generator).to(images.device)

    def __len__(self) -> int:
        return len(self.index)

    def __call__(self, rows: Tensor) -> Tensor:
        """The colour images of these rows: integers (B,) -> (B, 3, H, W)."""
        chosen = self.index.index_select(0, rows).flatten()  # (B, 3) -> (3 B,)
        return self.images.index_select(0, chosen).unflatten(0, (-1, CHANNELS)).squeeze(2)

    def labels(self, labels: Tensor) -> Tensor:
        """The labels of all rows' channels from those of the one-channel images: (N,) -> (n, 3)."""
        if labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels has the shape {tuple(labels.shape)}: one for each of {len(self.images)} images")
        return labels.to(self.index.device)[self.index]
