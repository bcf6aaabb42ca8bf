"""Neighbours against direct distances, the four scores against two programs, and copies, ties, borders, blocks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.metrics import neighbours as module
from lib.metrics.neighbours import density_coverage, distance_ratio, nearest_neighbour, precision_recall

LATTICE = pytest.mark.parametrize("kind", ["normal", "lattice", "copies"])


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tables(kind: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """normal: no ties; lattice: ties and duplicates everywhere; copies: half of the second stands in the first."""
    if kind == "lattice":
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randint(0, 4, (n, 3), generator=generator).double() for n in (90, 70))  # type: ignore[return-value]
    x, y = normal(90, 30, seed), normal(70, 30, seed + 1, 0.2)
    if kind == "copies":
        y[::2] = x[:35]
    return x, y


def direct(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] - y[None]).square().sum(2).sqrt()


def radii(x: Tensor, k: int) -> Tensor:
    """Including itself, as the definitions count, x has its k-th nearest other row at place k."""
    return direct(x, x).sort(1).values[:, k]


@LATTICE
@pytest.mark.parametrize("block", [1, 700, 2**24])
def test_nearest_neighbour_is_the_direct_one(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    x, y = tables(kind)
    distances, indices = nearest_neighbour(x, y)
    want = direct(x, y)
    torch.testing.assert_close(distances, want.min(1).values, rtol=1e-14, atol=0)
    assert torch.equal(indices, torch.from_numpy(want.numpy().argmin(1)))  # numpy: the first of equals


@LATTICE
def test_nearest_other_is_the_direct_one(kind: str) -> None:
    x, _ = tables(kind)
    want = direct(x, x).fill_diagonal_(math.inf)
    distances, indices = nearest_neighbour(x, x, exclude_self=True)
    torch.testing.assert_close(distances, want.min(1).values, rtol=1e-14, atol=0)
    assert torch.equal(indices, torch.from_numpy(want.numpy().argmin(1)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_a_copy_is_at_distance_zero_and_a_near_copy_is_not(scale: float) -> None:
    """Far from the origin, where |a|^2 + |b|^2 - 2 a.b is nothing but rounding."""
    reference = scale * normal(300, 50, 0, 1000.0)
    x = reference[100:200].clone()
    x[::2, 3] *= 1 + 1e-9
    distances, indices = nearest_neighbour(x, reference)
    assert torch.equal(indices, torch.arange(100, 200))
    assert bool((distances[1::2] == 0).all())
    torch.testing.assert_close(distances[::2], (x[::2, 3] - reference[100:200:2, 3]).abs(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("place", [0, 13, 26, 39])
def test_more_near_copies_than_candidates(place: int) -> None:
    """40 rows closer together than the screening can tell: every row has to be looked at."""
    offsets = 1e-7 * torch.arange(1, 41, dtype=torch.float64).roll(place)
    reference = torch.full((40, 20), 1000.0, dtype=torch.float64)
    reference[:, 0] += offsets
    distances, indices = nearest_neighbour(torch.full((1, 20), 1000.0, dtype=torch.float64), reference)
    assert indices.item() == place
    assert distances.item() == (reference[place, 0] - 1000).item()


def test_the_first_of_many_copies_is_the_nearest() -> None:
    reference = normal(1, 20, 0, 100.0).expand(50, 20)
    assert nearest_neighbour(reference[:3], reference)[1].tolist() == [0, 0, 0]
    assert nearest_neighbour(reference, reference, exclude_self=True)[1].tolist() == [1] + 49 * [0]


@LATTICE
@pytest.mark.parametrize("k", [1, 3, 5])
def test_all_four_are_their_definitions(kind: str, k: int) -> None:
    real, generated = tables(kind)
    # One distance, one set of bits: the copies' and the lattice's ties are exact here, too.
    between, real_radii, generated_radii = direct(generated, real), radii(real, k), radii(generated, k)
    got = precision_recall(real, generated, k)
    assert got.precision == (between <= real_radii).any(1).sum().item() / 70
    assert got.recall == (generated_radii >= between.T).any(1).sum().item() / 90
    other = density_coverage(real, generated, k)
    assert other.density == (between < real_radii).sum().item() / (k * 70)
    assert other.coverage == (between.min(0).values < real_radii).sum().item() / 90


@pytest.mark.parametrize(("shift", "d"), [(0.0, 2), (0.3, 40), (1.0, 5)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_all_four_agree_with_prdc(k: int, shift: float, d: int) -> None:
    prdc = pytest.importorskip("prdc")
    real, generated = normal(200, d, 0), normal(150, d, 1, shift)
    want = prdc.compute_prdc(real.numpy(), generated.numpy(), nearest_k=k)
    assert precision_recall(real, generated, k) == (want["precision"], want["recall"])
    got = density_coverage(real, generated, k)
    assert got == (pytest.approx(want["density"], rel=1e-13), want["coverage"])


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_have_the_borders_of_prdc(k: int) -> None:
    """On a lattice of small integers its distances are exact as well, so its ties are ours."""
    prdc = pytest.importorskip("prdc")
    real, generated = tables("lattice")
    want = prdc.compute_prdc(real.numpy(), generated.numpy(), nearest_k=k)
    got = density_coverage(real, generated, k)
    assert got == (pytest.approx(want["density"], rel=1e-13), want["coverage"])


@pytest.mark.parametrize("kind", ["normal", "lattice"])
@pytest.mark.parametrize("in_parts", [True, False])
def test_precision_and_recall_agree_with_torch_fidelity(kind: str, in_parts: bool) -> None:
    other = pytest.importorskip("torch_fidelity.metric_prc")
    real, generated = tables(kind)
    options = {"prc_neighborhood": 3, "prc_batch_size": 50, "save_cpu_ram": in_parts, "verbose": False}
    want = other.prc_features_to_metric(generated, real, **options)
    got = precision_recall(real, generated, 3)
    assert got.precision == pytest.approx(want["precision"], abs=1e-7)  # a count over N there in float32
    assert got.recall == pytest.approx(want["recall"], abs=1e-7)


@pytest.mark.parametrize("kind", ["normal", "lattice"])
def test_blocks_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = tables(kind)
    want = precision_recall(real, generated), density_coverage(real, generated)
    monkeypatch.setattr(module, "BLOCK", 101)
    assert (precision_recall(real, generated), density_coverage(real, generated)) == want


def test_a_line_by_hand() -> None:
    """Real 0, 1, 3 have radii 1, 1, 2 (k = 1), generated -1, .5, 9 have 1.5, 1.5, 8.5.

    -1 is on the border of the ball around 0, .5 in those of 0 and 1; 0 and 1 are nearer to .5 than 1.5, and 3 is in the
    ball around 9.
    """
    real = torch.tensor([[0.0], [1.0], [3.0]])
    generated = torch.tensor([[-1.0], [0.5], [9.0]])
    assert precision_recall(real, generated, 1) == (pytest.approx(2 / 3), 1.0)
    assert density_coverage(real, generated, 1) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_a_perfect_copy_and_a_miss() -> None:
    real = normal(60, 5, 0)
    assert precision_recall(real, real.clone()) == (1.0, 1.0)
    assert density_coverage(real, real.clone()).coverage == 1.0
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    assert density_coverage(real, real + 100) == (0.0, 0.0)


def test_one_repeated_image_has_precision_but_no_recall() -> None:
    """Twenty copies of a real image: their balls have radius 0, and hold that one image, as they are closed."""
    real = normal(50, 5, 0)
    generated = real[7].expand(20, 5)
    assert precision_recall(real, generated) == (1.0, 1 / 50)


def test_coverage_and_density_have_their_expectations() -> None:
    """One law: E density = 1, E coverage = 1 - (N-1)..(N-k) / ((M+N-1)..(M+N-k)); 60 repeats."""
    n, m, k = 60, 80, 3
    got = [density_coverage(normal(n, 3, 2 * i), normal(m, 3, 2 * i + 1), k) for i in range(60)]
    want = 1.0, 1 - math.prod((n - i) / (m + n - i) for i in range(1, k + 1))
    for values, expected in zip(np.array(got).T, want, strict=True):
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - expected) < 3.5 * error
        assert error < 0.03


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 25), m=st.integers(4, 25), d=st.integers(1, 4), k=st.integers(1, 3))
def test_order_and_scale_do_not_matter(seed: int, n: int, m: int, d: int, k: int) -> None:
    real, generated = normal(n, d, seed), normal(m, d, seed + 1, 0.5)
    both = precision_recall(real, generated, k)
    other = density_coverage(real, generated, k)
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert precision_recall(4 * real[rows], 4 * generated, k) == both  # a power of 2 keeps every comparison
    assert density_coverage(4 * real[rows], 4 * generated, k) == other
    assert precision_recall(generated, real, k) == both[::-1]
    assert 0 <= both.precision <= 1
    assert 0 <= other.coverage <= 1
    assert 0 <= other.density <= n / k


def test_copies_of_the_training_set_have_ratio_zero() -> None:
    train, test = normal(80, 6, 0), normal(80, 6, 1)
    got = distance_ratio(train[:50].clone(), train, test, seed=0)
    assert got == (0.0, 1.0, 0.0, 50, 80)


def test_copies_of_the_test_set_are_at_the_other_end() -> None:
    train, test = normal(80, 6, 0), normal(80, 6, 1)
    assert distance_ratio(test[:50].clone(), train, test, seed=0) == (math.inf, 0.0, 0.0, 50, 80)


def test_one_reference_twice_is_a_tie() -> None:
    train, fresh = normal(40, 6, 0), normal(30, 6, 1)
    fresh[0] = train[0]  # 0 / 0
    got = distance_ratio(fresh, train, train.clone(), seed=0)
    assert got[:2] == (1.0, 0.5)
    assert got.stderr == pytest.approx(math.sqrt(0.25 / 30))
    assert distance_ratio(train[:5], train, train.clone(), seed=0)[:2] == (1.0, 0.5)


@pytest.mark.parametrize("n_train", [300, 1200])
def test_fresh_draws_are_no_nearer_to_train(n_train: int) -> None:
    """One law, 30 repeats of 100 images against fresh sets of 300; a larger training set must not matter."""
    shares = []
    for i in range(30):
        generated, train, test = normal(100, 5, 3 * i), normal(n_train, 5, 3 * i + 1), normal(300, 5, 3 * i + 2)
        got = distance_ratio(generated, train, test, seed=i)
        assert got.n_reference == 300
        assert 0.8 < got.median_ratio < 1.25
        shares.append(got.share_nearer_train)
    assert abs(np.mean(shares) - 0.5) < 3.5 * np.std(shares, ddof=1) / math.sqrt(30)
    assert np.std(shares, ddof=1) == pytest.approx(0.05, rel=0.5)  # sqrt(.25 / 100), its stderr


def test_the_draw_of_the_references_is_the_seeds() -> None:
    generated, train, test = normal(30, 5, 0), normal(400, 5, 1), normal(50, 5, 2)
    torch.manual_seed(0)
    first = distance_ratio(generated, train, test, seed=1)
    torch.manual_seed(1)
    assert distance_ratio(generated, train, test, seed=1) == first
    assert distance_ratio(generated, train, test, seed=2) != first
    mirrored = distance_ratio(generated, test, train, seed=1)
    assert mirrored.share_nearer_train == pytest.approx(1 - first.share_nearer_train)


def test_median_of_an_even_number_is_the_middle() -> None:
    """Ratios 1/3, 1/2, 2 and 3: the median is 1.25."""
    train, test = torch.tensor([[0.0]]), torch.tensor([[12.0]])
    generated = torch.tensor([[3.0], [4.0], [8.0], [9.0]])
    assert distance_ratio(generated, train, test, seed=0)[:2] == (pytest.approx(1.25), 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: precision_recall(normal(5, 2, 0), normal(4, 2, 1), 4),
            "k is 4: it must be an integer, between 1 and 3",
        ),
        (
            lambda: density_coverage(normal(5, 2, 0), normal(9, 2, 1), 5),
            "k is 5: it must be an integer, between 1 and 4",
        ),
        (lambda: precision_recall(normal(5, 2, 0), normal(4, 3, 1)), "real has 2 features and generated 3"),
        (lambda: precision_recall(normal(5, 2, 0), torch.full((5, 2), math.nan)), "generated holds nan"),
        (lambda: nearest_neighbour(torch.ones(3, 2, dtype=torch.uint8), torch.ones(3, 2)), "x is torch.uint8"),
        (
            lambda: nearest_neighbour(normal(3, 2, 0), normal(4, 2, 1), exclude_self=True),
            "x has 3 rows and reference 4",
        ),
        (lambda: nearest_neighbour(normal(1, 2, 0), normal(1, 2, 0), exclude_self=True), "at least 2"),
        (lambda: distance_ratio(normal(3, 2, 0), normal(3, 2, 0), normal(3, 1, 0), seed=0), "test 1"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
