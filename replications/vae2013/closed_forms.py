"""Equations and estimators held against models whose log p(x) is known: linear-Gaussian ones, in float64."""

import math
from typing import Any

import torch
from torch import Tensor

from lib.datasets import Dataset
from lib.likelihood import (
    annealed_importance_sampling,
    elbo,
    importance_weighted_bound,
    importance_weighted_bounds,
    marginal_likelihood_from_posterior,
    reverse_annealed_importance_sampling,
)
from lib.losses.elbo import kl_to_standard_normal
from lib.models.gaussian_vae import Gaussian
from lib.models.linear_gaussian import LinearGaussian, principal_components
from lib.results import Score, mean_score
from lib.training.randomness import Streams, generator
from replications.vae2013.config import EstimatorsConfig, LinearGaussianConfig, PpcaConfig


def linear_gaussian_checks(config: LinearGaussianConfig, streams: Streams) -> dict[str, Score]:
    """Equation 1, appendix B and the order of the bounds, where the truth is known in closed form."""
    weight = torch.tensor([[1.0, 0.8], [0.0, 0.6], [0.5, 0.5]], dtype=torch.float64)  # lecture_topics 6
    model = LinearGaussian(weight, torch.zeros(3, dtype=torch.float64), noise_variance=0.1)
    x = model.sample(config.n_points, streams.at("points"))
    protocol = {"model": "linear-Gaussian, 3 observed, 2 latent, s2 = 0.1", "x": config.n_points}
    residual = (_log_density(model, x) - _kl_to_posterior(model, x) - model.elbo(x, model.posterior(x))).abs().max()
    scores = {"eq1_residual": Score(residual.item(), math.nan, "nats", False, len(x), protocol)}
    many = x.repeat_interleave(config.n_repeats, 0)
    for k in config.n_importance:
        bound = importance_weighted_bound(model, many, k, streams.at(f"importance {k}"))
        # Mean over repeats first: the standard error is then over x, which are independent.
        gaps = (model.log_marginal(many) - bound).view(len(x), -1).mean(1)
        scores[f"gap_{k}"] = mean_score(gaps, "nats", False, {**protocol, "k": k, "repeats": config.n_repeats})
    scores["gap_exact"] = Score(model.elbo_gap(), math.nan, "nats", False, 1, protocol)
    _, _, directions = torch.linalg.svd(weight, full_matrices=False)
    rotated = LinearGaussian(weight @ directions.T, model.offset, model.noise_variance)  # orthogonal columns, same p(x)
    scores["gap_rotated"] = Score(abs(rotated.elbo_gap()), math.nan, "nats", False, 1, protocol)
    return scores | _appendix_b(config, streams)


def _log_density(model: LinearGaussian, x: Tensor) -> Tensor:
    """log p(x) from the covariance of x alone: nothing in it knows of z, so equation 1 is not assumed."""
    noise = model.noise_variance * torch.eye(len(model.offset), dtype=x.dtype)
    covariance = model.weight @ model.weight.T + noise
    return torch.distributions.MultivariateNormal(model.offset, covariance).log_prob(x)


def _kl_to_posterior(model: LinearGaussian, x: Tensor) -> Tensor:
    mean, logvar = model.posterior(x)
    q = torch.distributions.MultivariateNormal(mean, covariance_matrix=torch.diag_embed(logvar.exp()))
    return torch.distributions.kl_divergence(q, model.exact_posterior(x))


