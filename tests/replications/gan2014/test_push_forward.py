"""The generator as a map: the data's geometry, Jacobians and densities where they are known, and a short run."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.training.randomness import generator
from replications.gan2014.config import PushForwardConfig
from replications.gan2014.figure_one import NOISE, Mlp
from replications.gan2014.push_forward import (
    GAPPED,
    PIECES,
    RADII,
    TOLERANCE,
    changed_density,
    counted_density,
    distance_to_support,
    jacobians,
    local_map,
    measure,
    mesh,
    noise_grid,
    push_forward,
    sample_data,
)

TINY = PushForwardConfig(
    "disconnected", n_steps=6, n_models=2, hidden=(5,), batch=8, n_samples=1000, steps_between_rows=4
)


class Linear(nn.Module):
    """x = z A^T, the same for every model."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.rows.T


@pytest.mark.parametrize("name", PIECES)
def test_data_fill_their_support_evenly(name):
    points = sample_data(torch.rand(40_000, 2, generator=generator(0, "u")), name)
    assert distance_to_support(points, name).max() < 1e-5
    inner, outer = RADII
    middle = math.sqrt((inner**2 + outer**2) / 2)  # halves the area
    assert (points.norm(dim=1) < middle).double().mean().item() == pytest.approx(0.5, abs=0.01)
    degrees = torch.atan2(points[:, 1], points[:, 0]).rad2deg()
    first = PIECES[name][0][1] / 2
    total = sum(b - a for a, b in PIECES[name])
    assert (degrees < first).double().mean().item() == pytest.approx(first / total, abs=0.01)


@pytest.mark.parametrize(
    ("point", "name", "distance"),
    [
        ((0.0, 1.0), "connected", 0.0),
        ((0.0, 1.7), "connected", 0.3),
        ((0.0, 0.1), "connected", 0.5),
        ((1.0, -0.2), "connected", 0.2),  # below the straight end
        ((1.7, -0.4), "connected", 0.5),  # beyond a corner
        ((0.0, -0.8), "connected", 1.0),  # the inner corner is nearest, and the cut of the angle lies here
        ((math.cos(math.radians(55)), math.sin(math.radians(55))), "disconnected", math.sin(math.radians(15))),
        ((math.cos(math.radians(55)), math.sin(math.radians(55))), "connected", 0.0),
    ],
)
def test_distances_that_geometry_gives(point, name, distance):
    assert distance_to_support(torch.tensor(point), name).item() == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize("name", PIECES)
def test_distance_is_that_to_the_nearest_of_many_points_of_the_support(name):
    line = torch.linspace(0, 1, 400)
    support = sample_data(torch.cartesian_prod(line, line), name)
    points = 4 * torch.rand(300, 2, generator=generator(0, "points")) - 2
    torch.testing.assert_close(
        distance_to_support(points, name), torch.cdist(points, support).amin(1), atol=0.01, rtol=0
    )


def test_gaps_are_wider_than_the_tolerance():
    degrees = [start - end for (_, end), (start, _) in pairwise(GAPPED)]
    assert min(2 * RADII[0] * math.sin(math.radians(gap) / 2) for gap in degrees) > 6 * TOLERANCE


def test_a_linear_map_has_its_own_matrix_everywhere():
    z = noise_grid(5).expand(2, -1, -1)
    here = local_map(Linear([[2.0, 1.0], [0.0, -3.0]]), z)
    matrix = torch.tensor([[2.0, 1.0], [0.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(here.determinant, torch.full((2, 25), -6.0, dtype=torch.float64))
    largest = torch.linalg.svdvals(matrix)[0].item()
    torch.testing.assert_close(here.stretch, torch.full((2, 25), largest, dtype=torch.float64))


def test_jacobians_agree_with_finite_differences():
    net = Mlp(3, (2, 7, 2), generator(0, "net")).double()
    z = noise_grid(4).double().expand(3, -1, -1)
    found, step = jacobians(net, z), 1e-6
    for i, move in enumerate(step * torch.eye(2, dtype=torch.float64)):
        slope = ((net(z + move) - net(z - move)) / (2 * step)).detach()
        torch.testing.assert_close(found[..., i], slope, atol=1e-8, rtol=1e-6)


def test_change_of_variables_of_a_linear_map():
    """The density is 1 / (12 |det|) inside the image of the square of side 2 sqrt(3), and 0 outside it."""
    inside, outside = (0.31, 0.17), (9.0, 0.0)
    density, preimages = changed_density(mesh(Linear([[2.0, 1.0], [0.0, -3.0]]), 1), torch.tensor([[inside, outside]]))
    torch.testing.assert_close(density, torch.tensor([[1 / 72, 0.0]], dtype=torch.float64))
    assert preimages.tolist() == [[1.0, 0.0]]


def test_a_fold_adds_its_preimages_and_the_count_agrees():
    class Fold(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.stack([z[..., 0].square(), z[..., 1]], -1)

    queries = torch.tensor([[(1.0, 0.3), (2.0, -1.0)]])
    density, preimages = changed_density(mesh(Fold(), 1), queries)
    assert preimages.tolist() == [[2.0, 2.0]]
    expected = torch.tensor([[2 / 12 / (2 * 1.0), 2 / 12 / (2 * math.sqrt(2))]], dtype=torch.float64)
    torch.testing.assert_close(density, expected, rtol=0.03, atol=0)
    z = NOISE * (2 * torch.rand(400_000, 2, generator=generator(0, "z")) - 1)
    torch.testing.assert_close(counted_density(queries, Fold()(z)[None]), expected, rtol=0.1, atol=0)


def test_measures_of_a_fold_of_stray_points_and_of_a_dropped_part():
    u = torch.rand(8000, 2, generator=generator(0, "u"))
    real = sample_data(u, "connected")
    half = real.clone()
    half[:, 0] = half[:, 0].abs()  # the left half of the ring is dropped
    far = torch.where(torch.arange(8000)[:, None] < 2000, real + 5, real)
    here = local_map(Linear([[1.0, 0.0], [0.0, 1.0]]), noise_grid(3).expand(3, -1, -1))
    here.determinant[0, :2] = -1.0
    ones = torch.ones(3, 10, dtype=torch.float64)
    scores, facts = measure(PushForwardConfig("connected", 1), real, torch.stack([real, half, far]), here, ones, ones)
    assert facts["models"]["stray_mass"] == pytest.approx([0, 0, 0.25])
    assert facts["models"]["folded_area"] == pytest.approx([2 / 9, 0, 0])
    assert facts["models"]["sector_distance"][:2] == pytest.approx([0, 0.5], abs=0.01)
    assert scores["stray_mass_real"].value == 0
    assert scores["density_ratio"].value == 1


def test_a_short_run_and_a_killed_one_end_in_the_same_bits(tmp_path):
    with deterministic("cpu"):
        whole = push_forward(TINY, Workspace(tmp_path / "whole", 0))
        for _ in range(20):  # past its deadline from the start, so one step an attempt
            try:
                push_forward(TINY, Workspace(tmp_path, 0, deadline=0.0))
            except OutOfTime:
                continue
            break
        pieces = push_forward(TINY, Workspace(tmp_path, 0))
    assert [row["step"] for row in whole.history] == [4, 6]
    assert pieces.history == whole.history
    assert all(torch.equal(pieces.weights[name], tensor) for name, tensor in whole.weights.items())


def test_data_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no data of the plane"):
        push_forward(PushForwardConfig("swiss-roll", 1), Workspace(tmp_path, 0))
