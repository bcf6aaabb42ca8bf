"""PatchGAN: counts, the patch that one value sees, where norms stand, refusals."""

import pytest
import torch
from torch import nn

from lib.models.instance_norm import InstanceNorm
from lib.models.patch_discriminator import PatchDiscriminator, receptive_field


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_has_its_parameters_and_its_map():
    with torch.device("meta"):
        judge = PatchDiscriminator(3, 64, 3)
        assert n_parameters(judge) == 2_764_737
        assert judge(torch.empty(2, 3, 256, 256)).shape == (2, 30, 30)
    small = 1 * 4 * 16 + 4 + 4 * 8 * 16 + 8 + 8 * 16 * 16 + 16 + 16 * 16 + 1
    assert n_parameters(PatchDiscriminator(1, 4, 2)) == small


@pytest.mark.parametrize(("n_layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_one_value_sees_that_many_pixels_and_no_more(n_layers, side):
    """By its gradient, norms taken out: their statistics see the whole image. Weights of one sign cannot cancel."""
    judge = PatchDiscriminator(1, 2, n_layers)
    assert receptive_field(judge) == side
    for parameter in judge.parameters():
        nn.init.constant_(parameter, 0.1)
    plain = nn.Sequential(*(layer for layer in judge.layers if isinstance(layer, nn.Conv2d)))
    x = torch.zeros(1, 1, 2**n_layers * 24, 2**n_layers * 24, requires_grad=True)
    values = plain(x)[0, 0]
    middle = len(values) // 2
    (seen,) = torch.autograd.grad(values[middle, middle], x)
    rows, columns = (seen[0, 0].abs().sum(axis).nonzero().flatten() for axis in (1, 0))
    assert len(rows) == rows[-1] - rows[0] + 1 == side
    assert len(columns) == side


def test_with_stride_2_in_the_widest_layer_a_patch_would_be_94():
    """The paper's notation for C512, which its 70 x 70 contradicts."""
    judge = PatchDiscriminator(3, 2, 3)
    [layer for layer in judge.layers if isinstance(layer, nn.Conv2d)][3].stride = (2, 2)
    assert receptive_field(judge) == 94


def test_norm_stands_behind_all_but_the_first_and_the_last_convolution():
    judge = PatchDiscriminator(3, 4, 3)
    kinds = [type(layer).__name__ for layer in judge.layers]
    assert kinds == ["Conv2d", "LeakyReLU", *(3 * ["Conv2d", "InstanceNorm"]), "Conv2d"]
    assert {layer.leak for layer in judge.layers if isinstance(layer, InstanceNorm)} == {0.2}
    assert judge.layers[1].negative_slope == 0.2
    widths = [layer.out_channels for layer in judge.layers if isinstance(layer, nn.Conv2d)]
    assert widths == [4, 8, 16, 32, 1]
    deep = [layer.out_channels for layer in PatchDiscriminator(3, 4, 5).layers if isinstance(layer, nn.Conv2d)]
    assert deep == [4, 8, 16, 32, 32, 32, 1]


def test_images_that_are_too_small_are_refused():
    judge = PatchDiscriminator(1, 2, 3)
    assert judge(torch.zeros(1, 1, 24, 24)).shape == (1, 1, 1)
    with pytest.raises(ValueError, match="images are 23 x 32: both sides must be 24 at least"):
        judge(torch.zeros(1, 1, 23, 32))
    with pytest.raises(ValueError, match="n_layers is 0"):
        PatchDiscriminator(1, 2, 0)
