"""`inception-v3-tf`: the network of the published FID and IS, TensorFlow's Inception graph of 2015-12-05.

Network and resize are torch-fidelity's, which differ from torchvision's Inception: average pools do not count padding,
one block pools by the maximum, 1,008 classes. Resizing to 299 x 299 is TensorFlow 1's bilinear (corners not aligned,
half pixels not centred, no antialiasing): the grid point i of the output reads at i * in / out of the input.
"""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.errors import UserError
from lib.metrics import weights
from lib.metrics.extractors.extraction import Extractor

NAME = "inception-v3-tf"
N_FEATURES = 2048
N_CLASSES = 1008
PROTOCOL = {
    "channels": "RGB; grey repeated",
    "resize": "to 299 x 299, bilinear of TensorFlow 1 (no half-pixel centres, no antialiasing)",
    "scaling": "(x - 128) / 128",
    "features": "2,048 after the last average pool; probabilities of 1,008 classes from logits without bias",
}


class _Inception(nn.Module):
    """torch-fidelity's network, which takes uint8 and resizes by itself; its outputs under our two names."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, H, W) -> features (N, 2048) and unbiased logits (N, 1008)."""
        features, logits = self.network(images)
        return features, logits


def load(path: Path | None = None, data_dir: Path | None = None) -> Extractor:
    """path: the file of weights; without it, the one in the data root. Raises UserError; never downloads."""
    content, digest = weights.read(NAME, path, data_dir)
    return Extractor(NAME, digest, _Inception(_network(content)), _in_colour, N_FEATURES, N_CLASSES, PROTOCOL)


def _in_colour(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1)


def _network(content: bytes) -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise UserError(f"{NAME} needs the package torch-fidelity: run `pip install torch-fidelity`.") from None

    try:
        # torch-fidelity opens the file as a pickle that may run code. So the same bytes are first read in the safe way,
        # and are handed over only if they hold nothing but tensors.
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError("it holds no tensors by name")
        with torch.random.fork_rng(devices=[]):  # its layers draw initial weights from the global generator
            return FeatureExtractorInceptionV3(
                NAME, ["2048", "logits_unbiased"], feature_extractor_weights_path=io.BytesIO(content)
            )
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"The file of {NAME} holds no weights of that network ({reason}).") from None
