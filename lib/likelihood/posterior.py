"""Draws from p(z|x) by Hamiltonian Monte Carlo, and log p(x) from such draws."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count, require_positive
from lib.likelihood.hmc import (
    MAX_FLOATS,
    LogTerms,
    StepSize,
    adapted,
    evaluate_blocks,
    image_blocks,
    require_acceptance,
    transition_blocks,
)
from lib.likelihood.observation import Criterion, GenerativeModel, require_observation


class PosteriorDraws(NamedTuple):
    z: Tensor  # (draws, N, Z)
    acceptance: Tensor  # (N,) mean acceptance probability after the burn-in
    step_size: Tensor  # (N,) as frozen after the burn-in


def posterior_draws(
    model: GenerativeModel,
    x: Tensor,
    *,
    draws: int,
    generator: torch.Generator,
    n_leapfrog: int = 4,
    burn_in: int = 200,
    thin: int = 1,
    step_size: float = 0.1,
    target_acceptance: float = 0.9,
    initial: Tensor | None = None,
    criterion: Criterion = "likelihood",
    max_floats: int = MAX_FLOATS,
) -> PosteriorDraws:
    """Draws from p(z|x) by one chain an image: the transitions after the burn-in, every `thin`-th kept.

    x: (N, D). initial: (N, Z); without it the mean of model.posterior(x) where the model has an encoder, else a draw of
    N(0, I), which needs a longer burn-in. The step size adapts towards target_acceptance in the burn-in and is frozen
    after it. The 4 leapfrog steps and 90 % are those of Kingma & Welling 2013, appendix D; burn-in and thinning are
    unstated there. Successive draws are correlated, and nothing here tells whether a chain has found every mode.
    Cost: (burn_in + draws * thin) * n_leapfrog + 1 evaluations of the decoder and its gradient. Raises ValueError.
    """
    require_observation(model, x, criterion)
    for name, value, low in (("draws", draws, 1), ("n_leapfrog", n_leapfrog, 1), ("burn_in", burn_in, 0)):
        require_count(name, value, low)
    require_count("thin", thin, 1)
    require_positive("step_size", step_size)
    require_acceptance(target_acceptance)
    start = _start(model, x, generator) if initial is None else initial.detach()
    if start.shape != (len(x), model.n_latent):
        raise ValueError(f"initial has the shape {tuple(start.shape)}: it must be ({len(x)}, {model.n_latent})")

    def joint(block: slice) -> LogTerms:
        return lambda z: (model.log_prior(z) + model.log_likelihood(x[block], z),)

    blocks = [(block, joint(block)) for block in image_blocks(x, 1, max_floats)]
    point = evaluate_blocks(blocks, start)
    acceptance = x.new_zeros(len(x), dtype=torch.float64)
    step = StepSize(x.new_full((len(x),), step_size), acceptance + target_acceptance)
    kept = []
    for i in range(-burn_in, draws * thin):
        result = transition_blocks(blocks, point, (1.0,), step.value, n_leapfrog, generator)
        point = result.point
        if i < 0:
            step = adapted(step, result.acceptance, target_acceptance)
            continue
        acceptance += result.acceptance / (draws * thin)
        if i % thin == thin - 1:
            kept.append(point.z)
    return PosteriorDraws(torch.stack(kept), acceptance, step.value)


def marginal_likelihood_from_posterior(
    model: GenerativeModel,
    x: Tensor,
    *,
    draws: int = 50,
    generator: torch.Generator | None = None,
    n_leapfrog: int = 4,
    burn_in: int = 200,
    thin: int = 1,
    step_size: float = 0.1,
    target_acceptance: float = 0.9,
    initial: Tensor | None = None,
    samples: tuple[Tensor, Tensor] | None = None,
    criterion: Criterion = "likelihood",
    max_floats: int = MAX_FLOATS,
) -> Tensor:
    """log p(x) ~ -log (1/L) sum_l q(z_l) / (p(z_l) p(x|z_l)), z_l ~ p(z|x); Kingma & Welling 2013, appendix D.

    The mean is an unbiased estimate of 1 / p(x) for any density q (reciprocal importance sampling, Gelfand & Dey 1994).
    q is a Gaussian fitted to a first set of draws and used on a second: full sample covariance from 2 (Z + 1) draws on,
    its diagonal alone below that, nothing shrunk between (towards the diagonal q would grow wider than the posterior).

    samples: (first, second), each (draws, N, Z) from p(z|x) exactly, as a check has them; without it 2 * draws by
    `posterior_draws`, which the other arguments go to and which needs the generator.
    x: (N, D). Returns (N,), float64, nats per image, higher is better. The paper calls it good for fewer than five
    dimensions. By Jensen's inequality it OVERestimates log p(x) on average, the less the more draws; chains that have
    not mixed overestimate further, and where q has twice the posterior's variance in a direction the mean has an
    infinite variance. Raises ValueError, also where the first draws span fewer than Z dimensions: a stuck chain.
    """
    require_observation(model, x, criterion)
    if samples is None:
        require_count("draws", draws, 2)
        if generator is None:
            raise ValueError("generator is None: it is needed where no samples are given")
        z = posterior_draws(
            model,
            x,
            draws=2 * draws,
            generator=generator,
            n_leapfrog=n_leapfrog,
            burn_in=burn_in,
            thin=thin,
            step_size=step_size,
            target_acceptance=target_acceptance,
            initial=initial,
            criterion=criterion,
            max_floats=max_floats,
        ).z
        samples = z[:draws], z[draws:]
    first, second = samples
    for name, z, low in (("the first set of samples", first, 2), ("the second set of samples", second, 1)):
        if z.ndim != 3 or z.shape[1:] != (len(x), model.n_latent) or len(z) < low:
            wanted = f"(draws, {len(x)}, {model.n_latent}) with at least {low} draws"
            raise ValueError(f"{name} has the shape {tuple(z.shape)}: it must be {wanted}")
    log_ratio = _fitted_log_prob(first, second)
    with torch.no_grad():
        for block in image_blocks(x, len(second), max_floats):
            z = second[:, block]
            log_ratio[:, block] -= model.log_prior(z).double() + model.log_likelihood(x[block], z).double()
    return math.log(len(second)) - torch.logsumexp(log_ratio, 0)


@torch.no_grad()
def _start(model: GenerativeModel, x: Tensor, generator: torch.Generator) -> Tensor:
    posterior = getattr(model, "posterior", None)
    if posterior is not None:
        mean: Tensor = posterior(x).mean
        return mean
    return torch.randn(len(x), model.n_latent, dtype=x.dtype, device=x.device, generator=generator)


def _fitted_log_prob(first: Tensor, second: Tensor) -> Tensor:
    """log N(second; mean and covariance of first), image by image: (L, N, Z), (M, N, Z) -> (M, N), float64."""
    first, second = first.double(), second.double()
    n_draws, _, n_latent = first.shape
    mean = first.mean(0)
    centred = (first - mean).transpose(0, 1)  # (N, L, Z)
    covariance = centred.mT @ centred / (n_draws - 1)  # (N, Z, Z)
    if n_draws < 2 * (n_latent + 1):
        covariance = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        image = int(failed.nonzero()[0, 0])
        raise ValueError(
            f"the first {n_draws} draws of image {image} span fewer than {n_latent} dimensions: its chain is stuck;"
            " raise burn_in, thin or draws, or lower step_size"
        )
    residual = (second - mean).permute(1, 2, 0)  # (N, Z, M)
    square = torch.linalg.solve_triangular(factor, residual, upper=False).square().sum(1)  # (N, M)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
    return -(0.5 * (square + n_latent * math.log(2 * math.pi)) + log_det).T  # (M, N)
