"""The data sets: uint8 tensors with a known digest, from a wheel or from the data root. `load` never downloads."""

from lib.datasets.contents import content_digest
from lib.datasets.download import fetch
from lib.datasets.loading import Dataset, Status, Verification, digest, load, status, verify
from lib.datasets.observation import OBSERVATION_MODELS, dynamic_binarisation, real_valued, static_binarisation
from lib.datasets.registry import OF_THE_COPY, data_root, names

__all__ = [
    "OBSERVATION_MODELS",
    "OF_THE_COPY",
    "Dataset",
    "Status",
    "Verification",
    "content_digest",
    "data_root",
    "digest",
    "dynamic_binarisation",
    "fetch",
    "load",
    "names",
    "real_valued",
    "static_binarisation",
    "status",
    "verify",
]
