"""Papers on several processes, as a user starts them: what is split, what is refused, what is counted."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.errors import UserError
from lib.execution.execute import Options
from lib.execution.runs import Run, Store
from lib.training.processes import Processes
from replications import papers

OPTIONS = Options(processes=Processes(0, 3))


def planned(key: str, experiment: str) -> list[Run]:
    return [run for run in papers.plan(key, "smoke", 1) if run.experiment == experiment]


def test_minibatches_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    runs = planned("cyclegan2017", "networks") + planned("cyclegan2017", "shapes-cyclegan")
    with pytest.raises(UserError) as refused:
        papers.compute_missing(runs, Store(tmp_path), OPTIONS)
    assert str(refused.value) == (
        "cyclegan2017 smoke shapes-cyclegan seed 0 has minibatches of 2, which do not divide among 3 processes: start "
        "a number that divides it, or choose other runs by --experiment."
    )


def test_workers_beside_torchruns_processes_are_refused(tmp_path: Path) -> None:
    runs = planned("cyclegan2017", "networks")
    for options in ({"workers": 2}, {"scheduler": "tcp://localhost:1"}):
        with pytest.raises(UserError, match="leave out --workers and --scheduler"):
            papers.compute_missing(runs, Store(tmp_path), OPTIONS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", papers.known())
def test_what_a_paper_splits_has_minibatches(key: str) -> None:
    split = [
        run for preset in papers.load(key).package.PRESETS for run in papers.plan(key, preset, 1) if papers.splits(run)
    ]
    assert all(run.config.batch >= 1 for run in split)
    assert {type(run.config) for run in split} <= set(papers.load(key).package.SPLIT)


@pytest.mark.parametrize("key", papers.known())
def test_a_papers_folder_is_a_program(key: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", [key, "--preset", "labtop"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"replications.{key}", run_name="__main__")
    assert ended.value.code == 2
    assert f"{key} has no preset 'labtop': did you mean 'laptop'?" in capsys.readouterr().err


@pytest.mark.slow
def test_scores_of_two_processes_count_as_those_of_one(torchrun: Any, tmp_path: Path) -> None:
    """Two papers' trainings, and a run that is not split; so few steps that float32's rounding has no time to grow."""
    experiments = ("shapes-cyclegan", "networks", "convolutional-digits")
    arguments = [word for name in experiments for word in ("--experiment", name)]
    keys = "cyclegan2017", "vae2013"
    command = ["-m", "replications", "run", *keys, "--preset", "smoke", "--device", "cpu", *arguments]
    done = torchrun(*command, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 runs: 3 computed") == 1  # the first process's word alone

    runs = papers.of_experiments([run for key in keys for run in papers.plan(key, "smoke", 1)], experiments)
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    papers.compute_missing([replace(run) for run in runs], one, Options(), workers=1)
    for run in runs:
        alone, together = one.read(run), two.read(run)
        assert together.provenance["processes"] == (2 if papers.splits(run) else 1)  # type: ignore[union-attr]
        assert alone.provenance["processes"] == 1  # type: ignore[union-attr]
        counts = [{name: score.n for name, score in found.scores.items()} for found in (alone, together)]  # type: ignore[union-attr]
        assert counts[0] == counts[1]
        for row, same in zip(alone.history(), together.history(), strict=True):  # type: ignore[union-attr]
            assert same == pytest.approx(row, rel=1e-4)
        assert json.loads((two.folder(run) / "results.json").read_text())["fingerprint"] == run.fingerprint
