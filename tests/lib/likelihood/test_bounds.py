"""Both estimators on a model whose log p(x) is known: right on average, ordered, and blind to their block size."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from lib.likelihood.bounds import elbo, importance_weighted_bound, importance_weighted_bounds
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


@pytest.mark.parametrize("alive", [1, 12, 40, 1 << 20])
def test_no_split_into_blocks_loses_a_sample_or_an_image(monkeypatch: pytest.MonkeyPatch, alive: int) -> None:
    """Each weight is exact here, so any sample counted twice, or not at all, would show."""
    monkeypatch.setattr("lib.likelihood.bounds._ALIVE", alive)
    model = model_of(ORTHOGONAL)
    x = points(model, 11)
    truth = model.log_marginal(x)
    torch.testing.assert_close(importance_weighted_bound(model, x, 7, generator()), truth, rtol=0, atol=1e-10)
    torch.testing.assert_close(elbo(model, x, 7, generator(), estimator="A"), truth, rtol=0, atol=1e-10)


@pytest.mark.parametrize("alive", [3, 30, 1 << 20])
def test_blocks_leave_the_bounds_unbiased(monkeypatch: pytest.MonkeyPatch, alive: int) -> None:
    monkeypatch.setattr("lib.likelihood.bounds._ALIVE", alive)
    model = model_of(LECTURE)
    x = points(model, 2000)
    gap, error = mean_and_error(model.log_marginal(x) - elbo(model, x, 3, generator()))
    assert abs(gap - model.elbo_gap()) < 4 * error
    one, five = importance_weighted_bounds(model, x, [1, 5], generator())
    gap, error = mean_and_error(model.log_marginal(x) - one)
    assert abs(gap - model.elbo_gap()) < 4 * error
    rise, error = mean_and_error(five - one)
    assert rise > 4 * error


class Counting:
    """A model that notes how many pixels it decoded at a time."""

    def __init__(self, inner: LinearGaussian) -> None:
        self.inner = inner
        self.pixels: list[int] = []

    def posterior(self, x: Tensor) -> Gaussian:
        return self.inner.posterior(x)

    def log_prior(self, z: Tensor) -> Tensor:
        return self.inner.log_prior(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        self.pixels.append(z[..., 0].numel() * x.shape[1])
        return self.inner.log_likelihood(x, z)


def test_memory_does_not_grow_with_k(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.likelihood.bounds._ALIVE", 600)
    model = Counting(model_of(LECTURE))
    importance_weighted_bound(model, points(model.inner, 4), 1000, generator())
    assert sum(model.pixels) == 4 * 1000 * 3
    assert max(model.pixels) <= 600


def test_several_k_in_one_pass_share_their_first_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.likelihood.bounds._ALIVE", 24)  # four samples of two images at a time
    model = model_of(LECTURE)
    x = points(model, 2)
    one, three, nine = importance_weighted_bounds(model, x, [1, 3, 9], generator())
    assert torch.equal(nine, importance_weighted_bound(model, x, 9, generator()))
    assert torch.equal(importance_weighted_bounds(model, x, [9, 1], generator()), torch.stack([nine, one]))
    # The log weights of samples 1 .. 9, by undoing the averages.
    weights = [importance_weighted_bounds(model, x, [k, 9], generator())[0].exp() * k for k in range(1, 10)]
    torch.testing.assert_close(weights[0].log(), one, rtol=1e-12, atol=0)
    torch.testing.assert_close((weights[2] / 3).log(), three, rtol=1e-12, atol=0)
    assert all(bool((later > earlier).all()) for earlier, later in itertools.pairwise(weights))


def test_estimators_a_and_b_have_one_mean() -> None:
    """Section 2.3. That B's KL term is in closed form does not mean less variance: in this model it has more."""
    model = model_of(LECTURE)
    x = points(model, 1)
    many = x.expand(20_000, -1)
    a, b = (elbo(model, many, 1, generator(seed), estimator=name) for seed, name in ((1, "A"), (2, "B")))
    assert abs((a.mean() - b.mean()).item()) < 4 * math.hypot(mean_and_error(a)[1], mean_and_error(b)[1])
    assert a.std() < 0.8 * b.std()


def test_estimator_a_is_exact_at_the_posterior_and_b_is_not() -> None:
    model = model_of(ORTHOGONAL)
    x = points(model, 400)
    a, b = (elbo(model, x, 1, generator(), estimator=name) - model.log_marginal(x) for name in ("A", "B"))
    assert a.abs().max().item() < 1e-10
    assert b.std().item() > 0.1


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


def test_no_k_at_all_is_refused() -> None:
    model = model_of(LECTURE)
    with pytest.raises(ValueError, match="ks is empty"):
        importance_weighted_bounds(model, points(model, 2), [], generator())


def test_an_unknown_estimator_is_refused() -> None:
    model = model_of(LECTURE)
    with pytest.raises(ValueError, match="estimator is 'C'"):
        elbo(model, points(model, 2), 1, generator(), estimator="C")  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [elbo, importance_weighted_bound])
def test_grey_pixels_have_no_bernoulli_likelihood(bound) -> None:  # type: ignore[no-untyped-def]
    model = BernoulliVAE(8, 4, 2)
    grey = torch.full((3, 8), 0.25)
    with pytest.raises(ValueError, match="24 of 24 pixels strictly between 0 and 1"):
        bound(model, grey, 2, generator())
    asked = bound(model, grey, 2, generator(), criterion="real-valued cross-entropy")
    assert bool(torch.isfinite(asked).all())
