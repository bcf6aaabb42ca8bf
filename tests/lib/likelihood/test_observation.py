"""Which pixels have a likelihood under which observation, and what is said where they have none."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from lib.likelihood.observation import CRITERIA, require_observation

BINARY = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
GREY = torch.tensor([[0.0, 0.25, 1.0], [0.999, 0.0, 0.5]])
BERNOULLI, GAUSSIAN, UNSAID = (SimpleNamespace(observation=kind) for kind in ("bernoulli", "gaussian", None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("model", [BERNOULLI, GAUSSIAN, UNSAID, object()])
def test_binary_pixels_have_a_likelihood_under_all(model: object, dtype: torch.dtype) -> None:
    require_observation(model, BINARY.to(dtype))


def test_grey_pixels_under_a_bernoulli_are_counted_and_the_way_out_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"3 of 6 pixels strictly between.*dynamic_binarisation or static_binarisation"
    ):
        require_observation(BERNOULLI, GREY)


def test_grey_pixels_pass_under_a_name_that_is_no_likelihood() -> None:
    require_observation(BERNOULLI, GREY, criterion="real-valued cross-entropy")


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("pixel", [-0.01, 1.5, 255.0])
def test_a_bernoulli_never_takes_pixels_outside_the_unit_interval(criterion: str, pixel: float) -> None:
    x = BINARY.clone()
    x[1, 2] = pixel
    with pytest.raises(ValueError, match=r"under a Bernoulli it must lie in 0 \.\. 1"):
        require_observation(BERNOULLI, x, criterion)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [GAUSSIAN, UNSAID, object()])
def test_a_density_takes_any_finite_pixel(model: object) -> None:
    require_observation(model, torch.tensor([[-3.0, 0.2], [300.0, 1.0]]))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (BINARY.long(), "torch.int64: it must be floating point"),
        (torch.tensor([[0.0, torch.nan]]), "nan or infinity"),
        (torch.tensor([[0.0, torch.inf]]), "nan or infinity"),
        (torch.zeros(0, 3), r"shape \(0, 3\)"),
        (torch.zeros(3), r"shape \(3,\)"),
    ],
)
@pytest.mark.parametrize("model", [BERNOULLI, GAUSSIAN, UNSAID])
def test_what_no_model_takes(model: object, x: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        require_observation(model, x)


def test_the_criterion_is_one_of_two_and_the_second_is_for_a_bernoulli() -> None:
    with pytest.raises(ValueError, match="criterion is 'log p': it must be one of 'likelihood', 'real-valued"):
        require_observation(BERNOULLI, BINARY, "log p")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="observes by a Gaussian"):
        require_observation(GAUSSIAN, GREY, "real-valued cross-entropy")
