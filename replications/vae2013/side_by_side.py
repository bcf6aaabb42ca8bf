"""What R models of one shape, trained side by side, observe: their minibatches, and the images they are measured on.

Model r has its own start, order of images, pixel draws and noise, as if it were a run of its own with its own seed.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.models.batched_vae import BatchedVAE, Observation
from lib.training.randomness import Streams, generator


@dataclass(frozen=True)
class CurveConfig:
    """One panel's worth of figure 2 for one algorithm: n_models models of one shape, section 5 and appendix C."""

    data: str  # section 5: MNIST, Frey Face; the laptop preset has a part of MNIST, DEVIATION vae2013-D1
    algorithm: Literal["aevb", "wake-sleep"]  # figure 2: both
    n_latent: int  # figure 2: 3, 5, 10, 20, 200 on MNIST; 2, 5, 10, 20 on Frey Face
    n_samples: int  # "training samples evaluated", figure 2's x axis; at laptop DEVIATION vae2013-D21
    observation: Observation = "bernoulli"  # section 5: Bernoulli on MNIST, Gaussian on Frey Face
    n_models: int = 3  # ours: side by side, each with its own start, order and noise
    n_hidden: int = 500  # section 5: 500 on MNIST, 200 on Frey Face
    logvar_floor: float = -8.0  # ours, for Gaussian pixels; NOTE vae2013-N22
    batch: int = 100  # section 5, M = 100
    init_sd: float = 0.1  # section 5, N(0, 0.01) read as a variance; NOTE vae2013-N2
    learning_rates: tuple[float, ...] = (0.01, 0.02, 0.1)  # section 5, Adagrad; chosen by the first iterations
    n_trial_steps: int = 50  # "the first few iterations", not stated
    prior_precision: float = 1.0  # section 5: prior N(0, I) on all parameters
    evaluations_per_decade: int = 6  # ours: every second one of the points that AevbConfig's curves have
    first_evaluation: int = 10  # ours: step of the curve's first point; figure 2's axes begin far later
    n_curve_images: int = 1000  # ours: images behind each point of the curve, train and test
    n_curve_draws: int = 2  # ours: draws of z an image behind each point of the curve
    n_elbo_draws: int = 8  # ours: draws of z an image behind each final bound


class Draws(NamedTuple):
    """All that one step of R models sees, (R, M, ...): images, and noise for what it draws itself."""

    x: Tensor  # (R, M, D)
    noise: Tensor  # (R, M, Z) standard normal, for z ~ q(z|x)
    dream_z: Tensor  # (R, M, Z) ~ p(z)
    dream_noise: Tensor  # (R, M, D), see BatchedVAE.simulated


class Minibatches:
    """The draws of step t, a function of (seed, t) alone; each model goes through the images in its own order."""

    def __init__(self, images: Tensor, config: CurveConfig, streams: Streams) -> None:
        if len(images) < config.batch:
            raise ValueError(f"{len(images)} images do not fill one minibatch of {config.batch}")
        self.images, self.config, self.streams = images, config, streams  # images: (N, D) uint8, on the device
        # NOTE vae2013-N21: Frey Face's 1,565 training frames are no multiple of 100. An epoch is one permutation, and
        # what is left over at its end waits for another one.
        self.per_epoch = len(images) // config.batch
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, step: int) -> Draws:
        config, at, device = self.config, self.streams.at, self.streams.device
        per_pixel = config.n_models, config.batch, self.images.shape[1]
        per_latent = config.n_models, config.batch, config.n_latent
        images = self.images.index_select(0, self._indices(step).flatten())  # (R M, D)
        x = observed(images, config.observation, at("pixels", step)).view(per_pixel)
        noise = torch.randn(per_latent, generator=at("latent", step), device=device)
        if config.algorithm == "aevb":
            return Draws(x, noise, noise.new_empty(0), noise.new_empty(0))
        dream_z = torch.randn(per_latent, generator=at("dream latent", step), device=device)
        draw = torch.rand if config.observation == "bernoulli" else torch.randn
        return Draws(x, noise, dream_z, draw(per_pixel, generator=at("dream pixels", step), device=device))

    def _indices(self, step: int) -> Tensor:
        """(R, M). Permuted on the CPU, so a GPU run sees the images in the order a CPU run does."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            orders = [
                torch.randperm(len(self.images), generator=generator(self.streams.seed, f"order {r}", epoch))
                for r in range(self.config.n_models)
            ]
            self._epoch, self._order = epoch, torch.stack(orders).to(self.streams.device)  # (R, N)
        return self._order[:, position * self.config.batch : (position + 1) * self.config.batch]


def observed(images: Tensor, observation: Observation, rng: torch.Generator) -> Tensor:
    """A draw of what a decoder is scored on, float32; images uint8, rng on their device.

    bernoulli: x ~ Bernoulli(value / 255), NOTE vae2013-N1. gaussian: (value + u) / 256, u uniform on [0, 1): bytes have
    no density, and the bound of a decoder that may sharpen would grow without limit; nats are per image on 0 .. 1.
    """
    # NOTE vae2013-N20: the paper does not say how Frey Face's bytes become real numbers with a density.
    if observation == "bernoulli":
        return dynamic_binarisation(images, rng)
    return (images + torch.rand(images.shape, generator=rng, device=images.device)) / 256


def evaluation_images(data: Dataset, split: str, observation: Observation, device: torch.device) -> Tensor:
    """A split's pixels drawn once, by a draw that no run's seed moves: (N, D). On MNIST those of `binarised`."""
    # DEVIATION vae2013-D20: Frey Face in time order (data/registry.yaml); a random split tests on near-copies.
    images = data.split(split)[0].flatten(1)
    return observed(images, observation, generator(0, f"evaluation {data.digest} {split}")).to(device)


def build(config: CurveConfig, n_pixels: int, streams: Streams) -> BatchedVAE:
    """R models as they start: every parameter, biases too, drawn from N(0, init_sd^2)."""
    model = BatchedVAE(
        config.n_models, n_pixels, config.n_hidden, config.n_latent, generator(streams.seed, "start"),
        observation=config.observation, logvar_floor=config.logvar_floor,
    ).to(streams.device)  # fmt: skip
    for step, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=config.init_sd, generator=streams.at("init", step))
    return model


def adagrad(model: BatchedVAE, learning_rates: list[float], config: CurveConfig, n_train: int) -> torch.optim.Optimizer:
    """Adagrad with a step size for each model, on the joint objective: the bound and the prior N(0, I) on parameters.

    Of parameter p, a group holds slice p[r], sharing its memory; `hand_gradients` gives them theirs.
    """
    decay = config.prior_precision / n_train  # per data set once, not per minibatch: see networks.adagrad
    groups = [
        {"params": [nn.Parameter(parameter.data[r]) for parameter in model.parameters()], "lr": rate}
        for r, rate in enumerate(learning_rates)
    ]
    fused = True if next(model.parameters()).device.type == "cpu" else None  # elsewhere PyTorch's own choice
    return torch.optim.Adagrad(groups, weight_decay=decay, fused=fused)


def hand_gradients(model: BatchedVAE, optimizer: torch.optim.Optimizer) -> None:
    """Slice r of each parameter's gradient to model r's group."""
    for r, group in enumerate(optimizer.param_groups):
        for single, parameter in zip(group["params"], model.parameters(), strict=True):
            single.grad = None if parameter.grad is None else parameter.grad[r]
