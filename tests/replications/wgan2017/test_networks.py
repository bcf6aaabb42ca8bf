"""The authors' networks: their parameter counts, and the fast layers against PyTorch's own."""

import pytest
import torch
from torch import nn

from lib.errors import UserError
from lib.training.randomness import Streams
from replications.wgan2017.bench import as_plain
from replications.wgan2017.config import ImagesConfig
from replications.wgan2017.networks import (
    FromPoint,
    ToImage,
    ToPoint,
    build,
    convolutional_critic,
    convolutional_generator,
    draw_weights_,
    mlp_critic,
    mlp_generator,
    n_doublings,
    n_parameters,
)

LSUN = (3, 64, 64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_parameter_counts_are_those_of_the_authors_networks():
    assert n_parameters(convolutional_generator(100, LSUN, 64, constant=False)) == 3_576_704
    assert n_parameters(convolutional_generator(100, LSUN, 64, constant=True)) == 302_080
    assert n_parameters(convolutional_critic(LSUN, 64, batch_norm=True)) == 2_765_568
    # code: three hidden layers, 6.88 M; the figure's caption: four
    assert n_parameters(mlp_generator(100, LSUN, 512, 3)) == 6_880_768
    assert n_parameters(mlp_generator(100, LSUN, 512, 4)) == 6_880_768 + 512 * 513
    assert n_parameters(mlp_critic(LSUN, 512, 3)) == 12288 * 512 + 512 + 2 * 512 * 513 + 513


def test_the_constant_generator_has_no_batch_norm_and_the_critic_has_where_dcgan_has():
    constant = convolutional_generator(100, LSUN, 8, constant=True)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in constant)
    critic = convolutional_critic(LSUN, 8, batch_norm=True)
    assert [type(layer).__name__ for layer in critic] == [
        "Conv2d", "LeakyReLU", *(3 * ["Conv2d", "BatchNorm2d", "LeakyReLU"]), "ToPoint",
    ]  # fmt: skip
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in convolutional_critic(LSUN, 8, batch_norm=False))


@pytest.mark.parametrize(
    ("fast", "plain", "shape"),
    [
        (FromPoint(6, 5), nn.ConvTranspose2d(6, 5, 4, 1, 0, bias=False), (3, 6, 1, 1)),
        (ToImage(6, 3), nn.ConvTranspose2d(6, 3, 4, 2, 1, bias=False), (3, 6, 5, 5)),
        (ToPoint(6), nn.Conv2d(6, 1, 4, 1, 0, bias=False), (3, 6, 4, 4)),
    ],
    ids=["from a point", "to the image", "to a point"],
)
def test_a_fast_layer_is_pytorchs(fast, plain, shape):
    """Outputs, and both gradients of a random function of them."""
    assert fast.weight.shape == plain.weight.shape
    with torch.no_grad():
        fast.weight.copy_(torch.randn(plain.weight.shape, generator=seeded()))
        plain.weight.copy_(fast.weight)
    x = torch.randn(shape, generator=seeded(1), requires_grad=True)
    ours = fast(x.flatten(1) if isinstance(fast, FromPoint) else x)
    theirs = plain(x)
    torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=1e-5, atol=1e-5)
    weights = torch.randn(theirs.shape, generator=seeded(2))
    for a, b in zip(
        torch.autograd.grad((ours.reshape(theirs.shape) * weights).sum(), [fast.weight, x]),
        torch.autograd.grad((theirs * weights).sum(), [plain.weight, x]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["dcgan", "constant"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_whole_network_is_that_of_pytorchs_layers(kind, channels):
    config = ImagesConfig("x", "wgan", kind, "dcgan", 1, n_filters=8, init_sd=0.3)
    nets = build(config, (channels, 32, 32), Streams(0))
    z = torch.randn(4, 100, generator=seeded())
    images = nets.generator(z)
    assert images.shape == (4, channels, 32, 32)
    assert images.abs().max() <= 1
    torch.testing.assert_close(images, as_plain(nets.generator)(z[..., None, None]), rtol=1e-4, atol=1e-4)
    values = nets.critic(images)
    assert values.shape == (4,)
    torch.testing.assert_close(values, as_plain(nets.critic)(images).flatten(), rtol=1e-3, atol=1e-3)


def test_mlps_make_and_judge_images():
    config = ImagesConfig("x", "wgan", "mlp", "mlp", 1, n_hidden=8, n_layers=2)
    nets = build(config, (1, 32, 32), Streams(0))
    images = nets.generator(torch.randn(4, 100, generator=seeded()))
    assert images.shape == (4, 1, 32, 32)
    assert nets.critic(images).shape == (4,)


def test_first_weights_have_the_authors_spread_and_come_from_the_seed():
    critic = convolutional_critic(LSUN, 32, batch_norm=True)
    draw_weights_(critic, 0.02, "pytorch", seeded())
    assert critic[2].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(critic[2].weight.mean().item()) < 0.0005
    assert critic[6].weight.mean().item() == pytest.approx(1, abs=0.01)
    assert critic[6].weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not critic[6].bias.any()
    dense = mlp_critic((1, 32, 32), 64, 1)
    draw_weights_(dense, 0.02, "pytorch", seeded())
    assert dense[1].weight.abs().max().item() == pytest.approx(1 / 32, rel=0.001)
    config = ImagesConfig("x", "wgan", "dcgan", "dcgan", 1, n_filters=4)
    a, b, c = (build(config, (1, 32, 32), Streams(seed)).generator[0].weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_pytorchs_first_weights_lose_the_noise_and_hes_keep_it():
    """Variance of the outputs over noise, after four ReLU layers; NOTE wgan2017-N60."""
    spread = {}
    for linear in ("pytorch", "he"):
        network = mlp_generator(100, (1, 32, 32), 512, 4)
        draw_weights_(network, 0.02, linear, seeded())
        with torch.no_grad():
            spread[linear] = network(torch.randn(200, 100, generator=seeded(1))).var(0).mean().item()
    assert 0.3 < spread["he"] < 2
    assert spread["pytorch"] < spread["he"] / 100


def test_an_image_of_another_side_is_refused():
    assert [n_doublings(side) for side in (8, 32, 64)] == [1, 3, 4]
    for side in (4, 28, 48):
        with pytest.raises(UserError, match=f"not {side}"):
            n_doublings(side)
