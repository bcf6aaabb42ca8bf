"""Scores by what an image means: label maps and photographs by a segmenter, digits by classifiers, and so on."""

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lib import datasets
from lib.datasets import scenes
from lib.metrics import (
    classifier_two_sample_test,
    confusion_matrix,
    extract,
    extractor,
    kernel_distance,
    scenes_fcn,
    segmentation_scores,
)
from lib.metrics.quality import quality
from lib.results import Score, mean_score
from replications.cyclegan2017 import judge
from replications.cyclegan2017.config import AnchorsConfig, TranslationConfig
from replications.cyclegan2017.shapes import shape_scores

if TYPE_CHECKING:
    from replications.cyclegan2017.evaluate import Translations
    from replications.cyclegan2017.tasks import Loaded

Scores = dict[str, Score]
ABSENT: Literal["ignore", "zero"] = "zero"  # a class neither true nor read counts as 0, as in the authors' scripts
LABEL_READER: dict[str, Any] = {"reader": "nearest label colour"}
N_NEIGHBOURS = 3  # of the classifier of UCI's digits


def scores(
    config: TranslationConfig | AnchorsConfig, found: "Translations", loaded: "Loaded",
    protocol: Mapping[str, Any], seed: int,
) -> Scores:  # fmt: skip
    """The scores that belong to config.task."""
    if config.task == "scenes":
        assert loaded.truth_a is not None
        return scene_scores(found, loaded.truth_a, protocol, seed)
    if config.task == "paintings":
        return light_scores(found, protocol) | photo_scores(found, protocol, seed)
    if config.task == "digits":
        assert loaded.truth_a is not None
        assert loaded.truth_b is not None
        return digit_scores(found, loaded.truth_a, loaded.truth_b, protocol, seed)
    if config.task == "shapes":
        assert loaded.truth_a is not None
        assert loaded.truth_b is not None
        there = shape_scores(found.fake_b, loaded.truth_a, "a")
        back = shape_scores(found.fake_a, loaded.truth_b, "b")
        return {f"{key}_b": score for key, score in there.items()} | {f"{key}_a": score for key, score in back.items()}
    return picture_scores(found, protocol, seed)


def picture_scores(found: "Translations", protocol: Mapping[str, Any], seed: int) -> Scores:
    """fid, is, kid, precision and recall of either domain's translations by efficientnet-lite0, against test images."""
    # DEVIATION cyclegan2017-D61: not Inception's features. NOTE cyclegan2017-N63: against test images of the target.
    # NOTE cyclegan2017-N64: of the last step, not of the best one.
    out: Scores = {}
    for name, made, real in (("b", found.fake_b, found.b), ("a", found.fake_a, found.a)):
        scored, _ = quality(made, real, "cifar10", seed=seed, device=made.device, protocol=protocol)
        out |= {f"{key}_{name}": score for key, score in scored.items()}
    return out


def scene_scores(found: "Translations", truth: Tensor, protocol: Mapping[str, Any], seed: int) -> Scores:
    """Tables 2 to 5: photo_* of photographs made from labels, read by the segmenter; label_* of labels made from them.

    pixel, class, iou: accuracy by pixel and by class, class IoU, 0 .. 1. information: mutual information of true and
    read class over the entropy of the true one, 0 .. 1. Pixels of all places are counted together, so it is above 0
    also where the output does not depend on the input: the place tells something of the class, sky above, road below.
    """
    # DEVIATION cyclegan2017-D21: our segmenter in place of FCN-8s; NOTE cyclegan2017-N20: its ceiling is measured.
    # NOTE cyclegan2017-N23: absent classes as in the authors' script.
    read = {"photo": scenes_fcn.segment(found.fake_b, found.fake_b.device), "label": scenes.read_pictures(found.fake_a)}
    how = {"photo": dict(scenes_fcn.PROTOCOL), "label": LABEL_READER}
    out: Scores = {}
    for name, labels in read.items():
        made_by = {**protocol, **how[name], "absent classes": ABSENT}
        out |= {f"{name}_{key}": score for key, score in label_map_scores(truth, labels, made_by).items()}
    return out | photo_scores(found, protocol, seed)


def label_map_scores(truth: Tensor, labels: Tensor, protocol: Mapping[str, Any]) -> Scores:
    """pixel, class, iou and information of label maps against true ones, (N, H, W) both; stderr for pixel alone."""
    counts = confusion_matrix(truth, labels, len(scenes.CLASSES))
    all_of_it = segmentation_scores(counts, ABSENT)
    right = (truth == labels).flatten(1).float().mean(1)
    return {
        "pixel": mean_score(right, "share", True, protocol),
        "class": Score(all_of_it.class_accuracy, math.nan, "share", True, len(truth), protocol),
        "iou": Score(all_of_it.class_iou, math.nan, "share", True, len(truth), protocol),
        "information": Score(information(counts), math.nan, "share", True, len(truth), protocol),
    }


