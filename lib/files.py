"""Files: written whole or not at all, beside their place and then renamed into it; digests; YAML."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from lib.errors import UserError

# The parser in C, which PyYAML's wheels have, is several times as fast.
LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def write_atomically(path: Path, data: bytes | str) -> str:
    """Write `data` (text as UTF-8) to `path`, making its folder. Returns the SHA-256 of the bytes, in hex.

    A reader sees the old file or the new one, never half of one. Raises OSError (disk full, no permission), and then
    leaves nothing behind.
    """
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)  # mkstemp makes 0600: a page is to be read by others
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return hashlib.sha256(content).hexdigest()


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, in UTF-8; nothing but plain types."""
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, LOADER)


def read_json(path: Path) -> Any:
    """What a JSON file in UTF-8 holds. Raises UserError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{shown(path)} is damaged ({error}): take it from git again, or make it anew.") from None


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
