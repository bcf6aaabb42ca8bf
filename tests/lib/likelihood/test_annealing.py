"""Annealed importance sampling where log p(x) is known: in closed form, by quadrature, and from simulated data."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib.likelihood import annealing
from lib.likelihood.annealing import (
    annealed_importance_sampling,
    bidirectional_monte_carlo,
    reverse_annealed_importance_sampling,
)
from lib.models.decoders import BernoulliDecoder, GaussianDecoder
from lib.models.gaussian_vae import BernoulliVAE, standard_normal_log_prob
from lib.models.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("one_thread")

VARIANCE = 0.3


class Linear(LinearGaussian):
    """A linear-Gaussian model of five pixels that can be simulated; its latents are correlated given x."""

    def __init__(self, n_latent: int, noise_variance: float = VARIANCE) -> None:
        weight = torch.randn(5, n_latent, generator=generator(5), dtype=torch.float64)
        weight[:, 1] = 0.8 * weight[:, 0] + 0.6 * weight[:, 1]
        super().__init__(weight, torch.randn(5, generator=generator(6), dtype=torch.float64), noise_variance)

    def simulate(self, z: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(z), 5, generator=generator, dtype=torch.float64)
        return self.offset + z @ self.weight.T + math.sqrt(self.noise_variance) * noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(model: Linear, n: int) -> tuple[Tensor, Tensor]:
    z = torch.randn(n, model.n_latent, generator=generator(1), dtype=torch.float64)
    return model.simulate(z, generator(2)), z


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_sigmoid_schedule_is_the_authors(n: int) -> None:
    """Wu et al. 2017, section 4.1, as their code computes it, with numpy."""
    gamma = 1 / (1 + np.exp(-np.linspace(-4, 4, n + 1)))
    want = (gamma - gamma.min()) / (gamma.max() - gamma.min())
    assert annealing.sigmoid_schedule(n) == pytest.approx(want.tolist(), abs=1e-15)


@pytest.mark.parametrize("name", ["sigmoid", "linear"])
@pytest.mark.parametrize("n", [1, 2, 9, 1000])
def test_schedules_rise_evenly_to_both_sides(name: str, n: int) -> None:
    betas = annealing.SCHEDULES[name](n)
    assert len(betas) == n + 1
    assert (betas[0], betas[-1]) == (0.0, 1.0)
    assert all(low < high for low, high in itertools.pairwise(betas))
    assert [1 - beta for beta in reversed(betas)] == pytest.approx(betas, abs=1e-14)
    if name == "linear":
        assert betas[1] == pytest.approx(1 / n)


@pytest.mark.parametrize("initial", ["prior", "posterior"])
def test_one_distribution_is_importance_sampling(initial: str) -> None:
    model = Linear(2)
    x, _ = data(model, 6)
    got = annealed_importance_sampling(model, x, generator=generator(), n_chains=50, n_distributions=1, initial=initial)
    noise = torch.randn(50, 6, 2, generator=generator(), dtype=torch.float64)
    q = model.posterior(x)
    z = noise if initial == "prior" else q.sample(noise)
    log_q = standard_normal_log_prob(z) if initial == "prior" else q.log_prob(z)
    weights = model.log_prior(z) + model.log_likelihood(x, z) - log_q
    torch.testing.assert_close(got.chain_log_weights, weights, rtol=1e-12, atol=0)
    torch.testing.assert_close(got.log_marginal, weights.exp().mean(0).log(), rtol=1e-12, atol=0)
    relative = weights.exp() / weights.exp().mean(0)
    torch.testing.assert_close(got.stderr, relative.std(0) / math.sqrt(50), rtol=1e-10, atol=0)
    assert got.acceptance.isnan().all()
    assert got.step_size.shape == (0, 6)


def test_reverse_with_one_distribution_is_the_likelihood_at_the_start() -> None:
    model = Linear(2)
    x, z = data(model, 6)
    got = reverse_annealed_importance_sampling(model, x, z, generator=generator(), n_chains=3, n_distributions=1)
    torch.testing.assert_close(got.chain_log_weights, model.log_likelihood(x, z).expand(3, 6), rtol=1e-12, atol=0)
    torch.testing.assert_close(got.log_marginal, model.log_likelihood(x, z), rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", ["sigmoid", "linear"])
@pytest.mark.parametrize("initial", ["prior", "posterior"])
def test_weights_are_unbiased_both_ways(initial: str, schedule: str) -> None:
    """E w / p(x) = 1 forwards and E p(x) / w = 1 backwards from exact posterior draws, at a step that rejects some.

    With much less noise 1 / w has tails too heavy for its mean to be judged by its standard error.
    """
    model = Linear(2, noise_variance=4.0)
    x = data(model, 1)[0].expand(20_000, 5).contiguous()
    truth = model.log_marginal(x[:1])
    frozen = {"n_chains": 1, "n_distributions": 6, "n_leapfrog": 2, "step_size": 1.1, "target_acceptance": None}
    frozen |= {"initial": initial, "schedule": schedule}
    forward = annealed_importance_sampling(model, x, generator=generator(3), **frozen)
    assert 0.3 < forward.acceptance.mean() < 0.95
    exact = model.exact_posterior(x)
    z = exact.mean + torch.randn(20_000, 2, generator=generator(4), dtype=torch.float64) @ exact.scale_tril[0].T
    reverse = reverse_annealed_importance_sampling(model, x, z, generator=generator(5), **frozen)
    for ratio in (forward.chain_log_weights[0] - truth, truth - reverse.chain_log_weights[0]):
        mean, error = mean_and_error(ratio.exp())
        assert abs(mean - 1) < 4 * error
        assert error < 0.015
        assert ratio.std() > 0.15  # the weights do vary: their mean is no triviality


@pytest.mark.parametrize("n_latent", [2, 3])
def test_the_truth_lies_between_and_the_gap_shrinks(n_latent: int) -> None:
    model, gaps = Linear(n_latent), []
    for n in (3, 12, 120):
        bracket = bidirectional_monte_carlo(
            model, 400, generator=generator(n), dtype=torch.float64, n_distributions=n, n_leapfrog=5
        )
        truth = model.log_marginal(bracket.x)
        low, low_error = mean_and_error(truth - bracket.lower.log_marginal)
        high, high_error = mean_and_error(bracket.upper.log_marginal - truth)
        assert low > -4 * low_error
        assert high > -4 * high_error
        assert bracket.gap.value == pytest.approx(low + high, abs=1e-9)
        assert bracket.gap.n == 400
        gaps.append(bracket.gap)
    for wide, narrow in itertools.pairwise(gaps):
        assert wide.value - narrow.value > 4 * math.hypot(wide.stderr, narrow.stderr)
    assert abs(low) < 0.05  # the tolerance, at 16 chains and 120 distributions
    assert abs(high) < 4 * high_error + 0.02
    assert max(low_error, high_error) < 0.015


def test_each_image_is_right_within_its_own_standard_error() -> None:
    model = Linear(2)
    x, _ = data(model, 100)
    got = annealed_importance_sampling(model, x, generator=generator(), n_distributions=60, n_leapfrog=4, n_chains=64)
    off = (got.log_marginal - model.log_marginal(x)) / got.stderr
    assert off.abs().max() < 5
    assert off.std().item() == pytest.approx(1.0, abs=0.35)


def test_a_decoder_without_an_encoder_is_the_same_model() -> None:
    """The same chains through another implementation of the likelihood, in blocks of one image."""
    model = Linear(2)
    x, z = data(model, 5)
    decoder = GaussianDecoder(lambda z: z @ model.weight.T + model.offset, 2, math.sqrt(VARIANCE))
    run = {"n_distributions": 15, "n_chains": 4}
    for got, want in (
        (
            annealed_importance_sampling(decoder, x, generator=generator(), max_floats=1, **run),
            annealed_importance_sampling(model, x, generator=generator(), **run),
        ),
        (
            reverse_annealed_importance_sampling(decoder, x, z, generator=generator(), max_floats=45, **run),
            reverse_annealed_importance_sampling(model, x, z, generator=generator(), **run),
        ),
    ):
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_decoder_that_ignores_its_code_has_no_error() -> None:
    """p(x|z) = p(x): every weight is p(x), whatever the chains do."""
    logits = torch.tensor([0.3, -1.0, 2.0])
    decoder = BernoulliDecoder(lambda z: logits + 0 * z.sum(1, keepdim=True), 4)
    x, z = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), torch.zeros(2, 4)
    want = torch.distributions.Bernoulli(logits=logits.double()).log_prob(x.double()).sum(1)
    forward = annealed_importance_sampling(decoder, x, generator=generator(), n_distributions=20, n_chains=3)
    reverse = reverse_annealed_importance_sampling(decoder, x, z, generator=generator(), n_distributions=20, n_chains=3)
    for got in (forward, reverse):
        torch.testing.assert_close(got.log_marginal, want, rtol=1e-6, atol=0)
        assert got.stderr.max() < 1e-6
        assert got.log_marginal.dtype == torch.float64


class Box:
    """A likelihood of one inside (-1, 1) and zero outside: p(x) is the normal's mass there."""

    n_latent = 1

    def log_prior(self, z: Tensor) -> Tensor:
        return standard_normal_log_prob(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.where(z.abs() < 1, 0 * z, -math.inf).sum(-1)


def test_chains_of_weight_zero_count_as_zero() -> None:
    x = torch.zeros(3, 2, dtype=torch.float64)
    run = {"n_chains": 4000, "n_distributions": 4, "step_size": 0.3, "target_acceptance": None}
    got = annealed_importance_sampling(Box(), x, generator=generator(), **run)
    assert (got.chain_log_weights == -math.inf).any()
    mass = math.erf(math.sqrt(0.5))
    error = math.sqrt(mass * (1 - mass) / 4000)
    assert (got.log_marginal.exp() - mass).abs().max().item() < 4 * error
    inside = reverse_annealed_importance_sampling(Box(), x, x[:, :1] + 0.5, generator=generator(), n_distributions=4)
    assert inside.log_marginal.tolist() == [0.0] * 3


def test_step_sizes_adapt_image_by_image_and_can_be_frozen() -> None:
    """The recorded sizes, frozen, with the same random numbers give the same chains, forwards and backwards."""
    model = Linear(2)
    x, z = data(model, 5)
    run = {"n_distributions": 40, "n_chains": 4, "n_leapfrog": 3, "step_size": torch.linspace(0.1, 0.2, 5)}
    forward = annealed_importance_sampling(model, x, generator=generator(), **run)
    assert forward.step_size.shape == (39, 5)
    torch.testing.assert_close(forward.step_size[0], run["step_size"].double())
    assert len(forward.step_size[-1].unique()) == 5
    steps = (forward.step_size[1:] / forward.step_size[:-1]).log().abs()
    assert ((steps - math.log(1.02)).abs() < 1e-3).all()
    reverse = reverse_annealed_importance_sampling(model, x, z, generator=generator(), **run)
    torch.testing.assert_close(reverse.step_size[-1], run["step_size"].double())
    frozen = {**run, "target_acceptance": None}
    again = annealed_importance_sampling(model, x, generator=generator(), **frozen | {"step_size": forward.step_size})
    back = reverse_annealed_importance_sampling(
        model, x, z, generator=generator(), **frozen | {"step_size": reverse.step_size}
    )
    for got, want in ((again, forward), (back, reverse)):
        assert torch.equal(got.chain_log_weights, want.chain_log_weights)
        assert torch.equal(got.step_size, want.step_size)


def test_acceptance_comes_to_its_target() -> None:
    model = Linear(3, noise_variance=0.001)  # so sharp that the step size never meets its upper limit
    x, _ = data(model, 4)
    for target in (0.65, 0.9):
        got = annealed_importance_sampling(
            model, x, generator=generator(), n_distributions=400, target_acceptance=target, n_leapfrog=3
        )
        assert got.acceptance.tolist() == pytest.approx([target] * 4, abs=0.06)


def test_randomness_is_the_generators_alone() -> None:
    model = Linear(2)
    x, _ = data(model, 3)
    run = {"n_distributions": 10, "n_chains": 2}
    torch.manual_seed(1)
    first = annealed_importance_sampling(model, x, generator=generator(4), **run).log_marginal
    torch.manual_seed(2)
    assert torch.equal(first, annealed_importance_sampling(model, x, generator=generator(4), **run).log_marginal)
    assert not torch.equal(first, annealed_importance_sampling(model, x, generator=generator(5), **run).log_marginal)


@pytest.mark.parametrize("initial", ["prior", "posterior"])
def test_the_model_is_left_as_it_was(initial: str) -> None:
    model = BernoulliVAE(8, 4, 2)
    got = annealed_importance_sampling(
        model, torch.ones(3, 8), generator=generator(), n_distributions=5, initial=initial
    )
    assert not any(part.requires_grad for part in got)
    assert torch.is_grad_enabled()
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_progress_is_told_of_every_distribution_and_costs_are_as_stated() -> None:
    model, seen, calls = Linear(2), [], []
    x, _ = data(model, 3)
    inner = model.log_likelihood
    model.log_likelihood = lambda x, z: (calls.append(len(x)), inner(x, z))[1]  # type: ignore[method-assign, func-returns-value]
    annealed_importance_sampling(
        model,
        x,
        generator=generator(),
        n_distributions=7,
        n_leapfrog=3,
        progress=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(t, 7) for t in range(1, 8)]
    assert len(calls) == 1 + 6 * 3


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"n_chains": 0}, "n_chains is 0"),
        ({"n_distributions": 0}, "n_distributions is 0"),
        ({"n_leapfrog": 1.5}, "n_leapfrog is 1.5"),
        ({"max_floats": 0}, "max_floats is 0"),
        ({"schedule": "cosine"}, "schedule is 'cosine': it must be one of 'sigmoid', 'linear'"),
        ({"initial": "data"}, "initial is 'data'"),
        ({"target_acceptance": 1.0}, r"target_acceptance is 1\.0"),
        ({"step_size": 0.0}, r"step_size is 0\.0"),
        ({"step_size": math.nan}, "step_size is nan"),
        ({"step_size": torch.ones(2)}, r"step_size has the shape \(2,\)"),
        ({"step_size": torch.ones(999, 3)}, r"step_size has the shape \(999, 3\)"),
        ({"criterion": "log p"}, "criterion is 'log p'"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, object], said: str) -> None:
    model = Linear(2)
    x, z = data(model, 3)
    with pytest.raises(ValueError, match=said):
        annealed_importance_sampling(model, x, generator=generator(), **setting)
    with pytest.raises(ValueError, match=said):
        reverse_annealed_importance_sampling(model, x, z, generator=generator(), **setting)


