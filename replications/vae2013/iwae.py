"""Burda, Grosse & Salakhutdinov 2015 (IWAE): their one-layer architecture, trained as a VAE and by their tighter bound.

The yardstick of the likelihood table: 86.76 nats for the VAE of this shape is the most quoted number of its kind.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib import datasets
from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.likelihood import elbo, importance_weighted_bound
from lib.losses.elbo import bernoulli_log_likelihood
from lib.models.activations import tanh
from lib.models.flat import FlatParameters
from lib.models.gaussian_vae import Gaussian, standard_normal_log_prob
from lib.results import Score, mean_score
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.optimizers import with_state
from lib.training.randomness import MinibatchOrder, Streams
from replications.vae2013.evaluate import ACTIVE_VARIANCE, binarised, sample_sheet
from replications.vae2013.likelihoods import N_ELBO_DRAWS, bracket

N_CURVE_IMAGES = 1000  # ours


@dataclass(frozen=True)
class IwaeConfig:
    """Burda et al. 2015, section 5 and their code; not of the paper of 2013, so all of it is DEVIATION vae2013-D60."""

    data: str  # Burda et al. 2015: MNIST, binarised anew at each visit
    k: int  # Burda et al. 2015: importance samples of the objective; 1 is the VAE
    n_stages: int  # Burda et al. 2015: 8, of 3^(i - 1) epochs each
    n_latent: int = 50  # Burda et al. 2015, one stochastic layer
    n_hidden: int = 200  # Burda et al. 2015, two tanh layers each way
    batch: int = 20  # Burda et al. 2015
    beta1: float = 0.9  # Burda et al. 2015, text; NOTE vae2013-N60
    beta2: float = 0.999  # Burda et al. 2015
    eps: float = 1e-4  # Burda et al. 2015
    n_importance: int = 50  # ours: k of the bound on all test images
    n_few: int = 100  # ours: test images behind the bounds that cost most
    n_distributions: int = 500  # ours: of annealing; Wu et al. 2017 take 10,000
    n_chains: int = 8  # ours; Wu et al. 2017 take 16
    n_leapfrog: int = 5  # ours; Wu et al. 2017 take 10


class DeepVAE(nn.Module):
    """p(z) = N(0, I), p(x|z) Bernoulli, q(z|x) diagonal Gaussian, two tanh layers each way."""

    observation = "bernoulli"

    def __init__(self, n_pixels: int, n_hidden: int, n_latent: int) -> None:
        super().__init__()
        self.n_latent = n_latent
        self.encoder_1, self.encoder_2 = nn.Linear(n_pixels, n_hidden), nn.Linear(n_hidden, n_hidden)
        self.encoder_out = nn.Linear(n_hidden, 2 * n_latent)
        self.decoder_1, self.decoder_2 = nn.Linear(n_latent, n_hidden), nn.Linear(n_hidden, n_hidden)
        self.decoder_out = nn.Linear(n_hidden, n_pixels)

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x): (B, D) -> mean and logvar (B, Z)."""
        return Gaussian(*self.encoder_out(tanh(self.encoder_2(tanh(self.encoder_1(x))))).chunk(2, dim=-1))

    def logits(self, z: Tensor) -> Tensor:
        """Log odds of each pixel being 1: (..., Z) -> (..., D)."""
        return self.decoder_out(tanh(self.decoder_2(tanh(self.decoder_1(z)))))

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) in nats: (..., Z) -> (...)."""
        return standard_normal_log_prob(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over pixels: x (B, D), z (..., B, Z) -> (..., B)."""
        return bernoulli_log_likelihood(x, self.logits(z))


def build(config: IwaeConfig, n_pixels: int, streams: Streams) -> DeepVAE:
    """Weights uniform on +- sqrt(6 / (n_in + n_out)) (Glorot & Bengio 2010), biases 0."""
    model = DeepVAE(n_pixels, config.n_hidden, config.n_latent).to(streams.device)
    for step, parameter in enumerate(model.parameters()):
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter, generator=streams.at("init", step))
        else:
            nn.init.zeros_(parameter)
    return model


