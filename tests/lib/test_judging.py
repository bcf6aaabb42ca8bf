"""Verdicts from made-up outcomes: every kind of test, and every way of not being judged."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from lib import claims
from lib.claims import Outcomes, Verdict, judge
from lib.execution.runs import Failed, Finished, Run, history_csv
from lib.results import Score


@dataclass(frozen=True)
class Config:
    width: int = 1


def run(experiment: str, seed: int) -> Run:
    return Run("toy2000", experiment, "laptop", Config(), seed, {}, 1)


def seeds(experiment: str, *values: float, stderr: float = math.nan) -> list[tuple[Run, Finished]]:
    """One finished run a value, each with that value of the score `level`."""
    runs = [run(experiment, seed) for seed in range(len(values))]
    scores = [{"level": Score(value, stderr, "nats", True, 100, {})} for value in values]
    return [(r, Finished(r, Path("nowhere"), s, {}, {})) for r, s in zip(runs, scores, strict=True)]


def diverged(experiment: str, seed: int) -> tuple[Run, Failed]:
    r = run(experiment, seed)
    return r, Failed(r, Path("nowhere"), "The bound became nan", 7)


def claim(test: dict[str, Any], kind: str = "number", **fields: Any) -> dict[str, Any]:
    whole = {"id": "c", "where": "Table 1", "kind": kind, "statement": "s", "reported": {"value": 10, "unit": "nats"}}
    return {**whole, "presets": ["laptop"], "protocol": "p", "test": test, **fields}


def verdict(a_claim: dict[str, Any], outcomes: Outcomes, preset: str = "laptop") -> Verdict:
    return judge(a_claim, "toy2000", preset, outcomes)


class TestNumber:
    @pytest.mark.parametrize(
        ("values", "word"),
        [
            ((10.5,), "replicated"),
            ((9.5,), "replicated"),
            ((9.0, 10.0, 12.5), "replicated"),
            ((10.75,), "not replicated"),
            ((9.25,), "not replicated"),
        ],
    )
    def test_within(self, values: tuple[float, ...], word: str) -> None:
        got = verdict(claim({"score": "a.level", "within": 0.5}), seeds("a", *values))
        assert got.verdict == word
        assert f"{len(values)} seed" in got.why
        assert got.reported == "10 nats"

    @pytest.mark.parametrize("values", [(math.nan,), (9.0, math.nan, 10.0), (math.inf, 10.0, -math.inf)])
    def test_a_score_that_is_no_number_is_not_judged(self, values: tuple[float, ...]) -> None:
        got = verdict(claim({"score": "a.level", "within": 0.5}), seeds("a", *values))
        assert got.verdict == "not run"
        assert f"in {sum(not math.isfinite(value) for value in values)} of {len(values)} runs" in got.why

    def test_an_infinite_divergence_is_a_number(self) -> None:
        ranged = claim({"score": "a.level", "in_range": True}, reported={"range": [1000, math.inf]})
        assert verdict(ranged, seeds("a", math.inf, math.inf, math.inf)).verdict == "replicated"

    def test_the_measured_column_shows_mean_and_spread(self) -> None:
        got = verdict(claim({"score": "a.level", "within": 0.5}), seeds("a", 9.0, 10.0, 12.5))
        assert got.measured == "10.5 (sd 1.8)"  # 1.8028: divisor n - 1
        assert "|measured - reported| = 0.5, within the tolerance of 0.5; 3 seeds." in got.why

    def test_what_is_just_beyond_the_tolerance_does_not_read_like_it(self) -> None:
        got = verdict(claim({"score": "a.level", "within": 0.5}), seeds("a", 10.5025))
        assert "|measured - reported| = 0.5025, beyond the tolerance of 0.5; 1 seed." in got.why

    @pytest.mark.parametrize(
        ("n", "off", "word"),
        [(1, 0.79, "replicated"), (1, 0.81, "not replicated"), (4, 0.39, "replicated"), (4, -0.41, "not replicated")],
    )
    def test_within_standard_errors_of_the_mean_over_seeds(self, n: int, off: float, word: str) -> None:
        got = verdict(claim({"score": "a.level", "within_stderr": 4}), seeds("a", *[10 + off] * n, stderr=0.2))
        assert got.verdict == word

    def test_standard_errors_that_differ_add_in_squares(self) -> None:
        outcomes = [*seeds("a", 11.0, stderr=3.0), *seeds("a", 11.0, stderr=4.0)]
        got = verdict(claim({"score": "a.level", "within_stderr": 0.399}), outcomes)
        assert got.verdict == "not replicated"  # |1| against 0.399 * sqrt(9 + 16) / 2 = 0.9975
        assert verdict(claim({"score": "a.level", "within_stderr": 0.401}), outcomes).verdict == "replicated"

    def test_a_score_without_standard_error_is_not_judged_by_one(self) -> None:
        got = verdict(claim({"score": "a.level", "within_stderr": 4}), seeds("a", 10.0))
        assert got.verdict == "not run"
        assert "a.level has no standard error" in got.why

    @pytest.mark.parametrize(("value", "word"), [(-150, "replicated"), (-99, "not replicated"), (-125, "replicated")])
    def test_in_range(self, value: float, word: str) -> None:
        ranged = claim({"score": "a.level", "in_range": True}, reported={"range": [-150, -100], "unit": "nats"})
        got = verdict(ranged, seeds("a", value))
        assert got.verdict == word
        assert got.reported == "-150 to -100 nats"


LOW, MID, HIGH = (1.0, 1.1, 1.2), (2.0, 2.1, 2.2), (3.0, 3.1, 3.2)
VAGUE = (0.0, 2.1, 4.3)  # overlaps all three


def order(*names: str, margin: float = 0) -> dict[str, Any]:
    test = {"increasing": [f"{name}.level" for name in names], "margin": margin}
    return claim(test, "order", reported={"text": " < ".join(names)})


def levels(**values: Sequence[float]) -> list[tuple[Run, Finished]]:
    return [pair for name, level in values.items() for pair in seeds(name, *level)]


class TestOrder:
    @pytest.mark.parametrize(
        ("a", "b", "c", "word"),
        [
            (LOW, MID, HIGH, "replicated"),
            (LOW, HIGH, VAGUE, "partly"),
            (LOW, HIGH, MID, "partly"),
            (VAGUE, VAGUE, VAGUE, "not replicated"),
            (HIGH, MID, LOW, "not replicated"),
        ],
        ids=["all hold", "one undecided", "one opposite", "all undecided", "all opposite"],
    )
    def test_words(self, a: Sequence[float], b: Sequence[float], c: Sequence[float], word: str) -> None:
        assert verdict(order("a", "b", "c"), levels(a=a, b=b, c=c)).verdict == word

    def test_a_seed_that_is_no_number_leaves_an_order_unjudged(self) -> None:
        assert verdict(order("a", "b"), levels(a=LOW, b=(2.0, math.nan, 2.2))).verdict == "not run"

    def test_models_without_a_spread_leave_an_order_unjudged(self) -> None:
        pairs = [seeds(name, value)[0] for name, value in (("a", 1.0), ("b", 1.0001))]
        for _, finished in pairs:
            finished.scores["level"] = finished.scores["level"]._replace(n=5, protocol={"averaged_over": "models"})
        got = verdict(order("a", "b"), pairs)
        assert got.verdict == "not run"
        assert "no spread over its 5 models" in got.why

    def test_the_sentence_tells_undecided_from_opposite(self) -> None:
        assert verdict(order("a", "b"), levels(a=LOW, b=MID)).why.startswith("holds: b.level - a.level = 1 ")
        assert verdict(order("a", "b"), levels(a=VAGUE, b=MID)).why.startswith("undecided: b.level - a.level = ")
        assert verdict(order("a", "b"), levels(a=MID, b=LOW)).why.startswith("opposite: b.level - a.level = -1 ")

    def test_margin_is_what_the_difference_must_exceed(self) -> None:
        outcomes = levels(a=LOW, b=MID)  # one apart
        words = {m: verdict(order("a", "b", margin=m), outcomes).verdict for m in (-3, 0, 0.5, 1, 1.5)}
        held = {m for m, word in words.items() if word == "replicated"}
        assert held == {-3, 0, 0.5}
        assert verdict(order("b", "a", margin=-1.5), outcomes).verdict == "replicated"  # a is not below b by 1.5
        assert verdict(order("b", "a", margin=-0.5), outcomes).verdict == "not replicated"

    def test_one_seed_has_no_spread(self) -> None:
        got = verdict(order("a", "b"), levels(a=(1.0,), b=(2.0,)))
        assert got.verdict == "not run"
        assert "at least two seeds" in got.why

    @pytest.mark.parametrize(("shift", "word"), [(1.001, "replicated"), (0.999, "not replicated")])
    def test_a_constant_baseline_makes_a_one_sample_test(
        self, monkeypatch: pytest.MonkeyPatch, shift: float, word: str
    ) -> None:
        """The verdict turns exactly at scipy's p."""
        values = (0.9, 1.4, 1.2)
        p = scipy.stats.ttest_1samp(values, 0.8, alternative="greater").pvalue
        monkeypatch.setattr(claims, "SIGNIFICANCE", p * shift)
        assert verdict(order("base", "a"), levels(base=(0.8,), a=values)).verdict == word
        below = levels(a=tuple(-value for value in values), base=(-0.8,))
        assert verdict(order("a", "base"), below).verdict == word

    @pytest.mark.parametrize(("shift", "word"), [(1.001, "replicated"), (0.999, "not replicated")])
    def test_unequal_spreads_make_welchs_test(self, monkeypatch: pytest.MonkeyPatch, shift: float, word: str) -> None:
        low, high = (0.0, 0.1, 0.3, 0.2), (0.5, 2.5, 1.0)
        squares = [statistics.variance(values) / len(values) for values in (low, high)]
        t = (sum(high) / 3 - sum(low) / 4) / math.sqrt(sum(squares))
        degrees = sum(squares) ** 2 / (squares[0] ** 2 / 3 + squares[1] ** 2 / 2)  # Welch and Satterthwaite
        monkeypatch.setattr(claims, "SIGNIFICANCE", scipy.stats.t(degrees).sf(t) * shift)
        assert verdict(order("a", "b"), levels(a=low, b=high)).verdict == word

    @pytest.mark.parametrize(("n", "why"), [(3, "undecided"), (4, "holds")])
    def test_constants_on_both_sides_are_permuted(self, n: int, why: str) -> None:
        """All of n above all of n is one order of 20 where n is 3, and 5 % does not do; of 70 where it is 4."""
        up = verdict(order("a", "b"), levels(a=n * [0.0], b=n * [1.0]))
        assert up.why.startswith(f"{why}: b.level - a.level = 1 ")
        down = verdict(order("a", "b"), levels(a=n * [1.0], b=n * [0.0]))
        assert down.why.startswith(why.replace("holds", "opposite"))

    def test_equal_infinities_are_undecided(self) -> None:
        assert verdict(order("a", "b"), levels(a=4 * [math.inf], b=4 * [math.inf])).why.startswith("undecided")

    def test_measured_makes_no_inequality_of_what_is_none(self) -> None:
        assert verdict(order("a", "b"), levels(a=HIGH, b=LOW)).measured == "3.1 (sd 0.1); 1.1 (sd 0.1)"


