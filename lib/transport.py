"""Exact optimal transport between points, the entropic kind beside it, and the divergences it is compared with.

Everything is float64 on the CPU. Points are (N, D), on a line (N,); mass moves at the Euclidean distance, so values are
W1, the earth mover's distance, unless a table of costs is handed in. Masses add up to 1. Arrays, lists and tensors are
taken; floats and numpy arrays come back.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

# scipy is imported where it is used: 60 MB that a worker which only trains can do without.
Given = ArrayLike | Tensor
Array = NDArray[np.float64]
TOTAL_TOLERANCE = 1e-6  # how far from 1 masses may add up: rounding of float32 shares


class Assignment(NamedTuple):
    """value: mean distance of the pairs; partner: (N,), x[i] goes to y[partner[i]]."""

    value: float
    partner: NDArray[np.intp]


class Plan(NamedTuple):
    """plan: (N, M), its rows add up to a and its columns to b; f: (N,), g: (M,) the dual potentials."""

    value: float
    plan: Array
    f: Array
    g: Array


class Entropic(NamedTuple):
    """value: <P, C> + epsilon KL(P || a b') where error is 0, below it before (the dual's value); cost: <P, C> alone;
    error: largest |row sum - a| of the plan."""

    value: float
    cost: float
    plan: Array
    error: float


def wasserstein_on_line(x: Given, y: Given, a: Given | None = None, b: Given | None = None) -> float:
    """W1 on the line, >= 0, in the unit of x.

    Without masses the integral of |F^-1 - G^-1|, which pairs the points in order: x and y hold equally many, (N,).
    With masses a (N,) and b (M,) the equal integral of |F - G|. Raises ValueError.
    """
    u, v = _values("x", x, 1), _values("y", y, 1)
    if a is None and b is None:
        _require_equal_sizes(u, v)
        return float(np.abs(np.sort(u) - np.sort(v)).mean())
    if a is None or b is None:
        raise ValueError("masses were given for one side only: give both a and b, or neither")
    p, q = _masses("a", a, len(u)), _masses("b", b, len(v))
    points = np.concatenate([u, v])
    order = np.argsort(points, kind="stable")
    above = np.cumsum(np.concatenate([p, -q])[order])[:-1]  # F - G between neighbouring points
    return float(np.abs(above) @ np.diff(points[order]))


def wasserstein_to_uniform(points: Given) -> float:
    """W1 between equal masses at `points` (N,) and U[0, 1]: the integral of |F_n^-1(u) - u| over u, exactly.

    The i-th smallest point serves the share ((i - 1) / N, i / N). At least 1 / (4 N), reached at the midpoints of those
    intervals. Points may lie outside [0, 1]. Raises ValueError.
    """
    x = np.sort(_values("points", points, 1))
    low, high = np.arange(len(x)) / len(x), np.arange(1, len(x) + 1) / len(x)
    return float((_signed_half_square(high - x) - _signed_half_square(low - x)).sum())


def _signed_half_square(t: Array) -> Array:
    """The integral of |t|."""
    return t * np.abs(t) / 2


def distances_between(x: Given, y: Given) -> Array:
    """Euclidean distances (N, M) of the points x (N, D) and y (M, D). Raises ValueError."""
    from scipy.spatial.distance import cdist

    u, v = _values("x", x, 2), _values("y", y, 2)
    if u.shape[1] != v.shape[1]:
        raise ValueError(f"x has {u.shape[1]} coordinates and y {v.shape[1]}: both must lie in one space")
    table: Array = cdist(u, v)
    return table


def optimal_assignment(x: Given, y: Given) -> Assignment:
    """W1 between equal masses at x (N, D) and at y (N, D): some optimal plan is a permutation (Birkhoff).

    Exact up to rounding, by scipy's shortest augmenting paths; N = 1,000 takes some 50 ms. Raises ValueError.
    """
    from scipy.optimize import linear_sum_assignment

    cost = distances_between(x, y)
    if cost.shape[0] != cost.shape[1]:
        raise ValueError(f"x holds {cost.shape[0]} points and y {cost.shape[1]}: an assignment needs as many")
    rows, partner = linear_sum_assignment(cost)
    return Assignment(float(cost[rows, partner].mean()), partner)


def assignment_potentials(cost: Given, partner: NDArray[np.intp]) -> tuple[Array, Array]:
    """Dual potentials of an optimal assignment from inside the optimal set: f, g (N,), f_i + g_j <= c_ij.

    Equality holds for every pair of the assignment, and, where no other assignment is as good, for no other pair. A
    solver's vertex has N - 1 further equalities, so its potential has a kink at many points and no gradient there.
    f_i - f_k <= c_i,partner(k) - c_k,partner(k) are constraints of shortest paths; the distances from any one root
    satisfy them, with equality along its paths only, and the mean over all roots is what is returned. O(N^3).
    """
    c = _values("cost", cost, 2)
    matched = c[:, partner]  # column k is the partner of row k
    paths = matched.T - matched.diagonal()[:, None]  # (from k, to i)
    for k in range(len(paths)):
        paths = np.minimum(paths, paths[:, k, None] + paths[None, k])
    f = paths.mean(0)
    g = np.empty_like(f)
    g[partner] = matched.diagonal() - f
    return f, g


def transport_plan(cost: Given, a: Given, b: Given) -> Plan:
    """The cheapest plan that moves the masses a (N,) to b (M,) at cost (N, M), by linear programming (HiGHS).

    value = sum a f + sum b g with f_i + g_j <= c_ij, and equality wherever the plan has mass. f and g are the solver's,
    unique up to a constant only where the plan does not decompose. Dense constraints: N M up to some 10^4.
    Raises ValueError.
    """
    from scipy.optimize import linprog

    c, p, q = _problem(cost, a, b)
    rows, columns = np.kron(np.eye(len(p)), np.ones(len(q))), np.kron(np.ones(len(p)), np.eye(len(q)))
    found = linprog(c.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q]), method="highs")
    _require_solved(found)
    f, g = np.split(found.eqlin.marginals, [len(p)])
    return Plan(float(found.fun), found.x.reshape(c.shape), f, g)


def lipschitz_critic(points: Given, p: Given, q: Given, bound: float = 1.0) -> tuple[float, Array]:
    """max of sum p f - sum q f over f with |f(u) - f(v)| <= bound |u - v|, and f at the points; f is 0 at the first.

    Kantorovich-Rubinstein duality (Arjovsky et al. 2017, equations 2 and 3): bound times W1(p, q). points: (N, D);
    p, q: (N,) masses on them. N (N - 1) constraints: N up to some 100. Raises ValueError.
    """
    from scipy.optimize import linprog

    if not (np.isfinite(bound) and bound > 0):
        raise ValueError(f"bound is {bound}: a Lipschitz constant is finite and above 0")
    table = distances_between(points, points)
    n = len(table)
    gain = _masses("p", p, n) - _masses("q", q, n)
    u, v = np.nonzero(~np.eye(n, dtype=bool))
    difference = np.eye(n)[u] - np.eye(n)[v]  # (N (N - 1), N)
    bounds = [(0.0, 0.0), *[(None, None)] * (n - 1)]
    found = linprog(-gain, A_ub=difference, b_ub=bound * table[u, v], bounds=bounds, method="highs")
    _require_solved(found)
    return float(-found.fun), found.x


def extend_potential(points: Given, values: Given, at: Given) -> Array:
    """f(x) = min over j of (f_j + |x - x_j|) at the places `at` (K, D): the largest 1-Lipschitz f with f(x_j) <= f_j.

    points: (N, D), values: (N,). It takes the values themselves where these are 1-Lipschitz. (K,). Raises ValueError.
    """
    table = distances_between(at, points)
    known = _values("values", values, 1)
    if len(known) != table.shape[1]:
        raise ValueError(f"points holds {table.shape[1]} points and values {len(known)}: one value a point is needed")
    smallest: Array = (table + known).min(1)
    return smallest


def sinkhorn(cost: Given, a: Given, b: Given, epsilon: float, n_steps: int) -> Entropic:
    """Entropic transport: min over plans P of <P, C> + epsilon KL(P || a b'), by n_steps of Sinkhorn in log space.

    Cuturi 2013, with the entropy relative to a b' as in Feydy et al. 2019. The columns of the plan add up to b,
    its rows to a within `error`, which steps beyond some multiple of 1 / epsilon make small. Then value is the minimum,
    never below the linear program's, to which it falls as epsilon -> 0; before, it is the dual's, which rises to it.
    For epsilon -> infinity the plan is a b'. Raises ValueError.
    """
    c, p, q = _problem(cost, a, b)
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon is {epsilon}: it must be finite and above 0")
    if n_steps < 1:
        raise ValueError(f"n_steps is {n_steps}: at least one step is needed")
    with np.errstate(divide="ignore"):  # a mass of 0 has the logarithm -inf and takes no part
        log_p, log_q = np.log(p), np.log(q)
    kernel = -c / epsilon
    f, g = np.zeros_like(p), np.zeros_like(q)  # both over epsilon
    for _ in range(n_steps):
        f = -_log_sum_exp(kernel + g + log_q, 1)
        g = -_log_sum_exp(kernel + (f + log_p)[:, None], 0)
    plan = np.exp(kernel + (f + log_p)[:, None] + g + log_q)
    value = epsilon * (p @ f + q @ g)  # the dual, whose further term is 0 once the columns add up
    return Entropic(float(value), float((plan * c).sum()), plan, float(np.abs(plan.sum(1) - p).max()))


def sinkhorn_divergence(x: Given, y: Given, a: Given, b: Given, epsilon: float, n_steps: int) -> float:
    """The debiased entropic cost: OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2, Feydy et al. 2019, equation 3.

    x: (N, D) with masses a, y: (M, D) with masses b; Euclidean cost. >= 0, and 0 exactly where the two are one
    distribution, once Sinkhorn has converged; OT(a, a) itself is above 0. Raises ValueError.
    """
    cross, left, right = (
        sinkhorn(distances_between(s, t), p, q, epsilon, n_steps).value
        for s, t, p, q in ((x, y, a, b), (x, x, a, a), (y, y, b, b))
    )
    return cross - left / 2 - right / 2


def common_support(x: Given, y: Given, a: Given | None = None, b: Given | None = None) -> tuple[Array, Array]:
    """Masses p and q, (K,) each, of two discrete distributions on the K distinct points of both.

    x: (N, D), y: (M, D); masses a, b are equal ones where None. Points are one where all coordinates are equal.
    Raises ValueError.
    """
    u, v = _values("x", x, 2), _values("y", y, 2)
    if u.shape[1] != v.shape[1]:
        raise ValueError(f"x has {u.shape[1]} coordinates and y {v.shape[1]}: both must lie in one space")
    p, q = (
        np.full(len(points), 1 / len(points)) if masses is None else _masses(name, masses, len(points))
        for name, masses, points in (("a", a, u), ("b", b, v))
    )
    support, place = np.unique(np.concatenate([u, v]), axis=0, return_inverse=True)
    place, k = place.reshape(-1), len(support)
    masses_p: Array = np.bincount(place[: len(u)], p, k).astype(np.float64)
    masses_q: Array = np.bincount(place[len(u) :], q, k).astype(np.float64)
    return masses_p, masses_q


def total_variation(p: Given, q: Given) -> float:
    """sup over sets A of |P(A) - Q(A)| = sum |p - q| / 2, in 0 .. 1; Arjovsky et al. 2017, section 2. p, q: (K,)."""
    u, v = _two_masses(p, q)
    return float(np.abs(u - v).sum() / 2)


def kullback_leibler(p: Given, q: Given) -> float:
    """KL(p || q) = sum p log(p / q) in nats, in [0, inf], 0 log 0 = 0; infinite where p has mass and q none."""
    u, v = _two_masses(p, q)
    seen = u > 0
    if (v[seen] == 0).any():
        return float("inf")
    return max(0.0, float((u[seen] * np.log(u[seen] / v[seen])).sum()))  # rounding alone can make it negative


def jensen_shannon(p: Given, q: Given) -> float:
    """(KL(p || m) + KL(q || m)) / 2 in nats with m = (p + q) / 2: 0 .. log 2, the latter for disjoint supports.

    Section 2 of Arjovsky et al. 2017 prints the sum without the half, and uses it with the half everywhere else.
    """
    u, v = _two_masses(p, q)
    middle = (u + v) / 2
    return (kullback_leibler(u, middle) + kullback_leibler(v, middle)) / 2


def _log_sum_exp(x: Array, axis: int) -> Array:
    top = x.max(axis, keepdims=True)
    total: Array = np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis)
    return total


def _values(name: str, given: Given, ndim: int) -> Array:
    """`given` as a finite float64 array of that many axes, none of them empty."""
    array = np.asarray(given.detach().cpu().numpy() if isinstance(given, Tensor) else given, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        wanted = "(N,), one number a point" if ndim == 1 else "(N, D), one row a point"
        raise ValueError(f"{name} has the shape {array.shape}: it must be {wanted}, and not empty")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds nan or infinity: every number must be finite")
    return array


def _masses(name: str, given: Given, size: int) -> Array:
    """Masses >= 0 that add up to 1, scaled to do so to rounding."""
    masses = _values(name, given, 1)
    if len(masses) != size:
        raise ValueError(f"{name} holds {len(masses)} masses where there are {size} points: one a point is needed")
    if masses.min() < 0:
        raise ValueError(f"{name} holds {masses.min():g}: no mass may be negative")
    if abs(masses.sum() - 1) > TOTAL_TOLERANCE:
        raise ValueError(f"{name} adds up to {masses.sum():.9g}: masses must add up to 1")
    scaled: Array = masses / masses.sum()
    return scaled


def _two_masses(p: Given, q: Given) -> tuple[Array, Array]:
    u, v = _values("p", p, 1), _values("q", q, 1)
    _require_equal_sizes(u, v, "p", "q", "masses")
    return _masses("p", u, len(u)), _masses("q", v, len(v))


def _problem(cost: Given, a: Given, b: Given) -> tuple[Array, Array, Array]:
    c = _values("cost", cost, 2)
    return c, _masses("a", a, c.shape[0]), _masses("b", b, c.shape[1])


def _require_equal_sizes(u: Array, v: Array, left: str = "x", right: str = "y", what: str = "points") -> None:
    if len(u) != len(v):
        raise ValueError(f"{left} holds {len(u)} {what} and {right} {len(v)}: both must hold as many")


def _require_solved(found: Any) -> None:
    if found.status != 0:
        raise ValueError(f"the linear program has no solution: {found.message}")
