"""One training step beside the authors' step order, written plainly in today's PyTorch: time, peak memory, numbers.

Same networks, same first weights, same order of updates; the plain step has PyTorch's own layers and optimisers.
"""

import itertools
import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lib.execution.execute import deterministic
from lib.timing import counted_flop, matrix_product, peak_megabytes, product_rates, ratio_quartiles, take_turns, waiting
from lib.training.provenance import device_name
from lib.training.randomness import Streams
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.networks import Nets, build
from replications.cyclegan2017.train import cyclegan, weights_of

ROUNDS = 5
CHANNELS = 3, 3
LOSSES = {  # the plain step's losses by our names, in its order; without identity, two fewer
    5.0: ("adversarial_b", "adversarial_a", "cycle_a", "cycle_b", "identity_b", "identity_a",
          "discriminator_b", "discriminator_a"),
    0.0: ("adversarial_b", "adversarial_a", "cycle_a", "cycle_b", "discriminator_b", "discriminator_a"),
}  # fmt: skip
PAPER = TranslationConfig("made up", "cyclegan", 256, 266_800, 0, 0)
SMALL = replace(PAPER, side=32, batch=4, n_filters=16, n_blocks=2, n_critic_filters=16, n_critic_layers=2)
CASES = {  # config, device, threads
    "256 x 256, 9 blocks, batch 1": (PAPER, "cpu", 2),
    "256 x 256, 9 blocks, batch 1, identity loss": (replace(PAPER, identity=5.0), "cpu", 2),
    "32 x 32, 2 blocks of 16 filters, batch 4": (SMALL, "cpu", 1),
}


