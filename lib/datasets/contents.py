"""What a reader hands over, how its bytes are digested, and the two ways in which a reader fails."""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Content(NamedTuple):
    images: NDArray[np.uint8]  # (N, C, H, W)
    labels: NDArray[np.int64] | None  # (N,)


class MissingFile(Exception):
    """A file of a data set is not there; `path` is where it was looked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class CorruptFile(Exception):
    """A file is there and is not what it should be; `what` goes on from its name: "… is truncated"."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = path
        self.what = what


class MissingPackage(Exception):
    """The wheel that holds a data set is not installed."""


def content_digest(content: Content) -> str:
    """SHA-256, in hex, of what a training run can see of a data set, whatever file it was read from.

    Hashed are a line with dtype and shape, then the bytes, C order and little endian: images, then labels.
    """
    digest = hashlib.sha256()
    for kind, array in (("images", content.images), ("labels", content.labels)):
        if array is None:
            digest.update(f"{kind} none\n".encode())
            continue
        digest.update(f"{kind} {array.dtype.name} {'x'.join(map(str, array.shape))}\n".encode())
        little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(little_endian.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked if its name ends in .gz. Raises CorruptFile if they cannot be had."""
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as stream:
            return stream.read()
    except EOFError as error:
        raise CorruptFile(path, "is truncated: its gzip stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CorruptFile(path, f"is no sound gzip file ({error})") from error
    except OSError as error:
        raise CorruptFile(path, f"cannot be read ({error.strerror})") from error
