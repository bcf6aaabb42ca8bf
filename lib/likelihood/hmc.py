"""Hamiltonian Monte Carlo over many chains at once (Neal 2011, "MCMC using Hamiltonian dynamics"), unit mass.

A chain is an entry of the leading axes of z (..., Z); nothing loops over them. A log density is given as a weighted sum
of terms, with the gradient of each kept, so that an annealed target, whose weights alone change, starts its next
transition without a new evaluation. One transition costs n_leapfrog evaluations of the terms and their gradients.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LogTerms = Callable[[Tensor], tuple[Tensor, ...]]  # z (..., Z) -> T terms of the log density, each (...)
Blocks = Sequence[tuple[slice, LogTerms]]  # which columns b of z (..., N, Z), and their terms

# As in the code of Wu et al. 2017 (tonywu95/eval_gen), which however adapts one step size for all images together.
STEP_FACTORS = (0.98, 1.02)
STEP_RANGE = (1e-4, 0.5)
AVERAGE_KEEPS = 0.9  # of the running mean acceptance, a transition
# Each chain's step is stretched by a uniform draw from this range at each transition, so that no trajectory's length
# stays near a period of the motion, where it would return to its start (Neal 2011, section 5.4.2.2).
STRETCH = (0.8, 1.2)
MAX_FLOATS = 1 << 22  # decoded pixels alive at a time, 16 MB in float32 an array


class Point(NamedTuple):
    """Where chains stand, with the terms of the log density there (float64) and their gradients."""

    z: Tensor  # (..., Z)
    log_terms: Tensor  # (T, ...)
    gradients: Tensor  # (T, ..., Z)


class Noise(NamedTuple):
    """The random part of one transition."""

    momentum: Tensor  # (..., Z) standard normal
    log_uniform: Tensor  # (...) log of a uniform draw on (0, 1)
    stretch: Tensor  # (...) factor on the step size


class Transition(NamedTuple):
    point: Point
    acceptance: Tensor  # (...) probability with which the proposal was accepted, 0 where it diverged; float64
    accepted: Tensor  # (...) bool


class StepSize(NamedTuple):
    value: Tensor
    mean_acceptance: Tensor  # running mean, same shape


def weighted(weights: Sequence[float], terms: Tensor) -> Tensor:
    """sum_t weights[t] terms[t]; a term of weight 0 is left out even where it is infinite."""
    return torch.stack([weight * term for weight, term in zip(weights, terms, strict=True) if weight != 0]).sum(0)


def evaluate(log_terms: LogTerms, z: Tensor) -> Point:
    """The terms and the gradient of each in z alone: no parameter gets one. Raises ValueError if z has none."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        terms = log_terms(leaf)
        gradients = [_gradient(term, leaf) for term in terms]
    return Point(z.detach(), torch.stack([term.detach().double() for term in terms]), torch.stack(gradients))


def leapfrog(
    log_terms: LogTerms, point: Point, weights: Sequence[float], momentum: Tensor, step_size: Tensor, n_leapfrog: int
) -> tuple[Point, Tensor]:
    """n_leapfrog steps of the leapfrog integrator (Neal 2011, eqs. 5.18 to 5.20): the end point and momentum there.

    step_size: any shape that broadcasts against the chains (...).
    """
    step = step_size.unsqueeze(-1)
    momentum = momentum + 0.5 * step * weighted(weights, point.gradients)
    for i in range(n_leapfrog):
        point = evaluate(log_terms, point.z + step * momentum)
        last = i == n_leapfrog - 1
        momentum = momentum + (0.5 if last else 1.0) * step * weighted(weights, point.gradients)
    return point, momentum


def draw_noise(z: Tensor, generator: torch.Generator) -> Noise:
    """Noise for one transition of the chains z (..., Z), of its dtype and device."""
    momentum = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
    uniform, place = torch.rand((2, *z.shape[:-1]), dtype=z.dtype, device=z.device, generator=generator)
    return Noise(momentum, uniform.double().log(), STRETCH[0] + (STRETCH[1] - STRETCH[0]) * place)


