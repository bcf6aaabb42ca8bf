"""VAEs side by side against single ones, Gaussian pixels against torch.distributions, and what a floor does."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal

from lib.models.batched_vae import BatchedVAE, GaussianVAE, gaussian_pixels
from lib.models.gaussian_vae import BernoulliVAE

OBSERVATIONS = ("bernoulli", "gaussian")
FLOOR = -1.0


def made(observation, n_models=3, n_latent=2):
    model = BatchedVAE(
        n_models, 7, 5, n_latent, torch.Generator().manual_seed(0), observation=observation, logvar_floor=FLOOR
    )
    for parameter in model.parameters():  # far from small, so that floors and saturation are met
        parameter.data.mul_(4)
    return model


def data(observation, n_models=3):
    x = torch.rand(n_models, 6, 7, generator=torch.Generator().manual_seed(1))
    return x.round() if observation == "bernoulli" else x


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_each_model_is_the_single_one_with_its_weights(observation):
    model, x = made(observation), data(observation)
    z = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(2))
    q, log_likelihood = model.posterior(x), model.log_likelihood(x, z)
    for r in range(3):
        single = model.alone(r)
        assert isinstance(single, BernoulliVAE if observation == "bernoulli" else GaussianVAE)
        assert single.observation == observation
        torch.testing.assert_close(q.mean[r], single.posterior(x[r]).mean)
        torch.testing.assert_close(q.logvar[r], single.posterior(x[r]).logvar)
        torch.testing.assert_close(log_likelihood[r], single.log_likelihood(x[r], z[r]))
    assert not torch.allclose(log_likelihood[0], log_likelihood[1])


def test_a_single_model_sees_later_updates_and_takes_no_gradient():
    model = made("gaussian")
    single, x = model.alone(1), data("gaussian")[1]
    before = single.posterior(x).mean.clone()
    model.encoder_in.weight.data.add_(1)
    assert not torch.allclose(single.posterior(x).mean, before)
    assert not any(p.requires_grad for p in single.parameters())
    with pytest.raises(IndexError, match="no model 3"):
        model.alone(3)


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_the_log_likelihood_is_that_of_torch_distributions(observation):
    model, x = made(observation), data(observation)
    z = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(2))
    for r in range(3):
        h = torch.tanh(z[r] @ model.decoder_in.weight[r] + model.decoder_in.bias[r])
        outputs = h @ model.decoder_out.weight[r] + model.decoder_out.bias[r]
        if observation == "bernoulli":
            pixels = Bernoulli(logits=outputs)
        else:
            raw = outputs[:, 7:]
            assert (raw < FLOOR).any()
            assert (raw > FLOOR).any()
            pixels = Normal(torch.sigmoid(outputs[:, :7]), torch.exp(raw.clamp(min=FLOOR) / 2))
        expected = Independent(pixels, 1).log_prob(x[r])
        torch.testing.assert_close(model.log_likelihood(x, z)[r], expected, rtol=1e-4, atol=1e-4)


def test_a_density_has_its_ceiling_at_the_floor():
    """At the mean, with variance exp(floor): (log 2 pi + floor) / -2 nats a pixel, and no more however low the raw."""
    outputs = torch.tensor([[0.0, 0.0, -50.0, FLOOR - 1e-3]])
    pixels = gaussian_pixels(outputs, FLOOR)
    assert pixels.mean.tolist() == [[0.5, 0.5]]
    assert pixels.log_prob(pixels.mean).item() == pytest.approx(-(math.log(2 * math.pi) + FLOOR))


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_what_is_simulated_has_the_moments_of_the_decoder(observation):
    model = made(observation, n_models=2, n_latent=1)
    z = torch.tensor([[0.3], [-1.2]]).unsqueeze(1).expand(2, 40_000, 1)
    rng = torch.Generator().manual_seed(3)
    draw = torch.rand if observation == "bernoulli" else torch.randn
    x = model.simulated(z, draw(2, 40_000, 7, generator=rng))
    for r in range(2):
        single = model.alone(r)
        if observation == "bernoulli":
            assert set(x[r].unique().tolist()) == {0.0, 1.0}
            mean = torch.sigmoid(single.logits(z[r, 0]))
            variance = mean * (1 - mean)
        else:
            mean, variance = single.pixels(z[r, 0]).mean, single.pixels(z[r, 0]).logvar.exp()
        error = (variance / 40_000).sqrt()
        assert ((x[r].mean(0) - mean).abs() < 4.5 * error + 1e-6).all()
        torch.testing.assert_close(x[r].var(0), variance, rtol=0.05, atol=2e-3)


def test_one_models_input_moves_no_other_model():
    model, x = made("bernoulli"), data("bernoulli")
    before = model.posterior(x).mean
    x[1] = 1 - x[1]
    after = model.posterior(x).mean
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=0)
    assert not torch.allclose(after[1], before[1])


def test_bad_input_is_refused():
    rng = torch.Generator()
    with pytest.raises(ValueError, match=r"observation is 'poisson'.*'bernoulli', 'gaussian'"):
        BatchedVAE(1, 7, 5, 2, rng, observation="poisson")
    with pytest.raises(ValueError, match="n_models"):
        BatchedVAE(0, 7, 5, 2, rng)
