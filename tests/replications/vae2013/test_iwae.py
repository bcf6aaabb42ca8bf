"""Burda et al.'s architecture, objective and schedule; a training stopped and gone on with ends in the same bits."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from lib import datasets
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.flat import FlatParameters
from lib.training.randomness import Streams
from replications.vae2013 import iwae as module
from replications.vae2013.iwae import IwaeConfig, build, iwae_step, stages, train_iwae

TINY = IwaeConfig(
    "mnist-5k", 3, 1, n_latent=4, n_hidden=10, batch=400, n_few=2, n_distributions=3, n_chains=2, n_leapfrog=1,
    n_importance=4,
)  # fmt: skip
PAPER = IwaeConfig("mnist", 1, 8)


def test_the_architecture_is_theirs():
    model = build(PAPER, 784, Streams(0))
    sizes = [784 * 200 + 200, 200 * 200 + 200, 200 * 100 + 100, 50 * 200 + 200, 200 * 200 + 200, 200 * 784 + 784]
    assert sum(p.numel() for p in model.parameters()) == sum(sizes)
    bound = math.sqrt(6 / (784 + 200))
    assert bound * 0.99 < model.encoder_1.weight.abs().max().item() <= bound
    assert not model.decoder_out.bias.any()


def test_the_schedule_is_theirs():
    plan = stages(PAPER, 50_000)
    assert plan[-1][0] == 3280 * 2500  # 3,280 epochs
    assert [end for end, _ in plan[:3]] == [2500, 10_000, 32_500]
    assert [size for _, size in plan] == pytest.approx([1e-3, 7.2e-4, 5.2e-4, 3.7e-4, 2.7e-4, 1.9e-4, 1.4e-4, 1e-4])


@pytest.mark.parametrize("k", [1, 4])
def test_a_step_climbs_the_importance_weighted_bound(k):
    config, streams = dataclasses.replace(TINY, k=k), Streams(1)
    model = build(config, 12, streams)
    x = torch.bernoulli(torch.full((5, 12), 0.4), generator=streams.at("x"))
    noise = torch.randn(k, 5, 4, generator=streams.at("noise"))
    q = model.posterior(x)
    law = Normal(q.mean, (0.5 * q.logvar).exp())
    z = law.mean + law.stddev * noise
    weights = Bernoulli(logits=model.logits(z)).log_prob(x).sum(-1) + (Normal(0, 1).log_prob(z) - law.log_prob(z)).sum(
        -1
    )
    expected = weights.exp().mean(0).log().mean()
    expected.backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    flat = FlatParameters(model)
    before = flat.vector.detach().clone()
    optimizer = torch.optim.SGD([flat.vector], lr=0.1)
    assert iwae_step(model, flat, optimizer, x, noise).item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(flat.vector.detach() - before, 0.1 * gradients, atol=1e-6)


def test_stopped_and_gone_on_ends_in_the_same_bits(tmp_path):
    config = dataclasses.replace(TINY, n_stages=2)
    whole = train_iwae(config, Workspace(tmp_path / "whole", 0))
    with pytest.raises(OutOfTime):
        train_iwae(config, Workspace(tmp_path / "parts", 0, checkpoint_seconds=0, deadline=0.0))
    parts = train_iwae(config, Workspace(tmp_path / "parts", 0))
    assert all(torch.equal(whole.weights[name], parts.weights[name]) for name in whole.weights)
    assert whole.history == parts.history
    assert [row["samples"] for row in whole.history] == [4000, 16_000]
    assert whole.history[1]["elbo_test"] > whole.history[0]["elbo_test"]
    assert whole.scores["few_iwae_5000"].value == parts.scores["few_iwae_5000"].value


def test_every_stage_has_its_step_size(tmp_path, monkeypatch):
    seen = []

    def step(model, flat, optimizer, x, noise):
        seen.append(optimizer.param_groups[0]["lr"])
        return torch.tensor(0.0)

    monkeypatch.setattr(module, "iwae_step", step)
    monkeypatch.setattr(module, "measured", lambda *_: {})
    train_iwae(dataclasses.replace(TINY, n_stages=2), Workspace(tmp_path, 0))
    assert seen == pytest.approx([1e-3] * 10 + [7.2e-4] * 30)


def test_scores_have_the_names_and_counts_of_the_table(tmp_path):
    outcome = train_iwae(TINY, Workspace(tmp_path, 0))
    assert outcome.scores["iwae_test"].n == len(datasets.load("mnist-5k").splits["test"])
    assert outcome.scores["few_ais"].n == 2
    assert outcome.scores["iwae_test"].protocol["draws"] == 4
    assert outcome.scores["iwae_test"].value > outcome.scores["elbo_test"].value - 0.5
    assert 0 <= outcome.scores["active_units"].value <= 4
    assert outcome.facts["epochs"] == 1
