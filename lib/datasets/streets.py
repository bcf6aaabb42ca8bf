"""Where things stand in a street scene: a map from places in the image to the parts of a street, drawn at random.

A street is given by its horizon and vanishing point. What stands on the ground at the drop q below the horizon has the
scale q: a thing that is Y high and X to the side of the vanishing point spans Y q and X q of the image, and lies at the
depth 1 / q, all in units of the camera's height. Image places (u, v) run over 0 .. 1, rightwards and downwards.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES = ("sky", "building", "road", "tree", "car", "person", "sidewalk")
N_HOUSES = 8  # of the skyline, and of either side of the street
ROWS = ((0.08, 0.15), (0.15, 0.26), (0.26, 0.42))  # of q: things stand in three rows, the far one painted first
N_PEOPLE = 2  # places for persons in a row
SLACK = 0.03  # how far `layout` may be asked for a place beside the regular one of its row and column

# Parts, in the order in which they are numbered: (how many, class, name)
_KINDS = (
    (1, "sky", "sky"),
    (N_HOUSES, "building", "skyline"),
    (1, "tree", "hedge"),
    (1, "sidewalk", "sidewalk"),
    (1, "road", "road"),
    (1, "road", "mark"),
    (1, "road", "shadow"),
    (1, "sidewalk", "shade"),
    (N_HOUSES, "building", "left"),
    (N_HOUSES, "building", "right"),
    (2 * len(ROWS), "tree", "trunk"),
    (2 * len(ROWS), "tree", "crown"),
    (len(ROWS), "car", "body"),
    (len(ROWS), "car", "glass"),
    (len(ROWS), "car", "wheels"),
    (len(ROWS), "car", "lights"),
    (N_PEOPLE * len(ROWS), "person", "legs"),
    (N_PEOPLE * len(ROWS), "person", "torso"),
    (N_PEOPLE * len(ROWS), "person", "head"),
)
PART: dict[str, int] = {}  # the first number of each kind
COUNT: dict[str, int] = {}
LABEL_OF_PART: list[int] = []
for _count, _label, _name in _KINDS:
    PART[_name], COUNT[_name] = len(LABEL_OF_PART), _count
    LABEL_OF_PART += [CLASSES.index(_label)] * _count
N_PARTS = len(LABEL_OF_PART)


class Draws:
    """Uniform random numbers for the n images of a block, taken one after the other from one generator."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n, self.generator = n, generator

    def __call__(self, low: float, high: float, *shape: int) -> Tensor:
        """(n, *shape), uniform on low .. high."""
        return low + (high - low) * torch.rand(self.n, *shape, generator=self.generator)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """bool (n, *shape)."""
        return torch.rand(self.n, *shape, generator=self.generator) < probability

    def field(self, cells: int, side: int, cells_across: int | None = None) -> Tensor:
        """Smooth noise (n, side, side) in 0 .. 1: random values at the corners of cells, interpolated."""
        grid = torch.rand(self.n, 1, cells + 1, (cells_across or cells) + 1, generator=self.generator)
        return F.interpolate(grid, (side, side), mode="bilinear", align_corners=True)[:, 0]


