"""The GANs on two processes train as on one with the same minibatch: dropout, packs and batch norm included."""

from unittest.mock import patch

import pytest
import torch

from lib.execution.workspace import Workspace
from lib.models.dcgan import to_unit_range
from lib.training.checkpoints import training_tensors
from replications.gan2014 import dcgan
from replications.gan2014.config import DcganConfig, GanConfig, StackedConfig
from replications.gan2014.splits import Splits
from replications.gan2014.train import train

TINY = {"data": "made up", "n_train": 80, "n_epochs": 2, "generator_hidden": 8, "maxout_units": 6, "batch": 8,
        "n_parzen": 20, "epochs_between_choices": 1}  # fmt: skip
CONFIGS = {
    "simultaneous": GanConfig(**TINY),  # type: ignore[arg-type]
    "alternating": GanConfig(**TINY, update="alternating"),  # type: ignore[arg-type]
    "dcgan": DcganConfig("made up", n_steps=20, n_filters=4, n_layers=2, n_latent=8, batch=8),
    "packed": StackedConfig(2, 4, data="made up", n_filters=4, n_layers=2, n_latent=8, batch=4),
}
RESUMED = "dcgan"

pytestmark = pytest.mark.slow  # the same machinery as CycleGAN's, which every push tests


def case(config):
    def trained(workspace: Workspace):
        rng = torch.Generator().manual_seed(0)
        if isinstance(config, GanConfig):
            rows = Splits(*torch.rand(3, 80, 784, generator=rng))
            nets, chosen, epoch, history, gradients = train(config, rows, (1, 28, 28), workspace)
            norms = {f"gradients {i}": torch.tensor(list(row.values())) for i, row in enumerate(gradients)}
            return history, copied(**nets._asdict(), chosen=chosen) | norms | {"epoch": torch.tensor(epoch)}
        images = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8, generator=rng)
        nets = dcgan.build(config, (1, 16, 16), workspace.streams)
        with patch.object(dcgan, "to_unit_range", lambda images: to_unit_range(images).double()):
            history = dcgan.train(nets, images.__getitem__, len(images), config, workspace)
        return history, copied(generator=nets.generator, discriminator=nets.discriminator)

    return trained


def copied(**modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in training_tensors(**modules).items()}


CASES = {name: case(config) for name, config in CONFIGS.items()}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(name, trainings, assert_alike):
    assert_alike(trainings[0][f"{name} by one"], trainings[0][f"{name} by two"])


def test_a_training_goes_on_with_another_number_of_processes(trainings, assert_alike, assert_goes_on):
    whole = trainings[0]["dcgan by one"]
    assert_alike(whole, trainings[0]["resumed"])
    assert_goes_on(whole, trainings)
