"""The model whose truth is known, against scipy, against quadrature, and against itself rotated."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from lib.models.linear_gaussian import LinearGaussian

WEIGHT = torch.tensor([[1.0, 0.8], [0.0, 0.6], [0.5, 0.5]], dtype=torch.float64)
OFFSET = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)


@pytest.fixture
def model() -> LinearGaussian:
    return LinearGaussian(WEIGHT, OFFSET, 0.1)


@pytest.fixture
def x() -> Tensor:
    return OFFSET + torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_log_marginal_is_scipys(model: LinearGaussian, x: Tensor) -> None:
    covariance = (WEIGHT @ WEIGHT.T + 0.1 * torch.eye(3, dtype=torch.float64)).numpy()
    want = scipy.stats.multivariate_normal(OFFSET.numpy(), covariance).logpdf(x.numpy())
    assert model.log_marginal(x).tolist() == pytest.approx(want.tolist(), rel=1e-12)


def test_log_likelihood_is_scipys(model: LinearGaussian, x: Tensor) -> None:
    z = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    want = scipy.stats.norm((z @ WEIGHT.T + OFFSET).numpy(), math.sqrt(0.1)).logpdf(x.numpy()).sum(-1)
    torch.testing.assert_close(model.log_likelihood(x, z), torch.from_numpy(want), rtol=1e-12, atol=0)


def test_posterior_and_evidence_by_quadrature(model: LinearGaussian, x: Tensor) -> None:
    """p(z) p(x|z) on a fine grid of the plane knows nothing of the matrix identities in the code."""
    axis = torch.linspace(-9, 9, 721, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)  # (G, 2)
    for point in x[:3]:
        log_joint = model.log_prior(grid) + model.log_likelihood(point, grid)
        cell = (axis[1] - axis[0]).item() ** 2
        evidence = torch.logsumexp(log_joint, 0) + math.log(cell)
        assert evidence.item() == pytest.approx(model.log_marginal(point[None]).item(), abs=1e-9)
        weight = torch.exp(log_joint - torch.logsumexp(log_joint, 0))
        mean = weight @ grid
        covariance = (grid - mean).T @ (weight[:, None] * (grid - mean))
        exact = model.exact_posterior(point[None])
        torch.testing.assert_close(exact.mean[0], mean, rtol=0, atol=1e-9)
        torch.testing.assert_close(exact.covariance_matrix[0], covariance, rtol=0, atol=1e-9)


def test_the_diagonal_posterior_is_the_best_one(model: LinearGaussian, x: Tensor) -> None:
    """Its divergence from the exact posterior is the closed-form gap, and no step from it lowers the divergence."""
    mean, logvar = model.posterior(x)

    def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
        q = torch.distributions.MultivariateNormal(mean, covariance_matrix=torch.diag_embed(logvar.exp()))
        return torch.distributions.kl_divergence(q, model.exact_posterior(x))

    best = divergence(mean, logvar)
    torch.testing.assert_close(best, torch.full_like(best, model.elbo_gap()), rtol=1e-10, atol=0)
    for axis in range(2):
        for size in (-1e-3, 1e-3):
            step = size * torch.eye(2, dtype=torch.float64)[axis]
            assert (divergence(mean + step, logvar) > best).all()
            assert (divergence(mean, logvar + step) > best).all()


def test_gap_of_the_lecture_example(model: LinearGaussian) -> None:
    assert model.elbo_gap() == pytest.approx(0.464357, abs=5e-7)


def test_rotation_to_orthogonal_columns_closes_the_gap(model: LinearGaussian, x: Tensor) -> None:
    _, _, directions = torch.linalg.svd(WEIGHT, full_matrices=False)
    rotated = LinearGaussian(WEIGHT @ directions.T, OFFSET, 0.1)
    assert rotated.elbo_gap() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(rotated.log_marginal(x), model.log_marginal(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("noise_variance", [0.0, -0.1])
def test_noise_must_be_positive(noise_variance: float) -> None:
    with pytest.raises(ValueError, match=f"must be positive, not {noise_variance}"):
        LinearGaussian(WEIGHT, OFFSET, noise_variance)
