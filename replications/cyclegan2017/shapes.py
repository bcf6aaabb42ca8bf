"""A pair of image domains that differ in outline as well as in colour and texture, for section 6's failures.

A: discs with orange stripes. B: equilateral triangles with blue checks. Backgrounds, positions and areas have one and
the same distribution in both, so nothing but outline and surface tells the domains apart. A translator that does what
is asked changes both; the paper says that it changes the surface and keeps the outline.

Lengths are in pixels; a pixel's place is its centre. Everything is drawn from (seed, domain), without files.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count, require_images
from lib.results import Score, mean_score
from lib.training.randomness import generator

KINDS = {"a": "disc", "b": "triangle"}  # the outline of each domain
INKS = {"a": ((235.0, 140.0, 50.0), (185.0, 85.0, 20.0)), "b": ((60.0, 125.0, 240.0), (25.0, 70.0, 175.0))}  # RGB
RADIUS = 0.16, 0.24  # of the disc of a shape's area, in sides: range
CIRCUMRADIUS = math.sqrt(4 * math.pi / (3 * math.sqrt(3)))  # of the triangle of a unit disc's area, 1.555
MARGIN = 1.5  # pixels of background around every shape, at least
PERIOD = 0.16  # of stripes and checks, in sides
TINT = 15.0  # most that red and blue of a background lie from its grey
CHROMA = 75.0  # |red - blue| above which a pixel belongs to a shape: half of the dullest ink's
NOISE_SD = 4.0  # of every pixel, in grey levels
N_ANGLES = 24  # turns of the triangle that is laid over an outline
SMALLEST_SIDE = 16


class Shapes(NamedTuple):
    """images: (N, 3, H, H) uint8; masks: (N, H, H) bool, true on the shape."""

    images: Tensor
    masks: Tensor


def shapes(domain: str, n: int, side: int, seed: int) -> Shapes:
    """n images of domain "a" (discs) or "b" (triangles). Raises ValueError."""
    # DEVIATION cyclegan2017-D42: drawn discs and triangles in place of cats and dogs.
    if domain not in KINDS:
        raise ValueError(f"the domain is {domain!r}: there are a (discs) and b (triangles)")
    require_count("n", n, 1)
    require_count("side", side, SMALLEST_SIDE)
    rng = generator(seed, f"shapes {domain}")
    draw = torch.rand(n, 7, generator=rng)
    radius = side * (RADIUS[0] + (RADIUS[1] - RADIUS[0]) * draw[:, 0])
    # Both kinds keep the distance from the border that a triangle needs: the place does not betray the kind.
    reach = CIRCUMRADIUS * radius + MARGIN
    centre = reach[:, None] + (side - 2 * reach)[:, None] * draw[:, 1:3]
    distance = signed_distance(KINDS[domain], centre, radius, 2 * math.pi * draw[:, 3], side)
    cover = (0.5 - distance).clamp(0, 1)[:, None]  # (N, 1, H, H): share of the pixel, to a good approximation
    surface = _surface(domain, draw[:, 4:7], side)
    images = torch.lerp(_background(n, side, rng), surface, cover)
    images += NOISE_SD * torch.randn(images.shape, generator=rng)
    return Shapes(images.round_().clamp_(0, 255).to(torch.uint8), distance < 0)


def signed_distance(kind: str, centre: Tensor, radius: Tensor, angle: Tensor, side: int) -> Tensor:
    """Distance of each pixel from an outline, below 0 inside: (N, H, H) float32.

    centre: (N, 2), x and y; radius: (N,), of the disc of the same area; angle: (N,) radians, of no matter for a disc.
    Outside a triangle's corners it is the distance from the nearest side's line, which is less than from the outline.
    """
    x, y = _places(centre, side)
    if kind == "disc":
        return torch.hypot(x, y) - radius[:, None, None]
    sides = [angle + 2 * math.pi * i / 3 for i in range(3)]
    along = [_wave(x, y, each) for each in sides]
    return torch.stack(along).amax(0) - (CIRCUMRADIUS / 2 * radius)[:, None, None]


def _places(centre: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """x and y of every pixel from each centre: (N, 1, H) and (N, H, 1)."""
    line = torch.arange(side) + 0.5
    return line[None, None, :] - centre[:, :1, None], line[None, :, None] - centre[:, 1:, None]


def _wave(x: Tensor, y: Tensor, angle: Tensor) -> Tensor:
    """The coordinate along the direction `angle`, (N, H, H)."""
    return angle.cos()[:, None, None] * x + angle.sin()[:, None, None] * y


def _surface(domain: str, draw: Tensor, side: int) -> Tensor:
    """Stripes or checks of the domain's inks, turned and shifted at random: (N, 3, H, H). draw: (N, 3) in 0 .. 1."""
    x, y = _places(side * draw[:, :2], side)
    angle, rate = math.pi * draw[:, 2], 2 * math.pi / (PERIOD * side)
    pattern = (rate * _wave(x, y, angle)).sin()
    if domain == "b":
        pattern = pattern * (rate * _wave(x, y, angle + math.pi / 2)).sin()
    bright, dark = (torch.tensor(ink)[:, None, None] for ink in INKS[domain])
    return torch.lerp(dark, bright, (0.5 + 2 * pattern).clamp(0, 1)[:, None])