class TestTrend:
    @pytest.fixture
    def curves(self, tmp_path: Path) -> Callable[..., list[tuple[Run, Finished]]]:
        def finished(*columns: Sequence[float]) -> list[tuple[Run, Finished]]:
            outcomes = []
            for seed, column in enumerate(columns):
                folder = tmp_path / str(seed)
                folder.mkdir()
                rows = [{"samples": 10.0**n, "level": value} for n, value in enumerate(column)]
                (folder / "history.csv").write_text(history_csv(rows))
                outcomes.append((run("a", seed), Finished(run("a", seed), folder, {}, {}, {})))
            return outcomes

        return finished

    TREND = claim(
        {"experiment": "a", "column": "level", "over": "samples", "spearman_at_least": 0.9},
        "trend",
        reported={"text": "rising"},
    )

    @pytest.mark.parametrize(
        ("columns", "word"),
        [
            (((1, 2, 3, 9), (-4, -3, -2, -1)), "replicated"),
            (((1, 2, 3, 9), (3, 1, 2, 0)), "partly"),
            (((4, 3, 2, 1),), "not replicated"),
            (((1, 3, 2, 4),), "not replicated"),  # 0.8
        ],
    )
    def test_words(self, curves: Callable[..., Outcomes], columns: Sequence[Sequence[float]], word: str) -> None:
        assert verdict(self.TREND, curves(*columns)).verdict == word

    def test_the_sentence_counts_seeds(self, curves: Callable[..., Outcomes]) -> None:
        got = verdict(self.TREND, curves((1, 2, 3, 9), (1, 3, 2, 4)))
        assert "reaches 0.9 in 1 of 2 seeds" in got.why
        assert got.measured == "1.000, 0.800"


