"""The ResNet generator: counts, its fast layers against PyTorch's own, borders, sides, refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.models import resnet_generator
from lib.models.resnet_generator import ReflectedConv, ResnetGenerator, reflected


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_parameters_are_as_counted_by_hand():
    """Colour, 64 filters; then a small one with unlike channels. Every convolution has a bias, no norm has any."""
    with torch.device("meta"):
        assert n_parameters(ResnetGenerator(3, 3, 64, 6)) == 7_837_699
        assert n_parameters(ResnetGenerator(3, 3, 64, 9)) == 11_378_179
    down = 1 * 4 * 49 + 4 + 4 * 8 * 9 + 8 + 8 * 16 * 9 + 16
    up = 16 * 8 * 9 + 8 + 8 * 4 * 9 + 4 + 4 * 3 * 49 + 3
    assert n_parameters(ResnetGenerator(1, 3, 4, 2)) == down + 2 * 2 * (16 * 16 * 9 + 16) + up


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 3), (3, 1)])
def test_images_keep_their_sides_and_stay_in_the_range_of_tanh(n_in, n_out):
    g = ResnetGenerator(n_in, n_out, 4, 1)
    x = torch.randn(2, n_in, 12, 20, generator=seeded())
    y = g(x)
    assert y.shape == (2, n_out, 12, 20)
    assert y.abs().max() < 1
    assert y.min() < -0.01
    assert y.max() > 0.01


def test_other_sides_are_refused():
    g = ResnetGenerator(1, 1, 2, 1)
    for height, width in ((28, 30), (4, 8)):
        with pytest.raises(ValueError, match=f"images are {height} x {width}: both sides must be multiples of 4"):
            g(torch.zeros(1, 1, height, width))
    with pytest.raises(ValueError, match="n_filters is 0"):
        ResnetGenerator(1, 1, 0, 1)


@pytest.mark.parametrize("width", [1, 3])
def test_the_border_is_reflected_and_off_the_cpu_computed_from_slices(width):
    """A tensor of the meta device takes the path of a GPU; here that path runs on the CPU."""
    x = torch.randn(2, 3, 6, 8, generator=seeded(), dtype=torch.float64, requires_grad=True)
    want = F.pad(x, 4 * (width,), mode="reflect")
    weights = torch.randn(want.shape, generator=seeded(1), dtype=torch.float64)
    (slope,) = torch.autograd.grad((want * weights).sum(), x)

    class Elsewhere(torch.Tensor):
        @property
        def device(self):
            return torch.device("meta")

    ours = reflected(x.as_subclass(Elsewhere), width).as_subclass(torch.Tensor)
    assert torch.equal(ours, want)
    torch.testing.assert_close(torch.autograd.grad((ours * weights).sum(), x)[0], slope)
    assert torch.equal(reflected(x, width), want)


@pytest.mark.parametrize(("n_in", "n_out", "side"), [(8, 3, 7), (8, 1, 7), (8, 8, 3), (3, 8, 7), (5, 2, 3)])
@pytest.mark.parametrize("tiles", [True, False])
def test_a_fast_layer_is_pytorchs(n_in, n_out, side, tiles, monkeypatch):
    """Outputs and gradients, by fours (few channels out), by tiles (if that many count as many), and plainly."""
    monkeypatch.setattr(resnet_generator, "MANY", 8 if tiles else 10**9)
    monkeypatch.setattr(resnet_generator, "MANY_PIXELS", 1)
    layer = ReflectedConv(n_in, n_out, side).double()
    plain = nn.Conv2d(n_in, n_out, side, padding=side // 2, padding_mode="reflect").double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, n_in, 8, 12, generator=seeded(), dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), plain(x)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(theirs.shape, generator=seeded(1), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), [x, *layer.parameters()]),
        torch.autograd.grad((theirs * weights).sum(), [x, *plain.parameters()]), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b)


def test_tiles_are_taken_where_they_are_faster_only(monkeypatch):
    used = []
    monkeypatch.setattr(resnet_generator, "reflected_conv3", lambda x, *_: used.append(x.shape[1:]) or x)
    for n, side in ((256, 32), (128, 32), (256, 16)):
        with torch.no_grad():
            ReflectedConv(n, n, 3)(torch.zeros(1, n, side, side))
    assert used == [(256, 32, 32)]


def test_an_odd_side_goes_without_the_trick_of_fours():
    layer = ReflectedConv(2, 1, 3).double()
    x = torch.randn(1, 2, 5, 7, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), layer.weight, layer.bias))


def test_a_block_adds_to_its_input_without_an_activation():
    block = ResnetGenerator(1, 1, 2, 1).blocks[0]
    x = torch.randn(1, 8, 4, 4, generator=seeded())
    y = block(x)
    torch.testing.assert_close(y - x, block.layers(x))
    assert y.min() < 0
