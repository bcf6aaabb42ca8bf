"""The two terms of the bound against PyTorch's own, against finite differences, and against the paper's closed form."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from lib.losses.elbo import bernoulli_log_likelihood, kl_to_standard_normal

WIDTHS = [784, 560, 20, 7]  # MNIST, Frey Face, and two that are no multiples of 16


def pixels_and_logits(*shape: int, dtype: torch.dtype, scale: float = 4.0) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(shape[-1])
    x = torch.randint(0, 2, shape[-2:], generator=noise).to(dtype)
    return x, scale * torch.randn(shape, generator=noise, dtype=dtype)


def reference(x: Tensor, logits: Tensor) -> Tensor:
    target = x.expand_as(logits)
    return -F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)


class TestBernoulli:
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-13), (torch.float32, 2e-6)], ids=["64", "32"])
    def test_is_minus_the_cross_entropy(self, width: int, dtype: torch.dtype, rel: float) -> None:
        x, logits = pixels_and_logits(5, width, dtype=dtype)
        got = bernoulli_log_likelihood(x, logits)
        torch.testing.assert_close(got.double(), reference(x.double(), logits.double()), rtol=rel, atol=0)
        assert got.dtype == dtype

    @pytest.mark.parametrize("width", WIDTHS)
    def test_gradient_is_that_of_the_cross_entropy(self, width: int) -> None:
        x, logits = pixels_and_logits(2, 3, width, dtype=torch.float64)
        logits.requires_grad_()
        upstream = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        (got,) = torch.autograd.grad(bernoulli_log_likelihood(x, logits), logits, upstream)
        (want,) = torch.autograd.grad(reference(x, logits), logits, upstream)
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("shape", [(3, 7), (2, 3, 16), (2, 2, 3, 5)])
    def test_gradient_against_finite_differences(self, shape: tuple[int, ...]) -> None:
        x, logits = pixels_and_logits(*shape, dtype=torch.float64)
        assert torch.autograd.gradcheck(partial(bernoulli_log_likelihood, x), logits.requires_grad_())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("width", WIDTHS)
    def test_extreme_logits_stay_finite(self, width: int, dtype: torch.dtype) -> None:
        x, _ = pixels_and_logits(4, width, dtype=dtype)
        logits = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=dtype)[:, None].repeat(1, width).requires_grad_()
        value = bernoulli_log_likelihood(x, logits)
        value.sum().backward()
        wrong = torch.stack([width - x[0].sum(), x[1].sum(), width - x[2].sum(), x[3].sum()])
        torch.testing.assert_close(value, -1e4 * wrong)  # each wrong pixel costs its logit, each right one nothing
        assert logits.grad is not None
        torch.testing.assert_close(logits.grad, x - torch.tensor([1, 0, 1, 0], dtype=dtype)[:, None])

    def test_right_pixels_at_extreme_logits_cost_nothing(self) -> None:
        x, _ = pixels_and_logits(4, 784, dtype=torch.float32)
        assert bernoulli_log_likelihood(x, 1e4 * (2 * x - 1)).tolist() == [0.0] * 4

    def test_fair_coins_cost_log_two_a_pixel(self) -> None:
        x, logits = pixels_and_logits(3, 784, dtype=torch.float64, scale=0.0)
        assert bernoulli_log_likelihood(x, logits).tolist() == pytest.approx([-784 * 0.6931471805599453] * 3, rel=1e-14)

    def test_leading_axes_are_samples(self) -> None:
        x, logits = pixels_and_logits(4, 2, 3, 560, dtype=torch.float64)
        got = bernoulli_log_likelihood(x, logits)
        one_by_one = torch.stack([torch.stack([bernoulli_log_likelihood(x, part) for part in row]) for row in logits])
        assert got.shape == (4, 2, 3)
        torch.testing.assert_close(got, one_by_one, rtol=1e-14, atol=0)

    def test_inputs_are_left_as_they_were(self) -> None:
        x, logits = pixels_and_logits(3, 16, dtype=torch.float64)
        before = x.clone(), logits.clone()
        bernoulli_log_likelihood(x, logits.requires_grad_()).sum().backward()
        assert torch.equal(x, before[0])
        assert torch.equal(logits, before[1])


class TestKL:
    def test_value_of_appendix_b(self) -> None:
        mean, sd = torch.tensor([[0.5, -1.0]], dtype=torch.float64), torch.tensor([[0.8, 1.5]], dtype=torch.float64)
        assert kl_to_standard_normal(mean, 2 * sd.log()).item() == pytest.approx(0.887678, abs=5e-7)

    @pytest.mark.parametrize("n_latent", [1, 2, 200])
    def test_is_that_of_torch_distributions(self, n_latent: int) -> None:
        noise = torch.Generator().manual_seed(n_latent)
        mean, logvar = torch.randn(2, 6, n_latent, generator=noise, dtype=torch.float64)
        q = Independent(Normal(mean, (0.5 * logvar).exp()), 1)
        prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
        torch.testing.assert_close(kl_to_standard_normal(mean, logvar), kl_divergence(q, prior), rtol=1e-13, atol=1e-13)

    def test_is_zero_at_the_prior_and_nowhere_below(self) -> None:
        zero = torch.zeros(1, 3, dtype=torch.float64)
        assert kl_to_standard_normal(zero, zero).item() == 0
        near = 1e-3 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert (kl_to_standard_normal(near, near.flip(0)) > 0).all()
