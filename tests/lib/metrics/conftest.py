"""The network of Inception with made-up weights, for the real ones cannot be had everywhere."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lib.datasets import registry
from lib.metrics.extractors import (
    Extractor,
    extractor,
)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with weights of the right names and shapes, whose features neither vanish nor explode."""
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is missing")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = theirs.FeatureExtractorInceptionV3("made-up", ["2048"], verbose=False)
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            elif isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.1, 0.1)
                part.bias.data.uniform_(-0.1, 0.1)
        path = tmp_path_factory.mktemp("inception") / "made_up.pth"
        torch.save(network.state_dict(), path)
    return path


def register_inception(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the file at `path` the registered one, in a registry beside it."""
    content = path.read_bytes()
    fields = dict(registry.content(registry.REGISTRY)["weights"])
    file = {"path": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    fields["inception-v3-tf"] = {**fields["inception-v3-tf"], "file": file}
    small = path.with_suffix(".yaml")
    small.write_text(yaml.safe_dump({"datasets": {}, "weights": fields}))
    registry.content.cache_clear()
    monkeypatch.setattr(registry, "REGISTRY", small)


@pytest.fixture(name="register_inception")
def _register_inception() -> Callable[[Path, pytest.MonkeyPatch], None]:
    return register_inception


@pytest.fixture(scope="module")
def inception(made_up: Path) -> Extractor:
    with pytest.MonkeyPatch.context() as patch:
        register_inception(made_up, patch)
        return extractor("inception-v3-tf", made_up)
