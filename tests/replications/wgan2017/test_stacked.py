"""Stacked MNIST by WGAN: the step beside plain PyTorch's, which critics have batch norm, resuming, the counts."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from lib import datasets
from lib.datasets.stacked import Stacked
from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.dcgan import to_unit_range
from lib.training.randomness import MinibatchOrder, Streams, generator
from replications.wgan2017 import stacked as module
from replications.wgan2017.config import StackedConfig
from replications.wgan2017.stacked import as_images, build, stacked, train

TINY = StackedConfig(
    "wgan", 3, data="mnist-5k", n_train=64, n_critic=2, n_filters=2, n_latent=5, batch=16, n_samples=90
)
GP = dataclasses.replace(TINY, algorithm="wgan-gp", optimizer="adam", learning_rate=1e-4)


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic("cpu"):
        yield


def stacked_images(config):
    digits = datasets.load(config.data).split("train")[0]
    return Stacked(digits, config.n_train, torch.Generator().manual_seed(0))


def flat(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def normalised(network):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize(("config", "in_critic"), [(TINY, 3), (GP, 0)])
def test_networks_are_those_of_gan2014_and_a_penalised_critic_has_no_batch_norm(config, in_critic):
    nets = build(dataclasses.replace(config, n_filters=64, n_latent=100), (3, 28, 28), Streams(0))
    assert (normalised(nets.generator), normalised(nets.critic)) == (4, in_critic)
    # convolutions 28 -> 14 -> 7 -> 4 -> 2 and a linear layer, counted by hand
    weights = 3 * 64 * 16 + 64 * 128 * 16 + 128 * 256 * 9 + 256 * 512 * 16 + 2048
    biases = 64 + 1 + (2 if in_critic else 1) * (128 + 256 + 512)
    assert len(flat(nets.critic)) == weights + biases
    assert nets.generator(torch.zeros(2, 100)).shape == (2, 3, 28, 28)


def test_training_is_algorithm_1_written_plainly(tmp_path):
    """One iteration: RMSProp on the critic and then the clip, twice, each by the next minibatch; then the generator."""
    config, workspace = dataclasses.replace(TINY, n_steps=1), Workspace(tmp_path, 0)
    images, nets = stacked_images(config), build(config, (3, 28, 28), workspace.streams)
    g, f = (copy.deepcopy(network) for network in nets)
    train(nets, images, config, workspace)
    z = torch.randn(3, 16, 5, generator=generator(0, "noise", 0))
    order = MinibatchOrder(0, 64, 16)
    of_f, of_g = (torch.optim.RMSprop(network.parameters(), lr=5e-5) for network in (f, g))
    for k in range(2):
        loss = f(g(z[k]).detach()).mean() - f(to_unit_range(images(order(k)))).mean()
        of_f.zero_grad()
        loss.backward()
        of_f.step()
        for p in f.parameters():
            p.data.clamp_(-0.01, 0.01)
    of_g.zero_grad()
    (-f(g(z[2])).mean()).backward()
    of_g.step()
    for ours, theirs in ((nets.critic, f), (nets.generator, g)):
        # RMSProp's first step is 5e-4 either way: a gradient near 0 may turn its sign by rounding
        away = (flat(ours) - flat(theirs)).abs()
        assert (away > 2e-5).double().mean() < 0.02
        assert away.max() < 2e-3
    assert flat(nets.critic).abs().max() <= 0.01


def test_critic_steps_go_through_the_minibatches_in_order_each_with_new_noise(tmp_path, monkeypatch):
    config, workspace, seen = dataclasses.replace(TINY, n_steps=2), Workspace(tmp_path, 0), []

    def recording(players, played, x, z, mix, step=module.critic_step):
        seen.append((x.clone(), z.clone(), mix.clone()))
        return step(players, played, x, z, mix)

    monkeypatch.setattr(module, "critic_step", recording)
    images = stacked_images(config)
    train(build(config, (3, 28, 28), workspace.streams), images, config, workspace)
    order = MinibatchOrder(0, 64, 16)
    assert len(seen) == 4
    for k, (x, _, _) in enumerate(seen):
        assert torch.equal(x, to_unit_range(images(order(k))))
    for drawn in (1, 2):
        assert len({tuple(inputs[drawn].flatten().tolist()) for inputs in seen}) == 4


def test_of_an_even_number_of_iterations_a_point_has_the_lower_of_the_two_middle_ones(tmp_path, monkeypatch):
    config, workspace, seen = dataclasses.replace(TINY, n_steps=2, n_critic=1), Workspace(tmp_path, 0), []

    def recording(*inputs, step=module.critic_step):
        seen.append(step(*inputs))
        return seen[-1]

    monkeypatch.setattr(module, "critic_step", recording)
    monkeypatch.setattr(module, "N_POINTS", 1)
    (row,) = train(build(config, (3, 28, 28), workspace.streams), stacked_images(config), config, workspace)
    assert row["step"] == 2
    assert row["estimate"] == min(seen) < max(seen)


def test_the_penalised_critic_is_not_clipped(tmp_path):
    workspace = Workspace(tmp_path, 0)
    nets = build(GP, (3, 28, 28), workspace.streams)
    before = flat(nets.critic)
    train(nets, stacked_images(GP), GP, workspace)
    moved = (flat(nets.critic) - before).abs()
    assert flat(nets.critic).abs().max() > 0.05
    assert 1e-5 < moved.max() < 6 * 3e-4  # six steps of Adam at 1e-4
    played = as_images(GP)
    assert (played.beta1, played.beta2, played.penalty) == (0.0, 0.9, 10.0)  # Gulrajani 2017, algorithm 1


@pytest.mark.parametrize("config", [TINY, GP])
def test_a_killed_run_ends_in_the_same_bits(config, tmp_path, monkeypatch):
    def trained(workspace):
        nets = build(config, (3, 28, 28), workspace.streams)
        return nets, train(nets, stacked_images(config), config, workspace)

    monkeypatch.setattr(module, "N_POINTS", 1)  # the only row is a median over steps before and after the kill
    whole, history = trained(Workspace(tmp_path / "whole", 0))
    (tmp_path / "killed").mkdir()
    stopped = Workspace(tmp_path / "killed", 0)
    keep = stopped.keep

    def keep_and_stop(state, total, **parts):
        stopped.deadline = 0.0 if state["step"] == 2 else None
        keep(state, total, **parts)

    monkeypatch.setattr(stopped, "keep", keep_and_stop)
    with pytest.raises(OutOfTime):
        trained(stopped)
    again, history_again = trained(Workspace(tmp_path / "killed", 0))
    assert history == history_again
    for one, other in zip(whole, again, strict=True):
        states = one.state_dict(), other.state_dict()  # batch norm's running statistics included
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("config", [TINY, GP])
def test_a_run_has_generated_and_real_counts(config, tmp_path):
    outcome = stacked(config, Workspace(tmp_path, 0))
    scores = outcome.scores
    assert set(scores) == {"modes", "kl", "real_modes", "real_kl"}
    assert 1 <= scores["modes"].value <= 90
    assert 70 < scores["real_modes"].value <= 90  # 90 draws of 1,000 classes hit 86 on average
    assert (scores["modes"].protocol["algorithm"], scores["modes"].n) == (config.algorithm, 90)
    assert scores["real_kl"].protocol["images"] == "test split"
    assert outcome.samples.shape == (3, 8 * 29 + 1, 8 * 29 + 1)
    assert [row["step"] for row in outcome.history] == [1, 2, 3]