class Things(NamedTuple):
    """Things of one sort, a column a place for one, (n, K): middle and foot in the image, size, and whether it is."""

    u: Tensor
    v: Tensor
    width: Tensor
    height: Tensor
    there: Tensor

    def rows(self, k: int, side: int) -> slice:
        """The rows of an image that place k can reach in any of the n images: the others need not be looked at."""
        foot, height = self.v[:, k], self.height[:, k]
        top, bottom = (foot - 1.3 * height).min() - SLACK, (foot + 0.15 * height).max() + SLACK
        return slice(max(int(top * side), 0), max(int(bottom * side) + 1, 1))

    def axes(self, k: int, u: Tensor, v: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Place k's own coordinates: across -1/2 .. 1/2, height 0 .. 1. Where nothing is, height lies outside."""
        middle, foot, width, height = (field[:, k, None, None] for field in self[:4])
        foot = foot.masked_fill(~self.there[:, k, None, None], -9.0)
        u = u[:, rows] if u.shape[1] > 1 else u
        return (u - middle) / width, (foot - v[:, rows]) / height


class Street(NamedTuple):
    """What is drawn of n streets, besides colours. One number an image is (n, 1, 1); X and heights as in the module."""

    horizon: Tensor  # v
    vanishing: Tensor  # u
    road: tuple[Tensor, Tensor]  # X of the kerbs, to the left and to the right, both > 0
    wall: tuple[Tensor, Tensor]  # X of the fronts of the houses, further out
    heights: tuple[Tensor, Tensor]  # (n, N_HOUSES) of the houses of either side from near to far; 0 is a gap
    length: Tensor  # of a house along the street
    skyline: Tensor  # (n, N_HOUSES) heights in the image of the houses at the far end; 0 is a gap
    columns: Tensor  # how many of those would fit the image's width
    hedge: Tensor  # height in the image of the trees at the far end
    ragged: Tensor  # (n, 3): where the noise that frays the crowns is read, so that it moves with the image alone
    trees: Things
    cars: Things
    people: Things


def street(draw: Draws) -> Street:
    """Draw n streets. How many random numbers that takes does not depend on the size of the images."""
    horizon, vanishing = draw(0.34, 0.54), draw(0.28, 0.72)
    road = (draw(0.55, 1.25), draw(0.55, 1.25))
    wall = tuple(kerb + draw(0.3, 0.85) for kerb in road)
    heights = tuple(
        draw(1.0, 4.2, N_HOUSES) * draw(0.55, 1.0, 1) * draw.chance(0.82, N_HOUSES) * draw.chance(0.92, 1)
        for _ in range(2)
    )
    places = [draw(low, high, 2 + 1 + N_PEOPLE) for low, high in ROWS]  # q of two trees, one car, the people
    q = torch.stack(places, 1)  # (n, rows, 2 + 1 + N_PEOPLE)

    def placed(x: Tensor, q: Tensor, width: Tensor, height: Tensor, there: Tensor, margin: float) -> Things:
        """Things at (n, rows, K) as (n, rows K): moved along the row until they stand in the image."""
        u = (vanishing[:, None, None] + x * q).clamp(margin, 1 - margin)
        v = horizon[:, None, None] + q
        return Things(*(field.flatten(1) for field in (u, v, width * q, height * q, there)))

    rows, both = len(ROWS), torch.stack(road, 1)[:, None]  # (n, 1, 2)
    outer = torch.stack(wall, 1)[:, None]
    signs = torch.tensor([-1.0, 1.0])
    at = signs * (both + draw(0.3, 0.9, rows, 2) * (outer - both))
    trees = placed(at, q[..., :2], draw(1.1, 2.1, rows, 2), draw(1.7, 3.0, rows, 2), draw.chance(0.6, rows, 2), -0.1)
    lane = draw(-0.8, 0.8, rows, 1)
    at = torch.where(lane < 0, lane * both[..., :1], lane * both[..., 1:])
    there = draw.chance(0.6, rows, 1)
    there[:, 1] |= ~there.any(1)  # no street without a car
    cars = placed(at, q[..., 2:3], draw(0.75, 1.05, rows, 1), draw(0.55, 0.9, rows, 1), there, 0.1)
    right, step = draw.chance(0.5, rows, N_PEOPLE), draw(-0.5, 0.8, rows, N_PEOPLE)
    kerb, front = (torch.where(right, pair[..., 1:], -pair[..., :1]) for pair in (both, outer))
    there = draw.chance(0.5, rows, N_PEOPLE)
    there[:, 2, 0] |= ~there[:, 1:].flatten(1).any(1)  # nor one without a person near enough to be seen
    at, size = kerb + step * (front - kerb), draw(0.75, 0.95, rows, N_PEOPLE)
    people = placed(at, q[..., 3:], 0.4 * size, size, there, 0.06)

    def wide(number: Tensor) -> Tensor:
        return number[:, None, None]

    return Street(
        wide(horizon),
        wide(vanishing),
        (wide(road[0]), wide(road[1])),
        (wide(wall[0]), wide(wall[1])),
        (heights[0], heights[1]),
        wide(draw(1.6, 4.5)),
        draw(0.04, 0.3, N_HOUSES) * draw.chance(0.8, N_HOUSES),
        wide(draw(3.0, 7.0)),
        wide(draw(0.0, 0.16)),
        draw(0, 1, 3),
        trees,
        cars,
        people,
    )


class Layout(NamedTuple):
    """What is to be seen at each place of n images of side S; all (n, S, S)."""

    part: Tensor  # int64 0 .. N_PARTS - 1
    across: Tensor  # a surface's own coordinates: along and up a house in windows, along the ground in units
    up: Tensor  # ... of a car, person or tree its height 0 .. 1
    q: Tensor  # the inverse depth, 0 at the horizon; 1 for things


def layout(street: Street, u: Tensor, v: Tensor, ragged: Tensor) -> Layout:
    """What is at the places u, v; ragged: noise (n, S, S) in 0 .. 1 that frays leaves.

    u: (1, 1, S) and v: (1, S, 1) evenly over 0 .. 1, or (n, S, S) that differ from those by less than SLACK.
    """
    part, across, up, q = _still(street, u, v, ragged)
    for row in range(len(ROWS)):
        for k in (2 * row, 2 * row + 1):
            rows = street.trees.rows(k, v.shape[1])
            _tree(*_cut(rows, part, up, q), k, *street.trees.axes(k, u, v, rows), ragged[:, rows])
        rows = street.cars.rows(row, v.shape[1])
        _car(*_cut(rows, part, up, q), row, *street.cars.axes(row, u, v, rows))
        for k in range(N_PEOPLE * row, N_PEOPLE * (row + 1)):
            rows = street.people.rows(k, v.shape[1])
            _person(*_cut(rows, part, up, q), k, *street.people.axes(k, u, v, rows))
    return Layout(part.long(), across, up, q)


def _cut(rows: slice, part: Tensor, up: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views of these rows: what is painted on them is painted on the fields."""
    return part[:, rows], up[:, rows], q[:, rows]


def _still(street: Street, u: Tensor, v: Tensor, ragged: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sky, skyline, ground and the houses on both sides."""
    drop = v - street.horizon  # q of the ground, negative above
    n, shape = len(street.horizon), torch.broadcast_shapes(drop.shape, street.vanishing.shape, u.shape)
    column = ((u + street.columns.frac()) * street.columns).long().clamp_(max=N_HOUSES - 1).expand(shape)
    tall = street.skyline.gather(1, column.flatten(1)).view(shape)
    part = torch.zeros(shape, dtype=torch.uint8)
    part = torch.where((-drop < tall) & (tall > 0), PART["skyline"] + column.to(torch.uint8), part)
    part.masked_fill_(-drop < street.hedge * (1.6 * ragged - 0.1), PART["hedge"])

    safe = drop.clamp(min=1e-3)
    x, depth = (u - street.vanishing) / safe, 1 / safe
    ground = (drop > 0).expand(shape)
    part.masked_fill_(ground, PART["sidewalk"])
    part.masked_fill_(ground & (x > -street.road[0]) & (x < street.road[1]), PART["road"])
    middle = (x - (street.road[1] - street.road[0]) / 2).abs() < 0.035
    part.masked_fill_(ground & middle & (depth.frac() < 0.5), PART["mark"])
    across, up = torch.where(ground, x, 20 * u), torch.where(ground, depth, -20 * drop)
    q = safe.expand(shape).clone()

    for side, sign in enumerate((-1, 1)):
        near = ((u - street.vanishing) * sign / street.wall[side]).clamp(min=1e-3)  # q of the front in this column
        along = 1 / near - 1.5
        house = (along / street.length).long().clamp_(0, N_HOUSES - 1).expand(shape)
        tall = street.heights[side].gather(1, house.flatten(1)).view(shape)
        wall = (drop < near) & (-drop < tall * near) & (near > 2e-3) & (tall > 0)
        part = torch.where(wall, PART["left" if side == 0 else "right"] + house.to(torch.uint8), part)
        across = torch.where(wall, 1.6 * along, across)
        up = torch.where(wall, 2.2 * (near - drop) / near, up)
        q = torch.where(wall, near, q)
    return part, across.expand(n, *shape[1:]), up, q


def _tree(part: Tensor, up: Tensor, q: Tensor, k: int, a: Tensor, b: Tensor, ragged: Tensor) -> None:
    """a: across, b: height over its foot, both in its size. Paints on part, up and q, as the next two do."""
    part.masked_fill_((a.abs() < 0.05) & ((b > 0) & (b < 0.6)), PART["trunk"] + k)
    crown = (2 * a).square() + ((b - 0.66) / 0.36).square() < 0.5 + 0.9 * ragged
    crown &= (b > 0.2) & (b < 1.3)
    part.masked_fill_(crown, PART["crown"] + k)
    _stand(crown, up, q, b)


def _car(part: Tensor, up: Tensor, q: Tensor, k: int, a: Tensor, b: Tensor) -> None:
    """Seen from behind."""
    a = a.abs()
    part.masked_fill_((a < 0.56) & ((b > -0.12) & (b < 0.12)), PART["shadow"])
    body = (a < 0.5 - 0.3 * (b - 0.5).clamp(min=0)) & ((b > 0.1) & (b < 1))
    part.masked_fill_(body, PART["body"] + k)
    part.masked_fill_((a < 0.42 - 0.3 * (b - 0.5)) & ((b > 0.62) & (b < 0.92)), PART["glass"] + k)
    wheels = ((a > 0.26) & (a < 0.46)) & ((b > 0) & (b < 0.16))
    part.masked_fill_(wheels, PART["wheels"] + k)
    part.masked_fill_(((a > 0.34) & (a < 0.48)) & ((b > 0.38) & (b < 0.54)), PART["lights"] + k)
    _stand(body | wheels, up, q, b)


def _person(part: Tensor, up: Tensor, q: Tensor, k: int, a: Tensor, b: Tensor) -> None:
    a = a.abs()
    foot = (a < 0.6) & ((b > -0.04) & (b < 0.03))
    for ground, dark in (("road", "shadow"), ("sidewalk", "shade")):
        part.masked_fill_(foot & (part == PART[ground]), PART[dark])
    legs = ((a < 0.36) & (a > 0.02)) & ((b > 0) & (b < 0.5))
    torso = (a < 0.5 - 0.9 * (b - 0.72).clamp(min=0)) & ((b > 0.42) & (b < 0.84))
    head = (a / 0.26).square() + ((b - 0.91) / 0.1).square() < 1
    for name, mask in (("legs", legs), ("torso", torso), ("head", head)):
        part.masked_fill_(mask, PART[name] + k)
    _stand(legs | torso | head, up, q, b)


def _stand(whole: Tensor, up: Tensor, q: Tensor, height: Tensor) -> None:
    up.copy_(torch.where(whole, height, up))
    q.masked_fill_(whole, 1.0)
