"""Posterior draws where the posterior is known, and log p(x) from them where log p(x) is."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from lib.likelihood.posterior import marginal_likelihood_from_posterior, posterior_draws
from lib.models.decoders import BernoulliDecoder
from lib.models.gaussian_vae import BernoulliVAE
from lib.models.linear_gaussian import LinearGaussian

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def linear(n_latent: int = 3) -> LinearGaussian:
    weight = normal(6, n_latent, seed=5)
    weight[:, 1] = 0.8 * weight[:, 0] + 0.6 * weight[:, 1]  # latents that are correlated given x
    return LinearGaussian(weight, normal(6, seed=6), 0.2)


def data(model: LinearGaussian, n: int) -> Tensor:
    return model.offset + normal(n, model.n_latent) @ model.weight.T + math.sqrt(0.2) * normal(n, 6, seed=2)


def exact(model: LinearGaussian, x: Tensor, draws: int, seed: int) -> Tensor:
    law = model.exact_posterior(x)
    return law.mean + normal(draws, len(x), model.n_latent, seed=seed) @ law.scale_tril[0].T


def test_the_estimate_is_its_definition_written_with_numpy_and_scipy() -> None:
    model = linear()
    x, first, second = data(model, 4), normal(20, 4, 3, seed=3), normal(30, 4, 3, seed=4)
    got = marginal_likelihood_from_posterior(model, x, samples=(first, second))
    for i in range(4):
        q = scipy.stats.multivariate_normal(first[:, i].mean(0).numpy(), np.cov(first[:, i].numpy().T))
        prior = scipy.stats.norm.logpdf(second[:, i].numpy()).sum(1)
        mean = (second[:, i] @ model.weight.T + model.offset).numpy()
        likelihood = scipy.stats.norm(mean, math.sqrt(0.2)).logpdf(x[i].numpy()).sum(1)
        reciprocal = np.exp(q.logpdf(second[:, i].numpy()) - prior - likelihood)
        assert got[i].item() == pytest.approx(-math.log(reciprocal.mean()), abs=1e-10)


def test_with_few_draws_the_fit_is_diagonal() -> None:
    model = linear()
    x, first, second = data(model, 2), normal(7, 2, 3, seed=3), normal(5, 2, 3, seed=4)
    got = marginal_likelihood_from_posterior(model, x, samples=(first, second))
    for i in range(2):
        q = scipy.stats.norm(first[:, i].mean(0).numpy(), first[:, i].std(0).numpy())
        log_q = torch.from_numpy(q.logpdf(second[:, i].numpy()).sum(1))
        ratio = log_q - model.log_prior(second[:, i]) - model.log_likelihood(x[i], second[:, i])
        assert got[i].item() == pytest.approx(-ratio.exp().mean().log().item(), abs=1e-10)


def test_the_fitted_posterior_leaves_no_variance() -> None:
    """q -> p(z|x): q / (p(z) p(x|z)) is 1 / p(x) at every draw, so one evaluated draw is enough."""
    model = linear()
    x = data(model, 20)
    samples = exact(model, x, 20_000, 3), exact(model, x, 1, 4)
    off = marginal_likelihood_from_posterior(model, x, samples=samples) - model.log_marginal(x)
    assert off.abs().max() < 0.08


def test_bias_and_spread_shrink_with_exact_draws() -> None:
    """The reciprocal is unbiased, so the estimate is too high. Appendix D: L draws to fit, and L more to use."""
    model = linear()
    x = data(model, 400)
    off = {
        count: marginal_likelihood_from_posterior(
            model, x, samples=(exact(model, x, count, 2 * count), exact(model, x, count, 2 * count + 1))
        )
        - model.log_marginal(x)
        for count in (10, 50, 500)
    }
    error = {count: values.std().item() / 20 for count, values in off.items()}
    assert off[10].mean() > 4 * error[10]
    assert off[10].mean() - off[500].mean() > 4 * error[10]
    assert off[10].std() > 3 * off[50].std() > 9 * off[500].std()
    assert abs(off[50].mean().item()) < 0.02
    assert abs(off[500].mean().item()) < 0.002
    assert off[500].std() < 0.02
    # E [1 / estimate] p(x) = 1; at 50 draws, where its variance is finite in practice.
    reciprocal = (-off[50]).exp()
    assert abs(reciprocal.mean().item() - 1) < 4 * reciprocal.std().item() / 20


def test_hamiltonian_draws_come_within_a_tenth_of_a_nat_for_three_latents() -> None:
    model = linear(3)
    x = data(model, 60)
    got = marginal_likelihood_from_posterior(model, x, draws=400, generator=generator(), n_leapfrog=6)
    assert (got - model.log_marginal(x)).abs().max() < 0.1
    assert abs((got - model.log_marginal(x)).mean().item()) < 0.01


def test_the_papers_fifty_draws_are_near_on_average() -> None:
    model = linear()
    x = data(model, 150)
    off = marginal_likelihood_from_posterior(model, x, generator=generator()) - model.log_marginal(x)
    assert abs(off.mean().item()) < 0.05
    assert off.std() < 0.3


def test_a_bernoulli_decoder_against_quadrature() -> None:
    torch.manual_seed(1)
    model = BernoulliVAE(20, 8, 2).double()
    with torch.no_grad():
        model.decoder_in.weight *= 2
        model.decoder_out.weight *= 4
    decoder = BernoulliDecoder(model.logits, 2)
    x = decoder.simulate(normal(12, 2), generator(1))
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).unsqueeze(1)
    with torch.no_grad():
        joint = decoder.log_prior(grid) + decoder.log_likelihood(x, grid.expand(-1, 12, 2))
    truth = torch.logsumexp(joint, 0) + 2 * math.log((axis[1] - axis[0]).item())
    # The untrained encoder is of no use: its mean only starts the chains, and the decoder alone starts at the prior.
    for each in (model, decoder):
        got = marginal_likelihood_from_posterior(each, x, draws=150, generator=generator(2), burn_in=100)
        assert (got - truth).abs().max() < 0.3
        assert abs((got - truth).mean().item()) < 0.05


@pytest.mark.parametrize("start", ["encoder", "far"])
def test_draws_have_the_exact_posterior(start: str) -> None:
    """One draw from each of many chains at the same x: independent, and white after the posterior's own whitening."""
    model = linear(2)
    x = data(model, 1).expand(3000, 6).contiguous()
    law = model.exact_posterior(x[:1])
    initial = None if start == "encoder" else torch.full((3000, 2), 3.0, dtype=torch.float64)
    got = posterior_draws(model, x, draws=1, generator=generator(), burn_in=80, initial=initial)
    white = (got.z[0] - law.mean) @ torch.linalg.inv(law.scale_tril[0]).T
    for column in white.T:
        assert scipy.stats.kstest(column.numpy(), scipy.stats.norm.cdf).pvalue > 1e-3
    assert abs(torch.corrcoef(white.T)[0, 1].item()) < 4 / math.sqrt(3000)


