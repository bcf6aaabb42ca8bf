"""What is computed once from a data set and then kept: the statistics, or the features, of one of its splits.

A kept file is found by what it was made from, never by a name that could come to mean something else: its key is the
SHA-256 of the data's digest, the split with its rows, and the extractor's protocol, in which the digest of the weights
stands. The version of torch is written into the file and is no part of the key: it moves features by rounding only.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.datasets import Dataset, data_root
from lib.metrics.extractors.extraction import Extractor, Features, extract
from lib.metrics.gaussian import GaussianStats, gaussian_stats
from lib.results import canonical_json
from lib.training.checkpoints import load_checkpoint, save_checkpoint


def reference_stats(
    dataset: Dataset, split: str, extractor: Extractor, *, cache: Path | None = None, batch_size: int = 50
) -> GaussianStats:
    """Mean and covariance, float64 on the CPU, of a split's features; from the cache if they are there and sound.

    cache: a folder, by default `statistics` in the data root. A damaged file is computed again and replaced; a cache
    that cannot be written costs a line on standard error and nothing else. Raises UserError (no such split) and
    ValueError (an image that the extractor does not take, or grey levels other than 0 .. 255).
    """

    def compute() -> dict[str, Tensor]:
        stats = gaussian_stats(extract(extractor, _images(dataset, split), batch_size).features)
        return {"mean": stats.mean, "cov": stats.cov, "count": torch.tensor(stats.count)}

    found = _cached("statistics", dataset, split, extractor, cache, compute)
    return GaussianStats(found["mean"], found["cov"], int(found["count"]), dict(extractor.protocol))


def reference_features(
    dataset: Dataset, split: str, extractor: Extractor, *, cache: Path | None = None, batch_size: int = 50
) -> Features:
    """Features and class probabilities of a split, for the metrics that no mean and covariance serve; kept likewise."""

    def compute() -> dict[str, Tensor]:
        return extract(extractor, _images(dataset, split), batch_size)._asdict()

    return Features(**_cached("features", dataset, split, extractor, cache, compute))


def reference_key(kind: str, dataset: Dataset, split: str, extractor: Extractor) -> dict[str, Any]:
    """Everything that decides the numbers of a kept file. kind: "statistics" or "features"."""
    dataset.split(split)  # a wrong name is told with the known ones
    rows = dataset.splits[split]
    return {
        "kind": kind,
        "data": dataset.digest,
        "split": split,
        "rows": [rows.start, rows.stop],
        "protocol": dict(extractor.protocol),
    }


def _images(dataset: Dataset, split: str) -> Tensor:
    if dataset.max_value != 255:
        raise ValueError(
            f"dataset is {dataset.name}, with grey levels 0 .. {dataset.max_value}: extractors take 0 .. 255"
        )
    return dataset.split(split)[0]


def _cached(
    kind: str,
    dataset: Dataset,
    split: str,
    extractor: Extractor,
    cache: Path | None,
    compute: Callable[[], Mapping[str, Tensor]],
) -> Mapping[str, Tensor]:
    key = reference_key(kind, dataset, split, extractor)
    name = hashlib.sha256(canonical_json(key).encode()).hexdigest()
    path = (data_root() / "statistics" if cache is None else cache) / f"{name}.safetensors"
    kept = load_checkpoint(path)  # None also for a file whose bytes are not those that were written
    if kept is not None and kept.state.get("key") == key:
        return kept.tensors
    tensors = compute()
    try:
        save_checkpoint(path, tensors, {"key": key, "torch": torch.__version__})
    except OSError as error:
        print(f"{path} could not be written ({error.strerror}): computed again next time", file=sys.stderr)
    return tensors
