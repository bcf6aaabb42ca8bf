"""What the metrics ask of their input; and floats become bytes by rounding, without a bias."""

import pytest
import torch
from torch import Tensor

from lib.checks import (
    require_images,
    require_positive,
    require_probabilities,
    require_same_protocol,
    to_uint8,
)


def images(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_each_level_comes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    assert torch.equal(to_uint8(levels.float() / 255), levels)
    assert torch.equal(to_uint8(levels.double() / 127.5 - 1, low=-1), levels)


def test_rounding_goes_to_the_nearest_level() -> None:
    given = images(0.49 / 255, 0.51 / 255, 1.49 / 255, 254.49 / 255, 254.51 / 255)
    assert to_uint8(given).flatten().tolist() == [0, 1, 1, 254, 255]
    assert to_uint8(images(-1.0, 0.0, 1.0), low=-1).flatten().tolist() == [0, 128, 255]  # 127.5 ties to even


def test_no_level_is_lost_on_average() -> None:
    """Truncation would lose half a level."""
    given = torch.rand(100_000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (to_uint8(given).double() - given * 255).mean().item() == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (images(0.0, 255.0), "images lie in 0 .. 255: the scale given is 0 .. 1"),
        (images(-0.1, 1.0), "images lie in -0.1 .. 1"),
        (images(0.0, float("nan")), "images lie in nan .. nan"),
        (torch.zeros(1, 1, 1, 1, dtype=torch.uint8), "images is torch.uint8: only floating point"),
    ],
)
def test_what_is_no_image_on_the_scale_is_refused(given: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_uint8(given)
    with pytest.raises(ValueError, match="low is 1 and high is 1"):
        to_uint8(images(1.0), low=1, high=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(2, 1, 4, 4), r"images is torch\.float32: .*to_uint8"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), "images is torch.int64"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), r"shape \(2, 4, 4\)"),
        (torch.zeros(2, 2, 4, 4, dtype=torch.uint8), "1 or 3 channels"),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), "images is empty"),
    ],
)
def test_only_bytes_are_images(given: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_images("images", given)
    require_images("images", torch.zeros(2, 3, 4, 4, dtype=torch.uint8))


def test_probabilities_add_up_to_one() -> None:
    require_probabilities("p", torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"smallest entry -0\.5.*apply softmax"):
        require_probabilities("p", torch.tensor([[-0.5, 1.5]]))
    with pytest.raises(ValueError, match=r"off by up to 0\.2"):
        require_probabilities("p", torch.tensor([[0.5, 0.5], [0.5, 0.7]]))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_width_is_a_finite_number_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match=f"sigma is {value}"):
        require_positive("sigma", value)


def test_a_protocol_that_is_silent_on_a_point_is_another_one() -> None:
    require_same_protocol({"resize": "none"}, {"resize": "none"})
    require_same_protocol(None, {"resize": "none"})
    with pytest.raises(ValueError, match="resize is 'none' and None"):
        require_same_protocol({"extractor": "a", "resize": "none"}, {"extractor": "a"})
