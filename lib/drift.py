"""Drift: which scores of a fresh run left the published ones, by how much more than allowed, and the likely cause.

The same machine with the same versions gives the same bits. Elsewhere rounding grows through training, and a score may
move by its band, absolute + relative * |published value|. Bands stand in the `drift` section of claims.yaml: the first
key that is a shell pattern of experiment.score and fits (a key with a dot) wins, then the score's unit, then `default`.
"""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from lib.claims import Reading, experiments_of
from lib.execution.runs import Failed, Finished, Run
from lib.results import Score

Bands = Mapping[str, Mapping[str, float]]  # key of the band -> {absolute, relative}
ENVIRONMENT = {  # what in results.json decides a run's bits, besides its source and its plan, and how a person says it
    "device": "device",
    "device_type": "device type",
    "versions": "",
    "python": "Python",
    "platform": "platform",
    "cuda": "CUDA",
    "processor": "processor",
    "cpu_capability": "CPU capability",
    "threads": "threads",
    "deterministic_algorithms": "deterministic algorithms",
    "tf32": "TF32",
    "float32_matmul_precision": "float32 matmul precision",
    "processes": "processes",
    "begun_with": "begun with",
}


UNSAID = {  # what records that lack a key are taken to say
    "processes": 1,
    "processor": "not recorded",
    "begun_with": "the same",
}


CHANCE = 4  # standard errors; the bands of trained scores are as wide, six deviations of a seed: see claims.yaml


class Drift(NamedTuple):
    """One published score beside the fresh one, both in `unit`; new is None where the fresh run lacks it.

    distance: |new - old|, 0 for equal bits, inf where the two cannot be subtracted. band: the absolute move that other
    machines are allowed; allowed: what this one is, 0 where bits must be equal. cause: a phrase, empty for equal bits.
    """

    run: Run
    score: str
    unit: str
    old: float
    new: float | None
    distance: float
    band: float
    allowed: float
    cause: str
    stderrs: tuple[float, float] = (math.nan, math.nan)  # of old and new
    models: int = 0  # see Reading

    @property
    def moved(self) -> bool:
        return bool(self.cause)

    @property
    def drifted(self) -> bool:
        """Moved further than allowed. Where bits must be equal, -0.0 is not 0.0, though no distance lies between."""
        return self.moved and (self.allowed == 0 or self.distance > self.allowed)

    @property
    def excess(self) -> float:
        """The distance as a multiple of the band, by which the largest are told first, also where bits must agree."""
        return self.distance / self.band if self.band else math.inf

    def __str__(self) -> str:
        short = "{:.6g}".format
        same = self.new is not None and short(self.old) == short(self.new)
        digits = repr if same or self.allowed == 0 else short
        allowed = f"allowed {self.allowed:.2g}" if self.allowed else "allowed 0, as bits must be equal"
        now = "gone now" if self.new is None else f"{digits(self.new)} now, {allowed}"
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.run.name} {self.score}: {digits(self.old)} published, {now}{unit}. Likely cause: {self.cause}."


def compare(old: Finished | Failed | None, new: Finished | Failed | None, bands: Bands) -> list[Drift]:
    """Every published score beside the fresh one, in the published order; none where a side was not run.

    A score that the fresh run has not has drifted, and so has each if the fresh run failed. A score that is new has
    not, and a published failure has no scores. Values and standard errors must be equal to the bit if everything that
    decides bits is; else values must be within their bands, and standard errors may move.
    """
    if not isinstance(old, Finished) or new is None:
        return []
    if isinstance(new, Failed):
        reason = f"the run failed at step {new.step}: {new.reason.rstrip('.')}"
        return [_gone(new.run, name, score, bands, reason) for name, score in old.scores.items()]
    differences, exact = _differences(old, new), same_bits_expected(old, new)
    compared = []
    for name, was in old.scores.items():
        if name not in new.scores:
            compared.append(_gone(new.run, name, was, bands, _cause(differences, old, new)))
            continue
        now, band = new.scores[name], allowed_move(bands, new.run.experiment, name, was)
        label, pair = name, (was.value, now.value)
        if exact and _same_bits(*pair) and not _same_bits(was.stderr, now.stderr):
            label, pair = f"{name} (standard error)", (was.stderr, now.stderr)
        equal, unlike = _same_bits(*pair) and was.unit == now.unit, _unlike(was, now)
        distance = 0.0 if equal else abs(pair[1] - pair[0])
        if was.unit != now.unit or not math.isfinite(distance):
            distance = math.inf
        cause = "" if equal else _cause([*unlike, *differences], old, new)
        allowed = 0.0 if exact else band
        models = was.n if was.protocol.get("averaged_over") == "models" else 0
        stderrs = was.stderr, now.stderr
        compared.append(Drift(new.run, label, was.unit, *pair, distance, band, allowed, cause, stderrs, models))
    return compared


