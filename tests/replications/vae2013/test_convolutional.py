"""Convolutional VAEs: the discretised logistic by scipy, the step, exact resume, scores of both kinds of pixels."""

import dataclasses
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from lib import datasets
from lib.datasets import Dataset
from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.flat import FlatParameters
from lib.training.randomness import Streams
from replications.papers import Results
from replications.vae2013 import convolutional as module
from replications.vae2013 import figures_convolutional as figures
from replications.vae2013.config import AevbConfig
from replications.vae2013.convolutional import (
    ConvolutionalConfig,
    ConvVAE,
    conv_step,
    discretised_logistic,
    measured,
    train_convolutional,
)

TINY = ConvolutionalConfig(
    "mnist-5k", 600, n_latent=3, n_filters=(2, 3), n_dense=8, batch=50, n_elbo_draws=2, n_importance=4
)


def test_the_256_levels_share_the_probability():
    levels = torch.arange(256.0)
    for mean, log_scale in ((0.0, -3.0), (-0.99, -5.0), (0.7, 0.5), (2.0, -4.0)):
        logs = discretised_logistic(levels, torch.tensor(mean), torch.tensor(log_scale))
        assert logs.double().exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_a_level_has_the_logistics_mass_in_its_bin():
    mean, scale = 0.3, math.exp(-2.5)
    law = scipy.stats.logistic(mean, scale)
    centres = np.arange(256) / 127.5 - 1
    expected = law.cdf(centres + 1 / 255) - law.cdf(centres - 1 / 255)
    expected[0], expected[255] = law.cdf(centres[0] + 1 / 255), law.sf(centres[255] - 1 / 255)
    got = discretised_logistic(torch.arange(256.0), torch.tensor(mean), torch.tensor(-2.5))
    assert np.allclose(got.numpy(), np.log(expected), atol=2e-3)


def test_far_out_in_a_tail_the_logarithm_is_finite_and_has_a_gradient():
    mean = torch.tensor(-0.9, requires_grad=True)
    value = discretised_logistic(torch.tensor(250.0), mean, torch.tensor(-6.0))
    value.backward()
    assert torch.isfinite(value)
    assert mean.grad.item() == pytest.approx(math.exp(6), rel=0.01)  # d/dmean of -(x - mean) / s


