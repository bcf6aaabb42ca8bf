"""A VAE with a diagonal Gaussian posterior and a Bernoulli decoder, each with one hidden tanh layer.

Kingma & Welling 2013, appendix C.1 and C.2.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.losses.elbo import bernoulli_log_likelihood
from lib.models.activations import tanh


class Gaussian(NamedTuple):
    """A diagonal Gaussian: mean and natural log of the variance, each (B, Z)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """z = mean + sd * noise, section 2.4's location-scale form. noise: (..., B, Z) standard normal."""
        return torch.addcmul(self.mean, torch.exp(0.5 * self.logvar), noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; mean, diag(exp logvar)) in nats, summed over the last axis: (..., B, Z) -> (..., B)."""
        square = (z - self.mean).square() * torch.exp(-self.logvar)
        return -0.5 * (square + self.logvar + math.log(2 * math.pi)).sum(-1)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, summed over the last axis: (..., Z) -> (...)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


class BernoulliVAE(nn.Module):
    """p(z) = N(0, I), p(x|z) = Bernoulli(decoder(z)), q(z|x) = N(mean(x), diag exp logvar(x)).

    The paper's W4, b4 (mean) and W5, b5 (log variance) are the two halves of `encoder_out`: one product, not two.
    """

    observation = "bernoulli"

    def __init__(self, n_pixels: int, n_hidden: int, n_latent: int) -> None:
        super().__init__()
        self.n_latent = n_latent
        self.encoder_in = nn.Linear(n_pixels, n_hidden)
        self.encoder_out = nn.Linear(n_hidden, 2 * n_latent)
        self.decoder_in = nn.Linear(n_latent, n_hidden)
        self.decoder_out = nn.Linear(n_hidden, n_pixels)

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x): (B, D) -> mean and logvar (B, Z)."""
        h = tanh(self.encoder_in(x))  # (B, D) -> (B, H)
        return Gaussian(*self.encoder_out(h).chunk(2, dim=-1))  # (B, H) -> 2 x (B, Z)

    def logits(self, z: Tensor) -> Tensor:
        """Log odds of each pixel being 1: (..., Z) -> (..., D)."""
        return self.decoder_out(tanh(self.decoder_in(z)))  # (..., Z) -> (..., H) -> (..., D)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in nats: (..., Z) -> (...)."""
        return standard_normal_log_prob(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over pixels: x (B, D), z (..., B, Z) -> (..., B)."""
        return bernoulli_log_likelihood(x, self.logits(z))
