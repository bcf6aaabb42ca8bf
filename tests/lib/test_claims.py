"""Documents of claims: what is wrong with one, what the table says, what fell, and the papers' own."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lib.claims import Verdict, counts, experiments_of, fallen, judge, load_claims, reported_text
from lib.training.provenance import REPOSITORY
from replications import papers

SOUND: dict[str, Any] = {
    "id": "c", "where": "Table 1", "kind": "number", "statement": "s", "reported": {"value": 10, "unit": "nats"},
    "presets": ["laptop"], "protocol": "p", "test": {"score": "a.level", "within": 1},
}  # fmt: skip


def without(a_claim: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in a_claim.items() if key not in keys}


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([SOUND, SOUND], "the id c stands twice"),
        ([without(SOUND, "where", "reported")], r"c lacks \['reported', 'where'\]"),
        ([without(SOUND, "id")], r"a claim without id lacks \['id'\]"),
        ([{**SOUND, "kind": "feeling"}], "c is of kind feeling, which is none of"),
        ([without(SOUND, "test")], "c needs either a test or `until`"),
        ([{**SOUND, "until": "later"}], "c needs either a test or `until`"),
        ([without(SOUND, "presets")], "c has a test but no presets or no protocol"),
        ([without(SOUND, "protocol")], "c has a test but no presets or no protocol"),
    ],
)
def test_load_claims_says_what_is_wrong(tmp_path: Path, listed: list[dict[str, Any]], message: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": listed}))
    with pytest.raises(ValueError, match=message) as caught:
        load_claims(path)
    assert str(path) in str(caught.value)


def test_load_claims_takes_what_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    later = {**without(SOUND, "test", "presets", "protocol"), "id": "d", "until": "x is not implemented yet"}
    path.write_text(yaml.safe_dump({"paper": "toy2000", "claims": [SOUND, later]}))
    assert load_claims(path) == {"paper": "toy2000", "claims": [SOUND, later]}


def row(word: str, name: str = "c", preset: str = "laptop") -> Verdict:
    return Verdict("toy2000", name, "number", preset, "", "", word, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "now", "falls"),
    [
        ("replicated", "partly", True),
        ("replicated", "not replicated", True),
        ("replicated", "not run", True),
        ("partly", "not replicated", True),
        ("partly", "not comparable", True),
        ("partly", "replicated", False),
        ("replicated", "replicated", False),
        ("not replicated", "not run", False),
        ("not run", "not replicated", False),
    ],
)
def test_fallen(before: str, now: str, falls: bool) -> None:
    assert fallen([row(now)], [row(before)]) == ([(row(before), row(now))] if falls else [])


def test_fallen_compares_like_with_like() -> None:
    now = [row("not replicated", "new"), row("not run", "c", "smoke"), row("replicated", "c")]
    assert fallen(now, [row("replicated", "c"), row("replicated", "gone")]) == []


def test_counts_hold_every_word_in_order() -> None:
    got = counts([row("partly"), row("not run"), row("partly")])
    assert list(got.items()) == [
        ("replicated", 0),
        ("partly", 2),
        ("not replicated", 0),
        ("not comparable", 0),
        ("not run", 1),
    ]


def test_reported_text() -> None:
    assert reported_text({"reported": {"value": 0.887678}}) == "0.887678"
    assert reported_text({"reported": {"value": 7837699, "unit": "parameters"}}) == "7,837,699 parameters"
    assert reported_text({"reported": {"range": [2, 1234567.5]}}) == "2 to 1.23457e+06"
    assert reported_text({"reported": {"value": 225, "unit": "nats", "text": "225 ± 2"}}) == "225 ± 2"


class TestPapers:
    @pytest.mark.parametrize("path", sorted((REPOSITORY / "replications").glob("*/claims.yaml")), ids=str)
    def test_claims_load(self, path: Path) -> None:
        document = load_claims(path)
        assert document["paper"] == path.parent.name
        assert document["claims"]

    @pytest.mark.parametrize("key", papers.known())
    def test_every_test_names_runs_of_its_presets(self, key: str) -> None:
        """A misspelt experiment would be "not run" for ever, and say so of runs that nobody plans."""
        paper = papers.load(key)
        for tested in (c for c in paper.document["claims"] if "test" in c):
            for preset in tested["presets"]:
                planned = {run.experiment for run in papers.plan(key, preset)}
                assert experiments_of(tested["test"]) <= planned, tested["id"]

    @pytest.mark.parametrize("key", papers.known())
    def test_nothing_is_judged_without_runs(self, key: str) -> None:
        for preset in papers.load(key).package.PRESETS:
            outcomes = [(planned, None) for planned in papers.plan(key, preset)]
            got = [judge(c, key, preset, outcomes) for c in papers.load(key).document["claims"]]
            assert {v.verdict for v in got} <= {"not run", "not comparable"}
            assert all(v.why.endswith(".") and v.reported for v in got)
