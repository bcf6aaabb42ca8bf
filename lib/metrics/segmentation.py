"""Scores of label maps, as the pix2pix and CycleGAN papers use them on Cityscapes."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lib.checks import require_count


class SegmentationScores(NamedTuple):
    """See `segmentation_scores`: each in 0 .. 1, higher is better."""

    pixel_accuracy: float
    class_accuracy: float
    class_iou: float


def confusion_matrix(truth: Tensor, predicted: Tensor, n_classes: int, ignore: int | None = 255) -> Tensor:
    """Pixel counts by true class (row) and predicted class (column): (n_classes, n_classes) int64.

    truth, predicted: integers of one shape, such as (N, H, W), any device. Pixels whose truth is `ignore` are left
    out, whatever was predicted there; None leaves out none. Matrices of parts of a data set add up to that of the
    whole, so a set is scored by adding them. Raises ValueError for any other label outside 0 .. n_classes - 1 (the
    authors' fast_hist drops such a pixel where it is in truth; where it is in predicted, it counts the pixel as another
    pair of classes, or drops the whole image).
    """
    require_count("n_classes", n_classes, 1)
    for name, labels in (("truth", truth), ("predicted", predicted)):
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"{name} is {labels.dtype}: labels are integers")
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has the shape {tuple(truth.shape)} and predicted {tuple(predicted.shape)}: not equal")
    if ignore is not None and 0 <= ignore < n_classes:
        raise ValueError(f"ignore is {ignore}, a class: it must lie outside 0 .. {n_classes - 1}")
    truth, predicted = truth.flatten().long(), predicted.flatten().long()
    if ignore is not None:
        kept = truth != ignore
        truth, predicted = truth[kept], predicted[kept]
    for name, labels in (("truth", truth), ("predicted", predicted)):
        wrong = labels[(labels < 0) | (labels >= n_classes)]
        if len(wrong):
            also = "" if ignore is None or name == "predicted" else f", or {ignore} to be left out"
            raise ValueError(f"{name} holds {int(wrong[0])}: labels lie in 0 .. {n_classes - 1}{also}")
    return torch.bincount(n_classes * truth + predicted, minlength=n_classes**2).view(n_classes, n_classes)


def segmentation_scores(confusion: Tensor, absent: Literal["ignore", "zero"] = "ignore") -> SegmentationScores:
    """Pixel accuracy, mean class accuracy and mean class IoU; Long et al. 2015 (FCN), section 5.

    With n_ij pixels of class i predicted as j and t_i = sum_j n_ij: sum_i n_ii / sum_i t_i; the mean over i of
    n_ii / t_i; the mean over i of n_ii / (t_i + sum_j n_ji - n_ii). confusion: (C, C) counts from `confusion_matrix`,
    added up over the data set first: scores of single images must not be averaged instead.

    absent says what becomes of 0 / 0, that is of the accuracy of a class that is never true, and of the IoU of a class
    neither true nor predicted: "ignore" leaves it out of the mean; "zero" counts it as 0, as the pix2pix and CycleGAN
    scripts do (scripts/eval_cityscapes/util.py adds 1e-12 to each denominator). A class that is predicted but never
    true has IoU 0 either way. All in 0 .. 1, higher is better; n is the sum of the matrix, in pixels.
    Raises ValueError for what is no confusion matrix, or one without a pixel.
    """
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"confusion has the shape {tuple(confusion.shape)}: it must be square, (C, C)")
    if confusion.is_floating_point() or confusion.is_complex() or confusion.dtype == torch.bool:
        raise ValueError(f"confusion is {confusion.dtype}: it holds counts, integers")
    if absent not in ("ignore", "zero"):
        raise ValueError(f'absent is {absent!r}: it must be "ignore" or "zero"')
    if confusion.numel() == 0 or int(confusion.min()) < 0 or int(confusion.sum()) == 0:
        raise ValueError("confusion is empty, all 0 or has a negative entry: at least one pixel must have been counted")
    hits, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return SegmentationScores(
        (hits.sum().double() / confusion.sum()).item(),
        _mean_ratio(hits, true, absent),
        _mean_ratio(hits, true + predicted - hits, absent),
    )


def _mean_ratio(numerator: Tensor, denominator: Tensor, absent: str) -> float:
    ratio = numerator.double() / denominator.clamp_min(1)  # 0 / 0 becomes 0
    return ratio.mean().item() if absent == "zero" else ratio[denominator > 0].mean().item()
