"""The model whose truth is known, against scipy, against quadrature, sklearn and real digits, and itself rotated."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib import datasets
from lib.likelihood import elbo
from lib.models.gaussian_vae import Gaussian
from lib.models.linear_gaussian import LinearGaussian, PrincipalComponents, principal_components

WEIGHT = torch.tensor([[1.0, 0.8], [0.0, 0.6], [0.5, 0.5]], dtype=torch.float64)
OFFSET = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
ROOT = os.environ.get("REGEN_DATA")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


@pytest.mark.parametrize("noise_variance", [0.0, -0.1, math.nan, math.inf])
def test_noise_must_be_positive(noise_variance: float) -> None:
    with pytest.raises(ValueError, match=f"must be positive, not {noise_variance}"):
        LinearGaussian(WEIGHT, OFFSET, noise_variance)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"weight has the shape \(3, 2\) and offset \(2,\)"):
        LinearGaussian(WEIGHT, OFFSET[:2], 0.1)


# --- the marginal, the bound and draws, in closed form -------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    n_pixels=st.integers(1, 12),
    n_latent=st.integers(0, 12),
    noise_variance=st.floats(1e-3, 10),
)
def test_log_marginal_is_the_dense_gaussians(seed: int, n_pixels: int, n_latent: int, noise_variance: float) -> None:
    """No D x D covariance is formed in the code; here it is. K above D and K = 0 included."""
    model = LinearGaussian(normal(n_pixels, n_latent, seed=seed), normal(n_pixels, seed=seed + 1), noise_variance)
    x = 3 * normal(5, n_pixels, seed=seed + 2)
    covariance = model.weight @ model.weight.T + noise_variance * torch.eye(n_pixels, dtype=torch.float64)
    want = torch.distributions.MultivariateNormal(model.offset, covariance).log_prob(x)
    torch.testing.assert_close(model.log_marginal(x), want, rtol=1e-9, atol=1e-9)
    assert model.n_latent == n_latent


def test_log_marginal_is_exact_at_the_size_of_digits() -> None:
    """784 pixels and s2 = .003, where the quadratic form is a small difference of numbers of 2e5 if one subtracts."""
    model = LinearGaussian(normal(784, 200) / 10, normal(784, seed=1), 0.003)
    x = model.sample(20, torch.Generator().manual_seed(2))
    covariance = model.weight @ model.weight.T + 0.003 * torch.eye(784, dtype=torch.float64)
    want = torch.distributions.MultivariateNormal(model.offset, covariance).log_prob(x)
    torch.testing.assert_close(model.log_marginal(x), want, rtol=0, atol=1e-9)


def test_the_bound_is_log_p_less_the_divergence(model: LinearGaussian, x: Tensor) -> None:
    """For q of any mean and width: log p(x) - ELBO = KL(q || p(z|x)), with torch's divergence."""
    q = Gaussian(normal(6, 2, seed=3), normal(6, 2, seed=4))
    full = torch.distributions.MultivariateNormal(q.mean, covariance_matrix=torch.diag_embed(q.logvar.exp()))
    divergence = torch.distributions.kl_divergence(full, model.exact_posterior(x))
    torch.testing.assert_close(model.elbo(x, q), model.log_marginal(x) - divergence, rtol=1e-12, atol=1e-12)
    assert divergence.min() > 0.1  # else the line above says little


def test_the_bound_of_the_best_q_has_the_closed_form_gap(model: LinearGaussian, x: Tensor) -> None:
    gap = model.log_marginal(x) - model.elbo(x, model.posterior(x))
    assert gap.tolist() == pytest.approx([model.elbo_gap()] * 6, abs=1e-12)


def test_the_estimator_estimates_the_exact_bound_of_each_image(model: LinearGaussian, x: Tensor) -> None:
    draws = 20_000
    estimate = elbo(model, x, draws, torch.Generator().manual_seed(0))
    exact = model.elbo(x, model.posterior(x))
    assert (estimate - exact).abs().max() < 5 * 1.5 / math.sqrt(draws)  # log p(x|z) spreads by 1 to 1.5 nats under q


