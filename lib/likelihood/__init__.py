"""Likelihood bounds, per image and in nats. A bound is called a bound."""

from lib.likelihood.bounds import LatentVariableModel, elbo, importance_weighted_bound

__all__ = ["LatentVariableModel", "elbo", "importance_weighted_bound"]
