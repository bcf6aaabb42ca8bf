"""Frey Face: one man's face in 1,965 consecutive frames of a video, in a MATLAB file of 2001."""

from pathlib import Path

import numpy as np

from lib.datasets.contents import Content, CorruptFile, MissingFile


def locate(root: Path) -> list[Path]:
    path = root / "frey_face" / "frey_rawface.mat"
    if not path.is_file():
        raise MissingFile(path)
    return [path]


def read(files: list[Path]) -> Content:
    """The frames in time order, which the splits rely on: a random split would put near-copies of training frames,
    a thirtieth of a second away, into the test part."""
    from scipy.io import loadmat

    (path,) = files
    try:
        faces = loadmat(path, variable_names=["ff"])["ff"]  # (560, 1965)
    except Exception as error:  # scipy raises whatever its parser trips over: TypeError, zlib.error, MatReadError, ...
        raise CorruptFile(path, f"is truncated or no MATLAB file ({type(error).__name__}: {error})") from error
    if faces.dtype != np.uint8 or faces.ndim != 2 or len(faces) != 560:
        raise CorruptFile(path, f"holds `ff` as {faces.dtype} {faces.shape} where uint8 (560, N) is expected")
    return Content(np.ascontiguousarray(faces.T).reshape(-1, 1, 28, 20), None)
