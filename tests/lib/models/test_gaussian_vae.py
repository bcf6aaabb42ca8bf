"""The diagonal Gaussian against torch.distributions; the VAE's sizes against the paper's."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from lib.models.gaussian_vae import BernoulliVAE, Gaussian, standard_normal_log_prob


def random_gaussian(batch: int = 4, n_latent: int = 3) -> Gaussian:
    mean, logvar = torch.randn(2, batch, n_latent, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Gaussian(mean, logvar)


def test_log_prob_is_that_of_torch_distributions() -> None:
    q = random_gaussian()
    z = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    want = Independent(Normal(q.mean, (0.5 * q.logvar).exp()), 1).log_prob(z)
    assert want.shape == (5, 4)
    torch.testing.assert_close(q.log_prob(z), want, rtol=1e-13, atol=1e-13)


def test_the_prior_is_the_standard_normal() -> None:
    z = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    zero = torch.zeros(4, 3, dtype=torch.float64)
    torch.testing.assert_close(standard_normal_log_prob(z), Gaussian(zero, zero).log_prob(z), rtol=1e-14, atol=0)
    assert standard_normal_log_prob(torch.zeros(2)).item() == pytest.approx(-math.log(2 * math.pi), rel=1e-6)


def test_moments_of_samples() -> None:
    q, count = random_gaussian(), 200_000
    noise = torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    z = q.sample(noise)
    variance = q.logvar.exp()
    off_mean = (z.mean(0) - q.mean) / (variance / count).sqrt()
    off_variance = (z.var(0) / variance - 1) / math.sqrt(2 / count)
    assert off_mean.abs().max() < 4.5  # 12 cells each: a sound sampler fails once in some ten thousand seeds
    assert off_variance.abs().max() < 4.5


def test_samples_are_reparametrised() -> None:
    """dz / d mean = 1 and dz / d logvar = sd * noise / 2: without them AEVB has no gradient in the encoder."""
    mean, logvar = (part.requires_grad_() for part in random_gaussian())
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    by_mean, by_logvar = torch.autograd.grad(Gaussian(mean, logvar).sample(noise).sum(), (mean, logvar))
    assert torch.equal(by_mean, torch.ones_like(mean))
    torch.testing.assert_close(by_logvar, (0.5 * logvar).exp().detach() * noise / 2)


@pytest.mark.parametrize(
    ("n_latent", "count"), [(2, 788_788), (3, 790_290), (5, 793_294), (10, 800_804), (20, 815_824), (200, 1_086_184)]
)
def test_parameter_counts_of_the_paper(n_latent: int, count: int) -> None:
    """MNIST, 500 hidden units; counted by hand from appendix C."""
    with torch.device("meta"):
        model = BernoulliVAE(784, 500, n_latent)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_formulas_of_appendix_c() -> None:
    """Written out with W and b, so that a swapped layer, head or activation shows."""
    torch.manual_seed(0)
    model = BernoulliVAE(6, 5, 2).double()
    p = dict(model.named_parameters())
    x, z = torch.rand(3, 6, dtype=torch.float64), torch.randn(4, 3, 2, dtype=torch.float64)
    h = torch.tanh(x @ p["encoder_in.weight"].T + p["encoder_in.bias"])
    heads = h @ p["encoder_out.weight"].T + p["encoder_out.bias"]
    q = model.posterior(x)
    torch.testing.assert_close(q.mean, heads[:, :2])
    torch.testing.assert_close(q.logvar, heads[:, 2:])
    y = torch.sigmoid(
        torch.tanh(z @ p["decoder_in.weight"].T + p["decoder_in.bias"]) @ p["decoder_out.weight"].T
        + p["decoder_out.bias"]
    )  # (4, 3, 6)
    want = (x * y.log() + (1 - x) * (1 - y).log()).sum(-1)
    torch.testing.assert_close(model.log_likelihood(x, z), want)
    assert torch.equal(model.log_prior(z), standard_normal_log_prob(z))