def iwae_step(
    model: DeepVAE, flat: FlatParameters, optimizer: torch.optim.Optimizer, x: Tensor, noise: Tensor
) -> Tensor:
    """One update towards L_k = E log (1/k) sum_i p(x, z_i) / q(z_i|x), eq. 8; returns its minibatch estimate, () nats.

    x: (M, D); noise: (k, M, Z) standard normal. k = 1 is the VAE with estimator A. `flat` holds the model's parameters.
    """
    q = model.posterior(x)
    z = q.sample(noise)  # (k, M, Z)
    log_weights = model.log_likelihood(x, z) + model.log_prior(z) - q.log_prob(z)  # (k, M)
    bound = (torch.logsumexp(log_weights, 0) - math.log(len(noise))).mean()
    flat.take_gradient(-bound)
    optimizer.step()
    return bound.detach()


def stages(config: IwaeConfig, n_train: int) -> list[tuple[int, float]]:
    """(last step, step size) of each stage i: 3^(i - 1) epochs at 1e-4 x 10^(1 - (i - 1) / 7), rounded to a decimal."""
    sizes = [1e-4 * round(10 ** (1 - i / 7), 1) for i in range(config.n_stages)]
    steps = itertools.accumulate(3**i * (n_train // config.batch) for i in range(config.n_stages))
    return list(zip(steps, sizes, strict=True))


def train_iwae(config: IwaeConfig, workspace: Workspace) -> Outcome:
    """Train through all stages and measure; goes on from the workspace's checkpoint."""
    data, streams = datasets.load(config.data), workspace.streams
    images = data.split("train")[0].flatten(1).to(workspace.device)
    test = binarised(data, "test", workspace.device)
    order = MinibatchOrder(streams.seed, len(images), config.batch, workspace.device)
    model, plan = build(config, images.shape[1], streams), stages(config, len(images))
    flat, n_steps = FlatParameters(model), plan[-1][0]
    betas, on_cuda = (config.beta1, config.beta2), workspace.device.type == "cuda"
    adam = torch.optim.Adam([flat.vector], plan[0][1], betas, config.eps, fused=True, capturable=on_cuda)
    optimizer = with_state(adam)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
    state = workspace.resume_(**parts)
    moving = training_tensors(**parts)
    update = CapturedStep(lambda x, noise: iwae_step(model, flat, optimizer, x, noise), moving, workspace.device)
    for step in range(state["step"], n_steps):
        size = next(size for end, size in plan if step < end)
        if optimizer.param_groups[0]["lr"] != size:
            optimizer.param_groups[0]["lr"] = size
            update.renew()
        x = dynamic_binarisation(images.index_select(0, order(step)), streams.at("binarise", step))
        shape = config.k, config.batch, config.n_latent
        update(x, torch.randn(shape, generator=streams.at("latent", step), device=workspace.device))
        state["step"] = step + 1
        if step + 1 in dict(plan):
            bound = elbo(model, test[:N_CURVE_IMAGES], 2, streams.at("curve", step)).mean().item()
            state["history"].append({"samples": (step + 1) * config.batch, "elbo_test": bound})
            require_finite(bound, "The bound on test images", step + 1, state["history"])
        workspace.keep(state, n_steps, **parts)
    scores = measured(model, test, config, data, streams)
    facts = {"parameters": len(flat.vector), "epochs": sum(3**i for i in range(config.n_stages))}
    return Outcome(scores, state["history"], model.state_dict(), sample_sheet(model, streams), facts)


def measured(model: DeepVAE, test: Tensor, config: IwaeConfig, data: Dataset, streams: Streams) -> dict[str, Score]:
    """Bounds on all binary test images (N, D) and on the first n_few, active units (Burda et al. 2015)."""
    protocol = {
        "data": data.name, "data_sha256": data.digest, "split": "test", "objective": f"L_{config.k}",
        "observation": "dynamic-binarised, one fixed draw for evaluation",
    }  # fmt: skip
    with torch.no_grad():
        units = (model.posterior(test).mean.var(0) > ACTIVE_VARIANCE).sum().item()
    bound = elbo(model, test, N_ELBO_DRAWS, streams.at("elbo"))
    weighted = importance_weighted_bound(model, test, config.n_importance, streams.at("importance"))
    rule = {**protocol, "rule": f"variance of the posterior mean > {ACTIVE_VARIANCE}"}
    scores = {
        "elbo_test": mean_score(bound, "nats/image", True, {**protocol, "estimator": "elbo", "draws": N_ELBO_DRAWS}),
        "iwae_test": mean_score(weighted, "nats/image", True, {
            **protocol, "estimator": "importance-weighted bound", "draws": config.n_importance}),
        "active_units": Score(float(units), math.nan, "units", True, len(test), rule),
    }  # fmt: skip
    return scores | bracket(model, test[: config.n_few], config, protocol, streams)
