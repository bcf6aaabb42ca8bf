"""A linear-Gaussian latent variable model: every quantity of a VAE exists in closed form, so estimators meet truth."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lib.losses.elbo import kl_to_standard_normal
from lib.models.gaussian_vae import Gaussian, standard_normal_log_prob


class PrincipalComponents(NamedTuple):
    """Mean and covariance of data, the covariance by its eigenvectors: all of them, largest variance first, float64."""

    mean: Tensor  # (D,)
    variances: Tensor  # (D,), the covariance's eigenvalues, divisor N
    directions: Tensor  # (D, D), orthonormal columns, each free in its sign


def principal_components(x: Tensor) -> PrincipalComponents:
    """One eigendecomposition of the covariance of x (N, D), from which models of every n_latent are made.

    Raises ValueError.
    """
    if x.ndim != 2 or not x.is_floating_point() or len(x) < 2 or x.shape[1] == 0:
        raise ValueError(f"x is {x.dtype} of shape {tuple(x.shape)}: it must be floating point (N, D), N at least 2")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x holds nan or infinity: every entry must be finite")
    mean = x.mean(0, dtype=torch.float64)
    centred = x.double() - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(x))  # rises
    return PrincipalComponents(mean, variances.flip(0).clamp_min(0), directions.flip(1))


class LinearGaussian:
    """p(z) = N(0, I_K), p(x|z) = N(W z + b, s2 I_D): probabilistic PCA (Tipping & Bishop 1999).

    weight: (D, K), K = 0 is an isotropic Gaussian; offset: (D,); noise_variance s2 > 0. Work in float64 for checks.
    `posterior` returns the diagonal Gaussian q closest to the true posterior in KL(q || p(z|x)): same mean, variances
    s2 / M_ii with M = W'W + s2 I.
    """

    observation = "gaussian"

    def __init__(self, weight: Tensor, offset: Tensor, noise_variance: float) -> None:
        if not 0 < noise_variance < math.inf:
            raise ValueError(f"noise_variance must be positive, not {noise_variance}")
        if weight.ndim != 2 or offset.shape != weight.shape[:1]:
            raise ValueError(
                f"weight has the shape {tuple(weight.shape)} and offset {tuple(offset.shape)}: they are (D, K) and (D,)"
            )
        self.weight, self.offset, self.noise_variance = weight, offset, noise_variance
        self.n_latent = weight.shape[1]
        identity = torch.eye(self.n_latent, dtype=weight.dtype, device=weight.device)
        self.precision = weight.T @ weight / noise_variance + identity  # (K, K) = M / s2

    @classmethod
    def fit(cls, x: Tensor | PrincipalComponents, n_latent: int) -> "LinearGaussian":
        """Maximum likelihood: s2 = mean of the D - K smallest variances, W = U_K (L_K - s2 I)^(1/2), b = mean, float64.

        Tipping & Bishop 1999, equations 7 and 8, with their free rotation R = I: W's columns are then orthogonal, the
        diagonal posterior is exact, and the ELBO can reach log p(x). x: data (N, D), or its principal_components where
        several n_latent are fitted. Direction i is used iff variances[i] > s2 (Lucas et al. 2019).
        Raises ValueError where n_latent is not in 0 .. D - 1, or the dropped directions hold no variance.
        """
        mean, variances, directions = x if isinstance(x, PrincipalComponents) else principal_components(x)
        if isinstance(n_latent, bool) or not isinstance(n_latent, int) or not 0 <= n_latent < len(mean):
            raise ValueError(f"n_latent is {n_latent!r}: it must be an integer between 0 and {len(mean) - 1}")
        noise_variance = variances[n_latent:].mean().item()
        if not noise_variance > len(mean) * torch.finfo(variances.dtype).eps * variances[0].item():
            raise ValueError(
                f"n_latent is {n_latent}, and the data have no variance in the other {len(mean) - n_latent} directions:"
                " the likelihood has no maximum; take fewer components, or add dequantisation noise"
            )
        return cls(directions[:, :n_latent] * (variances[:n_latent] - noise_variance).sqrt(), mean, noise_variance)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of x = W z + b + noise: (n, D). The generator lives on the weight's device."""
        noise = torch.randn(
            n, sum(self.weight.shape), dtype=self.weight.dtype, device=self.weight.device, generator=generator
        )
        z, e = noise[:, : self.n_latent], noise[:, self.n_latent :]
        return z @ self.weight.T + self.offset + math.sqrt(self.noise_variance) * e  # (n, K), (n, D) -> (n, D)

    def posterior_mean(self, x: Tensor) -> Tensor:
        """E[z|x] = M^-1 W'(x - b): (B, D) -> (B, K)."""
        return torch.linalg.solve(self.precision, (x - self.offset) @ self.weight / self.noise_variance, left=False)

    def posterior(self, x: Tensor) -> Gaussian:
        """The best diagonal q(z|x), see the class: (B, D) -> mean and logvar (B, K)."""
        mean = self.posterior_mean(x)
        return Gaussian(mean, -self.precision.diagonal().log().expand_as(mean))

    def exact_posterior(self, x: Tensor) -> torch.distributions.MultivariateNormal:
        """p(z|x) = N(M^-1 W'(x - b), s2 M^-1), batch (B,), event (K,)."""
        return torch.distributions.MultivariateNormal(self.posterior_mean(x), precision_matrix=self.precision)

    def log_marginal(self, x: Tensor) -> Tensor:
        """log p(x) = log N(x; b, W W' + s2 I), exact, nats: (B, D) -> (B,).

        By Bayes' rule at the posterior mean m, log p(x) = log p(x|m) + log p(m) - log p(m|x): a K x K problem where the
        density has a D x D covariance, and a sum of squares where Woodbury's identity subtracts large numbers.
        """
        mean = self.posterior_mean(x)
        log_peak = 0.5 * (torch.logdet(self.precision) - self.n_latent * math.log(2 * math.pi))  # log p(m|x)
        return self.log_likelihood(x, mean) + self.log_prior(mean) - log_peak

    def elbo(self, x: Tensor, q: Gaussian) -> Tensor:
        """E_q[log p(x|z)] - KL(q || p(z)), exact for any diagonal Gaussian q, nats: (B, D), 2 x (B, K) -> (B,).

        The expectation is the value at q's mean less tr(W diag(v) W') / (2 s2); Kingma & Welling 2013, equation 3.
        """
        spread = q.logvar.exp() @ self.weight.square().sum(0) / (2 * self.noise_variance)  # (B, K) -> (B,)
        return self.log_likelihood(x, q.mean) - spread - kl_to_standard_normal(*q)

    def elbo_gap(self) -> float:
        """log p(x) - ELBO for the best diagonal q = (sum log M_ii - log det M) / 2 nats, the same for every x.

        Zero iff the columns of W are orthogonal. Derivation: KL between Gaussians of equal mean.
        """
        return 0.5 * (self.precision.diagonal().log().sum() - torch.logdet(self.precision)).item()

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in nats: (..., K) -> (...)."""
        return standard_normal_log_prob(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over dimensions: x (B, D), z (..., B, K) -> (..., B)."""
        square = (x - z @ self.weight.T - self.offset).square() / self.noise_variance
        return -0.5 * (square + math.log(2 * math.pi * self.noise_variance)).sum(-1)
