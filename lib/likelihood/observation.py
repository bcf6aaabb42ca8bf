"""What an estimator asks of a model, and whether the pixels it is scored on can have a likelihood under it."""

from typing import Literal, Protocol

import torch
from torch import Tensor

Criterion = Literal["likelihood", "real-valued cross-entropy"]
CRITERIA: tuple[Criterion, ...] = ("likelihood", "real-valued cross-entropy")


class GenerativeModel(Protocol):
    """A prior and a likelihood, differentiable once in z (..., B, Z); no encoder, so a GAN's generator will do."""

    @property
    def n_latent(self) -> int: ...
    def log_prior(self, z: Tensor) -> Tensor: ...
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor: ...


def require_observation(model: object, x: Tensor, criterion: Criterion = "likelihood") -> None:
    """Refuse data whose score under the model's observation would not be what it is called.

    x: (N, ...) floating point, finite, N >= 1. A model says what it observes by an attribute `observation`:

    - "bernoulli": every pixel is 0 or 1. Grey pixels strictly between are let through under the criterion
      "real-valued cross-entropy" alone, which is NOT a likelihood: it has no normaliser over [0, 1] and is below zero
      even at a perfect reconstruction. Pixels outside [0, 1] are always refused.
    - anything else, or no such attribute: a density on the reals, so any finite x has a likelihood. The cross-entropy
      criterion is refused for "gaussian", for which it means nothing.

    Raises ValueError.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}: it must be one of {', '.join(map(repr, CRITERIA))}")
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(f"x has the shape {tuple(x.shape)}: it must be (N, D) with at least one image")
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}: it must be floating point, binarised or scaled as the model was trained")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x holds nan or infinity: every pixel must be finite")
    observation = getattr(model, "observation", None)
    if observation == "gaussian" and criterion != "likelihood":
        raise ValueError(f"criterion is {criterion!r}, but the model observes by a Gaussian: it must be 'likelihood'")
    if observation != "bernoulli":
        return
    low, high = x.min().item(), x.max().item()
    if low < 0 or high > 1:
        raise ValueError(f"x lies in {low:g} .. {high:g}: under a Bernoulli it must lie in 0 .. 1")
    between = int(((x > 0) & (x < 1)).sum())
    if between and criterion == "likelihood":
        raise ValueError(
            f"x has {between} of {x.numel()} pixels strictly between 0 and 1, which have no Bernoulli likelihood:"
            " binarise with lib.datasets.observation.dynamic_binarisation or static_binarisation, or ask for the"
            f" criterion {CRITERIA[1]!r} by name"
        )
