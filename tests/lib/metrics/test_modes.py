"""Mode counts by hand and for the mixture itself, both KLs, and the class histogram of Stacked MNIST."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.metrics.modes import class_coverage, mode_coverage, stacked_label

GRID = torch.cartesian_prod(*[torch.arange(-4.0, 5.0, 2.0)] * 2).double()  # 25 modes, sd .05


def mixture(centres: Tensor, n: int, sd: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(0, len(centres), (n,), generator=generator)
    return centres[which] + sd * torch.randn(n, centres.shape[1], generator=generator, dtype=torch.float64)


def test_a_few_samples_by_hand() -> None:
    """Modes 0, 10, 20, 30 with sd 1. Mode 2 is nearest to one sample, but 4 sd away; mode 3 is nearest to none."""
    centres = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    samples = torch.tensor([[0.5], [-2.0], [1.0], [11.0], [16.0]])
    got = mode_coverage(samples, centres, 1.0)
    assert (got.captured, got.n_modes, got.high_quality, got.n) == (2, 4, 0.8, 5)
    every = 0.6 * math.log(4 * 0.6) + 2 * 0.2 * math.log(4 * 0.2)
    best = 0.75 * math.log(4 * 0.75) + 0.25 * math.log(4 * 0.25)
    assert got.kl_nats == pytest.approx(every, rel=1e-14)
    assert got.kl_high_quality_nats == pytest.approx(best, rel=1e-14)


@pytest.mark.parametrize(("radius", "share"), [(2.9, 1.0), (3.0, 0.0), (3.1, 0.0)])
def test_the_border_is_outside(radius: float, share: float) -> None:
    got = mode_coverage(torch.tensor([[radius, 0.0]]), torch.zeros(1, 2), 1.0)
    assert got.high_quality == share
    assert math.isnan(got.kl_high_quality_nats) == (share == 0)
    assert got.captured == share


@pytest.mark.parametrize(("d", "within"), [(2, 3.0), (2, 1.0), (5, 3.0), (1, 2.0)])
def test_high_quality_share_of_the_mixture_itself(d: int, within: float) -> None:
    """P(chi2_D < within^2), for D = 2 that is 1 - exp(-within^2 / 2)."""
    from scipy.stats import chi2

    centres = 50 * torch.arange(6, dtype=torch.float64)[:, None].expand(6, d)
    n, want = 40_000, float(chi2.cdf(within**2, d))
    if d == 2:
        assert want == pytest.approx(1 - math.exp(-(within**2) / 2))
    got = mode_coverage(mixture(centres, n, 0.3, 0), centres, 0.3, within=within)
    assert abs(got.high_quality - want) < 3.5 * math.sqrt(want * (1 - want) / n)
    assert got.captured == 6


def test_the_grid_of_the_papers() -> None:
    """2500 samples of the mixture itself: all 25 modes, KL about 24 / 5000."""
    values = [mode_coverage(mixture(GRID, 2500, 0.05, seed), GRID, 0.05) for seed in range(60)]
    assert all(v.captured == v.n_modes == 25 for v in values)
    for field in ("kl_nats", "kl_high_quality_nats"):
        kl = torch.tensor([getattr(v, field) for v in values], dtype=torch.float64)
        assert abs(kl.mean().item() - 24 / 5000) < 3.5 * kl.std().item() / math.sqrt(60)
        assert kl.std().item() / math.sqrt(60) < 4e-4


def test_collapse_onto_one_mode() -> None:
    got = mode_coverage(GRID[7].expand(100, 2), GRID, 0.05)
    assert got[:3] == (1, 25, 1.0)
    assert got.kl_nats == got.kl_high_quality_nats == pytest.approx(math.log(25), rel=1e-14)


def test_reverse_kl_is_log_k_minus_the_entropy() -> None:
    """As the authors' program has it, by scipy."""
    from scipy.stats import entropy

    samples = mixture(GRID[:11], 300, 0.05, 3)
    counts = torch.cdist(samples, GRID).argmin(1).bincount(minlength=25)
    got = mode_coverage(samples, GRID, 0.05)
    assert got.kl_nats == pytest.approx(entropy(counts.double().numpy(), [1 / 25] * 25), rel=1e-12)
    assert got.kl_nats == pytest.approx(math.log(25) - entropy(counts.double().numpy()), rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), k=st.integers(1, 6), d=st.integers(1, 4))
