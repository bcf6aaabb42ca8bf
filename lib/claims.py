"""Claims of a paper as data, and their verdicts as computed from finished runs. No verdict is typed anywhere.

claims.yaml holds, for each claim: id, where, kind (number, order, trend, picture), statement, reported, protocol, and
either `test` with the `presets` it can be judged at, or `until`: why nothing judges it yet. Its `drift` holds the bands
within which a score may move between machines, of which lib.drift tells.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lib.execution.runs import Failed, Finished, Run
from lib.files import read_yaml

VERDICTS = ("replicated", "partly", "not replicated", "not comparable", "not run")
TESTS = (  # the forms a claim's test may have
    {"score", "within"},
    {"score", "within_stderr"},
    {"score", "in_range"},
    {"increasing", "margin"},
    {"experiment", "column", "over", "spearman_at_least"},
    {"ahead", "column", "over", "since"},
    {"sooner", "column", "over", "since", "factor"},
)
KINDS = ("number", "order", "trend", "picture")
SIGNIFICANCE = 0.025  # one-sided, of every order over seeds
Outcomes = Sequence[tuple[Run, Finished | Failed | None]]  # every planned run with what became of it
Word = Literal["replicated", "partly", "not replicated", "not comparable", "not run"]


class Verdict(NamedTuple):
    """One row of the claims table. why: one sentence."""

    paper: str
    claim: str
    kind: str
    preset: str
    reported: str
    measured: str
    verdict: Word
    why: str


class Reading(NamedTuple):
    """One score over the seeds that finished, one value and one standard error a seed.

    models: where one run trained that many models side by side and its value is their mean (the score's protocol says
    averaged_over: models), they are what the seeds are elsewhere; 0 otherwise.
    """

    values: tuple[float, ...]
    stderrs: tuple[float, ...]
    unit: str
    models: int = 0

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds or models, divisor n - 1; nan for one of them."""
        if self.models:
            return self.stderrs[0] * math.sqrt(self.models)
        if len(self.values) < 2:
            return math.nan
        # Of infinities all are the same, see read_score.
        return 0.0 if math.isinf(self.values[0]) else statistics.stdev(self.values)

    @property
    def size(self) -> int:
        """How many seeds or models the spread is over."""
        return self.models or len(self.values)

    @property
    def stderr(self) -> float:
        """Standard error of the mean where each seed drew its own sample (Monte Carlo checks), from the runs' own."""
        return math.hypot(*self.stderrs) / len(self.stderrs)

    def __str__(self) -> str:
        over = f" over {self.models} models" if self.models else ""
        return _short(self.mean) + ("" if math.isnan(self.spread) else f" (sd {self.spread:.2g}{over})")


class NotRun(Exception):
    """A score the claim needs is missing."""


def load_claims(path: Path) -> dict[str, Any]:
    """claims.yaml, checked. Raises ValueError naming the claim and what is wrong with it."""
    document: dict[str, Any] = read_yaml(path)
    seen = set()
    for claim in document["claims"]:
        name = claim.get("id", "a claim without id")
        if name in seen:
            raise ValueError(f"{path}: the id {name} stands twice")
        seen.add(name)
        missing = {"id", "where", "kind", "statement", "reported"} - claim.keys()
        if missing:
            raise ValueError(f"{path}: {name} lacks {sorted(missing)}")
        if claim["kind"] not in KINDS:
            raise ValueError(f"{path}: {name} is of kind {claim['kind']}, which is none of {KINDS}")
        if ("test" in claim) == ("until" in claim):
            raise ValueError(f"{path}: {name} needs either a test or `until`, why there is none")
        if "test" in claim and not {"presets", "protocol"} <= claim.keys():
            raise ValueError(f"{path}: {name} has a test but no presets or no protocol")
        if "test" in claim and set(claim["test"]) not in TESTS:
            raise ValueError(
                f"{path}: the test of {name} has {sorted(claim['test'])}, which is none of the known forms"
            )
    if "drift" in document:
        _check_bands(path, document["drift"])
    return document


def _check_bands(path: Path, bands: Mapping[Any, Any]) -> None:
    """The bands of lib.drift: a finite absolute above 0 (a published 0 has no relative band), and a relative."""
    if "default" not in bands:
        raise ValueError(f"{path}: drift lacks `default`, the band of what is not named")
    for key, band in bands.items():
        if not isinstance(key, str):
            raise ValueError(f"{path}: drift has the key {key!r}, which needs quotes to be the name of a unit")
        if "." not in key and set(key) & set("*?["):
            raise ValueError(f"{path}: drift has the pattern {key!r}, which needs the form experiment.score")
        sound = isinstance(band, dict) and set(band) == {"absolute", "relative"}
        if not sound or not 0 < band["absolute"] < math.inf or not 0 <= band["relative"] < math.inf:
            raise ValueError(
                f"{path}: drift of {key!r} needs a finite `absolute` above 0 and a `relative` of at least 0"
            )


