"""data/registry.yaml, read; and where data lies on this machine."""

import difflib
import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lib
from lib.errors import UserError
from lib.files import read_yaml

OF_THE_COPY = "of-the-copy"  # in a digest's place: of a set that nobody here has held, each copy has its own
REGISTRY = Path(lib.__file__).resolve().parent.parent / "data" / "registry.yaml"


@dataclass(frozen=True)
class RegisteredFile:
    path: str  # below the data root
    sha256: str = ""  # none where the file is not pinned
    bytes: int = 0
    unpacked: str | None = None  # SHA-256 of the same file without .gz


@dataclass(frozen=True, eq=False)
class Entry:
    name: str
    title: str
    home: str
    licence: str
    images: tuple[int, int, int, int]  # (N, C, H, W)
    classes: int  # 0: no labels
    max_value: int
    splits: Mapping[str, range]
    digest: str
    files: tuple[RegisteredFile, ...]
    wheel: str | None = None
    mirrors: tuple[str, ...] = ()

    @property
    def pinned(self) -> bool:
        """Whether the registry says what the content must be; else the user's copy does."""
        return self.digest != OF_THE_COPY


def _entry(name: str, fields: dict[str, Any]) -> Entry:
    return Entry(
        name,
        **fields
        | {
            "images": tuple(fields["images"]),
            "splits": MappingProxyType({split: range(*ends) for split, ends in fields["splits"].items()}),
            "files": tuple(RegisteredFile(**file) for file in fields["files"]),
            "mirrors": tuple(fields.get("mirrors", ())),
        },
    )


@functools.cache
def content(registry: Path) -> Mapping[str, Any]:
    """A registry file as it stands: `datasets` is read here, `weights` by lib.metrics.weights."""
    try:
        return MappingProxyType(read_yaml(registry))
    except OSError as error:
        raise UserError(
            f"{registry} cannot be read ({error.strerror}): regen runs from a checkout, as `make` installs it"
        ) from None


@functools.cache
def entries(registry: Path) -> Mapping[str, Entry]:
    """Every data set of a registry file, in its order."""
    return MappingProxyType({name: _entry(name, fields) for name, fields in content(registry)["datasets"].items()})


def entry(name: str) -> Entry:
    known = entries(REGISTRY)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]}?" if close else ""
    raise UserError(f"There is no data set {name!r}.{guess} Known are {', '.join(known)}.")


def names() -> list[str]:
    return list(entries(REGISTRY))


def data_root(data_dir: Path | None = None) -> Path:
    """The argument; else REGEN_DATA; else `regen` in the user's cache folder (~/.cache on Linux)."""
    if data_dir is not None:
        return expanded(data_dir).resolve()
    if named := os.environ.get("REGEN_DATA"):
        return expanded(named).resolve()
    return _cache_folder() / "regen"


def expanded(path: str | Path) -> Path:
    """A path that a user gave, its ~ replaced. Raises UserError where ~ is nobody's here."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"Whose folder ~ is in {path} is not known here: write the path in full.") from None


def _cache_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or Path.home() / ".cache")


def offline() -> bool:
    """Whether REGEN_OFFLINE forbids every download."""
    return os.environ.get("REGEN_OFFLINE", "0").lower() not in ("", "0", "false", "no")


def fetch_command(name: str, root: Path) -> str:
    """What a user types to get a data set into `root`."""
    return f"`regen data fetch {name}" + ("`" if root == data_root() else f" --data-dir {root}`")
