"""The generator as a map of the plane: what becomes of a square of uniform noise (lecture topic; not in the paper).

The data are uniform on a half ring, whole ("connected") or with two gaps cut out of it ("disconnected"). A continuous
G maps the connected square to a connected image, so it cannot leave the gaps empty: it can only stretch a thin part of
the square across each. R equal models play side by side; Mlp, Players and Adam are those of figure_one.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.results import Score, mean_score
from lib.training.randomness import Streams
from replications.gan2014.config import PushForwardConfig
from replications.gan2014.figure_one import NOISE, Mlp, Players, players

RADII = (0.6, 1.4)
GAPPED = ((0.0, 40.0), (70.0, 110.0), (140.0, 180.0))  # degrees
PIECES = {"connected": ((0.0, 180.0),), "disconnected": GAPPED}
TOLERANCE = 0.05  # a point farther than this from the support is stray
SECTORS = 12  # equal parts of the data's mass by angle, for the check that nothing was dropped
SIDE = 101  # points on a side of the grid on which Jacobians are taken
RADIUS = 0.05  # of the disc in which samples are counted for the density check
N_QUERIES = 500  # points of the density check
MESH = 81  # points on a side of the mesh on which the density of the change of variables is summed
N_KEPT = 1500  # data points kept for the figure
GRID = 33  # lines on a side of the warped grid of the figure


def sample_data(u: Tensor, name: str) -> Tensor:
    """Points uniform on the area of the support, (..., 2), from u (..., 2) uniform on the unit square."""
    inner, outer = RADII
    r = (inner**2 + u[..., 0] * (outer**2 - inner**2)).sqrt()
    pieces = PIECES[name]
    place = u[..., 1] * sum(b - a for a, b in pieces)
    angle, passed = torch.zeros_like(place), 0.0
    for a, b in pieces:
        angle = torch.where(place >= passed, a + place - passed, angle)
        passed += b - a
    angle = angle.deg2rad()
    return torch.stack([r * angle.cos(), r * angle.sin()], -1)


def distance_to_support(points: Tensor, name: str) -> Tensor:
    """Euclidean distance of points (..., 2) to the set the data fill, (...), 0 inside."""
    inner, outer = RADII
    r = points.norm(dim=-1)
    # From -90 to 270 degrees, so that no piece crosses the cut.
    angle = (torch.atan2(points[..., 1], points[..., 0]).rad2deg() + 90) % 360 - 90
    across = torch.maximum(inner - r, r - outer).clamp_min(0)
    distances = []
    for a, b in PIECES[name]:
        edges = torch.stack([_to_radial_edge(points, edge) for edge in (a, b)]).amin(0)
        distances.append(torch.where((angle >= a) & (angle <= b), torch.minimum(across, edges + across), edges))
    return torch.stack(distances).amin(0)


def _to_radial_edge(points: Tensor, degrees: float) -> Tensor:
    """Distance to the straight end of a piece: the segment between the two radii at one angle."""
    along = points.new_tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    nearest = (points * along).sum(-1).clamp(*RADII)
    return (points - nearest[..., None] * along).norm(dim=-1)


def jacobians(generator: nn.Module, z: Tensor) -> Tensor:
    """dG/dz at each point, (R, N, 2, 2) with rows the outputs, for z (R, N, 2), by reverse differentiation."""
    z = z.detach().requires_grad_()
    x = generator(z)  # a point's image depends on no other point, so gradients of sums are the points' own
    rows = [torch.autograd.grad(x[..., i].sum(), z, retain_graph=i == 0)[0] for i in range(2)]
    return torch.stack(rows, -2)


class Map(NamedTuple):
    """What the map does to each point of a grid, (R, N): signed area factor, and its largest stretch."""

    determinant: Tensor
    stretch: Tensor


def local_map(generator: nn.Module, z: Tensor) -> Map:
    """det dG/dz and the largest singular value of dG/dz, each (R, N), float64, in closed form for 2 by 2 matrices."""
    j = jacobians(generator, z).double()
    determinant = j[..., 0, 0] * j[..., 1, 1] - j[..., 0, 1] * j[..., 1, 0]
    square = j.square().sum((-2, -1))  # s1^2 + s2^2, and s1 s2 = |det|
    gap = (square.square() - 4 * determinant.square()).clamp_min(0).sqrt()
    return Map(determinant, ((square + gap) / 2).sqrt())


def noise_grid(side: int, device: torch.device | str = "cpu") -> Tensor:
    """Midpoints of side by side equal cells of the noise square, (side^2, 2), row by row from below."""
    line = NOISE * (2 * (torch.arange(side, device=device) + 0.5) / side - 1)
    return torch.cartesian_prod(line, line).flip(-1)


def push_forward(config: PushForwardConfig, workspace: Workspace) -> Outcome:
    """Train R pairs on the half ring, then measure the averaged generators as maps."""
    if config.data not in PIECES:
        raise ValueError(f"{config.data!r} is no data of the plane: take one of {', '.join(PIECES)}")
    drawn = Streams(workspace.streams.seed)  # on the CPU: a run on an accelerator starts from the same weights
    generator = Mlp(config.n_models, (2, *config.hidden, 2), drawn.at("init G")).to(workspace.device)
    discriminator = Mlp(config.n_models, (2, *config.hidden, 1), drawn.at("init D")).to(workspace.device)
    pair = players(generator, discriminator, config.betas)
    history = _train(pair, config, workspace)
    return _outcome(pair.mean_generator, config, workspace, history)


def _train(pair: Players, config: PushForwardConfig, workspace: Workspace) -> list[dict[str, float]]:
    """Algorithm 1 with k discriminator updates a step, both rates falling linearly to 0."""
    parts: dict[str, Any] = pair._asdict()
    state = workspace.resume_(**parts)
    shape = (2 * config.k + 1, config.n_models, config.batch, 2)
    for step in range(state["step"], config.n_steps):
        u = torch.rand(shape, generator=workspace.streams.at("minibatch", step), device=workspace.device)
        x, z = sample_data(u[: config.k], config.data), NOISE * (2 * u[config.k :] - 1)
        left = 1 - step / config.n_steps
        pair.set_rates(config.generator_rate * left, config.discriminator_rate * left)
        losses = [pair.update_discriminator(x[inner], z[inner]) for inner in range(config.k)]
        losses.append(pair.update_generator(z[-1]))
        pair.update_means(config.averaging)
        state["step"] = done = step + 1
        if done % config.steps_between_rows == 0 or done == config.n_steps:
            row = {"discriminator_loss": losses[-2].item(), "generator_loss": losses[-1].item()}
            state["history"].append({"step": done, **row})
            require_finite(row["generator_loss"], "The generator's loss", done, state["history"])
        workspace.keep(state, config.n_steps, **parts)
    return state["history"]  # type: ignore[no-any-return]


def _outcome(
    generator: Mlp, config: PushForwardConfig, workspace: Workspace, history: list[dict[str, float]]
) -> Outcome:
    device, n_models = workspace.device, config.n_models
    z = noise_grid(SIDE, device).expand(n_models, -1, -1)
    here = local_map(generator, z)
    u = torch.rand(config.n_samples, 4, generator=workspace.streams.at("samples"), device=device)
    real = sample_data(u[:, 2:], config.data)
    with torch.no_grad():
        # Equal noise for every model, so that what differs between them is the models.
        fake = generator((NOISE * (2 * u[:, :2] - 1)).expand(n_models, -1, -1))  # (R, n, 2)
        queries = fake[:, :N_QUERIES]
        lines = torch.linspace(-NOISE, NOISE, GRID, device=device)
        images = generator(torch.cartesian_prod(lines, lines).flip(-1).expand(n_models, -1, -1))
    changed, preimages = changed_density(mesh(generator, n_models, device), queries)
    ratios = counted_density(queries, fake[:, N_QUERIES:]) / changed
    scores, facts = measure(config, real, fake, here, ratios, preimages)
    weights = {"images": images, "real": real[:N_KEPT], "log_det": here.determinant.abs().clamp_min(1e-12).log(),
               "sign": here.determinant.sign(), "stretch": here.stretch}  # fmt: skip
    return Outcome(scores, history, {name: part.float() for name, part in weights.items()}, facts=facts)


class Mesh(NamedTuple):
    """The noise square cut into triangles, and what the map makes of each: the map as a piecewise linear one."""

    corners: Tensor  # (R, T, 3, 2), images of a triangle's corners
    density: Tensor  # (R, T), p_z / |det dG/dz| at its centre: the change of variables


def mesh(generator: nn.Module, n_models: int, device: torch.device | str = "cpu") -> Mesh:
    """Two triangles to each cell of a grid of MESH points a side."""
    line = torch.linspace(-NOISE, NOISE, MESH, device=device)
    points = torch.cartesian_prod(line, line).view(MESH, MESH, 2)
    p00, p01, p10, p11 = points[:-1, :-1], points[:-1, 1:], points[1:, :-1], points[1:, 1:]
    corners = torch.cat([torch.stack(t, -2).flatten(0, 1) for t in ((p00, p01, p10), (p11, p10, p01))])  # (T, 3, 2)
    with torch.no_grad():
        images = generator(corners.flatten(0, 1).expand(n_models, -1, -1)).unflatten(1, (-1, 3))
    determinant = local_map(generator, corners.mean(1).expand(n_models, -1, -1)).determinant
    return Mesh(images, (determinant.abs() * (2 * NOISE) ** 2).clamp_min(1e-12).reciprocal())


def changed_density(meshes: Mesh, queries: Tensor) -> tuple[Tensor, Tensor]:
    """p_g and the number of preimages at queries (R, Q, 2), each (R, Q): the sum over all triangles that lie there.

    Where the map folds a point has several preimages, and its density is the sum of theirs.
    """
    found: list[tuple[Tensor, Tensor]] = []
    for corners, density, points in zip(meshes.corners, meshes.density, queries, strict=True):
        a, b, c = corners.unbind(1)
        sides = [_side(points, p, q) for p, q in ((a, b), (b, c), (c, a))]  # each (Q, T)
        inside = (sides[0] == sides[1]) & (sides[1] == sides[2])
        found.append((inside.double() @ density, inside.sum(1).double()))
    return torch.stack([d for d, _ in found]), torch.stack([n for _, n in found])


def _side(points: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Whether each point lies left of the line from p to q, (Q, T) bool."""
    along = q - p
    constant = along[:, 0] * p[:, 1] - along[:, 1] * p[:, 0]
    return along[:, 0] * points[:, 1:] - along[:, 1] * points[:, :1] > constant


