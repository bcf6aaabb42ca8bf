"""Annealed importance sampling (Neal 2001), forwards, in reverse, and both at once on simulated data.

Sources: Neal 2001, "Annealed importance sampling"; Burda, Grosse & Salakhutdinov 2015, "Accurate and conservative
estimates of MRF log-likelihood using reverse annealing"; Grosse, Ghahramani & Adams 2015, "Sandwiching the marginal
likelihood using bidirectional Monte Carlo"; Wu, Burda, Salakhutdinov & Grosse 2017, "On the quantitative analysis of
decoder-based generative models", whose settings are the defaults but for n_distributions (they take 10 000).

The path is the geometric one, f_b(z) = p_0(z)^(1-b) [p(z) p(x|z)]^b for b from 0 to 1. With p_0 the prior that is
p(z) p(x|z)^b. One run costs 1 + (n_distributions - 1) * n_leapfrog evaluations of the decoder and its gradient in z,
for n_chains * N points each: values and gradients of the terms of f_b are kept from one b to the next.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count
from lib.likelihood.hmc import (
    MAX_FLOATS,
    LogTerms,
    StepSize,
    adapted,
    evaluate_blocks,
    image_blocks,
    require_acceptance,
    transition_blocks,
    weighted,
)
from lib.likelihood.observation import Criterion, GenerativeModel, require_observation
from lib.models.gaussian_vae import Gaussian, standard_normal_log_prob
from lib.results import Score, mean_score

Progress = Callable[[int, int], None]  # annealing distributions done, of how many


@dataclass(frozen=True, kw_only=True)
class AnnealingSettings:
    """How a run is made, in either direction. Raises ValueError."""

    n_chains: int = 16  # C, for each image
    n_distributions: int = 1000  # steps in b; 1 is importance sampling from p_0
    n_leapfrog: int = 10  # of the one HMC transition at each inner b
    # Of all images, or (N,), or with adaptation off (n_distributions - 1, N) with b ascending.
    step_size: float | Tensor = 0.1
    # What each image's step size adapts to, by its chains' past; None freezes step_size.
    target_acceptance: float | None = 0.65
    schedule: Literal["sigmoid", "linear"] = "sigmoid"
    initial: Literal["prior", "posterior"] = "prior"  # p_0: N(0, I), or q(z|x) of a model that has an encoder
    criterion: Criterion = "likelihood"  # see lib.likelihood.observation
    max_floats: int = MAX_FLOATS  # decoded pixels alive at a time: images run in blocks, which moves no number
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name in ("n_chains", "n_distributions", "n_leapfrog", "max_floats"):
            require_count(name, getattr(self, name), 1)
        for name, allowed in (("schedule", tuple(SCHEDULES)), ("initial", ("prior", "posterior"))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: it must be one of {', '.join(map(repr, allowed))}"
                )
        if self.target_acceptance is not None:
            require_acceptance(self.target_acceptance)
        step = torch.as_tensor(self.step_size)
        if not bool((torch.isfinite(step) & (step > 0)).all()):
            raise ValueError(f"step_size is {self.step_size!r}: it must be finite and above 0")

    def weights(self, beta: float) -> tuple[float, float]:
        """log f_b as a sum of (log prior, log likelihood) or, from the posterior, of (log q, log joint)."""
        return (1.0 if self.initial == "prior" else 1.0 - beta), beta

    def step_sizes(self, x: Tensor) -> Tensor:
        """step_size as (N,) or (n_distributions - 1, N), of x's dtype and device. Raises ValueError."""
        step = torch.as_tensor(self.step_size, dtype=x.dtype, device=x.device)
        if step.shape == (self.n_distributions - 1, len(x)) and self.target_acceptance is None:
            return step
        if step.ndim == 0 or step.shape == (len(x),):
            return step.expand(len(x))
        raise ValueError(
            f"step_size has the shape {tuple(step.shape)}: it must be one number, ({len(x)},) or, where"
            f" target_acceptance is None, ({self.n_distributions - 1}, {len(x)})"
        )


class AnnealedEstimate(NamedTuple):
    """log p(x) image by image, in nats."""

    log_marginal: Tensor  # (N,) float64
    stderr: Tensor  # (N,) of log_marginal over chains, by the delta method; nan for one chain
    chain_log_weights: Tensor  # (C, N) float64
    acceptance: Tensor  # (N,) mean acceptance probability; nan where there was no transition
    step_size: Tensor  # (n_distributions - 1, N) used at each inner distribution, b ascending


class Bracket(NamedTuple):
    """Bidirectional Monte Carlo on simulated data: E lower <= E log p(x) <= E upper."""

    x: Tensor  # (N, D) simulated
    z: Tensor  # (N, Z) that made x, an exact posterior draw
    lower: AnnealedEstimate
    upper: AnnealedEstimate
    gap: Score  # mean of upper - lower with its standard error over images


