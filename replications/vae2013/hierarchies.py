"""Hierarchies of two to five stochastic layers, and why the upper ones are left unused (Sonderby et al. 2016).

The networks are in ladder.py. Layer l's divergence is E_q[log q(z_l | .) - log p(z_l | z_(l+1))], taken at one draw in
training; the sum over layers is the divergence of q from the prior, so the bound is E_q[log p(x | z_1)] minus the sum.
Axis 0 of every tensor is the model: R equal models train side by side, and no value crosses it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib import datasets
from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.elbo import bernoulli_log_likelihood
from lib.models.flat import FlatParameters
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import MinibatchOrder, Streams, generator, stream_seed
from replications.vae2013.evaluate import ACTIVE_VARIANCE, binarised
from replications.vae2013.ladder import Hierarchy, Passed

ACTIVE_KL = 0.01  # Sonderby et al. 2016: a unit is active if its divergence, mean over test images, exceeds it
N_CURVE_POINTS = 20
_ALIVE = 1 << 21  # decoded pixels alive at a time in evaluation


@dataclass(frozen=True)
class HierarchiesConfig:
    """n_models hierarchies of one kind; the paper of 2013 has one layer, so all of this is DEVIATION vae2013-D40."""

    data: str  # Sonderby et al. 2016: MNIST; the laptop preset has a part of it
    n_latent: tuple[int, ...]  # Sonderby et al. 2016: 64, 32, 16, 8, 4, the lowest first
    n_hidden: tuple[int, ...]  # Sonderby et al. 2016: 512, 256, 128, 64, 32; units of each layer's networks
    n_steps: int  # Sonderby et al. 2016, code: 2,000 epochs
    ladder: bool = False  # q shares the generative path, from the top down
    batch_norm: bool = False  # of every hidden layer
    warm_up: float = 0.0  # share of the steps in which the KL weight rises from 0 to 1; theirs 200 of 2,000 epochs
    free_bits: float = 0.0  # nats that each layer may cost for nothing; Kingma et al. 2016
    n_models: int = 3  # side by side, in place of seeds
    n_layers: int = 2  # hidden layers of each network; Sonderby et al. 2016 have two
    batch: int = 250  # Sonderby et al. 2016, code: 256, which does not divide the data
    learning_rate: float = 2e-4  # Sonderby et al. 2016, code; Adam
    n_importance: int = 50  # ours: k of the importance-weighted bound, and draws behind everything else on test images
    n_train_draws: int = 8  # ours: draws of z behind the bound on training images
    n_train_images: int = 1000  # ours: training images behind that bound


VARIANTS: Mapping[str, dict[str, Any]] = {  # also the order of bars and rows
    "plain": {}, "warm-up": {"warm_up": 0.3}, "free-bits": {"free_bits": 1.0}, "batch-norm": {"batch_norm": True},
    "batch-norm-warm-up": {"batch_norm": True, "warm_up": 0.3},
    "ladder": {"batch_norm": True, "warm_up": 0.3, "ladder": True},
}  # fmt: skip


def presets() -> dict[str, dict[str, HierarchiesConfig]]:
    """Each preset's experiments of this module, the longest first."""
    full, small, tiny = (64, 32, 16, 8, 4), (32, 16, 8, 4, 2), (8, 4, 4, 2, 2)
    sizes: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
        "smoke": (tiny, 5 * (8,), {"data": "mnist-5k", "n_steps": 6, "n_models": 2, "n_layers": 1, "batch": 20,
                                   "n_importance": 4, "n_train_draws": 2, "n_train_images": 100}),
        "laptop": (small, 5 * (64,), {"data": "mnist-5k", "n_steps": 600, "n_layers": 1, "batch": 50,
                                      "learning_rate": 3e-3}),
        "paper": (full, (512, 256, 128, 64, 32), {"data": "mnist", "n_steps": 100_000, "learning_rate": 1e-3}),
    }  # fmt: skip
    return {
        preset: {
            f"hierarchy-{depth}-{variant}": HierarchiesConfig(
                n_latent=latent[:depth], n_hidden=hidden[:depth], **size, **settings
            )
            for depth in (5, 2)
            for variant, settings in reversed(list(VARIANTS.items()))
        }
        for preset, (latent, hidden, size) in sizes.items()
    }


