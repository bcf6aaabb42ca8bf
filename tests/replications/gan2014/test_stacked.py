"""Stacked MNIST's run: generated and real images are counted alike, and packs see their channels."""

import pytest

from lib.execution.execute import deterministic
from lib.execution.workspace import Workspace
from replications.gan2014.config import StackedConfig
from replications.gan2014.stacked import stacked


@pytest.mark.parametrize("n_pack", [1, 2])
def test_a_run_has_generated_and_real_counts(n_pack, tmp_path):
    config = StackedConfig(n_pack, 2, data="mnist-5k", n_train=64, n_filters=2, n_latent=5, batch=16, n_samples=90)
    with deterministic("cpu"):
        outcome = stacked(config, Workspace(tmp_path, 0))
    scores = outcome.scores
    assert set(scores) == {"modes", "kl", "real_modes", "real_kl"}
    assert scores["modes"].value <= 90
    assert 70 < scores["real_modes"].value <= 90  # 90 draws of 1,000 classes hit 86 on average
    assert scores["modes"].protocol["n_pack"] == n_pack
    assert scores["real_kl"].protocol["images"] == "test split"
    assert outcome.samples.shape == (3, 8 * 29 + 1, 8 * 29 + 1)
    assert len(outcome.history) == 2