def _gone(run: Run, name: str, was: Score, bands: Bands, cause: str) -> Drift:
    band = allowed_move(bands, run.experiment, name, was)
    return Drift(run, name, was.unit, was.value, None, math.inf, band, band, cause)


def _same_bits(a: float, b: float) -> bool:
    return a.hex() == b.hex()  # so that nan equals nan, and -0.0 is not 0.0


def allowed_move(bands: Bands, experiment: str, name: str, score: Score) -> float:
    """The band of one score in its own unit: absolute + relative * |value|; without the second where that is inf."""
    fits = (band for key, band in bands.items() if fnmatchcase(f"{experiment}.{name}", key))
    band = next(fits, None) or bands.get(score.unit) or bands["default"]
    return band["absolute"] + (band["relative"] * abs(score.value) if math.isfinite(score.value) else 0)


def same_bits_expected(old: Finished, new: Finished) -> bool:
    """Whether both runs are the same run on the same kind of machine with the same versions."""
    before, now = old.record["provenance"], new.record["provenance"]
    same_run = old.record["fingerprint"] == new.record["fingerprint"]
    return same_run and all(_recorded(before, key) == _recorded(now, key) for key in ENVIRONMENT)


def _recorded(provenance: Mapping[str, Any], key: str) -> Any:
    return provenance.get(key, UNSAID.get(key))


def _differences(old: Finished, new: Finished) -> list[str]:
    """Everything recorded that differs and moves numbers, but the source: "torch 2.14.1 -> 2.15.0"."""
    before, now = old.provenance, new.provenance
    said = _changes("data", _short(before["data"]), _short(now["data"]))
    said += _changes("config", before["config"], now["config"])
    said += _changes("", *({"algorithm version": side["algorithm_version"]} for side in (before, now)))
    for key, label in ENVIRONMENT.items():
        sides = [_recorded(side.record["provenance"], key) for side in (old, new)]
        if label:
            sides = [{label: side} for side in sides]
        said += _changes("", *sides)
    return said


def _unlike(was: Score, now: Score) -> list[str]:
    said = _changes("", {"unit": was.unit, "n": was.n}, {"unit": now.unit, "n": now.n})
    return said + _changes("protocol", was.protocol, now.protocol)


def _changes(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    pairs = {name: (before.get(name, "absent"), now.get(name, "absent")) for name in {**before, **now}}
    return [f"{what} {name} {old} -> {new}".lstrip() for name, (old, new) in pairs.items() if old != new]


def _short(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest[:12] for name, digest in digests.items()}


def _cause(differences: Sequence[str], old: Finished, new: Finished) -> str:
    digests = [side.record["provenance"]["source_sha256"][:12] for side in (old, new)]
    if digests[0] == digests[1]:
        return ", ".join(differences) or "nothing recorded differs: a run that is not deterministic, or a changed file"
    if differences:
        return f"{', '.join(differences)}; the code changed too"
    commits = [str(side.provenance.get("commit"))[:12] for side in (old, new)]
    return f"the code changed: source_sha256 {' -> '.join(digests)}, commit {' -> '.join(commits)}"


def of_claim(test: Mapping[str, Any], compared: Sequence[Drift]) -> list[Drift]:
    """The scores that moved of those that a claim's test reads; where it reads curves, all of its experiments."""
    names = [*test.get("increasing", []), *([test["score"]] if "score" in test else [])]
    involved = experiments_of(test)
    return [
        drift
        for drift in compared
        if drift.moved
        and (f"{drift.run.experiment}.{drift.score}" in names if names else drift.run.experiment in involved)
    ]


def by_chance(of_score: Sequence[Drift]) -> bool:
    """Whether the mean of one score, given for each of its seeds, moved no further than two draws of it may lie apart.

    That is CHANCE standard errors of the difference, from the spreads over seeds or models. False where there is none.
    """
    found = [drift.new for drift in of_score if drift.new is not None]
    if not found or len(found) < len(of_score):
        return False
    unit, models = of_score[0].unit, of_score[0].models
    old = Reading(tuple(drift.old for drift in of_score), tuple(drift.stderrs[0] for drift in of_score), unit, models)
    new = Reading(tuple(found), tuple(drift.stderrs[1] for drift in of_score), unit, models)
    stderr = math.hypot(*(side.spread / math.sqrt(side.size) for side in (old, new)))
    return abs(new.mean - old.mean) <= CHANCE * stderr


def largest_first(compared: Sequence[Drift]) -> list[Drift]:
    """Sorted by the distance as a multiple of the band."""
    return sorted(compared, key=lambda drift: -drift.excess)
