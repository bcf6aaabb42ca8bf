"""What turns images into features: four networks, each with pinned weights and a protocol that travels with them."""

from pathlib import Path

import torch

from lib.metrics import scenes_fcn
from lib.metrics import weights as registered
from lib.metrics.extractors import digits_cnn, efficientnet_lite0, inception_v3_tf
from lib.metrics.extractors.extraction import Extractor, Features, extract, metric_name

__all__ = ["LOADERS", "Extractor", "Features", "extract", "extractor", "metric_name"]

LOADERS = {module.NAME: module.load for module in (digits_cnn, efficientnet_lite0, inception_v3_tf, scenes_fcn)}


def extractor(
    name: str, weights: Path | None = None, device: torch.device | str = "cpu", data_dir: Path | None = None
) -> Extractor:
    """One of `digits-cnn`, `efficientnet-lite0`, `inception-v3-tf`, `scenes-fcn`, in eval mode on `device`.

    Never downloads. weights: its file, where that is not at its registered place; the bytes must be the registered
    ones all the same.
    Raises UserError: no such extractor, weights absent or other, a package missing.
    """
    registered.entry(name)  # a wrong name is told with the known ones
    return LOADERS[name](weights, data_dir).to(device)
