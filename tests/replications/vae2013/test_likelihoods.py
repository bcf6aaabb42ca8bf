"""Every bound of the likelihood table on a model of one latent, whose log p(x) a sum over a grid of z gives."""

from types import SimpleNamespace

import pytest
import torch

from lib.models.gaussian_vae import BernoulliVAE
from lib.training.randomness import Streams
from replications.vae2013.likelihoods import bracket

SETTINGS = SimpleNamespace(n_distributions=100, n_chains=8, n_leapfrog=3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = BernoulliVAE(12, 6, 1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    with torch.no_grad():
        for parameter in model.encoder_out.parameters():
            parameter.mul_(0.3)  # q not too far from the prior, or no number of samples would do
    return model


@torch.no_grad()
def exact(model, x):
    """log p(x) by the trapezoidal rule over z."""
    z = torch.linspace(-8, 8, 4001)[:, None, None].expand(-1, len(x), 1)
    log_joint = model.log_prior(z).double() + model.log_likelihood(x, z).double()
    return torch.logsumexp(log_joint, 0) + torch.log(torch.tensor(16 / 4000.0))


@pytest.fixture(scope="module")
def found(model):
    with torch.no_grad():
        z = torch.randn(60, 1, generator=torch.Generator().manual_seed(1))
        x = torch.bernoulli(torch.sigmoid(model.logits(z)), generator=torch.Generator().manual_seed(2))
        x = 1 - x  # unlike what the model simulates, so that the two kinds of images are told apart
    scores = bracket(model, x, SETTINGS, {"data": "made up"}, Streams(3))
    return x, scores, exact(model, x)


def test_bounds_rise_to_the_exact_value(found):
    _, scores, truth = found
    names = ["few_elbo", "few_iwae_5", "few_iwae_50", "few_iwae_5000"]
    values = [scores[name].value for name in names]
    assert values == sorted(values)
    assert values[0] < truth.mean().item() - 0.1  # q is far from the posterior here
    assert values[-1] == pytest.approx(truth.mean().item(), abs=0.15)
    assert scores["few_iwae_5000"].stderr == pytest.approx((truth.std() / 60**0.5).item(), rel=0.05)
    assert {scores[name].n for name in names} == {60}


def test_annealing_is_near_the_exact_value_and_below_it(found):
    _, scores, truth = found
    assert truth.mean().item() - 0.4 < scores["few_ais"].value < truth.mean().item() + 0.1
    assert scores["few_ais"].value > scores["few_iwae_5"].value


def test_the_bracket_encloses_simulated_images(found):
    _, scores, _ = found
    lower, upper, gap = (scores[f"ais_{name}"] for name in ("lower", "upper", "gap"))
    assert lower.value < scores["simulated_iwae_5000"].value + 0.05 < upper.value + 0.2
    assert gap.value == pytest.approx(upper.value - lower.value, abs=1e-6)
    assert 0 < gap.value < 1
    assert not gap.higher_is_better
    assert {lower.n, upper.n, gap.n} == {30}
    assert lower.protocol["split"] == "simulated"


def test_protocols_name_estimator_and_settings(found):
    _, scores, _ = found
    assert scores["few_ais"].protocol == {
        "data": "made up", "estimator": "annealed importance sampling, lower bound", "n_chains": 8,
        "n_distributions": 100, "n_leapfrog": 3, "initial": "posterior",
    }  # fmt: skip
    assert scores["few_iwae_50"].protocol["draws"] == 50
    assert len({str(sorted(score.protocol.items())) for score in scores.values()}) == len(scores)