def _background(n: int, side: int, rng: torch.Generator) -> Tensor:
    """A gradient between two dull colours in a random direction: (N, 3, H, H)."""
    grey = 50 + 160 * torch.rand(n, 2, 1, generator=rng)
    ends = grey + TINT * (2 * torch.rand(n, 2, 3, generator=rng) - 1)  # (N, 2, 3)
    x, y = _places(torch.full((n, 2), side / 2), side)
    along = _wave(x, y, 2 * math.pi * torch.rand(n, generator=rng)) / (math.sqrt(2) * side) + 0.5  # 0 .. 1
    low, high = ends[:, :, :, None, None].unbind(1)
    return torch.lerp(low, high, along[:, None])


class Found(NamedTuple):
    """What is seen in an image, (N,) each, and where, (N, H, H) bool."""

    foreground: Tensor
    family: Tensor  # 0 for A's inks, 1 for B's, -1 where there is no foreground
    kind: Tensor  # 0 for a disc, 1 for a triangle, -1 where there is no foreground


def seen(images: Tensor) -> Found:
    """Foreground, family of inks and kind of outline in images (N, 3, H, H) uint8. Raises ValueError."""
    require_images("images", images)
    rgb = images.cpu().float()
    foreground = (rgb[:, 0] - rgb[:, 2]).abs() > CHROMA
    area = foreground.sum((1, 2))
    colour = (rgb * foreground[:, None]).sum((2, 3)) / area.clamp_min(1)[:, None]  # (N, 3)
    means = torch.stack([torch.tensor(INKS[domain]).mean(0) for domain in KINDS])  # (2, 3)
    family = torch.cdist(colour, means).argmin(1)
    kind = torch.stack(best_overlaps(foreground), 1).argmax(1)
    nothing = area == 0
    return Found(foreground, family.masked_fill(nothing, -1), kind.masked_fill(nothing, -1))


def best_overlaps(masks: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of each mask (N, H, H) with the disc, and with the best turned triangle, of its centre and area: (N,) twice.

    In 0 .. 1. A disc and a triangle of one centre and one area overlap by .69.
    """
    side, area = masks.shape[-1], masks.sum((1, 2)).clamp_min(1)
    line = torch.arange(side) + 0.5
    centre = torch.stack([(masks.sum(1) * line).sum(1), (masks.sum(2) * line).sum(1)], 1) / area[:, None]
    radius = (area / math.pi).sqrt()

    def with_one(kind: str, angle: float) -> Tensor:
        outline = signed_distance(kind, centre, radius, torch.full_like(radius, angle), side) < 0
        return iou(masks, outline)

    turns = [with_one("triangle", 2 * math.pi / 3 * i / N_ANGLES) for i in range(N_ANGLES)]
    return with_one("disc", 0.0), torch.stack(turns).amax(0)


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Area of the intersection over that of the union of masks (N, H, H): (N,), 0 .. 1; 0 where both are empty."""
    union = (one | other).sum((1, 2))
    return (one & other).sum((1, 2)) / union.clamp_min(1)


def shape_scores(outputs: Tensor, masks: Tensor, source: str = "a") -> dict[str, Score]:
    """What a translation out of the domain `source` did to colour and outline.

    outputs: (N, 3, H, H) uint8, the translated images; masks: (N, H, H) bool, the shapes in the inputs.
    recoloured: share whose foreground's mean colour is nearer to the inks of the target domain than to the source's.
    outline_kept: share whose outline overlaps more with the source's kind of shape than with the target's, each of the
    outline's own centre and area. reshaped: share that shows the target's kind. An output without any foreground is in
    none of the three. outline_iou: IoU of the foreground with the input's shape, 1 where it stayed; .69 at most for the
    target's kind in the same place. Images of the source itself score 0, 1, 0, those of the target 1, 0, 1 (the
    tests say how nearly). Raises ValueError.
    """
    if source not in KINDS:
        raise ValueError(f"the source is {source!r}: there are a (discs) and b (triangles)")
    if masks.dtype != torch.bool or masks.shape != (len(outputs), *outputs.shape[2:]):
        raise ValueError(f"masks is {masks.dtype} {tuple(masks.shape)}: one bool mask for each image is needed")
    found, of_source = seen(outputs), list(KINDS).index(source)
    protocol: dict[str, Any] = {
        "source": source, "side": outputs.shape[-1], "foreground": f"|red - blue| > {CHROMA:g}",
        "outline": f"larger IoU of disc and best of {N_ANGLES} triangles, same centre and area",
    }  # fmt: skip
    return {
        "recoloured": mean_score(found.family == 1 - of_source, "share", True, protocol),
        "outline_kept": mean_score(found.kind == of_source, "share", False, protocol),
        "reshaped": mean_score(found.kind == 1 - of_source, "share", True, protocol),
        "outline_iou": mean_score(iou(found.foreground, masks.cpu()), "IoU", False, protocol),
    }