def test_the_step_size_is_tuned_to_its_target_and_then_frozen() -> None:
    model = linear()
    x = data(model, 10)
    got = posterior_draws(model, x, draws=200, generator=generator(), burn_in=200)
    assert got.z.shape == (200, 10, 3)
    assert got.acceptance.mean().item() == pytest.approx(0.9, abs=0.04)
    # Two runs part after the burn-in and share its random numbers: what comes after does not move the step size.
    again = posterior_draws(model, x, draws=5, generator=generator(), burn_in=200)
    assert torch.equal(again.step_size, got.step_size)
    assert torch.equal(again.z, got.z[:5])


def test_thinning_keeps_every_second_draw() -> None:
    model = linear()
    x = data(model, 3)
    every = posterior_draws(model, x, draws=10, generator=generator(), burn_in=5).z
    second = posterior_draws(model, x, draws=5, generator=generator(), burn_in=5, thin=2).z
    assert torch.equal(second, every[1::2])


def test_chains_start_at_the_posterior_mean() -> None:
    model = linear()
    x = data(model, 3)
    got = posterior_draws(model, x, draws=1, generator=generator(), burn_in=0, step_size=1e-9).z[0]
    torch.testing.assert_close(got, model.posterior_mean(x), rtol=0, atol=1e-6)


