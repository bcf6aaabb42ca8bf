"""What the plan and the claims of every paper must tell, whichever paper."""

from types import SimpleNamespace

import pytest

from lib.reporting.tables import config_table
from replications import papers

JUDGED = ("laptop", "paper")
UNSOURCED = "no source given"


@pytest.mark.parametrize("key", papers.known())
def test_every_setting_names_its_source_as_pages_show_it(key):
    configs = {type(run.config): run.config for preset in JUDGED for run in papers.plan(key, preset, 1)}
    assert configs
    for config in configs.values():
        unsourced = [row["setting"] for row in config_table(config).to_dict("records") if row["source"] == UNSOURCED]
        assert unsourced == [], type(config).__name__


@pytest.mark.parametrize("key", papers.known())
def test_a_claim_that_a_preset_does_not_judge_says_why(key):
    tested = [claim for claim in papers.load(key).document["claims"] if "test" in claim]
    silent = [claim["id"] for claim in tested if set(JUDGED) - set(claim["presets"]) and "not_comparable" not in claim]
    assert silent == []


def test_the_days_of_runs_are_told_of_all_or_not_at_all(monkeypatch):
    monkeypatch.setattr(papers, "committed_on", {"c0ffee": "2026-11-20"}.get)
    dated, by_commit = {"finished_on": "2026-11-28", "commit": "c0ffee"}, {"commit": "c0ffee"}
    for provenances, told in [
        ([dated], "2026-11-28"), ([dated, by_commit], "2026-11-20 to 2026-11-28"), ([], ""),
    ]:  # fmt: skip
        assert papers.finished_on([SimpleNamespace(provenance=p) for p in provenances]) == told
    monkeypatch.setattr(papers, "committed_on", lambda commit: "")  # a clone without history
    assert papers.finished_on([SimpleNamespace(provenance=p) for p in (dated, by_commit)]) == ""
