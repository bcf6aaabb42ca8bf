"""CycleGAN on two processes trains as on one with the same minibatch, and its checkpoints move between the two."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from lib.execution.workspace import Workspace
from lib.metrics import extractor
from lib.training.checkpoints import training_tensors
from replications.cyclegan2017.baselines import method_of
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.tasks import load
from replications.cyclegan2017.train import train

# The pool fills within the first steps and then swaps; mirrored, so that both draw the same chances.
TINY = TranslationConfig(
    "shapes", "cyclegan", side=16, n_steps=20, n_train=40, n_test=4, batch=4, n_filters=4, n_blocks=1,
    n_critic_filters=4, n_critic_layers=2, pool=6, flip=True, identity=5.0,
)  # fmt: skip
SHORT = replace(TINY, n_steps=3, identity=0.0)
CONFIGS = {
    "cyclegan": TINY,
    "cogan": replace(SHORT, method="cogan"),
    "pix2pix": replace(SHORT, method="pix2pix"),
    "feature": replace(SHORT, method="feature", to_input=10.0, cycle_a=0.0, cycle_b=0.0, side=32),
}
RESUMED = "cyclegan"


def in_float64(name: str, **values: object) -> Any:
    found = extractor(name, **values)
    found.network.double()
    return found


def case(config):
    def trained(workspace: Workspace):
        with patch("replications.cyclegan2017.baselines.extractor", in_float64):
            method = method_of(config, (3, 3), workspace.streams, workspace.device, workspace.processes)
        update = method.update  # of minibatches in float64
        method = method._replace(update=lambda a, b, step: update(a.double(), b.double(), step))
        history = train(method, config, load(config, workspace.device).domains, workspace).history
        networks = {name: part for name, part in method.parts.items() if isinstance(part, torch.nn.Module)}
        return history, {name: t.detach().clone() for name, t in training_tensors(**networks).items()}

    return trained


CASES = {name: case(config) for name, config in CONFIGS.items()}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(name, trainings, assert_alike):
    assert_alike(trainings[0][f"{name} by one"], trainings[0][f"{name} by two"])


@pytest.mark.parametrize("name", CASES)
def test_both_end_with_the_same_bits(name, trainings):
    (history, tensors), (others, other_tensors) = (found[f"{name} by two"] for found in trainings)
    assert history == others
    assert all(torch.equal(tensors[key], other_tensors[key]) for key in tensors)


def test_a_training_goes_on_with_another_number_of_processes(trainings, assert_alike, assert_goes_on):
    whole = trainings[0]["cyclegan by one"]
    assert_alike(whole, trainings[0]["resumed"])
    assert_goes_on(whole, trainings)