def judge(claim: Mapping[str, Any], paper: str, preset: str, outcomes: Outcomes) -> Verdict:
    """The verdict on one claim from all planned runs of a preset."""

    def say(verdict: Word, why: str, measured: str = "") -> Verdict:
        return Verdict(paper, claim["id"], claim["kind"], preset, reported_text(claim), measured, verdict, why)

    if "until" in claim:
        return say("not run", f"Not run: {claim['until']}.")
    if preset not in claim["presets"]:
        reason = claim.get("not_comparable") or f"it is judged at {', '.join(claim['presets'])}"
        return say("not comparable", f"Not comparable: {reason}.")
    test = claim["test"]
    try:
        if "increasing" in test:
            word, why, measured = _judge_order(test, outcomes)
        elif "spearman_at_least" in test:
            word, why, measured = _judge_trend(test, outcomes)
        elif "ahead" in test:
            word, why, measured = _judge_ahead(test, outcomes)
        elif "sooner" in test:
            word, why, measured = _judge_sooner(test, outcomes)
        else:
            word, why, measured = _judge_number(claim, outcomes)
    except NotRun as missing:
        return say("not run", f"Not run: {missing}.")
    involved = experiments_of(test)
    lost = [run.name for run, outcome in outcomes if isinstance(outcome, Failed) and run.experiment in involved]
    if lost:
        word = "partly" if word == "replicated" else word
        why += f" {len(lost)} of its runs diverged ({'; '.join(lost)}), so it is at most partly replicated."
    return say(word, why, measured)


def _judge_number(claim: Mapping[str, Any], outcomes: Outcomes) -> tuple[Word, str, str]:
    test, reported = claim["test"], claim["reported"]
    reading = read_score(test["score"], outcomes)
    if test.get("in_range"):
        low, high = reported["range"]
        inside = low <= reading.mean <= high
        where = "inside" if inside else "outside"
        return _word(inside), f"The mean over {_seeds(reading)} is {where} the reported range.", str(reading)
    distance = abs(reading.mean - reported["value"])
    if "within" in test:
        allowed, rule = test["within"], f"{test['within']:g}"
    else:
        if math.isnan(reading.stderr):
            raise NotRun(f"{test['score']} has no standard error")
        allowed, rule = test["within_stderr"] * reading.stderr, f"{test['within_stderr']:g} standard errors"
    close = distance <= allowed
    compare = "within" if close else "beyond"
    digits = 2 if close or float(f"{distance:.2g}") > allowed else 6  # so that it does not read like the tolerance
    why = f"|measured - reported| = {distance:.{digits}g}, {compare} the tolerance of {rule}; {_seeds(reading)}."
    return _word(close), why, str(reading)


def _judge_order(test: Mapping[str, Any], outcomes: Outcomes) -> tuple[Word, str, str]:
    """Each score above the one before it by more than `margin`: Welch's t-test over seeds or models, one-sided."""
    names, margin = test["increasing"], test["margin"]
    readings = [read_score(name, outcomes) for name in names]
    held: list[str] = []
    undecided: list[str] = []
    broken: list[str] = []
    for (low_name, low), (high_name, high) in pairwise(zip(names, readings, strict=True)):
        pair = f"{high_name} - {low_name} = {high.mean - low.mean:.3g}"
        for name, reading in ((low_name, low), (high_name, high)):
            if len(reading.values) == 1 and _planned(name, outcomes) > 1:
                raise NotRun(f"one run of {name.split('.', 1)[0]} is left, which has no spread")
            if reading.models > 1 and math.isnan(reading.spread):
                raise NotRun(f"{name} has no spread over its {reading.models} models")
        p = _p_greater(high, low, margin)
        if math.isnan(p):
            raise NotRun("an order needs at least two seeds, for with one there is no spread")
        (held if p < SIGNIFICANCE else broken if p > 1 - SIGNIFICANCE else undecided).append(pair)
    measured = "; ".join(str(reading) for reading in readings)  # whether each is above the one before, `why` says
    rule = f"> {margin:g} at one-sided {SIGNIFICANCE:.1%} over {_seeds(readings[-1])}"
    parts = [
        f"{label}: {'; '.join(pairs)}"
        for label, pairs in (("holds", held), ("undecided", undecided), ("opposite", broken))
        if pairs
    ]
    word: Word = "replicated" if not undecided and not broken else "partly" if held else "not replicated"
    return word, f"{'. '.join(parts)} ({rule}).", measured