class TestCurves:
    @pytest.fixture
    def curve(self, tmp_path: Path) -> Callable[..., tuple[Run, Finished]]:
        """One run: what each point's columns hold, as curve("a", {10: {"level": 1}}), and its seed."""

        def finished(experiment: str, points: dict[int, dict[str, float]], seed: int = 0) -> tuple[Run, Finished]:
            folder = tmp_path / f"{experiment}{seed}"
            folder.mkdir()
            (folder / "history.csv").write_text(history_csv([{"samples": at, **row} for at, row in points.items()]))
            return run(experiment, seed), Finished(run(experiment, seed), folder, {}, {}, {})

        return finished

    @staticmethod
    def plain(*values: float) -> dict[int, dict[str, float]]:
        return {10 ** (n + 1): {"level": value, "level_other": 99} for n, value in enumerate(values)}

    AHEAD = claim({"ahead": {"a": "b"}, "column": "level", "over": "samples", "since": 100}, "order")
    SOONER = claim({"sooner": {"a": "b"}, "column": "level", "over": "samples", "since": 10, "factor": 10}, "order")

    @pytest.mark.parametrize(
        ("ours", "theirs", "word"),
        [
            ((0, 2, 3), (5, 1, 2), "replicated"),  # the first point lies before `since`
            ((0, 2, 2), (0, 1, 2), "not replicated"),  # level is not ahead
            ((0, 2, 3, 1), (0, 1, 2), "replicated"),  # a point that only one has does not count
            ((9, 1, 3), (0, 2, 2), "not replicated"),
        ],
    )
    def test_ahead(self, curve: Any, ours: Sequence[float], theirs: Sequence[float], word: str) -> None:
        got = verdict(self.AHEAD, [curve("a", self.plain(*ours)), curve("b", self.plain(*theirs))])
        assert got.verdict == word

    def test_ahead_counts_points_and_pairs(self, curve: Any) -> None:
        two = claim({**self.AHEAD["test"], "ahead": {"a": "b", "c": "b"}})
        values = {"a": (0, 3, 4), "b": (0, 1, 2), "c": (0, 1, 5)}
        runs = [curve(name, self.plain(*each)) for name, each in values.items()]
        got = verdict(two, runs)
        assert (got.verdict, got.measured) == ("partly", "a 2 of 2, least lead 2; c 1 of 2, least lead 0")
        assert "in 1 of 2 pairs" in got.why

    def test_medians_over_seeds_and_over_models(self, curve: Any) -> None:
        models = {100: {"level": -1e9, "level_0": -4e9, "level_1": 1.0, "level_2": 2.0}}
        seeds_of_a = [curve("a", {100: {"level": value}}, seed) for seed, value in enumerate((-50.0, 1.5, 7.0))]
        got = verdict(self.AHEAD, [*seeds_of_a, curve("b", models)])
        assert (got.verdict, got.measured) == ("replicated", "a 1 of 1, least lead 0.5")

    @pytest.mark.parametrize("order", [(math.nan, 1.0, 2.0), (1.0, math.nan, 2.0), (2.0, 1.0, math.nan)])
    def test_a_model_that_is_no_number_is_below_all_others(self, curve: Any, order: Sequence[float]) -> None:
        models = {100: {f"level_{place}": value for place, value in enumerate(order)}}
        got = verdict(self.AHEAD, [curve("a", models), curve("b", self.plain(0, 0.5))])
        assert (got.verdict, got.measured) == ("replicated", "a 1 of 1, least lead 0.5")

    def test_a_lead_between_two_models_that_are_no_numbers_is_none(self, curve: Any) -> None:
        lost = {100: {"level": 2.0}, 1000: {"level": math.nan}}
        got = verdict(self.AHEAD, [curve("a", lost), curve("b", {100: {"level": 1.0}, 1000: {"level": math.nan}})])
        assert (got.verdict, got.measured) == ("not replicated", "a 1 of 2, least lead 0")

    @pytest.mark.parametrize("empty", ["a", "b"])
    def test_a_curve_that_ends_too_early_is_not_reached_by_an_error(self, curve: Any, empty: str) -> None:
        points = {name: {1: {"level": 1.0}} if name == empty else self.plain(0, 1) for name in "ab"}
        got = verdict(self.SOONER, [curve(name, points[name]) for name in "ab"])
        assert (got.verdict, got.why) == ("not run", f"Not run: the curve of {empty} has no point from 10 on.")

    def test_curves_without_a_shared_point_are_not_judged(self, curve: Any) -> None:
        got = verdict(self.AHEAD, [curve("a", {10: {"level": 1}, 100: {"level": 1}}), curve("b", {1000: {"level": 0}})])
        assert (got.verdict, got.why) == ("not run", "Not run: the curves of a and b share no point from 100 on.")

    @pytest.mark.parametrize(
        ("ours", "word", "measured"),
        [
            ((0, 5, 5, 5), "replicated", "a 10"),
            ((0, 4, 5, 5), "not replicated", "a 1"),
            ((5, 0, 0, 0), "replicated", "a ≥ 100"),  # there at its first point
            ((0, 0, 0, 4), "not replicated", "a not reached"),
            ((0, 0, 0, 6), "not replicated", "a 0.1"),
        ],
    )
    def test_sooner(self, curve: Any, ours: Sequence[float], word: str, measured: str) -> None:
        got = verdict(self.SOONER, [curve("a", self.plain(*ours)), curve("b", self.plain(0, 9, 5))])
        assert (got.verdict, got.measured) == (word, measured)

    def test_missing_and_diverged_runs(self, curve: Any) -> None:
        runs = [curve("a", self.plain(0, 3)), curve("b", self.plain(0, 1))]
        assert verdict(self.AHEAD, runs[:1]).why == "Not run: b is not computed."
        got = verdict(self.AHEAD, [*runs, diverged("b", 1)])
        assert (got.verdict, "b seed 1" in got.why) == ("partly", True)


