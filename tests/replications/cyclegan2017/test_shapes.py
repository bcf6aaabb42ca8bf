"""Discs and triangles: their geometry, that only outline and surface tell them apart, and what the scores say."""

import math

import pytest
import torch
from torch.nn import functional as F

from replications.cyclegan2017.shapes import (
    CHROMA,
    CIRCUMRADIUS,
    INKS,
    RADIUS,
    Shapes,
    _surface,
    best_overlaps,
    iou,
    seen,
    shape_scores,
    shapes,
    signed_distance,
)

SIDES = (32, 64)


@pytest.fixture(scope="module", params=SIDES)
def both(request) -> dict[str, Shapes]:
    return {domain: shapes(domain, 300, request.param, seed=5) for domain in "ab"}


def values(scores):
    return {name: score.value for name, score in scores.items()}


# --- geometry ----------------------------------------------------------------------------------------------------


def one(kind, radius, angle=0.0, side=256):
    centre = torch.full((1, 2), side / 2)
    return signed_distance(kind, centre, torch.tensor([radius]), torch.tensor([angle]), side)[0]


@pytest.mark.parametrize("kind", ["disc", "triangle"])
def test_both_kinds_have_the_area_of_the_disc(kind):
    for angle in (0.0, 0.4, 1.7):
        assert (one(kind, 60.0, angle) < 0).sum().item() == pytest.approx(math.pi * 60**2, rel=0.01)


def test_the_triangle_is_equilateral():
    """Its corners are as far from its centre as they should be, 120 degrees apart, the first opposite to a side."""
    inside = one("triangle", 60.0, angle=0.3) < 0
    y, x = (inside.nonzero() + 0.5 - 128).unbind(1)
    distance, angle = torch.hypot(x, y), torch.atan2(y, x)
    for corner in (0.3 + math.pi / 3, 0.3 + math.pi, 0.3 + 5 * math.pi / 3):
        near = torch.cos(angle - corner) > math.cos(0.03)
        assert distance[near].max().item() == pytest.approx(CIRCUMRADIUS * 60, rel=0.02)
    assert distance.max().item() < CIRCUMRADIUS * 60


def test_x_is_along_a_row():
    centre = torch.tensor([[20.0, 5.0]])
    distance = signed_distance("disc", centre, torch.tensor([3.0]), torch.zeros(1), 32)[0]
    y, x = (distance < 0).nonzero().double().add(0.5).mean(0).tolist()
    assert (x, y) == pytest.approx((20, 5))
    assert distance[4, 19].item() == pytest.approx(math.hypot(0.5, 0.5) - 3)


def test_a_disc_and_a_triangle_overlap_by_a_known_share():
    distance = CIRCUMRADIUS / 2  # of a side from the centre of a unit disc
    cut = math.acos(distance) - distance * math.sqrt(1 - distance**2)  # the segment that a side cuts off
    common = math.pi - 3 * cut
    expected = common / (2 * math.pi - common)
    disc, triangle = one("disc", 60.0) < 0, one("triangle", 60.0) < 0
    assert expected == pytest.approx(0.69, abs=0.005)
    assert iou(disc[None], triangle[None]).item() == pytest.approx(expected, abs=0.01)


def test_iou_of_known_masks():
    left, top = torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 4, 4, dtype=torch.bool)
    left[:, :, :2], top[:, :2] = True, True
    assert iou(left, top).item() == pytest.approx(4 / 12)
    assert iou(left, left).item() == 1
    assert iou(left, ~left).item() == iou(left & ~left, left & ~left).item() == 0


def test_best_overlaps_finds_every_turn():
    for angle in torch.linspace(0, 2 * math.pi / 3, 9).tolist():
        disc, triangle = best_overlaps(one("triangle", 60.0, angle)[None] < 0)
        assert triangle.item() > 0.93
        assert disc.item() == pytest.approx(0.69, abs=0.02)
    disc, triangle = best_overlaps(one("disc", 60.0)[None] < 0)
    assert disc.item() > 0.99
    assert triangle.item() == pytest.approx(0.69, abs=0.02)


