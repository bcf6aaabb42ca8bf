"""Algorithm 1 of Kingma & Welling 2013 (AEVB, minibatch version) with estimator B, eq. 7 and 10.

x images, z latents, q the recognition model q(z|x), M = config.batch images a minibatch, L = config.n_draws.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.execution.workspace import Workspace, require_finite
from lib.losses.elbo import bernoulli_log_likelihood, kl_to_standard_normal
from lib.models.gaussian_vae import BernoulliVAE
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.randomness import MinibatchOrder, Streams
from replications.vae2013.config import AevbConfig
from replications.vae2013.evaluate import curve_images, curve_point
from replications.vae2013.networks import adagrad, build


def aevb_step(model: BernoulliVAE, optimizer: torch.optim.Optimizer, x: Tensor, noise: Tensor) -> Tensor:
    """One update of all parameters; returns the minibatch's estimate of the bound, () nats per image.

    x: (M, D) in {0, 1}; noise: (L, M, Z) standard normal. The result stays on the device.
    """
    q = model.posterior(x)
    z = q.sample(noise)  # (L, M, Z): reparametrised, section 2.4
    log_likelihood = bernoulli_log_likelihood(x, model.logits(z)).mean(0)  # (M,)
    elbo = (log_likelihood - kl_to_standard_normal(*q)).mean()
    optimizer.zero_grad(set_to_none=True)
    (-elbo).backward()
    optimizer.step()
    return elbo.detach()


class Minibatches:
    """x and noise of step t, a function of (seed, t) alone."""

    def __init__(self, images: Tensor, config: AevbConfig, streams: Streams) -> None:
        if config.observation != "dynamic-binarised":
            raise ValueError(f"only dynamic binarisation is implemented here, not {config.observation!r}")
        self.images, self.config, self.streams = images, config, streams  # images: (N, D) uint8, on the device
        self.order = MinibatchOrder(streams.seed, len(images), config.batch, streams.device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        # NOTE vae2013-N1: the paper does not say how grey pixels become Bernoulli observations. Each time an image
        # is seen its pixels are drawn anew with probability value / 255 (Burda et al. 2015).
        images = self.images.index_select(0, self.order(step))  # (M, D); indexing with [] is ten times slower here
        x = dynamic_binarisation(images, self.streams.at("binarise", step))
        shape = (self.config.n_draws, self.config.batch, self.config.n_latent)
        return x, torch.randn(shape, generator=self.streams.at("latent", step), device=self.streams.device)


class Training(NamedTuple):
    model: BernoulliVAE
    learning_rate: float
    trial_bounds: dict[str, float]  # learning rate -> mean bound over its trial
    history: list[dict[str, float]]


def train(config: AevbConfig, data: Dataset, workspace: Workspace) -> Training:
    """Choose the learning rate, then train for config.n_samples images; goes on from the workspace's checkpoint."""
    images = data.split("train")[0].flatten(1).to(workspace.device)
    minibatches = Minibatches(images, config, workspace.streams)
    curve = curve_images(data, config, workspace.device)
    n_steps, due = config.n_samples // config.batch, evaluation_steps(config)

    # Chosen before the checkpoint is put back: the trials are cheap, and repeating them changes no bit.
    trial_bounds = try_learning_rates(minibatches)
    learning_rate = best_learning_rate(trial_bounds)
    model = build(config, images.shape[1], workspace.streams)
    optimizer = adagrad(model, learning_rate, config, len(images))
    state: dict[str, Any] = workspace.resume_(model=model, optimizer=optimizer)
    moving = training_tensors(model=model, optimizer=optimizer)
    update = CapturedStep(lambda x, noise: aevb_step(model, optimizer, x, noise), moving, workspace.device)
    for step in range(state["step"], n_steps):
        update(*minibatches(step))
        state["step"] = step + 1
        if step + 1 in due:
            point = curve_point(model, curve, workspace.streams, step + 1)
            state["history"].append({"samples": (step + 1) * config.batch, **point})
            for split in ("train", "test"):
                require_finite(point[f"elbo_{split}"], f"The bound on the {split} images", step + 1, state["history"])
        workspace.keep(state, n_steps, model=model, optimizer=optimizer)
    return Training(model, learning_rate, trial_bounds, state["history"])


def try_learning_rates(minibatches: Minibatches) -> dict[str, float]:
    """Mean training bound in the first iterations at each step size: by these section 5 chooses the step size."""
    config, images, bounds = minibatches.config, minibatches.images, {}
    for rate in config.learning_rates:
        model = build(config, images.shape[1], minibatches.streams)
        optimizer = adagrad(model, rate, config, len(images))
        elbos = [aevb_step(model, optimizer, *minibatches(step)) for step in range(config.n_trial_steps)]
        # NOTE vae2013-N3: "the first few iterations" are ours to choose. The second half of them counts, for in the
        # first the largest step size is still recovering from the start.
        bounds[str(rate)] = torch.stack(elbos[len(elbos) // 2 :]).mean().item()
    return bounds


def best_learning_rate(trial_bounds: dict[str, float]) -> float:
    """The step size of the highest mean bound; one whose trial left the numbers (nan) counts as the worst."""
    return float(max(trial_bounds, key=lambda rate: (not math.isnan(trial_bounds[rate]), trial_bounds[rate])))


def evaluation_steps(config: AevbConfig) -> set[int]:
    """Steps at which the curve gets a point: evenly spaced on the log axis of figure 2, first and last included."""
    n_steps, n, step = config.n_samples // config.batch, 0, 1
    steps = {n_steps}
    while step < n_steps:
        steps.add(step)
        n += 1
        step = round(10 ** (n / config.evaluations_per_decade))
    return steps
