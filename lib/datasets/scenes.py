"""Procedural street scenes: label maps with their photographs and, for other streets, paintings. Nothing is stored.

A photograph cannot be read pixel by pixel: walls, pavements, roads and cars share their colours, foliage may be as
brown as brick, each image has its own light, and texture, haze, blur and noise lie over all. Paintings show the same
kind of streets in flat colours with brush strokes and outlines, under lights of the same distribution.

Scenes come in blocks of BLOCK images, each block from its own generators, so image i depends on (side, seed, i) alone
and not on n. Another side shows the same streets with the same colours and light, but other noise. Everything is
computed on the CPU, so every device is handed the same bytes; other processors may round a few of them differently.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count, require_images
from lib.datasets.streets import CLASSES, COUNT, LABEL_OF_PART, N_PARTS, PART, Draws, Layout, Street, layout, street
from lib.training.randomness import generator

__all__ = ["CLASSES", "COLOURS", "GENERATOR_VERSION", "Scenes", "as_pictures", "paintings", "read_pictures", "scenes"]

GENERATOR_VERSION = "scenes-1"  # change it with the bytes
BLOCK = 16
COLOURS = torch.tensor(  # of the label pictures, those of Cityscapes
    [[70, 130, 180], [70, 70, 70], [128, 64, 128], [107, 142, 35], [0, 0, 142], [220, 20, 60], [244, 35, 232]],
    dtype=torch.uint8,
)
_LABEL_OF_PART = torch.tensor(LABEL_OF_PART, dtype=torch.uint8)
SKY, BUILDING, ROAD, TREE, CAR, PERSON, SIDEWALK = range(len(CLASSES))

SKIES = torch.tensor([[0.42, 0.63, 0.92], [0.62, 0.78, 0.95], [0.74, 0.77, 0.80], [0.80, 0.84, 0.88]])
WALLS = torch.tensor(
    [
        [0.56, 0.29, 0.22],
        [0.76, 0.60, 0.38],
        [0.52, 0.52, 0.52],
        [0.82, 0.79, 0.73],
        [0.46, 0.54, 0.62],
        [0.36, 0.31, 0.28],
    ]
)
LEAVES = torch.tensor(
    [[0.20, 0.36, 0.12], [0.33, 0.46, 0.15], [0.15, 0.28, 0.15], [0.56, 0.33, 0.13], [0.60, 0.50, 0.17]]
)
PAINTS = torch.tensor(
    [
        [0.90, 0.90, 0.88],
        [0.10, 0.10, 0.12],
        [0.62, 0.64, 0.67],
        [0.66, 0.10, 0.10],
        [0.12, 0.22, 0.52],
        [0.16, 0.36, 0.25],
        [0.86, 0.70, 0.14],
        [0.36, 0.37, 0.40],
    ]
)
GRAIN = torch.tensor([0.01, 0.12, 0.22, 0.5, 0.06, 0.1, 0.14])[LABEL_OF_PART]  # of photographs: how strong noise is
LEAFINESS = torch.tensor([0.0, 0.12, 0.06, 1.1, 0.0, 0.1, 0.06])[LABEL_OF_PART]  # ... and noise of two pixels' grain
STROKE = torch.tensor([0, 1, 0, 2, 0, 1, 0])[LABEL_OF_PART]  # of paintings: across, up or dabs
SKINS = torch.tensor([[0.86, 0.66, 0.54], [0.72, 0.50, 0.38], [0.45, 0.30, 0.22]])


class Scenes(NamedTuple):
    labels: Tensor  # uint8 (N, H, W), indices of CLASSES
    photographs: Tensor  # uint8 (N, 3, H, W)


def scenes(n: int, side: int, seed: int, device: torch.device | str = "cpu") -> Scenes:
    """n streets of side x side pixels, side >= 16, with their photographs. Raises ValueError."""
    maps, photographs = zip(*_blocks(n, side, seed, "photograph", _photograph), strict=True)
    return Scenes(torch.cat(maps)[:n].to(device), torch.cat(photographs)[:n].to(device))


def paintings(n: int, side: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (n, 3, side, side): paintings of other streets than the photographs of the same seed. Raises ValueError."""
    _, painted = zip(*_blocks(n, side, seed, "painting", _painting), strict=True)
    return torch.cat(painted)[:n].to(device)


