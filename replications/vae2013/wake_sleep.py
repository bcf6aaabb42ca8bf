"""Figure 2: wake-sleep (Hinton et al. 1995) and AEVB on R models side by side, and the same bound measured for both.

x images, z latents, p the decoder with its prior, q the recognition model q(z|x), M images a minibatch, L = 1.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lib import datasets
from lib.datasets import Dataset
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.likelihood import elbo
from lib.losses.elbo import kl_to_standard_normal
from lib.models.batched_vae import BatchedVAE, GaussianVAE
from lib.results import Score, mean_score
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.randomness import Streams
from replications.vae2013.evaluate import ACTIVE_VARIANCE, sample_sheet
from replications.vae2013.frames import NEAR, near_in_time
from replications.vae2013.side_by_side import (
    CurveConfig,
    Draws,
    Minibatches,
    adagrad,
    build,
    evaluation_images,
    hand_gradients,
)

SPLITS = ("train", "test")
OBSERVED = {
    "bernoulli": "dynamic-binarised, one fixed draw for evaluation",
    "gaussian": "(value + uniform noise) / 256, a density on the unit cube, one fixed draw for evaluation",
}


def aevb_step(model: BatchedVAE, optimizer: torch.optim.Optimizer, draws: Draws) -> Tensor:
    """Algorithm 1 with estimator B, for R models; returns each one's bound on its minibatch, (R,) nats per image."""
    q = model.posterior(draws.x)
    z = q.sample(draws.noise)  # (R, M, Z)
    bound = (model.log_likelihood(draws.x, z) - kl_to_standard_normal(*q)).mean(1)  # (R,)
    _update(model, optimizer, bound)
    return bound.detach()


def wake_sleep_step(model: BatchedVAE, optimizer: torch.optim.Optimizer, draws: Draws) -> Tensor:
    """One wake and one sleep phase of R models; returns each one's bound before it, (R,) nats per image.

    Wake: the decoder towards log p(x, z), z ~ q(z|x), x data. Sleep: the recognition model towards log q(z|x),
    (z, x) ~ p. No gradient passes through a draw, so the first moves the decoder alone and the second the encoder.
    """
    # NOTE vae2013-N23: the paper does not say how the phases take turns. Here one iteration is one minibatch of each,
    # both from the parameters before it, and a "sample evaluated" is an image of the wake phase; dreams do not count.
    with torch.no_grad():
        q = model.posterior(draws.x)
        z = q.sample(draws.noise)  # (R, M, Z)
        dream = model.simulated(draws.dream_z, draws.dream_noise)  # (R, M, D)
    wake = model.log_likelihood(draws.x, z).mean(1)  # (R,); log p(z) has no parameters
    sleep = model.posterior(dream).log_prob(draws.dream_z).mean(1)  # (R,)
    _update(model, optimizer, wake + sleep)
    return wake.detach() - kl_to_standard_normal(*q).mean(1)


def _update(model: BatchedVAE, optimizer: torch.optim.Optimizer, objectives: Tensor) -> None:
    """One ascent step; objectives (R,), whose sum has for model r the gradient that it would have alone."""
    model.zero_grad(set_to_none=True)
    (-objectives.sum()).backward()
    hand_gradients(model, optimizer)
    optimizer.step()


STEPS: Mapping[str, Callable[[BatchedVAE, torch.optim.Optimizer, Draws], Tensor]] = {
    "aevb": aevb_step,
    "wake-sleep": wake_sleep_step,
}


def learning_curves(config: CurveConfig, workspace: Workspace) -> Outcome:
    """Choose each model's step size, train all for config.n_samples images; goes on from the workspace's checkpoint."""
    data, streams = datasets.load(config.data), workspace.streams
    images = data.split("train")[0].flatten(1).to(workspace.device)
    minibatches = Minibatches(images, config, streams)
    curve = {s: evaluation_images(data, s, config.observation, workspace.device) for s in SPLITS}
    n_steps, due = config.n_samples // config.batch, evaluation_steps(config)

    # Chosen before the checkpoint is put back: the trials are cheap, and repeating them changes no bit.
    trials = trial_bounds(minibatches)
    rates = best_learning_rates(trials)
    model = build(config, images.shape[1], streams)
    optimizer = adagrad(model, rates, config, len(images))
    state: dict[str, Any] = workspace.resume_(model=model, optimizer=optimizer)
    moving = training_tensors(model=model, optimizer=optimizer)
    step_of = STEPS[config.algorithm]
    update = CapturedStep(lambda *inputs: step_of(model, optimizer, Draws(*inputs)), moving, workspace.device)
    for step in range(state["step"], n_steps):
        update(*minibatches(step))
        state["step"] = step + 1
        if step + 1 in due:
            point = curve_point(model, curve, config, streams, step + 1)
            state["history"].append({"samples": (step + 1) * config.batch, **point})
            for split in SPLITS:
                require_finite(point[f"elbo_{split}"], f"The bound on the {split} images", step + 1, state["history"])
        workspace.keep(state, n_steps, model=model, optimizer=optimizer)
    per_model = measures(model, curve, config, streams)
    scores = {name: _score(name, values, data, config) for name, values in per_model.items()}
    n_parameters = sum(p.numel() for p in model.parameters()) // config.n_models
    facts = {"learning_rates": rates, "trial_bounds": trials, "parameters": n_parameters}
    facts |= {name: values.tolist() for name, values in per_model.items()}
    height, width = data.images.shape[2:]
    sheet = sample_sheet(model.alone(0), streams, (height, width))
    return Outcome(scores, state["history"], model.state_dict(), sheet, facts)


