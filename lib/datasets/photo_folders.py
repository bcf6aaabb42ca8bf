"""What lies below DATA_ROOT/photos: which sets, which files, and the digest of a copy. No picture is decoded here.

A set is a folder NAME/{trainA,trainB,testA,testB} of images: a published one (data/registry.yaml lists them) or a
user's own. A folder of pairs side by side, NAME/train and NAME/val or NAME/test, is taken too: A is the left half of
each file and B the right.
"""

import contextlib
import difflib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from lib.datasets import registry
from lib.datasets.pictures import Part
from lib.datasets.registry import OF_THE_COPY
from lib.errors import UserError
from lib.files import sha256_of, write_atomically

Layout = Literal["unpaired", "paired"]

DOMAINS = ("trainA", "trainB", "testA", "testB")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


class Known(NamedTuple):
    """A published set, as data/registry.yaml has it."""

    name: str
    title: str
    home: str
    licence: str
    counts: tuple[int, int, int, int]  # images of DOMAINS in the archive
    bytes: int = 0  # of the archive NAME.zip, as its sha256
    sha256: str = ""
    mirrors: tuple[str, ...] = ()  # none: it is not handed out
    digests: Mapping[Layout, str] = MappingProxyType({})  # of the files, where a list of them is known


@dataclass(frozen=True)
class Copy:
    """The files of one set on this machine. Names are relative to the folder, with /, in the order of their bytes."""

    name: str
    folder: Path
    layout: Layout
    files: tuple[tuple[str, int, int], ...]  # name, bytes, time of the last change in ns
    left_out: tuple[str, ...]  # files that are no images by their names

    def domain(self, domain: str) -> list[tuple[Path, Part]]:
        """The pictures of one of DOMAINS: file, and which part of it."""
        names = [name for name, _, _ in self.files]
        if self.layout == "unpaired":
            return [(self.folder / name, "whole") for name in names if name.startswith(f"{domain}/")]
        half: Part = "left" if domain.endswith("A") else "right"
        wanted = domain.startswith("train")
        return [(self.folder / name, half) for name in names if name.startswith("train/") == wanted]


def known() -> Mapping[str, Known]:
    """The published sets, by name."""
    section = registry.content(registry.REGISTRY).get("photos", {"mirrors": [], "sets": {}})
    found = {}
    for name, fields in section["sets"].items():
        rest = dict(fields)
        archive = rest.pop("archive", {})
        own = rest.pop("mirrors", [])
        mirrors = tuple(f"{place}{name}.zip" for place in [*section["mirrors"], *own]) if archive else ()
        found[name] = Known(name, **{**rest, "counts": tuple(rest["counts"])}, **archive, mirrors=mirrors)
    return MappingProxyType(found)


