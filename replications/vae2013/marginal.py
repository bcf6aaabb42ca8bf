"""Figure 3's estimates of log p(x): appendix D's, and importance sampling beside it, each under its own name."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lib.likelihood import marginal_likelihood_from_posterior, posterior_draws
from lib.likelihood.hmc import MAX_FLOATS, image_blocks
from lib.likelihood.observation import GenerativeModel
from replications.vae2013.side_by_side import CurveConfig


@dataclass(frozen=True)
class MarginalConfig:
    """One algorithm and one number of training images of figure 3, n_models models side by side."""

    data: str  # section 5: MNIST; the laptop preset has a part of it, DEVIATION vae2013-D1
    algorithm: Literal["aevb", "wake-sleep", "mcem"]  # figure 3: AEVB, wake-sleep, Monte Carlo EM
    n_train: int  # figure 3: 1,000 and 50,000; DEVIATION vae2013-D30
    n_samples: int  # "training samples evaluated" by each model, figure 3's x axis; DEVIATION vae2013-D31
    n_models: int = 3  # ours: side by side, each with its own start, order and noise
    n_latent: int = 3  # section 5, figure 3
    n_hidden: int = 100  # section 5, figure 3
    batch: int = 100  # section 5, M = 100
    init_sd: float = 0.1  # section 5, N(0, 0.01) read as a variance; NOTE vae2013-N2
    learning_rates: tuple[float, ...] = (0.01, 0.02, 0.1)  # section 5, Adagrad; chosen by the first iterations
    n_trial_steps: int = 50  # "the first few iterations", not stated
    prior_precision: float = 1.0  # section 5: prior N(0, I) on all parameters; matters at 1,000 images
    n_leapfrog: int = 10  # appendix E, HMC in training
    target_acceptance: float = 0.9  # appendix E; taken for the estimator's HMC as well
    n_weight_updates: int = 5  # appendix E, with each sample
    first_step_size: float = 0.1  # ours: of HMC, before it is tuned
    n_points: int = 4  # ours: estimates along the curve, evenly on figure 3's linear axis
    n_images: int = 1000  # appendix E: first 1,000 training and first 1,000 test points; DEVIATION vae2013-D32
    n_posterior: int = 50  # appendix E: draws of z; as many before them, to fit q to
    n_estimate_leapfrog: int = 4  # appendix E, HMC in the estimator
    burn_in: int = 200  # ours, not stated: transitions before the first draw, in which the step size is tuned
    n_start: int = 32  # ours: draws of the prior among which a chain without an encoder is started
    n_importance: int = 5000  # ours: samples of the cross-check by importance sampling; DEVIATION vae2013-D32
    widening: float = 1.5  # ours: of the fitted Gaussian's variances, where it is sampled from

    def training(self) -> CurveConfig:
        """What the training shares with figure 2's: the models, their minibatches and their optimiser."""
        return CurveConfig(
            data=self.data, algorithm="wake-sleep" if self.algorithm == "wake-sleep" else "aevb",
            n_latent=self.n_latent, n_samples=self.n_samples, n_models=self.n_models, n_hidden=self.n_hidden,
            batch=self.batch, init_sd=self.init_sd, learning_rates=self.learning_rates,
            n_trial_steps=self.n_trial_steps, prior_precision=self.prior_precision,
        )  # fmt: skip


class AppendixD(NamedTuple):
    """Appendix D's estimate of log p(x), and what it rests on."""

    value: Tensor  # (N,) float64, nats per image
    first: Tensor  # (L, N, Z) the draws to which q was fitted
    acceptance: Tensor  # (N,) of HMC after the burn-in


