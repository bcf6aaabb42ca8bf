"""The methods that section 5.1 compares with, each from its own objective, on CycleGAN's networks where it has such.

NOTE cyclegan2017-N30: the paper names these methods in a sentence each and publishes no code of them; what is built
here is that sentence. All train both directions in one run: two separate pairs of networks where a method has one
direction only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.losses.adversarial import least_squares_loss
from lib.metrics import extractor
from lib.models.patch_discriminator import PatchDiscriminator
from lib.training.processes import ALONE, Processes
from lib.training.randomness import Streams
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.networks import build_discriminator, build_generator, draw_weights_
from replications.cyclegan2017.train import Method, Players, Translator, cyclegan

INNER_BLOCKS = 5  # of efficientnet-lite0: to the end of its third stage, 40 channels at an eighth of the side
N_LATENT = 100  # of CoGAN: Liu and Tuzel 2016
BANK, SEARCH_STEPS, SEARCH_RATE = 2000, 10, 0.05  # ours: of CoGAN's search for the latent that makes the input
SEARCHED_AT_ONCE = 250


def method_of(
    config: TranslationConfig,
    channels: tuple[int, int],
    streams: Streams,
    device: torch.device,
    processes: Processes = ALONE,
) -> Method:
    """The method that the config names, its networks drawn and its optimisers ready."""
    if config.method in ("cyclegan", "simgan"):
        return cyclegan(config, channels, streams, device, processes=processes)
    if config.method == "feature":
        return cyclegan(config, channels, streams, device, feature_distance(device, processes), processes)
    builders = {"pix2pix": pix2pix, "bigan": bigan, "cogan": cogan}
    if config.method not in builders:
        raise ValueError(f"{config.method!r} is no method: cyclegan, simgan, feature, {', '.join(builders)}")
    return builders[config.method](config, channels, streams, device, processes)


def feature_distance(device: torch.device, processes: Processes = ALONE) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean |phi(x) - phi(y)| over entries, (), for images (B, 3, H, W) in -1 .. 1: the "feature loss".

    phi: the third stage of efficientnet-lite0, each entry over the mean size of phi(y).
    """
    # DEVIATION cyclegan2017-D30: the paper has relu4_2 of VGG-16, whose weights come in no wheel.
    network = extractor("efficientnet-lite0", device=device).network
    blocks = network.blocks[:INNER_BLOCKS]  # type: ignore[union-attr, index]

    def phi(x: Tensor) -> Tensor:
        return blocks(network.stem((127.5 * x + 0.5) / 128))  # type: ignore[no-any-return, operator]  # (B, 40, H/8, W/8)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            target = phi(y)
            size = target.abs().mean()
        processes.mean_(size)  # of the whole minibatch: a mean of ratios is not the ratio of means
        return (phi(x) - target).abs().mean() / size

    return distance


def optimizers(translators: Players, judges: Players) -> dict[str, Any]:
    return {"optimizer": translators.optimizer, "judges_optimizer": judges.optimizer}


def descend(players: Players, loss: Tensor) -> None:
    players.accumulate(loss)
    players.step()