def information(counts: Tensor) -> float:
    """Mutual information of row and column over the entropy of the row, 0 .. 1: (C, C) counts."""
    joint = counts.double() / counts.sum()
    rows, columns = joint.sum(1, keepdim=True), joint.sum(0, keepdim=True)
    bits = (torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, rows * columns)).sum()
    return min(1.0, (bits / -torch.special.xlogy(rows, rows).sum()).item())  # rounding may pass 1


def photo_scores(found: "Translations", protocol: Mapping[str, Any], seed: int) -> Scores:
    """kid_b and two_sample_b of the made photographs against real test photographs, on the segmenter's features."""
    made, real = (scenes_fcn.features(images, images.device).double() for images in (found.fake_b, found.b))
    how = {**protocol, **scenes_fcn.PROTOCOL, "generated": len(made), "real": len(real)}
    scores = feature_scores(made, real, "b", how, seed)
    if found.fake_b.shape[-1] == judge.SIDE:
        scores["fooling_b"] = judge.fooling(found.fake_b, dict(protocol))
    return scores


def feature_scores(made: Tensor, real: Tensor, domain: str, protocol: Mapping[str, Any], seed: int) -> Scores:
    """kid_*: unbiased, lower is better. two_sample_*: held-out accuracy of a classifier, 1/2 is indistinguishable."""
    kid = kernel_distance(made, real)
    test = classifier_two_sample_test(made, real, seed=seed)
    return {
        f"kid_{domain}": Score(kid.value, kid.stderr, "kernel units", False, len(made),
                               {**protocol, "kernel": "(x.y / D + 1)^3, all pairs", "stderr": "jackknife"}),
        f"two_sample_{domain}": Score(test.accuracy, test.stderr, "share", False, test.n_test,
                                      {**protocol, "classifier": "logistic regression, held-out half"}),
    }  # fmt: skip


def light_scores(found: "Translations", protocol: Mapping[str, Any]) -> Scores:
    """Figure 9 as a number: shift_*, the distance of an output's mean colour from its input's, in grey levels."""
    return {
        f"shift_{name}": mean_score(_mean_colour(made).sub(_mean_colour(given)).norm(dim=1), "grey levels", False,
                                    {**protocol, "shift": "distance of mean colours, RGB levels 0 .. 255"})
        for name, given, made in (("b", found.a, found.fake_b), ("a", found.b, found.fake_a))
    }  # fmt: skip


def _mean_colour(images: Tensor) -> Tensor:
    return images.float().mean((2, 3))  # (N, 3)


def digit_scores(
    found: "Translations", truth_a: Tensor, truth_b: Tensor, protocol: Mapping[str, Any], seed: int
) -> Scores:
    """same_*: share of translations that a classifier of the target domain reads as the input's digit; FID and KID.

    MNIST by digits-cnn; UCI by its nearest neighbours among the training digits, whose labels no translator saw.
    """
    network = extractor("digits-cnn", device=found.a.device)
    as_mnist = extract(network, found.fake_a, 250).probabilities.argmax(1)
    as_uci = read_uci(found.fake_b)
    neighbours = {"reader": f"{N_NEIGHBOURS} nearest neighbours among UCI's training digits"}
    how: dict[str, Mapping[str, Any]] = {"a": network.protocol, "b": neighbours}
    out: Scores = {}
    for name, labels, truth in (("b", as_uci, truth_a), ("a", as_mnist, truth_b)):
        right = (labels.cpu() == truth.cpu()).float()
        made_by = {**protocol, **how[name]}
        told = information(confusion_matrix(truth.cpu(), labels.cpu(), 10))
        out[f"same_{name}"] = mean_score(right, "share", True, made_by)
        out[f"information_{name}"] = Score(told, math.nan, "share", True, len(truth), made_by)
    for name, made, real in (("b", found.fake_b, found.b), ("a", found.fake_a, found.a)):
        found_scores, _ = quality(made, real, "mnist-5k", seed=seed, device=made.device, protocol=protocol)
        out |= {f"{key}_{name}": found_scores[key] for key in ("fid", "kid") if key in found_scores}
    return out


@functools.cache
def _uci_reader() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = datasets.load("uci-digits").split("train")
    assert labels is not None
    return KNeighborsClassifier(N_NEIGHBOURS).fit(images.flatten(1).numpy() * (255 / 16), labels.numpy())


def read_uci(images: Tensor) -> Tensor:
    """The digit that UCI's nearest neighbours see: uint8 (N, 1, H, W), averaged to 8 x 8 -> (N,)."""
    small = torch.nn.functional.interpolate(images.float(), (8, 8), mode="bilinear", antialias=True)
    return torch.from_numpy(_uci_reader().predict(small.flatten(1).cpu().numpy()))