def appendix_d(
    model: GenerativeModel, x: Tensor, config: MarginalConfig, rng: torch.Generator, initial: Tensor | None = None
) -> AppendixD:
    """log p(x) ~ -log (1/L) sum_l q(z_l) / (p(z_l) p(x|z_l)); see lib.likelihood.marginal_likelihood_from_posterior.

    x: (N, D). initial: (N, Z), where the chains start; without it `posterior_start`, which needs no encoder.
    """
    # NOTE vae2013-N32: burn-in, step size and start of the chains are not stated. The step size is tuned image by
    # image in the burn-in and then frozen; no draw is thinned out.
    start = posterior_start(model, x, config.n_start, rng) if initial is None else initial
    drawn = posterior_draws(
        model, x, draws=2 * config.n_posterior, generator=rng, n_leapfrog=config.n_estimate_leapfrog,
        burn_in=config.burn_in, step_size=config.first_step_size, target_acceptance=config.target_acceptance,
        initial=start,
    )  # fmt: skip
    samples = drawn.z[: config.n_posterior], drawn.z[config.n_posterior :]
    return AppendixD(marginal_likelihood_from_posterior(model, x, samples=samples), samples[0], drawn.acceptance)


@torch.no_grad()
def posterior_start(model: GenerativeModel, x: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """One of n draws of the prior for each image, taken in proportion to p(x|z): x (N, D) -> (N, Z).

    Sampling importance resampling (Rubin 1987): a rough posterior draw, so that chains begin in modes of some mass.
    """
    z = torch.randn(n, len(x), model.n_latent, generator=rng, device=x.device, dtype=x.dtype)
    uniform = torch.rand(n, len(x), generator=rng, device=x.device, dtype=x.dtype).clamp_min(1e-12)
    # The maximum of log weights with Gumbel noise is at draw i with probability w_i / sum w.
    blocks = image_blocks(x, n, MAX_FLOATS)
    log_weights = torch.cat([model.log_likelihood(x[block], z[:, block]) for block in blocks], 1)  # (n, N)
    chosen = (log_weights - torch.log(-torch.log(uniform))).argmax(0)  # (N,)
    return z[chosen, torch.arange(len(x), device=x.device)]


@torch.no_grad()
def fitted_importance(
    model: GenerativeModel, x: Tensor, first: Tensor, k: int, rng: torch.Generator, widening: float = 1.0
) -> Tensor:
    """log (1/k) sum_i p(x, z_i) / q(z_i), z_i ~ q, a Gaussian with mean and covariance of the draws first (L, N, Z).

    An importance-weighted bound whose q needs no encoder: below log p(x) on average, for any q that was fixed before
    the z_i are drawn. widening: factor on q's covariance, above 1 so that q's tails reach as far as the posterior's.
    x: (N, D). Returns (N,), float64, nats per image. Raises ValueError where the draws span fewer than Z dimensions.
    """
    first = first.double()
    mean, n_latent = first.mean(0), first.shape[-1]
    centred = (first - mean).transpose(0, 1)  # (N, L, Z)
    factor, failed = torch.linalg.cholesky_ex(widening * (centred.mT @ centred) / (len(first) - 1))  # (N, Z, Z)
    if bool(failed.any()):
        raise ValueError(f"the draws of image {int(failed.nonzero()[0, 0])} span fewer than {n_latent} dimensions")
    log_peak = -factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * n_latent * math.log(2 * math.pi)  # (N,)
    total = torch.full_like(log_peak, -math.inf)
    size = max(1, MAX_FLOATS // x.numel())
    for start in range(0, k, size):
        shape = min(size, k - start), *mean.shape
        noise = torch.randn(shape, generator=rng, device=x.device, dtype=torch.float64)
        z = (mean + (factor @ noise.unsqueeze(-1)).squeeze(-1)).to(x.dtype)  # (s, N, Z)
        log_q = log_peak - 0.5 * noise.square().sum(-1)
        log_joint = model.log_prior(z).double() + model.log_likelihood(x, z).double()
        total = torch.logaddexp(total, torch.logsumexp(log_joint - log_q, 0))
    return total - math.log(k)
