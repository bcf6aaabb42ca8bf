"""Likelihoods and their bounds, per image and in nats. A bound is called a bound."""

from lib.likelihood.annealing import (
    annealed_importance_sampling,
    bidirectional_monte_carlo,
    reverse_annealed_importance_sampling,
)
from lib.likelihood.bounds import LatentVariableModel, elbo, importance_weighted_bound, importance_weighted_bounds
from lib.likelihood.observation import CRITERIA, GenerativeModel, require_observation
from lib.likelihood.parzen import PARZEN_GRID, parzen_log_likelihood, parzen_score, select_bandwidth
from lib.likelihood.posterior import marginal_likelihood_from_posterior, posterior_draws

__all__ = [
    "CRITERIA",
    "PARZEN_GRID",
    "GenerativeModel",
    "LatentVariableModel",
    "annealed_importance_sampling",
    "bidirectional_monte_carlo",
    "elbo",
    "importance_weighted_bound",
    "importance_weighted_bounds",
    "marginal_likelihood_from_posterior",
    "parzen_log_likelihood",
    "parzen_score",
    "posterior_draws",
    "require_observation",
    "reverse_annealed_importance_sampling",
    "select_bandwidth",
]
