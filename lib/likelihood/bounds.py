"""Lower bounds on log p(x) for a model with a Gaussian posterior approximation."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from lib.likelihood.observation import Criterion, require_observation
from lib.losses.elbo import kl_to_standard_normal
from lib.models.gaussian_vae import Gaussian

_ALIVE = 1 << 20  # decoded pixels alive at a time, 4 MB each in float32: what a core's cache holds


class LatentVariableModel(Protocol):
    """What an estimator needs of a model; z carries any number of leading sample axes before (B, Z)."""

    def posterior(self, x: Tensor) -> Gaussian: ...
    def log_prior(self, z: Tensor) -> Tensor: ...
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor: ...


@torch.no_grad()
def elbo(
    model: LatentVariableModel,
    x: Tensor,
    draws: int,
    generator: torch.Generator,
    *,
    estimator: Literal["A", "B"] = "B",
    criterion: Criterion = "likelihood",
) -> Tensor:
    """The variational bound E_q[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x); Kingma & Welling 2013, section 2.3.

    An unbiased estimate of the bound from `draws` samples of z an image. Estimator "B" (eq. 7) takes the KL term in
    closed form, so the prior must be N(0, I); "A" (eq. 6) samples it too and serves any prior. Near the posterior A has
    the smaller variance (none where q is it), far from it B may.
    x: (N, D). Returns (N,), nats per image, higher is better. `criterion`: see require_observation.
    Raises ValueError (draws, estimator, pixels that the observation model does not know).
    """
    _require_samples("draws", draws)
    if estimator not in ("A", "B"):
        raise ValueError(f"estimator is {estimator!r}: it must be 'A' (everything sampled) or 'B' (KL in closed form)")
    require_observation(model, x, criterion)
    values = torch.empty(len(x), dtype=x.dtype, device=x.device)
    for block in _blocks(x, draws):
        q = model.posterior(x[block])
        total = torch.zeros(q.mean.shape[:1], dtype=torch.float64, device=x.device)
        for noise in _noise(q.mean, draws, x.shape[1], generator):
            z = q.sample(noise)  # (s, b, Z)
            value = model.log_likelihood(x[block], z)  # (s, b)
            total += (value if estimator == "B" else value + model.log_prior(z) - q.log_prob(z)).sum(0)
        values[block] = (total / draws).to(x.dtype)
        if estimator == "B":
            values[block] -= kl_to_standard_normal(*q)
    return values


def importance_weighted_bound(
    model: LatentVariableModel, x: Tensor, k: int, generator: torch.Generator, *, criterion: Criterion = "likelihood"
) -> Tensor:
    """L_k = E log (1/k) sum_i p(x, z_i) / q(z_i|x), z_i ~ q(z|x); Burda et al. 2015, eq. 8.

    L_1 is the ELBO with a sampled KL; L_k <= L_{k+1} <= log p(x) in expectation, so the value is a bound for any k.
    x: (N, D). Returns (N,), nats per image, one estimate each; higher is better. `criterion`: see require_observation.
    Raises ValueError (k, pixels that the observation model does not know).
    """
    return importance_weighted_bounds(model, x, [k], generator, criterion=criterion)[0]


@torch.no_grad()
def importance_weighted_bounds(
    model: LatentVariableModel,
    x: Tensor,
    ks: Sequence[int],
    generator: torch.Generator,
    *,
    criterion: Criterion = "likelihood",
) -> Tensor:
    """L_k for several k in one pass over max(ks) samples; memory does not grow with k.

    L_k uses the first k samples of each image, so the estimates of one image are dependent. x: (N, D). Returns
    (len(ks), N) in the order of `ks`, nats per image. Raises ValueError as importance_weighted_bound.
    """
    for k in ks:
        _require_samples("k", k)
    if not ks:
        raise ValueError("ks is empty: at least one number of importance samples is needed")
    require_observation(model, x, criterion)
    values = torch.empty(len(ks), len(x), dtype=x.dtype, device=x.device)
    for block in _blocks(x, max(ks)):
        q = model.posterior(x[block])
        total = torch.full(q.mean.shape[:1], -math.inf, dtype=torch.float64, device=x.device)
        done = 0
        for noise in _noise(q.mean, max(ks), x.shape[1], generator):
            z = q.sample(noise)  # (s, b, Z)
            log_weight = (model.log_prior(z) + model.log_likelihood(x[block], z) - q.log_prob(z)).double()  # (s, b)
            for row, k in enumerate(ks):
                if done < k <= done + len(z):
                    first = torch.logaddexp(total, torch.logsumexp(log_weight[: k - done], 0))
                    values[row, block] = (first - math.log(k)).to(x.dtype)
            total = torch.logaddexp(total, torch.logsumexp(log_weight, 0))
            done += len(z)
    return values


def _blocks(x: Tensor, draws: int) -> Iterator[slice]:
    """Slices of images, as many as keep all their decoded samples within _ALIVE pixels, one at least."""
    size = max(1, _ALIVE // (draws * x.shape[1]))
    return (slice(start, start + size) for start in range(0, len(x), size))


def _noise(mean: Tensor, draws: int, n_pixels: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Standard normal (s, b, Z), `draws` of them in all for each of the b images, s at a time.

    Drawn block by block, for all at once would be N k Z numbers; the blocks depend on the shapes alone, so the same
    generator gives the same numbers on every machine.
    """
    size = max(1, _ALIVE // (len(mean) * n_pixels))
    for start in range(0, draws, size):
        shape = (min(size, draws - start), *mean.shape)
        yield torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=generator)


def _require_samples(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} counts samples of z and must be at least 1, not {count}")
