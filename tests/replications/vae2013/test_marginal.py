"""Figure 3's estimators where log p(x) is known: a linear-Gaussian model, in float64."""

import dataclasses
import math

import pytest
import torch

from lib.models.linear_gaussian import LinearGaussian
from lib.training.randomness import Streams, generator
from replications.vae2013.closed_forms import estimator_checks
from replications.vae2013.config import EstimatorsConfig
from replications.vae2013.figures import ESTIMATORS
from replications.vae2013.marginal import MarginalConfig, appendix_d, fitted_importance, posterior_start

CONFIG = MarginalConfig("mnist-5k", "mcem", 1000, 1000, burn_in=150, n_start=32)


class WithoutEncoder:
    """A linear-Gaussian model as an estimator sees a bare decoder."""

    def __init__(self, model):
        self.n_latent, self.log_prior, self.log_likelihood = model.n_latent, model.log_prior, model.log_likelihood


@pytest.fixture(scope="module")
def exact():
    made = generator(0, "model")
    weight = torch.randn(6, 3, generator=made, dtype=torch.float64)
    weight[:, 1] = 0.8 * weight[:, 0] + 0.6 * weight[:, 1]  # latents that are correlated given x
    return LinearGaussian(weight, torch.randn(6, generator=made, dtype=torch.float64), 0.5)


@pytest.fixture(scope="module")
def x(exact):
    return exact.sample(200, generator(0, "x"))


@pytest.mark.parametrize("start", ["prior draws", "posterior mean"])
def test_where_the_chains_start(exact, x, start):
    config = dataclasses.replace(CONFIG, burn_in=0, first_step_size=1e-4)  # they hardly move
    initial = exact.posterior_mean(x) if start == "posterior mean" else None
    found = appendix_d(WithoutEncoder(exact), x, config, generator(0, "start"), initial)
    expected = posterior_start(exact, x, 32, generator(0, "start")) if initial is None else initial
    torch.testing.assert_close(found.first[0], expected, rtol=0, atol=0.01)


def posterior_sample(model, x, n):
    noise = torch.randn(n, len(x), 3, 1, generator=generator(0, "posterior"), dtype=torch.float64)
    law = model.exact_posterior(x)
    return law.mean + (law.scale_tril @ noise).squeeze(-1)


def test_the_table_of_estimators_tells_on_which_side_each_lies():
    """So few draws and distributions that every mean error is far from 0; by Jensen appendix D's are above."""
    config = EstimatorsConfig(n_points=1000, n_importance=(1, 5), n_chains=2, n_distributions=10, n_posterior=16)
    scores = estimator_checks(config, Streams(0))
    for kind, (_, side) in ESTIMATORS.items():
        error = scores["iwae_5_error" if kind == "iwae" else f"{kind}_error"]
        sign = {"lower": -1, "upper": 1, "upper, if the chains have mixed": 1}[side]
        assert sign * error.value > 3 * error.stderr, kind


@pytest.mark.parametrize("start", ["prior draws", "posterior mean"])
def test_appendix_d_finds_the_exact_value(exact, x, start):
    initial = exact.posterior_mean(x) if start == "posterior mean" else None
    found = appendix_d(WithoutEncoder(exact), x, CONFIG, generator(0, "appendix d"), initial)
    error = found.value - exact.log_marginal(x)
    assert error.mean().item() == pytest.approx(0.02, abs=0.04)  # above on average; 50 draws
    assert error.std().item() < 0.3
    assert found.first.shape == (50, 200, 3)
    assert found.acceptance.mean().item() == pytest.approx(0.9, abs=0.05)


def test_importance_sampling_from_the_fit_finds_the_exact_value(exact, x):
    first = posterior_sample(exact, x, 50)
    truth = exact.log_marginal(x)
    for widening, k, spread in ((1.0, 1000, 0.05), (1.5, 1000, 0.05)):
        error = fitted_importance(exact, x, first, k, generator(0, "is"), widening) - truth
        assert error.mean().item() == pytest.approx(0, abs=0.005)
        assert error.std().item() < spread
    one = fitted_importance(exact, x, first, 1, generator(0, "is"), 1.5) - truth
    assert one.mean().item() < -0.1  # a lower bound, loose with one sample


def test_importance_sampling_is_unbiased_for_any_fit(exact, x):
    """E w = p(x) whatever q is: here a fit with the wrong place, scale and correlations."""
    first = exact.posterior_mean(x) + 0.3 + 0.9 * torch.randn(50, 200, 3, generator=generator(0, "fit")).double()
    value = fitted_importance(exact, x, first, 4000, generator(0, "is"), 1.3)
    assert (value - exact.log_marginal(x)).exp().mean().item() == pytest.approx(1, abs=0.02)


def test_the_fit_is_widened_as_much_as_is_asked(exact, x):
    """With one sample the loss is KL(N(m, c S) || N(m, S)) = (c - 1 - log c) Z / 2, up to the fit's own error."""
    first = posterior_sample(exact, x, 2000)
    loss = exact.log_marginal(x) - fitted_importance(exact, x, first, 1, generator(0, "is"), 3.0)
    assert loss.mean().item() == pytest.approx(1.5 * (2 - math.log(3)), abs=0.5)  # 3 standard errors over x


def test_every_sample_counts_once_where_they_are_drawn_in_blocks(exact, x, monkeypatch):
    first = posterior_sample(exact, x, 50)
    monkeypatch.setattr("replications.vae2013.marginal.MAX_FLOATS", 2 * x.numel())  # 5 samples: 2, 2 and 1
    value = fitted_importance(exact, x, first, 5, generator(0, "is"))
    assert (value - exact.log_marginal(x)).exp().mean().item() == pytest.approx(1, abs=0.05)


def test_a_stuck_chain_is_refused(exact, x):
    first = exact.posterior_mean(x[:2]).expand(50, -1, -1)
    with pytest.raises(ValueError, match="draws of image 0 span fewer than 3"):
        fitted_importance(exact, x[:2], first, 10, generator(0, "is"))


def test_chains_start_at_prior_draws_in_proportion_to_the_likelihood(exact, x):
    """With very many draws a start is a posterior draw; with one it is a draw of the prior."""
    many = posterior_start(exact, x, 4000, generator(0, "start"))
    standardised = torch.linalg.solve_triangular(
        exact.exact_posterior(x).scale_tril, (many - exact.posterior_mean(x)).unsqueeze(-1), upper=False
    ).squeeze(-1)
    assert standardised.mean(0).abs().max().item() < 4 / math.sqrt(200)
    assert standardised.std(0).tolist() == pytest.approx(3 * [1], abs=0.2)
    one = posterior_start(exact, x, 1, generator(0, "start"))
    assert one.mean(0).abs().max().item() < 4 / math.sqrt(200)
    assert one.std(0).tolist() == pytest.approx(3 * [1], abs=0.2)


def test_what_the_training_shares_with_figure_2():
    config = MarginalConfig("mnist-5k", "mcem", 1000, 700, n_models=2, n_latent=4, n_hidden=7, prior_precision=3.0)
    shared = config.training()
    for name in ("data", "n_samples", "n_models", "n_latent", "n_hidden", "batch", "init_sd", "learning_rates",
                 "n_trial_steps", "prior_precision"):  # fmt: skip
        assert getattr(shared, name) == getattr(config, name)
    assert shared.observation == "bernoulli"