def test_blocks_and_the_global_generator_change_nothing() -> None:
    model = linear()
    x = data(model, 5)
    torch.manual_seed(1)
    first = marginal_likelihood_from_posterior(model, x, draws=20, generator=generator(), burn_in=20)
    torch.manual_seed(2)
    again = marginal_likelihood_from_posterior(model, x, draws=20, generator=generator(), burn_in=20, max_floats=1)
    torch.testing.assert_close(again, first, rtol=1e-9, atol=1e-9)
    other = marginal_likelihood_from_posterior(model, x, draws=20, generator=generator(1), burn_in=20)
    assert not torch.equal(other, first)


def test_the_first_half_of_the_chain_is_fitted_and_the_second_evaluated() -> None:
    model = linear()
    x = data(model, 4)
    z = posterior_draws(model, x, draws=30, generator=generator(), burn_in=20).z
    got = marginal_likelihood_from_posterior(model, x, draws=15, generator=generator(), burn_in=20)
    assert torch.equal(got, marginal_likelihood_from_posterior(model, x, samples=(z[:15], z[15:])))


def test_no_gradient_is_kept() -> None:
    model = BernoulliVAE(8, 4, 2)
    got = marginal_likelihood_from_posterior(model, torch.ones(3, 8), draws=10, generator=generator(), burn_in=50)
    assert got.shape == (3,)
    assert got.dtype == torch.float64
    assert not got.requires_grad
    assert torch.is_grad_enabled()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_stuck_chains_are_told() -> None:
    model = linear()
    x = data(model, 3)
    first = exact(model, x, 20, 3)
    first[:, 1] = first[:1, 1]
    with pytest.raises(ValueError, match="draws of image 1 span fewer than 3 dimensions: its chain is stuck"):
        marginal_likelihood_from_posterior(model, x, samples=(first, exact(model, x, 20, 4)))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"draws": 0}, "draws is 0"),
        ({"draws": 1}, "draws is 1"),
        ({"n_leapfrog": 0}, "n_leapfrog is 0"),
        ({"burn_in": -1}, "burn_in is -1"),
        ({"thin": 0}, "thin is 0"),
        ({"step_size": 0.0}, r"step_size is 0\.0"),
        ({"target_acceptance": 0.0}, r"target_acceptance is 0\.0"),
        ({"generator": None}, "generator is None"),
        ({"initial": torch.zeros(2, 3)}, r"initial has the shape \(2, 3\): it must be \(3, 3\)"),
        ({"samples": (torch.zeros(1, 3, 3), torch.zeros(5, 3, 3))}, "first set of samples has the shape"),
        ({"samples": (torch.zeros(5, 3, 3), torch.zeros(5, 3, 2))}, "second set of samples has the shape"),
        ({"criterion": "log p"}, "criterion is 'log p'"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, object], said: str) -> None:
    model = linear()
    with pytest.raises(ValueError, match=said):
        marginal_likelihood_from_posterior(model, data(model, 3), **{"generator": generator()} | setting)  # type: ignore[arg-type]


def test_grey_pixels_are_refused_under_a_bernoulli() -> None:
    model = BernoulliDecoder(nn.Linear(2, 4), 2)
    for estimate in (posterior_draws, marginal_likelihood_from_posterior):
        with pytest.raises(ValueError, match="12 of 12 pixels strictly between"):
            estimate(model, torch.full((3, 4), 0.5), draws=5, generator=generator())  # type: ignore[operator]