def _p_greater(high: Reading, low: Reading, margin: float) -> float:
    """p of high - low > margin by Welch's test; nan with one seed each.

    A side that does not vary (a baseline that draws nothing) is a constant, and the test is the one-sample test. Where
    neither does, Welch's test has no answer, and that of the permutations is taken: all of n above all of m is one of
    (n + m choose n) equally likely orders.
    """
    from scipy.stats import t, ttest_ind_from_stats  # here: 60 MB that workers, which judge nothing, can do without

    if high.size < 2 and low.size < 2:
        return math.nan
    difference = high.mean - (low.mean + margin)
    varying = [reading for reading in (high, low) if reading.size > 1 and reading.spread > 0]
    if difference == 0 or math.isnan(difference):  # nan: both are the same infinity
        return 0.5
    if not varying:
        least = 1 / math.comb(high.size + low.size, high.size)
        return least if difference > 0 else 1 - least
    if len(varying) == 1:
        (reading,) = varying
        return float(t.sf(difference / (reading.spread / math.sqrt(reading.size)), reading.size - 1))
    sides = (low.mean + difference, high.spread, high.size, low.mean, low.spread, low.size)
    return float(ttest_ind_from_stats(*sides, equal_var=False, alternative="greater").pvalue)


def _judge_trend(test: Mapping[str, Any], outcomes: Outcomes) -> tuple[Word, str, str]:
    from scipy.stats import spearmanr

    correlations = []
    for outcome in _finished(test["experiment"], outcomes):
        rows = outcome.history()
        correlations.append(float(spearmanr([r[test["over"]] for r in rows], [r[test["column"]] for r in rows])[0]))
    enough = [value >= test["spearman_at_least"] for value in correlations]
    word: Word = "replicated" if all(enough) else "partly" if any(enough) else "not replicated"
    why = f"Spearman's correlation reaches {test['spearman_at_least']:g} in {sum(enough)} of {len(enough)} seeds."
    return word, why, ", ".join(f"{value:.3f}" for value in correlations)


def _judge_ahead(test: Mapping[str, Any], outcomes: Outcomes) -> tuple[Word, str, str]:
    """Of each pair leader: rival, the leader's median curve above the rival's at every point both have from `since`."""
    held, parts = 0, []
    for leader, rival in test["ahead"].items():
        ours, theirs = (_median_curve(name, test, outcomes) for name in (leader, rival))
        shared = ours.keys() & theirs.keys()
        leads = [0.0 if ours[at] == theirs[at] else ours[at] - theirs[at] for at in shared]  # -inf is 0 ahead of -inf
        if not leads:
            raise NotRun(f"the curves of {leader} and {rival} share no point from {test['since']:,} on")
        held += min(leads) > 0
        parts.append(f"{leader} {sum(lead > 0 for lead in leads)} of {len(leads)}, least lead {min(leads):.3g}")
    why = f"Median curves; ahead at every shared point in {held} of {len(parts)} pairs."
    return _share(held, len(parts)), why, "; ".join(parts)


def _judge_sooner(test: Mapping[str, Any], outcomes: Outcomes) -> tuple[Word, str, str]:
    """Of each pair, the leader's median curve reaches the rival's last value at 1 / `factor` of the rival's end."""
    held, parts = 0, []
    for leader, rival in test["sooner"].items():
        ours, theirs = (_median_curve(name, test, outcomes) for name in (leader, rival))
        if not ours or not theirs:
            raise NotRun(f"the curve of {rival if ours else leader} has no point from {test['since']:,} on")
        end = max(theirs)
        there = [at for at, value in ours.items() if value >= theirs[end]]
        factor = end / min(there) if there else 0.0
        held += factor >= test["factor"]
        from_the_start = bool(there) and min(there) == min(ours)  # so it may have been there before
        parts.append(f"{leader} {'≥ ' if from_the_start else ''}{factor:.3g}" if there else f"{leader} not reached")
    why = f"Median curves; sooner by a factor of at least {test['factor']:g} in {held} of {len(parts)} pairs."
    return _share(held, len(parts)), why, "; ".join(parts)


