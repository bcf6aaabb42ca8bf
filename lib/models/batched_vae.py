"""R equal VAEs side by side, with Bernoulli or Gaussian pixels, each with one hidden tanh layer each way.

Kingma & Welling 2013, appendix C. Axis 0 is the model, and no value crosses it: see lib.models.batched.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from lib.checks import require_count
from lib.losses.elbo import bernoulli_log_likelihood
from lib.models.activations import tanh
from lib.models.batched import BatchedLinear
from lib.models.gaussian_vae import BernoulliVAE, Gaussian, standard_normal_log_prob

Observation = Literal["bernoulli", "gaussian"]
OBSERVATIONS: tuple[Observation, ...] = ("bernoulli", "gaussian")


def gaussian_pixels(outputs: Tensor, logvar_floor: float) -> Gaussian:
    """What a decoder's outputs (..., 2 D) say of D pixels: mean in (0, 1) through a sigmoid, log variance >= floor.

    Appendix C.2, with the mean squashed as section 5 has it. Without a floor the density of a pixel that hardly moves
    grows without limit.
    """
    mean, logvar = outputs.chunk(2, -1)  # (..., 2 D) -> 2 x (..., D)
    return Gaussian(torch.sigmoid(mean), logvar.clamp_min(logvar_floor))


class GaussianVAE(nn.Module):
    """p(z) = N(0, I), p(x|z) = N(sigmoid(m(z)), diag exp max(v(z), floor)), q(z|x) = N(mean(x), diag exp logvar(x)).

    BernoulliVAE with Gaussian pixels on the scale 0 .. 1, each with its own variance. v is a natural logarithm.
    """

    observation = "gaussian"

    def __init__(self, n_pixels: int, n_hidden: int, n_latent: int, logvar_floor: float) -> None:
        super().__init__()
        self.n_latent, self.logvar_floor = n_latent, logvar_floor
        self.encoder_in = nn.Linear(n_pixels, n_hidden)
        self.encoder_out = nn.Linear(n_hidden, 2 * n_latent)
        self.decoder_in = nn.Linear(n_latent, n_hidden)
        self.decoder_out = nn.Linear(n_hidden, 2 * n_pixels)

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x): (B, D) -> mean and logvar (B, Z)."""
        h = tanh(self.encoder_in(x))  # (B, D) -> (B, H)
        return Gaussian(*self.encoder_out(h).chunk(2, dim=-1))  # (B, H) -> 2 x (B, Z)

    def pixels(self, z: Tensor) -> Gaussian:
        """p(x|z): (..., Z) -> mean and logvar (..., D)."""
        return gaussian_pixels(self.decoder_out(tanh(self.decoder_in(z))), self.logvar_floor)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in nats: (..., Z) -> (...)."""
        return standard_normal_log_prob(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), a density in nats summed over pixels: x (B, D), z (..., B, Z) -> (..., B)."""
        return self.pixels(z).log_prob(x)


class BatchedVAE(nn.Module):
    """R BernoulliVAEs or GaussianVAEs; `alone(r)` is model r as one of those, for whatever asks for a single model.

    Weights start as BatchedLinear's, drawn from `generator` on the CPU. logvar_floor is read for "gaussian" alone.
    Raises ValueError for an observation that is none.
    """

    def __init__(
        self,
        n_models: int,
        n_pixels: int,
        n_hidden: int,
        n_latent: int,
        generator: torch.Generator,
        *,
        observation: Observation = "bernoulli",
        logvar_floor: float = -8.0,
    ) -> None:
        super().__init__()
        if observation not in OBSERVATIONS:
            raise ValueError(f"observation is {observation!r}: it must be one of {', '.join(map(repr, OBSERVATIONS))}")
        require_count("n_models", n_models, 1)
        self.n_models, self.n_latent, self.n_pixels, self.n_hidden = n_models, n_latent, n_pixels, n_hidden
        self.observation: Observation = observation
        self.logvar_floor = logvar_floor
        outputs = n_pixels if observation == "bernoulli" else 2 * n_pixels
        self.encoder_in = BatchedLinear(n_models, n_pixels, n_hidden, generator)
        self.encoder_out = BatchedLinear(n_models, n_hidden, 2 * n_latent, generator)
        self.decoder_in = BatchedLinear(n_models, n_latent, n_hidden, generator)
        self.decoder_out = BatchedLinear(n_models, n_hidden, outputs, generator)

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x): (R, B, D) -> mean and logvar (R, B, Z)."""
        h = tanh(self.encoder_in(x))  # (R, B, D) -> (R, B, H)
        return Gaussian(*self.encoder_out(h).chunk(2, dim=-1))  # (R, B, H) -> 2 x (R, B, Z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over pixels: x (R, B, D), z (R, B, Z) -> (R, B)."""
        outputs = self._decoded(z)
        if self.observation == "bernoulli":
            return bernoulli_log_likelihood(x, outputs)
        return gaussian_pixels(outputs, self.logvar_floor).log_prob(x)

    def simulated(self, z: Tensor, noise: Tensor) -> Tensor:
        """x ~ p(x|z): z (R, B, Z), noise (R, B, D) -> (R, B, D).

        noise: uniform on [0, 1) for Bernoulli pixels, standard normal for Gaussian ones.
        """
        outputs = self._decoded(z)
        if self.observation == "bernoulli":
            return (noise < torch.sigmoid(outputs)).to(noise.dtype)
        return gaussian_pixels(outputs, self.logvar_floor).sample(noise)

    def alone(self, r: int) -> BernoulliVAE | GaussianVAE:
        """Model r, its parameters the very memory of this one's: what is trained here is evaluated there.

        Raises IndexError where there is no model r.
        """
        if not 0 <= r < self.n_models:
            raise IndexError(f"there is no model {r} among {self.n_models}")
        with torch.device("meta"):  # no memory, no random numbers: every parameter is replaced below
            sizes = self.n_pixels, self.n_hidden, self.n_latent
            bernoulli = self.observation == "bernoulli"
            model = BernoulliVAE(*sizes) if bernoulli else GaussianVAE(*sizes, self.logvar_floor)
        layers = {
            "encoder_in": self.encoder_in, "encoder_out": self.encoder_out,
            "decoder_in": self.decoder_in, "decoder_out": self.decoder_out,
        }  # fmt: skip
        for name, layer in layers.items():
            single = getattr(model, name)
            single.weight = nn.Parameter(layer.weight.data[r].T, requires_grad=False)  # (n_out, n_in)
            single.bias = nn.Parameter(layer.bias.data[r, 0], requires_grad=False)
        return model

    def _decoded(self, z: Tensor) -> Tensor:
        return self.decoder_out(tanh(self.decoder_in(z)))  # (R, B, Z) -> (R, B, H) -> (R, B, D or 2 D)