def names(data_dir: Path | None = None) -> list[str]:
    """The sets that lie in the data root: every folder below photos/, whole or not (`load` says what is missing)."""
    try:
        return sorted(p.name for p in _home(data_dir).iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []


def digest(name: str, data_dir: Path | None = None) -> str:
    """SHA-256, in hex, of the copy in the data root; OF_THE_COPY where it is absent or not whole, which `load` tells.

    It is that of the lines `sha256sum` would print for the images in the order of their names, "<hex>  trainA/1.jpg".
    It is kept beside with the sizes and times of the files, so that a second call reads no image.
    """
    try:
        return copy_digest(find(name, data_dir))
    except UserError:
        return OF_THE_COPY


def find(name: str, data_dir: Path | None = None) -> Copy:
    """The files of a set, listed and not read. Raises UserError if it is absent or a domain is missing or empty."""
    folder = _home(data_dir) / name
    if not name or name.startswith(".") or Path(name).name != name or not folder.is_dir():
        raise UserError(_absence(name, folder, data_dir))
    there = [d for d in DOMAINS if (folder / d).is_dir()]
    rest = next((d for d in ("val", "test") if (folder / d).is_dir()), None)
    layout: Layout = "paired" if not there and rest and (folder / "train").is_dir() else "unpaired"
    wanted = DOMAINS if layout == "unpaired" else ("train", str(rest))
    for domain in wanted:
        if domain not in there and layout == "unpaired":
            state = "is a link that leads nowhere" if os.path.lexists(folder / domain) else "is missing"
            raise UserError(
                f"{folder / domain} {state}: a set has four folders of images, trainA and testA of one domain,"
                " trainB and testB of the other."
            )
    files, left_out = [], []
    for domain in wanted:
        found = [(path.relative_to(folder).as_posix(), status) for path, status in _below(folder / domain)]
        images = [(n, s.st_size, s.st_mtime_ns) for n, s in found if n.lower().endswith(EXTENSIONS)]
        others = sorted(n for n, _ in found if not n.lower().endswith(EXTENSIONS))
        if not images:
            held = f"only others, such as {others[0].rpartition('/')[2]}" if others else "nothing else either"
            raise UserError(
                f"{folder / domain} holds no images ({held}): put files there that end in {' '.join(EXTENSIONS)}."
            )
        files += images
        left_out += others
    return Copy(name, folder, layout, tuple(sorted(files, key=lambda f: os.fsencode(f[0]))), tuple(left_out))


def copy_digest(copy: Copy, read_again: bool = False) -> str:
    """See `digest`. read_again: whatever was kept. Raises UserError if a file cannot be read."""
    lines = "".join(f"{size} {changed} {name}\n" for name, size, changed in copy.files)
    state = hashlib.sha256(os.fsencode(lines)).hexdigest()
    place = prepared_folder(copy) / "digest.json"
    kept = record(place)
    if not read_again and kept.get("state") == state:
        return str(kept["digest"])
    try:
        text = "".join(f"{sha256_of(copy.folder / name)}  {name}\n" for name, _, _ in copy.files)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): mend or delete it.") from None
    found = hashlib.sha256(os.fsencode(text)).hexdigest()
    with contextlib.suppress(OSError):  # a root that cannot be written to: it is computed again next time
        write_atomically(place, json.dumps({"state": state, "digest": found}) + "\n")
    return found


def kept_digest(name: str, data_dir: Path | None = None) -> str:
    """The digest that the copy had when it was last read; OF_THE_COPY if it never was."""
    return str(record(_home(data_dir) / ".prepared" / name / "digest.json").get("digest", OF_THE_COPY))


def prepared_folder(copy: Copy) -> Path:
    """Where what was made of a copy lies, digest and arrays; it can be deleted at any time."""
    return copy.folder.parent / ".prepared" / copy.name


def record(path: Path) -> dict[str, object]:
    """A small JSON object; an empty one where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _home(data_dir: Path | None) -> Path:
    return registry.data_root(data_dir) / "photos"


def _absence(name: str, folder: Path, data_dir: Path | None) -> str:
    published = known()
    if name in published:
        start = f"{name} is not here: {folder} is missing."
        by_hand = f"put the folder there by hand (home: {published[name].home})"
        if not published[name].mirrors:
            return f"{start} It is not handed out: {by_hand}."
        if registry.offline():
            return f"{start} REGEN_OFFLINE forbids downloads: {by_hand}, or set REGEN_DATA to a folder that has it."
        return f"{start} Run {registry.fetch_command(name, registry.data_root(data_dir))}, or {by_hand}."
    here = names(data_dir)
    near = difflib.get_close_matches(name.lower(), [*here, *published], n=1, cutoff=0.6)
    guess = f" Did you mean {near[0]}?" if near else ""
    return (
        f"There are no photos called {name!r}.{guess} Put them into {folder.parent / '<name>'}, in folders"
        f" {', '.join(DOMAINS)}; there are {', '.join(here) or 'none yet'}."
    )


def _below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder, links followed; hidden ones are left out."""
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            inside = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): mend or remove it.") from None
    if (status.st_dev, status.st_ino) in above:
        raise UserError(f"{folder} is a link to a folder that it lies in, a circle: remove it.")
    for path in map(folder.joinpath, inside):
        try:
            found = path.stat()
        except OSError as error:
            raise UserError(
                f"{path} is a link that leads nowhere ({error.strerror}): remove it, or put the image there."
            ) from None
        if stat.S_ISDIR(found.st_mode):
            yield from _below(path, above | {(status.st_dev, status.st_ino)})
        elif stat.S_ISREG(found.st_mode):
            yield path, found
