"""The paper's networks by config: sizes as scores, first weights, layout."""

from dataclasses import replace

import pytest
import torch

from lib.training.randomness import Streams
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.networks import build, network_scores

TINY = TranslationConfig(
    "made up", "cyclegan", 16, 4, 0, 0, n_filters=8, n_blocks=1, n_critic_filters=8, n_critic_layers=1
)


def test_the_papers_sizes():
    values = {name: score.value for name, score in network_scores().items()}
    assert values == {
        "parameters_6_blocks": 7_837_699, "parameters_9_blocks": 11_378_179, "parameters_discriminator": 2_764_737,
        "receptive_field": 70, "patches_a_side": 30,
    }  # fmt: skip


def test_networks_follow_the_config_and_the_channels_of_the_domains():
    nets = build(replace(TINY, n_blocks=2, n_critic_layers=2), (1, 3), Streams(0))
    a, b = torch.zeros(2, 1, 16, 16), torch.zeros(2, 3, 16, 16)
    assert nets.to_b(a).shape == b.shape
    assert nets.to_a(b).shape == a.shape
    assert nets.judge_a(a).shape == nets.judge_b(b).shape == (2, 2, 2)
    assert len(nets.to_b.blocks) == 2
    assert nets.to_b.encode[0].out_channels == nets.judge_b.layers[0].out_channels == 8


def test_first_weights_have_the_papers_spread_no_bias_and_come_from_the_seed():
    nets = build(replace(TINY, n_filters=32, n_critic_filters=64), (3, 3), Streams(0))
    for network in nets:
        for name, parameter in network.named_parameters():
            n = parameter.numel()
            if name.endswith("bias"):
                assert not parameter.any(), name
            else:
                assert parameter.std().item() == pytest.approx(0.02, rel=4 / (2 * n) ** 0.5), name
                assert parameter.mean().item() == pytest.approx(0, abs=4 * 0.02 / n**0.5), name
    same, other = build(TINY, (3, 3), Streams(0)), build(TINY, (3, 3), Streams(1))
    first = build(TINY, (3, 3), Streams(0)).to_b.encode[0].weight
    assert torch.equal(first, same.to_b.encode[0].weight)
    assert not torch.equal(first, other.to_b.encode[0].weight)
    assert not torch.equal(first, same.to_a.encode[0].weight)  # the two directions start apart
