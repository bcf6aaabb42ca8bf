"""The game's losses against the formulas of the paper in D itself, in float64, and where logits are extreme."""

import math

import pytest
import torch

from lib.losses.adversarial import discriminator_loss, least_squares_loss, minimax_loss, nonsaturating_loss


@pytest.fixture
def logits():
    return torch.linspace(-6, 6, 25, dtype=torch.float64)


def test_the_discriminators_loss_is_minus_half_of_equation_1(logits):
    real, fake = logits, logits.flip(0) * 0.7 + 0.3
    value = (torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(fake)).log().mean()).item()
    assert discriminator_loss(real, fake).item() == pytest.approx(-value / 2, rel=1e-12)


def test_a_discriminator_of_one_half_loses_log_two():
    assert discriminator_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(math.log(2))


def test_the_generators_losses_are_those_of_the_paper(logits):
    d = torch.sigmoid(logits)
    assert minimax_loss(logits).item() == pytest.approx((1 - d).log().mean().item(), rel=1e-12)
    assert nonsaturating_loss(logits).item() == pytest.approx(-d.log().mean().item(), rel=1e-12)


@pytest.mark.parametrize(("logit", "saturating"), [(-10.0, 4.54e-5), (-5.0, 0.0067), (-2.0, 0.119), (0.0, 0.5)])
def test_gradients_in_the_logit_have_the_values_of_the_lecture_sheet(logit, saturating):
    """-D for the minimax loss, -(1 - D) for the other."""
    a = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    (minimax,) = torch.autograd.grad(minimax_loss(a), a)
    (nonsaturating,) = torch.autograd.grad(nonsaturating_loss(a), a)
    assert minimax.item() == pytest.approx(-saturating, rel=5e-3)
    assert nonsaturating.item() == pytest.approx(-(1 - minimax.abs().item()), rel=1e-12)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_a_sure_discriminator_gives_finite_losses_in_float32(logit):
    a = torch.full((4,), logit)
    assert discriminator_loss(a, a).item() == pytest.approx(100.0)
    assert nonsaturating_loss(a).item() == pytest.approx(max(0.0, -logit))
    assert minimax_loss(a).item() == pytest.approx(-max(0.0, logit))


def test_least_squares_against_its_target():
    values = torch.tensor([0.0, 1.0, 3.0])
    assert least_squares_loss(values, 1).item() == pytest.approx((1 + 0 + 4) / 3)
    assert least_squares_loss(values, 0).item() == pytest.approx((0 + 1 + 9) / 3)
