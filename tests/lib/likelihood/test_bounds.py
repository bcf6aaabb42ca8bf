"""Both estimators on a model whose log p(x) is known: right on average, ordered, and blind to their block size."""

import math

import pytest
import torch
from torch import Tensor

from lib.likelihood import elbo, importance_weighted_bound
from lib.losses.elbo import kl_to_standard_normal
from lib.models.gaussian_vae import BernoulliVAE, Gaussian
from lib.models.linear_gaussian import LinearGaussian

LECTURE = [[1.0, 0.8], [0.0, 0.6], [0.5, 0.5]]  # gap 0.464 nats at s2 = 0.1
# Importance weights have a finite variance only where 2 P - diag(P) is positive definite, P the posterior's precision.
# The lecture example fails that; here P is nearly diagonal.
MILD = [[1.0, 0.2], [0.0, 0.9], [0.5, 0.3]]
ORTHOGONAL = [[1.0, 0.0], [0.0, 0.6], [0.0, 0.5]]  # the exact posterior is diagonal


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(rows: list[list[float]], noise_variance: float = 0.1) -> LinearGaussian:
    offset = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    return LinearGaussian(torch.tensor(rows, dtype=torch.float64), offset, noise_variance)


def points(model: LinearGaussian, n: int) -> Tensor:
    z = torch.randn(n, 2, generator=generator(1), dtype=torch.float64)
    noise = torch.randn(n, 3, generator=generator(2), dtype=torch.float64)
    return model.offset + z @ model.weight.T + math.sqrt(model.noise_variance) * noise


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


@pytest.mark.parametrize("draws", [1, 8])
@pytest.mark.parametrize("rows", [LECTURE, MILD])
def test_elbo_has_the_closed_form_gap(rows: list[list[float]], draws: int) -> None:
    model = model_of(rows)
    x = points(model, 4000)
    gap, error = mean_and_error(model.log_marginal(x) - elbo(model, x, draws, generator()))
    assert abs(gap - model.elbo_gap()) < 4 * error
    assert error < 0.05  # else the line above says little


def test_bounds_rise_with_k_and_stay_below_the_truth() -> None:
    model = model_of(LECTURE)
    x = points(model, 3000)
    truth = model.log_marginal(x)
    gaps = {k: truth - importance_weighted_bound(model, x, k, generator(k)) for k in (1, 5, 50)}
    for low, high in ((1, 5), (5, 50)):
        difference, error = mean_and_error(gaps[low] - gaps[high])
        assert difference > 4 * error
    last, error = mean_and_error(gaps[50])
    assert last > -4 * error


def test_one_importance_sample_is_the_elbo_on_average() -> None:
    model = model_of(LECTURE)
    x = points(model, 4000)
    gap, error = mean_and_error(model.log_marginal(x) - importance_weighted_bound(model, x, 1, generator()))
    assert abs(gap - model.elbo_gap()) < 4 * error


def test_many_importance_samples_reach_the_truth() -> None:
    model = model_of(MILD, noise_variance=0.5)
    x = points(model, 300)
    off, error = mean_and_error(importance_weighted_bound(model, x, 2000, generator()) - model.log_marginal(x))
    assert abs(off) < 4 * error
    assert error < 0.002


@pytest.mark.parametrize("k", [1, 7])
def test_every_weight_is_exact_where_q_is_the_posterior(k: int) -> None:
    model = model_of(ORTHOGONAL)
    x = points(model, 50)
    got = importance_weighted_bound(model, x, k, generator())
    torch.testing.assert_close(got, model.log_marginal(x), rtol=0, atol=1e-10)


class Wide:
    """A LinearGaussian that looks at three of very many pixels, so that few images fill a block."""

    def __init__(self, inner: LinearGaussian) -> None:
        self.inner = inner
        self.sizes: list[int] = []

    def posterior(self, x: Tensor) -> Gaussian:
        return self.inner.posterior(x[:, :3])

    def log_prior(self, z: Tensor) -> Tensor:
        return self.inner.log_prior(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.inner.log_likelihood(x[:, :3], z)


@pytest.mark.parametrize("bound", [elbo, importance_weighted_bound])
def test_blocks_change_nothing(bound) -> None:  # type: ignore[no-untyped-def]
    inner = model_of(LECTURE)
    wide, x = Wide(inner), torch.zeros(7, 1 << 18, dtype=torch.float64)
    x[:, :3] = points(inner, 7)
    got = bound(wide, x, 5, generator())
    assert len(wide.sizes) > 1
    assert sum(wide.sizes) == 7
    torch.testing.assert_close(got, bound(inner, x[:, :3].clone(), 5, generator()), rtol=1e-13, atol=0)


def test_elbo_is_its_definition() -> None:
    """One draw, written out."""
    torch.manual_seed(0)
    model = BernoulliVAE(12, 5, 2).double()
    x = torch.randint(0, 2, (6, 12), generator=generator()).double()
    noise = torch.randn(6, 1, 2, generator=generator(9), dtype=torch.float64)[:, 0]
    q = model.posterior(x)
    want = model.log_likelihood(x, q.sample(noise)) - kl_to_standard_normal(*q)
    torch.testing.assert_close(elbo(model, x, 1, generator(9)), want.detach(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("k", [0, -1])
def test_no_samples_is_refused(k: int) -> None:
    model = model_of(LECTURE)
    with pytest.raises(ValueError, match=f"at least 1, not {k}"):
        importance_weighted_bound(model, points(model, 2), k, generator())


@pytest.mark.parametrize("bound", [elbo, importance_weighted_bound])
def test_no_gradient_is_kept_and_no_mode_left_behind(bound) -> None:  # type: ignore[no-untyped-def]
    model = BernoulliVAE(8, 4, 2)
    values = bound(model, torch.ones(3, 8), 2, generator())
    assert values.shape == (3,)
    assert not values.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("bound", [elbo, importance_weighted_bound])
def test_randomness_is_the_generators_alone(bound) -> None:  # type: ignore[no-untyped-def]
    model = model_of(LECTURE)
    x = points(model, 5)
    torch.manual_seed(1)
    first = bound(model, x, 3, generator(4))
    torch.manual_seed(2)
    assert torch.equal(first, bound(model, x, 3, generator(4)))
    assert not torch.equal(first, bound(model, x, 3, generator(5)))