def as_pictures(labels: Tensor) -> Tensor:
    """Label maps in the classes' COLOURS: integers (N, H, W) in 0 .. 6 -> uint8 (N, 3, H, W). Raises ValueError."""
    if labels.ndim != 3 or labels.is_floating_point():
        raise ValueError(f"labels is {labels.dtype} {tuple(labels.shape)}: label maps are integers, (N, H, W)")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(CLASSES):
        raise ValueError(f"labels lie in {labels.min()} .. {labels.max()}: the classes are 0 .. {len(CLASSES) - 1}")
    return COLOURS.to(labels.device)[labels.long()].movedim(-1, 1).contiguous()


def read_pictures(pictures: Tensor) -> Tensor:
    """The class of the nearest of COLOURS, in RGB, at each pixel: uint8 (N, 3, H, W) -> uint8 (N, H, W).

    Of two at the same distance the lower class. Raises ValueError.
    """
    require_images("pictures", pictures)
    if pictures.shape[1] != 3:
        raise ValueError(f"pictures has {pictures.shape[1]} channel: label pictures are in colour, (N, 3, H, W)")
    found = pictures.new_zeros(pictures[:, 0].shape)
    nearest = torch.full(found.shape, 2**30, dtype=torch.int32, device=pictures.device)
    for label, colour in enumerate(COLOURS.to(pictures.device, torch.int32)):
        distance = (pictures.int() - colour[:, None, None]).square().sum(1)
        closer = distance < nearest
        found.masked_fill_(closer, label)
        nearest = torch.where(closer, distance.int(), nearest)
    return found


class _Look(NamedTuple):
    """What a block's images have besides their streets."""

    palette: Tensor  # (n, N_PARTS, 3) in 0 .. 1
    light: Tensor  # (n, 3, 1, 1): factors, warm and dim in the evening, cold and bright at noon
    window: tuple[Tensor, Tensor]  # (n, 1, 1): half the width and height of a window, in its cell
    pane: Tensor  # (n, 3, 1, 1)
    haze: Tensor  # (n, 1, 1): how fast the distance pales