def pix2pix(
    config: TranslationConfig, channels: tuple[int, int], streams: Streams, device: torch.device, processes: Processes
) -> Method:
    """Isola et al. 2017: pairs are known; D sees input and output together; L1 to the truth, weight config.paired."""
    # DEVIATION cyclegan2017-D31: CycleGAN's networks and least squares, where pix2pix has a U-Net and cross-entropy.
    a, b = channels
    to_b = build_generator(config, a, b, streams, "to_b")
    to_a = build_generator(config, b, a, streams, "to_a")
    judge_b = build_discriminator(config, a + b, streams, "judge_b")
    judge_a = build_discriminator(config, a + b, streams, "judge_a")
    translators = Players(config, to_b, to_a, processes=processes)
    judges = Players(config, judge_a, judge_b, processes=processes)

    def update(x: Tensor, y: Tensor, step: int) -> Tensor:
        fake_b, fake_a = to_b(x), to_a(y)
        fooled = least_squares_loss(judge_b(torch.cat([x, fake_b], 1)), 1) + least_squares_loss(
            judge_a(torch.cat([y, fake_a], 1)), 1
        )
        l1 = (fake_b - y).abs().mean() + (fake_a - x).abs().mean()
        descend(translators, fooled + config.paired * l1)
        told = [
            0.5 * (least_squares_loss(judge(torch.cat([given, real], 1)), 1)
                   + least_squares_loss(judge(torch.cat([given, fake.detach()], 1)), 0))
            for judge, given, real, fake in ((judge_b, x, y, fake_b), (judge_a, y, x, fake_a))
        ]  # fmt: skip
        descend(judges, told[0] + told[1])
        return torch.stack([fooled, l1, told[0], told[1]]).detach()

    parts = {"to_b": to_b, "to_a": to_a, "judge_a": judge_a, "judge_b": judge_b} | optimizers(translators, judges)
    return Method(to_b, to_a, update, ("fooled", "paired", "discriminator_b", "discriminator_a"), parts)


def bigan(
    config: TranslationConfig, channels: tuple[int, int], streams: Streams, device: torch.device, processes: Processes
) -> Method:
    """BiGAN/ALI (Donahue et al., Dumoulin et al. 2017) with an image in the latent's place, as section 5.1.3 has it.

    One discriminator sees pairs: (a, G(a)) against (F(b), b). G and F together make the two alike.
    """
    a, b = channels
    to_b = build_generator(config, a, b, streams, "to_b")
    to_a = build_generator(config, b, a, streams, "to_a")
    judge = build_discriminator(config, a + b, streams, "judge_b")
    translators = Players(config, to_b, to_a, processes=processes)
    judges = Players(config, judge, processes=processes)

    def update(x: Tensor, y: Tensor, step: int) -> Tensor:
        forward, backward = torch.cat([x, to_b(x)], 1), torch.cat([to_a(y), y], 1)
        fooled = least_squares_loss(judge(forward), 1) + least_squares_loss(judge(backward), 0)
        descend(translators, fooled)
        told = 0.5 * (least_squares_loss(judge(forward.detach()), 0) + least_squares_loss(judge(backward.detach()), 1))
        descend(judges, told)
        return torch.stack([fooled, told]).detach()

    parts = {"to_b": to_b, "to_a": to_a, "judge": judge} | optimizers(translators, judges)
    return Method(to_b, to_a, update, ("fooled", "discriminator"), parts)


class Coupled(NamedTuple):
    """CoGAN's networks: what both domains share, and each domain's own ends."""

    trunk: nn.Module  # z (B, Z) -> (B, 2 n, H/2, W/2)
    head_a: nn.Module
    head_b: nn.Module
    judge_a: nn.Module
    judge_b: nn.Module
    judge_shared: nn.Module


