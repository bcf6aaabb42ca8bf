"""MNIST, complete, in torchvision's layout: DATA_ROOT/MNIST/raw, four IDX files, each unpacked or as .gz."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.datasets.contents import Content, CorruptFile, MissingFile, read_bytes

NAMES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")


def locate(root: Path) -> list[Path]:
    """The four files in the order of NAMES; an unpacked one is preferred, being faster to read."""
    folder = root / "MNIST" / "raw"
    found = []
    for name in NAMES:
        here = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if not here:
            raise MissingFile(folder / name)
        found.append(here[0])
    return found


def read(files: list[Path]) -> Content:
    """The 60,000 training digits, then the 10,000 test digits, in the official order."""
    train_images, test_images, train_labels, test_labels = (_read_idx(path) for path in files)
    images = np.concatenate([train_images, test_images])[:, None]  # (70000, 1, 28, 28)
    return Content(images, np.concatenate([train_labels, test_labels]).astype(np.int64))


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """IDX: two zero bytes, a type (8 is uint8), the number of axes, each length as big-endian int32, the values."""
    raw = read_bytes(path)
    axes = 3 if "idx3" in path.name else 1
    if raw[:4] != bytes([0, 0, 8, axes]):
        raise CorruptFile(path, f"is no IDX file of {axes} axes: it begins with {raw[:4].hex() or 'nothing'}")
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(raw[4:start].ljust(4 * axes, b"\0"), dtype=">i4").tolist())
    wanted = start + int(np.prod(shape, dtype=np.int64))
    if len(raw) != wanted:
        state = "is truncated" if len(raw) < wanted else "is too long"
        raise CorruptFile(path, f"{state}: it holds {len(raw):,} bytes where its header promises {wanted:,}")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
