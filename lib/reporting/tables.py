"""The tables every report has, as data frames of text: provenance, claims, verdicts, departures, runs."""

import dataclasses
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lib.claims import Reading, Verdict, reported_text
from lib.execution.runs import Failed, Finished, Run
from lib.reporting.markup import badge

# A sign stands before a digit, and not after a letter or digit, unless that is the e of an exponent.
_SIGN = re.compile(r"(?:(?<!\w)|(?<=\de))-(?=\.?\d|inf)")
_OF_A_NOTE = "the note says it: most often the paper is silent, or its code differs"


def number(value: float, digits: int = 1, spread: float = math.nan) -> str:
    """`-101.23, 1, 0.4` as `−101.2 ± 0.4`; a dash for nan."""
    if math.isnan(value):
        return "–"
    text = with_minus(f"{value:,.{digits}f}")
    return text if math.isnan(spread) else f"{text} ± {spread:,.{digits}f}"


def with_minus(text: str) -> str:
    """`text` with the minus sign before its numbers; the hyphens of names (aevb-nz3) and ranges stay."""
    return _SIGN.sub("−", text)


def reading(found: Sequence[Finished], score: str) -> Reading | None:
    """A finite score over the finished runs of one experiment; None where no run has it."""
    scores = [o.scores[score] for o in found if score in o.scores and math.isfinite(o.scores[score].value)]
    if not scores:
        return None
    return Reading(tuple(s.value for s in scores), tuple(s.stderr for s in scores), scores[0].unit)


def cell(found: Sequence[Finished], score: str, digits: int) -> str:
    """A score as mean ± standard deviation over runs; how many where not all have it, a dash where none has."""
    read = reading(found, score)
    if read is None:
        return "–"
    some = f" ({len(read.values)} of {len(found)})" if len(read.values) < len(found) else ""
    return number(read.mean, digits, read.spread) + some


def claims_table(document: Mapping[str, Any]) -> pd.DataFrame:
    """What the paper claims: one row a claim, as in claims.yaml."""
    rows = [
        {
            "claim": claim["id"],
            "in the paper": claim["where"],
            "kind": claim["kind"],
            "what is claimed": claim["statement"],
            "reported": reported_text(claim),
            "how it is judged here": claim.get("protocol") or f"not yet: {claim['until']}",
        }
        for claim in document["claims"]
    ]
    return pd.DataFrame(rows)


def verdicts_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The verdicts, claim by claim."""
    rows = [
        {
            "claim": v.claim,
            "verdict": badge(v.verdict),
            "reported": v.reported,
            "measured": with_minus(v.measured or "–"),
            "why": v.why,
        }
        for v in verdicts
    ]
    return pd.DataFrame(rows)


def config_table(config: Any) -> pd.DataFrame:
    """Every value of a config dataclass with the comment beside it in the source, which names where it is from."""
    source = inspect.getsource(type(config))
    rows = []
    for field in dataclasses.fields(config):
        comment = re.search(rf"^    {field.name}\b[^#\n]*#\s*(.*)$", source, re.MULTILINE)
        value = str(getattr(config, field.name))
        rows.append({"setting": field.name, "value": value, "source": comment[1] if comment else "no source given"})
    return pd.DataFrame(rows)


def departures_table(document: Mapping[str, Any]) -> pd.DataFrame:
    """Numbered deviations (where we leave the paper) and notes, which tell their reason in their text."""
    deviations = [
        {"number": d["id"], "what": d["what"], "why": d["why"], "expected effect": d["effect"]}
        for d in document["deviations"]
    ]
    notes = [
        {"number": n["id"], "what": n["what"], "why": _OF_A_NOTE, "expected effect": "–"} for n in document["notes"]
    ]
    return pd.DataFrame(deviations + notes)


def provenance_table(finished: Sequence[Finished]) -> pd.DataFrame:
    """What the numbers were made with; a value that differs between runs is listed with all its values."""
    rows: dict[str, set[str]] = {}
    for outcome in finished:
        record = outcome.record["provenance"]
        flat = {**{k: v for k, v in record.items() if k != "versions"}, **record["versions"]}
        flat |= {f"data {name}": digest for name, digest in outcome.provenance["data"].items()}
        for key, value in flat.items():
            if value is not None:
                rows.setdefault(key.replace("_", " "), set()).add(str(value))
    return pd.DataFrame([{"what": key, "value": "; ".join(sorted(values))} for key, values in rows.items()])


def runs_table(outcomes: Sequence[tuple[Run, Finished | Failed | None]]) -> pd.DataFrame:
    """Every planned run, the failed ones too: state, facts and the first twelve digits of its fingerprint."""
    rows = []
    for run, outcome in outcomes:
        facts = outcome.record["facts"] if isinstance(outcome, Finished) else {}
        rows.append(
            {
                "experiment": run.experiment,
                "seed": str(run.seed),
                "state": _state(outcome),
                "step size": f"{facts['learning_rate']:g}" if "learning_rate" in facts else "–",
                "parameters": _count(facts.get("parameters")),
                "fingerprint": run.fingerprint[:12],
            }
        )
    return pd.DataFrame(rows)


def _count(parameters: int | Mapping[str, int] | None) -> str:
    """Parameters of one network, or of several by name: summed."""
    if parameters is None:
        return "–"
    return f"{sum(parameters.values()) if isinstance(parameters, Mapping) else parameters:,}"


def _state(outcome: Finished | Failed | None) -> str:
    if outcome is None:
        return "not computed"
    return f"FAILED: {outcome.reason}" if isinstance(outcome, Failed) else "finished"
