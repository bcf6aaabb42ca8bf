"""The AEVB training step beside its floor (its bare matrix products) and beside the plain textbook loop.

And many models side by side, beside as many one after another.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import datasets
from lib.execution.execute import deterministic
from lib.timing import matrix_product, peak_megabytes, product_rates, ratio_quartiles, take_turns
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.provenance import device_name
from lib.training.randomness import Streams
from replications.vae2013 import side_by_side, wake_sleep
from replications.vae2013.config import AevbConfig
from replications.vae2013.networks import adagrad, build
from replications.vae2013.presets import PRESETS
from replications.vae2013.side_by_side import CurveConfig
from replications.vae2013.train import Minibatches, aevb_step

ROUNDS = 40


def measure(latents: tuple[int, ...] = (3, 20, 200), rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One row for each N_z: milliseconds a step (median over rounds), and ratios to the floor within each round.

    On one thread, as runs have, and at 20 latents on two; then models side by side, on the CPU and on a GPU where there
    is one. The contenders take turns in every round, so whatever else the machine does strikes them alike.
    """
    steps = [(n, 1) for n in latents] + [(20, 2)]
    rows = [measure_step(PRESETS["laptop"][f"aevb-nz{n}"], threads, rounds) for n, threads in steps]
    batched = [("cpu", 3, 1), ("cpu", 3, 2), ("cpu", 10, 2)]
    if torch.cuda.is_available():
        batched.append(("cuda", 10, 1))
    return rows + [measure_side_by_side(*case, rounds) for case in batched]


def measure_step(config: AevbConfig, threads: int, rounds: int) -> dict[str, Any]:
    with deterministic("cpu"):
        torch.set_num_threads(threads)
        times = take_turns(_contenders(config) | {"product": matrix_product(torch.device("cpu"))}, rounds)
    ms = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    row: dict[str, Any] = {
        "case": f"{config.n_latent} latents",
        "device": device_name(torch.device("cpu")),
        "threads": threads,
    }
    row |= {f"{name} ms": round(value, 3) for name, value in ms.items() if name != "product"}
    for name in ("step", "textbook"):
        row[f"{name} / floor"] = ratio_quartiles(times[name], times["floor"])
    row["images/s"] = round(config.batch / ms["step"] * 1e3)
    row["minutes a million images"] = round(ms["step"] * 1e3 / config.batch / 60, 2)  # the paper's: 20 to 40
    flop = products_flop(config.batch, 784, config.n_hidden, config.n_latent)
    row |= {f"{name} GFLOP/s": round(flop / ms[name] / 1e6, 1) for name in ("floor", "step")}  # the paper's: 40
    row |= product_rates(flop, times["step"], times["product"])
    call = f"{__name__}.two_steps"
    return row | {f"{name} peak MB": peak_megabytes(call, name, config.n_latent) for name in ("step", "textbook")}


def two_steps(which: str, n_latent: str) -> None:
    """For `peak_megabytes`, on one thread. All contenders are made, one takes steps."""
    torch.set_num_threads(1)
    step = _contenders(PRESETS["laptop"][f"aevb-nz{n_latent}"])[which]
    step()
    step()


def measure_side_by_side(device: str, n_models: int, threads: int, rounds: int) -> dict[str, Any]:
    """One step of n_models models in one program beside one step each, one after another; minibatches included.

    On a GPU both are captured, as in training, and each call waits for the device.
    """
    single = PRESETS["laptop"]["aevb-nz20"]
    together = CurveConfig(single.data, "aevb", single.n_latent, single.n_samples, n_models=n_models)
    with deterministic(device):
        torch.set_num_threads(threads)
        streams = Streams(0, torch.device(device))
        images = datasets.load(single.data).split("train")[0].flatten(1).to(device)
        alone = [_alone(single, images, Streams(seed, torch.device(device))) for seed in range(n_models)]
        model = side_by_side.build(together, images.shape[1], streams)
        optimizer = side_by_side.adagrad(model, [0.01] * n_models, together, len(images))
        minibatches, count = side_by_side.Minibatches(images, together, streams), iter(range(10**9))
        moving = training_tensors(model=model, optimizer=optimizer)
        update = CapturedStep(
            lambda *draws: wake_sleep.aevb_step(model, optimizer, side_by_side.Draws(*draws)), moving, streams.device
        )

        def take(*steps: Callable[[], object]) -> None:
            for step in steps:
                step()
            if device == "cuda":
                torch.cuda.synchronize()

        contenders: dict[str, Callable[[], object]] = {
            "together": lambda: take(lambda: update(*minibatches(next(count)))),
            "one after another": lambda: take(*alone),
            "one": lambda: take(alone[0]),
        }
        times = take_turns(contenders, rounds)
    row: dict[str, Any] = {
        "case": f"{n_models} models of 20 latents, {device}",
        "device": device_name(torch.device(device)),
        "threads": threads,
    }
    row |= {f"{name} ms": round(1e3 * statistics.median(seconds), 3) for name, seconds in times.items()}
    # Asked: on a CPU at most 1 of the former; on a GPU, with ten models, at most 2 of the latter.
    ratios = {f"together / {name}": ratio_quartiles(times["together"], times[name]) for name in list(contenders)[1:]}
    return row | ratios