def objective(passed: Passed, x: Tensor, weight: Tensor, free_bits: float) -> Tensor:
    """What is maximised, summed over models, () in nats per image; the plain bound at weight 1 without free bits.

    weight: () KL weight, 0 .. 1 (warm-up). Free bits: the mean of layer l's divergence over the minibatch counts as
    `free_bits` where it is less (Kingma et al. 2016), and then the result is no bound on log p(x).
    """
    log_likelihood = bernoulli_log_likelihood(x, passed.logits).mean(1)  # (R,)
    # NOTE vae2013-N40: a group of free bits is a layer, and its divergence the mean over one model's minibatch.
    kl = torch.stack([each.sum(-1).mean(1) for each in passed.kl])  # (L, R)
    return (log_likelihood - weight * kl.clamp_min(free_bits or -math.inf).sum(0)).sum()


def kl_weight(config: HierarchiesConfig, step: int) -> float:
    """Rises linearly from 0 to 1 over the warm-up, steps counted from 0; 1 without."""
    return min(1.0, step / (config.warm_up * config.n_steps)) if config.warm_up else 1.0


class Minibatches:
    """x (R, B, D) of step t, each model with an order and a binarisation of its own: a function of (seed, t) alone."""

    def __init__(self, images: Tensor, n_models: int, batch: int, streams: Streams) -> None:
        self.images, self.streams = images, streams  # (N, D) uint8, on the device
        seeds = [stream_seed(streams.seed, "order of model", r) for r in range(n_models)]
        self.orders = [MinibatchOrder(seed, len(images), batch, streams.device) for seed in seeds]

    def __call__(self, step: int) -> Tensor:
        chosen = torch.stack([order(step) for order in self.orders])  # (R, B)
        images = self.images.index_select(0, chosen.flatten())
        return dynamic_binarisation(images, self.streams.at("binarise", step)).view(*chosen.shape, -1)


