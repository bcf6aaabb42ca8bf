"""The WGAN on two processes trains as on one with the same minibatch, batch norm's statistics included."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from lib.datasets.stacked import Stacked
from lib.execution.workspace import Workspace
from lib.models.dcgan import to_unit_range
from lib.training.checkpoints import training_tensors
from replications.wgan2017 import stacked
from replications.wgan2017.config import ImagesConfig, StackedConfig
from replications.wgan2017.pixels import Pixels
from replications.wgan2017.train import train

TINY = ImagesConfig(
    "made up", "wgan", "dcgan", "dcgan", n_steps=16, n_critic=2, learning_rate=5e-4, batch=8, n_filters=4, n_latent=8,
    n_checkpoints=4,
)  # fmt: skip
CONFIGS = {
    "wgan": TINY,
    "gan": replace(TINY, algorithm="gan", optimizer="adam", n_steps=4),
    "wgan-gp": replace(TINY, algorithm="wgan-gp", optimizer="adam", n_steps=4),
    "stacked": StackedConfig("wgan", 3, data="made up", n_train=64, n_filters=4, batch=8, n_latent=8, n_critic=2),
}
RESUMED = "wgan"

pytestmark = pytest.mark.slow  # the same machinery as CycleGAN's, which every push tests


class InFloat64(Pixels):
    def minibatch(self, rows: torch.Tensor) -> torch.Tensor:
        return super().minibatch(rows).double()


def pictures(side: int) -> torch.Tensor:
    """uint8 (40, 1, side, side) without structure."""
    rng = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (40, 1, side, side), dtype=torch.uint8, generator=rng)


def case(config):
    def trained(workspace: Workspace):
        if isinstance(config, StackedConfig):
            images = Stacked(pictures(28), config.n_train, torch.Generator().manual_seed(8))
            nets = stacked.build(config, (3, 28, 28), workspace.streams)
            with patch.object(stacked, "to_unit_range", lambda images: to_unit_range(images).double()):
                history = stacked.train(nets, images, config, workspace)
            return history, copied(**nets._asdict())
        images = pictures(32)
        nets, record, history = train(config, InFloat64(images, images, None, "made up", "test"), workspace)
        return history, copied(**nets._asdict(), record=record)

    return trained


def copied(**modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in training_tensors(**modules).items()}


CASES = {name: case(config) for name, config in CONFIGS.items()}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(name, trainings, assert_alike):
    whole = trainings[0][f"{name} by one"]
    assert any("running_var" in key for key in whole[1])
    assert_alike(whole, trainings[0][f"{name} by two"])


def test_a_training_goes_on_with_another_number_of_processes(trainings, assert_alike, assert_goes_on):
    whole = trainings[0]["wgan by one"]
    assert_alike(whole, trainings[0]["resumed"])
    assert_goes_on(whole, trainings)
