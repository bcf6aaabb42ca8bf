"""Annealed importance sampling through networks of two latents, whose log p(x) a sum over a grid gives."""

import math

import pytest
import torch
from torch import Tensor, nn

from lib.datasets.loading import load
from lib.likelihood import importance_weighted_bound
from lib.likelihood.annealing import (
    annealed_importance_sampling,
    bidirectional_monte_carlo,
)
from lib.models.decoders import GaussianDecoder, normal_to_uniform
from lib.models.gaussian_vae import BernoulliVAE

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


@pytest.fixture(scope="module")
def vae() -> tuple[BernoulliVAE, Tensor]:
    """Two latents, trained for seconds on binarised 8 x 8 digits; and twelve digits it has not seen."""
    digits = (load("uci-digits").images.flatten(1) > 7).double()
    torch.manual_seed(0)
    model = BernoulliVAE(64, 32, 2).double()
    optimizer, noise = torch.optim.Adam(model.parameters(), 0.01), generator()
    for step in range(400):
        x = digits[100 * (step % 15) :][:100]
        q = model.posterior(x)
        z = q.sample(torch.randn(100, 2, generator=noise, dtype=torch.float64))
        loss = (q.log_prob(z) - model.log_prior(z) - model.log_likelihood(x, z)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, digits[1500:1512]


def quadrature(model: BernoulliVAE, x: Tensor) -> Tensor:
    """log p(x) by the trapezoid rule over the plane: (N, D) -> (N,)."""
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).unsqueeze(1)  # (G, 1, 2)
    with torch.no_grad():
        joint = torch.cat([model.log_prior(grid) + model.log_likelihood(one[None], grid) for one in x], 1)
    return torch.logsumexp(joint, 0) + 2 * math.log((axis[1] - axis[0]).item())


def test_a_trained_vae_against_quadrature(vae: tuple[BernoulliVAE, Tensor]) -> None:
    """Bernoulli pixels, a learned decoder: AIS from both starts and the importance-weighted bound agree with it."""
    model, x = vae
    truth = quadrature(model, x)
    assert truth.mean() > -32  # it has learned: an untrained one scores about -46
    weighted = importance_weighted_bound(model, x, 5000, generator())
    assert abs((weighted - truth).mean().item()) < 0.03
    for initial in ("prior", "posterior"):
        got = annealed_importance_sampling(
            model, x, generator=generator(1), initial=initial, n_chains=32, n_distributions=100, n_leapfrog=5
        )
        assert ((got.log_marginal - truth) / got.stderr).abs().max() < 4.5
        assert got.stderr.max() < 0.4
        mean_error = got.stderr.square().sum().sqrt().item() / len(x)
        assert abs((got.log_marginal - truth).mean().item()) < 4 * mean_error
        assert abs((got.log_marginal - weighted).mean().item()) < 4 * mean_error + 0.02


def test_a_trained_vae_is_bracketed_on_its_own_samples(vae: tuple[BernoulliVAE, Tensor]) -> None:
    model, _ = vae
    bracket = bidirectional_monte_carlo(
        model,
        40,
        generator=generator(),
        simulate=lambda z, g: torch.bernoulli(torch.sigmoid(model.logits(z)), generator=g),
        dtype=torch.float64,
        n_distributions=60,
        n_leapfrog=5,
    )
    truth = quadrature(model, bracket.x)
    for gap in (truth - bracket.lower.log_marginal, bracket.upper.log_marginal - truth):
        mean, error = mean_and_error(gap)
        assert mean > -4 * error
        assert mean < 0.15


def test_uniform_noise_against_quadrature_over_its_box() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    decoder = GaussianDecoder(lambda e: net(normal_to_uniform(e)), 2, sigma=0.2)
    e = torch.randn(20, 2, generator=generator(), dtype=torch.float64)
    x = decoder.simulate(e, generator(1))
    cells = 300
    axis = math.sqrt(3) * (2 * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells - 1)
    inside = GaussianDecoder(net, 2, sigma=0.2)
    with torch.no_grad():
        log_likelihood = inside.log_likelihood(x, torch.cartesian_prod(axis, axis).unsqueeze(1).expand(-1, 20, 2))
    truth = torch.logsumexp(log_likelihood, 0) - 2 * math.log(cells)
    got = annealed_importance_sampling(decoder, x, generator=generator(2), n_chains=64, n_distributions=60)
    assert ((got.log_marginal - truth) / got.stderr).abs().max() < 4.5
    assert got.stderr.max() < 0.2
