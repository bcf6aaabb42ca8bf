"""Class-conditional VAEs beside networks of equal size: bounds by torch.distributions, Bayes, exact resume, figures."""

import dataclasses
import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

from lib import datasets
from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.flat import FlatParameters
from lib.training.randomness import Streams
from replications.papers import Results
from replications.vae2013 import class_conditional as module
from replications.vae2013 import figures_class_conditional as figures
from replications.vae2013.class_conditional import (
    N_CLASSES,
    ClassConditionalConfig,
    Classifier,
    ConditionalVAE,
    LabelledMinibatches,
    _confident,
    _error,
    _log_loss,
    ascend,
    class_bounds,
    class_sheet,
    conditional_bound,
    generative_and_discriminative,
    references,
)
from replications.vae2013.presets import PRESETS

TINY = ClassConditionalConfig(
    "mnist-5k", 60, 6, n_models=2, n_latent=3, n_hidden=8, n_classifier=10, batch=20, n_draws=2, n_importance=3,
    n_samples=30, n_noise=10,
)  # fmt: skip


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def made():
    vae = ConditionalVAE(TINY, 12, rng())
    x = torch.bernoulli(torch.full((4, 12), 0.4), generator=rng(1))
    return vae, x


def of_model(vae, r, x, y):
    """Model r's q(z|x, y) and p(x|y, z), by plain products and torch.distributions."""
    layer = {name: (module.weight[r], module.bias[r]) for name, module in vae.named_children()}

    def through(name, value):
        weight, bias = layer[name]
        return value @ weight + bias

    mean, logvar = through("encoder_out", torch.tanh(through("encoder_in", torch.cat([x, y], -1)))).chunk(2, -1)
    q = Normal(mean, (0.5 * logvar).exp())

    def p(z, y=y):
        return Bernoulli(logits=through("decoder_out", torch.tanh(through("decoder_in", torch.cat([z, y], -1)))))

    return q, p


def p_of(vae, r, z, y):
    """p(x|y, z) at many z."""
    return of_model(vae, r, torch.zeros(1, 12), y)[1](z, y.expand(len(z), -1))


def normal_grid(n):
    """Gauss-Hermite points of three independent standard normals, (n^3, 3), and the logarithms of their weights."""
    nodes, weights = (torch.from_numpy(each).float() for each in hermegauss(n))
    points = torch.cartesian_prod(nodes, nodes, nodes)
    return points, torch.cartesian_prod(*[(weights / weights.sum()).log()] * 3).sum(1)


def test_both_kinds_have_equally_many_parameters():
    for config in (c for preset in ("laptop", "paper") for c in PRESETS[preset].values()):
        if isinstance(config, ClassConditionalConfig):
            networks = [kind(config, 784, rng()) for kind in (ConditionalVAE, Classifier)]
            sizes = [sum(p.numel() for p in network.parameters()) for network in networks]
            assert sizes[0] == pytest.approx(sizes[1], rel=0.002)


def test_the_bound_is_that_of_each_model_and_class(made):
    vae, x = made
    y = F.one_hot(torch.tensor([3, 0, 9, 3]), N_CLASSES).float()
    noise = torch.randn(2, 4, 3, generator=rng(2))
    got = conditional_bound(vae, x.expand(2, -1, -1), y.expand(2, -1, -1), noise)
    for r in range(2):
        q, p = of_model(vae, r, x, y)
        z = q.mean + q.stddev * noise[r]
        expected = p(z).log_prob(x).sum(-1) - kl_divergence(q, Normal(0.0, 1.0)).sum(-1)
        assert torch.allclose(got[r], expected, atol=1e-4)


