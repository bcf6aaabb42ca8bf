"""Gradients by sampling: reparametrised against score-function ones, and estimators A and B (equations 6 and 7).

Where the answer is known in closed form it stands beside the measurement; where it is not, a small VAE is trained on
digits and the gradient of its encoder is estimated again and again. M images a minibatch, L draws of z an image.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.elbo import bernoulli_log_likelihood, kl_to_standard_normal
from lib.models.activations import tanh
from lib.models.gaussian_vae import BernoulliVAE, Gaussian
from lib.results import Score, mean_score
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.randomness import Streams
from replications.vae2013.config import AevbConfig
from replications.vae2013.networks import adagrad, build
from replications.vae2013.recipes import recipe_checks
from replications.vae2013.train import Minibatches, aevb_step

ENCODER = ("encoder_in.weight", "encoder_in.bias", "encoder_out.weight", "encoder_out.bias")
MAX_DECODED = 10_000  # images decoded at a time: 30 MB of pixels


@dataclass(frozen=True)
class ReparametrisationConfig:
    """Section 2.4 and its rival, on laws whose answers are known; DEVIATION vae2013-D50."""

    n_recipes: int = 100_000  # ours: draws of each recipe
    n_draws: int = 200_000  # ours: gradient estimates behind each mean and variance
    dimensions: tuple[int, ...] = (1, 10, 100)  # lecture topic 7
    step_mean: float = 0.5  # ours: of N(mean, 1) under the step function
    temperatures: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)  # ours: of the sigmoid that stands in for the step


@dataclass(frozen=True)
class GradientsConfig:
    """The encoder's gradient on a small VAE, before and after its training; DEVIATION vae2013-D51."""

    data: str  # section 5: MNIST; the laptop preset has a part of it
    n_hidden: int = 50  # ours; section 5 has 500
    n_latent: int = 10  # figure 2
    n_samples: int = 100_000  # ours: images of the training
    learning_rate: float = 0.02  # section 5, the middle of its three
    images: tuple[int, ...] = (1, 10, 100)  # M, lecture topic 7
    draws: tuple[int, ...] = (1, 10)  # L, lecture topic 7
    n_repeats: tuple[int, ...] = (100, 60, 20)  # ours: minibatches of each M, each with two sets of noise
    n_bounds: int = 20  # ours: bounds of each of the first n_images images, behind the variance of the bound itself
    n_images: int = 500  # ours

    @property
    def training(self) -> AevbConfig:
        """Everything else as the paper's models have it."""
        return AevbConfig(self.data, self.n_latent, self.n_samples, n_hidden=self.n_hidden)


# --- closed forms ------------------------------------------------------------------------------------------------


def true_variances(d: int) -> dict[str, float]:
    """Of one component of d/d mean E|z|^2 (true value 2), z ~ N((1 .. 1), I_d), one draw an estimate.

    Pathwise 2 z_1; score function |z|^2 (z_1 - 1); and the latter with the baseline E|z|^2 = 2 d. From the moments of
    a Gaussian: E z^4 e^2 = 34 and E z^2 e^2 = 4 for z = 1 + e, and E R = 2 k, Var R = 6 k of the k = d - 1 others.
    """
    k = d - 1
    return {"reparametrised": 4.0, "score": 30.0 + 22 * k + 4 * k**2, "baseline": 18.0 + 6 * k}


def square_gradients(d: int, n: int, rng: torch.Generator) -> dict[str, Tensor]:
    """n estimates of each kind in float64, (n,); from the same draws."""
    e = torch.randn(n, d, dtype=torch.float64, generator=rng)
    square = (1 + e).square().sum(1)  # (n, d) -> (n,), |z|^2
    score = e[:, 0]  # (z_1 - mean_1) / sd^2, the derivative of log N(z; mean, I)
    return {"reparametrised": 2 * (1 + score), "score": square * score, "baseline": (square - 2 * d) * score}


def _squares(config: ReparametrisationConfig, streams: Streams) -> tuple[dict[str, Score], list[dict[str, Any]]]:
    scores: dict[str, Score] = {}
    rows: list[dict[str, Any]] = []
    for d in config.dimensions:
        parts = [
            square_gradients(d, min(20_000, config.n_draws - start), streams.at(f"squares {d}", start))
            for start in range(0, config.n_draws, 20_000)
        ]
        for name, truth in true_variances(d).items():
            values = torch.cat([part[name] for part in parts])
            protocol = {"f": "|z|^2", "law": "N(1, I)", "dimensions": d, "estimates": len(values)}
            mean, variance = mean_score(values, "1", True, protocol), _variance(values, "1", protocol)
            scores |= {f"mean_{name}_d{d}": mean, f"variance_{name}_d{d}": variance}
            rows.append({"dimensions": d, "estimator": name, "mean": mean.value, "mean_stderr": mean.stderr,
                         "variance": variance.value, "variance_stderr": variance.stderr, "true": truth})  # fmt: skip
    return scores, rows