def test_range_and_invariances_of_modes(seed: int, n: int, k: int, d: int) -> None:
    centres = mixture(torch.zeros(1, d, dtype=torch.float64), k, 5.0, seed)
    samples = mixture(centres, n, 1.5, seed + 1)
    got = mode_coverage(samples, centres, 1.0)
    assert 0 <= got.captured <= min(n, k)
    assert 0 <= got.kl_nats <= math.log(k) + 1e-12
    flipped = mode_coverage(4 * samples.flip(0), 4 * centres.flip(0), 4.0)
    assert flipped == pytest.approx(got, rel=1e-10, abs=1e-12, nan_ok=True)
    assert mode_coverage(samples, centres, 1.0, within=5.0).high_quality >= got.high_quality


def test_stacked_mnist_floor() -> None:
    """26 000 uniform draws of 1000 classes: all are hit, KL about 999 / 52 000 = .0192; 20 repeats."""
    values = [
        class_coverage(torch.randint(0, 1000, (26_000,), generator=torch.Generator().manual_seed(s)), 1000)
        for s in range(20)
    ]
    assert all(v.captured == v.n_classes == 1000 for v in values)
    kl = torch.tensor([v.kl_nats for v in values], dtype=torch.float64)
    assert kl.mean().item() == pytest.approx(999 / 52_000, rel=0.03)  # the next term of the series is 2 % of it


def test_class_kl_by_hand_and_by_scipy() -> None:
    from scipy.stats import entropy

    labels = torch.tensor([0, 0, 0, 1, 3], dtype=torch.uint8)
    assert class_coverage(labels, 4) == (3, 4, pytest.approx(0.6 * math.log(2.4) + 0.4 * math.log(0.8), rel=1e-14), 5)
    weights = torch.tensor([10.0, 20.0, 30.0, 40.0])
    want = entropy([0.6, 0.2, 0.0, 0.2], [0.1, 0.2, 0.3, 0.4])
    assert class_coverage(labels, 4, weights).kl_nats == pytest.approx(want, rel=1e-12)
    assert class_coverage(labels, 4, 7 * weights).kl_nats == pytest.approx(want, rel=1e-12)


def test_class_limits() -> None:
    assert class_coverage(torch.arange(12), 12) == (12, 12, pytest.approx(0, abs=1e-14), 12)
    assert class_coverage(torch.full((9,), 3), 12).kl_nats == pytest.approx(math.log(12))
    assert class_coverage(torch.tensor([0, 1]), 2, torch.tensor([1.0, 0.0])).kl_nats == math.inf
    assert class_coverage(torch.tensor([0, 0]), 2, torch.tensor([1.0, 0.0])).kl_nats == 0


def test_rounding_makes_no_kl_negative() -> None:
    counts = torch.tensor([12, 39, 43, 24, 16, 17, 42])
    labels = torch.arange(7).repeat_interleave(counts)
    assert 0 <= class_coverage(labels, 7, 0.1 * counts.double()).kl_nats < 1e-14


def test_stacked_labels_number_the_classes() -> None:
    digits = torch.cartesian_prod(*[torch.arange(10, dtype=torch.uint8)] * 3)  # uint8 would overflow at 256
    assert torch.equal(stacked_label(*digits.unbind(1)), torch.arange(1000))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mode_coverage(GRID, GRID[:, :1], 1.0), "samples has 2 features and centres 1"),
        (lambda: mode_coverage(GRID, GRID, 0.0), "sd is 0.0"),
        (lambda: mode_coverage(GRID, GRID, 1.0, within=-1.0), "within is -1.0"),
        (lambda: mode_coverage(GRID / 0, GRID, 1.0), "samples holds nan"),
        (lambda: class_coverage(torch.tensor([0, 5]), 5), "labels holds 5: labels lie in 0 .. 4"),
        (lambda: class_coverage(torch.tensor([0, -2]), 5), "labels holds -2"),
        (lambda: class_coverage(torch.tensor([0.0]), 5), "labels is torch.float32"),
        (lambda: class_coverage(torch.tensor([], dtype=torch.long), 5), "labels has the shape"),
        (lambda: class_coverage(torch.tensor([1]), 5, torch.ones(4)), "weights has the shape"),
        (lambda: class_coverage(torch.tensor([1]), 2, torch.tensor([-1.0, 2.0])), "weights holds -1"),
        (lambda: stacked_label(*[torch.tensor([3])] * 2, torch.tensor([10])), "blue holds 10"),
        (lambda: stacked_label(*[torch.tensor([3])] * 2, torch.tensor([1, 1])), "1, 1 and 2 digits"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
