"""Convolutional VAEs: the discretised logistic by scipy, the step, exact resume, scores of both kinds of pixels."""

import dataclasses
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from lib import datasets
from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.flat import FlatParameters
from lib.training.randomness import MinibatchOrder, Streams, generator
from replications.papers import Results
from replications.vae2013 import convolutional as module
from replications.vae2013 import figures_convolutional as figures
from replications.vae2013.config import AevbConfig, BaselinesConfig
from replications.vae2013.convolutional import (
    ConvolutionalConfig,
    ConvVAE,
    conv_step,
    discretised_logistic,
    measured,
    train_convolutional,
)
from replications.vae2013.evaluate import binarised

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
        train_convolutional(TINY, Workspace(tmp_path, 0, checkpoint_seconds=0, deadline=0.0))
    parts = train_convolutional(TINY, Workspace(tmp_path, 0))
    assert all(torch.equal(outcome.weights[name], parts.weights[name]) for name in outcome.weights)
    assert outcome.history == parts.history
    assert [row["samples"] for row in outcome.history] == [50 * step for step in range(1, 13)]


@pytest.fixture
def steps(monkeypatch):
    """Every step's arguments, in place of the steps; and nothing measured at the end."""
    taken = []
    monkeypatch.setattr(module, "measured", lambda *_: {})
    monkeypatch.setattr(module, "conv_step", lambda *arguments: taken.append(arguments))
    return taken


def test_a_step_gets_fresh_binary_pixels_fresh_noise_and_the_priors_weight(steps, tmp_path):
    config = dataclasses.replace(TINY, n_samples=8_000, batch=2000, learning_rate=0.0123)  # two epochs
    outcome = train_convolutional(config, Workspace(tmp_path, 3))
    torch.manual_seed(3)
    start = ConvVAE((1, 28, 28), (2, 3), 8, 3, "bernoulli").state_dict()
    assert all(torch.equal(outcome.weights[name], start[name]) for name in start)
    images = datasets.load("mnist-5k").split("train")[0].flatten(1)
    for i, (_, _, optimizer, x, noise, decay, _) in enumerate(steps):
        pixels = images[MinibatchOrder(3, 4000, 2000)(i)]
        assert torch.equal(x, dynamic_binarisation(pixels, generator(3, "binarise", i)))
        assert torch.equal(noise, torch.randn(2000, 3, generator=generator(3, "latent", i)))
        assert decay == pytest.approx(1 / 4000)
        assert optimizer.param_groups[0]["lr"] == 0.0123
    assert len(steps) == 4


def test_bytes_are_trained_on_as_they_are(steps, tmp_path):
    train_convolutional(dataclasses.replace(TINY, n_samples=100, observation="logistic"), Workspace(tmp_path, 0))
    images = datasets.load("mnist-5k").split("train")[0].flatten(1)
    assert torch.equal(steps[1][3], images[MinibatchOrder(0, 4000, 50)(1)].float())


def test_the_encoder_sees_bytes_on_minus_one_to_one():
    model = ConvVAE((3, 32, 32), (2, 3), 8, 4, "logistic")
    seen = model.encoder(torch.linspace(-1, 1, 256)[[0, 51, 255]].view(-1, 1, 1, 1).expand(-1, 3, 32, 32))
    q = model.posterior(torch.tensor([0.0, 51.0, 255.0])[:, None].expand(-1, 3072))
    assert torch.allclose(torch.cat([q.mean, q.logvar], 1), seen, atol=1e-6)


