"""Randomness as a function of (seed, stream, step), so that a killed run goes on in the same bits.

No generator's history is kept: before step t of a stream, the stream's generator is seeded from the three values.
"""

import hashlib

import torch
from torch import Tensor


def stream_seed(seed: int, stream: str, step: int = 0) -> int:
    """A 63-bit seed from (seed, stream, step), by BLAKE2b. CPU generators of torch use its low 32 bits."""
    text = f"{seed}/{stream}/{step}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, stream: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one (seed, stream, step)."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream, step))


class Streams:
    """The generators of one run: `streams.at("latent", step)` is the "latent" stream placed at `step`.

    One generator a stream is kept and re-seeded, which costs a microsecond and touches no device.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.device = seed, torch.device(device)
        self._generators: dict[str, torch.Generator] = {}

    def at(self, stream: str, step: int = 0) -> torch.Generator:
        if stream not in self._generators:
            self._generators[stream] = torch.Generator(self.device)
        return self._generators[stream].manual_seed(stream_seed(self.seed, stream, step))


class MinibatchOrder:
    """Indices of minibatch t: each epoch is one permutation that depends on (seed, epoch) alone.

    Always permuted on the CPU, so a GPU run sees the images in the order a CPU run does. n must be a multiple of
    batch: a shorter last minibatch would make two kinds of step.
    """

    def __init__(self, seed: int, n: int, batch: int, device: torch.device | str = "cpu") -> None:
        if n % batch:
            raise ValueError(f"{n} images do not divide into minibatches of {batch}")
        self.seed, self.n, self.batch, self.device = seed, n, batch, device
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        epoch, position = divmod(step * self.batch, self.n)
        if epoch != self._epoch:
            order = torch.randperm(self.n, generator=generator(self.seed, "order", epoch))
            self._epoch, self._order = epoch, order.to(self.device)
        return self._order[position : position + self.batch]