def _appendix_b(config: LinearGaussianConfig, streams: Streams) -> dict[str, Score]:
    mean, sd = torch.tensor([[0.5, -1.0], [0.8, 1.5]], dtype=torch.float64)  # fact sheet (a) 2
    q = Gaussian(mean, 2 * sd.log())
    protocol = {"mean": mean.tolist(), "sd": sd.tolist()}
    draws = torch.randn(config.n_monte_carlo, 2, generator=streams.at("appendix b"), dtype=torch.float64)
    z = q.sample(draws)
    prior = Gaussian(torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    monte_carlo = mean_score(q.log_prob(z) - prior.log_prob(z), "nats", False, {**protocol, "draws": len(z)})
    closed = kl_to_standard_normal(*(part[None] for part in q)).item()
    return {"kl_closed": Score(closed, math.nan, "nats", False, 1, protocol), "kl_monte_carlo": monte_carlo}


def estimator_checks(config: EstimatorsConfig, streams: Streams) -> dict[str, Score]:
    """Each estimate of log p(x) minus the exact value, mean over x; three latents, where appendix D says it works.

    The model is the same for every seed; the points and the estimators' draws are not.
    """
    made = generator(0, "estimators model")
    weight = torch.randn(config.n_observed, config.n_latent, generator=made, dtype=torch.float64)
    model = LinearGaussian(weight, torch.zeros(config.n_observed, dtype=torch.float64), config.noise_variance)
    x = model.sample(config.n_points, streams.at("points"))
    posterior = model.exact_posterior(x)
    noise = torch.randn(2 * config.n_posterior + 1, *x.shape[:1], config.n_latent, dtype=torch.float64,
                        generator=streams.at("posterior"))  # fmt: skip
    z = posterior.mean + (posterior.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)  # exact draws
    annealing = {"n_chains": config.n_chains, "n_distributions": config.n_distributions}
    weighted = importance_weighted_bounds(model, x, config.n_importance, streams.at("importance"))
    appendix_d: dict[str, Any] = {"draws": config.n_posterior, "n_leapfrog": config.n_leapfrog}
    estimates: dict[str, tuple[Tensor, dict[str, Any]]] = {
        "elbo": (elbo(model, x, config.n_elbo_draws, streams.at("elbo")), {"draws": config.n_elbo_draws}),
        **{f"iwae_{k}": (bound, {"k": k}) for k, bound in zip(config.n_importance, weighted, strict=True)},
        "ais": (
            annealed_importance_sampling(model, x, generator=streams.at("forward"), **annealing).log_marginal,
            annealing,
        ),
        "ais_reverse": (
            reverse_annealed_importance_sampling(
                model, x, z[-1], generator=streams.at("reverse"), **annealing
            ).log_marginal,
            {**annealing, "start": "exact posterior draws"},
        ),
        "appendix_d": (
            marginal_likelihood_from_posterior(model, x, generator=streams.at("appendix d"), **appendix_d),
            {**appendix_d, "draws_by": "HMC, 90 % acceptance, from the posterior mean"},
        ),
        "appendix_d_exact": (
            marginal_likelihood_from_posterior(model, x, samples=(z[: config.n_posterior], z[config.n_posterior : -1])),
            {"draws": config.n_posterior, "draws_by": "exact posterior"},
        ),
    }
    protocol = {
        "model": f"linear-Gaussian, s2 = {config.noise_variance}",
        "n_observed": config.n_observed,
        "n_latent": config.n_latent,
        "x": config.n_points,
    }
    exact = model.log_marginal(x)
    return {
        **{
            f"{name}_error": mean_score(values - exact, "nats", False, {**protocol, **settings})
            for name, (values, settings) in estimates.items()
        },
        "elbo_gap": Score(model.elbo_gap(), math.nan, "nats", False, 1, protocol),
        "log_marginal": mean_score(exact, "nats/point", True, protocol),
    }


def ppca(config: PpcaConfig, data: Dataset, streams: Streams) -> dict[str, Score]:
    """Probabilistic PCA of the digits: exact test likelihood, and what the bound loses when the latents are turned."""
    train, test = (_dequantised(data, split, streams) for split in ("train", "test"))
    components, scores = principal_components(train), {}
    for k in config.n_latent:
        model = LinearGaussian.fit(components, k)
        protocol = {
            "data": data.name,
            "data_sha256": data.digest,
            "split": "test",
            "observation": "(value + uniform noise) / 256, a density on the unit cube",
            "estimator": "exact log-likelihood",
            "n_latent": k,
            "noise_variance": model.noise_variance,
        }
        scores[f"log_marginal_{k}"] = mean_score(model.log_marginal(test), "nats/image", True, protocol)
        bound = mean_score(model.elbo(test, model.posterior(test)), "nats/image", True, protocol)
        scores[f"gap_{k}"] = Score(
            scores[f"log_marginal_{k}"].value - bound.value, math.nan, "nats/image", False, len(test), protocol
        )
        turn = torch.linalg.qr(torch.randn(k, k, dtype=torch.float64, generator=streams.at("turn", k)))[0]
        turned = LinearGaussian(model.weight @ turn, model.offset, model.noise_variance)
        scores[f"gap_turned_{k}"] = Score(turned.elbo_gap(), math.nan, "nats/image", False, 1, protocol)
    return scores


def _dequantised(data: Dataset, split: str, streams: Streams) -> Tensor:
    """(value + u) / 256, u uniform on [0, 1): (N, D) float64; without the noise a density could grow without limit."""
    images = data.split(split)[0].flatten(1).double()
    noise = torch.rand(images.shape, generator=streams.at(f"dequantise {split}"), dtype=torch.float64)
    return (images + noise) / 256
