"""Runs on two processes: the first keeps the books, all stop alike, and none waits for one that is gone."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.errors import RunFailed
from lib.training import processes

PROGRAM = Path(__file__).with_name("two_processes.py")


def test_all_runs_end_alike_and_the_first_process_writes_them(torchrun: Callable[..., Any], tmp_path: Path) -> None:
    done = torchrun(PROGRAM, tmp_path, "late", "fine", "alone", "diverges")
    assert done.returncode == 0, done.stderr
    home = re.findall(r"process (\d) went home and left (-?\d+) threads", done.stdout)
    assert sorted(home) == [("0", "0"), ("1", "0")]  # a thread of gloo's would abort Python's end, now and then
    (told,) = re.findall(r"^\[.*?\]$", done.stdout, re.MULTILINE)
    late, fine, alone, diverged = ast.literal_eval(told)
    assert (fine, alone) == (("fine", "finished", ""), ("alone", "finished", ""))
    assert diverged == ("diverges", "failed", "The level became inf at step 6: the run diverged and was stopped.")
    assert late == ("late", "out of time", "out of time after step 5 of 10")

    finished = {}
    for path in (tmp_path / "runs/toy2000").glob("*/results.json"):
        results = json.loads(path.read_text())
        finished[results["experiment"]] = results, json.loads(path.with_name("run.json").read_text())
    assert {name: record["processes"] for name, (_, record) in finished.items()} == {"fine": 2, "alone": 1}
    assert {name: results["provenance"]["processes"] for name, (results, _) in finished.items()} == {
        "fine": 2, "alone": 1,
    }  # fmt: skip
    assert finished["fine"][0]["scores"]["level"]["n"] == finished["alone"][0]["scores"]["level"]["n"] == 10
    assert len(list((tmp_path / "runs/toy2000").glob("*.begun/checkpoint.safetensors"))) == 1  # of the late one


@pytest.mark.slow
@pytest.mark.parametrize("what", ["dies in 1", "dies in 0", "crashes in 1", "crashes in 0"])
def test_when_one_process_ends_the_other_ends_and_says_so(
    what: str, torchrun: Callable[..., Any], tmp_path: Path
) -> None:
    done = torchrun(PROGRAM, tmp_path, what, "fine", timeout=200)
    assert done.returncode == 1
    assert "went home" not in done.stdout
    said = {"dies": "Another process of this training has ended", "crashes": "no such column"}[what.split()[0]]
    assert said in done.stderr or "SIGTERM" in done.stderr  # torchrun may be faster than the sentence, which is below


def test_what_the_other_process_left_behind_is_a_sentence() -> None:
    with pytest.raises(RunFailed, match="Another process of this training has ended"), processes._listening():
        raise RuntimeError("connection reset\nby peer")
