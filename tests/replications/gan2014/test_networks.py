"""The networks against counts and sizes from the fact sheet, and against PyTorch's own layers."""

import pytest
import torch
from torch.nn import functional as F

from lib.training.randomness import Streams
from replications.gan2014.config import GanConfig
from replications.gan2014.networks import KERNELS, POOLED_SIDES, POOLS, build, max_pool, n_parameters
from replications.gan2014.presets import PRESETS


@pytest.fixture(scope="module")
def digits():
    marginals = torch.linspace(0, 1, 784)
    return build(GanConfig("mnist", 50_000, 250), (1, 28, 28), marginals, Streams(0))


def test_the_mnist_networks_have_the_papers_parameters(digits):
    assert n_parameters(digits.generator) == 2_503_984
    assert n_parameters(digits.discriminator) == 1_231_441


def test_the_cifar_networks_have_the_sheets_parameters():
    config = PRESETS["paper"]["cifar-mlp"]
    with torch.device("meta"):
        nets = build(config, (3, 32, 32), None, MetaStreams())
    assert round(n_parameters(nets.generator) / 1e6, 1) == 89.4
    assert round(n_parameters(nets.discriminator) / 1e6, 1) == 37.4


class MetaStreams:
    device = torch.device("meta")

    def at(self, stream: str, step: int = 0) -> None:
        return None


def test_the_convolutional_sizes_are_those_of_the_sheet():
    """32 -> 33 -> 16 -> 15 -> 7 -> 9 -> 5, which PyTorch's ceil mode gives, floor mode does not."""
    sizes, side = [], 32
    for (kernel, padding), (window, stride) in zip(KERNELS, POOLS, strict=True):
        x = F.conv2d(torch.zeros(1, 1, side, side), torch.zeros(1, 1, kernel, kernel), padding=padding)
        sizes.append(x.shape[-1])
        side = F.max_pool2d(x, window, stride, ceil_mode=True).shape[-1]
        sizes.append(side)
    assert sizes == [33, 16, 15, 7, 9, 5]
    assert tuple(sizes[1::2]) == POOLED_SIDES


@pytest.mark.parametrize(("side", "window", "stride"), [(33, 4, 2), (15, 4, 2), (9, 2, 2), (8, 2, 2)])
def test_pooling_is_pytorchs_in_ceil_mode_values_and_gradients(side, window, stride):
    x = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    ours, theirs = max_pool(x, window, stride), F.max_pool2d(x, window, stride, ceil_mode=True)
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(ours)
    for one, other in zip(*(torch.autograd.grad((y * weights).sum(), x) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other)


def test_the_convolutional_pair_makes_and_reads_images():
    config = GanConfig("cifar10", 256, 1, architecture="conv", generator_hidden=8000, maxout_units=20, noise="gaussian")
    nets = build(config, (3, 32, 32), None, Streams(0))
    images = nets.generator(torch.randn(2, 100))
    assert images.shape == (2, 3072)
    masks = [torch.ones(2, width) for width in nets.discriminator.mask_widths]
    torch.testing.assert_close(nets.discriminator(images, masks), nets.discriminator(images))
    masks[3] = torch.zeros(2, nets.discriminator.mask_widths[3])  # everything the convolutions say is dropped
    first, second = nets.discriminator(images, masks)
    assert first == second


def test_the_start_is_the_yaml_files(digits):
    for name, parameter in digits.generator.named_parameters():
        if name != "output.bias":
            assert parameter.abs().max().item() == pytest.approx(0.0 if "bias" in name else 0.05, rel=1e-3)
    for name, parameter in digits.discriminator.named_parameters():
        assert parameter.abs().max().item() == pytest.approx(0.0 if "bias" in name else 0.005, rel=0.02)
    torch.testing.assert_close(torch.sigmoid(digits.generator.output.bias)[1:-1], torch.linspace(0, 1, 784)[1:-1])


def test_the_first_samples_look_like_the_mean_image(digits):
    """The output bias alone makes them so: without it every pixel would be near one half."""
    mean = digits.generator(torch.randn(500, 100)).mean(0)
    assert (mean - torch.linspace(0, 1, 784)).abs().max() < 0.15


def test_maxout_takes_the_largest_of_five_linear_pieces(digits):
    x = torch.rand(3, 784)
    pieces = digits.discriminator.first(x).view(3, 5, 240)
    expected = torch.stack([pieces[:, k] for k in range(5)]).max(0).values
    torch.testing.assert_close(digits.discriminator._maxout(digits.discriminator.first(x)), expected)
