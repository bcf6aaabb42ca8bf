"""DCGAN's networks: shapes, hand-counted parameters, where batch norm stands, first weights, packing."""

import pytest
import torch
from torch import nn

from lib.models.dcgan import DcganDiscriminator, DcganGenerator, draw_weights_, map_sides, pack, to_unit_range


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("side", "n_layers", "sides"),
    [(28, 3, (28, 14, 7, 4)), (28, 4, (28, 14, 7, 4, 2)), (32, 3, (32, 16, 8, 4)), (5, 2, (5, 3, 2))],
)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_images_come_out_and_go_in_at_any_side(side, n_layers, sides, batch_norm):
    assert map_sides(side, n_layers) == sides
    g = DcganGenerator(7, 3, side, 4, n_layers, batch_norm)
    d = DcganDiscriminator(3, side, 4, n_layers, batch_norm)
    x = g(torch.randn(5, 7))
    assert x.shape == (5, 3, side, side)
    assert x.abs().max() <= 1
    assert d(x).shape == (5,)
    halves = [tuple(layer(torch.zeros(1, layer.in_channels, s, s)).shape[2:])
              for layer, s in zip((m for m in d.layers if isinstance(m, nn.Conv2d)), sides, strict=False)]  # fmt: skip
    assert halves == [(s, s) for s in sides[1:]]


def test_parameters_are_as_counted_by_hand():
    """Width 8, three layers, 28 x 28 grey, 10 latents; the odd side 7 has 3 x 3 kernels."""
    generator = (
        10 * 32 * 4 * 4  # latent to 32 maps of 4 x 4
        + 2 * 32 + 32 * 16 * 3 * 3  # batch norm; 4 -> 7
        + 2 * 16 + 16 * 8 * 4 * 4  # 7 -> 14
        + 2 * 8 + 8 * 1 * 4 * 4 + 1  # 14 -> 28, with the output's bias
    )  # fmt: skip
    discriminator = (
        1 * 8 * 4 * 4 + 8  # 28 -> 14: no batch norm, so a bias
        + 8 * 16 * 4 * 4 + 2 * 16  # 14 -> 7
        + 16 * 32 * 3 * 3 + 2 * 32  # 7 -> 4
        + 32 * 4 * 4 + 1
    )  # fmt: skip
    assert n_parameters(DcganGenerator(10, 1, 28, 8, 3, batch_norm=True)) == generator
    assert n_parameters(DcganDiscriminator(1, 28, 8, 3, batch_norm=True)) == discriminator
    plain = generator - 2 * (32 + 16 + 8) + 32 * 16 + 16 + 8  # biases for batch norm's scales and shifts
    assert n_parameters(DcganGenerator(10, 1, 28, 8, 3, batch_norm=False)) == plain


def test_figure_1_of_radford_at_64_pixels_has_its_maps():
    """4 x 4 x 1024, 8 x 8 x 512, 16 x 16 x 256, 32 x 32 x 128, 64 x 64 x 3; on no device, for it is large."""
    with torch.device("meta"):
        h = (
            (g := DcganGenerator(100, 3, 64, 128, 4, batch_norm=True))
            .project(torch.zeros(1, 100))
            .unflatten(1, g.inner)
        )
        shapes = [tuple(h.shape[1:])]
        for layer in g.layers:
            h = layer(h)
            shapes += [tuple(h.shape[1:])] if isinstance(layer, nn.ConvTranspose2d) else []
    assert shapes == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]


def test_batch_norm_is_neither_at_the_output_nor_at_the_input():
    g, d = DcganGenerator(5, 3, 32, 4, 3, batch_norm=True), DcganDiscriminator(3, 32, 4, 3, batch_norm=True)
    kinds = [type(layer).__name__ for layer in g.layers]
    assert kinds == ["BatchNorm2d", "ReLU", "ConvTranspose2d"] * 3 + ["Tanh"]
    kinds = [type(layer).__name__ for layer in d.layers]
    assert kinds == ["Conv2d", "LeakyReLU"] + ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 2
    assert {layer.negative_slope for layer in d.layers if isinstance(layer, nn.LeakyReLU)} == {0.2}
    plain = [*DcganGenerator(5, 3, 32, 4, 3, batch_norm=False).modules()]
    plain += DcganDiscriminator(3, 32, 4, 3, batch_norm=False).modules()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in plain)


def test_first_weights_have_the_spread_asked_for():
    d = DcganDiscriminator(3, 32, 32, 3, batch_norm=True)
    draw_weights_(d, 0.02, torch.Generator().manual_seed(0))
    for layer in d.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            n = layer.weight.numel()
            assert layer.weight.std().item() == pytest.approx(0.02, rel=4 / (2 * n) ** 0.5)  # 4 standard errors
            assert layer.weight.mean().item() == pytest.approx(0, abs=4 * 0.02 / n**0.5)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
            assert 0.01 < layer.weight.std().item() < 0.03
        if getattr(layer, "bias", None) is not None:
            assert not layer.bias.any()


def test_first_weights_are_a_function_of_the_generator():
    def drawn(seed):
        network = DcganGenerator(5, 1, 28, 2, 2, batch_norm=True)
        draw_weights_(network, 0.1, torch.Generator().manual_seed(seed))
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_a_layer_without_a_rule_is_refused():
    with pytest.raises(TypeError, match="says nothing of PReLU"):
        draw_weights_(nn.Sequential(nn.Linear(2, 2), nn.PReLU()), 0.02, torch.Generator())


def test_a_pack_holds_neighbours_and_every_image_once():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 2, 2) * 10 + torch.arange(3.0).view(1, 3, 1, 1)
    packed = pack(images, 2)
    assert packed.shape == (3, 6, 2, 2)
    assert packed[:, :, 0, 0].tolist() == [[0, 1, 2, 10, 11, 12], [20, 21, 22, 30, 31, 32], [40, 41, 42, 50, 51, 52]]
    assert torch.equal(pack(images, 1), images)
    with pytest.raises(ValueError, match="6 images do not divide into packs of 4"):
        pack(images, 4)


def test_bytes_fill_the_range_of_tanh():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    torch.testing.assert_close(to_unit_range(images).flatten(), torch.tensor([-1.0, -0.6, 1.0]))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="a side of 28 cannot be halved 6 times"):
        map_sides(28, 6)
    with pytest.raises(ValueError, match="n_filters is 0"):
        DcganGenerator(5, 1, 28, 0, 2, batch_norm=True)
