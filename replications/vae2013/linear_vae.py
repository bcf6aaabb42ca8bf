"""The linear VAE against exact probabilistic PCA on digits: is the bound tight, and which directions does it use?

x = W z + b + noise of variance s2 (fixed), z ~ N(0, I_K); q(z|x) = N(V (x - b), diag d), with b the mean of the data.
The bound's mean over the data is a polynomial in W, V, d and log d given the data's covariance, so it is trained
without sampling; Lucas et al. 2019, "Don't blame the ELBO! A linear VAE perspective on posterior collapse".

With weight beta on the divergence from the prior, dividing by beta turns s2 into beta s2 and leaves the rest: so
direction i of variance lambda_i is used iff lambda_i > beta s2, with a column of square length lambda_i - beta s2.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.datasets import Dataset
from lib.execution.workspace import Outcome, Workspace
from lib.models.gaussian_vae import Gaussian
from lib.models.linear_gaussian import LinearGaussian, PrincipalComponents, principal_components
from lib.results import Score, mean_score
from lib.training.randomness import Streams
from replications.vae2013.evaluate import ACTIVE_VARIANCE


@dataclass(frozen=True)
class LinearVaeConfig:
    """Linear VAEs on digits whose likelihood and best bound are known; DEVIATION vae2013-D52."""

    data: str  # Lucas et al. 2019: MNIST; the laptop preset has a part of it
    fitted: tuple[int, ...] = (2, 10)  # ours: K of the models whose s2 is that of maximum likelihood
    n_latent: int = 32  # ours: K of all others, more than any of them can use
    noise_variances: tuple[float, ...] = (2.0, 1.0, 0.5)  # ours: s2 at beta 1
    betas: tuple[float, ...] = (2.0, 4.0, 8.0)  # ours: at beta_noise
    beta_noise: float = 0.5  # ours: s2 of the sweep over beta
    n_directions: int = 128  # ours: principal directions in which W and V are sought, the same deviation
    n_models: int = 3  # ours: trainings of each from starts of their own
    init_sd: float = 0.1  # section 5, as for the other models
    n_iterations: int = 3000  # ours: at most
    tolerance: float = 1e-10  # ours: relative gain of an iteration at which training ends


class Setting(NamedTuple):
    """One model to train: its name in scores, latents K, noise variance s2, weight of the divergence."""

    name: str
    n_latent: int
    noise_variance: float
    beta: float


class Trained(NamedTuple):
    """A linear VAE in coordinates of the principal directions, largest variance first; float64."""

    weight: Tensor  # W, (D, K)
    encoder: Tensor  # V, (K, D)
    logvar: Tensor  # log d, (K,)
    iterations: int


def mean_bound(variances: Tensor, weight: Tensor, encoder: Tensor, logvar: Tensor, noise: float, beta: float) -> Tensor:
    """Equation 3's bound, its divergence weighted by beta, averaged over data of covariance diag(variances), nats: ().

    E|x - W V x|^2 = tr S - 2 tr(W V S) + tr(W'W V S V'), and q's spread adds tr(W diag(d) W'). Shapes as in Trained.
    """
    coded = encoder * variances  # (K, D), V S
    code = coded @ encoder.T  # (K, K), the covariance of q's mean
    squares = weight.T @ weight  # (K, K)
    spread = logvar.exp()
    error = variances.sum() - 2 * (weight.T * coded).sum() + (squares * code).sum() + squares.diagonal() @ spread
    divergence = 0.5 * (code.diagonal() + spread - 1 - logvar).sum()
    return -0.5 * (error / noise + len(variances) * math.log(2 * math.pi * noise)) - beta * divergence


def exact_optimum(components: PrincipalComponents, setting: Setting) -> LinearGaussian:
    """Where the weighted bound is highest: columns sqrt(lambda_i - beta s2) u_i of the K largest, 0 below beta s2.

    At beta 1 it is probabilistic PCA of that s2 by maximum likelihood (Tipping & Bishop 1999), and the bound is tight.
    """
    lengths = (components.variances[: setting.n_latent] - setting.beta * setting.noise_variance).clamp_min(0).sqrt()
    weight = components.directions[:, : setting.n_latent] * lengths
    return LinearGaussian(weight, components.mean, setting.noise_variance)


def predicted_used(variances: Tensor, setting: Setting) -> int:
    """How many posterior means have a variance above ACTIVE_VARIANCE: that variance is 1 - beta s2 / lambda_i."""
    level = setting.beta * setting.noise_variance
    return int(((1 - level / variances[: setting.n_latent]) > ACTIVE_VARIANCE).sum())


def train(variances: Tensor, setting: Setting, config: LinearVaeConfig, rng: torch.Generator) -> Trained:
    """Raise the mean bound over W, V and log d by L-BFGS from small random values. variances: (D,), all above 0.

    NOTE vae2013-N50: the expectations over the data and over q are exact, so no minibatch and no noise. Coordinates are
    the principal directions, in which the covariance is diagonal: L-BFGS sees inner products alone, so its path is that
    of pixels, turned. (Adam's is not: it would favour the axes.) The encoder reads whitened coordinates.
    """
    from scipy.optimize import minimize  # here, for other runs start without it

    d, k, scale = len(variances), setting.n_latent, variances.sqrt()
    start = config.init_sd * torch.randn(2 * d * k + k, dtype=torch.float64, generator=rng)

    def parts(flat: Any) -> tuple[Tensor, Tensor, Tensor]:
        weight, whitened, logvar = flat.split([d * k, d * k, k])
        return weight.view(d, k), whitened.view(k, d) / scale, logvar

    def negative(flat: Any) -> tuple[float, Any]:
        theta = torch.from_numpy(flat).requires_grad_()
        loss = -mean_bound(variances, *parts(theta), setting.noise_variance, setting.beta)
        (gradient,) = torch.autograd.grad(loss, theta)
        return loss.item(), gradient.numpy()

    options = {"maxiter": config.n_iterations, "maxfun": 2 * config.n_iterations, "ftol": config.tolerance, "gtol": 0.0}
    found = minimize(negative, start.numpy(), jac=True, method="L-BFGS-B", options=options)
    return Trained(*parts(torch.from_numpy(found.x)), int(found.nit))


class Measures(NamedTuple):
    """One number of one trained model; see `measured`."""

    bound: float
    log_marginal: float
    gap: float
    gap_formula: float
    shortfall: float
    used: float
    alignment: float
    length_error: float


UNITS = {  # of each measure, and whether more is better
    "bound": ("nats/image", True), "log_marginal": ("nats/image", True), "gap": ("nats/image", False),
    "gap_formula": ("nats/image", False), "shortfall": ("nats/image", False), "used": ("units", True),
    "alignment": ("cosine", True), "length_error": ("share", False),
}  # fmt: skip


def measured(
    found: Trained, components: PrincipalComponents, test: Tensor, setting: Setting
) -> tuple[Measures, Tensor]:
    """What a trained model does, and the variances of its posterior means over the training images, (K,).

    bound, log_marginal: of test images (N, D) in pixels, the plain bound by the model's own encoder and the exact
    log p(x), means; gap their difference, and gap_formula (sum log M_ii - log det M) / 2, which the best diagonal q
    has. shortfall: best_bound less this bound, on the training images; at beta 1 it is what is missing to the exact
    log p(x) of probabilistic PCA. used: latents whose posterior mean has a variance above ACTIVE_VARIANCE. alignment:
    mean over used latents of the largest |cosine| of their column with a principal direction, nan if none is used.
    length_error: the largest difference of the columns' square lengths in falling order from lambda_i - beta s2, as a
    share of the largest.
    """
    d = len(found.weight)
    directions, variances, mean = components.directions[:, :d], components.variances, components.mean
    model = LinearGaussian(directions @ found.weight, mean, setting.noise_variance)
    code = (test - mean) @ directions @ found.encoder.T  # (N, K)
    bounds = model.elbo(test, Gaussian(code, found.logvar.expand_as(code)))
    exact = model.log_marginal(test)
    spread = ((found.encoder * variances[:d]) * found.encoder).sum(1)  # (K,)
    used, squares = spread > ACTIVE_VARIANCE, found.weight.square().sum(0)
    cosines = found.weight[:, used].abs().amax(0) / squares[used].sqrt()
    wanted = (variances[: setting.n_latent] - setting.beta * setting.noise_variance).clamp_min(0)
    off = (squares.sort(descending=True).values - wanted).abs().max() / wanted.max()
    best = best_bound(variances, setting)
    reached = plain_bound(variances, found, setting)
    values = (bounds.mean(), exact.mean(), (exact - bounds).mean(), model.elbo_gap(), best - reached, used.sum(),
              cosines.mean(), off)  # fmt: skip
    return Measures(*(float(value) for value in values)), spread


def plain_bound(variances: Tensor, found: Trained, setting: Setting) -> float:
    """The bound at beta 1 on the training images, in all D dimensions: those not sought are noise to the model."""
    d = len(found.weight)
    rest = variances[d:].sum() / setting.noise_variance + (len(variances) - d) * math.log(
        2 * math.pi * setting.noise_variance
    )
    inside = mean_bound(variances[:d], *found[:3], setting.noise_variance, 1.0)
    return (inside - 0.5 * rest).item()


def best_bound(variances: Tensor, setting: Setting) -> float:
    """The plain bound at the optimum of the weighted one, on the training images; at beta 1 the mean of log p(x).

    Columns as in exact_optimum; q has the mean of the posterior under a noise of beta s2, and variances beta s2 / M_ii.
    """
    level, k = setting.beta * setting.noise_variance, setting.n_latent
    lengths = (variances[:k] - level).clamp_min(0).sqrt()
    weight = torch.zeros(len(variances), k, dtype=torch.float64)
    weight[range(k), range(k)] = lengths
    m = lengths.square() + level
    optimum = Trained(weight, weight.T / m[:, None], (level / m).log(), 0)
    return plain_bound(variances, optimum, setting)


def settings(components: PrincipalComponents, config: LinearVaeConfig) -> list[Setting]:
    """Every model of a run: K with the s2 of maximum likelihood, the sweep over s2, the sweep over beta."""
    fitted = [Setting(f"k{k}", k, LinearGaussian.fit(components, k).noise_variance, 1.0) for k in config.fitted]
    noises = [Setting(f"s2_{_text(s2)}", config.n_latent, s2, 1.0) for s2 in config.noise_variances]
    betas = [Setting(f"beta_{_text(b)}", config.n_latent, config.beta_noise, b) for b in config.betas]
    return fitted + noises + betas


def _text(value: float) -> str:
    return f"{value:g}".replace(".", "p")


def linear_vae(config: LinearVaeConfig, data: Dataset, workspace: Workspace) -> Outcome:
    """Train n_models of every setting and hold each against its closed form. In float64, on the CPU always."""
    streams = Streams(workspace.streams.seed)
    train_images, test = (dequantised(data, split, streams) for split in ("train", "test"))
    components = principal_components(train_images)
    variances = components.variances[: config.n_directions]
    scores: dict[str, Score] = {}
    facts: dict[str, Any] = {"variances": components.variances[: 2 * config.n_latent].tolist(), "models": []}
    weights = {"directions": components.directions[:, : config.n_latent].float()}
    for setting in settings(components, config):
        found = [train(variances, setting, config, streams.at(setting.name, i)) for i in range(config.n_models)]
        each, spreads = zip(*(measured(model, components, test, setting) for model in found), strict=True)
        protocol = {
            "averaged_over": "models", "data": data.name, "data_sha256": data.digest,
            "observation": "(value + uniform noise) / 256, a density on the unit cube", **setting._asdict(),
            "used_if": f"variance of the posterior mean > {ACTIVE_VARIANCE}", "directions": config.n_directions,
        }  # fmt: skip
        for name, (unit, higher) in UNITS.items():
            values = torch.tensor([getattr(one, name) for one in each], dtype=torch.float64)
            scores[f"{name}_{setting.name}"] = mean_score(values, unit, higher, protocol)
        surplus = torch.tensor([one.used for one in each]) - predicted_used(components.variances, setting)
        scores[f"surplus_{setting.name}"] = mean_score(surplus.abs(), "units", False, protocol)
        exact = exact_optimum(components, setting)
        facts["models"].append({
            **setting._asdict(), "predicted_used": predicted_used(components.variances, setting),
            "above": int((components.variances > setting.beta * setting.noise_variance).sum()),
            "log_marginal_exact": exact.log_marginal(test).mean().item(),
            "iterations": [model.iterations for model in found], "spread": [s.tolist() for s in spreads],
        })  # fmt: skip
        weights[f"weight_{setting.name}"] = found[0].weight.float()
    return Outcome(scores, [], weights, facts=facts)


def dequantised(data: Dataset, split: str, streams: Streams) -> Tensor:
    """(value + u) / 256, u uniform on [0, 1): (N, D) float64; without the noise a density could grow without limit."""
    images = data.split(split)[0].flatten(1).double()
    noise = torch.rand(images.shape, generator=streams.at(f"dequantise {split}"), dtype=torch.float64)
    return (images + noise) / 256
