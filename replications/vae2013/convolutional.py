"""The same algorithm with convolutions: strided down to 7 x 7 or 8 x 8 and back up, on digits and on CIFAR-10.

Digits are Bernoulli, so their bound stands beside the MLP's. CIFAR-10's bytes get a discretised logistic (Salimans et
al. 2017; Kingma et al. 2016): a probability for each of the 256 levels, so that bits per dimension mean what they say,
and a decoder that sharpens cannot gain without limit, as a density could.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import datasets
from lib.checks import to_uint8
from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.likelihood import elbo, importance_weighted_bound
from lib.losses.elbo import bernoulli_log_likelihood, kl_to_standard_normal
from lib.metrics.quality import quality
from lib.models.flat import FlatParameters
from lib.models.gaussian_vae import Gaussian, standard_normal_log_prob
from lib.reporting.sheets import image_sheet
from lib.results import Score, mean_score
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.optimizers import with_state
from lib.training.processes import ALONE, Processes
from lib.training.randomness import MinibatchOrder, Streams
from replications.vae2013.evaluate import ACTIVE_VARIANCE, binarised

N_CURVE_POINTS, N_CURVE_IMAGES = 12, 1000  # ours
N_SHOWN = 10  # ours: test images whose reconstructions are kept
LEVELS = 256
OBSERVED = {
    "bernoulli": "dynamic-binarised, one fixed draw for evaluation",
    "logistic": "bytes, a discretised logistic for each",
}


@dataclass(frozen=True)
class ConvolutionalConfig:
    """One convolutional VAE; the paper of 2013 has none: DEVIATION vae2013-D70."""

    data: str  # ours: MNIST (at laptop a part of it) and CIFAR-10
    n_samples: int  # "training samples evaluated", as for the MLP's
    observation: Literal["bernoulli", "logistic"] = "bernoulli"  # as in the module's docstring
    n_latent: int = 20  # figure 2
    n_filters: tuple[int, int] = (12, 24)  # ours: of the layer next to the image, and of the inner one
    n_dense: int = 128  # ours: ReLU units between maps and latents, each way
    batch: int = 100  # section 5, M
    learning_rate: float = 2e-3  # ours, Adam; DEVIATION vae2013-D70
    n_elbo_draws: int = 8  # ours: draws of z behind each final bound
    n_importance: int = 50  # ours: k of the final importance-weighted bound


class ConvVAE(nn.Module):
    """p(z) = N(0, I), q(z|x) diagonal Gaussian; pixels Bernoulli, x in {0, 1}, or discretised logistic, x in 0 .. 255.

    Images are rows of pixels, (B, D), as every estimator takes them.
    """

    def __init__(
        self, shape: tuple[int, ...], n_filters: tuple[int, int], n_dense: int, n_latent: int, observation: str
    ) -> None:
        super().__init__()
        channels, side = shape[0], shape[1]
        few, many = n_filters
        self.shape, self.n_latent, self.observation = shape, n_latent, observation
        self.inner = many, side // 4, side // 4
        n_inner = math.prod(self.inner)
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, few, 4, 2, 1), nn.ReLU(), nn.Conv2d(few, many, 4, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(n_inner, n_dense), nn.ReLU(), nn.Linear(n_dense, 2 * n_latent),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(n_latent, n_dense), nn.ReLU(), nn.Linear(n_dense, n_inner), nn.ReLU(),
            nn.Unflatten(1, self.inner), nn.ConvTranspose2d(many, few, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(few, channels, 4, 2, 1), nn.Flatten(),
        )  # fmt: skip
        if observation == "logistic":
            self.log_scale = nn.Parameter(torch.full((math.prod(shape),), -2.0))  # of pixels on -1 .. 1, for each place

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x): (B, D) -> mean and logvar (B, Z)."""
        scaled = x if self.observation == "bernoulli" else x / 127.5 - 1
        return Gaussian(*self.encoder(scaled.view(-1, *self.shape)).chunk(2, -1))

    def outputs(self, z: Tensor) -> Tensor:
        """Log odds of each pixel, or means on -1 .. 1: (..., Z) -> (..., D)."""
        flat: Tensor = self.decoder(z.flatten(0, -2))
        return flat.view(*z.shape[:-1], -1)

    def means(self, z: Tensor) -> Tensor:
        """What the decoder expects, pixels 0 .. 1: (..., Z) -> (..., D)."""
        out = self.outputs(z)
        return torch.sigmoid(out) if self.observation == "bernoulli" else (out.clamp(-1, 1) + 1) / 2

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in nats: (..., Z) -> (...)."""
        return standard_normal_log_prob(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over pixels: x (B, D), z (..., B, Z) -> (..., B)."""
        if self.observation == "bernoulli":
            return bernoulli_log_likelihood(x, self.outputs(z))
        return discretised_logistic(x, self.outputs(z), self.log_scale).sum(-1)