# --- the images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", "ab")
def test_images_depend_on_the_seed_alone(domain):
    first, again, other = (shapes(domain, 6, 32, seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert not torch.equal(first.masks, other.masks)
    assert len({image.numpy().tobytes() for image in first.images}) == 6
    assert (first.images.dtype, first.images.shape, first.masks.shape) == (torch.uint8, (6, 3, 32, 32), (6, 32, 32))


def test_no_shape_touches_the_border(both):
    for found in both.values():
        border = torch.ones(found.masks.shape[1:], dtype=torch.bool)
        border[1:-1, 1:-1] = False
        assert not (found.masks & border).any()
        assert found.masks.flatten(1).any(1).all()


def test_places_areas_and_backgrounds_do_not_tell_the_domains_apart(both):
    side = both["a"].masks.shape[-1]
    facts = {}
    for domain, (images, masks) in both.items():
        area = masks.sum((1, 2)).double() / side**2
        x = (masks.sum(1) * torch.arange(side)).sum(1) / masks.sum((1, 2)) / side
        y = (masks.sum(2) * torch.arange(side)).sum(1) / masks.sum((1, 2)) / side
        far = ~(F.max_pool2d(masks.float()[:, None], 3, 1, 1) > 0)  # without the border pixels, which are mixed
        colour = (images * far).sum((2, 3)) / far.sum((2, 3))  # (N, 3)
        facts[domain] = torch.stack(
            [area, x, x**2, y, y**2, *colour.T, (colour[:, 0] - colour[:, 2]).abs()], 1
        ).double()
    a, b = facts["a"], facts["b"]
    z = (a.mean(0) - b.mean(0)) / ((a.var(0) + b.var(0)) / len(a)).sqrt()
    assert z.abs().max().item() < 3.5
    assert (a.std(0) > 0.01).all()  # they vary
    low, high = RADIUS
    assert a[:, 0].mean().item() == pytest.approx(math.pi * (low**2 + low * high + high**2) / 3, rel=0.04)


def test_a_background_has_no_foreground(both):
    for domain, (images, masks) in both.items():
        near = F.max_pool2d(masks.float()[:, None], 3, 1, 1)[:, 0] > 0
        chroma = (images[:, 0].float() - images[:, 2].float()).abs()
        assert chroma[~near].max().item() < CHROMA, domain


@pytest.mark.parametrize(("domain", "ridges"), [("a", 1), ("b", 2)])
def test_stripes_run_one_way_and_checks_two(domain, ridges):
    """Rank of the pattern along its own axes: stripes vary in one direction, checks are a product of two waves."""
    surface = _surface(domain, torch.tensor([[0.1, 0.2, 0.0]]), 64)[0, 2]
    down, across = (surface - surface.mean(axis, keepdim=True) for axis in (0, 1))
    assert (down.abs().max() > 1) == (ridges == 2)
    assert across.abs().max() > 10
    light, dark = (ink[2] for ink in INKS[domain])
    assert (surface.max().item(), surface.min().item()) == pytest.approx((max(light, dark), min(light, dark)))


# --- the scores --------------------------------------------------------------------------------------------------


def test_the_shape_is_found_where_it_is(both):
    for found in both.values():
        assert iou(seen(found.images).foreground, found.masks).mean().item() > 0.96


@pytest.mark.parametrize("blur", [False, True])
def test_floor_and_ceiling_on_real_images(both, blur):
    """Also on blurred ones: translators do not draw sharp edges."""

    def shown(images):
        return F.avg_pool2d(images.float(), 3, 1, 1, count_include_pad=False).to(torch.uint8) if blur else images

    for source, target in ("ab", "ba"):
        masks = both[source].masks
        unchanged = values(shape_scores(shown(both[source].images), masks, source))
        done = values(shape_scores(shown(both[target].images), masks, source))
        assert unchanged["recoloured"] == 0
        assert unchanged["outline_kept"] > 0.985
        assert unchanged["outline_kept"] + unchanged["reshaped"] == 1
        assert unchanged["outline_iou"] > (0.7 if blur else 0.96)
        assert done["recoloured"] == 1
        assert done["outline_kept"] < 0.015
        assert done["reshaped"] > 0.985
        assert done["outline_iou"] < 0.5


def test_what_the_paper_expects_changes_the_surface_alone(both):
    images, masks = both["a"]
    repainted = torch.where(masks[:, None], _surface("b", torch.rand(len(images), 3), images.shape[-1]), images)
    found = values(shape_scores(repainted.to(torch.uint8), masks))
    assert (found["recoloured"], found["reshaped"]) == (1, pytest.approx(0, abs=0.015))
    assert found["outline_kept"] > 0.985


def test_an_empty_output_is_neither():
    images, masks = torch.full((3, 3, 32, 32), 128, dtype=torch.uint8), torch.ones(3, 32, 32, dtype=torch.bool)
    assert values(shape_scores(images, masks)) == dict.fromkeys(
        ("recoloured", "outline_kept", "reshaped", "outline_iou"), 0.0
    )


def test_scores_are_means_over_images(both):
    images = torch.cat([both["a"].images[:30], both["b"].images[:10]])
    masks = torch.cat([both["a"].masks[:30], both["b"].masks[:10]])
    score = shape_scores(images, masks)["recoloured"]
    assert (score.value, score.n, score.protocol["side"]) == (0.25, 40, images.shape[-1])
    assert score.stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 39))
    assert shape_scores(images.flip(0), masks.flip(0))["outline_iou"].value == pytest.approx(
        shape_scores(images, masks)["outline_iou"].value
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: shapes("c", 2, 32, 0), "discs"),
        (lambda: shapes("a", 0, 32, 0), "n is 0"),
        (lambda: shapes("a", 2, 8, 0), "side is 8"),
        (lambda: shape_scores(torch.zeros(2, 3, 32, 32), torch.ones(2, 32, 32, dtype=torch.bool)), "float32"),
        (lambda: shape_scores(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.ones(2, 32, 32)), "bool mask"),
        (lambda: shape_scores(*_blank(2), source="disc"), "the source is 'disc'"),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def _blank(n):
    return torch.zeros(n, 3, 32, 32, dtype=torch.uint8), torch.ones(n, 32, 32, dtype=torch.bool)
