"""The translators and discriminators of section 4 with their first weights, and their sizes as scores."""

from typing import NamedTuple, TypeVar

import torch
from torch import nn

from lib.models.patch_discriminator import PatchDiscriminator, receptive_field
from lib.models.resnet_generator import ResnetGenerator
from lib.results import Score
from lib.training.randomness import Streams, generator
from replications.cyclegan2017.config import TranslationConfig

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)
IMAGE = 3, 3  # channels of the paper's domains


class Nets(NamedTuple):
    to_b: ResnetGenerator  # G: A -> B
    to_a: ResnetGenerator  # F: B -> A
    judge_a: PatchDiscriminator  # D_A of the paper's D_X: A beside F(b). The PyTorch code calls it netD_B
    judge_b: PatchDiscriminator  # D_B: B beside G(a)


def build_generator(config: TranslationConfig, n_in: int, n_out: int, streams: Streams, name: str) -> ResnetGenerator:
    """Images of n_in channels to images of n_out, on the streams' device; first weights by the run's seed and `name`.

    7,837,699 parameters for 6 blocks of 64 filters and colour images, 11,378,179 for 9.
    """
    # NOTE cyclegan2017-N5: instance norm has no scale and shift of its own, and never running statistics.
    # NOTE cyclegan2017-N7: the last layer is tanh without norm, whatever the notation c7s1-3 says.
    # NOTE cyclegan2017-N11: on a CPU its blocks are convolved by tiles, lib/models/winograd.py, as cuDNN does on a GPU.
    # DEVIATION cyclegan2017-D4: fewer filters and blocks at laptop, by config.
    network = ResnetGenerator(n_in, n_out, config.n_filters, config.n_blocks)
    return _ready(network, config, streams, name)


def build_discriminator(config: TranslationConfig, n_in: int, streams: Streams, name: str) -> PatchDiscriminator:
    """Images of n_in channels to one value a patch, on the streams' device; first weights by the run's seed and `name`.

    2,764,737 parameters for 64 filters, 3 layers and colour images, whose patches are 70 x 70.
    """
    # NOTE cyclegan2017-N6: a border of one zero, and stride 1 in C512: with the paper's stride 2 patches would be 94.
    network = PatchDiscriminator(n_in, config.n_critic_filters, config.n_critic_layers)
    return _ready(network, config, streams, name)


def build(config: TranslationConfig, channels: tuple[int, int], streams: Streams) -> Nets:
    """All four with their first weights; channels: of A's images and of B's."""
    a, b = channels
    return Nets(
        build_generator(config, a, b, streams, "to_b"),
        build_generator(config, b, a, streams, "to_a"),
        build_discriminator(config, a, streams, "judge_a"),
        build_discriminator(config, b, streams, "judge_b"),
    )


def _ready(network: AnyNetwork, config: TranslationConfig, streams: Streams, name: str) -> AnyNetwork:
    draw_weights_(network, config.init_sd, streams, f"init {name}")
    return network.to(streams.device).to(memory_format=torch.channels_last)


@torch.no_grad()
def draw_weights_(network: nn.Module, sd: float, streams: Streams, stream: str) -> None:
    """Every kernel N(0, sd^2) (section 4), every bias 0; drawn on the CPU, so equal on every device."""
    rng = generator(streams.seed, stream)
    for layer in network.modules():
        own = dict(layer.named_parameters(recurse=False))
        if own:
            own["weight"].copy_(torch.empty(own["weight"].shape).normal_(0.0, sd, generator=rng))
            # NOTE cyclegan2017-N4: biases start at 0 and are trained, as in PyTorch; Lua sets them to 0 ever again.
            own["bias"].zero_()


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def network_scores() -> dict[str, Score]:
    """Sizes of the paper's networks, counted; on no device, so in a moment."""
    with torch.device("meta"):
        counts = {
            "parameters_6_blocks": n_parameters(ResnetGenerator(*IMAGE, 64, 6)),
            "parameters_9_blocks": n_parameters(ResnetGenerator(*IMAGE, 64, 9)),
            "parameters_discriminator": n_parameters(judge := PatchDiscriminator(IMAGE[0], 64, 3)),
        }
        side = judge(torch.empty(1, IMAGE[0], 256, 256)).shape[-1]
    protocol = {"filters": 64, "channels": IMAGE[0], "method": "counted"}
    scores = {name: _exact(count, "parameters", protocol) for name, count in counts.items()}
    scores["receptive_field"] = _exact(receptive_field(judge), "pixels", protocol | {"method": "kernels and strides"})
    scores["patches_a_side"] = _exact(side, "patches", protocol | {"image": "256 x 256"})
    return scores


def _exact(value: int, unit: str, protocol: dict[str, object]) -> Score:
    return Score(float(value), float("nan"), unit, False, 1, protocol)