def discretised_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P(level x) of a logistic with that mean and scale on -1 .. 1, cut into 256 bins: x 0 .. 255, broadcast.

    A bin reaches half a level to either side; the first and the last take all that lies beyond. Probabilities of the
    256 levels add up to 1. Salimans et al. 2017, eq. 2, with one component.
    """
    half, inverse = 1 / (LEVELS - 1), torch.exp(-log_scale)
    centre = x * (2 * half) - 1 - mean
    upper, lower = inverse * (centre + half), inverse * (centre - half)
    # log(sigmoid(u) - sigmoid(l)) = logsigmoid(u) + logsigmoid(-l) + log(1 - exp(l - u)), also far out in a tail.
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
    first_or_inside = torch.where(x <= 0, F.logsigmoid(upper), inside)
    return torch.where(x >= LEVELS - 1, F.logsigmoid(-lower), first_or_inside)


def conv_step(
    model: ConvVAE,
    flat: FlatParameters,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    noise: Tensor,
    decay: float,
    processes: Processes = ALONE,
) -> Tensor:
    """Algorithm 1 with estimator B; returns the minibatch's estimate of the bound, () nats per image.

    x: (M, D); noise: (M, Z); of several processes each has its share. decay: of the prior N(0, I) on the parameters,
    1 / N.
    """
    q = model.posterior(x)
    bound = (model.log_likelihood(x, q.sample(noise)) - kl_to_standard_normal(*q)).mean()
    flat.take_gradient(-bound)
    assert flat.vector.grad is not None
    processes.mean_(flat.vector.grad)
    flat.vector.grad.add_(flat.vector.data, alpha=decay)
    optimizer.step()
    return bound.detach()


def train_convolutional(config: ConvolutionalConfig, workspace: Workspace) -> Outcome:
    """Train for config.n_samples images and measure; goes on from the workspace's checkpoint."""
    data, streams, device = datasets.load(config.data), workspace.streams, workspace.device
    processes = workspace.processes
    shape = tuple(data.images.shape[1:])
    images = data.split("train")[0].flatten(1).to(device)
    with torch.random.fork_rng(devices=[]):  # PyTorch's own initialisation, drawn by the run's seed
        torch.manual_seed(streams.seed)
        model = ConvVAE(shape, config.n_filters, config.n_dense, config.n_latent, config.observation).to(device)
    flat, order = FlatParameters(model), MinibatchOrder(streams.seed, len(images), config.batch, device)
    adam = torch.optim.Adam([flat.vector], config.learning_rate, fused=True, capturable=device.type == "cuda")
    parts: dict[str, Any] = {"model": model, "optimizer": with_state(adam)}
    state, n_steps = workspace.resume_(**parts), config.n_samples // config.batch
    due = {math.ceil(n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS)}
    decay = 1 / len(images)
    update = CapturedStep(
        lambda x, noise: conv_step(model, flat, adam, x, noise, decay, processes),
        training_tensors(**parts),
        device,
        processes,
    )
    curve = observed_for_evaluation(data, "test", config, device)[:N_CURVE_IMAGES]
    for step in range(state["step"], n_steps):
        pixels = images.index_select(0, order(step))
        bernoulli = config.observation == "bernoulli"
        x = dynamic_binarisation(pixels, streams.at("binarise", step)) if bernoulli else pixels.float()
        noise = torch.randn(len(x), config.n_latent, generator=streams.at("latent", step), device=device)
        update(processes.share(x), processes.share(noise))
        state["step"] = step + 1
        if step + 1 in due:
            bound = processes.told(lambda rng: elbo(model, curve, 1, rng).mean().item(), streams.at("curve", step))
            state["history"].append({"samples": (step + 1) * config.batch, "elbo_test": bound})
            require_finite(bound, "The bound on test images", step + 1, state["history"])
        workspace.keep(state, n_steps, **parts)
    workspace.leave_scores_to_the_first()
    scores = measured(model, data, config, streams)
    facts = {"parameters": len(flat.vector)}
    return Outcome(scores, state["history"], model.state_dict(), sheet(model, data, config, streams), facts)


def observed_for_evaluation(data: Dataset, split: str, config: ConvolutionalConfig, device: torch.device) -> Tensor:
    """Digits as every other model of them is evaluated, binarised once; or bytes as floats: (N, D)."""
    if config.observation == "bernoulli":
        return binarised(data, split, device)
    return data.split(split)[0].flatten(1).float().to(device)


