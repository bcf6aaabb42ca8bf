"""Decoders against torch.distributions, under leading axes, on images, and in modes in which they have no density."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from lib.models.decoders import BernoulliDecoder, GaussianDecoder, normal_to_uniform


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(n_latent: int = 3, n_pixels: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n_latent, 5), nn.Tanh(), nn.Linear(5, n_pixels)).double()


def draws(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_bernoulli_log_likelihood_is_that_of_torch_distributions() -> None:
    net, z = network(), draws(2, 4, 5, 3)
    x = (draws(5, 6, seed=2) > 0).double()
    want = Bernoulli(logits=net(z)).log_prob(x).sum(-1)
    assert want.shape == (2, 4, 5)
    torch.testing.assert_close(BernoulliDecoder(net, 3).log_likelihood(x, z), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigma", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_gaussian_log_likelihood_is_that_of_torch_distributions(sigma: float, as_tensor: bool) -> None:
    net, z, x = network(), draws(2, 4, 5, 3), draws(5, 6, seed=2)
    want = Normal(net(z), sigma).log_prob(x).sum(-1)
    decoder = GaussianDecoder(net, 3, torch.tensor(sigma, dtype=torch.float64) if as_tensor else sigma)
    torch.testing.assert_close(decoder.log_likelihood(x, z), want, rtol=1e-12, atol=1e-12)


def test_the_prior_is_the_standard_normal() -> None:
    z = draws(2, 5, 3)
    want = Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(GaussianDecoder(network(), 3, 1.0).log_prior(z), want, rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_a_network_of_images_and_images_as_data(kind: str) -> None:
    """A generator gives (n, C, H, W) and knows no leading axes; rows and images are the same data."""
    flat = network(3, 8)
    images = nn.Sequential(flat, nn.Unflatten(1, (2, 2, 2)))
    x, z = (draws(5, 2, 2, 2, seed=2) > 0).double(), draws(4, 5, 3)
    of = {"bernoulli": BernoulliDecoder, "gaussian": lambda net, n: GaussianDecoder(net, n, 0.3)}[kind]
    want = of(flat, 3).log_likelihood(x.flatten(1), z)  # type: ignore[operator]
    got = of(images, 3).log_likelihood(x, z)  # type: ignore[operator]
    assert got.shape == (4, 5)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=0)
    one = of(images, 3).log_likelihood(x, z[2])  # type: ignore[operator]
    torch.testing.assert_close(one, want[2], rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_gradient_in_z(kind: str) -> None:
    net, x = network(), (draws(2, 6, seed=2) > 0).double()
    decoder = BernoulliDecoder(net, 3) if kind == "bernoulli" else GaussianDecoder(net, 3, 0.3)
    z = draws(3, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: decoder.log_likelihood(x, z), z)


def test_simulations_have_the_decoders_moments() -> None:
    net, z, count = network(), draws(1, 3), 100_000
    many = z.expand(count, 3)
    p = torch.sigmoid(net(z))[0]
    ones = BernoulliDecoder(net, 3).simulate(many, generator())
    assert set(ones.unique().tolist()) == {0.0, 1.0}
    assert ((ones.mean(0) - p) / (p * (1 - p) / count).sqrt()).abs().max() < 4.5
    x = GaussianDecoder(net, 3, 0.2).simulate(many, generator())
    assert ((x.mean(0) - net(z)[0]) / (0.2 / math.sqrt(count))).abs().max() < 4.5
    assert ((x.std(0) / 0.2 - 1) * math.sqrt(2 * count)).abs().max() < 4.5
    assert torch.equal(x, GaussianDecoder(net, 3, 0.2).simulate(many, generator()))


def test_normal_to_uniform_is_the_normal_distribution_function() -> None:
    e = torch.linspace(-6, 6, 101, dtype=torch.float64)
    want = math.sqrt(3) * (2 * torch.from_numpy(scipy.stats.norm.cdf(e.numpy())) - 1)
    torch.testing.assert_close(normal_to_uniform(e), want, rtol=1e-12, atol=1e-14)
    assert normal_to_uniform(torch.tensor(40.0), 2.5).item() == 2.5


def test_normal_noise_becomes_uniform_noise() -> None:
    u = normal_to_uniform(draws(50_000), 1.5)
    assert scipy.stats.kstest(u.numpy(), scipy.stats.uniform(-1.5, 3.0).cdf).pvalue > 1e-3


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(5, dtype=torch.float64)])
def test_a_network_that_uses_the_batch_or_chance_is_refused(layer: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(3, 5, dtype=torch.float64), layer, nn.Linear(5, 6, dtype=torch.float64))
    decoder = GaussianDecoder(net, 3, 1.0)
    with pytest.raises(ValueError, match=rf"{type(layer).__name__} '1' uses the batch or chance: call \.eval\(\)"):
        decoder.log_likelihood(draws(4, 6), draws(4, 3))
    decoder.eval()
    assert decoder.log_likelihood(draws(4, 6), draws(4, 3)).shape == (4,)


def test_batch_normalisation_without_running_statistics_has_no_evaluation_mode() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6, track_running_stats=False)).double().eval()
    with pytest.raises(ValueError, match="uses the batch"):
        GaussianDecoder(net, 3, 1.0).decode(draws(4, 3))


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_sigma_is_positive_and_finite(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"sigma is .*above 0"):
        GaussianDecoder(network(), 3, sigma)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma has the shape \(2,\)"):
        GaussianDecoder(network(), 3, torch.ones(2))
    with pytest.raises(ValueError, match="n_latent is 0"):
        BernoulliDecoder(network(), 0)
    with pytest.raises(ValueError, match=r"x is \(4, 7\) and the decoder gave \(4, 6\)"):
        BernoulliDecoder(network(), 3).log_likelihood(torch.zeros(4, 7), draws(4, 3))
