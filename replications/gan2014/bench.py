"""The digit nets' training step beside its floor (its bare matrix products) and beside the plain textbook loop."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import datasets
from lib.execution.execute import deterministic
from lib.timing import matrix_product, peak_megabytes, product_rates, ratio_quartiles, take_turns, waiting
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.provenance import device_name
from lib.training.randomness import Streams
from replications.gan2014.config import GanConfig
from replications.gan2014.networks import build
from replications.gan2014.presets import PRESETS
from replications.gan2014.train import Minibatches, Noise, optimizers_of, schedule_, simultaneous_step

ROUNDS = 30
N_ROWS = 3500


def measure(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One row a width and number of threads: milliseconds a step, medians, and ratios to the floor within each round.

    The paper's width on two threads and on one, the laptop preset's on one, as it runs; and on a GPU where there is
    one, with the captured step.
    """
    cases = [("cpu", "paper", 2), ("cpu", "paper", 1), ("cpu", "laptop", 1)]
    if torch.cuda.is_available():
        cases.append(("cuda", "paper", 1))
    return [measure_case(*case, rounds) for case in cases]


def measure_case(device: str, preset: str, threads: int, rounds: int) -> dict[str, Any]:
    config = _config(preset)
    with deterministic(device):
        torch.set_num_threads(threads)
        contenders = _contenders(config, torch.device(device)) | {"product": matrix_product(torch.device(device))}
        times = take_turns(contenders, rounds)
    ms = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    case = f"{config.generator_hidden} units, {threads} thread{'s' if threads > 1 else ''}, {device}"
    row: dict[str, Any] = {"case": case, "device": device_name(torch.device(device))}
    row |= {f"{name} ms": round(value, 3) for name, value in ms.items() if name != "product"}
    row |= {f"{name} / floor": ratio_quartiles(times[name], times["floor"]) for name in ("step", "textbook")}
    row["images/s"] = round(config.batch / ms["step"] * 1e3)
    row["floor GFLOP/s"] = round(products_flop(config) / ms["floor"] / 1e6, 1)
    row |= product_rates(products_flop(config), times["step"], times["product"])
    if device == "cpu":
        call = f"{__name__}.two_steps"
        row |= {f"{name} peak MB": peak_megabytes(call, name, preset, threads) for name in ("step", "textbook")}
    return row


def two_steps(which: str, preset: str, threads: str) -> None:
    """For `peak_megabytes`. All contenders are made, one takes steps."""
    torch.set_num_threads(int(threads))
    step = _contenders(_config(preset), torch.device("cpu"))[which]
    step()
    step()


def _config(preset: str) -> GanConfig:
    config: GanConfig = PRESETS[preset]["digits-simultaneous"]  # type: ignore[assignment]
    return config