@torch.no_grad()
def test_scores_by_other_formulas(monkeypatch):
    shown = {}
    monkeypatch.setattr(module, "quality", lambda *given, **named: (shown.update(given=given, **named) or {}, {}))
    torch.manual_seed(0)
    model, digits = ConvVAE((1, 28, 28), (2, 3), 8, 3, "bernoulli"), datasets.load("mnist-5k").images[:1000]
    data = Dataset("made-up", digits, None, {"train": range(800), "test": range(800, 1000)}, "0" * 64, 255)
    last = model.encoder[-1]
    last.weight[0] = 0  # one unit says nothing of the image
    last.weight[1:3] *= 50
    last.bias[3:] = 1.0  # so wide a posterior that L_k leaves the bound behind
    model.decoder[0].weight.mul_(20)
    scores = measured(model, data, dataclasses.replace(TINY, n_importance=20), Streams(0))
    x = {split: binarised(data, split, torch.device("cpu")) for split in ("train", "test")}
    q = model.posterior(x["test"])
    law = Normal(q.mean, (0.5 * q.logvar).exp())
    assert scores["active_units"].value == 2
    assert scores["kl_test"].value == pytest.approx(kl_divergence(law, Normal(0.0, 1.0)).sum(1).mean().item(), rel=1e-5)
    means = torch.sigmoid(model.decoder(q.mean))
    assert scores["reconstruction_error"].value == pytest.approx((means - x["test"]).square().mean().item(), rel=1e-5)
    z = law.sample((20,))
    weights = Normal(0.0, 1.0).log_prob(z).sum(-1) - law.log_prob(z).sum(-1)
    weights += Bernoulli(logits=model.decoder(z.flatten(0, 1)).view(20, 200, 784)).log_prob(x["test"]).sum(-1)
    iwae, elbo = (weights.logsumexp(0) - math.log(20)).mean().item(), weights.mean().item()
    assert scores["iwae_test"].value == pytest.approx(iwae, abs=(iwae - elbo) / 4)
    assert scores["elbo_test"].value == pytest.approx(elbo, abs=(iwae - elbo) / 4)
    _, axes = torch.linalg.eigh(x["train"].T.cov())
    centred = x["test"] - x["train"].mean(0)
    left = centred - centred @ axes[:, -3:] @ axes[:, -3:].T
    assert scores["pca_error"].value == pytest.approx(left.square().mean().item(), rel=1e-3)
    samples, real, name = shown["given"]
    assert torch.equal(real, data.split("test")[0])
    assert (samples.shape, samples.dtype, name) == (real.shape, torch.uint8, "made-up")
    prior = torch.randn(200, 3, generator=generator(0, "quality"))
    grey = torch.sigmoid(model.decoder(prior)) * 255
    assert (samples.flatten(1) - grey).abs().max().item() < 0.51


@torch.no_grad()
def test_the_sheets_first_row_is_the_first_test_images_reconstructed():
    torch.manual_seed(0)
    model, data = ConvVAE((1, 28, 28), (2, 3), 8, 3, "bernoulli"), datasets.load("mnist-5k")
    model.decoder[0].weight.mul_(20)
    made = module.sheet(model, data, TINY, Streams(0))[0].float()
    x = binarised(data, "test", torch.device("cpu"))[:10]
    rows = {1: model.posterior(x).mean, 30: torch.randn(90, 3, generator=generator(0, "samples"))[:10]}
    for top, z in rows.items():
        images = (torch.sigmoid(model.decoder(z)) * 255).view(10, 28, 28)
        row = torch.stack([made[top : top + 28, 1 + 29 * i : 29 + 29 * i] for i in range(10)])
        assert (row - images).abs().max().item() < 0.51


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
    floor = outcome._replace(scores={"real_fid": outcome.scores["fid"]._replace(value=1.25)})
    for experiment, config, made in (
        ("convolutional-digits", TINY, outcome),
        ("aevb-nz3", AevbConfig("mnist-5k", 3, 100), outcome),
        ("baselines", BaselinesConfig("mnist-5k"), floor),
    ):
        run = Run("vae2013", experiment, "smoke", config, 0, {}, 1)
        execute(run, lambda run, workspace, made=made: made, store, Options())
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
        "training images in place of samples, digits",
    ]  # fmt: skip
    assert rows[1]["squared error"] == f"{outcome.scores['pca_error'].value:.4f}"
    assert rows[1]["FID[digits-cnn]"] == "–"
    assert (rows[3]["FID[digits-cnn]"], rows[3]["squared error"]) == ("1.2", "–")
    assert rows[1]["squared error"] != rows[0]["squared error"]
    assert "bits/dim, at most" not in rows[0]
    made = plt.imread(outcomes[0][1].folder / "samples.png")
    assert np.allclose(np.asarray(picture)[29:].reshape(-1), made[: 4 * 29 + 1].reshape(-1))  # reconstructions on
    assert figures.captions(Results(None, "smoke", store, [])) == {}
    assert "k = 4" in figures.captions(results)["table"]