class TestNotJudged:
    def test_until_is_not_run_at_any_preset(self) -> None:
        later = {key: value for key, value in claim({}).items() if key not in ("test", "presets", "protocol")}
        for preset in ("smoke", "paper"):
            got = verdict({**later, "until": "wake-sleep is not implemented yet"}, seeds("a", 10.0), preset)
            assert (got.verdict, got.why) == ("not run", "Not run: wake-sleep is not implemented yet.")
            assert got.measured == ""

    def test_an_unlisted_preset_is_not_comparable(self) -> None:
        number = claim({"score": "a.level", "within": 1})
        got = verdict(number, seeds("a", 10.0), "smoke")
        assert (got.verdict, got.preset) == ("not comparable", "smoke")
        assert got.why == "Not comparable: it is judged at laptop."
        told = verdict({**number, "not_comparable": "it has fewer images"}, seeds("a", 10.0), "smoke")
        assert told.why == "Not comparable: it has fewer images."

    @pytest.mark.parametrize(
        ("outcomes", "why"),
        [
            ([*seeds("a", 10.0), (run("a", 1), None)], "a lacks 1 of its 2 runs"),
            ([*seeds("a", 10.0), (run("a", 1), None), (run("a", 2), None)], "a lacks 2 of its 3 runs"),
            (seeds("b", 10.0), "a is not computed"),
            ([], "a is not computed"),
            ([diverged("a", 0), diverged("a", 1)], "every run of a diverged"),
        ],
    )
    def test_missing_runs(self, outcomes: Outcomes, why: str) -> None:
        got = verdict(claim({"score": "a.level", "within": 1}), outcomes)
        assert (got.verdict, got.why) == ("not run", f"Not run: {why}.")

    def test_a_missing_run_of_another_experiment_does_not_matter(self) -> None:
        outcomes = [*seeds("a", 10.0), (run("b", 0), None)]
        assert verdict(claim({"score": "a.level", "within": 1}), outcomes).verdict == "replicated"


class TestDivergedSeed:
    def test_caps_a_number_at_partly_and_is_named(self) -> None:
        outcomes = [*seeds("a", 10.0, 10.1), diverged("a", 2)]
        got = verdict(claim({"score": "a.level", "within": 1}), outcomes)
        assert got.verdict == "partly"
        assert "1 of its runs diverged (toy2000 laptop a seed 2)" in got.why

    @pytest.mark.parametrize("lost", ["a", "b"])
    def test_caps_an_order_whichever_side_it_is_on(self, lost: str) -> None:
        outcomes = [*levels(a=LOW, b=MID), diverged(lost, 3)]
        got = verdict(order("a", "b"), outcomes)
        assert got.verdict == "partly"
        assert f"{lost} seed 3" in got.why

    def test_does_not_lift_what_was_not_replicated(self) -> None:
        outcomes = [*seeds("a", 20.0), diverged("a", 1)]
        assert verdict(claim({"score": "a.level", "within": 1}), outcomes).verdict == "not replicated"

    def test_of_another_experiment_does_not_matter(self) -> None:
        outcomes = [*seeds("a", 10.0), diverged("b", 0)]
        assert verdict(claim({"score": "a.level", "within": 1}), outcomes).verdict == "replicated"