def sigmoid_schedule(n_distributions: int, radius: float = 4.0) -> list[float]:
    """b_0 = 0 .. b_n = 1, evenly spaced on (-radius, radius) before a logistic sigmoid that is rescaled to 0 .. 1.

    Burda et al. 2015 and, with radius 4, Wu et al. 2017: finer near both ends. n_distributions + 1 values.
    """
    t = torch.sigmoid(torch.linspace(-radius, radius, n_distributions + 1, dtype=torch.float64))
    return ((t - t[0]) / (t[-1] - t[0])).tolist()


def linear_schedule(n_distributions: int) -> list[float]:
    """b_t = t / n: n_distributions + 1 values."""
    return [t / n_distributions for t in range(n_distributions + 1)]


SCHEDULES: Mapping[str, Callable[[int], list[float]]] = {"sigmoid": sigmoid_schedule, "linear": linear_schedule}


def annealed_importance_sampling(
    model: GenerativeModel, x: Tensor, *, generator: torch.Generator, **settings: Any
) -> AnnealedEstimate:
    """log (1/C) sum_c w_c with log w = sum_t log f_{b_t}(z_{t-1}) - log f_{b_{t-1}}(z_{t-1}); Neal 2001, section 2.

    E w = p(x), so log_marginal is a stochastic LOWER bound: below log p(x) on average, and above it by more than c nats
    with a probability below exp(-c). x: (N, D) or (N, C, H, W). settings: the fields of AnnealingSettings.
    Returns nats per image, higher is better.

    Step sizes that adapt to their own chains' past are the usual practice, but E w = p(x) then no longer holds to the
    letter. Where it must, give the step_size of one estimate, frozen by target_acceptance=None, to a second one with
    random numbers of its own. Raises ValueError for bad arguments, and where the model gives nan at the draws of p_0.
    """
    run = AnnealingSettings(**settings)
    require_observation(model, x, run.criterion)
    shape = (run.n_chains, len(x), model.n_latent)
    z = torch.randn(shape, dtype=x.dtype, device=x.device, generator=generator)
    if run.initial == "posterior":
        z = _encoded(model, x).sample(z)
    log_weights, acceptance, steps = _anneal(model, x, z, run, generator)
    value, stderr = _log_mean(log_weights)
    return AnnealedEstimate(value, stderr, log_weights, acceptance, steps)


def reverse_annealed_importance_sampling(
    model: GenerativeModel, x: Tensor, z_posterior: Tensor, *, generator: torch.Generator, **settings: Any
) -> AnnealedEstimate:
    """-log (1/C) sum_c 1 / w_c from chains that start at a posterior draw and anneal down to p_0; Burda et al. 2015.

    E 1/w = 1 / p(x) where z_posterior (N, Z) is an EXACT draw from p(z|x), as it is for data simulated from the model;
    then log_marginal is a stochastic UPPER bound on log p(x). From any other z it bounds nothing. The chains of an
    image share their start, which stderr leaves out: judge by the spread over images.
    Arguments and result as in annealed_importance_sampling. Raises ValueError.
    """
    run = AnnealingSettings(**settings)
    require_observation(model, x, run.criterion)
    if z_posterior.shape != (len(x), model.n_latent):
        wanted = f"({len(x)}, {model.n_latent})"
        raise ValueError(f"z_posterior has the shape {tuple(z_posterior.shape)}: it must be {wanted}")
    z = z_posterior.detach().to(x.dtype).expand(run.n_chains, -1, -1)
    log_weights, acceptance, steps = _anneal(model, x, z, run, generator, reverse=True)
    value, stderr = _log_mean(-log_weights)
    return AnnealedEstimate(-value, stderr, log_weights, acceptance, steps)