def measure(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One row a case: milliseconds a step (medians), the plain step's time over ours within each round (quartiles),
    peak megabytes of a process that takes two steps, and the largest relative difference of a first step's loss."""
    cases = dict(CASES)
    if torch.cuda.is_available():
        cases["256 x 256, 9 blocks, batch 1, GPU"] = (PAPER, "cuda", 1)
    return [measure_case(name, *case, rounds) for name, case in cases.items()]


def measure_case(name: str, config: TranslationConfig, device: str, threads: int, rounds: int) -> dict[str, Any]:
    row: dict[str, Any] = {"case": f"{name}, {threads} thread{'s' if threads > 1 else ''}"}
    row["device"] = device_name(torch.device(device))
    steps = steps_of(config, torch.device(device))
    with deterministic(device):
        torch.set_num_threads(threads)
        # On a GPU PyTorch has no deterministic gradient of the plain step's reflected border.
        torch.use_deterministic_algorithms(device == "cpu")
        off = largest_difference(config, steps["ours"](), steps["plain"]())
        flop = counted_flop(steps["plain"])  # ours has the same layers, some of them computed with fewer products
        works = {which: waiting(step, torch.device(device)) for which, step in steps.items()}
        works["product"] = matrix_product(torch.device(device))
        times = take_turns(works, rounds, repeats=1 if config.side > 100 else 10, warm_up=1)
    row |= {f"{which} ms": round(1e3 * statistics.median(times[which]), 1) for which in steps}
    row["plain / ours"] = ratio_quartiles(times["plain"], times["ours"])
    row["images/s"] = round(config.batch / statistics.median(times["ours"]), 3)  # of each domain
    row |= product_rates(flop, times["ours"], times["product"])
    if device == "cpu":
        case = next(key for key, value in CASES.items() if value[0] == config)
        row |= {f"{which} peak MB": peak_megabytes(f"{__name__}.two_steps", which, case) for which in steps}
    return row | {"losses off by": f"{off:.1e}"}


def steps_of(config: TranslationConfig, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """A training step of each, on one made-up minibatch; each returns its losses."""
    return {"ours": our_step(config, device), "plain": plain_step(config, device)}


def our_step(config: TranslationConfig, device: torch.device) -> Callable[[], Tensor]:
    streams, count = Streams(0, device), iter(range(10**9))
    method = cyclegan(config, CHANNELS, streams, device)
    a, b = (images.contiguous(memory_format=torch.channels_last) for images in made_up(config, device))
    return lambda: method.update(a, b, next(count))


def plain_step(config: TranslationConfig, device: torch.device) -> Callable[[], Tensor]:
    loop = PlainLoop(config, build(config, CHANNELS, Streams(0, device)))
    a, b = made_up(config, device)
    return lambda: loop.optimize_parameters(a, b)


def made_up(config: TranslationConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """A minibatch of each domain, uniform in -1 .. 1."""
    rng, shape = Streams(0, device), (config.batch, CHANNELS[0], config.side, config.side)
    a, b = (torch.rand(shape, generator=rng.at(name), device=device).mul_(2).sub_(1) for name in "ab")
    return a, b


def largest_difference(config: TranslationConfig, ours: Tensor, plain: Tensor) -> float:
    """Largest relative difference of a loss, ours (in the order of the method's columns) from the plain step's."""
    columns = (*weights_of(config), "discriminator_b", "discriminator_a")
    order = [columns.index(name) for name in LOSSES[config.identity]]
    return ((ours[order] - plain).abs() / plain.abs()).max().item()


def two_steps(which: str, case: str) -> None:
    """For `peak_megabytes`."""
    config, device, threads = CASES[case]
    torch.set_num_threads(threads)
    step = {"ours": our_step, "plain": plain_step}[which](config, torch.device(device))
    step()
    step()


class PlainBlock(nn.Module):
    """models/networks.py: ResnetBlock."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(n, n, 3), nn.InstanceNorm2d(n), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(n, n, 3), nn.InstanceNorm2d(n),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


def plain_generator(n_in: int, n_out: int, n: int, n_blocks: int) -> nn.Sequential:
    """models/networks.py: ResnetGenerator."""
    return nn.Sequential(
        nn.ReflectionPad2d(3), nn.Conv2d(n_in, n, 7), nn.InstanceNorm2d(n), nn.ReLU(True),
        nn.Conv2d(n, 2 * n, 3, 2, 1), nn.InstanceNorm2d(2 * n), nn.ReLU(True),
        nn.Conv2d(2 * n, 4 * n, 3, 2, 1), nn.InstanceNorm2d(4 * n), nn.ReLU(True),
        *(PlainBlock(4 * n) for _ in range(n_blocks)),
        nn.ConvTranspose2d(4 * n, 2 * n, 3, 2, 1, 1), nn.InstanceNorm2d(2 * n), nn.ReLU(True),
        nn.ConvTranspose2d(2 * n, n, 3, 2, 1, 1), nn.InstanceNorm2d(n), nn.ReLU(True),
        nn.ReflectionPad2d(3), nn.Conv2d(n, n_out, 7), nn.Tanh(),
    )  # fmt: skip


def plain_discriminator(n_in: int, n: int, n_layers: int) -> nn.Sequential:
    """models/networks.py: NLayerDiscriminator."""
    layers: list[nn.Module] = [nn.Conv2d(n_in, n, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    widths = [n * min(2**i, 8) for i in range(n_layers + 1)]
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        stride = 2 if i < n_layers - 1 else 1
        layers += [nn.Conv2d(before, after, 4, stride, 1), nn.InstanceNorm2d(after), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))


class PlainPool:
    """util/image_pool.py."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self.uniform: Callable[[], float] = random.Random(0).random

    def query(self, images: Tensor) -> Tensor:
        if self.size == 0:
            return images
        returned = []
        for image in images:
            image = image.data.unsqueeze(0)
            if len(self.images) < self.size:
                self.images.append(image)
                returned.append(image)
            elif self.uniform() > 0.5:
                which = int(self.uniform() * self.size)
                returned.append(self.images[which].clone())
                self.images[which] = image
            else:
                returned.append(image)
        return torch.cat(returned, 0)


class PlainLoop:
    """models/cycle_gan_model.py in today's PyTorch: optimize_parameters, with the first weights of `nets`."""

    def __init__(self, config: TranslationConfig, nets: Nets) -> None:
        self.config = config
        n_a, n_b = (next(judge.parameters()).shape[1] for judge in (nets.judge_a, nets.judge_b))
        g = config.n_filters, config.n_blocks
        d = config.n_critic_filters, config.n_critic_layers
        plain = (plain_generator(n_a, n_b, *g), plain_generator(n_b, n_a, *g),
                 plain_discriminator(n_a, *d), plain_discriminator(n_b, *d))  # fmt: skip
        for ours, theirs in zip(nets, plain, strict=True):
            theirs.to(next(ours.parameters()))
            with torch.no_grad():
                for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                    other.copy_(one)
        self.netG_A, self.netG_B, self.netD_B, self.netD_A = plain  # the authors' D_A judges B
        self.optimizer_G, self.optimizer_D = (
            torch.optim.Adam(
                itertools.chain(*(m.parameters() for m in pair)), config.learning_rate, (config.beta1, config.beta2)
            )
            for pair in (plain[:2], plain[2:])
        )
        self.fake_A_pool, self.fake_B_pool = PlainPool(config.pool), PlainPool(config.pool)
        self.mse, self.l1 = nn.MSELoss(), nn.L1Loss()

    def gan(self, prediction: Tensor, real: bool) -> Tensor:
        target = torch.tensor(1.0 if real else 0.0).to(prediction).expand_as(prediction)
        loss: Tensor = self.mse(prediction, target)
        return loss

    def set_requires_grad(self, requires_grad: bool) -> None:
        for parameter in itertools.chain(self.netD_A.parameters(), self.netD_B.parameters()):
            parameter.requires_grad = requires_grad

    def optimize_parameters(self, real_A: Tensor, real_B: Tensor) -> Tensor:
        """One step; the losses, (8,) or, without identity, (6,)."""
        config = self.config
        fake_B = self.netG_A(real_A)
        rec_A = self.netG_B(fake_B)
        fake_A = self.netG_B(real_B)
        rec_B = self.netG_A(fake_A)
        self.set_requires_grad(False)
        self.optimizer_G.zero_grad()
        losses = [self.gan(self.netD_A(fake_B), True), self.gan(self.netD_B(fake_A), True)]
        losses += [self.l1(rec_A, real_A), self.l1(rec_B, real_B)]
        weights = [1.0, 1.0, config.cycle_a, config.cycle_b]
        if config.identity > 0:
            losses += [self.l1(self.netG_A(real_B), real_B), self.l1(self.netG_B(real_A), real_A)]
            weights += 2 * [config.identity]
        torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum().backward()
        self.optimizer_G.step()
        self.set_requires_grad(True)
        self.optimizer_D.zero_grad()
        losses.append(self.backward_D(self.netD_A, real_B, self.fake_B_pool.query(fake_B)))
        losses.append(self.backward_D(self.netD_B, real_A, self.fake_A_pool.query(fake_A)))
        self.optimizer_D.step()
        return torch.stack([loss.detach() for loss in losses])

    def backward_D(self, netD: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = (self.gan(netD(real), True) + self.gan(netD(fake.detach()), False)) * 0.5
        loss.backward()
        return loss
