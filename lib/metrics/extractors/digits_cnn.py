"""`digits-cnn`: features of handwritten digits from a small classifier that this project trained itself.

The features of Inception describe photographs; of a 28 x 28 digit they say little. The scores made with these carry
the extractor's name, FID[digits-cnn], and compare with no published FID.

The classifier has seen 55,000 of the 60,000 official training images of MNIST: those that are not in mnist-5k. So it
has seen neither what the laptop presets train and test on, nor the official test images.
"""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.metrics import weights
from lib.metrics.extractors.extraction import Extractor

NAME = "digits-cnn"
N_FEATURES = 64  # a covariance of full rank takes N_FEATURES + 1 images; the smallest test set in use has 1,000
N_CLASSES = 10
SIDE = 28
PROTOCOL = {
    "channels": "grey; colour is refused",
    "resize": "28 x 28 as it is, other sizes to 28 x 28, bilinear, antialiased",
    "scaling": "x / 255",
    "features": "64 of the hidden layer after its ReLU; probabilities of 10 classes",
    "trained on": "the 55,000 official training images of MNIST that are not in mnist-5k",
}


class DigitsNetwork(nn.Module):
    """Three convolutions and one hidden layer, 160,000 weights. The features are the hidden layer, after its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, 3, stride=2, bias=False)
        self.norm3 = nn.BatchNorm2d(64)
        self.hidden = nn.Linear(64 * 5 * 5, N_FEATURES, bias=False)
        self.norm4 = nn.BatchNorm1d(N_FEATURES)
        self.dropout = nn.Dropout(0.25)  # in training only: spreads the evidence over all features
        self.classes = nn.Linear(N_FEATURES, N_CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, 28, 28) in 0..1 -> features (N, 64), >= 0, and logits (N, 10)."""
        h = F.relu(_max_pool(self.norm1(self.conv1(images))))  # (N, 32, 13, 13)
        h = F.relu(self.norm2(self.conv2(h)))  # (N, 64, 11, 11)
        h = F.relu(self.norm3(self.conv3(h)))  # (N, 64, 5, 5)
        features = F.relu(self.norm4(self.hidden(h.flatten(1))))  # (N, 64)
        return features, self.classes(self.dropout(features))


def _max_pool(maps: Tensor) -> Tensor:
    """F.max_pool2d(maps, 2) of an even side, bit for bit; on one thread with AVX-512 seven times as fast or more."""
    rows = torch.maximum(maps[..., ::2, :], maps[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


def load(path: Path | None = None, data_dir: Path | None = None) -> Extractor:
    """The extractor with the weights that come with this project, or those in the file `path`. Raises UserError."""
    content, digest = weights.read(NAME, path, data_dir)
    return Extractor(NAME, digest, network(safetensors.torch.load(content)), prepare, N_FEATURES, N_CLASSES, PROTOCOL)


def network(state: Mapping[str, Tensor]) -> DigitsNetwork:
    """The network in eval mode. The counters of batches that its norms keep while training are not in the file."""
    with torch.device("meta"):  # no weights are drawn: the global generator is left alone
        built = DigitsNetwork()
    counters = {name: torch.tensor(0) for name in built.state_dict() if name.endswith("num_batches_tracked")}
    built.load_state_dict({**state, **counters}, strict=True, assign=True)
    return built.eval()


def prepare(images: Tensor) -> Tensor:
    """uint8 (N, 1, H, W) -> float32 (N, 1, 28, 28) in 0..1. Raises ValueError for colour."""
    if images.shape[1] != 1:
        raise ValueError(
            f"images has {images.shape[1]} channels: digits-cnn takes grey images, (N, 1, H, W);"
            " use efficientnet-lite0 or inception-v3-tf for colour"
        )
    scaled = images.float() / 255
    if images.shape[2:] == (SIDE, SIDE):
        return scaled
    return F.interpolate(scaled, (SIDE, SIDE), mode="bilinear", antialias=True)
