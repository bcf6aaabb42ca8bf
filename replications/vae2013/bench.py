"""The AEVB training step beside its floor (its bare matrix products) and beside the plain textbook loop."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import datasets
from lib.execution.execute import deterministic
from lib.timing import ratio_quartiles, take_turns
from lib.training.provenance import device_name
from lib.training.randomness import Streams
from replications.vae2013.config import AevbConfig
from replications.vae2013.networks import adagrad, build
from replications.vae2013.presets import PRESETS
from replications.vae2013.train import Minibatches, aevb_step

ROUNDS = 40


def measure(latents: tuple[int, ...] = (3, 20, 200), rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One row for each N_z: milliseconds a step (median over rounds), and ratios to the floor within each round.

    The contenders take turns in every round, so whatever else the machine does strikes them alike. One CPU thread.
    """
    with deterministic("cpu"):
        return [_measure(PRESETS["laptop"][f"aevb-nz{n}"], rounds) for n in latents]


def _measure(config: Any, rounds: int) -> dict[str, Any]:
    contenders = _contenders(config)
    times = take_turns(contenders, rounds)
    ms = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    row: dict[str, Any] = {
        "case": f"{config.n_latent} latents",
        "device": device_name(torch.device("cpu")),
        "threads": 1,
    }
    row |= {f"{name} ms": round(value, 3) for name, value in ms.items()}
    for name in ("step", "textbook"):
        row[f"{name} / floor"] = ratio_quartiles(times[name], times["floor"])
    row["images/s"] = round(config.batch / ms["step"] * 1e3)
    row["floor GFLOP/s"] = round(_products_flop(config) / ms["floor"] / 1e6, 1)
    return row


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


def _products_flop(config: AevbConfig, n_pixels: int = 784) -> float:
    """Two operations a multiply-add: 3 products a layer (forward, weights, inputs), but no input gradient for x."""
    m, h, z = config.batch, config.n_hidden, config.n_latent
    return 2.0 * m * (2 * n_pixels * h + 3 * 2 * z * h + 3 * z * h + 3 * h * n_pixels)


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