def test_bad_models_and_data_are_refused() -> None:
    decoder = BernoulliDecoder(nn.Linear(2, 3), 2)
    x = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="12 of 12 pixels strictly between"):
        annealed_importance_sampling(decoder, x + 0.5, generator=generator())
    with pytest.raises(ValueError, match=r"BernoulliDecoder has no posterior\(x\)"):
        annealed_importance_sampling(decoder, x, generator=generator(), initial="posterior")
    with pytest.raises(ValueError, match=r"z_posterior has the shape \(3, 2\): it must be \(4, 2\)"):
        reverse_annealed_importance_sampling(decoder, x, torch.zeros(3, 2), generator=generator())
    with pytest.raises(ValueError, match="n_images is 0"):
        bidirectional_monte_carlo(decoder, 0, generator=generator())
    with pytest.raises(ValueError, match="Box has no method simulate"):
        bidirectional_monte_carlo(Box(), 2, generator=generator())
    decoder.log_prior = lambda z: standard_normal_log_prob(z / 2)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"model\.log_prior is not N\(0, I\)"):
        annealed_importance_sampling(decoder, x, generator=generator())
    with pytest.raises(ValueError, match="log density is nan"):
        annealed_importance_sampling(
            GaussianDecoder(lambda z: z[:, :1] * math.nan, 2, 1.0), x[:, :1], generator=generator()
        )
