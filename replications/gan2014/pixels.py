"""CIFAR-10 as the authors fed it: global contrast normalisation, and the way back to images one can look at."""

import torch
from torch import Tensor

SCALE = 55.0  # cifar10_*.yaml: scale of the normalisation; 55 / sqrt(3072) = .99, about unit variance a pixel


def contrast_normalised(rows: Tensor) -> Tensor:
    """Each image less its mean pixel, divided by its Euclidean norm, times 55: (N, D) of any scale -> (N, D).

    An image of one grey level has norm 0 and becomes 0.
    """
    centred = rows - rows.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return centred * (SCALE / torch.where(norm > 0, norm, torch.ones_like(norm)))


def mean_contrast(rows: Tensor) -> float:
    """Mean over images of the standard deviation of their pixels, in the pixels' units: (N, D) -> ()."""
    return rows.std(1, correction=0).mean().item()


def rendered(normalised: Tensor, contrast: float) -> Tensor:
    """Contrast-normalised rows as uint8: mean grey, and the data's mean contrast; what leaves 0 .. 255 is clipped.

    NOTE gan2014-N6: the normalisation forgets each image's own brightness and contrast, so real and generated images
    are scored alike in this rendering, and such an FID is none of CIFAR-10 itself. The paper's figure divides each
    panel by its largest value instead, which depends on the panel.
    """
    return (127.5 + 255 * contrast * normalised).round().clamp(0, 255).to(torch.uint8)