@pytest.mark.parametrize("observation", ["bernoulli", "logistic"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_shapes_and_the_bound_of_a_step(shape, observation):
    torch.manual_seed(0)
    model = ConvVAE(shape, (2, 3), 8, 4, observation)
    n_pixels = math.prod(shape)
    high = 2 if observation == "bernoulli" else 256
    x = torch.randint(high, (5, n_pixels), generator=torch.Generator().manual_seed(1)).float()
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    q = model.posterior(x)
    law = Normal(q.mean, (0.5 * q.logvar).exp())
    z = law.mean + law.stddev * noise
    out = model.decoder(z)
    assert model.outputs(torch.stack([z, z])).shape == (2, 5, n_pixels)
    assert torch.allclose(model.outputs(torch.stack([noise, z]))[1], out, atol=1e-5)
    if observation == "bernoulli":
        log_likelihood = Bernoulli(logits=out).log_prob(x).sum(-1)
        assert torch.allclose(model.means(z), torch.sigmoid(out))
    else:
        log_likelihood = discretised_logistic(x, out, model.log_scale).sum(-1)
        assert 0 <= model.means(z).min() <= model.means(z).max() <= 1
    expected = (log_likelihood - kl_divergence(law, Normal(0.0, 1.0)).sum(-1)).mean()
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    flat = FlatParameters(model)
    before = [p.detach().clone() for p in flat.parameters]
    optimizer = torch.optim.SGD([flat.vector], lr=0.01)
    assert conv_step(model, flat, optimizer, x, noise, 0.5).item() == pytest.approx(expected.item(), rel=1e-5)
    for parameter, start, gradient in zip(flat.parameters, before, gradients, strict=True):
        step = 0.01 * (gradient - 0.5 * start)
        assert torch.allclose(parameter.detach() - start, step, atol=1e-4 + 1e-3 * step.abs().max().item())


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return train_convolutional(TINY, Workspace(tmp_path_factory.mktemp("whole"), 0))


def test_stopped_and_gone_on_ends_in_the_same_bits(outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measured", lambda *_: {})
    with pytest.raises(OutOfTime):
        train_convolutional(TINY, Workspace(tmp_path, 0, checkpoint_seconds=0, deadline=time.time()))
    parts = train_convolutional(TINY, Workspace(tmp_path, 0))
    assert all(torch.equal(outcome.weights[name], parts.weights[name]) for name in outcome.weights)
    assert outcome.history == parts.history
    assert [row["samples"] for row in outcome.history] == [50 * step for step in range(1, 13)]


def test_another_seed_is_another_model(outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "measured", lambda *_: {})
    other = train_convolutional(TINY, Workspace(tmp_path, 1))
    assert not torch.equal(outcome.weights["encoder.0.weight"], other.weights["encoder.0.weight"])


def test_scores_of_digits(outcome):
    scores = outcome.scores
    assert scores["gap"].value == pytest.approx(scores["elbo_train"].value - scores["elbo_test"].value)
    assert scores["elbo_test"].value < scores["iwae_test"].value + 0.5
    assert (scores["elbo_test"].n, scores["elbo_train"].n, scores["fid"].n) == (1000, 4000, 1000)
    assert "bits_per_dim" not in scores
    assert 0.03 < scores["pca_error"].value < scores["reconstruction_error"].value < 0.3  # hardly trained
    assert outcome.samples.shape == (1, 10 * 29 + 1, 10 * 29 + 1)
    assert outcome.facts["parameters"] == sum(weight.numel() for weight in outcome.weights.values())


def test_scores_of_bytes_have_bits_and_components():
    images = torch.randint(256, (60, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, :, :, 16:] = images[:, :, :1, :1]  # a part that a few components explain
    data = Dataset("made-up", images, None, {"train": range(40), "test": range(40, 60)}, "0" * 64, 255)
    config = dataclasses.replace(TINY, data="made-up", observation="logistic")
    torch.manual_seed(0)
    model = ConvVAE((3, 32, 32), (2, 3), 8, 3, "logistic")
    scores = measured(model, data, config, Streams(0))
    bits = -scores["elbo_test"].value / (3072 * math.log(2))
    assert scores["bits_per_dim"].value == pytest.approx(bits, rel=1e-6)
    assert 8 < bits < 20  # noise costs eight bits at least
    assert not scores["bits_per_dim"].higher_is_better
    assert 0 < scores["pca_error"].value < 0.2
    assert scores["pca_error"].value < scores["reconstruction_error"].value < 1
    assert "fid" not in scores  # no extractor is named for such images
    assert module.sheet(model, data, config, Streams(0)).shape == (3, 10 * 33 + 1, 10 * 33 + 1)


def test_figures_read_the_runs(outcome, tmp_path):
    store, outcomes = Store(tmp_path), []
    for experiment, config in (("convolutional-digits", TINY), ("aevb-nz3", AevbConfig("mnist-5k", 3, 100))):
        run = Run("vae2013", experiment, "smoke", config, 0, {}, 1)
        execute(run, lambda run, workspace: outcome, store, Options())
        outcomes.append((run, store.read(run)))
    results = Results(None, "smoke", store, outcomes)
    figure = figures.reconstructions(results)
    picture = figure.axes[0].get_images()[0].get_array()
    plt.close(figure)
    first = datasets.load("mnist-5k").split("test")[0][0, 0].float().div(255).numpy()
    assert np.allclose(picture[1:29, 1:29, 0] if picture.ndim == 3 else picture[1:29, 1:29], first)
    rows = figures.table(results).to_dict("records")
    assert [row["model"] for row in rows] == [
        "convolutional, digits", "3 components, digits", "MLP (AEVB), digits",
    ]  # fmt: skip
    assert rows[1]["squared error"] == f"{outcome.scores['pca_error'].value:.4f}"
    assert rows[1]["FID"] == "–"
    assert "bits/dim, at most" not in rows[0]
    assert figures.captions(Results(None, "smoke", store, [])) == {}
    assert "k = 4" in figures.captions(results)["table"]