@torch.no_grad()
def test_bounds_of_all_classes_stand_at_their_image_and_class(made, monkeypatch):
    vae, x = made
    monkeypatch.setattr("replications.vae2013.class_conditional._ALIVE", 2 * 10 * 4000 * 12 * 3)  # blocks of 3 images
    plain, weighted = class_bounds(vae, x, 4000, TINY, rng(3))
    assert plain.shape == weighted.shape == (2, 4, N_CLASSES)
    points, logs = normal_grid(24)  # of the prior, so that log p(x|y) and E_q have no Monte Carlo error
    for r, i, c in ((0, 0, 2), (1, 3, 7), (0, 2, 9)):
        y = F.one_hot(torch.tensor([c]), N_CLASSES).float()
        q, _ = of_model(vae, r, x[i : i + 1], y)
        log_likelihood = p_of(vae, r, points, y).log_prob(x[i]).sum(-1)
        at_posterior = p_of(vae, r, q.mean + q.stddev * points, y).log_prob(x[i]).sum(-1)
        bound = (at_posterior * logs.exp()).sum() - kl_divergence(q, Normal(0.0, 1.0)).sum()
        assert plain[r, i, c].item() == pytest.approx(bound.item(), abs=0.05)
        assert weighted[r, i, c].item() == pytest.approx((log_likelihood + logs).logsumexp(0).item(), abs=0.05)
    assert (weighted > plain - 0.02).all()


def test_errors_and_losses_by_hand():
    scores = torch.tensor([[[0.0, 2.0], [1.0, 0.0]], [[3.0, 0.0], [0.0, 9.0]]])
    labels = torch.tensor([1, 1])
    assert _error(scores, labels).tolist() == [0.5, 0.5]
    expected = [-math.log(math.exp(2) / (1 + math.exp(2))), -math.log(1 / (1 + math.e))]
    assert _log_loss(scores, labels)[0].item() == pytest.approx(sum(expected) / 2)
    assert _confident(scores).tolist() == [0.0, 1.0]  # largest probabilities .88, .73; .95, .9999


def test_labels_stay_with_their_images():
    data = datasets.load("mnist-5k")
    images = data.split("train")[0].flatten(1)[:60]
    minibatches = LabelledMinibatches(images, 2, 20, Streams(0))
    x = minibatches(0)
    grey = images[minibatches.chosen].float() / 255
    assert ((x == 1) & (grey == 0)).sum() == 0
    assert ((x == 0) & (grey == 1)).sum() == 0
    seen = [minibatches.chosen[0]]
    for step in (1, 2):
        minibatches(step)
        seen.append(minibatches.chosen[0])
    assert sorted(torch.cat(seen).tolist()) == [*range(60)]


def test_references_are_between_chance_and_good():
    scores = references(datasets.load("mnist-5k"), 1000, {})
    assert 0.85 < scores["majority_error"].value < 0.95
    assert 0.05 < scores["logistic_error"].value < 0.25
    assert 0.05 < scores["knn_error"].value < 0.25


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return generative_and_discriminative(TINY, Workspace(tmp_path_factory.mktemp("whole"), 0))


def test_stopped_and_gone_on_ends_in_the_same_bits(outcome, tmp_path):
    with pytest.raises(OutOfTime):
        generative_and_discriminative(TINY, Workspace(tmp_path, 0, checkpoint_seconds=0, deadline=0.0))
    parts = generative_and_discriminative(TINY, Workspace(tmp_path, 0))
    assert all(torch.equal(outcome.weights[name], parts.weights[name]) for name in outcome.weights)
    assert outcome.history == parts.history
    assert {name: s.value for name, s in outcome.scores.items()} == {name: s.value for name, s in parts.scores.items()}


def test_longer_training_reads_more_digits(outcome, tmp_path):
    longer = dataclasses.replace(TINY, n_labels=400, n_steps=150, n_hidden=30, n_classifier=30)
    scores = generative_and_discriminative(longer, Workspace(tmp_path, 0)).scores
    assert scores["discriminative_error"].value < 0.35 < outcome.scores["discriminative_error"].value
    assert scores["generative_error"].value < 0.7
    assert scores["bound_test"].value > outcome.scores["bound_test"].value + 100
    difference = scores["generative_error"].value - scores["discriminative_error"].value
    assert scores["error_difference"].value == pytest.approx(difference)
    assert scores["noise_drop"].value > 20
    assert 0 <= scores["recognised"].value <= 1