def _contenders(config: GanConfig, device: torch.device) -> dict[str, Callable[[], object]]:
    """Each a call that does one step's work: the floor, our step and its parts, the textbook's step."""
    streams = Streams(0, device)
    images = datasets.load("mnist-5k").split("train")[0][:N_ROWS].flatten(1).to(device)
    rows = images.float() / 255
    nets = build(config, (1, 28, 28), rows.mean(0), streams)
    optimizers = optimizers_of(nets)
    minibatches = Minibatches(rows, sum(nets.discriminator.mask_widths), config, streams)
    textbook = Textbook(config, rows)
    count = iter(range(10**9))
    moving = training_tensors(**nets._asdict(), g=optimizers.generator, d=optimizers.discriminator)
    update = CapturedStep(
        lambda x, *noise: simultaneous_step(nets, optimizers, config, x, Noise(*noise)), moving, device
    )

    def minibatch() -> tuple[Tensor, ...]:
        step = next(count)
        schedule_(optimizers, config, step, len(rows) // config.batch)
        return minibatches.images(step), *minibatches.noise("step", step)

    contenders = {
        "floor": bare_products(config, device),
        "step": lambda: update(*minibatch()),
        "minibatch": minibatch,
        "textbook": textbook.step,
    }
    return {name: waiting(run, device) for name, run in contenders.items()}


def products_flop(config: GanConfig, n_pixels: int = 784) -> float:
    """Two operations a multiply-add; the products are those of `bare_products`."""
    m, h, u = config.batch, config.generator_hidden, config.maxout_units
    k = config.maxout_pieces
    generator = 3 * (config.n_latent * h + h * h + h * n_pixels) - config.n_latent * h  # no gradient for the noise
    first, second = n_pixels * u * k, u * u * k
    discriminator = 2 * (2 * first + 3 * second) + (first + second)  # real and fake; then through D for the generator
    return 2.0 * m * (generator + discriminator)


def bare_products(config: GanConfig, device: torch.device, n_pixels: int = 784) -> Callable[[], object]:
    """The matrix products of one simultaneous step, forward and backward, on tensors of its shapes; nothing else.

    Each layer has its output, its weights' gradient and its input's, but for inputs that need none: the noise, and the
    pixels in the discriminator's own update. The fakes pass through the discriminator once and back twice.
    """
    m, h, u, z = config.batch, config.generator_hidden, config.maxout_units, config.n_latent
    pieces = u * config.maxout_pieces
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    noise, hidden, pixels, maxed, d_out = draw(m, z), draw(m, h), draw(m, n_pixels), draw(m, u), draw(m, pieces)
    g1, g2, g3 = draw(h, z), draw(h, h), draw(n_pixels, h)
    d1, d2 = draw(pieces, n_pixels), draw(pieces, u)

    def products() -> list[Tensor]:
        out = [noise @ g1.T, hidden @ g2.T, hidden @ g3.T]
        for _ in range(2):  # real, then fake
            out += [pixels @ d1.T, maxed @ d2.T, d_out.T @ maxed, d_out @ d2, d_out.T @ pixels]
        out += [d_out @ d2, d_out @ d1]  # the generator's gradient, through the discriminator
        out += [pixels.T @ hidden, pixels @ g3, hidden.T @ hidden, hidden @ g2, hidden.T @ noise]
        return out

    return products


class Textbook:
    """The loop as most tutorials write it: nn.Dropout, BCE, two backward passes, SGD as it comes; same algorithm."""

    def __init__(self, config: GanConfig, rows: Tensor) -> None:
        h, u, k, device = config.generator_hidden, config.maxout_units, config.maxout_pieces, rows.device
        self.config, self.rows = config, rows
        self.generator = nn.Sequential(
            nn.Linear(config.n_latent, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 784), nn.Sigmoid()
        ).to(device)
        self.discriminator = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(784, u * k), Maxout(u, k), nn.Dropout(0.5), nn.Linear(u, u * k), Maxout(u, k),
            nn.Dropout(0.5), nn.Linear(u, 1),
        ).to(device)  # fmt: skip
        self.g_sgd, self.d_sgd = (
            torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5) for net in (self.generator, self.discriminator)
        )

    def step(self) -> None:
        m, device = self.config.batch, self.rows.device
        x = self.rows[torch.randint(len(self.rows), (m,), device=device)]
        z = (2 * torch.rand(m, self.config.n_latent, device=device) - 1) * 3**0.5
        fake = self.generator(z)
        on_real, on_fake = self.discriminator(x), self.discriminator(fake)
        ones, zeros = torch.ones_like(on_real), torch.zeros_like(on_real)
        bce = F.binary_cross_entropy_with_logits
        d_loss = 0.5 * (bce(on_real, ones) + bce(on_fake, zeros))
        g_loss = bce(on_fake, ones)
        self.g_sgd.zero_grad()
        self.d_sgd.zero_grad()
        g_loss.backward(inputs=list(self.generator.parameters()), retain_graph=True)
        d_loss.backward(inputs=list(self.discriminator.parameters()))
        self.d_sgd.step()
        self.g_sgd.step()


class Maxout(nn.Module):
    def __init__(self, units: int, pieces: int) -> None:
        super().__init__()
        self.units, self.pieces = units, pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, self.units, self.pieces).max(-1).values