def test_draws_have_the_models_mean_and_covariance(model: LinearGaussian) -> None:
    n = 200_000
    x = model.sample(n, torch.Generator().manual_seed(0))
    covariance = WEIGHT @ WEIGHT.T + 0.1 * torch.eye(3, dtype=torch.float64)
    error = covariance.diagonal().sqrt() / math.sqrt(n)
    assert ((x.mean(0) - OFFSET).abs() < 5 * error).all()
    # The variance of a product of two unit Gaussians is at most 2.
    assert ((x.T.cov() - covariance).abs() < 5 * math.sqrt(2 * n) * error[:, None] * error).all()
    assert torch.equal(x, model.sample(n, torch.Generator().manual_seed(0)))
    assert not torch.equal(x, model.sample(n, torch.Generator().manual_seed(1)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees(model: LinearGaussian, x: Tensor) -> None:
    there = LinearGaussian(WEIGHT.cuda(), OFFSET.cuda(), 0.1)
    torch.testing.assert_close(there.log_marginal(x.cuda()).cpu(), model.log_marginal(x), rtol=1e-12, atol=0)
    q = there.posterior(x.cuda())
    torch.testing.assert_close(there.elbo(x.cuda(), q).cpu(), model.elbo(x, model.posterior(x)), rtol=1e-12, atol=0)
    assert there.sample(3, torch.Generator("cuda").manual_seed(0)).device.type == "cuda"


# --- maximum likelihood --------------------------------------------------------------------------------------------


def correlated(n: int, n_pixels: int) -> Tensor:
    return normal(n, n_pixels) @ normal(n_pixels, n_pixels, seed=1) + normal(n_pixels, seed=2)


def test_components_are_numpys() -> None:
    x = correlated(50, 6)
    found = principal_components(x)
    covariance = torch.from_numpy(np.cov(x.T.numpy(), bias=True))
    torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(
        found.directions * found.variances @ found.directions.T, covariance, rtol=1e-11, atol=1e-11
    )
    assert (found.variances.diff() < 0).all()
    narrow = principal_components(x.float())
    assert narrow.variances.dtype == torch.float64
    torch.testing.assert_close(narrow.variances, found.variances, rtol=1e-5, atol=0)


@pytest.mark.parametrize("n_latent", [1, 3, 5])
def test_the_fit_is_sklearns(n_latent: int) -> None:
    from sklearn.decomposition import PCA

    x, n = correlated(50, 6), 50
    pca = PCA(n_latent, svd_solver="full").fit(x.numpy())
    model = LinearGaussian.fit(x, n_latent)
    # sklearn divides by N - 1 where the maximum of the likelihood has N.
    assert model.noise_variance == pytest.approx(pca.noise_variance_ * (n - 1) / n, rel=1e-10)
    covariance = model.weight @ model.weight.T + model.noise_variance * torch.eye(6, dtype=torch.float64)
    want = torch.from_numpy(pca.get_covariance()) * (n - 1) / n
    torch.testing.assert_close(covariance, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_latent", [0, 1, 3, 5])
def test_the_fit_is_a_maximum_with_the_papers_value(n_latent: int) -> None:
    """Mean log p = -(D log 2 pi + sum of kept log variances + (D - K) log s2 + D) / 2; no step from it does better."""
    x = correlated(50, 6)
    components = principal_components(x)
    model = LinearGaussian.fit(components, n_latent)
    best = model.log_marginal(x).mean().item()
    s2 = components.variances[n_latent:].mean().item()
    kept = components.variances[:n_latent].log().sum().item()
    assert best == pytest.approx(
        -0.5 * (6 * math.log(2 * math.pi) + kept + (6 - n_latent) * math.log(s2) + 6), rel=1e-12
    )
    for seed in range(20):
        others = [
            LinearGaussian(model.weight, model.offset + 1e-2 * normal(6, seed=100 + seed), s2),
            LinearGaussian(model.weight, model.offset, s2 * (1 + 0.02 * (-1) ** seed)),
        ]
        if n_latent:
            others.append(LinearGaussian(model.weight + 1e-2 * normal(6, n_latent, seed=seed), model.offset, s2))
        for other in others:
            assert other.log_marginal(x).mean().item() < best - 1e-7
    again = LinearGaussian.fit(x, n_latent)
    torch.testing.assert_close(again.log_marginal(x), model.log_marginal(x), rtol=1e-12, atol=0)


def test_the_fitted_bound_is_tight() -> None:
    """R = I makes the columns orthogonal, so the best diagonal q is the posterior."""
    assert LinearGaussian.fit(correlated(50, 6), 3).elbo_gap() == pytest.approx(0, abs=1e-12)


def test_no_latents_is_an_isotropic_gaussian() -> None:
    x = correlated(50, 6)
    model = LinearGaussian.fit(x, 0)
    want = torch.distributions.Normal(x.mean(0), math.sqrt(x.var(0, correction=0).mean())).log_prob(x).sum(-1)
    torch.testing.assert_close(model.log_marginal(x), want, rtol=1e-12, atol=0)
    q = model.posterior(x)
    assert q.mean.shape == (50, 0)
    torch.testing.assert_close(model.elbo(x, q), want, rtol=1e-12, atol=0)
    assert model.elbo_gap() == 0


@pytest.mark.parametrize("n_latent", [-1, 6, 2.0, True])
def test_latents_are_fewer_than_pixels(n_latent: int) -> None:
    with pytest.raises(ValueError, match=f"n_latent is {n_latent}: it must be an integer between 0 and 5"):
        LinearGaussian.fit(correlated(50, 6), n_latent)


def test_data_without_noise_have_no_maximum() -> None:
    plane = normal(50, 2) @ normal(2, 6, seed=1)
    assert LinearGaussian.fit(plane, 1).noise_variance > 0
    with pytest.raises(ValueError, match="n_latent is 2, and the data have no variance in the other 4 directions"):
        LinearGaussian.fit(plane, 2)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(4, 3, dtype=torch.uint8), r"x is torch.uint8 of shape \(4, 3\)"),
        (torch.zeros(1, 3), r"shape \(1, 3\).* at least 2"),
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.tensor([[0.0], [math.inf]]), "x holds nan or infinity"),
    ],
)
def test_data_that_have_no_components_are_refused(x: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        principal_components(x)


# --- real digits, dequantised --------------------------------------------------------------------------------------

# Lecture sheet, section 6: nats per image of the 60,000 training and 10,000 test images as (pixel + u) / 256, by K.
SHEET = {
    0: (-51.3, -52.5),
    1: (-14.0, -14.0),
    2: (15.5, 17.4),
    5: (93.8, 97.0),
    10: (185.2, 189.1),
    20: (302.8, 309.6),
    50: (510.9, 520.6),
    100: (684.0, 692.3),
    200: (842.5, 847.7),
}
NOISE_VARIANCES = (0.0667, 0.0603, 0.0557, 0.0448, 0.0346, 0.0244, 0.0125, 0.00653, 0.00301)


@pytest.fixture(scope="module")
def digits() -> tuple[PrincipalComponents, Tensor, Tensor]:
    """Principal components of the 60,000 training images, those images, and the 10,000 of the test."""
    if not ROOT or not next(line for line in datasets.status(Path(ROOT)) if line.name == "mnist").present:
        pytest.skip("REGEN_DATA names no folder with the complete MNIST")
    images = datasets.load("mnist", Path(ROOT)).images.flatten(1)
    u = torch.rand(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = u.add_(images).div_(256)
    return principal_components(x[:60_000]), x[:60_000], x[60_000:]


def test_digits_have_the_sheets_spectrum(digits: tuple[PrincipalComponents, Tensor, Tensor]) -> None:
    """By the collapse rule a linear VAE of fixed s2 uses as many units as eigenvalues exceed it."""
    variances = digits[0].variances
    assert variances[:5].tolist() == pytest.approx([5.077, 3.712, 3.227, 2.819, 2.547], abs=6e-4)
    assert [(variances > s2).sum().item() for s2 in (0.1, 0.05, 0.01)] == [69, 101, 251]


def test_digits_have_the_sheets_likelihoods(digits: tuple[PrincipalComponents, Tensor, Tensor]) -> None:
    """Three draws of u differ by up to .004 nats (train) and .008 (test), and the sheet rounds to .1."""
    components, train, test = digits
    for (n_latent, (want_train, want_test)), s2 in zip(SHEET.items(), NOISE_VARIANCES, strict=True):
        model = LinearGaussian.fit(components, n_latent)
        assert model.noise_variance == pytest.approx(s2, rel=2e-3)
        assert model.log_marginal(test).mean().item() == pytest.approx(want_test, abs=0.07)
        spectrum = components.variances[:n_latent].log().sum().item() + (784 - n_latent) * math.log(
            model.noise_variance
        )
        value = -0.5 * (784 * math.log(2 * math.pi) + spectrum + 784)  # Tipping & Bishop 1999, at the maximum
        assert value == pytest.approx(want_train, abs=0.06)
        if n_latent == 50:
            assert model.log_marginal(train).mean().item() == pytest.approx(value, abs=1e-6)