class Stopped(Exception):
    pass


def test_a_step_has_the_prior_of_its_labels_and_the_class_shares_count_them(monkeypatch, tmp_path):
    steps = []

    def keep_step(flat, optimizer, objective, decay):
        steps.append((objective.item(), decay))

    def stop(vae, classifier, shares, *_):
        raise Stopped(shares, vae)

    monkeypatch.setattr(module, "ascend", keep_step)
    monkeypatch.setattr(module, "measured", stop)
    starts = []
    for seed in (0, 1):
        with pytest.raises(Stopped) as stopped:
            generative_and_discriminative(TINY, Workspace(tmp_path / str(seed), seed))
        shares, vae = stopped.value.args
        starts.append(vae.decoder_out.weight)
    counts = torch.bincount(datasets.load("mnist-5k").labels_of("train")[:60], minlength=N_CLASSES)
    assert torch.allclose(shares, (counts + 1) / 70)
    assert not torch.equal(*starts)
    assert {decay for _, decay in steps} == {1 / 60}
    bounds, log_likelihoods = ([each[0] for each in steps[kind::2]] for kind in (0, 1))
    assert all(-2 * 700 < bound < -2 * 450 for bound in bounds)  # nobody learns: 784 log 2 = 543 nats, two models
    assert all(-2 * 3 < value < -2 * 1.8 for value in log_likelihoods)  # log 10 = 2.3 nats


def test_bayes_adds_the_prior_to_both_bounds(monkeypatch):
    def flat_bounds(vae, x, n_draws, config, rng):
        plain = torch.zeros(2, len(x), N_CLASSES)
        weighted = plain.clone()
        weighted[..., 7] = 0.1 if n_draws == config.n_importance else 9.0
        return plain, weighted

    monkeypatch.setattr(module, "class_bounds", flat_bounds)
    data, shares = datasets.load("mnist-5k"), torch.full((N_CLASSES,), 0.09)
    shares[4] = 0.19
    classifier = Classifier(TINY, 784, rng())
    scores, _ = module.measured(ConditionalVAE(TINY, 784, rng()), classifier, shares, data, TINY, Streams(0))
    truth = data.labels_of("test")
    all_fours = (truth != 4).double().mean().item()
    assert scores["generative_error"].value == pytest.approx(all_fours)
    assert scores["generative_error_tighter"].value == pytest.approx(all_fours)  # .1 nats do not outweigh the prior
    assert scores["generative_log_loss"].value == pytest.approx(-shares[truth].log().mean().item(), rel=1e-5)
    assert scores["bound_test"].value == pytest.approx(0.0, abs=1e-6)
    assert scores["noise_drop"].value == pytest.approx(0.0, abs=1e-6)

    shares[:] = 0.1
    scores, _ = module.measured(ConditionalVAE(TINY, 784, rng()), classifier, shares, data, TINY, Streams(0))
    all_sevens = (truth != 7).double().mean().item()
    assert scores["generative_error_tighter"].value == pytest.approx(all_sevens)  # by the weighted bound


def test_a_row_of_the_sheet_is_a_class():
    vae = ConditionalVAE(TINY, 784, rng())
    with torch.no_grad():
        vae.decoder_in.weight[:, : TINY.n_latent] = 0  # z says nothing
    sheet = class_sheet(vae, TINY, Streams(0))[0, :-1, :-1].unflatten(0, (N_CLASSES, 29)).unflatten(2, (N_CLASSES, 29))
    assert (sheet == sheet[:, :, :1]).all()
    assert not (sheet == sheet[:1]).all()


