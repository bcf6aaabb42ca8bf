"""Whether a file is the published figure or table that it is taken for; if not, what it is, or what differs.

Looked for in this order: the published bytes, another published exhibit, a former version in git's history. Only then
are the contents compared.
"""

import difflib
import hashlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib.errors import UserError
from lib.files import sha256_of, shown
from lib.reporting.differences import difference
from lib.reporting.exhibits import INDEX, read_exhibits, read_withheld


class Verification(NamedTuple):
    """ok: FILE is the published one, byte for byte. sentence: that, or what it is instead."""

    ok: bool
    sentence: str


class Published(NamedTuple):
    """One file of a published exhibit, and the digest that exhibits.json gives it."""

    exhibit: Mapping[str, Any]
    preset: str
    folder: Path  # of exhibits.json
    name: str  # below that folder
    digest: str

    @property
    def path(self) -> Path:
        return self.folder / self.name

    @property
    def told(self) -> str:
        return f"{shown(self.path)}, preset {self.preset}"


class Version(NamedTuple):
    """A file as of one commit; content None where the commit removed it."""

    commit: str
    date: str  # of the commit, YYYY-MM-DD
    content: bytes | None


def published_exhibits(root: Path, preset: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(preset, record) of every exhibit below `root`, of one preset if given, in order of identifier.

    Raises UserError if there is none.
    """
    presets = sorted(path.parent.parent.name for path in root.glob(f"*/figures/{INDEX}"))
    found = [(p, e) for p in presets if preset in (None, p) for e in read_exhibits(root / p / "figures")]
    if not found:
        folder = shown(root / (preset or "*") / "figures")
        others = f" There are figures of the presets {', '.join(presets)}." if preset and presets else ""
        raise UserError(
            f"No figures are in {folder}: `regen report` makes them, `regen publish` puts them there.{others}"
        )
    return sorted(found, key=lambda pair: (pair[1]["identifier"], pair[0]))


def records_of(identifier: str, root: Path, preset: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(preset, record) of one exhibit, of every preset that has it. Raises UserError for an unknown identifier."""
    exhibits = published_exhibits(root, preset)
    found = [(p, e) for p, e in exhibits if e["identifier"] == identifier]
    if found:
        return found
    elsewhere = [p for p, e in published_exhibits(root) if e["identifier"] == identifier]
    if elsewhere:
        raise UserError(
            f"{identifier} is not published at the preset {preset!r}: give --preset {' or '.join(elsewhere)}."
        )
    if withheld := [path.parent.name for path in root.glob("*/figures") if identifier in read_withheld(path)]:
        raise UserError(
            f"{identifier} shows images of a data set, which are not published: "
            f"`regen report {identifier.split('/')[0]} --preset {withheld[0]}` makes it, from the data."
        )
    near = difflib.get_close_matches(identifier, [e["identifier"] for _, e in exhibits], n=1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    raise UserError(f"There is no figure or table {identifier!r} in {shown(root)}{hint} `regen cite` lists them.")


def verify(file: Path, identifier: str, root: Path, preset: str | None = None) -> Verification:
    """Compare `file` with what is published below `root` as `identifier`, at any preset unless one is given.

    Raises UserError for an unknown identifier, a missing or unreadable file, and one that is in no format of the
    exhibit's.
    """
    records = records_of(identifier, root, preset)
    mine = [file_ for p, exhibit in records for file_ in _files(exhibit, p, root)]
    digest = _digest(file)
    if same := [f for f in mine if f.digest == digest]:
        for f in same:
            _content(f)  # what the index promises must lie there
        where = " and ".join(shown(f.path) for f in same)
        presets = " and ".join(dict.fromkeys(f.preset for f in same))
        word = "presets" if " and " in presets else "preset"
        return Verification(True, f"{file} is {where}, byte for byte (sha256 {digest}), {word} {presets}.")
    kind = records[0][1]["kind"]
    at = f" at the preset {preset}" if preset else ""
    no = f"{file} (sha256 {digest[:16]}…) is not the published {kind} {identifier}{at}"
    others = [f for p, exhibit in published_exhibits(root) for f in _files(exhibit, p, root)]
    if known := [f for f in others if f.digest == digest]:
        names = " and ".join(f"{f.exhibit['kind']} {f.exhibit['identifier']} ({f.told})" for f in known[:3])
        return Verification(False, f"{no}: it is the published {names}.")
    ending = file.suffix.lower()
    alike = [f for f in mine if Path(f.name).suffix == ending]
    if not alike:
        endings = ", ".join(sorted({Path(f.name).suffix for f in mine})) or "no file"
        raise UserError(f"{file} cannot be compared: {identifier} is published as {endings}. Give a file that ends so.")
    for f in alike:
        if said := _former(f, digest):
            return Verification(False, f"{no} but a former version of it: {said}")
    content = file.read_bytes()
    said = " ".join(f"Beside {f.told}: {difference(ending, str(file), content, _content(f))}" for f in alike)
    return Verification(False, f"{no}, nor a former version of it that git knows. {said}")


def _files(exhibit: Mapping[str, Any], preset: str, root: Path) -> list[Published]:
    folder = root / preset / "figures"
    return [Published(exhibit, preset, folder, name, digest) for name, digest in exhibit["files"].items()]


def _digest(file: Path) -> str:
    if not file.exists():
        raise UserError(f"There is no file {file}: give the path of the figure or table that is to be verified.")
    if not file.is_file():
        raise UserError(f"{file} is no file: give the path of the figure or table that is to be verified.")
    try:
        return sha256_of(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from None


def _content(published: Published) -> bytes:
    """The published bytes: from the folder or, if they were changed or lost there, from git."""
    path = published.path
    if path.is_file() and sha256_of(path) == published.digest:
        return path.read_bytes()
    for version in _history(published):
        if version.content is not None and hashlib.sha256(version.content).hexdigest() == published.digest:
            return version.content
    raise UserError(
        f"{shown(path)} does not have the digest that {INDEX} gives it, so nothing can be compared with it: "
        "restore reports/published, or publish the report again."
    )


def _former(published: Published, digest: str) -> str:
    """Since when and until when a file of this digest was published in the place of this one; empty if never."""
    newer: Version | None = None
    for version in _history(published):
        if version.content is not None and hashlib.sha256(version.content).hexdigest() == digest:
            since = f"{published.told}, as published by commit {version.commit[:12]} of {version.date}"
            if newer is None:
                return f"{since}; what replaces it is not committed yet."
            word = "removed" if newer.content is None else "replaced"
            return f"{since}, until commit {newer.commit[:12]} of {newer.date} {word} it."
        newer = version
    return ""


def _history(published: Published) -> Iterator[Version]:
    """The committed versions of a file, newest first; none where there is no git, or no checkout."""
    log = _git(["log", "--no-show-signature", "--format=%H %cs", "--", published.name], published.folder)
    for line in (log or b"").decode().splitlines():
        commit, date = line.split(" ")
        yield Version(commit, date, _git(["cat-file", "blob", f"{commit}:./{published.name}"], published.folder))


def _git(arguments: Sequence[str], folder: Path) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
