"""From uint8 images to features and class probabilities, and the words that say how."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.checks import require_count, require_images

SECONDS_BETWEEN_LINES = 5.0
PLAIN = "inception-v3-tf"  # the only one whose scores bear a metric's bare name


class Features(NamedTuple):
    features: Tensor  # (N, D) float32
    probabilities: Tensor  # (N, C) float32, each row adds up to 1


class Extractor(nn.Module):
    """A network with known weights and everything that happens to an image before it.

    prepare: uint8 (N, C, H, W) -> the network's input; network: input -> (features (N, D), logits (N, C)).
    protocol says in words all that moves a feature: it goes with every number made from them.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor],
        n_features: int,
        n_classes: int,
        protocol: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.name, self.digest = name, digest
        self.network, self.prepare = network.requires_grad_(False), prepare
        self.n_features, self.n_classes = n_features, n_classes
        self.protocol: Mapping[str, str] = {
            "extractor": name,
            "weights": digest,
            "quantisation": "uint8, 0 .. 255",
            **protocol,
        }
        self.eval()

    def train(self, mode: bool = True) -> "Extractor":
        """Stays in eval mode, also as a part of a module that is trained: the features must not depend on the batch."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Features:
        """uint8 (N, C, H, W) on the extractor's device -> features there. Full float32: TF32 is off while it runs.

        Raises ValueError for other than uint8 images, or channels that the extractor does not take.
        """
        require_images("images", images)
        with _full_float32():
            features, logits = self.network(self.prepare(images))
        return Features(features.float(), logits.double().softmax(1).float())


@contextmanager
def _full_float32() -> Iterator[None]:
    """Convolutions and matrix products alike, whatever the caller allows."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def extract(
    extractor: Extractor,
    images: Tensor,
    batch_size: int = 50,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Features:
    """Features of images (N, C, H, W) uint8, wherever they lie, batch by batch; the results lie on `device`.

    The batch size moves features by rounding only (a processor picks its routines by the shape): about 1e-6 of them.
    progress: a line on standard error every five seconds. Raises ValueError as Extractor.forward does.
    """
    require_images("images", images)
    require_count("batch_size", batch_size, 1)
    home = next(extractor.parameters()).device
    features = torch.empty(len(images), extractor.n_features, device=device)
    probabilities = torch.empty(len(images), extractor.n_classes, device=device)
    next_line = time.monotonic() + SECONDS_BETWEEN_LINES
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        features[part], probabilities[part] = extractor(images[part].to(home))
        if progress and time.monotonic() >= next_line:
            next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            done = min(start + batch_size, len(images))
            print(f"{extractor.name}: {done:,} of {len(images):,} images", file=sys.stderr, flush=True)
    return Features(features, probabilities)


def metric_name(metric: str, extractor: Extractor | str) -> str:
    """ "FID" for the 2015 TensorFlow Inception alone, else "FID[digits-cnn]". extractor: an Extractor, or its name."""
    name = extractor if isinstance(extractor, str) else extractor.name
    return metric if name == PLAIN else f"{metric}[{name}]"
