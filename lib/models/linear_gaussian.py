"""A linear-Gaussian latent variable model: every quantity of a VAE exists in closed form, so estimators meet truth."""

import math

import torch
from torch import Tensor

from lib.models.gaussian_vae import Gaussian, standard_normal_log_prob


class LinearGaussian:
    """p(z) = N(0, I_K), p(x|z) = N(W z + b, s2 I_D): probabilistic PCA (Tipping & Bishop 1999).

    weight: (D, K); offset: (D,); noise_variance s2 > 0. Work in float64 for checks. `posterior` returns the diagonal
    Gaussian q closest to the true posterior in KL(q || p(z|x)): same mean, variances s2 / M_ii with M = W'W + s2 I.
    """

    def __init__(self, weight: Tensor, offset: Tensor, noise_variance: float) -> None:
        if noise_variance <= 0:
            raise ValueError(f"noise_variance must be positive, not {noise_variance}")
        self.weight, self.offset, self.noise_variance = weight, offset, noise_variance
        n_latent = weight.shape[1]
        self.precision = weight.T @ weight / noise_variance + torch.eye(n_latent, dtype=weight.dtype)  # (K, K) = M / s2

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
        """log p(x) = log N(x; b, W W' + s2 I), exact, nats: (B, D) -> (B,)."""
        noise = self.noise_variance * torch.eye(len(self.offset), dtype=x.dtype)
        return torch.distributions.MultivariateNormal(self.offset, self.weight @ self.weight.T + noise).log_prob(x)

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
