"""log p(x) of a trained model from below by three bounds, and from both sides where it can be."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from lib.likelihood import (
    annealed_importance_sampling,
    bidirectional_monte_carlo,
    elbo,
    importance_weighted_bounds,
)
from lib.models.gaussian_vae import Gaussian
from lib.results import Score, mean_score
from lib.training.randomness import Streams

KS = (5, 50, 5000)  # Burda et al. 2015: samples of the bounds trained with, and of the one reported
SIMULATED_PART = 2  # ours: the bracket takes half as many images, for each of its two runs costs as much as one
N_ELBO_DRAWS = 50  # ours


class BernoulliModel(Protocol):
    """What the estimators need: a diagonal Gaussian q(z|x), prior N(0, I), Bernoulli pixels."""

    n_latent: int
    observation: str

    def posterior(self, x: Tensor) -> Gaussian: ...
    def logits(self, z: Tensor) -> Tensor: ...
    def log_prior(self, z: Tensor) -> Tensor: ...
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor: ...


class Annealing(Protocol):
    """A run's settings of annealed importance sampling."""

    @property
    def n_distributions(self) -> int: ...
    @property
    def n_chains(self) -> int: ...
    @property
    def n_leapfrog(self) -> int: ...


def bracket(
    model: BernoulliModel, x: Tensor, config: Annealing, protocol: Mapping[str, Any], streams: Streams
) -> dict[str, Score]:
    """Every bound on the same binary test images x (N, D): nats per image, higher is better, stderr over images.

    few_elbo; few_iwae_<k>, importance-weighted (Burda et al. 2015); few_ais, annealed importance sampling from q(z|x)
    to the posterior (Wu et al. 2017, who start at the prior): all of them below log p(x) on average.

    An upper bound needs an exact posterior draw, which only images simulated from the model have: there ais_lower and
    ais_upper enclose log p(x) (bidirectional Monte Carlo), and ais_gap is their distance. On those images it bounds the
    mean error of few_ais's settings; on test images, which may be harder, it is a diagnostic and no bound.
    """
    settings: dict[str, Any] = {
        "n_chains": config.n_chains, "n_distributions": config.n_distributions, "n_leapfrog": config.n_leapfrog,
        "initial": "posterior",
    }  # fmt: skip

    def score(values: Tensor, estimator: str, **more: Any) -> Score:
        return mean_score(values, "nats/image", True, {**protocol, "estimator": estimator, **more})

    scores = {"few_elbo": score(elbo(model, x, N_ELBO_DRAWS, streams.at("few elbo")), "elbo", draws=N_ELBO_DRAWS)}
    for k, values in zip(KS, importance_weighted_bounds(model, x, KS, streams.at("few importance")), strict=True):
        scores[f"few_iwae_{k}"] = score(values, "importance-weighted bound", draws=k)
    forward = annealed_importance_sampling(model, x, generator=streams.at("few ais"), **settings)
    scores["few_ais"] = score(forward.log_marginal, "annealed importance sampling, lower bound", **settings)
    part = max(2, len(x) // SIMULATED_PART)
    both = bidirectional_monte_carlo(model, part, generator=streams.at("simulated ais"), **settings)
    simulated = {**settings, "split": "simulated"}
    scores["ais_lower"] = score(both.lower.log_marginal, "annealed importance sampling, lower bound", **simulated)
    scores["ais_upper"] = score(both.upper.log_marginal, "annealed importance sampling, upper bound", **simulated)
    weighted = importance_weighted_bounds(model, both.x, KS[-1:], streams.at("simulated importance"))[0]
    scores[f"simulated_iwae_{KS[-1]}"] = score(weighted, "importance-weighted bound", draws=KS[-1], split="simulated")
    gap = score(both.upper.log_marginal - both.lower.log_marginal, "upper less lower bound", **simulated)
    return scores | {"ais_gap": gap._replace(higher_is_better=False)}
