"""A measured number with everything needed to read it, and its way in and out of results.json."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Score(NamedTuple):
    """One measured number of one run.

    stderr is the standard error of `value` over the n items it averages (divisor n - 1 in the variance), nan where
    the value is exact or a single reading; spread over seeds is computed where runs are compared, never here.
    protocol holds everything that moves the number: two scores of unlike protocol never share a column.
    """

    value: float
    stderr: float
    unit: str
    higher_is_better: bool
    n: int
    protocol: Mapping[str, Any]


def mean_score(values: "Tensor", unit: str, higher_is_better: bool, protocol: Mapping[str, Any]) -> Score:
    """The mean of per-image values (N,) with its standard error sd / sqrt(N), computed in float64."""
    values = values.double()
    stderr = (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan
    return Score(values.mean().item(), stderr, unit, higher_is_better, len(values), protocol)


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces, nan as null (JSON has no nan)."""
    return json.dumps(_without_nan(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def readable_json(value: object) -> str:
    """The same value for people: sorted keys, indented, ending in a newline."""
    return json.dumps(_without_nan(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def score_to_json(score: Score) -> dict[str, Any]:
    return dict(score._asdict(), protocol=dict(score.protocol))


def score_from_json(record: Mapping[str, Any]) -> Score:
    stderr = record["stderr"]
    return Score(**{**record, "stderr": math.nan if stderr is None else stderr})


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write beside `path`, flush to disk, rename into place: a reader sees the old file or the whole new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    with aside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
