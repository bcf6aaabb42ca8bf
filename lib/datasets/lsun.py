"""LSUN bedrooms at 64 x 64, from a user's own LMDB: DATA_ROOT/lsun/bedroom_train_lmdb, torchvision's layout.

The first IMAGES of it are prepared once into an array beside it, which is memory-mapped from then on; the LMDB may go.
Nobody here has held the 43 GB, and the pixels of a JPEG depend a little on the library that unpacks it. So no digest is
pinned: a copy gets its own when it is prepared, kept in a small .json beside the array.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from filelock import FileLock
from tqdm import tqdm

from lib.datasets.contents import Content, CorruptFile, MissingFile, content_digest
from lib.errors import UserError
from lib.files import write_atomically

if TYPE_CHECKING:
    from torchvision.datasets import LSUN

NAME = "lsun-bedroom"
CLASS = "bedroom_train"
LMDB = f"{CLASS}_lmdb"
IMAGES = 300_000  # of 3,033,042: 3.7 GB, and minutes to prepare
SIDE = 64
SECONDS_BETWEEN_LINES = 5.0


def locate(root: Path) -> list[Path]:
    """The prepared array; before there is one, the LMDB's folder."""
    prepared, lmdb_folder = _prepared(root / "lsun"), root / "lsun" / LMDB
    if _is_whole(prepared):
        return [prepared]
    if not lmdb_folder.is_dir():
        raise MissingFile(lmdb_folder)
    return [lmdb_folder]


def read(files: list[Path]) -> Content:
    """uint8 (IMAGES, 3, 64, 64) in the order of the LMDB's keys, memory-mapped; prepared first if it never was.

    Of the array only its size is checked here. Raises UserError (no package lmdb; an LMDB that is broken or too small).
    """
    (path,) = files
    if path.name == LMDB:
        path = _prepare(path)
    try:
        written = json.loads(_record(path).read_text())["bytes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(_record(path), f"is no record of a prepared copy ({error})") from error
    if (size := path.stat().st_size) != written:
        raise CorruptFile(path, f"is damaged: it holds {size:,} bytes where {written:,} were written")
    try:
        # "c": a tensor wants memory that can be written to; what is written stays in this process.
        return Content(np.load(path, mmap_mode="c"), None)
    except (OSError, ValueError) as error:
        raise CorruptFile(path, f"is no .npy file ({error})") from error


def kept_digest(root: Path) -> str | None:
    """The content digest that this machine's copy got when it was prepared; None if it never was."""
    try:
        return str(json.loads(_record(_prepared(root / "lsun")).read_text())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _prepare(lmdb_folder: Path) -> Path:
    """The array made of an LMDB, written aside and renamed; a second process waits for the first and takes its work."""
    prepared = _prepared(lmdb_folder.parent)
    try:
        with FileLock(prepared.with_suffix(".lock")):
            if not _is_whole(prepared):
                _write(lmdb_folder, prepared)
    except OSError as error:
        raise UserError(
            f"{prepared} could not be written: {error.strerror or error}. Free the disk or choose another REGEN_DATA."
        ) from None
    return prepared


def _write(lmdb_folder: Path, prepared: Path) -> None:
    aside = prepared.with_name(f"{prepared.name}.begun")
    header = {"descr": "|u1", "fortran_order": False, "shape": (IMAGES, 3, SIDE, SIDE)}
    try:
        with _opened(lmdb_folder) as source, aside.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for i in _counted(IMAGES):
                file.write(_pixels(source, i, lmdb_folder))
        digest = content_digest(Content(np.load(aside, mmap_mode="r"), None))
        record = {"digest": digest, "bytes": aside.stat().st_size, "pillow": PIL.__version__}
        _record(prepared).unlink(missing_ok=True)  # a kill between the next two lines must not leave an old digest
        os.replace(aside, prepared)
        write_atomically(_record(prepared), json.dumps(record, indent=2) + "\n")
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(lmdb_folder: Path) -> Iterator["LSUN"]:
    """torchvision's reader with the authors' Scale(64) and CenterCrop(64): PIL's bilinear, which is antialiased."""
    try:
        import lmdb
    except ImportError:
        raise UserError(
            f"{NAME} is read with the package lmdb, which is not installed: run `pip install lmdb`."
        ) from None
    from torchvision.datasets import LSUN
    from torchvision.transforms import CenterCrop, Compose, Resize

    print(f"{NAME}: listing the images of {lmdb_folder}", file=sys.stderr, flush=True)
    try:
        # torchvision keeps that list as a pickle in the working folder, under the letters of the path and no more, and
        # believes what lies there under this name: so it gets an empty working folder, for this moment only.
        with tempfile.TemporaryDirectory(dir=lmdb_folder.parent, prefix=".keys.") as empty, contextlib.chdir(empty):
            source = LSUN(str(lmdb_folder.parent), [CLASS], transform=Compose([Resize(SIDE), CenterCrop(SIDE)]))
    except lmdb.Error as error:
        raise UserError(f"{lmdb_folder} is damaged or no LMDB ({error}): get it again from where it came.") from error
    try:
        if len(source) < IMAGES:
            raise UserError(
                f"{lmdb_folder} holds {len(source):,} images, and {NAME} is the first {IMAGES:,}: get the whole of it."
            )
        yield source
    finally:
        for part in source.dbs:
            part.env.close()  # an LMDB must not be opened twice in one process


def _pixels(source: "LSUN", i: int, lmdb_folder: Path) -> bytes:
    try:
        image = np.asarray(source[i][0])  # (64, 64, 3)
    except Exception as error:  # PIL raises many kinds, some of them OSError
        raise UserError(
            f"Image {i:,} of {lmdb_folder} cannot be read ({error}): get the LMDB again from where it came."
        ) from error
    return image.transpose(2, 0, 1).tobytes()


def _counted(total: int) -> Iterator[int]:
    """0 .. total - 1: a bar on a terminal, elsewhere a line every few seconds."""
    lines = not sys.stderr.isatty()
    next_line = time.monotonic() + SECONDS_BETWEEN_LINES
    for i in tqdm(range(total), desc=NAME, unit=" images", disable=lines, leave=False):
        if lines and time.monotonic() >= next_line:
            next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            print(f"{NAME}: {i:,} of {total:,} images prepared", file=sys.stderr, flush=True)
        yield i


def _prepared(folder: Path) -> Path:
    return folder / f"{CLASS}_first_{IMAGES}_{SIDE}x{SIDE}.npy"


def _record(prepared: Path) -> Path:
    return prepared.with_suffix(".json")


def _is_whole(prepared: Path) -> bool:
    return prepared.is_file() and _record(prepared).is_file()