def test_too_few_images_are_told(tmp_path):
    with pytest.raises(ValueError, match="4000 images: 5000 labels"):
        generative_and_discriminative(dataclasses.replace(TINY, n_labels=5000), Workspace(tmp_path, 0))


def test_figures_read_the_runs(outcome, tmp_path):
    store, outcomes = Store(tmp_path), []
    for n, shade in ((400, 200), (60, 100)):
        made = outcome._replace(samples=torch.full((1, 20, 20), shade, dtype=torch.uint8))
        run = Run("vae2013", f"class-conditional-{n}", "smoke", dataclasses.replace(TINY, n_labels=n), 0, {}, 1)
        execute(run, lambda run, workspace, made=made: made, store, Options())
        outcomes.append((run, store.read(run)))
    results = Results(None, "smoke", store, outcomes)
    figure = figures.errors(results)
    line, *dots = figure.axes[0].get_lines()[:3]
    plt.close(figure)
    for dot in dots:
        assert list(dot.get_ydata()) == pytest.approx([100 * value for value in outcome.facts["generative_error"]])
    assert list(line.get_xdata()) == [60, 400]
    assert line.get_ydata()[0] == pytest.approx(100 * outcome.scores["generative_error"].value)
    rows = figures.table(results).to_dict("records")
    assert list(rows[0]) == ["classifier", "60 labels", "400 labels"]
    assert rows[-1]["60 labels"].startswith(f"{100 * outcome.scores['majority_error'].value:.1f} ±")
    measures = figures.measures_table(results).set_index("measure")["400 labels"]
    assert len(measures) == 7
    assert measures.filter(like="above noise").item().startswith(f"{outcome.scores['noise_drop'].value:.0f} ±")
    assert measures.filter(like="is read as y").item().startswith(f"{100 * outcome.scores['recognised'].value:.1f} ±")
    assert "2 models of each kind" in figures.captions(results)["table"]
    assert "classifiers on the same labels, images binarised once." in figures.captions(results)["errors"]
    figure = figures.sheet(results)
    plt.close(figure)
    assert figure.axes[0].images[0].get_array().mean() == pytest.approx(200 / 255, abs=0.01)  # of the most labels
    assert figures.captions(Results(None, "smoke", store, [])) == {}


def test_a_step_climbs_objective_and_prior():
    flat = FlatParameters(torch.nn.Linear(2, 1))
    before = flat.vector.detach().clone()
    objective = (flat.parameters[0] * torch.tensor([[1.0, 2.0]])).sum() + 0 * flat.parameters[1].sum()
    ascend(flat, torch.optim.SGD([flat.vector], lr=0.1), objective, 0.5)
    assert torch.allclose(flat.vector.detach(), before + 0.1 * (torch.tensor([1.0, 2.0, 0.0]) - 0.5 * before))


def test_recognised_are_those_read_as_the_class_they_were_drawn_with(monkeypatch):
    def all_fours(network, images, *_):
        return SimpleNamespace(probabilities=torch.eye(N_CLASSES)[4].expand(len(images), -1))

    monkeypatch.setattr(module, "extract", all_fours)
    data, shares = datasets.load("mnist-5k"), torch.full((N_CLASSES,), 0.05)
    shares[4] = 0.55
    found = module._recognised(ConditionalVAE(TINY, 784, rng()), shares, data, TINY, Streams(0))
    assert found["of_models"]["recognised"].mean().item() == pytest.approx(0.55, abs=0.2)
    real = (data.labels_of("test") == 4).double().mean().item()
    assert found["of_data"]["recognised_real"].value == pytest.approx(real)


def test_the_most_frequent_class_is_guessed():
    data = datasets.load("mnist-5k")
    most = torch.bincount(data.labels_of("train")[:100]).argmax()
    expected = (data.labels_of("test") != most).double().mean().item()
    assert references(data, 100, {})["majority_error"].value == pytest.approx(expected)
