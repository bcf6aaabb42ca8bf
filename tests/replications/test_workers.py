"""`regen run` on workers of its own: in which order, stopped by a signal, and twice at once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lib.execution.runs import Store
from replications import papers

KEY = papers.known()[-1]


def start(*arguments: object) -> "subprocess.Popen[str]":
    """The command in a process group of its own, as a terminal would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "replications", "run", *map(str, arguments)],
        cwd=papers.REPOSITORY,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_longest_first_by_the_median_of_what_was_published(tmp_path: Path) -> None:
    runs = papers.plan(KEY, "smoke", 1)[:3]
    runs = [replace(runs[0], experiment=name, seed=seed) for seed in (0, 1, 2) for name in ("short", "new", "long")]
    for run, seconds in zip(runs, (1.0, None, 50.0, 900.0, None, 6.0, 3.0, None, 7.0), strict=True):
        if seconds is not None:
            folder = Store(tmp_path).folder(run)
            folder.mkdir(parents=True)
            record = {"paper": run.paper, "preset": run.preset, "experiment": run.experiment}
            (folder / "results.json").write_text(json.dumps(record))
            (folder / "run.json").write_text(json.dumps({"wall_seconds": seconds}))
    seconds = papers.expected_seconds(runs, tmp_path)
    assert {run.name: seconds.get(run.fingerprint) for run in runs[-3:]} == {
        f"{KEY} smoke short seed 2": 3.0, f"{KEY} smoke new seed 2": None, f"{KEY} smoke long seed 2": 7.0,
    }  # fmt: skip
    broken = tmp_path / "runs" / KEY / "broken" / "results.json"
    broken.parent.mkdir()
    for content in ("{", "[1]", '{"paper": "x"}'):
        broken.write_text(content)
        assert papers.expected_seconds(runs, tmp_path) == seconds
    found = [(run.experiment, run.seed) for run in papers.longest_first(runs, seconds)]
    assert found == [(name, seed) for name in ("new", "long", "short") for seed in (0, 1, 2)]
    other = [replace(run, preset="laptop") for run in runs]  # another preset takes another time
    assert papers.expected_seconds(other, tmp_path) == {}
    assert papers.longest_first(other, {}) == other


def test_the_published_runs_tell_how_long_each_takes() -> None:
    plan = [run for key in papers.known() for run in papers.plan(key, "laptop", 1)]
    ordered = papers.longest_first(plan, papers.expected_seconds(plan))
    assert sorted(run.name for run in ordered) == sorted(run.name for run in plan)
    assert ordered != plan


def interrupt_from_the_keyboard(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGINT)


def terminate_the_command_alone(process: "subprocess.Popen[str]") -> None:
    process.terminate()


def terminate_all_its_processes(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGTERM)


def interrupt_without_patience(process: "subprocess.Popen[str]") -> None:
    for _ in range(8):  # two of them used to stop the cluster's closing half-way, and the command for ever
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop",
    [
        interrupt_from_the_keyboard,
        interrupt_without_patience,
        terminate_the_command_alone,
        terminate_all_its_processes,
    ],
)
def test_a_signal_stops_the_command_and_its_workers(tmp_path: Path, stop: Callable[..., None]) -> None:
    process = start(KEY, "--preset", "laptop", "--workers", 2, "--out", tmp_path)
    until = time.monotonic() + 180
    while not list(tmp_path.glob("runs/*/*.begun/progress.json")) and time.monotonic() < until:
        time.sleep(0.1)
    stop(process)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "regen: Stopped. The same command goes on from the last checkpoints.", said
    assert "Traceback" not in said, said
    states = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    left = [line for line in states.splitlines() if line.split()[0] == str(process.pid) and "Z" not in line]
    assert left == []


@pytest.mark.slow
def test_two_commands_at_once_compute_nothing_twice(tmp_path: Path) -> None:
    both = [start(KEY, "--preset", "smoke", "--workers", 2, "--out", tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    plan = papers.plan(KEY, "smoke", 1)
    counted = [re.search(r"(?:(\d+) computed)?(?:, )?(?:(\d+) already there)?\n", out) for out, _ in said]
    assert sum(int(found[1] or 0) for found in counted if found) == len(plan)
    assert {Store(tmp_path).state(run) for run in plan} == {"finished"}