def _variance(values: Tensor, unit: str, protocol: dict[str, Any]) -> Score:
    """The variance (divisor n - 1) with its standard error, from the spread of the squared deviations."""
    square = (values - values.mean()).square() * len(values) / (len(values) - 1)
    return mean_score(square, unit, False, protocol)


def step_truth(mean: float) -> float:
    """d/d mean P(z > 0) for z ~ N(mean, 1): the normal density at -mean."""
    return math.exp(-0.5 * mean**2) / math.sqrt(2 * math.pi)


def _step(config: ReparametrisationConfig, streams: Streams) -> tuple[dict[str, Score], list[dict[str, Any]]]:
    """f = 1[z > 0]: the path has no slope anywhere, the score function does not ask for one.

    A sigmoid of z / temperature has a slope, but the sharper it is, the smaller the bias and the larger the variance.
    """
    e = torch.randn(config.n_draws, dtype=torch.float64, generator=streams.at("step"))
    protocol = {"f": "1[z > 0]", "law": f"N({config.step_mean}, 1)", "estimates": config.n_draws}
    pathwise = _pathwise(lambda z: (1 + torch.sign(z)) / 2, config.step_mean, e)
    score = ((config.step_mean + e) > 0) * e
    scores = {
        "step_pathwise": Score(pathwise.abs().max().item(), math.nan, "1", False, len(e),
                               {**protocol, "reduced": "the largest of all in size"}),
        "step_score": mean_score(score, "1", True, protocol),
    }  # fmt: skip
    rows = [{"estimator": "score", "temperature": 0.0, "mean": scores["step_score"].value,
             "variance": _variance(score, "1", protocol).value}]  # fmt: skip
    for temperature in config.temperatures:
        values = _pathwise(lambda z, t=temperature: torch.sigmoid(z / t), config.step_mean, e)
        rows.append({"estimator": "reparametrised", "temperature": temperature, "mean": values.mean().item(),
                     "variance": values.var().item()})  # fmt: skip
    return scores, rows


def _pathwise(f: Any, mean: float, e: Tensor) -> Tensor:
    """df(mean + e)/d mean for each e, by automatic differentiation."""
    means = torch.full_like(e, mean, requires_grad=True)
    (slope,) = torch.autograd.grad(f(means + e).sum(), means)
    return slope


def reparametrisation(config: ReparametrisationConfig, workspace: Workspace) -> Outcome:
    """Recipes, variances and the step function. Small, in float64, on the CPU always."""
    streams = Streams(workspace.streams.seed)
    scores, recipes = recipe_checks(config.n_recipes, streams.at("recipes"))
    squares, square_rows = _squares(config, streams)
    step, step_rows = _step(config, streams)
    facts = {"recipes": recipes, "squares": square_rows, "step": step_rows, "step_truth": step_truth(config.step_mean)}
    return Outcome({**scores, **squares, **step}, [], {}, facts=facts)


# --- estimators A and B ------------------------------------------------------------------------------------------


class Estimates(NamedTuple):
    """Of R minibatches: the bound by each estimator, (R,), and the encoder's gradient of it, (R, P)."""

    bound_a: Tensor
    bound_b: Tensor
    gradient_a: Tensor
    gradient_b: Tensor


def estimates(model: BernoulliVAE, x: Tensor, noise: Tensor) -> Estimates:
    """Both estimators from the same images and noise. x: (R, M, D) in {0, 1}; noise: (L, R, M, Z).

    Each minibatch has a copy of the encoder's parameters, so that one backward pass gives every minibatch its own
    gradient: (R, P), P all parameters of the encoder.
    """
    named = dict(model.named_parameters())
    copies = [named[name].detach().expand(len(x), *named[name].shape).clone().requires_grad_() for name in ENCODER]
    w_in, b_in, w_out, b_out = copies
    h = tanh(torch.baddbmm(b_in.unsqueeze(1), x, w_in.mT))  # (R, M, D) -> (R, M, H)
    q = Gaussian(*torch.baddbmm(b_out.unsqueeze(1), h, w_out.mT).chunk(2, -1))  # (R, M, H) -> 2 x (R, M, Z)
    z = q.sample(noise)  # (L, R, M, Z)
    likelihood = bernoulli_log_likelihood(x, model.logits(z)).mean((0, 2))  # (R,)
    closed = kl_to_standard_normal(*q).mean(1)  # (R,): equation 7
    sampled = (q.log_prob(z) - model.log_prior(z)).mean((0, 2))  # (R,): equation 6
    # The likelihood's part is the same in both, and the decoder is what costs: so it is differentiated once.
    parts = [
        torch.cat([g.flatten(1) for g in torch.autograd.grad(value.sum(), copies, retain_graph=True)], 1)
        for value in (likelihood, closed, sampled)
    ]
    values = [value.detach() for value in (likelihood, closed, sampled)]
    return Estimates(values[0] - values[2], values[0] - values[1], parts[0] - parts[2], parts[0] - parts[1])


