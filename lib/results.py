"""A measured number with everything needed to read it, and its way in and out of results.json."""

import json
import math
from collections.abc import Mapping
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
    """The inverse of score_to_json followed by JSON, where nan is null and an infinity is a string."""
    numbers = {name: math.nan if record[name] is None else float(record[name]) for name in ("value", "stderr")}
    return Score(**{**record, **numbers})
