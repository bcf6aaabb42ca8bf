"""What is measured is kept with its machine, and the page shows it; the exponent of a power is the power."""

import json
import math
import re
import time
from types import SimpleNamespace

import pytest

from lib import growth
from lib.errors import UserError
from lib.execution import workspace
from replications import bench, cost, overheads, papers

MACHINE = {"devices": ["a processor"], "cores": 2, "instructions": "AVX2", "torch": "2.14.1"}


def record(part, rows):
    return {"schema": 1, "part": part, "rows": rows, "measured_on": "2026-11-28", "commit": "c" * 40, "seconds": 1.0,
            "machine": MACHINE}  # fmt: skip


def test_every_part_can_be_measured():
    """Each names a module that has `measure`; the papers' are found by themselves."""
    assert bench.parts() == [*bench.ALL, *papers.known()]
    for part in bench.parts():
        module = __import__(bench.module_of(part), fromlist=["measure"])
        assert callable(module.measure), part


def test_a_wrong_part_is_told():
    with pytest.raises(UserError, match=r"no part 'libb': did you mean 'lib'.*scheduler.*vae2013"):
        bench.module_of("libb")


def test_the_page_has_every_number_and_its_machine(tmp_path):
    rows = [{"work": "a <b>", "peer": "theirs", "ratio": 2.345678, "range": [1.0, 2.0, 3.5], "wall_s_by_one": 1_451.3}]
    assert bench.write_page(tmp_path) is None
    bench.keep(record("lib", rows), tmp_path)
    steps = [{"case": "20 latents", "step ms": 12.345}, {"case": "200 latents", "step ms": 23.4, "threads": 1234}]
    page = bench.keep(record("vae2013", steps), tmp_path).read_text()
    for shown in (
        "a &lt;b&gt;",
        "2.35",
        "2 (1–3.5)",
        "a processor, 2 cores, AVX2",
        "commit cccccccccccc",
        "1,234",
        "1,450",
    ):
        assert shown in page, shown
    assert page.index('id="lib"') < page.index('id="vae2013"')
    heads = re.findall(r'<th scope="col"( class="number")?>([^<]*)</th>', page)
    assert [text for _, text in heads[:5]] == ["work", "peer", "ratio", "range", "wall, s by one"]  # as measured
    assert [bool(number) for number, _ in heads[:5]] == [False, False, True, True, True]
    # Cases of a paper stand side by side, each shape in its own table.
    assert '<th scope="col" class="number">20 latents</th>' in page
    assert 'id="table-vae2013-2"' in page
    assert "–" not in page.partition('id="table-vae2013"')[2]
    assert json.loads((tmp_path / "bench/lib.json").read_text())["rows"] == rows


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_measurement_is_told(tmp_path, content):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/lib.json").write_text(content)
    with pytest.raises(UserError, match=r"lib\.json is no measurement"):
        bench.write_page(tmp_path)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_exponent(power):
    sizes = (500, 1000, 2000, 4000)
    assert growth.exponent_of(sizes, [3e-6 * n**power for n in sizes]) == pytest.approx(power)


def test_a_row_of_growth_takes_each_size_in_every_round():
    called = []
    row = growth._row("w", "images", (1, 2), lambda n: lambda: called.append(n))
    assert called == [1, 2] * (1 + growth.ROUNDS)
    assert (row["sizes"], len(row["seconds"])) == ([1, 2], 2)


def test_checkpoints_are_counted_with_the_time_that_they_take(tmp_path, monkeypatch):
    """Each writing is made half a second slower; the run stops at once, so only that of the stop is certain."""
    save = workspace.save_checkpoint
    monkeypatch.setattr(workspace, "save_checkpoint", lambda *given: (time.sleep(0.5), save(*given)))
    monkeypatch.setattr(overheads, "TRAINED_SECONDS", 0.1)
    row = overheads.checkpoint_row("gan2014", "digits-simultaneous", tmp_path)
    count = int(row["how"].split()[0])
    assert count >= 1
    assert 0.5 * count <= row["seconds"] <= row["of seconds"]
    assert row["share"] == row["seconds"] / row["of seconds"]


