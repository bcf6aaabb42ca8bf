"""Log-likelihood of a GAN by annealed importance sampling, as Wu, Burda, Salakhutdinov & Grosse 2017.

A generator has no density, so it is given one: p(x) = integral N(x; G(z), sigma^2 I) p(z) dz, a mixture of small
Gaussians around its samples. The number is then one of this model, of generator and sigma together, a density of
dequantised pixels; unlike a Parzen window it integrates over all z, not over 10,000 of them.

NOTE gan2014-N61: no importance-weighted bound (IWAE) stands beside it: that needs an encoder, which a GAN has not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.likelihood import annealed_importance_sampling, bidirectional_monte_carlo
from lib.models.decoders import GaussianDecoder, normal_to_uniform
from lib.results import Score, mean_score
from lib.training.randomness import Streams, generator

SIGMAS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28)  # ours, by factors of about sqrt 2; NOTE gan2014-N60
N_CHAINS, N_LEAPFROG, ACCEPTANCE = 16, 10, 0.65  # Wu et al. 2017, section 5
# Ours: the bracket takes half of the images; sigma is chosen on as many, with a quarter of the distributions.
IMAGES_PART, DISTRIBUTIONS_PART = 2, 4


class Choice(NamedTuple):
    """A sigma chosen on validation images, and what it was chosen from."""

    sigma: float
    means: tuple[float, ...]  # nats per image, in the order of the grid


def annealed_scores(
    network: Callable[[Tensor], Tensor], n_latent: int, uniform_noise: bool, validation: Tensor, test: Tensor, *,
    n_images: int, n_distributions: int, streams: Streams, n_chains: int = N_CHAINS,
    sigmas: Sequence[float] = SIGMAS, protocol: Mapping[str, Any] | None = None,
) -> dict[str, Score]:  # fmt: skip
    """ais_test, a stochastic lower bound on log p(x), and ais_bdmc_gap, which says how loose it may be; nats/image.

    network: z (n, n_latent) -> pixels (n, D) on 0 .. 1, deterministic (no dropout), on the streams' device; z uniform
    on (-sqrt 3, sqrt 3) or standard normal. validation (V, D), test (T, D): pixels k / 255 in 0 .. 1; of test the first
    n_images count, of validation half as many. ais_test: mean over test images, higher is better, below log p(x) in
    expectation; stderr over images. ais_bdmc_gap: mean of upper less lower bound on half as many simulated images,
    >= 0 in expectation, lower is better. It bounds the estimator's mean error on the model's own images; on test
    images, which may be harder, it is a diagnostic and no bound. Raises ValueError.
    """
    mean = (lambda e: network(normal_to_uniform(e))) if uniform_noise else network
    part = max(2, n_images // IMAGES_PART)
    held_out = dequantised(validation[:part], "validation").to(streams.device)
    x = dequantised(test[:n_images], "test").to(streams.device)
    settings: dict[str, Any] = {"n_chains": n_chains, "n_leapfrog": N_LEAPFROG, "target_acceptance": ACCEPTANCE}
    few = max(1, n_distributions // DISTRIBUTIONS_PART)
    choice = choose_sigma(mean, n_latent, held_out, sigmas, streams, n_distributions=few, **settings)
    model = GaussianDecoder(mean, n_latent, choice.sigma)
    settings["n_distributions"] = n_distributions
    estimate = annealed_importance_sampling(model, x, generator=streams.at("ais test"), **settings)
    bracket = bidirectional_monte_carlo(model, part, generator=streams.at("ais simulated"), dtype=x.dtype, **settings)
    made_by = {
        **(protocol or {}),
        **settings,
        "observation": "N(G(z), sigma^2), pixels dequantised: (k + u) / 256, one fixed draw",
        "sigma": choice.sigma,
        "sigmas": list(sigmas),
        "sigma_chosen_on": len(held_out),
        "noise": "uniform" if uniform_noise else "gaussian",
        "schedule": "sigmoid",
    }
    forward = {**made_by, "estimator": "annealed importance sampling, lower bound", "split": "test"}
    both = {**made_by, "estimator": "bidirectional Monte Carlo, upper less lower bound", "split": "simulated"}
    return {
        "ais_test": mean_score(estimate.log_marginal, "nats/image", True, forward),
        "ais_bdmc_gap": bracket.gap._replace(protocol=both),
    }


def choose_sigma(
    mean: Callable[[Tensor], Tensor], n_latent: int, x: Tensor, sigmas: Sequence[float], streams: Streams,
    **settings: Any,
) -> Choice:  # fmt: skip
    """The sigma with the highest mean lower bound on x (V, D); every sigma meets the same random numbers.

    NOTE gan2014-N60: Wu et al. choose the variance on validation data and do not print a grid or a rule; these are
    ours. A short run is the looser the narrower sigma is, so the choice errs towards wide ones: ais_test, whose sigma
    is fixed by then, is a lower bound all the same. Raises ValueError where a bound is not finite for any sigma.
    """
    means = []
    for sigma in sigmas:
        model = GaussianDecoder(mean, n_latent, sigma)
        estimate = annealed_importance_sampling(model, x, generator=streams.at("ais sigma"), **settings)
        means.append(estimate.log_marginal.mean().item())
    finite = [value if math.isfinite(value) else -math.inf for value in means]
    best = max(range(len(finite)), key=finite.__getitem__)
    if finite[best] == -math.inf:
        raise ValueError(f"no sigma of {list(sigmas)} gives the validation images a finite likelihood")
    return Choice(sigmas[best], tuple(means))


def dequantised(x: Tensor, split: str) -> Tensor:
    """(k + u) / 256 for pixels x = k / 255 (N, D), u uniform on (0, 1) by a draw that no run's seed moves; on the CPU.

    Of a split's images the first n get the same noise, whatever n is, if D is the same.
    """
    noise = torch.rand(x.shape, generator=generator(0, f"dequantise {split}"))
    return ((255 * x.cpu()).round() + noise) / 256
