"""Confusion counts and the three scores: by hand, by scikit-learn and torchmetrics, with and without absent classes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.metrics.segmentation import confusion_matrix, segmentation_scores


def maps(n_classes: int, seed: int, shape: tuple[int, ...] = (3, 8, 9)) -> tuple[Tensor, Tensor]:
    """Truth, a third of it ignored, and a prediction that is right half of the time."""
    generator = torch.Generator().manual_seed(seed)
    truth, other = (torch.randint(0, n_classes, shape, generator=generator) for _ in range(2))
    predicted = torch.where(torch.rand(shape, generator=generator) < 0.5, truth, other)
    return truth.masked_fill(torch.rand(shape, generator=generator) < 1 / 3, 255), predicted


def test_six_pixels_by_hand() -> None:
    truth = torch.tensor([[[0, 0, 0, 1, 1, 255, 2]]], dtype=torch.uint8)
    predicted = torch.tensor(
        [[[0, 0, 1, 1, 2, 200, 2]]], dtype=torch.uint8
    )  # what is predicted where 255 is: no matter
    confusion = confusion_matrix(truth, predicted, 3)
    assert confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert confusion.dtype == torch.int64
    got = segmentation_scores(confusion)
    assert got == pytest.approx((4 / 6, (2 / 3 + 1 / 2 + 1) / 3, (2 / 3 + 1 / 3 + 1 / 2) / 3), rel=1e-14)


def test_many_classes_do_not_overflow_a_byte() -> None:
    truth = torch.arange(19, dtype=torch.uint8)
    assert torch.equal(confusion_matrix(truth, truth, 19), torch.eye(19, dtype=torch.int64))


@pytest.mark.parametrize(("n_classes", "seed"), [(2, 0), (5, 1), (19, 2)])
def test_agrees_with_scikit_learn(n_classes: int, seed: int) -> None:
    from sklearn import metrics

    truth, predicted = maps(n_classes, seed)
    kept = truth != 255
    t, p = truth[kept].numpy(), predicted[kept].numpy()
    confusion = confusion_matrix(truth, predicted, n_classes)
    assert confusion.tolist() == metrics.confusion_matrix(t, p, labels=range(n_classes)).tolist()
    got = segmentation_scores(confusion)
    assert got.pixel_accuracy == pytest.approx(metrics.accuracy_score(t, p), rel=1e-13)
    assert got.class_accuracy == pytest.approx(metrics.balanced_accuracy_score(t, p), rel=1e-13)
    assert got.class_iou == pytest.approx(metrics.jaccard_score(t, p, average="macro"), rel=1e-13)


@pytest.mark.parametrize(("n_classes", "seed"), [(3, 0), (7, 1), (19, 2)])
def test_agrees_with_torchmetrics(n_classes: int, seed: int) -> None:
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    truth, predicted = maps(n_classes, seed)
    got = segmentation_scores(confusion_matrix(truth, predicted, n_classes))
    accuracy = [
        MulticlassAccuracy(n_classes, average=a, ignore_index=255)(predicted, truth) for a in ("micro", "macro")
    ]
    assert got.pixel_accuracy == pytest.approx(accuracy[0].item(), rel=1e-6)  # float32 there
    assert got.class_accuracy == pytest.approx(accuracy[1].item(), rel=1e-6)
    iou = MulticlassJaccardIndex(n_classes, ignore_index=255)(predicted, truth)
    assert got.class_iou == pytest.approx(iou.item(), rel=1e-6)


@pytest.mark.parametrize("absent", ["ignore", "zero"])
def test_absent_classes(absent) -> None:  # type: ignore[no-untyped-def]
    """Class 2 is predicted once but never true, class 3 is neither; numpy with and without the scripts' 1e-12."""
    confusion = torch.tensor([[4, 1, 1, 0], [2, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    h = confusion.double().numpy()
    extra = 1e-12 if absent == "zero" else 0.0
    with np.errstate(invalid="ignore"):
        accuracy = np.nanmean(np.diag(h) / (h.sum(1) + extra))
        iou = np.nanmean(np.diag(h) / (h.sum(1) + h.sum(0) - np.diag(h) + extra))
    got = segmentation_scores(confusion, absent)
    assert got == pytest.approx((7 / 11, accuracy, iou), rel=1e-11)
    ious = 4 / 8 + 3 / 6
    n = (4, 4) if absent == "zero" else (2, 3)
    assert got[1:] == pytest.approx(((4 / 6 + 3 / 5) / n[0], ious / n[1]), rel=1e-13)


def test_perfect_and_hopeless() -> None:
    assert segmentation_scores(torch.diag(torch.tensor([5, 1, 9]))) == (1.0, 1.0, 1.0)
    assert segmentation_scores(torch.tensor([[0, 3], [4, 0]])) == (0.0, 0.0, 0.0)


def test_counts_beyond_float32() -> None:
    confusion = torch.tensor([[2**25 + 1, 1], [0, 2**25]])
    assert segmentation_scores(confusion).pixel_accuracy == (2**26 + 1) / (2**26 + 2)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), n_classes=st.integers(1, 8))
def test_parts_add_up_and_names_do_not_matter(seed: int, n_classes: int) -> None:
    truth, predicted = maps(n_classes, seed, (4, 3, 5))
    whole = confusion_matrix(truth, predicted, n_classes)
    parts = [confusion_matrix(truth[i], predicted[i], n_classes) for i in range(4)]
    assert torch.equal(whole, torch.stack(parts).sum(0))
    assert int(whole.sum()) == int((truth != 255).sum())
    assert torch.equal(confusion_matrix(predicted, predicted, n_classes, None).diagonal().sum(), torch.tensor(60))
    if int(whole.sum()):
        got = segmentation_scores(whole)
        assert 0 <= got.class_iou <= got.class_accuracy + 1e-12 or bool((whole.sum(1) == 0).any())
        assert max(got) <= 1
        names = torch.randperm(n_classes, generator=torch.Generator().manual_seed(seed))
        assert segmentation_scores(whole[names][:, names]) == pytest.approx(got, rel=1e-12)


ONE = torch.tensor([[[1]]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusion_matrix(7 * ONE, ONE, 3), "truth holds 7: labels lie in 0 .. 2, or 255"),
        (lambda: confusion_matrix(ONE, -ONE, 3), "predicted holds -1: labels lie in 0 .. 2$"),
        (lambda: confusion_matrix(255 * ONE, ONE, 3, None), "truth holds 255: labels lie in 0 .. 2$"),
        (lambda: confusion_matrix(ONE, ONE[0], 3), "not equal"),
        (lambda: confusion_matrix(ONE.float(), ONE, 3), "truth is torch.float32"),
        (lambda: confusion_matrix(ONE, ONE, 3, 2), "ignore is 2, a class"),
        (lambda: confusion_matrix(ONE, ONE, 0), "n_classes is 0"),
        (lambda: segmentation_scores(torch.ones(2, 3, dtype=torch.long)), "must be square"),
        (lambda: segmentation_scores(torch.ones(2, 2)), "confusion is torch.float32"),
        (lambda: segmentation_scores(torch.zeros(2, 2, dtype=torch.long)), "all 0"),
        (lambda: segmentation_scores(torch.eye(2, dtype=torch.long), "nan"), "absent is 'nan'"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
