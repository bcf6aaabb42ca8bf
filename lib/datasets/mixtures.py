"""Distributions in the plane whose every mode is known: what mode collapse is counted on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count, require_positive


class GaussianMixture(NamedTuple):
    """Equal mixture of N(centre, sd^2 I): centres (K, D) float32, sd > 0 in the units of the centres."""

    centres: Tensor
    sd: float

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Independent draws (*shape, D) float32, on the generator's device, which must be that of the centres."""
        device = generator.device
        which = torch.randint(len(self.centres), (math.prod(shape),), generator=generator, device=device)
        noise = torch.randn(*shape, self.centres.shape[1], generator=generator, device=device)
        return torch.add(self.centres.index_select(0, which).view_as(noise), noise, alpha=self.sd)

    def to(self, device: torch.device | str) -> "GaussianMixture":
        return self._replace(centres=self.centres.to(device))


def ring(n_modes: int, radius: float, sd: float) -> GaussianMixture:
    """Modes evenly on a circle about the origin: centres (n_modes, 2), the first at (radius, 0), anticlockwise.

    n_modes steps make the whole turn, so all are distinct: the demonstration notebook of Unrolled GAN spaces them by
    linspace(0, 2 pi, 8), both ends included, which puts two of the eight modes on one place. Raises ValueError.
    """
    require_count("n_modes", n_modes, 1)
    require_positive("radius", radius)
    require_positive("sd", sd)
    angle = 2 * math.pi * torch.arange(n_modes, dtype=torch.float64) / n_modes
    return GaussianMixture((radius * torch.stack([angle.cos(), angle.sin()], 1)).float(), sd)


def grid(side: int, spacing: float, sd: float) -> GaussianMixture:
    """side x side modes, `spacing` apart and centred on the origin: centres (side^2, 2). Raises ValueError."""
    require_count("side", side, 1)
    require_positive("spacing", spacing)
    require_positive("sd", sd)
    edge = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    return GaussianMixture(torch.cartesian_prod(edge, edge).view(-1, 2).float(), sd)


def swiss_roll(shape: Sequence[int], sd: float, generator: torch.Generator) -> Tensor:
    """A spiral of one connected piece: t (cos t, sin t) + N(0, sd^2 I), t uniform on (1.5 pi, 4.5 pi); (*shape, 2).

    Coordinates 0 and 2 of scikit-learn's make_swiss_roll. float32 on the generator's device.
    """
    t = 1.5 * math.pi * (1 + 2 * torch.rand(*shape, generator=generator, device=generator.device))
    noise = torch.randn(*shape, 2, generator=generator, device=generator.device)
    return torch.stack([t * t.cos(), t * t.sin()], -1) + sd * noise
