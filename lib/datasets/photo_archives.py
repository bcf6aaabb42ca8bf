"""The published sets of photographs: `regen data list`, `fetch` and `verify` for what lies below DATA_ROOT/photos.

A download is used only if it has the registered SHA-256. A copy that a user brings is used whatever it is: for some
sets a list of the files' digests is known (lib/datasets/photo_lists), and `verify` compares with it and says what it
finds, but where the list came from is not proven, so a difference is a warning.
"""

import contextlib
import difflib
import os
import shutil
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lib.datasets import registry
from lib.datasets.download import fetch_file, require_online
from lib.datasets.loading import Status, Verification
from lib.datasets.photo_folders import (
    DOMAINS,
    EXTENSIONS,
    Copy,
    Known,
    copy_digest,
    find,
    kept_digest,
    known,
    names,
    prepared_folder,
    record,
)
from lib.datasets.photos import decoded
from lib.datasets.registry import OF_THE_COPY, RegisteredFile
from lib.errors import UserError
from lib.files import sha256_of

LISTS = Path(__file__).parent / "photo_lists"
LISTED_DIGITS = 8  # of each SHA-256 in a list: enough to tell which file is another; the registry has the whole digest


def status(data_dir: Path | None = None) -> list[Status]:
    """The published sets, then the user's own folders; nothing is read."""
    home, published, here = registry.data_root(data_dir) / "photos", known(), names(data_dir)
    found = []
    for name in [*published, *(name for name in here if name not in published)]:
        present = name in here
        digest = kept_digest(name, data_dir) if present else OF_THE_COPY
        if name in published:
            entry = published[name]
            title, place, licence = entry.title, entry.home, entry.licence
            counts = dict(zip(DOMAINS, entry.counts, strict=True))
        else:
            title, place, licence, counts = "a folder of yours", str(home / name), "yours to know", {}
        found.append(Status(name, title, place, licence, counts, present, home / name, digest, False))
    return found


def fetch(name: str, data_dir: Path | None = None, progress: bool = True) -> list[Path]:
    """Get a published set into the data root; returns its folder. One that is there and whole is kept.

    The archive is checked by SHA-256, unpacked aside and renamed into place, then deleted. One that a user has put at
    photos/NAME.zip is taken first, without a network.
    """
    published, root = known(), registry.data_root(data_dir)
    if name not in published:
        near = difflib.get_close_matches(name.lower(), published, n=1, cutoff=0.5)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"No photos {name!r} are known to fetch.{guess} There are {', '.join(published)}.")
    entry, folder = published[name], root / "photos" / name
    if os.path.lexists(folder):
        try:
            find(name, data_dir)
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}. Mend {folder}, or move it away and fetch again.") from None
        return [folder]
    if not entry.mirrors:
        find(name, data_dir)  # its sentence says where to get it by hand
    file = RegisteredFile(f"photos/{name}.zip", entry.sha256, entry.bytes)
    archive = root / file.path
    try:
        if not (archive.is_file() and sha256_of(archive) == file.sha256):
            require_online(name, [folder, archive])
            fetch_file(name, file, root, entry.mirrors, progress)
        if progress:
            print(f"{name}: unpacking {sum(entry.counts):,} images", file=sys.stderr, flush=True)
        unpack(archive, folder)
        archive.unlink()
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} could not be written: {error.strerror}."
            " Free the disk or choose another REGEN_DATA."
        ) from None
    find(name, data_dir)
    return [folder]


def unpack(archive: Path, folder: Path) -> None:
    """The images of NAME/{trainA,...} in a .zip, written beside `folder`, which is NAME, and renamed into its place.

    Raises UserError if the archive is damaged or a member would land elsewhere: an absolute name, "..", a link.
    """
    beside = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                path = _inside(member, archive)
                if member.is_dir() or path.parts[0] != folder.name or not path.name.lower().endswith(EXTENSIONS):
                    continue
                target = beside.joinpath(*path.parts[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
        if not beside.is_dir():
            raise UserError(f"{archive} holds no images below {folder.name}/: get it again.")
        os.replace(beside, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # RuntimeError: zipfile's word for an encrypted archive.
        raise UserError(f"{archive} is no sound .zip file ({error}): delete it and fetch again.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _inside(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """The name of a member, which stays below where it is unpacked."""
    path = PurePosixPath(member.filename)
    link = stat.S_ISLNK(member.external_attr >> 16)
    if (
        link
        or path.is_absolute()
        or not path.parts
        or ".." in path.parts
        or "\\" in member.filename
        or ":" in path.parts[0]
    ):
        what = "is a link" if link else "would be unpacked elsewhere"
        raise UserError(f"{archive} was not unpacked: its member {member.filename!r} {what}. Get it from its home.")
    return path


def verify(name: str, data_dir: Path | None = None) -> Verification:
    """Read and decode every image again, and compare with what was kept, published or listed."""
    try:
        copy = find(name, data_dir)
        kept = kept_digest(name, data_dir)
        times = record(prepared_folder(copy) / "digest.json").get("state")
        digest = copy_digest(copy, read_again=True)
        for _ in decoded(name, [(copy.folder / file, "whole") for file, _, _ in copy.files], 1):
            pass
    except UserError as error:
        return Verification(name, False, str(error))
    if kept not in (OF_THE_COPY, digest) and times == record(prepared_folder(copy) / "digest.json").get("state"):
        fault = f"digest {digest[:12]}, and when it was first read {kept[:12]}, though sizes and times are the same"
        return Verification(name, False, f"{copy.folder} has changed: {fault}. Get it again, or delete what is broken.")
    start = f"{name} is readable: {len(copy.files):,} images in {copy.folder}, digest {digest[:12]}"
    entry = known().get(name)
    if entry is None:
        return Verification(name, True, f"{start}, this copy's own.")
    return Verification(name, True, f"{start}{_compared(copy, entry, digest)}")


def _compared(copy: Copy, entry: Known, digest: str) -> str:
    """The end of a sentence: how a copy of a published set differs from what is known of it."""
    if copy.layout in entry.digests:
        if entry.digests[copy.layout] == digest:
            return ", which is that of the known list of its files."
        return f". Warning: {_differences(copy)}; where the list came from is not proven, so the copy is used as it is."
    counts = tuple(len(copy.domain(domain)) for domain in DOMAINS)
    if counts == entry.counts:
        return "; no list of its files is known, and its counts are the published ones."
    told = [f"{d} {c:,} for {p:,}" for d, c, p in zip(DOMAINS, counts, entry.counts, strict=True) if c != p]
    return f". Warning: its counts are not the published ones: {', '.join(told)}."


def _differences(copy: Copy) -> str:
    listed, here = dict(_listed(copy.name)), {name for name, _, _ in copy.files}
    other = [n for n in sorted(listed.keys() & here) if sha256_of(copy.folder / n)[:LISTED_DIGITS] != listed[n]]
    groups = {"other bytes than listed": other, "missing": sorted(listed.keys() - here),
              "not on the list": sorted(here - listed.keys())}  # fmt: skip
    told = [f"{what}: {len(files):,} (first {files[0]})" for what, files in groups.items() if files]
    return ", ".join(told) if told else "its files have other bytes than listed"


def _listed(name: str) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(FileNotFoundError):
        for line in (LISTS / f"{name}.txt").read_text().splitlines():
            if not line.startswith("#"):
                digits, _, file = line.partition("  ")
                yield file, digits
