"""Figure 3: Monte Carlo EM with Hamiltonian Monte Carlo (appendix E) beside AEVB and wake-sleep, log p(x) estimated.

R models side by side, axis 0 the model: see side_by_side.py. N training images, M a minibatch, Z latents.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from lib import datasets
from lib.datasets import Dataset
from lib.errors import UserError
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.likelihood import importance_weighted_bound
from lib.likelihood.hmc import Noise, StepSize, adapted, draw_noise, evaluate, hmc_transition
from lib.models.batched_vae import BatchedVAE
from lib.models.decoders import BernoulliDecoder
from lib.models.gaussian_vae import BernoulliVAE, standard_normal_log_prob
from lib.results import Score, mean_score
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.randomness import Streams
from replications.vae2013.evaluate import binarised
from replications.vae2013.marginal import AppendixD, MarginalConfig, appendix_d, fitted_importance
from replications.vae2013.side_by_side import Draws, Minibatches, adagrad, build, hand_gradients
from replications.vae2013.wake_sleep import STEPS, best_learning_rates

SPLITS = ("train", "test")


class Chains(nn.Module):
    """One chain for each training image of each model, and each model's step size: what an E step leaves behind."""

    z: Tensor  # (R, N, Z)
    step_size: Tensor  # (R, 1)
    mean_acceptance: Tensor  # (R, 1), running

    def __init__(self, config: MarginalConfig, streams: Streams) -> None:
        super().__init__()
        shape = config.n_models, config.n_train, config.n_latent
        # NOTE vae2013-N31: where a chain starts is not stated. Each image keeps its own between visits, from N(0, I)
        # on, though its pixels are drawn anew at each; a model has one step size.
        self.register_buffer("z", torch.randn(shape, generator=streams.at("chains"), device=streams.device))
        ones = torch.ones(config.n_models, 1, device=streams.device)
        self.register_buffer("step_size", config.first_step_size * ones)
        self.register_buffer("mean_acceptance", config.target_acceptance * ones.double())


class ChainMinibatches(Minibatches):
    """Minibatches that also say which images they hold."""

    def index(self, step: int) -> Tensor:
        """Places in the training set of the images of `step`, (R, M)."""
        return self._indices(step)


def e_step(
    model: BatchedVAE, chains: Chains, x: Tensor, index: Tensor, noise: Noise, config: MarginalConfig
) -> tuple[Tensor, Tensor]:
    """One HMC transition of a minibatch's chains, and the step size tuned.

    x: (R, M, D), index: (R, M) its images. Returns z (R, M, Z) and log p(x, z) in nats, (R, M), after the transition.
    """

    def log_joint(z: Tensor) -> tuple[Tensor, ...]:
        return (model.log_likelihood(x, z) + standard_normal_log_prob(z),)

    places = index.unsqueeze(-1).expand(-1, -1, model.n_latent)
    point = evaluate(log_joint, chains.z.gather(1, places))  # anew, for pixels and weights have changed
    result = hmc_transition(log_joint, point, (1.0,), chains.step_size, config.n_leapfrog, noise)
    chains.z.scatter_(1, places, result.point.z)
    step = StepSize(chains.step_size, chains.mean_acceptance)
    step = adapted(step, result.acceptance.mean(1, keepdim=True), config.target_acceptance)
    chains.step_size.copy_(step.value)
    chains.mean_acceptance.copy_(step.mean_acceptance)
    return result.point.z, result.point.log_terms[0]


def m_step(model: BatchedVAE, optimizer: torch.optim.Optimizer, x: Tensor, z: Tensor, n_updates: int) -> None:
    """n_updates gradient steps of the decoders towards log p(x|z) at one sample z (R, M, Z); encoders stay."""
    for _ in range(n_updates):
        objective = model.log_likelihood(x, z).mean(1).sum()  # whose gradient is, for each model, that of its own mean
        model.zero_grad(set_to_none=True)
        (-objective).backward()
        hand_gradients(model, optimizer)
        optimizer.step()


class Learner:
    """One algorithm at given step sizes, a model each, with everything that its steps change."""

    def __init__(self, config: MarginalConfig, images: Tensor, rates: list[float], streams: Streams) -> None:
        self.config, self.streams, self.has_encoder = config, streams, config.algorithm != "mcem"
        self.minibatches = ChainMinibatches(images, config.training(), streams)
        self.model = build(config.training(), images.shape[1], streams)
        self.optimizer = adagrad(self.model, rates, config.training(), config.n_train)
        self.parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        if not self.has_encoder:
            self.parts["chains"] = Chains(config, streams)
        self._update: Callable[..., Tensor] = CapturedStep(
            lambda *inputs: STEPS[config.algorithm](self.model, self.optimizer, Draws(*inputs)),
            training_tensors(**self.parts),
            streams.device,
        )

    def step(self, t: int) -> Tensor:
        """One minibatch of every model; (R,) nats per image: log p(x, z) for Monte Carlo EM, else the bound."""
        draws = self.minibatches(t)
        if self.has_encoder:
            return self._update(*draws)
        noise = draw_noise(draws.noise, self.streams.at("transition", t))  # of the shape of z
        chains, index = cast(Chains, self.parts["chains"]), self.minibatches.index(t)
        z, log_joint = e_step(self.model, chains, draws.x, index, noise, self.config)
        m_step(self.model, self.optimizer, draws.x, z, self.config.n_weight_updates)
        return log_joint.mean(1)

    def alone(self, r: int) -> BernoulliVAE | BernoulliDecoder:
        """Model r for the estimators; Monte Carlo EM's without the encoder, which it never trains."""
        single = cast(BernoulliVAE, self.model.alone(r))
        return single if self.has_encoder else BernoulliDecoder(single.logits, single.n_latent)