def _alone(config: AevbConfig, images: Tensor, streams: Streams) -> Callable[[], object]:
    """A call that takes the next training step of a model of its own."""
    minibatches, count = Minibatches(images, config, streams), iter(range(10**9))
    model = build(config, images.shape[1], streams)
    optimizer = adagrad(model, 0.01, config, len(images))
    moving = training_tensors(model=model, optimizer=optimizer)
    update = CapturedStep(lambda x, noise: aevb_step(model, optimizer, x, noise), moving, streams.device)
    return lambda: update(*minibatches(next(count)))


def _contenders(config: AevbConfig) -> dict[str, Callable[[], object]]:
    """Each a call that does one step's work: the floor, our step and its parts, the textbook's step."""
    streams = Streams(0)
    images = datasets.load(config.data).split("train")[0].flatten(1)
    minibatches = Minibatches(images, config, streams)
    model = build(config, images.shape[1], streams)
    optimizer = adagrad(model, 0.01, config, len(images))
    textbook = Textbook(config, images)
    _require_equal_values(config, minibatches, textbook)
    count = iter(range(10**9))
    return {
        "floor": bare_products(config, images.shape[1]),
        "step": lambda: aevb_step(model, optimizer, *minibatches(next(count))),
        "minibatch": lambda: minibatches(next(count)),
        "optimizer": optimizer.step,
        "textbook": textbook.step,
    }


def bare_products(config: AevbConfig, n_pixels: int) -> Callable[[], object]:
    """The eleven matrix products of one step, forward and backward, on tensors of the step's shapes; nothing else."""
    m, d, h, z = config.batch, n_pixels, config.n_hidden, config.n_latent
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x, hidden, code, out_grad, code_grad = draw(m, d), draw(m, h), draw(m, z), draw(m, d), draw(m, 2 * z)
    w_in, w_out, v_in, v_out = draw(h, d), draw(2 * z, h), draw(h, z), draw(d, h)

    def products() -> tuple[Tensor, ...]:
        forward = x @ w_in.T, hidden @ w_out.T, code @ v_in.T, hidden @ v_out.T
        decoder = out_grad.T @ hidden, out_grad @ v_out, hidden.T @ code, hidden @ v_in
        encoder = code_grad.T @ hidden, code_grad @ w_out, hidden.T @ x  # no gradient for x is needed
        return (*forward, *decoder, *encoder)

    return products


def products_flop(m: int, d: int, h: int, z: int) -> float:
    """Of one AEVB step on m images of d pixels, h hidden units, z latents. Two operations a multiply-add.

    Three products a layer (forward, weights, inputs), but no input gradient for x.
    """
    return 2.0 * m * (2 * d * h + 3 * 2 * z * h + 3 * z * h + 3 * h * d)


class Textbook:
    """The loop as most tutorials write it: two heads, BCE, torch.bernoulli, Adagrad as it comes; same arithmetic."""

    def __init__(self, config: AevbConfig, images: Tensor) -> None:
        self.config, self.images = config, images.float() / 255
        n_pixels, n_hidden, n_latent = images.shape[1], config.n_hidden, config.n_latent
        self.hidden, self.mean, self.logvar = (
            nn.Linear(n_pixels, n_hidden), nn.Linear(n_hidden, n_latent), nn.Linear(n_hidden, n_latent),
        )  # fmt: skip
        self.decoder = nn.Sequential(nn.Linear(n_latent, n_hidden), nn.Tanh(), nn.Linear(n_hidden, n_pixels))
        parts = nn.ModuleList([self.hidden, self.mean, self.logvar, self.decoder])
        self.optimizer = torch.optim.Adagrad(parts.parameters(), lr=0.01, weight_decay=1 / len(images))

    def loss(self, x: Tensor, noise: Tensor) -> Tensor:
        h = torch.tanh(self.hidden(x))
        mean, logvar = self.mean(h), self.logvar(h)
        logits = self.decoder(mean + torch.exp(0.5 * logvar) * noise)
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return (reconstruction - 0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())) / len(x)

    def step(self) -> None:
        index = torch.randint(len(self.images), (self.config.batch,))
        loss = self.loss(torch.bernoulli(self.images[index]), torch.randn(self.config.batch, self.config.n_latent))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


@torch.no_grad()
def _require_equal_values(config: AevbConfig, minibatches: Minibatches, textbook: Textbook) -> None:
    """Both compute the same bound from the same weights, images and noise, or the comparison means nothing."""
    model = build(config, minibatches.images.shape[1], minibatches.streams)
    textbook.hidden.load_state_dict(model.encoder_in.state_dict())
    for name in ("weight", "bias"):
        mean, logvar = getattr(model.encoder_out, name).chunk(2)
        getattr(textbook.mean, name).copy_(mean)
        getattr(textbook.logvar, name).copy_(logvar)
    textbook.decoder[0].load_state_dict(model.decoder_in.state_dict())
    textbook.decoder[2].load_state_dict(model.decoder_out.state_dict())
    x, noise = minibatches(0)
    theirs = -textbook.loss(x, noise[0]).item()
    with torch.enable_grad():
        ours = aevb_step(model, adagrad(model, 0.01, config, len(minibatches.images)), x, noise).item()
    if abs(ours - theirs) > 1e-5 * abs(theirs):
        raise AssertionError(f"the textbook loop computes {theirs}, ours {ours}: they may not be compared")
