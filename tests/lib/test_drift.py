"""Drift from made-up runs: what may move and how far, which bits may not, and that each cause is named."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib.claims import load_claims
from lib.drift import Drift, allowed_move, by_chance, compare, largest_first, of_claim, same_bits_expected
from lib.execution.runs import Failed, Finished, Run
from lib.results import Score

BANDS = {
    "a.tight_*": {"absolute": 1e-6, "relative": 0.0},
    "a.*": {"absolute": 0.5, "relative": 0.0},
    "nats": {"absolute": 1.0, "relative": 0.1},
    "default": {"absolute": 0.25, "relative": 0.0},
}
SOURCE = "f" * 64


@dataclass(frozen=True)
class Config:
    width: int = 1


RUN = Run("toy2000", "b", "laptop", Config(), 0, {}, 1)


def score(value: float, stderr: float = 0.125, unit: str = "nats", **protocol: Any) -> Score:
    return Score(value, stderr, unit, True, 100, protocol)


def finished(scores: dict[str, Score], plan: dict[str, Any] | None = None, **environment: Any) -> Finished:
    """A run with these scores; `plan` changes what run.json says of data, config or algorithm, the rest its machine."""
    planned = {"data": {"mnist": "0" * 64}, "config": {"width": 1}, "algorithm_version": 5, "commit": "c0ffee"}
    planned.update(plan or {})
    stable = {
        "source_sha256": SOURCE, "python": "3.11.7", "versions": {"numpy": "2.4.6", "torch": "2.14.1"}, "threads": 1,
        "platform": "Linux x86_64", "device": "AMD EPYC", "device_type": "cpu", "cuda": None, "tf32": False,
        "processor": "AuthenticAMD family 25 model 17",
        "cpu_capability": "AVX512", "deterministic_algorithms": True, "float32_matmul_precision": "highest",
        **environment,
    }  # fmt: skip
    identity = {key: planned[key] for key in ("data", "config", "algorithm_version")}
    record = {"fingerprint": repr(identity), "provenance": stable}
    return Finished(RUN, Path("nowhere"), scores, record, {**stable, **planned})


def only(old: Finished, new: Finished | Failed) -> Drift:
    (drift,) = compare(old, new, BANDS)
    return drift


ELSEWHERE = {"device": "Intel Xeon"}


class TestTheSameMachine:
    def test_equal_bits_are_no_drift(self) -> None:
        drift = only(finished({"x": score(-118.2)}), finished({"x": score(-118.2)}))
        assert (drift.moved, drift.drifted, drift.cause) == (False, False, "")

    @pytest.mark.parametrize("now", [math.nextafter(-118.2, 0), math.nextafter(-118.2, -200)])
    def test_a_last_bit_is_drift(self, now: float) -> None:
        drift = only(finished({"x": score(-118.2)}), finished({"x": score(now)}))
        assert drift.drifted
        assert drift.allowed == 0
        assert drift.band == pytest.approx(1 + 11.82)
        assert repr(now) in str(drift)

    def test_a_sign_of_zero_is_drift_and_nan_is_nan(self) -> None:
        assert only(finished({"x": score(0.0)}), finished({"x": score(-0.0)})).drifted
        assert not only(finished({"x": score(math.nan)}), finished({"x": score(math.nan)})).moved

    def test_a_standard_error_that_moved_is_drift_though_its_value_did_not(self) -> None:
        moved = finished({"x": score(3.0, math.nextafter(0.125, 1))})
        drift = only(finished({"x": score(3.0)}), moved)
        assert drift.drifted
        assert (drift.score, drift.old) == ("x (standard error)", 0.125)
        there = finished({"x": score(3.0, 0.25)}, **ELSEWHERE)
        assert not only(finished({"x": score(3.0)}), there).moved

    def test_needs_every_key_that_decides_bits_and_the_same_plan(self) -> None:
        old = finished({})
        assert same_bits_expected(old, finished({}, source_sha256="e" * 64))
        for key, other in {
            "device": "x", "device_type": "cuda", "versions": {"torch": "2.15.0"}, "cpu_capability": "AVX2",
            "processor": "AuthenticAMD family 26 model 2",
            "python": "3.12.0", "platform": "Darwin arm64", "threads": 2, "cuda": "12.8", "tf32": True,
            "deterministic_algorithms": False, "float32_matmul_precision": "high",
            "begun_with": [{"until_step": 7, "device": "NVIDIA H100 80GB HBM3"}],
        }.items():  # fmt: skip
            assert not same_bits_expected(old, finished({}, **{key: other})), key
        assert not same_bits_expected(old, finished({}, {"config": {"width": 2}}))


class TestAnotherMachine:
    @pytest.mark.parametrize(
        ("now", "drifted"),
        [(-100.0, False), (-89.01, False), (-110.99, False), (-88.99, True), (-111.01, True)],
    )
    def test_the_band_is_two_sided_and_ends_at_absolute_plus_relative(self, now: float, drifted: bool) -> None:
        drift = only(finished({"x": score(-100.0)}), finished({"x": score(now)}, **ELSEWHERE))
        assert drift.allowed == pytest.approx(1 + 0.1 * 100)
        assert drift.drifted == drifted
        assert drift.moved == (now != -100)

    @pytest.mark.parametrize("pair", [(1.0, math.nan), (math.nan, 1.0), (math.inf, 1.0), (math.inf, -math.inf)])
    def test_what_is_not_finite_is_in_no_band(self, pair: tuple[float, float]) -> None:
        old, now = pair
        assert only(finished({"x": score(old)}), finished({"x": score(now)}, **ELSEWHERE)).drifted

    def test_an_infinity_that_stays_is_equal(self) -> None:
        assert not only(finished({"x": score(math.inf)}), finished({"x": score(math.inf)}, **ELSEWHERE)).moved

    def test_another_unit_is_drift_whatever_the_number(self) -> None:
        drift = only(finished({"x": score(1.0)}), finished({"x": score(1.0, unit="bits")}, **ELSEWHERE))
        assert drift.drifted
        assert "unit nats -> bits" in drift.cause


@pytest.mark.parametrize(
    ("experiment", "name", "unit", "allowed"),
    [
        ("a", "tight_1", "nats", 1e-6),  # the first pattern wins over the second and over the unit
        ("a", "x", "nats", 0.5),
        ("ab", "x", "nats", 3.0),
        ("ab", "x", "share", 0.25),
        ("ab", "tight_1", "a.x", 0.25),
    ],
)
def test_a_pattern_wins_over_the_unit_and_the_unit_over_the_default(
    experiment: str, name: str, unit: str, allowed: float
) -> None:
    assert allowed_move(BANDS, experiment, name, score(20.0, unit=unit)) == allowed


class TestMissing:
    def test_a_score_that_is_gone_is_drift_and_a_new_one_is_not(self) -> None:
        drift = only(finished({"x": score(1.0)}), finished({"y": score(1.0)}))
        assert drift.drifted
        assert drift.new is None
        assert "x: 1 published, gone now (nats)" in str(drift)

    def test_a_run_that_fails_now_loses_each_score(self) -> None:
        failed = Failed(RUN, Path("nowhere"), "The bound became nan.", 7)
        drifts = compare(finished({"x": score(1.0), "y": score(2.0)}), failed, BANDS)
        assert [drift.score for drift in drifts if drift.drifted] == ["x", "y"]
        assert drifts[0].cause == "the run failed at step 7: The bound became nan"

    def test_what_was_not_run_on_one_side_is_not_compared(self) -> None:
        whole = finished({"x": score(1.0)})
        assert compare(whole, None, BANDS) == compare(None, whole, BANDS) == []
        assert compare(Failed(RUN, Path("nowhere"), "nan", 7), whole, BANDS) == []


@pytest.mark.parametrize(
    ("new", "cause"),
    [
        ({"plan": {"data": {"mnist": "1" * 64}}}, "data mnist 000000000000 -> 111111111111"),
        ({"plan": {"data": {"mnist": "0" * 64, "frey": "2" * 64}}}, "data frey absent -> 222222222222"),
        ({"plan": {"config": {"width": 2}}}, "config width 1 -> 2"),
        ({"plan": {"algorithm_version": 6}}, "algorithm version 5 -> 6"),
        ({"versions": {"numpy": "2.4.6", "torch": "2.15.0"}}, "torch 2.14.1 -> 2.15.0"),
        ({"python": "3.12.3"}, "Python 3.11.7 -> 3.12.3"),
        ({"device": "Intel Xeon"}, "device AMD EPYC -> Intel Xeon"),
        ({"processor": "x"}, "processor AuthenticAMD family 25 model 17 -> x"),
        ({"cpu_capability": "AVX2"}, "CPU capability AVX512 -> AVX2"),
        ({"threads": 2}, "threads 1 -> 2"),
        ({"processes": 2}, "processes 1 -> 2"),
        ({"cuda": "12.8", "device_type": "cuda"}, "device type cpu -> cuda, CUDA None -> 12.8"),
        (
            {"source_sha256": "e" * 64, "plan": {"commit": "decade"}},
            "the code changed: source_sha256 ffffffffffff -> eeeeeeeeeeee, commit c0ffee -> decade",
        ),
        ({"source_sha256": "e" * 64, "threads": 2}, "threads 1 -> 2; the code changed too"),
        ({}, "nothing recorded differs: a run that is not deterministic, or a changed file"),
        ({"python": "3.12.3", "threads": 2}, "Python 3.11.7 -> 3.12.3, threads 1 -> 2"),
    ],
)
def test_every_cause_is_named_and_no_other(new: dict[str, Any], cause: str) -> None:
    assert only(finished({"x": score(1.0)}), finished({"x": score(9.0)}, **new)).cause == cause


@pytest.mark.parametrize(("before", "now", "allowed"), [({}, 1, 0.0), ({"processes": 2}, 2, 0.0), ({}, 2, 3.0)])
def test_equal_bits_are_expected_of_equally_many_processes(before: dict[str, int], now: int, allowed: float) -> None:
    """A record from before runs said how many there were is of one."""
    old, new = finished({"x": score(-20.0)}, **before), finished({"x": score(-21.0)}, processes=now)
    assert only(old, new).allowed == allowed


def test_a_record_from_before_processors_were_told_apart_is_another_machine() -> None:
    """AMD EPYC names several generations, on which the same weights got scores that differ in the last bits."""
    older = finished({"x": score(-20.0)})
    del older.record["provenance"]["processor"]
    drift = only(older, finished({"x": score(math.nextafter(-20.0, 0))}))
    assert (drift.moved, drift.drifted) == (True, False)
    assert drift.cause == "processor not recorded -> AuthenticAMD family 25 model 17"


def test_a_protocol_that_changed_is_a_cause_of_its_own_score_only() -> None:
    old = finished({"x": score(1.0, samples=500), "y": score(1.0)})
    new = finished({"x": score(9.0, samples=50), "y": score(9.0)}, **ELSEWHERE)
    first, second = compare(old, new, BANDS)
    assert first.cause == "protocol samples 500 -> 50, device AMD EPYC -> Intel Xeon"
    assert second.cause == "device AMD EPYC -> Intel Xeon"


def test_the_sentence_has_old_new_allowed_unit_and_cause() -> None:
    old, new = finished({"x": score(-20.0)}), finished({"x": score(-24.0)}, versions={"numpy": "2.4.6"})
    assert str(only(old, new)) == (
        "toy2000 laptop b seed 0 x: -20 published, -24 now, allowed 3 (nats). Likely cause: torch 2.14.1 -> absent."
    )


def test_the_sentence_shows_the_digits_that_differ() -> None:
    said = str(only(finished({"x": score(1.0, unit="")}), finished({"x": score(1.0000000001, unit="")}, **ELSEWHERE)))
    assert "x: 1.0 published, 1.0000000001 now, allowed 0.25. " in said


@pytest.mark.parametrize(
    ("test", "names"),
    [
        ({"score": "b.x", "within": 1}, ["x"]),
        ({"increasing": ["a.z", "b.y"], "margin": 0}, ["y"]),
        ({"experiment": "b", "column": "fid", "over": "step", "spearman_at_least": 0.8}, ["x", "y"]),
        ({"ahead": {"a": "b"}, "column": "c", "over": "o", "since": 0}, ["x", "y"]),
        ({"score": "a.x", "within": 1}, []),
        ({"score": "b.still", "within": 1}, []),
    ],
)
def test_of_a_claim_come_the_scores_that_moved(test: dict[str, Any], names: list[str]) -> None:
    old = finished({"x": score(1.0), "y": score(1.0), "still": score(1.0)})
    new = finished({"x": score(1.1), "y": score(9.0), "still": score(1.0)}, **ELSEWHERE)
    assert [drift.score for drift in of_claim(test, compare(old, new, BANDS))] == names


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((1.0, 2.0, 3.0), (4.2, 5.2, 6.2), True),  # means 3.2 apart, four standard errors of the difference are 3.27
        ((1.0, 2.0, 3.0), (4.3, 5.3, 6.3), False),
        ((3.0, 2.0, 1.0), (-0.2, -1.2, -2.2), True),
        ((1.0, 1.0, 1.0), (1.1, 1.1, 1.1), False),  # exact, so no chance
        ((1.0,), (1.001,), False),
    ],
)
def test_by_chance_is_told_from_the_spread_over_seeds(old: Any, new: Any, expected: bool) -> None:
    pairs = zip(old, new, strict=True)
    seeds = [only(finished({"x": score(a)}), finished({"x": score(b)}, **ELSEWHERE)) for a, b in pairs]
    assert by_chance(seeds) is expected


@pytest.mark.parametrize(("over", "expected"), [("models", True), ("images", False)])
def test_by_chance_is_told_from_the_spread_over_models_of_one_run(over: str, expected: bool) -> None:
    sides = [score(value, stderr=0.1, averaged_over=over) for value in (1.0, 1.5)]
    drift = only(finished({"x": sides[0]}), finished({"x": sides[1]}, **ELSEWHERE))
    assert by_chance([drift]) is expected
    assert not by_chance([drift._replace(new=1.6)])
    assert not by_chance([drift._replace(new=None)])
    assert not by_chance([])


def test_the_largest_are_those_furthest_out_of_their_bands() -> None:
    old = finished({"x": score(1000.0), "y": score(1.0, unit="share"), "gone": score(1.0)})
    new = finished({"x": score(1050.0), "y": score(2.0, unit="share")}, **ELSEWHERE)
    ordered = largest_first(compare(old, new, BANDS))
    assert [drift.score for drift in ordered] == ["gone", "y", "x"]  # inf, 1 of .25, 50 of 101


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda bands: bands.pop(key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("default"), "drift lacks `default`"),
        (lambda bands: bands.update({1: BANDS["nats"]}), "drift has the key 1, which needs quotes"),
        (lambda bands: bands.update({"elbo_*": BANDS["nats"]}), r"the pattern 'elbo_\*', which needs the form"),
        (lambda bands: bands.update(nats={"absolute": 1.0}), "drift of 'nats' needs"),
        (lambda bands: bands.update(nats={"absolute": 0, "relative": 0.1}), "drift of 'nats' needs"),
        (lambda bands: bands.update(nats={"absolute": math.inf, "relative": 0.1}), "drift of 'nats' needs"),
        (lambda bands: bands.update(nats={"absolute": math.nan, "relative": 0.1}), "drift of 'nats' needs"),
        (lambda bands: bands.update(nats={"absolute": 1.0, "relative": -0.1}), "drift of 'nats' needs"),
        (lambda bands: bands.update(nats=3), "drift of 'nats' needs"),
    ],
)
def test_load_claims_says_what_is_wrong_with_the_bands(
    tmp_path: Path, spoil: Callable[[dict[Any, Any]], None], message: str
) -> None:
    path = tmp_path / "claims.yaml"
    bands: dict[Any, Any] = {key: dict(band) for key, band in BANDS.items()}
    path.write_text(yaml.safe_dump({"claims": [], "drift": bands}))
    assert load_claims(path)["drift"] == BANDS
    spoil(bands)
    path.write_text(yaml.safe_dump({"claims": [], "drift": bands}))
    with pytest.raises(ValueError, match=message) as caught:
        load_claims(path)
    assert str(path) in str(caught.value)