def bidirectional_monte_carlo(
    model: GenerativeModel,
    n_images: int,
    *,
    generator: torch.Generator,
    simulate: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Bracket:
    """Both bounds on n_images simulated (z, x) ~ p(z) p(x|z), p(z) = N(0, I); Grosse et al. 2015, section 3.

    The mean gap bounds the mean error of either estimator, with these settings, on data like the model's own. On real
    data, which may be harder for the model than its own samples, it is a diagnostic and no bound. Each direction adapts
    its own step sizes. z is drawn in `dtype` on the generator's device. simulate: (z, generator) -> x ~ p(x|z); by
    default the model's method of that name, or Bernoulli pixels of model.logits(z). progress is called in the forward
    run, then in the reverse one. Raises ValueError.
    """
    run = AnnealingSettings(**settings)
    require_count("n_images", n_images, 1)
    z = torch.randn(n_images, model.n_latent, dtype=dtype, device=generator.device, generator=generator)
    with torch.no_grad():
        x = (simulate or _simulation(model))(z, generator)
    lower = annealed_importance_sampling(model, x, generator=generator, **settings)
    upper = reverse_annealed_importance_sampling(model, x, z, generator=generator, **settings)
    names = ("n_chains", "n_distributions", "n_leapfrog", "schedule", "initial", "target_acceptance")
    protocol = {"estimator": "bidirectional Monte Carlo", **{name: getattr(run, name) for name in names}}
    gap = mean_score(upper.log_marginal - lower.log_marginal, "nats/image", False, protocol)
    return Bracket(x, z, lower, upper, gap)


def _anneal(
    model: GenerativeModel,
    x: Tensor,
    z: Tensor,
    run: AnnealingSettings,
    generator: torch.Generator,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """log w (C, N), mean acceptance (N,) and step sizes (T - 1, N), from b = 0 up or, in reverse, from b = 1 down.

    In reverse the increments are those of a forward chain read backwards, with the sign turned: they add up to -log w.
    """
    order = -1 if reverse else 1
    betas = SCHEDULES[run.schedule](run.n_distributions)[::order]
    blocks = [(block, _terms(model, x[block], run)) for block in image_blocks(x, len(z), run.max_floats)]
    point = evaluate_blocks(blocks, z)
    _require_sound(point.log_terms, z, run)
    given, target = run.step_sizes(x), run.target_acceptance
    steps = given.expand(run.n_distributions - 1, -1).clone()
    if given.ndim == 2 and reverse:
        steps = steps.flip(0)
    adapting = StepSize(steps[:1].squeeze(0), x.new_full((len(x),), target or math.nan, dtype=torch.float64))
    log_weights = x.new_zeros(z.shape[:2], dtype=torch.float64)
    acceptance = x.new_zeros(len(x), dtype=torch.float64)
    for t, (here, there) in enumerate(itertools.pairwise(betas)):
        gain = [new - old for new, old in zip(run.weights(there), run.weights(here), strict=True)]
        log_weights += weighted(gain, point.log_terms)
        if t < len(steps):
            if target is not None:
                steps[t] = adapting.value
            result = transition_blocks(blocks, point, run.weights(there), steps[t], run.n_leapfrog, generator)
            point, mean = result.point, result.acceptance.mean(0)
            acceptance += mean
            if target is not None:
                adapting = adapted(adapting, mean, target)
        if run.progress is not None:
            run.progress(t + 1, run.n_distributions)
    acceptance = acceptance / len(steps) if len(steps) else acceptance + math.nan
    return order * log_weights, acceptance, steps.flip(0) if reverse else steps


def _terms(model: GenerativeModel, x: Tensor, run: AnnealingSettings) -> LogTerms:
    if run.initial == "prior":
        return lambda z: (model.log_prior(z), model.log_likelihood(x, z))
    q = _encoded(model, x)
    return lambda z: (q.log_prob(z), model.log_prior(z) + model.log_likelihood(x, z))


def _log_mean(log_values: Tensor) -> tuple[Tensor, Tensor]:
    """log of the mean v over axis 0 and, by the delta method, its standard error sd / (v sqrt C)."""
    count = len(log_values)
    value = torch.logsumexp(log_values, 0) - math.log(count)
    if count == 1:
        return value, torch.full_like(value, math.nan)
    return value, (log_values - value).exp().std(0) / math.sqrt(count)


@torch.no_grad()
def _encoded(model: GenerativeModel, x: Tensor) -> Gaussian:
    posterior = getattr(model, "posterior", None)
    if posterior is None:
        raise ValueError(f"initial is 'posterior', but {type(model).__name__} has no posterior(x): it must be 'prior'")
    q: Gaussian = posterior(x)
    return q


def _simulation(model: GenerativeModel) -> Callable[[Tensor, torch.Generator], Tensor]:
    simulate: Callable[[Tensor, torch.Generator], Tensor] | None = getattr(model, "simulate", None)
    if simulate is not None:
        return simulate
    logits = getattr(model, "logits", None)
    if getattr(model, "observation", None) == "bernoulli" and logits is not None:
        return lambda z, generator: torch.bernoulli(torch.sigmoid(logits(z)), generator=generator)
    raise ValueError(f"simulate is None, and {type(model).__name__} has no method simulate(z, generator): give one")


def _require_sound(log_terms: Tensor, z: Tensor, run: AnnealingSettings) -> None:
    if bool(log_terms.isnan().any()):
        raise ValueError("the model's log density is nan where the chains start: its parameters are at fault, or x is")
    if run.initial == "prior":
        normal = standard_normal_log_prob(z).double()
        if not torch.allclose(log_terms[0], normal, rtol=1e-4, atol=1e-4):
            raise ValueError("initial is 'prior', but model.log_prior is not N(0, I), which the chains are drawn from")