def hmc_transition(
    log_terms: LogTerms, point: Point, weights: Sequence[float], step_size: Tensor, n_leapfrog: int, noise: Noise
) -> Transition:
    """One transition that leaves exp(sum_t weights[t] log_terms[t]) invariant, accepted or not chain by chain.

    step_size broadcasts against the chains (...) and must not depend on `noise`. A proposal at which anything is nan or
    infinite has diverged and is rejected, so that what is not finite never gets into a chain.
    """
    end, momentum = leapfrog(log_terms, point, weights, noise.momentum, step_size * noise.stretch, n_leapfrog)
    change = weighted(weights, end.log_terms) - _kinetic(momentum)
    sound = torch.isfinite(change)  # a gradient that is not finite has made the momentum so
    change = change - weighted(weights, point.log_terms) + _kinetic(noise.momentum)
    change = torch.where(sound, change, -math.inf)
    accepted = noise.log_uniform < change
    chosen = Point(
        torch.where(accepted.unsqueeze(-1), end.z, point.z),
        torch.where(accepted, end.log_terms, point.log_terms),
        torch.where(accepted.unsqueeze(-1), end.gradients, point.gradients),
    )
    return Transition(chosen, change.clamp_max(0).exp(), accepted)


def adapted(step: StepSize, acceptance: Tensor, target: float) -> StepSize:
    """The step size for the next transition: 2 % up where the running mean acceptance exceeds `target`, else 2 % down.

    It depends on the past alone. Even so a chain that steers itself by its own past no longer leaves its target exactly
    invariant; where exactness matters, record or tune the step sizes in one run and use them frozen in another.
    """
    mean = AVERAGE_KEEPS * step.mean_acceptance + (1 - AVERAGE_KEEPS) * acceptance
    factor = torch.where(mean > target, STEP_FACTORS[1], STEP_FACTORS[0]).to(step.value.dtype)
    return StepSize((step.value * factor).clamp(*STEP_RANGE), mean)


def image_blocks(x: Tensor, copies: int, max_floats: int) -> list[slice]:
    """Slices of the images x (N, ...), of which `copies` decoded copies stay within max_floats (one image at least)."""
    size = max(1, max_floats // (copies * x[0].numel()))
    return [slice(start, start + size) for start in range(0, len(x), size)]


def evaluate_blocks(blocks: Blocks, z: Tensor) -> Point:
    """`evaluate` of z (..., N, Z), block after block."""
    return _joined([evaluate(log_terms, z[..., block, :]) for block, log_terms in blocks])


def transition_blocks(
    blocks: Blocks,
    point: Point,
    weights: Sequence[float],
    step_size: Tensor,
    n_leapfrog: int,
    generator: torch.Generator,
) -> Transition:
    """`hmc_transition` of z (..., N, Z) with step_size (N,), block after block.

    The noise is drawn for all images before, so that the size of a block does not move a number.
    """
    noise, parts = draw_noise(point.z, generator), []
    for block, log_terms in blocks:
        part = Point(point.z[..., block, :], point.log_terms[..., block], point.gradients[..., block, :])
        draws = Noise(noise.momentum[..., block, :], noise.log_uniform[..., block], noise.stretch[..., block])
        parts.append(hmc_transition(log_terms, part, weights, step_size[block], n_leapfrog, draws))
    points, acceptance, accepted = zip(*parts, strict=True)
    return Transition(_joined(points), torch.cat(acceptance, -1), torch.cat(accepted, -1))


def require_acceptance(target: float) -> None:
    """A probability strictly between 0 and 1. Raises ValueError."""
    if not 0 < target < 1:
        raise ValueError(f"target_acceptance is {target!r}: it must lie strictly between 0 and 1")


def _gradient(term: Tensor, z: Tensor) -> Tensor:
    if term.requires_grad:
        (gradient,) = torch.autograd.grad(term.sum(), z, retain_graph=True, allow_unused=True)
        if gradient is not None:
            return gradient
    raise ValueError("a term of the log density has no gradient in z: does the model detach it, or run under no_grad?")


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.double().square().sum(-1)


def _joined(parts: Sequence[Point]) -> Point:
    if len(parts) == 1:
        return parts[0]
    z, log_terms, gradients = zip(*parts, strict=True)
    return Point(torch.cat(z, -2), torch.cat(log_terms, -1), torch.cat(gradients, -2))
