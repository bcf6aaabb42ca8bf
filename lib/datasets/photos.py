"""Folders of photographs for unpaired translation, as tensors. What a folder must hold: lib/datasets/photo_folders.py.

Every file is decoded once per side length, by several threads, into a uint8 array; later runs map it into memory. The
arrays lie in DATA_ROOT/photos/.prepared, can be deleted at any time, and are made anew when a file of the set changes.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lib.datasets import loading
from lib.datasets.photo_folders import DOMAINS, Copy, copy_digest, digest, find, known, names, prepared_folder, record
from lib.datasets.pictures import Part, pixels
from lib.errors import UserError
from lib.files import write_atomically

__all__ = [
    "CIFAR10_CLASSES",
    "Photos",
    "cifar10_pair",
    "decoded",
    "digest",
    "known",
    "load",
    "names",
    "require",
    "require_batch",
]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SECONDS_BETWEEN_LINES = 5.0
AT_A_TIME = 64  # images in the hands of the threads: what is decoded and not yet written stays small


class Photos(NamedTuple):
    """Two domains of pictures that belong to no pairs (or are used as if they did not)."""

    train_a: Tensor  # (N, 3, S, S) uint8, as the others; N differs from one to the other
    train_b: Tensor
    test_a: Tensor  # of another S if so asked
    test_b: Tensor
    digest: str  # of the files they came from
    name: str


def load(name: str, side: int, data_dir: Path | None = None, test_side: int | None = None) -> Photos:
    """The four parts of a set as squares, resized as lib.datasets.pictures says; decoded first if they never were.

    side: pixels; test_side: of the test images, `side` if not given. (The published loaders make training images 286
    wide and crop 256 of them at random, which is the training loop's part, and test images 256 wide.)
    Raises UserError, which names the file or folder: an absent set, a missing or empty domain, a file that cannot be
    used, a full disk. Never downloads.
    """
    sides = {"train": side, "test": side if test_side is None else test_side}
    if min(sides.values()) < 1:
        raise ValueError(f"a side has at least one pixel, not {min(sides.values())}")
    copy = find(name, data_dir)
    digest = copy_digest(copy)
    parts: list[Tensor] = []
    for part, wide in sides.items():
        counts = [len(copy.domain(domain)) for domain in DOMAINS if domain.startswith(part)]
        images = torch.from_numpy(_prepared(copy, part, wide, digest))
        parts += images.split(counts)  # views: nothing is read before it is used
    return Photos(parts[0], parts[1], parts[2], parts[3], digest, name)


def cifar10_pair(a: str, b: str, data_dir: Path | None = None) -> Photos:
    """Two classes of CIFAR-10 as two domains, 32 x 32: its training images, and its first 1,000 test images."""
    for word in (a, b):
        if word not in CIFAR10_CLASSES:
            raise ValueError(f"CIFAR-10 has no class {word!r}: it has {', '.join(CIFAR10_CLASSES)}")
    data = loading.load("cifar10", data_dir)
    parts = []
    for split in ("train", "test"):
        images, labels = data.split(split)[0], data.labels_of(split)
        parts += [images[labels == CIFAR10_CLASSES.index(word)] for word in (a, b)]
    return Photos(parts[0], parts[1], parts[2], parts[3], data.digest, f"cifar10-{a}-{b}")


def require(name: str, data_dir: Path | None = None) -> str:
    """As `digest`, but raises UserError, which says what is missing and what to do, where that is OF_THE_COPY."""
    return copy_digest(find(name, data_dir))


def require_batch(photos: Photos, batch: int) -> None:
    """Raises UserError where a training domain has fewer images than a batch."""
    for domain, images in zip(DOMAINS[:2], photos[:2], strict=True):
        if len(images) < batch:
            raise UserError(
                f"{domain} of {photos.name} holds {len(images)} images, fewer than a batch of {batch}: add images to"
                " that folder, or take a smaller batch."
            )


def _prepared(copy: Copy, part: str, side: int, digest: str) -> NDArray[np.uint8]:
    """uint8 (N, 3, side, side), domain A, then B; a second process waits for the first and takes its work."""
    array = prepared_folder(copy) / f"{part}-{side}.npy"
    try:
        array.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(array.with_suffix(".lock")):
            if not _is_whole(array, digest):
                _write(copy, part, side, digest, array)
        # "c": a tensor wants memory that can be written to; what is written stays in this process.
        content: NDArray[np.uint8] = np.load(array, mmap_mode="c")
    except OSError as error:
        raise UserError(
            f"{array} could not be written: {error.strerror or error}. Free the disk or choose another REGEN_DATA."
        ) from None
    except ValueError as error:
        raise UserError(f"{array} is damaged ({error}): delete it, and it is made again.") from None
    return content


def _is_whole(array: Path, digest: str) -> bool:
    kept = record(array.with_suffix(".json"))
    return kept.get("digest") == digest and array.is_file() and array.stat().st_size == kept.get("bytes")


def _write(copy: Copy, part: str, side: int, digest: str, array: Path) -> None:
    pictures = [picture for domain in DOMAINS if domain.startswith(part) for picture in copy.domain(domain)]
    if copy.left_out and part == "train":  # told once
        print(
            f"{copy.name}: files that are no images by their names are left out: {len(copy.left_out):,}, such as"
            f" {copy.left_out[0]}",
            file=sys.stderr,
            flush=True,
        )
    aside = array.with_name(f"{array.name}.begun")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(pictures), 3, side, side)}
    try:
        with aside.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for picture in decoded(copy.name, pictures, side):
                file.write(picture.tobytes())
        made = {"digest": digest, "bytes": aside.stat().st_size, "pillow": PIL.__version__}
        array.with_suffix(".json").unlink(missing_ok=True)  # a kill between the next two lines leaves no old record
        os.replace(aside, array)
        write_atomically(array.with_suffix(".json"), json.dumps(made) + "\n")
    finally:
        aside.unlink(missing_ok=True)


def decoded(name: str, pictures: Sequence[tuple[Path, Part]], side: int) -> Iterator[NDArray[np.uint8]]:
    """The pixels of each, in order, decoded by as many threads as there are cores; says how far it is."""
    lines = not sys.stderr.isatty()
    next_line = time.monotonic() + SECONDS_BETWEEN_LINES
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(pictures), desc=name, unit=" images", disable=lines, leave=False) as bar,
    ):
        for start in range(0, len(pictures), AT_A_TIME):
            some = pictures[start : start + AT_A_TIME]
            yield from pool.map(lambda picture: pixels(picture[0], side, picture[1]), some)
            bar.update(len(some))
            if lines and time.monotonic() >= next_line:
                next_line = time.monotonic() + SECONDS_BETWEEN_LINES
                print(f"{name}: {start + len(some):,} of {len(pictures):,} images decoded", file=sys.stderr, flush=True)