def trial_bounds(minibatches: Minibatches) -> dict[str, list[float]]:
    """Step size -> each model's mean training bound over the second half of a trial; see train.try_learning_rates."""
    config, images, found = minibatches.config, minibatches.images, {}
    for rate in config.learning_rates:
        model = build(config, images.shape[1], minibatches.streams)
        optimizer = adagrad(model, [rate] * config.n_models, config, len(images))
        bounds = [STEPS[config.algorithm](model, optimizer, minibatches(step)) for step in range(config.n_trial_steps)]
        found[str(rate)] = torch.stack(bounds[len(bounds) // 2 :]).mean(0).tolist()
    return found


def best_learning_rates(trials: Mapping[str, list[float]]) -> list[float]:
    """Each model's step size of the highest mean bound; one whose trial left the numbers (nan) counts as the worst."""
    n_models = len(next(iter(trials.values())))
    return [
        float(max(trials, key=lambda rate: (not math.isnan(trials[rate][r]), trials[rate][r]))) for r in range(n_models)
    ]


def evaluation_steps(config: CurveConfig) -> set[int]:
    """Steps at which the curve gets a point: evenly spaced on the log axis of figure 2, and the last one."""
    n_steps, n, step = config.n_samples // config.batch, 0, 1
    steps = {n_steps}
    while step < n_steps:
        if step >= config.first_evaluation:
            steps.add(step)
        n += 1
        step = round(10 ** (n / config.evaluations_per_decade))
    return steps


def curve_point(
    model: BatchedVAE, images: Mapping[str, Tensor], config: CurveConfig, streams: Streams, step: int
) -> dict[str, float]:
    """One point of figure 2, nats per image: each model's mean bound over the first images, and their mean."""
    point: dict[str, float] = {}
    for split in SPLITS:
        x = images[split][: config.n_curve_images]
        bounds = [
            elbo(model.alone(r), x, config.n_curve_draws, streams.at(f"curve {split} {r}", step)).mean().item()
            for r in range(config.n_models)
        ]
        point[f"elbo_{split}"] = math.fsum(bounds) / len(bounds)
        point |= {f"elbo_{split}_{r}": bound for r, bound in enumerate(bounds)}
    return point


UNITS = {  # of each measure, and whether more is better
    "elbo_train": ("nats/image", True), "elbo_test": ("nats/image", True), "gap": ("nats/image", False),
    "kl_test": ("nats/image", True), "active_units": ("units", True), "at_floor": ("share", False),
    "near_test": ("share", True),
}  # fmt: skip


@torch.no_grad()
def measures(
    model: BatchedVAE, images: Mapping[str, Tensor], config: CurveConfig, streams: Streams
) -> dict[str, Tensor]:
    """Final numbers on whole splits, (R,) each: bounds, their gap, KL term, active units.

    For Gaussian pixels, which are those of a film, also near_test: see frames.near_in_time, of q's means; and
    at_floor: the share of log variances at the declared floor, test pixels, z = q's mean.
    """
    rows = []
    for r in range(config.n_models):
        single, row = model.alone(r), {}
        for split in SPLITS:
            bounds = elbo(single, images[split], config.n_elbo_draws, streams.at(f"elbo {split} {r}"))
            row[f"elbo_{split}"] = bounds.double().mean().item()
        row["gap"] = row["elbo_train"] - row["elbo_test"]
        q = single.posterior(images["test"])
        row["kl_test"] = kl_to_standard_normal(*q).double().mean().item()
        row["active_units"] = float((q.mean.var(0) > ACTIVE_VARIANCE).sum())
        if isinstance(single, GaussianVAE):
            row["near_test"] = near_in_time(q.mean).double().mean().item()
            row["at_floor"] = (single.pixels(q.mean).logvar <= config.logvar_floor).double().mean().item()
        rows.append(row)
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}


def _score(name: str, per_model: Tensor, data: Dataset, config: CurveConfig) -> Score:
    """The mean over models with its standard error."""
    protocol: dict[str, Any] = {
        "averaged_over": "models", "algorithm": config.algorithm, "data": data.name, "data_sha256": data.digest,
        "split": "train minus test" if name == "gap" else name.rpartition("_")[2], "estimator": "elbo",
        "observation": OBSERVED[config.observation], "draws": config.n_elbo_draws, "n_samples": config.n_samples,
    }  # fmt: skip
    if name in ("kl_test", "active_units", "at_floor", "near_test"):
        protocol |= {"split": "test", "estimator": name, "draws": 0}
    if name == "near_test":
        protocol["rule"] = f"the nearest other posterior mean is that of a frame at most {NEAR} away"
    if name == "active_units":
        protocol["rule"] = f"variance of the posterior mean > {ACTIVE_VARIANCE}"
    if config.observation == "gaussian":
        protocol["logvar_floor"] = config.logvar_floor
    return mean_score(per_model, *UNITS[name], protocol)