def hierarchies(config: HierarchiesConfig, workspace: Workspace) -> Outcome:
    """Train config.n_models hierarchies side by side and measure them; goes on from the workspace's checkpoint."""
    data, streams = datasets.load(config.data), workspace.streams
    images = data.split("train")[0].flatten(1).to(workspace.device)
    model = Hierarchy(config, images.shape[1], generator(streams.seed, "init")).to(workspace.device)
    flat = FlatParameters(model)
    # DEVIATION vae2013-D41: Adam with PyTorch's betas and one rate throughout.
    optimizer = with_state(torch.optim.Adam([flat.vector], config.learning_rate, fused=True))
    minibatches = Minibatches(images, config.n_models, config.batch, streams)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
    state, due = workspace.resume_(**parts), evaluation_steps(config.n_steps)
    for step in range(state["step"], config.n_steps):
        x = minibatches(step)
        passed = model(x, noise_like(x, sum(config.n_latent), 1, streams.at("latent", step)))
        weight = torch.tensor(kl_weight(config, step), device=x.device)
        flat.take_gradient(-objective(passed, x, weight, config.free_bits))
        optimizer.step()
        state["step"] = step + 1
        if step + 1 in due:
            point = curve_point(passed, x)
            state["history"].append({"step": step + 1, "kl_weight": weight.item(), **point})
            require_finite(point["elbo"], "The bound on a minibatch", step + 1, state["history"])
        workspace.keep(state, config.n_steps, **parts)
    settle_(model, images, streams)
    found = evaluate(model, data, config, streams)
    facts = {"parameters": len(flat.vector) // config.n_models, **found.per_model()}
    return Outcome(scores(found, config, data), state["history"], model.state_dict(), facts=facts)


def noise_like(x: Tensor, n_latent: int, draws: int, rng: torch.Generator) -> Tensor:
    """Standard normal (R, S B, Z) for x (R, B, D)."""
    return torch.randn(x.shape[0], draws * x.shape[1], n_latent, generator=rng, device=x.device)


def evaluation_steps(n_steps: int) -> set[int]:
    """The first step and N_CURVE_POINTS evenly to the last; fewer where there are fewer steps."""
    return {1, *(math.ceil(n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS))}


def curve_point(passed: Passed, x: Tensor) -> dict[str, float]:
    """Plain bound and divergence of each layer on the minibatch before the update, means over models; nats an image."""
    kl = [each.detach().sum(-1).mean().item() for each in passed.kl]
    with torch.no_grad():
        log_likelihood = bernoulli_log_likelihood(x, passed.logits).mean().item()
    return {"elbo": log_likelihood - sum(kl), **{f"kl_{level + 1}": value for level, value in enumerate(kl)}}


@torch.no_grad()
def settle_(model: Hierarchy, images: Tensor, streams: Streams, most: int = 10_000) -> None:
    """Set batch norm's statistics to those of up to `most` training images at once, and the model to `eval`."""
    x = dynamic_binarisation(images[:most], streams.at("settle binarise"))
    x = x.expand(model.n_models, -1, -1)
    model.train()
    model(x, noise_like(x, sum(model.widths), 1, streams.at("settle latent")))
    model.eval()


class Measures(NamedTuple):
    """Each (R, ...) float64 on the CPU, nats; layers along the last axis where there is one."""

    elbo_test: Tensor  # (R,)
    iwae_test: Tensor  # (R,)
    elbo_train: Tensor  # (R,)
    kl: Tensor  # (R, L): of a layer, mean over test images
    units_kl: Tensor  # (R, L): units of divergence > .01, Sonderby et al. 2016
    units_variance: Tensor  # (R, L): units whose posterior mean varies over data by > .01, Burda et al. 2015

    def per_model(self) -> dict[str, Any]:
        """As lists, for the run's facts."""
        return {name: values.tolist() for name, values in self._asdict().items()}


class Estimates(NamedTuple):
    elbo: Tensor  # (R, N) nats
    iwae: Tensor  # (R, N) nats
    kl: Tensor  # (R, N, sum of Z) nats, mean over draws
    means: Tensor  # (2, R, N, sum of Z): q's mean, averaged over the even and over the odd draws


@torch.no_grad()
def estimates(model: Hierarchy, x: Tensor, draws: int, rng: torch.Generator) -> Estimates:
    """The plain bound, L_k of k = draws, divergences and posterior means of x (N, D); draws must be even."""
    if draws % 2:
        raise ValueError(f"draws is {draws}: it must be even, for the posterior means are averaged over two halves")
    r, found = model.n_models, []
    size = max(1, _ALIVE // (r * draws * x.shape[1]))
    for block in x.split(size):
        shown = block.expand(r, -1, -1)  # (R, b, D)
        passed = model(shown, noise_like(shown, sum(model.widths), draws, rng))
        kl = torch.cat(passed.kl, -1).unflatten(1, (draws, -1))  # (R, S, b, Z)
        log_likelihood = bernoulli_log_likelihood(shown.unsqueeze(1), passed.logits.unflatten(1, (draws, -1)))
        weight = (log_likelihood - kl.sum(-1)).double()  # (R, S, b): log p(x, z) - log q(z | x)
        means = torch.cat(passed.means, -1).unflatten(1, (draws // 2, 2, -1)).mean(1)  # (R, 2, b, Z)
        found.append((weight.mean(1), weight.logsumexp(1) - math.log(draws), kl.mean(1), means.transpose(0, 1)))
    elbo, iwae, kl, means = zip(*found, strict=True)
    return Estimates(torch.cat(elbo, 1), torch.cat(iwae, 1), torch.cat(kl, 1), torch.cat(means, 2))


def evaluate(model: Hierarchy, data: Dataset, config: HierarchiesConfig, streams: Streams) -> Measures:
    """Final numbers of each model; the plain bound, whatever was maximised in training."""
    test = estimates(model, binarised(data, "test", streams.device), config.n_importance, streams.at("test"))
    seen = binarised(data, "train", streams.device)[: config.n_train_images]
    train = estimates(model, seen, config.n_train_draws, streams.at("train"))
    kl = test.kl.double().mean(1).split(config.n_latent, -1)  # per layer (R, Z_l)
    variance = variances(test.means).split(config.n_latent, -1)
    per_layer = (
        torch.stack([each.sum(-1) for each in kl], -1),
        torch.stack([(each > ACTIVE_KL).sum(-1) for each in kl], -1),
        torch.stack([(each > ACTIVE_VARIANCE).sum(-1) for each in variance], -1),
    )
    bounds = (test.elbo.mean(1), test.iwae.mean(1), train.elbo.mean(1))
    return Measures(*(each.double().cpu() for each in (*bounds, *per_layer)))


def variances(means: Tensor) -> Tensor:
    """Variance over images of E[z | x], from two independent estimates of it: (2, R, N, Z) -> (R, Z).

    NOTE vae2013-N41: their covariance, which the noise of the averages over draws does not raise, as it would their
    variance; for one stochastic layer it is the variance of the posterior mean (Burda et al. 2015).
    """
    a, b = (means - means.mean(2, keepdim=True)).double()
    return (a * b).sum(1) / (a.shape[1] - 1)


def scores(found: Measures, config: HierarchiesConfig, data: Dataset) -> dict[str, Score]:
    """Means over models with their standard errors."""
    protocol: dict[str, Any] = {
        "averaged_over": "models", "data": data.name, "data_sha256": data.digest,
        "observation": "dynamic-binarised, one fixed draw for evaluation", "n_latent": list(config.n_latent),
        "ladder": config.ladder, "batch_norm": config.batch_norm, "warm_up": config.warm_up,
        "free_bits": config.free_bits, "steps": config.n_steps, "batch": config.batch,
    }  # fmt: skip
    test = {**protocol, "split": "test", "draws": config.n_importance}
    train = {**protocol, "split": "train", "images": config.n_train_images, "draws": config.n_train_draws}
    of_kl = {**test, "rule": f"KL of the unit, mean over images > {ACTIVE_KL}"}
    of_variance = {**test, "rule": f"variance over images of the posterior mean > {ACTIVE_VARIANCE}"}
    levels = range(found.kl.shape[1])
    rows: dict[str, tuple[Tensor, str, bool, Mapping[str, Any]]] = {
        "elbo_test": (found.elbo_test, "nats/image", True, {**test, "estimator": "elbo, everything sampled"}),
        "iwae_test": (found.iwae_test, "nats/image", True, {**test, "estimator": "importance-weighted bound"}),
        "elbo_train": (found.elbo_train, "nats/image", True, {**train, "estimator": "elbo, everything sampled"}),
        "kl_test": (found.kl.sum(1), "nats/image", True, test),
        "kl_least": (found.kl.amin(1), "nats/image", True, {**test, "layer": "that of the smallest KL"}),
    }
    for name, counts, rule in (("kl", found.units_kl, of_kl), ("variance", found.units_variance, of_variance)):
        rows[f"units_{name}"] = (counts.sum(1), "units", True, rule)
        rows[f"units_{name}_upper"] = (counts[:, 2:].sum(1), "units", True, {**rule, "layers": "3 and above"})
        rows |= {f"units_{name}_{level + 1}": (counts[:, level], "units", True, rule) for level in levels}
    rows |= {f"kl_{level + 1}": (found.kl[:, level], "nats/image", True, test) for level in levels}
    return {name: mean_score(*row) for name, row in rows.items()}
