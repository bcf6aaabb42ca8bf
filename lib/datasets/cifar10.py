"""CIFAR-10: the 50,000 training images and the FIRST 1,000 test images, in the official order.

Why 1,000: the project pins a digest only of bytes that it has held. Its machines could not download the official
archive, and the copy they had ends there. The other 9,000 of a full archive are left unread, so that the archive and
the .npz copy are the same data set with the same digest.
"""

import pickle
import tarfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.datasets.contents import Content, CorruptFile, MissingFile, read_bytes

TEST_IMAGES = 1_000
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
ARRAYS = ("train.npz", "test_first1000.npz")
ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"


def locate(root: Path) -> list[Path]:
    """The first of these that is whole: two .npz, six unpacked batches, the archive; torchvision's places count too."""
    home = root / "cifar10"
    choices = [[home / name for name in ARRAYS]]
    choices += [[place / FOLDER / name for name in BATCHES] for place in (home, root)]
    choices += [[place / ARCHIVE] for place in (home, root)]
    for files in choices:
        if all(path.is_file() for path in files):
            return files
    raise MissingFile(home / ARCHIVE)


def read(files: list[Path]) -> Content:
    if len(files) == len(ARRAYS):
        parts = [_read_npz(path) for path in files]
    elif len(files) == len(BATCHES):
        parts = [_read_batch(path, read_bytes(path)) for path in files]
    else:
        parts = _read_archive(files[0])
    images, labels = zip(*parts, strict=True)
    last_images, last_labels = images[-1][:TEST_IMAGES], labels[-1][:TEST_IMAGES]
    return Content(
        np.concatenate([*images[:-1], last_images]),  # (51000, 3, 32, 32)
        np.concatenate([*labels[:-1], last_labels]).astype(np.int64),
    )


def _read_npz(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptFile(path, f"is truncated or no .npz file of x and y ({error})") from error
    if x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3) or y.shape != x.shape[:1]:
        raise CorruptFile(path, f"holds x {x.dtype} {x.shape}, y {y.shape}, not uint8 (N, 32, 32, 3) and (N,)")
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y


def _read_archive(path: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """In the order in which the archive holds them: a jump back would unpack it from the start again."""
    found = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = Path(member.name).name
                stream = archive.extractfile(member) if name in BATCHES else None
                if stream is not None:
                    found[name] = _read_batch(path, stream.read())
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise CorruptFile(path, f"is truncated or no .tar.gz file ({error})") from error
    missing = [name for name in BATCHES if name not in found]
    if missing:
        raise CorruptFile(path, f"lacks {', '.join(missing)}")
    return [found[name] for name in BATCHES]


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # it lives in numpy.core or numpy._core, as the version has it
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """A pickle may call whatever it names. A CIFAR-10 batch names three things, all of NumPy: it gets no other."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which was refused") from None


def _read_batch(path: Path, raw: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        batch = _ArrayUnpickler(BytesIO(raw), encoding="bytes").load()
        x, y = batch[b"data"], np.array(batch[b"labels"], dtype=np.uint8)
        images = x.reshape(-1, 3, 32, 32)
    except Exception as error:  # a broken pickle can raise any exception at all
        raise CorruptFile(path, f"holds no CIFAR-10 batch ({error})") from error
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or len(images) != len(y):
        raise CorruptFile(path, "holds a batch that is not uint8 images, each with a label")
    return images, y