def counted_density(queries: Tensor, samples: Tensor) -> Tensor:
    """Samples (R, n, 2) in a disc around each query (R, Q, 2), over n and the disc's area, (R, Q).

    Too small within the disc's radius of an edge of the image.
    """
    counts = torch.stack([(torch.cdist(q, s) < RADIUS).sum(1) for q, s in zip(queries, samples, strict=True)])
    return counts.double() / (samples.shape[1] * math.pi * RADIUS**2)


def measure(
    config: PushForwardConfig, real: Tensor, fake: Tensor, here: Map, ratios: Tensor, preimages: Tensor
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Scores, means over models, and per-model values. real: (n, 2); fake: (R, n, 2); ratios, preimages: (R, Q)."""
    protocol = {
        "averaged_over": "models", "data": config.data, "samples": config.n_samples, "steps": config.n_steps,
        "weights": f"running mean, {config.averaging} a step", "k": config.k, "batch": config.batch,
    }  # fmt: skip
    grid = {"grid": f"{SIDE} x {SIDE}"}
    stray = (distance_to_support(fake, config.data) > TOLERANCE).double().mean(1)
    positive = (here.determinant > 0).double().mean(1)
    disc = {"disc": RADIUS, "points": ratios.shape[1]}
    values: dict[str, tuple[Tensor, str, bool, dict[str, Any]]] = {
        "stray_mass": (stray, "share of mass", False, {"tolerance": TOLERANCE}),
        "max_stretch": (here.stretch.amax(1), "", False, grid),
        "median_stretch": (here.stretch.quantile(0.5, dim=1), "", False, grid),
        "folded_area": (torch.minimum(positive, 1 - positive), "share of the square", False, grid),
        "density_ratio": (ratios.quantile(0.5, dim=1), "", True, disc),
        "preimages": (preimages.mean(1), "points of z", False, disc),
        "density_close": (((ratios - 1).abs() < 0.2).double().mean(1), "share of mass", True, {**disc, "bound": 0.2}),
        "sector_distance": (_sector_distance(real, fake), "", False, {"sectors": SECTORS}),
    }
    values = {name: (v.cpu(), unit, up, more) for name, (v, unit, up, more) in values.items()}
    scores = {name: mean_score(v, unit, up, protocol | more) for name, (v, unit, up, more) in values.items()}
    floor = (distance_to_support(real, config.data) > TOLERANCE).double().mean().item()
    plain = {"data": config.data, "samples": config.n_samples, "tolerance": TOLERANCE}
    scores["stray_mass_real"] = Score(floor, math.nan, "share of mass", False, config.n_samples, plain)
    return scores, {"models": {name: v.tolist() for name, (v, *_) in values.items()}}


def _sector_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Total variation, (R,) in [0, 1], between shares of equal sectors of the data: 0 if no part is missed."""
    angles = [torch.atan2(part[..., 1], part[..., 0]) for part in (real, fake)]
    inner = torch.arange(1, SECTORS, device=real.device) / SECTORS
    edges = angles[0].double().quantile(inner.double())
    counts = torch.stack([(angles[1] >= edge).double().mean(1) for edge in edges], 1)
    above = torch.cat([torch.ones_like(counts[:, :1]), counts, torch.zeros_like(counts[:, :1])], 1)
    return (-above.diff(dim=1) - 1 / SECTORS).abs().sum(1) / 2