def trial_values(config: MarginalConfig, images: Tensor, streams: Streams) -> dict[str, list[float]]:
    """Step size of Adagrad -> each model's mean over the second half of a trial; see train.try_learning_rates."""
    found = {}
    for rate in config.learning_rates:
        learner = Learner(config, images, [rate] * config.n_models, streams)
        # NOTE vae2013-N33: with no bound to compare, Monte Carlo EM's step size is chosen by log p(x, z) of its draws.
        values = [learner.step(t).clone() for t in range(config.n_trial_steps)]
        found[str(rate)] = torch.stack(values[len(values) // 2 :]).mean(0).tolist()
    return found


def products(config: MarginalConfig) -> int:
    """Products of size pixels by hidden units that a training image costs, each of 2 D H operations.

    AEVB: 2 of the encoder (forward, weights), 3 of the decoder (inputs as well). Wake-sleep: 1 + 3, and 1 + 2 for the
    dream. Monte Carlo EM: 2 for each gradient in z, of which there are n_leapfrog + 1, and 3 for each weight update.
    """
    if config.algorithm == "mcem":
        return 2 * (config.n_leapfrog + 1) + 3 * config.n_weight_updates
    return {"aevb": 5, "wake-sleep": 7}[config.algorithm]


def evaluation_steps(config: MarginalConfig) -> list[int]:
    """Steps with an estimate: n_points evenly spaced, the last included; of Monte Carlo EM `equal_work_step` too."""
    n_steps = config.n_samples // config.batch
    steps = {math.ceil(n_steps * (i + 1) / config.n_points) for i in range(config.n_points)}
    return sorted(steps | {equal_work_step(config)} if config.algorithm == "mcem" else steps)


def equal_work_step(config: MarginalConfig) -> int:
    """The step after which the algorithm has done as much work as AEVB in its whole training."""
    aevb = replace(config, algorithm="aevb")
    return math.ceil(config.n_samples // config.batch * products(aevb) / products(config))


def figure_three(config: MarginalConfig, workspace: Workspace) -> Outcome:
    """Train config.n_models models with one algorithm, log p(x) estimated along the way; goes on from a checkpoint."""
    data, streams = datasets.load(config.data), workspace.streams
    images = data.split("train")[0].flatten(1)[: config.n_train].to(workspace.device)
    if not config.n_images <= config.n_train <= len(data.splits["train"]):
        raise UserError(
            f"{data.name} has {len(data.splits['train'])} training images, n_train is {config.n_train} and n_images "
            f"{config.n_images}: take n_images <= n_train <= what there are."
        )
    x = {split: binarised(data, split, workspace.device)[: config.n_images] for split in SPLITS}
    n_steps, due = config.n_samples // config.batch, evaluation_steps(config)
    trials = trial_values(config, images, streams)
    rates = best_learning_rates(trials)
    learner = Learner(config, images, rates, streams)
    state = workspace.resume_(**learner.parts)
    found: list[AppendixD] = []
    for step in range(state["step"], n_steps):
        values = learner.step(step)
        state["step"] = step + 1
        if step + 1 in due:
            require_finite(values.sum().item(), "The training objective", step + 1, state["history"])
            found = estimated(learner, x, step + 1)
            state["history"].append(_row(found, config, images.shape[1], step + 1))
        workspace.keep(state, n_steps, **learner.parts)
    found = found or estimated(learner, x, n_steps)  # killed between the last step and its record
    per_model = {**cross_checks(learner, x, found), **_along(state["history"], config)}
    trained = {name: p for name, p in learner.model.named_parameters() if learner.has_encoder or "decoder" in name}
    n_parameters = sum(p.numel() for p in trained.values()) // config.n_models
    facts: dict[str, Any] = {
        "learning_rates": rates, "trial_values": trials, "products": products(config), "parameters": n_parameters,
    }  # fmt: skip
    facts |= {name: values.tolist() for name, values in per_model.items()}
    facts["acceptance"] = [each.acceptance.mean().item() for each in found]
    if "chains" in learner.parts:
        facts |= {name: getattr(learner.parts["chains"], name).flatten().tolist()
                  for name in ("step_size", "mean_acceptance")}  # fmt: skip
    scores = {name: _score(name, values, data, config) for name, values in per_model.items()}
    return Outcome(scores, state["history"], trained, facts=facts)


def estimated(learner: Learner, x: Mapping[str, Tensor], step: int) -> list[AppendixD]:
    """Appendix D for each model, training images before test images; chains start at the encoder's mean, if any."""
    found, both = [], torch.cat([x[s] for s in SPLITS])
    for r in range(learner.config.n_models):
        single = learner.alone(r)
        with torch.no_grad():
            start = single.posterior(both).mean if isinstance(single, BernoulliVAE) else None
        found.append(appendix_d(single, both, learner.config, learner.streams.at(f"appendix d {r}", step), start))
    return found


def _row(found: list[AppendixD], config: MarginalConfig, n_pixels: int, step: int) -> dict[str, float]:
    """A row of the history: nats per image of each model and their mean, and what a model's training cost so far."""
    # NOTE vae2013-N30: how Monte Carlo EM's samples are counted is not stated. As for the others, an image counts once
    # at each visit, whatever is done with it; `gflop` counts the work, in large matrix products.
    samples = step * config.batch
    row = {"samples": float(samples), "gflop": samples * products(config) * 2e-9 * n_pixels * config.n_hidden}
    for i, split in enumerate(SPLITS):
        values = [each.value.chunk(2)[i].mean().item() for each in found]
        row[f"appendix_d_{split}"] = math.fsum(values) / len(values)
        row |= {f"appendix_d_{split}_{r}": value for r, value in enumerate(values)}
    return row


def cross_checks(learner: Learner, x: Mapping[str, Tensor], found: list[AppendixD]) -> dict[str, Tensor]:
    """Importance sampling beside appendix D at the end of training, means over images, (R,) each."""
    config, rows, both = learner.config, [], torch.cat([x[s] for s in SPLITS])
    for r, each in enumerate(found):
        single, rng = learner.alone(r), learner.streams.at(f"importance {r}")
        fitted = fitted_importance(single, both, each.first, config.n_importance, rng, config.widening)
        values = {"is_fitted": fitted, "excess": each.value - fitted}
        if isinstance(single, BernoulliVAE):
            values["is_encoder"] = importance_weighted_bound(single, both, config.n_importance, rng).double()
        rows.append({f"{name}_{s}": part.mean().item() for name, value in values.items()
                     for s, part in zip(SPLITS, value.chunk(2), strict=True)})  # fmt: skip
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}


def _along(history: list[dict[str, float]], config: MarginalConfig) -> dict[str, Tensor]:
    """Appendix D's values at the end, (R,) each, their gap, and Monte Carlo EM's at `equal_work_step`."""

    def of(row: Mapping[str, float], name: str) -> dict[str, Tensor]:
        return {
            f"{name}_{split}": torch.tensor(
                [row[f"appendix_d_{split}_{r}"] for r in range(config.n_models)], dtype=torch.float64
            )
            for split in SPLITS
        }

    found = of(history[-1], "appendix_d")
    found["gap"] = found["appendix_d_train"] - found["appendix_d_test"]
    if config.algorithm == "mcem":
        samples = equal_work_step(config) * config.batch
        found |= of(next(row for row in history if row["samples"] == samples), "equal_work")
    return found


def _score(name: str, per_model: Tensor, data: Dataset, config: MarginalConfig) -> Score:
    """The mean over models with its standard error."""
    hmc = f"{config.n_posterior} and {config.n_posterior} HMC draws, {config.n_estimate_leapfrog} leapfrog steps"
    fitted = f"importance sampling from a Gaussian fitted to posterior draws, variances times {config.widening:g}"
    estimator = {
        "is_fitted": fitted, "is_encoder": "importance sampling from the encoder",
        "excess": f"appendix D minus {fitted}",
    }.get(name.rpartition("_")[0], "appendix D")  # fmt: skip
    samples = {"importance_samples": config.n_importance} if name.startswith(("is_", "excess")) else {}
    protocol = {
        "averaged_over": "models", "algorithm": config.algorithm, "data": data.name, "data_sha256": data.digest,
        "split": "train minus test" if name == "gap" else name.rpartition("_")[2], "images": config.n_images,
        "observation": "dynamic-binarised, one fixed draw for evaluation", "estimator": estimator, "draws": hmc,
        "burn_in": config.burn_in, "target_acceptance": config.target_acceptance, "n_train": config.n_train,
        "n_samples": config.n_samples, **samples,
    }  # fmt: skip
    if name.startswith("equal_work"):
        protocol["n_samples"] = f"as much work as {config.n_samples} samples of AEVB"
    return mean_score(per_model, "nats/image", not name.startswith(("gap", "excess")), protocol)