def _repeated(model: BernoulliVAE, images: Tensor, m: int, n_draws: int, config: GradientsConfig, streams: Streams,
              stage: str) -> tuple[Estimates, Estimates]:  # fmt: skip
    """Minibatches of m images drawn with replacement, each with two independent sets of noise."""
    block, n_repeats = max(1, MAX_DECODED // (m * n_draws)), dict(zip(config.images, config.n_repeats, strict=True))[m]
    parts: tuple[list[Estimates], list[Estimates]] = ([], [])
    for start in range(0, n_repeats, block):
        shape = (min(block, n_repeats - start), m)
        rng = streams.at(f"{stage} {m} {n_draws}", start)
        index = torch.randint(len(images), shape, generator=rng, device=images.device)
        x = dynamic_binarisation(images[index], rng)  # (R, M, D)
        for part in parts:
            noise = torch.randn(n_draws, *shape, config.n_latent, generator=rng, device=images.device)
            part.append(estimates(model, x, noise))
    first, second = (Estimates(*(torch.cat(each) for each in zip(*part, strict=True))) for part in parts)
    return first, second


def total_variance(gradients: Tensor, protocol: dict[str, Any]) -> Score:
    """Trace of the covariance of a gradient, (R, P) -> one number: all of chance, the choice of images included."""
    off = (gradients.double() - gradients.double().mean(0)).square().sum(1) * len(gradients) / (len(gradients) - 1)
    return mean_score(off, "nats^2", False, protocol)


def noise_variance(first: Tensor, second: Tensor, protocol: dict[str, Any]) -> Score:
    """The part of it that is left when the images are held: half the squared distance of two gradients, (R, P) each."""
    return mean_score(0.5 * (first.double() - second.double()).square().sum(1), "nats^2", False, protocol)


def mean_square(gradients: Tensor, protocol: dict[str, Any]) -> Score:
    """|E g|^2 without bias: the mean of g_i . g_j over pairs i < j. Where E g = 0 pairs are uncorrelated, and the
    standard error over them holds; elsewhere it is too small. gradients: (R, P)."""
    products = gradients.double() @ gradients.double().T  # (R, R)
    i, j = torch.triu_indices(len(products), len(products), 1).to(products.device)
    return mean_score(products[i, j], "nats^2", False, protocol)


def measured(model: BernoulliVAE, images: Tensor, config: GradientsConfig, streams: Streams, stage: str) -> tuple[
    dict[str, Score], list[dict[str, float]]
]:  # fmt: skip
    """Scores of one stage and a row for each (M, L)."""
    model.requires_grad_(False)
    scores: dict[str, Score] = {}
    rows: list[dict[str, float]] = []
    for m in config.images:
        for n_draws in config.draws:
            first, second = _repeated(model, images, m, n_draws, config, streams, stage)
            protocol = {"data": config.data, "stage": stage, "images": m, "draws": n_draws, "gradient": "encoder",
                        "hidden": config.n_hidden, "latents": config.n_latent, "binarisation": "dynamic"}  # fmt: skip
            row: dict[str, float] = {"images": m, "draws": n_draws}
            for name in ("a", "b"):
                one, two = (getattr(each, f"gradient_{name}") for each in (first, second))
                found = {
                    "variance": total_variance(one, protocol),
                    "noise": noise_variance(one, two, protocol),
                }  # fmt: skip
                scores |= {f"{stage}_{key}_{name}_m{m}_l{n_draws}": score for key, score in found.items()}
                row |= {f"{key}_{name}": score.value for key, score in found.items()}
            rows.append(row)
            if (m, n_draws) == (max(config.images), min(config.draws)):
                scores |= _equal_means(first, stage, protocol)
    scores |= bound_variances(model, images[: config.n_images], config, streams, stage)
    model.requires_grad_(True)
    return scores | _laws(scores, config, stage), rows


def _equal_means(found: Estimates, stage: str, protocol: dict[str, Any]) -> dict[str, Score]:
    """A - B of the bound, and |E(g_A - g_B)|^2, which are 0."""
    return {
        f"{stage}_bound_difference": mean_score(found.bound_a - found.bound_b, "nats/image", False, protocol),
        f"{stage}_gradient_difference": mean_square(found.gradient_a - found.gradient_b, protocol),
        f"{stage}_gradient_square": mean_square(found.gradient_b, protocol),
    }


def bound_variances(
    model: BernoulliVAE, images: Tensor, config: GradientsConfig, streams: Streams, stage: str
) -> dict[str, Score]:
    """Variance of each estimator of the bound of one image, one draw of z, mean over images; and that of A over B's."""
    rng = streams.at(f"bounds {stage}")
    x = dynamic_binarisation(images, rng)
    with torch.no_grad():
        q = model.posterior(x)
        z = q.sample(torch.randn(config.n_bounds, *q.mean.shape, generator=rng, device=x.device))
        b = model.log_likelihood(x, z)  # (S, N); what B adds is the same for every draw
        a = b + model.log_prior(z) - q.log_prob(z)
    protocol = {"data": config.data, "stage": stage, "draws": config.n_bounds, "binarisation": "dynamic"}
    found = {
        f"{stage}_bound_{name}": mean_score(values.double().var(0), "nats^2/image", False, protocol)
        for name, values in (("a", a), ("b", b))
    }
    of_a, of_b = (found[f"{stage}_bound_{name}"].value for name in "ab")
    ratio = of_a / of_b if of_b else math.inf
    return {**found, f"{stage}_bound_ratio": Score(ratio, math.nan, "A / B", True, len(x), protocol)}


def _laws(scores: dict[str, Score], config: GradientsConfig, stage: str) -> dict[str, Score]:
    """The slopes of log variance in log M and in log L, of estimator B; least squares over all (M, L). And the noise of
    A's gradient over that of B's, of the sum of M L times the noise over all (M, L)."""
    pooled = {name: sum(m * n * scores[f"{stage}_noise_{name}_m{m}_l{n}"].value for m in config.images
                        for n in config.draws) for name in "ab"}  # fmt: skip
    settings = {"stage": stage, "images": list(config.images), "draws": list(config.draws)}
    found = {f"{stage}_gradient_ratio": Score(pooled["a"] / pooled["b"], math.nan, "A / B", True, 1, settings)}
    for key in ("variance", "noise"):
        points = [(math.log(m), math.log(n), math.log(scores[f"{stage}_{key}_b_m{m}_l{n}"].value))
                  for m in config.images for n in config.draws]  # fmt: skip
        table = torch.tensor(points, dtype=torch.float64)
        design = torch.cat([table[:, :2], torch.ones(len(table), 1, dtype=torch.float64)], 1)
        slopes = torch.linalg.lstsq(design, table[:, 2:]).solution[:, 0].tolist()
        protocol = {**settings, "estimator": "B"}
        for name, slope in zip(("images", "draws"), slopes, strict=False):
            found[f"{stage}_{key}_slope_{name}"] = Score(slope, math.nan, "1", False, len(points), protocol)
    return found


def gradients(config: GradientsConfig, data: Dataset, workspace: Workspace) -> Outcome:
    """Measure at the start, train by AEVB, measure again; goes on from the workspace's checkpoint."""
    images = data.split("train")[0].flatten(1).to(workspace.device)
    minibatches = Minibatches(images, config.training, workspace.streams)
    model = build(config.training, images.shape[1], workspace.streams)
    scores, rows = measured(model, images, config, workspace.streams, "start")
    optimizer = adagrad(model, config.learning_rate, config.training, len(images))
    state: dict[str, Any] = workspace.resume_(model=model, optimizer=optimizer)
    moving, n_steps = training_tensors(model=model, optimizer=optimizer), config.n_samples // config.training.batch
    update = CapturedStep(lambda x, noise: aevb_step(model, optimizer, x, noise), moving, workspace.device)
    for step in range(state["step"], n_steps):
        bound = update(*minibatches(step))
        state["step"] = step + 1
        if (step + 1) % max(1, n_steps // 10) == 0:
            value = require_finite(bound.item(), "The bound", step + 1, state["history"])
            state["history"].append({"samples": (step + 1) * config.training.batch, "elbo_train": value})
        workspace.keep(state, n_steps, model=model, optimizer=optimizer)
    trained, more = measured(model, images, config, workspace.streams, "trained")
    facts = {"start": rows, "trained": more}
    return Outcome({**scores, **trained}, state["history"], model.state_dict(), facts=facts)
