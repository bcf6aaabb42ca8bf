"""`scenes-fcn`: reads photographs of street scenes pixel by pixel, a small network that this project trained itself.

It plays the part that FCN-8s of Cityscapes plays in the papers that score translated street scenes: it has only ever
seen real renderings (lib.datasets.scenes), so a translated photograph is read rightly as far as it looks like one and
shows the street it was asked for. One network serves sides from 32 to 128; it is told no positions, so where it can it
must read what is there. What it reaches on real renderings is the ceiling of every score made with it.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.checks import require_images
from lib.datasets.scenes import CLASSES, GENERATOR_VERSION
from lib.metrics import weights
from lib.metrics.extractors.extraction import Extractor

NAME = "scenes-fcn"
N_FEATURES = 40
WIDTHS = (16, 24, N_FEATURES, 44)  # at the whole, half, quarter and eighth resolution
PIXELS_AT_ONCE = 2**18  # read in one batch: 16 MB a layer
PROTOCOL = {
    "segmenter": NAME,
    "weights": weights.entry(NAME).file.sha256,
    "channels": "RGB; grey is refused",
    "resize": "none: sides are multiples of 8, trained at 32, 64 and 128",
    "scaling": "x / 127.5 - 1",
    "features": "40, the mean over the pixels of a hidden layer at a quarter of the resolution; shares of 7 classes",
    "trained on": f"real renderings only, lib.datasets.scenes of {GENERATOR_VERSION}, seeds 10,000 to 10,002",
}


class ScenesNetwork(nn.Module):
    """Convolutions down to an eighth of the resolution and up again, each step up adds what was there going down."""

    def __init__(self) -> None:
        super().__init__()
        whole, half, quarter, eighth = WIDTHS
        self.down0 = nn.Sequential(_layer(3, whole), _layer(whole, whole))
        self.down1 = nn.Sequential(_layer(whole, half, stride=2), _layer(half, half))
        self.down2 = nn.Sequential(_layer(half, quarter, stride=2), _layer(quarter, quarter))
        self.down3 = nn.Sequential(_layer(quarter, eighth, stride=2), _layer(eighth, eighth, dilation=2))
        self.turn2, self.up2 = nn.Conv2d(eighth, quarter, 1), _layer(quarter, quarter)
        self.turn1, self.up1 = nn.Conv2d(quarter, half, 1), _layer(half, half)
        self.turn0, self.up0 = nn.Conv2d(half, whole, 1), _layer(whole, whole)
        self.classes = nn.Conv2d(whole, len(CLASSES), 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in -1 .. 1 -> features (N, 40), >= 0, and logits (N, 7, H, W)."""
        d0 = self.down0(images)  # (N, 16, H, W)
        d1 = self.down1(d0)  # (N, 24, H/2, W/2)
        d2 = self.down2(d1)  # (N, 40, H/4, W/4)
        d3 = self.down3(d2)  # (N, 44, H/8, W/8)
        h = u2 = self.up2(d2 + _doubled(self.turn2(d3)))  # (N, 40, H/4, W/4)
        h = self.up1(d1 + _doubled(self.turn1(h)))  # (N, 24, H/2, W/2)
        h = self.up0(d0 + _doubled(self.turn0(h)))  # (N, 16, H, W)
        return u2.mean((2, 3)), self.classes(h)


def _layer(n_in: int, n_out: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU())


def _doubled(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2.0, mode="nearest")


def network(state: Mapping[str, Tensor]) -> ScenesNetwork:
    """The network in eval mode. The counters of batches that its norms keep while training are not in the file."""
    with torch.device("meta"):  # no weights are drawn: the global generator is left alone
        built = ScenesNetwork()
    counters = {name: torch.tensor(0) for name in built.state_dict() if name.endswith("num_batches_tracked")}
    built.load_state_dict({**state, **counters}, strict=True, assign=True)
    return built.eval()


def prepare(photographs: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> float32 in -1 .. 1. Raises ValueError for grey, or a side that is no multiple of 8."""
    require_images("photographs", photographs)
    if photographs.shape[1] != 3 or photographs.shape[2] % 8 or photographs.shape[3] % 8:
        raise ValueError(
            f"photographs has the shape {tuple(photographs.shape)}: scenes-fcn takes (N, 3, H, W),"
            " H and W multiples of 8"
        )
    return photographs.float() / 127.5 - 1


def load(path: Path | None = None, data_dir: Path | None = None) -> Extractor:
    """Features and class shares as an extractor, with the weights that come with this project, or those in `path`.

    Raises UserError.
    """
    content, digest = weights.read(NAME, path, data_dir)
    shares = _Shares(network(safetensors.torch.load(content)))
    return Extractor(NAME, digest, shares, prepare, N_FEATURES, len(CLASSES), PROTOCOL)


class _Shares(nn.Module):
    """Features, and logits (N, 7) whose softmax is the mean over the pixels of the classes' probabilities."""

    def __init__(self, pixels: ScenesNetwork) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.pixels(images)
        return features, logits.softmax(1).mean((2, 3)).log()


@lru_cache(maxsize=4)
def _reader(device: torch.device) -> ScenesNetwork:
    shares = load().to(device).network
    assert isinstance(shares, _Shares)
    return shares.pixels


@torch.no_grad()
def _read(photographs: Tensor, device: torch.device | str) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and logits, batch by batch. Full float32: TF32 is off."""
    require_images("photographs", photographs)
    reader = _reader(torch.device(device))
    for part in photographs.split(max(PIXELS_AT_ONCE // photographs[0, 0].numel(), 1)):
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield reader(prepare(part.to(device)))


def segment(photographs: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """The class of each pixel: uint8 (N, 3, H, W) wherever they lie -> uint8 (N, H, W) on `device`.

    H and W multiples of 8. Raises ValueError for other images, UserError for weights that are absent or other.
    """
    return torch.cat([logits.argmax(1).to(torch.uint8) for _, logits in _read(photographs, device)])


def features(photographs: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """What a two-sample test may look at: uint8 (N, 3, H, W) -> float32 (N, 40), >= 0, on `device`. As `segment`."""
    return torch.cat([found for found, _ in _read(photographs, device)])
