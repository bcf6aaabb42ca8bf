"""The metrics batch by batch, as torchmetrics classes: update, compute, reset, and states that add up over processes.

Each takes images through the extractor it was made with or, without one, features (N, D) as they are. `score()`, or
`scores()` of those that compute several numbers, gives the value with its whole protocol.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from lib.checks import require_features, require_probabilities, require_same_protocol
from lib.metrics import gaussian
from lib.metrics.frechet import frechet_distance
from lib.metrics.gaussian import GaussianStats
from lib.metrics.inception_score import inception_score
from lib.metrics.kernel_distance import kernel_distance
from lib.metrics.neighbours import density_coverage, precision_recall
from lib.metrics.segmentation import confusion_matrix, segmentation_scores
from lib.results import Score

if TYPE_CHECKING:
    from lib.metrics.extractors import Extractor


class FrechetDistance(Metric):
    """The Frechet distance of real and generated images; "FID" with inception-v3-tf and under no other extractor.

    Give `extractor`, or `n_features` to pass features. `reference` stands for the real images, which then need not be
    passed. The state is one float64 vector a side, whatever the number of images. Move the metric with `.to(device)`;
    where a device has no float64 (Apple's), leave it on the CPU. Raises ValueError (see frechet_distance).
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    real: Tensor
    generated: Tensor

    def __init__(
        self,
        extractor: "Extractor | None" = None,
        n_features: int | None = None,
        reference: GaussianStats | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (extractor is None) == (n_features is None):
            raise ValueError("give either extractor, to pass images, or n_features, to pass features")
        self.extractor = extractor
        self.n_features = n_features if extractor is None else extractor.n_features
        if reference is not None:
            require_same_protocol(reference.protocol, _made_by(extractor))
        self.reference = reference
        for side in ("real", "generated"):
            self.add_state(side, gaussian.empty(self.n_features or 0), dist_reduce_fx=gaussian.join)

    def update(self, images: Tensor, real: bool) -> None:
        """Add images, uint8 (N, C, H, W) with an extractor, else features (N, D), to one of the two sides."""
        features = _features("images", images, self.extractor)
        if features.shape[1] != self.n_features:
            raise ValueError(f"images have {features.shape[1]} features: this metric was made for {self.n_features}")
        gaussian.update(self.real if real else self.generated, features)

    def compute(self) -> Tensor:
        """The distance, a float64 scalar >= 0."""
        return torch.tensor(frechet_distance(*self.statistics()), dtype=torch.float64)

    def statistics(self) -> tuple[GaussianStats, GaussianStats]:
        """Real and generated."""
        made_by = _made_by(self.extractor)
        real = gaussian.unpack(self.real, made_by) if self.reference is None else self.reference
        return real, gaussian.unpack(self.generated, made_by)

    def score(self) -> Score:
        """The value with its protocol; one reading, so without a standard error: see frechet_interval."""
        value = self.compute().item()
        with self.sync_context(self.dist_sync_fn, should_sync=self._to_sync):
            real, generated = self.statistics()
        rank = "rank-deficient" if real.rank_deficient or generated.rank_deficient else "full"
        protocol = {**(_made_by(self.extractor) or {}), "n_real": real.count, "covariance": rank}
        return Score(value, math.nan, "", False, generated.count, protocol)


class InceptionScore(Metric):
    """exp of the mean divergence of p(y|x) from p(y); "IS" with inception-v3-tf and under no other extractor.

    Without an extractor, pass class probabilities (N, K). `splits`, `seed` and the meaning of ±: see inception_score.
    Over processes the images are those of process 0, then of process 1, and so on, before the shuffle by `seed`.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    probabilities: list[Tensor]

    def __init__(
        self,
        extractor: "Extractor | None" = None,
        splits: int = 10,
        *,
        seed: int | None,
        spread: Literal["population", "sample"] = "population",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dist_sync_fn": _gathered, **kwargs})
        self.extractor, self.splits, self.seed, self.spread = extractor, splits, seed, spread
        self.add_state("probabilities", [], dist_reduce_fx="cat")

    def update(self, images: Tensor) -> None:
        """Add images, uint8 (N, C, H, W) with an extractor, else class probabilities (N, K)."""
        probabilities = images if self.extractor is None else self.extractor(images).probabilities
        require_probabilities("images" if self.extractor is None else "probabilities", probabilities)
        self.probabilities.append(probabilities)

    def compute(self) -> tuple[Tensor, Tensor]:
        """The score and its ±, float64 scalars."""
        found = inception_score(_whole(self.probabilities), self.splits, seed=self.seed, spread=self.spread)
        return _scalars(found.value, found.spread)

    def score(self) -> Score:
        """The value with its protocol. The ± between splits is no standard error; it stands in the protocol."""
        value, between = (each.item() for each in self.compute())
        protocol = {
            **(_made_by(self.extractor) or {}),
            "splits": self.splits,
            "seed": self.seed,
            "sd_over_splits": between,
            "sd_divisor": {"population": "n", "sample": "n - 1"}[self.spread],
        }
        with self.sync_context(self.dist_sync_fn, should_sync=self._to_sync):
            n = len(_whole(self.probabilities))
        return Score(value, math.nan, "", True, n, protocol)


class _TwoSets(Metric):
    """What the metrics that need every feature share: two lists, joined over processes in their order."""

    is_differentiable = False
    full_state_update = False
    real: list[Tensor]
    generated: list[Tensor]

    def __init__(self, extractor: "Extractor | None" = None, **kwargs: Any) -> None:
        super().__init__(**{"dist_sync_fn": _gathered, **kwargs})
        self.extractor = extractor
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, real: bool) -> None:
        """Add images, uint8 (N, C, H, W) with an extractor, else features (N, D), to one of the two sides."""
        (self.real if real else self.generated).append(_features("images", images, self.extractor))

    def _sides(self) -> tuple[Tensor, Tensor]:
        """All features of both sides, over all processes."""
        with self.sync_context(self.dist_sync_fn, should_sync=self._to_sync):
            return _whole(self.real), _whole(self.generated)

    def _protocol(self, **settings: Any) -> dict[str, Any]:
        return {**(_made_by(self.extractor) or {}), **settings}


class KernelDistance(_TwoSets):
    """The unbiased squared maximum mean discrepancy with a cubic kernel ("KID" with inception-v3-tf alone).

    All images are used; see kernel_distance for the kernel and the standard error. May come out below zero.
    """

    higher_is_better = False

    def compute(self) -> tuple[Tensor, Tensor]:
        """The distance and its standard error, float64 scalars."""
        found = kernel_distance(_whole(self.real), _whole(self.generated))
        return _scalars(found.value, found.stderr)

    def score(self) -> Score:
        """The value with its standard error and protocol."""
        found = kernel_distance(*self._sides())
        protocol = self._protocol(kernel="(x.y / D + 1)^3", n_real=found.n_x)
        return Score(found.value, found.stderr, "", False, found.n_y, protocol)


class PrecisionRecall(_TwoSets):
    """Share of generated images near real ones, and of real ones near generated; see precision_recall."""

    higher_is_better = True

    def __init__(self, extractor: "Extractor | None" = None, k: int = 3, **kwargs: Any) -> None:
        super().__init__(extractor, **kwargs)
        self.k = k

    def compute(self) -> tuple[Tensor, Tensor]:
        """Precision and recall, float64 scalars in 0 .. 1."""
        return _scalars(*precision_recall(_whole(self.real), _whole(self.generated), self.k))

    def scores(self) -> dict[str, Score]:
        """Both values by name with their protocol; one reading each, so without a standard error."""
        real, generated = self._sides()
        protocol = self._protocol(k=self.k, n_real=len(real))
        found = precision_recall(real, generated, self.k)._asdict()
        return {name: Score(value, math.nan, "", True, len(generated), protocol) for name, value in found.items()}


class DensityCoverage(_TwoSets):
    """Precision and recall made robust to outliers; see density_coverage."""

    higher_is_better = True

    def __init__(self, extractor: "Extractor | None" = None, k: int = 5, **kwargs: Any) -> None:
        super().__init__(extractor, **kwargs)
        self.k = k

    def compute(self) -> tuple[Tensor, Tensor]:
        """Density (>= 0, 1 for equal laws) and coverage (0 .. 1), float64 scalars."""
        return _scalars(*density_coverage(_whole(self.real), _whole(self.generated), self.k))

    def scores(self) -> dict[str, Score]:
        """Both values by name with their protocol; one reading each, so without a standard error."""
        real, generated = self._sides()
        protocol = self._protocol(k=self.k, n_real=len(real))
        found = density_coverage(real, generated, self.k)._asdict()
        return {name: Score(value, math.nan, "", True, len(generated), protocol) for name, value in found.items()}


class SegmentationScore(Metric):
    """Pixel accuracy, class accuracy and class IoU of label maps; see segmentation_scores."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    confusion: Tensor

    def __init__(
        self,
        n_classes: int,
        ignore: int | None = 255,
        absent: Literal["ignore", "zero"] = "ignore",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_classes, self.ignore, self.absent = n_classes, ignore, absent
        self.add_state("confusion", torch.zeros(n_classes, n_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, truth: Tensor, predicted: Tensor) -> None:
        """Add label maps, integers (N, H, W) each."""
        self.confusion += confusion_matrix(truth, predicted, self.n_classes, self.ignore)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pixel accuracy, class accuracy, class IoU: float64 scalars in 0 .. 1."""
        return _scalars(*segmentation_scores(self.confusion, self.absent))

    def scores(self) -> dict[str, Score]:
        """The three values by name with their protocol; n counts pixels, which are not independent of each other."""
        with self.sync_context(self.dist_sync_fn, should_sync=self._to_sync):
            found, n = segmentation_scores(self.confusion, self.absent), int(self.confusion.sum())
        protocol = {"classes": self.n_classes, "ignored label": self.ignore, "absent classes": self.absent}
        return {name: Score(value, math.nan, "", True, n, protocol) for name, value in found._asdict().items()}


def _gathered(rows: Tensor, group: Any = None) -> list[Tensor]:
    """The rows of every process. One that saw no image has none of a known width or type, and torchmetrics would wait
    for it for ever: it takes part with an empty table of float64, as all do."""
    table = rows.double() if rows.ndim == 2 else torch.empty(0, 1, dtype=torch.float64, device=rows.device)
    return [part if len(part) else part.new_empty(0) for part in gather_all_tensors(table, group)]


def _features(name: str, images: Tensor, extractor: "Extractor | None") -> Tensor:
    features = images if extractor is None else extractor(images).features
    require_features(name, features)
    return features


def _made_by(extractor: "Extractor | None") -> Mapping[str, Any] | None:
    return None if extractor is None else extractor.protocol


def _whole(state: list[Tensor] | Tensor) -> Tensor:
    """A list state is one tensor after a sync over processes. No images at all make a table of no rows."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.empty(0, 1)


def _scalars(*values: float) -> tuple[Any, ...]:
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)