class TestCost:
    def test_a_step_costs_the_median_after_the_set_up(self):
        """Ten steps in half a second; set-up and one evaluation in the middle do not count."""
        readings = [(5.0, 1, 100), (9.0, 2, 100), (9.5, 12, 100), (10.0, 22, 100), (17.0, 32, 100), (17.5, 42, 100)]
        assert cost.seconds_a_step(readings) == pytest.approx(0.05)
        assert math.isnan(cost.seconds_a_step(readings[:1]))

    def test_a_short_run_counts_whole_and_a_long_one_by_its_steps(self, tmp_path):
        smoke = next(run for run in papers.plan("vae2013", "smoke", 1) if run.experiment == "aevb-nz2")
        assert 0 < cost.train_for(smoke, 300.0, "cpu", tmp_path).finished_after < 300
        long = next(run for run in papers.plan("gan2014", "laptop", 1) if run.experiment == "digits-simultaneous")
        found = cost.train_for(long, 1.0, "cpu", tmp_path)  # its set-up takes longer
        assert found.finished_after is None
        assert found.steps > 1000
        assert 1e-3 < found.seconds_a_step < 1

    def test_published_runs_have_their_own_seconds_and_only_the_others_are_trained(self, tmp_path, monkeypatch):
        runs = [run for run in papers.plan("vae2013", "paper") if run.experiment == "aevb-nz5"]
        monkeypatch.setattr(papers, "PUBLISHED", tmp_path)
        folder = tmp_path / "runs/vae2013" / runs[0].fingerprint
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"device": "a card", "wall_seconds": 1800.0}))
        trials = SimpleNamespace(where="here", seconds=9, patience=9, of=lambda run: cost.Trained(0.036, 1000, None))
        rows = [cost._published(runs), cost._measured(runs, trials)]
        assert [(row["runs"], row["device"], row["hours of all"]) for row in rows] == [
            (1, "a card", 0.5),
            (2, "here", 0.02),
        ]
        trials.of = lambda run: None
        rows.append(cost._measured(runs, trials))
        assert rows[2]["hours of all"] is None
        sums = cost._sums([*rows, rows[1]])
        assert [(row["how"], row["runs"], row["hours of all"]) for row in sums] == [
            ("published", 1, 0.5), ("measured here", 4, 0.04), ("not known", 2, None)
        ]  # fmt: skip
        assert cost.markdown([*sums, *rows]).splitlines()[2:] == [
            "| `vae2013` | 1 | a card | 0.5 | published | aevb-nz5, 0.5 h |",
            "| `vae2013` | 4 | here | 0.04 | measured here | aevb-nz5, 0.02 h: 2 × 1,000 steps of 36 ms |",
            "| `vae2013` | 2 | here | ? | not known | aevb-nz5, ? h |",
        ]

    def test_what_is_published_since_is_told_without_measuring(self, tmp_path, monkeypatch):
        """Three runs of .03 hours each by their steps; then one is published, which took half an hour."""
        runs = [run for run in papers.plan("vae2013", "paper") if run.experiment == "aevb-nz5"]
        monkeypatch.setattr(papers, "PUBLISHED", tmp_path)
        monkeypatch.setattr(cost, "_experiments", lambda: [runs])
        trials = SimpleNamespace(where="here", seconds=9, patience=9, of=lambda run: cost.Trained(0.108, 1000, None))
        row = cost._measured(runs, trials)
        before = [*cost._sums([row]), row]
        assert cost.retold(before) == before
        folder = tmp_path / "runs/vae2013" / runs[2].fingerprint
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"device": "a card", "wall_seconds": 1800.0}))
        after = cost.retold(before)
        assert [(row["runs"], row["device"], row["hours of all"]) for row in after] == 2 * [
            (1, "a card", 0.5), (2, "here", pytest.approx(0.06))
        ]  # fmt: skip
        assert after[3]["ms a step"] == row["ms a step"]
