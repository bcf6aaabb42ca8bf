"""Lower bounds on log p(x) for a model with a Gaussian posterior approximation."""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from lib.losses.elbo import kl_to_standard_normal
from lib.models.gaussian_vae import Gaussian


class LatentVariableModel(Protocol):
    """What an estimator needs of a model; z carries any number of leading sample axes before (B, Z)."""

    def posterior(self, x: Tensor) -> Gaussian: ...
    def log_prior(self, z: Tensor) -> Tensor: ...
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor: ...


@torch.no_grad()
def elbo(model: LatentVariableModel, x: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """The variational bound E_q[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x); Kingma & Welling 2013, eq. 7.

    The KL term is exact, the expectation a mean over `draws` samples of z: an unbiased estimate of the bound.
    x: (N, D). Returns (N,), nats per image, higher is better. The prior must be N(0, I).
    """
    if draws < 1:
        raise ValueError(f"draws counts samples of z and must be at least 1, not {draws}")
    values = torch.empty(len(x), dtype=x.dtype, device=x.device)
    # Drawn for all images at once, then used in blocks: the block size cannot change the numbers' random part.
    for block, noise in _blocks(model, x, draws, generator):
        q = model.posterior(x[block])
        values[block] = model.log_likelihood(x[block], q.sample(noise)).mean(0) - kl_to_standard_normal(*q)
    return values


@torch.no_grad()
def importance_weighted_bound(model: LatentVariableModel, x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """L_k = E log (1/k) sum_i p(x, z_i) / q(z_i|x), z_i ~ q(z|x); Burda et al. 2015, eq. 8.

    L_1 is the ELBO with a sampled KL; L_k <= L_{k+1} <= log p(x) in expectation, so the value is a bound for any k.
    x: (N, D). Returns (N,), nats per image, one estimate each; higher is better.
    """
    if k < 1:
        raise ValueError(f"k counts importance samples and must be at least 1, not {k}")
    values = torch.empty(len(x), dtype=x.dtype, device=x.device)
    for block, noise in _blocks(model, x, k, generator):
        q = model.posterior(x[block])
        z = q.sample(noise)  # (k, b, Z)
        log_weight = model.log_prior(z) + model.log_likelihood(x[block], z) - q.log_prob(z)  # (k, b)
        values[block] = torch.logsumexp(log_weight, 0) - math.log(k)
    return values


def _blocks(
    model: LatentVariableModel, x: Tensor, draws: int, generator: torch.Generator
) -> Iterator[tuple[slice, Tensor]]:
    """Slices of x with their noise (draws, b, Z), at most about 2^20 decoded pixels alive at a time (4 MB each)."""
    n_latent = model.posterior(x[:1]).mean.shape[-1]
    noise = torch.randn(len(x), draws, n_latent, dtype=x.dtype, device=x.device, generator=generator)
    size = max(1, 2**20 // (draws * x.shape[1]))
    for start in range(0, len(x), size):
        block = slice(start, start + size)
        yield block, noise[block].transpose(0, 1)
