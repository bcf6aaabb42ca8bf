"""inception-v3-tf: torch-fidelity's network, and weights that are never fetched unasked nor opened unchecked."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib import datasets
from lib.errors import UserError
from lib.metrics.extractors import (
    Extractor,
    extract,
    extractor,
)


def images(n: int, channels: int = 1, height: int = 28, width: int = 28, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 340, 310)])
def test_inception_is_torch_fidelitys_own(inception: Extractor, made_up: Path, shape: tuple[int, int, int]) -> None:
    """The same bits from the same file through its public way."""
    from torch_fidelity.utils import create_feature_extractor

    theirs = create_feature_extractor(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        cuda=False,
        verbose=False,
        feature_extractor_weights_path=str(made_up),
    )
    x = images(1, *shape)
    with torch.no_grad():
        features, logits = theirs(x)
    found = inception(x)
    assert torch.equal(found.features, features)
    torch.testing.assert_close(found.probabilities, logits.softmax(1), rtol=1e-5, atol=1e-7)
    assert features.std() > 1e-3  # made-up weights, yet features that differ


def test_inception_scores_leave_the_bias_out(inception: Extractor) -> None:
    """torch-fidelity's IS is of logits without bias: a bias that would decide everything changes nothing."""
    x, bias = images(1, 3, 32, 32), inception.network.network.fc.bias
    before, kept = inception(x).probabilities, bias[7].item()
    bias[7] = 1e3
    try:
        assert torch.equal(inception(x).probabilities, before)
    finally:
        bias[7] = kept


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (299, 299), (400, 320), (5, 7)])
def test_inception_resizes_as_tensorflow_1_did(inception: Extractor, size: tuple[int, int]) -> None:
    """The kernel of TensorFlow 1's resize_bilinear, in numpy: output i reads the input at i * in / out."""
    x, seen = images(2, 3, *size), []

    def stop(_: nn.Module, given: tuple[Tensor]) -> None:
        seen.append(given[0])
        raise InterruptedError  # the rest of the network says nothing of the resize

    hook = inception.network.network.Conv2d_1a_3x3.register_forward_pre_hook(stop)
    with pytest.raises(InterruptedError):
        inception(x)
    hook.remove()

    def taps(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.arange(299, dtype=np.float32) * np.float32(length / 299)
        low = at.astype(np.int64)
        return low, np.minimum(low + 1, length - 1), at - low.astype(np.float32)

    pixels = x.numpy().astype(np.float32)
    (top, bottom, down), (left, right, along) = taps(size[0]), taps(size[1])
    upper = pixels[:, :, top][..., left] * (1 - along) + pixels[:, :, top][..., right] * along
    lower = pixels[:, :, bottom][..., left] * (1 - along) + pixels[:, :, bottom][..., right] * along
    want = (upper * (1 - down[:, None]) + lower * down[:, None] - 128) / 128
    np.testing.assert_allclose(seen[0].numpy(), want, rtol=0, atol=1e-5)


def test_inception_is_never_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.delenv("REGEN_OFFLINE", raising=False)
    monkeypatch.setattr("socket.socket", refuse)
    monkeypatch.setenv("REGEN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"is missing\. Run `regen data fetch inception-v3-tf`, or name the file"):
        extractor("inception-v3-tf")


class Planted:
    """A pickle that would make a folder when opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["noise", "empty", "list", "other names", "code", "half"])
def test_a_file_that_holds_no_such_network(
    kind: str, made_up: Path, tmp_path: Path, monkeypatch, register_inception
) -> None:
    """Registered by its own digest, and still one sentence; whatever it holds, none of it is run."""
    pytest.importorskip("torch_fidelity")
    path = tmp_path / "weights.pth"
    if kind in ("noise", "empty"):
        path.write_bytes(b"no weights" * 1000 if kind == "noise" else b"")
    elif kind == "half":
        path.write_bytes(made_up.read_bytes()[:1_000_000])
    else:
        torch.save(
            {"list": [1, 2], "other names": {"a": torch.zeros(2)}, "code": Planted(tmp_path / "run")}[kind], path
        )
    register_inception(path, monkeypatch)
    with pytest.raises(UserError, match="The file of inception-v3-tf holds no weights of that network") as caught:
        extractor("inception-v3-tf", path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_other_bytes_are_not_opened(made_up: Path) -> None:
    with pytest.raises(UserError, match=r"made_up\.pth is not the file of inception-v3-tf: it holds"):
        extractor("inception-v3-tf", made_up)


def test_without_torch_fidelity_the_command_is_named(
    made_up: Path, monkeypatch: pytest.MonkeyPatch, register_inception: Callable[..., None]
) -> None:
    register_inception(made_up, monkeypatch)
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match="pip install torch-fidelity"):
        extractor("inception-v3-tf", made_up)


@pytest.mark.slow
def test_golden_fid_of_torch_fidelity() -> None:
    """10.3233274 to 1e-4: FID of the first 5,000 training and the first 5,000 test images of CIFAR-10, which
    torch-fidelity pins beside TensorFlow's own (tests/tf1/numerical_precision/test_metric_fid_fidelity.py)."""
    from lib.datasets import cifar10
    from lib.datasets.contents import MissingFile, read_bytes
    from lib.metrics.frechet import frechet_distance
    from lib.metrics.gaussian import gaussian_stats

    try:
        inception = extractor("inception-v3-tf")
    except UserError as error:
        pytest.skip(f"the real weights are needed: {error}")
    root = datasets.data_root()
    try:
        files = cifar10.locate(root)
    except MissingFile as error:
        pytest.skip(f"CIFAR-10 is needed, with all its test images: {error.path} is missing")
    if len(files) == len(cifar10.ARRAYS):
        pytest.skip("5,000 test images of CIFAR-10 are needed, and the .npz copy holds 1,000: use the official archive")
    if len(files) == len(cifar10.BATCHES):
        batches = [cifar10._read_batch(path, read_bytes(path)) for path in (files[0], files[-1])]
    else:
        batches = [cifar10._read_archive(files[0])[index] for index in (0, -1)]
    stats = [gaussian_stats(extract(inception, torch.from_numpy(x[:5_000].copy())).features) for x, _ in batches]
    assert frechet_distance(*stats) == pytest.approx(10.3233274, abs=1e-4)