def _blocks(
    n: int, side: int, seed: int, kind: str, paint: Callable[[Street, _Look, Draws, int], tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    require_count("n", n, 1)
    require_count("side", side, 16)
    for block in range(-(-n // BLOCK)):
        draw = Draws(BLOCK, generator(seed, f"{kind}/street", block))
        drawn = street(draw)
        yield paint(drawn, _look(draw), Draws(BLOCK, generator(seed, f"{kind}/{side}", block)), side)


def _look(draw: Draws) -> _Look:
    """The same for photographs and paintings: so are the distributions of their lights."""

    def some_of(colours: Tensor, count: int, jitter: float) -> Tensor:
        """(n, count, 3)"""
        chosen = colours[draw(0, len(colours), count).long().clamp_(max=len(colours) - 1)]
        return chosen + draw(-jitter, jitter, count, 3) * 0.5 + draw(-jitter, jitter, count, 1)

    def greys(count: int, low: float, high: float, warmth: float) -> Tensor:
        return draw(low, high, count, 1) + warmth * draw(-0.3, 1, count, 1) * torch.tensor([1.0, 0.4, -1.0])

    palette = torch.empty(draw.n, N_PARTS, 3)
    clothes = draw(0.08, 0.9, COUNT["torso"], 3)
    colours = {
        "sky": some_of(SKIES, 1, 0.04),
        "skyline": some_of(WALLS, COUNT["left"], 0.06),
        "hedge": some_of(LEAVES[:3], 1, 0.04),
        "sidewalk": greys(1, 0.42, 0.7, 0.05),
        "road": greys(1, 0.26, 0.48, 0.02),
        "mark": greys(1, 0.75, 0.95, 0.02),
        "shadow": greys(1, 0.1, 0.16, 0.01),
        "shade": greys(1, 0.14, 0.24, 0.02),
        "left": some_of(WALLS, COUNT["left"], 0.06) * draw(0.72, 1.05, 1, 1),
        "right": some_of(WALLS, COUNT["left"], 0.06) * draw(0.72, 1.05, 1, 1),
        "trunk": greys(COUNT["trunk"], 0.2, 0.32, 0.06),
        "crown": some_of(LEAVES, COUNT["crown"], 0.05),
        "body": some_of(PAINTS, COUNT["body"], 0.05),
        "glass": greys(COUNT["glass"], 0.15, 0.4, -0.06),
        "wheels": greys(COUNT["wheels"], 0.05, 0.1, 0.0),
        "lights": torch.tensor([0.85, 0.12, 0.08]) + draw(-0.1, 0.1, COUNT["lights"], 3),
        "legs": 0.5 * draw(0.1, 0.8, COUNT["legs"], 3),
        "torso": clothes,
        "head": some_of(SKINS, COUNT["head"], 0.03),
    }
    for name, values in colours.items():
        palette[:, PART[name] : PART[name] + COUNT[name]] = values
    warmth, exposure = draw(-1, 1, 1), draw(0.9, 1.1, 1)
    light = exposure * (0.9 - 0.08 * warmth) * torch.exp(warmth * torch.tensor([0.2, 0.0, -0.28]))
    window = (draw(0.2, 0.36)[:, None, None], draw(0.22, 0.36)[:, None, None])
    pane = (greys(1, 0.15, 0.45, -0.08)[:, 0])[:, :, None, None]
    return _Look(palette.clamp_(0, 1), light[:, :, None, None], window, pane, draw(0.01, 0.05)[:, None, None])


def _grid(side: int) -> tuple[Tensor, Tensor, int]:
    """Places u (1, 1, S), v (1, S, 1) and S = 2 side + 1: pixel centres are the odd ones, midway between others."""
    fine = 2 * side + 1
    at = torch.arange(fine) / (fine - 1)
    return at.view(1, 1, -1), at.view(1, -1, 1), fine


def _photograph(drawn: Street, look: _Look, noise: Draws, side: int) -> tuple[Tensor, Tensor]:
    u, v, fine = _grid(side)
    # The fraying is smooth noise of a fixed grain from the street's own numbers, the same at every side.
    seen = layout(drawn, u, v, _fraying(drawn, u, v))
    grain, leaves = noise(-1, 1, fine, fine), noise.field(max(side // 2, 8), fine) - 0.5
    label = _LABEL_OF_PART.take(seen.part)
    colour = _flat(seen, look)  # (n, 3, S, S)

    factor = GRAIN.take(seen.part).mul_(grain).add_(1)
    factor.addcmul_(LEAFINESS.take(seen.part), leaves)
    thing = seen.q == 1
    factor *= torch.where(thing, 0.72 + 0.45 * seen.up.clamp(0, 1), 1.0)
    shine = torch.exp(-((seen.up - 0.58) / 0.06).square()) * 0.35 * (label == CAR)
    joints = (label == SIDEWALK) & ((4 * seen.across).frac().abs() < 0.1) & (seen.q > 0.12)
    factor *= 1 - 0.18 * joints
    clouds = (noise.field(4, fine, 3) + 0.5 * noise.field(11, fine, 6) - 0.75).clamp_(min=0) * (label == SKY)
    colour = colour * factor[:, None] + shine[:, None] + 0.9 * clouds[:, None]

    pale = look.palette[:, PART["sky"], :, None, None] * 0.5 + 0.45
    far = torch.where(
        label == SKY, (v - drawn.horizon).mul(5).exp().clamp(max=1) * 0.7, 1 - torch.exp(-look.haze / seen.q)
    )
    colour += far[:, None] * (pale - colour)
    photograph = _halved(colour * look.light)
    photograph += 0.025 * torch.randn(photograph.shape, generator=noise.generator)
    return label[:, 1::2, 1::2].contiguous(), _bytes(photograph)


def _painting(drawn: Street, look: _Look, noise: Draws, side: int) -> tuple[Tensor, Tensor]:
    """Outlines wobble, colours are flat and strong, strokes run across, up or in dabs by what they paint."""
    u, v, fine = _grid(side)
    u, v = u + 0.02 * (noise.field(16, fine) - 0.5), v + 0.02 * (noise.field(16, fine) - 0.5)
    seen = layout(drawn, u, v, _fraying(drawn, u, v))
    label = _LABEL_OF_PART.take(seen.part)
    colour = _flat(seen, look)
    mean = colour.mean(1, keepdim=True)
    colour = (mean + 1.35 * (colour - mean)).clamp_(0, 1).mul_(7).round_().div_(7)

    many, few = max(min(side, 40), 8), 6
    strokes = [noise.field(many, fine, few), noise.field(few, fine, many), noise.field(20, fine)]  # across, up, dabs
    kind = STROKE.take(seen.part)
    stroke = torch.where(kind == 0, strokes[0], torch.where(kind == 1, strokes[1], strokes[2]))
    colour *= 1 + 0.28 * ((3 * stroke).floor_() - 1)[:, None] * torch.where(kind == 2, 1.3, 0.6)[:, None]
    edge = torch.zeros_like(label, dtype=torch.bool)
    edge[:, 1:] |= seen.part[:, 1:] != seen.part[:, :-1]
    edge[:, :, 1:] |= seen.part[:, :, 1:] != seen.part[:, :, :-1]
    colour *= torch.where(edge & (label != SKY), 0.45, 1.0)[:, None]
    return label[:, 1::2, 1::2].contiguous(), _bytes(_halved(colour * look.light))


def _fraying(drawn: Street, u: Tensor, v: Tensor) -> Tensor:
    """Noise (n, S, S) in 0 .. 1 that belongs to the place: waves across the image with phases of the street's own."""
    phase = 6.28 * drawn.ragged[:, :, None, None]
    waves = torch.sin(61 * u + 23 * v + phase[:, 0]) + torch.sin(47 * v - 31 * u + phase[:, 1])
    return 0.5 + 0.17 * (waves + torch.sin(83 * u + phase[:, 2]) * torch.sin(79 * v + phase[:, 0]))


def _flat(seen: Layout, look: _Look) -> Tensor:
    """The colours (n, 3, S, S) without light and texture, windows in the houses: each as bright as its own number."""
    n, fine = len(seen.part), seen.part.shape[-1]
    index = seen.part.view(n, 1, -1).expand(-1, 3, -1)
    colour = look.palette.movedim(2, 1).gather(2, index).view(n, 3, fine, fine)
    a, b = seen.across.floor(), seen.up.floor()
    house = _LABEL_OF_PART.take(seen.part) == BUILDING
    inside = ((seen.across - a - 0.5).abs() < look.window[0]) & ((seen.up - b - 0.5).abs() < look.window[1])
    number = (torch.sin(a * 12.99 + b * 78.23) * 437.58).frac().abs()
    share = 0.85 * (house & inside & (seen.q > 0.03) | house & inside & (seen.part < PART["hedge"]))
    pane = look.pane * (0.6 + 0.9 * number[:, None])
    return colour + share[:, None] * (pane - colour)


def _halved(fine: Tensor) -> Tensor:
    """(n, 3, 2 S + 1, 2 S + 1) -> (n, 3, S, S): the slight blur of a lens, weights 1/4, 1/2, 1/4 either way."""
    rows = (fine[..., :-1:2, :] + fine[..., 2::2, :]) * 0.25 + fine[..., 1::2, :] * 0.5
    return (rows[..., :-1:2] + rows[..., 2::2]) * 0.25 + rows[..., 1::2] * 0.5


def _bytes(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul_(255).round_().to(torch.uint8)