def cogan(
    config: TranslationConfig, channels: tuple[int, int], streams: Streams, device: torch.device, processes: Processes
) -> Method:
    """CoGAN (Liu and Tuzel 2016): two GANs of noise; generators share the first layers, discriminators the last.

    To translate, the latent that makes the input is searched by its squared error and shown to the other domain's head.
    """
    # NOTE cyclegan2017-N31: DCGAN-like networks of config's widths; the search: the best of 2,000 draws, then 10 steps.
    nets = coupled(config, channels, streams, device)
    generators = Players(config, nets.trunk, nets.head_a, nets.head_b, processes=processes)
    judges = Players(config, nets.judge_a, nets.judge_b, nets.judge_shared, processes=processes)

    def update(x: Tensor, y: Tensor, step: int) -> Tensor:
        z = torch.randn(len(x) * processes.world, N_LATENT, generator=streams.at("latent", step), device=device)
        h = nets.trunk(processes.share(z))
        fakes = nets.head_a(h), nets.head_b(h)
        ends = nets.judge_a, nets.judge_b
        fooled = sum(least_squares_loss(nets.judge_shared(d(fake)), 1) for d, fake in zip(ends, fakes, strict=True))
        assert isinstance(fooled, Tensor)
        descend(generators, fooled)
        told = [
            0.5 * (least_squares_loss(nets.judge_shared(d(real)), 1)
                   + least_squares_loss(nets.judge_shared(d(fake.detach())), 0))
            for d, real, fake in zip(ends, (x, y), fakes, strict=True)
        ]  # fmt: skip
        descend(judges, told[0] + told[1])
        return torch.stack([fooled, told[0], told[1]]).detach()

    parts = nets._asdict() | optimizers(generators, judges)
    bank = torch.randn(BANK, N_LATENT, generator=streams.at("bank"), device=device)
    to_b = _searched(nets.trunk, nets.head_a, nets.head_b, bank)
    to_a = _searched(nets.trunk, nets.head_b, nets.head_a, bank)
    return Method(to_b, to_a, update, ("fooled", "discriminator_a", "discriminator_b"), parts)


def coupled(config: TranslationConfig, channels: tuple[int, int], streams: Streams, device: torch.device) -> Coupled:
    """CoGAN's networks for images of config.side, weights drawn."""
    n, m, inner = config.n_filters, config.n_critic_filters, config.side // 8
    trunk = nn.Sequential(
        nn.Linear(N_LATENT, 8 * n * inner * inner), nn.Unflatten(1, (8 * n, inner, inner)), nn.InstanceNorm2d(8 * n),
        nn.ReLU(), nn.ConvTranspose2d(8 * n, 4 * n, 4, 2, 1), nn.InstanceNorm2d(4 * n), nn.ReLU(),
        nn.ConvTranspose2d(4 * n, 2 * n, 4, 2, 1), nn.InstanceNorm2d(2 * n), nn.ReLU(),
    )  # fmt: skip
    head_a, head_b = (
        nn.Sequential(
            nn.ConvTranspose2d(2 * n, n, 4, 2, 1), nn.InstanceNorm2d(n), nn.ReLU(),
            nn.Conv2d(n, c, 7, padding=3), nn.Tanh(),
        )
        for c in channels
    )  # fmt: skip
    judge_a, judge_b = (nn.Sequential(nn.Conv2d(c, m, 4, 2, 1), nn.LeakyReLU(0.2)) for c in channels)
    shared = nn.Sequential(*list(PatchDiscriminator(channels[0], m, config.n_critic_layers).layers)[2:])
    nets = Coupled(trunk, head_a, head_b, judge_a, judge_b, shared)
    for name, network in nets._asdict().items():
        draw_weights_(network, config.init_sd, streams, f"init {name}")
        network.to(device)
    return nets


def _searched(trunk: nn.Module, given: nn.Module, wanted: nn.Module, bank: Tensor) -> Translator:
    """The latent behind each image, the best of the bank improved by gradient descent, shown to the other head."""

    def translate(x: Tensor) -> Tensor:
        with torch.no_grad():
            made = torch.cat([given(trunk(z)) for z in bank.split(SEARCHED_AT_ONCE)])
            z = bank[torch.cdist(x.flatten(1), made.flatten(1)).argmin(1)]
        with torch.enable_grad():
            z = z.clone().requires_grad_()
            optimizer = torch.optim.Adam([z], SEARCH_RATE)
            for _ in range(SEARCH_STEPS):
                # A sum over images, so that each is searched as it would be alone.
                loss = F.mse_loss(given(trunk(z)), x, reduction="none").mean((1, 2, 3)).sum()
                (z.grad,) = torch.autograd.grad(loss, z)
                optimizer.step()
        return wanted(trunk(z.detach()))  # type: ignore[no-any-return]

    return translate
