"""Scores of samples: pure functions on tensors, and over them torchmetrics classes that take images batch by batch.

"FID", "IS" and "KID" without a qualifier mean the 2015-12-05 TensorFlow Inception weights (`inception-v3-tf`) and
nothing else; `metric_name` writes the qualifier for every other extractor, as in FID[digits-cnn].
"""

from typing import TYPE_CHECKING, Any

from lib.checks import to_uint8
from lib.metrics.extractors import Extractor, Features, extract, extractor, metric_name
from lib.metrics.frechet import (
    frechet_distance,
    frechet_distance_at_infinity,
    frechet_distance_of_features,
    frechet_interval,
)
from lib.metrics.gaussian import GaussianStats, gaussian_stats
from lib.metrics.inception_score import inception_score
from lib.metrics.kernel_distance import kernel_distance, kernel_distance_over_subsets
from lib.metrics.modes import class_coverage, mode_coverage
from lib.metrics.neighbours import density_coverage, distance_ratio, nearest_neighbour, precision_recall
from lib.metrics.reference import reference_features, reference_stats
from lib.metrics.segmentation import confusion_matrix, segmentation_scores
from lib.metrics.two_sample import classifier_two_sample_test

if TYPE_CHECKING:
    from lib.metrics.streaming import (
        DensityCoverage,
        FrechetDistance,
        InceptionScore,
        KernelDistance,
        PrecisionRecall,
        SegmentationScore,
    )

_STREAMING = (
    "DensityCoverage",
    "FrechetDistance",
    "InceptionScore",
    "KernelDistance",
    "PrecisionRecall",
    "SegmentationScore",
)

__all__ = [
    "DensityCoverage",
    "Extractor",
    "Features",
    "FrechetDistance",
    "GaussianStats",
    "InceptionScore",
    "KernelDistance",
    "PrecisionRecall",
    "SegmentationScore",
    "class_coverage",
    "classifier_two_sample_test",
    "confusion_matrix",
    "density_coverage",
    "distance_ratio",
    "extract",
    "extractor",
    "frechet_distance",
    "frechet_distance_at_infinity",
    "frechet_distance_of_features",
    "frechet_interval",
    "gaussian_stats",
    "inception_score",
    "kernel_distance",
    "kernel_distance_over_subsets",
    "metric_name",
    "mode_coverage",
    "nearest_neighbour",
    "precision_recall",
    "reference_features",
    "reference_stats",
    "segmentation_scores",
    "to_uint8",
]


def __getattr__(name: str) -> Any:
    """The classes are imported when asked for: torchmetrics takes two seconds to import, the functions none."""
    if name in _STREAMING:
        from lib.metrics import streaming

        return getattr(streaming, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