def _median_curve(experiment: str, test: Mapping[str, Any], outcomes: Outcomes) -> dict[float, float]:
    """Point -> median over all models, from `since` on. A run of R models has columns `<column>_0` .. `_<R - 1>`.

    Medians, for one model that blew up would be the mean. One that is no number any more is below all others.
    """
    column, values = test["column"], dict[float, list[float]]()
    for outcome in _finished(experiment, outcomes):
        for row in outcome.history():
            models = [row[name] for name in row if name.removeprefix(f"{column}_").isdecimal()] or [row[column]]
            if row[test["over"]] >= test["since"]:
                values.setdefault(row[test["over"]], []).extend(models)
    return {
        at: statistics.median(-math.inf if math.isnan(value) else value for value in found)
        for at, found in values.items()
    }


def _share(held: int, of: int) -> Word:
    return "replicated" if held == of else "partly" if held else "not replicated"


def read_score(name: str, outcomes: Outcomes) -> Reading:
    """`experiment.score` over all finished seeds; the first dot divides the two.

    Raises NotRun if a planned run is missing, none finished, or one has no such score or none that is finite, but where
    all are the same infinity.
    """
    experiment, score = name.split(".", 1)
    finished = _finished(experiment, outcomes)
    scores = [outcome.scores[score] for outcome in finished if score in outcome.scores]
    if len(scores) < len(finished):
        some = f" in {len(finished) - len(scores)} of its {len(finished)} runs" if scores else ""
        raise NotRun(f"{experiment} has no score {score}{some}")
    lost = sum(not math.isfinite(found.value) for found in scores)
    if lost and {found.value for found in scores} not in ({math.inf}, {-math.inf}):  # a divergence may be infinite
        raise NotRun(f"{name} is no finite number in {lost} of {len(scores)} runs")
    batched = len(scores) == 1 and scores[0].protocol.get("averaged_over") == "models"
    models = scores[0].n if batched else 0
    return Reading(tuple(s.value for s in scores), tuple(s.stderr for s in scores), scores[0].unit, models)


def _finished(experiment: str, outcomes: Outcomes) -> list[Finished]:
    of_experiment = [outcome for run, outcome in outcomes if run.experiment == experiment]
    finished = [outcome for outcome in of_experiment if isinstance(outcome, Finished)]
    missing = of_experiment.count(None)
    if missing == len(of_experiment):
        raise NotRun(f"{experiment} is not computed")
    if missing:
        raise NotRun(f"{experiment} lacks {missing} of its {len(of_experiment)} runs")
    if not finished:
        raise NotRun(f"every run of {experiment} diverged")
    return finished


def _planned(name: str, outcomes: Outcomes) -> int:
    return sum(run.experiment == name.split(".", 1)[0] for run, _ in outcomes)


def experiments_of(test: Mapping[str, Any]) -> set[str]:
    """The experiments whose runs a claim's test reads."""
    if pairs := test.get("ahead") or test.get("sooner"):
        return {name for pair in pairs.items() for name in pair}
    names = test.get("increasing") or [test.get("score") or test["experiment"]]
    return {name.split(".", 1)[0] for name in names}


def _word(holds: bool) -> Word:
    return "replicated" if holds else "not replicated"


def _seeds(reading: Reading) -> str:
    if reading.models:
        return f"{reading.models} models"
    return f"{len(reading.values)} seed{'s' if len(reading.values) > 1 else ''}"


def _short(value: float) -> str:
    """Six significant digits, and all of a count: 7,837,699 parameters."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 and value == round(value) else f"{value:.6g}"


def reported_text(claim: Mapping[str, Any]) -> str:
    """What the paper reports, as one short text."""
    reported = claim["reported"]
    if "text" in reported:
        return str(reported["text"])
    unit = f" {reported['unit']}" if "unit" in reported else ""
    if "range" in reported:
        return f"{_short(reported['range'][0])} to {_short(reported['range'][1])}{unit}"
    return f"{_short(reported['value'])}{unit}"


def counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many claims got each word, in the fixed order, zeros included."""
    return {word: sum(verdict.verdict == word for verdict in verdicts) for word in VERDICTS}


def fallen(now: Sequence[Verdict], published: Sequence[Verdict]) -> list[tuple[Verdict, Verdict]]:
    """Pairs (published, now) of claims whose verdict fell: from replicated to partly or not, or from partly to not.

    A claim that can no longer be judged ("not run") fell too; one never published cannot fall.
    """
    rank = {"replicated": 2, "partly": 1}
    before = {(v.paper, v.claim, v.preset): v for v in published}
    pairs = [(before[key], v) for v in now if (key := (v.paper, v.claim, v.preset)) in before]
    return [(old, new) for old, new in pairs if rank.get(new.verdict, 0) < rank.get(old.verdict, 0)]
