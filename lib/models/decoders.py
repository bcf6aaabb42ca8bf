"""Latent variable models without an encoder: any network that turns noise into images, given an observation model."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.checks import require_count, require_positive
from lib.losses.elbo import bernoulli_log_likelihood
from lib.models.gaussian_vae import standard_normal_log_prob


def normal_to_uniform(e: Tensor, half_width: float = math.sqrt(3.0)) -> Tensor:
    """half_width (2 Phi(e) - 1): standard normal noise as uniform noise on (-half_width, half_width), elementwise.

    A generator fed with uniform noise (Goodfellow et al. 2014: (-sqrt 3, sqrt 3), unit variance) has a density with
    walls, which gradients do not see. Its distribution over images is that of `generator(normal_to_uniform(e))` with
    e ~ N(0, I), exactly, and that one has no walls: give the composition to a decoder, and sample in e.
    """
    return half_width * torch.erf(e / math.sqrt(2.0))


class _Decoder(nn.Module):
    """A network (n, Z) -> (n, ...) applied under any leading axes, with the prior p(z) = N(0, I)."""

    def __init__(self, network: Callable[[Tensor], Tensor], n_latent: int) -> None:
        super().__init__()
        require_count("n_latent", n_latent, 1)
        self.n_latent = n_latent
        self.network = network

    def decode(self, z: Tensor) -> Tensor:
        """The network's output as rows: (..., Z) -> (..., D), images flattened.

        Raises ValueError where an image's output depends on its neighbours in the batch or on chance (batch
        normalisation by batch statistics, dropout): there p(x|z) is not a function of z.
        """
        if isinstance(self.network, nn.Module):
            _require_fixed(self.network)
        return self.network(z.flatten(0, -2)).flatten(1).unflatten(0, z.shape[:-1])  # (..., Z) -> (n, ...) -> (..., D)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in nats: (..., Z) -> (...)."""
        return standard_normal_log_prob(z)


class BernoulliDecoder(_Decoder):
    """p(z) = N(0, I), p(x|z) = Bernoulli(sigmoid(logits(z))) for x in {0, 1}.

    logits: (n, Z) -> (n, D) or images (n, C, H, W), a module or any function.
    """

    observation = "bernoulli"

    def __init__(self, logits: Callable[[Tensor], Tensor], n_latent: int) -> None:
        super().__init__(logits, n_latent)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) <= 0 in nats, summed over pixels: x (B, D) or (B, C, H, W), z (..., B, Z) -> (..., B)."""
        return bernoulli_log_likelihood(*_aligned(x, self.decode(z)))

    @torch.no_grad()
    def simulate(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """x ~ p(x|z): (..., Z) -> (..., D) in {0, 1}."""
        return torch.bernoulli(torch.sigmoid(self.decode(z)), generator=generator)


class GaussianDecoder(_Decoder):
    """p(z) = N(0, I), p(x|z) = N(mean(z), sigma^2 I) with a fixed sigma; Wu et al. 2017, section 2.

    It gives a generator without a density (a GAN, a GMMN) one: a mixture of small Gaussians around its samples.
    sigma is the standard deviation, on the scale of x; the variable of that name in the authors' code is the variance.
    mean: (n, Z) -> (n, D) or images (n, C, H, W), a module or any function.
    """

    observation = "gaussian"

    def __init__(self, mean: Callable[[Tensor], Tensor], n_latent: int, sigma: float | Tensor) -> None:
        super().__init__(mean, n_latent)
        if isinstance(sigma, Tensor) and sigma.numel() != 1:
            raise ValueError(f"sigma has the shape {tuple(sigma.shape)}: it is one number for all pixels")
        self.sigma = float(sigma)
        require_positive("sigma", self.sigma)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), a density in nats summed over pixels: x (B, D) or (B, C, H, W), z (..., B, Z) -> (..., B)."""
        x, mean = _aligned(x, self.decode(z))
        square = ((x - mean) / self.sigma).square().sum(-1)
        return -0.5 * square - x.shape[-1] * (math.log(self.sigma) + 0.5 * math.log(2 * math.pi))

    @torch.no_grad()
    def simulate(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """x ~ p(x|z): (..., Z) -> (..., D)."""
        mean = self.decode(z)
        return mean + self.sigma * torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)


def _aligned(x: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
    x = x.flatten(1)
    if x.shape != decoded.shape[-2:]:
        raise ValueError(f"x is {tuple(x.shape)} and the decoder gave {tuple(decoded.shape)}: (B, D) and (..., B, D)")
    return x, decoded


def _require_fixed(network: nn.Module) -> None:
    for name, module in network.named_modules():
        by_batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        by_chance = isinstance(module, nn.modules.dropout._DropoutNd)
        if (module.training and (by_batch or by_chance)) or (by_batch and module.running_mean is None):
            kind = type(module).__name__
            raise ValueError(
                f"the network's {kind} {name!r} uses the batch or chance: call .eval() on it before scoring"
            )
