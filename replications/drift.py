"""The drift gate of `regen verdicts`: fresh runs beside the published ones, and what is told of those that moved."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.claims import Verdict
from lib.drift import Drift, by_chance, compare, largest_first, of_claim
from lib.errors import UserError
from lib.execution.runs import Failed, Finished, Run, Store, damage
from lib.results import canonical_json, score_from_json
from replications.papers import Results, load

TOLD = 20  # scores at most, of a claim and of all the rest: who has more has one cause, and these name it


def with_published(results: Results, root: Path) -> list[Drift]:
    """Every published score of the runs that `results` holds, beside theirs.

    Raises UserError for a damaged folder, and for a paper whose claims.yaml states no bands.
    """
    bands = results.paper.document.get("drift")
    if bands is None:
        key = results.paper.key
        raise UserError(
            f"replications/{key}/claims.yaml has no `drift`: give its scores bands, as CONTRIBUTING.md says."
        )
    fresh = [(run, outcome) for run, outcome in results.outcomes if outcome is not None]
    old = published_outcomes([run for run, _ in fresh], Store(root, needs_weights=False))
    return [drift for before, (_, now) in zip(old, fresh, strict=True) for drift in compare(before, now, bands)]


def published_outcomes(runs: Sequence[Run], store: Store) -> list[Finished | Failed | None]:
    """What was published of each run: by fingerprint, else by experiment and seed at the same preset or config.

    For another digest of the data, config or algorithm version gives another fingerprint, and is a cause to be named.
    """
    found = store.read_all(runs)
    stale = [run for run, outcome in zip(runs, found, strict=True) if outcome is None]
    records: dict[Path, dict[str, Any]] = {}
    for paper in {run.paper for run in stale}:
        paths = sorted((store.root / "runs" / paper).glob("*/results.json"))
        records |= {path: json.loads(path.read_text()) for path in paths if "." not in path.parent.name}
    return [_older(run, records) if outcome is None else outcome for run, outcome in zip(runs, found, strict=True)]


def _older(run: Run, records: dict[Path, dict[str, Any]]) -> Finished | None:
    """The run of an older plan, which Store.read would look for under the fingerprint of today's."""
    name = (run.paper, run.experiment, run.seed)
    named = {path: r for path, r in records.items() if (r["paper"], r["experiment"], r["seed"]) == name}
    asked = canonical_json(dataclasses.asdict(run.config))
    alike = []
    for path, record in named.items():
        provenance = json.loads((path.parent / "run.json").read_text())
        at_preset, of_config = record["preset"] == run.preset, canonical_json(provenance["config"]) == asked
        if at_preset or of_config:  # a run that several presets share carries the name of one
            alike.append((not at_preset, path, record, provenance))
    if not alike:
        return None
    _, path, record, provenance = min(alike, key=lambda entry: entry[:2])
    if what := damage(path.parent, needs_weights=False):
        raise UserError(f"The published run {path.parent.name} is damaged ({what}): take it from git again.")
    scores = {score: score_from_json(value) for score, value in record["scores"].items()}
    return Finished(run, path.parent, scores, record, provenance)


def summary(compared: Sequence[Drift], preset: str) -> str:
    """One sentence: how many scores were compared, and how many have equal bits, are in their bands, or drifted."""
    if not compared:
        return f"Drift: no score was compared, for nothing that is computed here is published at the preset {preset}."
    equal = sum(not drift.moved for drift in compared)
    drifted = sum(drift.drifted for drift in compared)
    return (
        f"Drift: {len(compared):,} scores compared with the published ones: {equal:,} equal to the bit, "
        f"{len(compared) - equal - drifted:,} within their bands, {drifted:,} drifted."
    )


def complaints(fell: Sequence[tuple[Verdict, Verdict]], compared: Sequence[Drift]) -> tuple[list[str], list[str]]:
    """What the gate says: each verdict that fell with the scores of its test that moved, then every other drift.

    And apart, as no complaint, the verdicts that fell by moves that another kind of machine is allowed, for rounding
    decides where a mean lies near its limit: orders, and numbers that moved as another draw of the same models may. A
    number without spread, as of a closed form, is held to its tolerance.
    """
    said: list[str] = []
    allowed: list[str] = []
    told: list[Drift] = []
    for old, new in fell:
        fell_so = f"fell from {old.verdict} (published: {old.measured}) to {new.verdict}"
        sentence = f"{new.paper}/{new.claim} {fell_so}: {new.why}"
        test = next(c for c in load(new.paper).document["claims"] if c["id"] == new.claim).get("test", {})
        own = [drift for drift in compared if drift.run.paper == new.paper]
        involved = of_claim(test, own) if test else []
        near = "increasing" in test or ("score" in test and by_chance(_seeds_of(test["score"], own)))
        within = near and new.verdict != "not run" and bool(involved) and not any(d.drifted for d in involved)
        if within:
            sentence += " Not counted: its scores moved within their bands, on another machine."
        (allowed if within else said).extend([sentence, *_lines(involved, "    ")])
        told += largest_first(involved)[:TOLD]
    return said + _lines([drift for drift in compared if drift.drifted and drift not in told]), allowed


def _seeds_of(name: str, compared: Sequence[Drift]) -> list[Drift]:
    """experiment.score of every seed, moved or not."""
    return [drift for drift in compared if f"{drift.run.experiment}.{drift.score}" == name]


def _lines(drifts: Sequence[Drift], indent: str = "") -> list[str]:
    lines = [f"{indent}{drift}" for drift in largest_first(drifts)[:TOLD]]
    more = len(drifts) - len(lines)
    return lines + [f"{indent}and {more:,} more, which moved less."] * bool(more)