@torch.no_grad()
def measured(model: ConvVAE, data: Dataset, config: ConvolutionalConfig, streams: Streams) -> dict[str, Score]:
    """Bounds on whole splits, KL, active units, squared error of reconstructions beside principal components', FID."""
    bernoulli = config.observation == "bernoulli"
    protocol: dict[str, Any] = {
        "data": data.name, "data_sha256": data.digest, "split": "test", "n_samples": config.n_samples,
        "observation": OBSERVED[config.observation],
    }  # fmt: skip
    x = {split: observed_for_evaluation(data, split, config, streams.device) for split in ("train", "test")}
    bounds = {s: elbo(model, x[s], config.n_elbo_draws, streams.at(f"elbo {s}")) for s in x}
    told = {**protocol, "estimator": "elbo", "draws": config.n_elbo_draws}
    scores = {f"elbo_{s}": mean_score(values, "nats/image", True, {**told, "split": s}) for s, values in bounds.items()}
    train, test = scores["elbo_train"], scores["elbo_test"]
    scores["gap"] = Score(train.value - test.value, math.hypot(train.stderr, test.stderr), "nats/image", False, test.n,
                          {**told, "split": "train minus test"})  # fmt: skip
    weighted = importance_weighted_bound(model, x["test"], config.n_importance, streams.at("importance"))
    scores["iwae_test"] = mean_score(weighted, "nats/image", True, {
        **protocol, "estimator": "importance-weighted bound", "draws": config.n_importance})  # fmt: skip
    if not bernoulli:
        bits = -bounds["test"] / (x["test"].shape[1] * math.log(2))
        scores["bits_per_dim"] = mean_score(
            bits, "bits/dim", False, {**told, "bound": "upper bound on the true number"}
        )
    q = model.posterior(x["test"])
    scores["kl_test"] = mean_score(kl_to_standard_normal(*q), "nats/image", True, {**protocol, "estimator": "KL"})
    active = float((q.mean.var(0) > ACTIVE_VARIANCE).sum())
    rule = {**protocol, "rule": f"variance of the posterior mean > {ACTIVE_VARIANCE}"}
    scores["active_units"] = Score(active, math.nan, "units", True, len(q.mean), rule)
    scale = 1.0 if bernoulli else 255.0
    errors = (model.means(q.mean) - x["test"] / scale).square().mean(1)
    same = {**protocol, "reconstruction": "decoder mean at q's mean; pixels 0 .. 1"}
    scores["reconstruction_error"] = mean_score(errors, "squared pixels", False, same)
    scores["pca_error"] = _pca_error(x["train"] / scale, x["test"] / scale, config.n_latent, protocol)
    z = torch.randn(len(x["test"]), config.n_latent, generator=streams.at("quality"), device=streams.device)
    samples = to_uint8(torch.cat([model.means(part) for part in z.split(1000)])).view(-1, *model.shape)
    real, made = data.split("test")[0], {**protocol, "images": "decoder means"}
    return scores | quality(samples, real, data.name, seed=streams.seed, device=streams.device, protocol=made)[0]


def _pca_error(train: Tensor, test: Tensor, n: int, protocol: dict[str, Any]) -> Score:
    """Mean squared error of the best linear reconstruction from as many numbers as there are latents."""
    from sklearn.decomposition import PCA  # here, for half a second of every other start

    pca = PCA(n, random_state=0).fit(train.cpu().numpy())
    back = torch.from_numpy(pca.inverse_transform(pca.transform(test.cpu().numpy())))
    errors = (back - test.cpu()).square().mean(1)
    return mean_score(errors, "squared pixels", False, {**protocol, "reconstruction": f"{n} principal components"})


@torch.no_grad()
def sheet(model: ConvVAE, data: Dataset, config: ConvolutionalConfig, streams: Streams) -> Tensor:
    """Reconstructions of the first N_SHOWN test images, then nine rows of samples, the first drawn: uint8 (C, H, W).

    The originals are not in it: a run keeps no image of a data set.
    """
    x = observed_for_evaluation(data, "test", config, streams.device)[:N_SHOWN]
    z = torch.randn(9 * N_SHOWN, config.n_latent, generator=streams.at("samples"), device=streams.device)
    means = model.means(torch.cat([model.posterior(x).mean, z])).view(-1, *model.shape)
    return (image_sheet(means.cpu(), N_SHOWN) * 255).round().to(torch.uint8)
