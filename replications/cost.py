"""`regen bench cost`: what the `paper` preset of every paper costs, from the steps that its trainings take here.

A run that is published has its own seconds. Of every other experiment one run is trained for a few seconds on this
machine's GPU, or on one thread of its CPU, and its training steps are multiplied; the scores that come after them are
not in it.
"""

import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from lib.errors import RunFailed
from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import OutOfTime
from lib.training.provenance import device_name
from replications import papers

PRESET = "paper"
TRAINED_SECONDS = 15.0
PATIENCE_SECONDS = 900.0  # for features of thousands of images, and for what has no steps and cannot be stopped


class Trained(NamedTuple):
    seconds_a_step: float  # nan where the whole run ended in the time
    steps: int  # of the whole training
    finished_after: float | None  # seconds, of such a run


def measure(trained_seconds: float = TRAINED_SECONDS, patience: float = PATIENCE_SECONDS) -> list[dict[str, Any]]:
    """A row a paper and device, with the sum of its hours, then one an experiment. Hours: one run after the other."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    with _Trials(str(device), trained_seconds, patience) as trials:
        for runs in tqdm(_experiments(), "experiments", disable=None):
            rows += [row for row in (_published(runs), _measured(runs, trials)) if row]
    return [*_sums(rows), *rows]


def retold(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a former measurement beside what is published now: nothing is trained, and what was published since
    is no longer reckoned from its steps.
    """
    measured = {row["what"]: row for row in rows if row["how"] != "published"}
    again: list[dict[str, Any]] = []
    for runs in _experiments():
        missing, of_steps = len(_missing(runs)), measured.get(f"{runs[0].paper} {runs[0].experiment}")
        again += [row] if (row := _published(runs)) else []
        if missing and of_steps:
            hours, share = of_steps["hours of all"], missing / of_steps["runs"]
            again.append(of_steps | {"runs": missing, "hours of all": None if hours is None else share * hours})
    return [*_sums(again), *again]


def _experiments() -> list[list[Run]]:
    """The runs of every experiment that is planned."""
    experiments: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in (run for key in papers.known() for run in papers.plan(key, PRESET)):
        experiments[run.paper, run.experiment].append(run)
    return list(experiments.values())


def _published(runs: Sequence[Run]) -> dict[str, Any] | None:
    found = [json.loads(path.read_text()) for run in runs if (path := _record(run)).is_file()]
    if not found:
        return None
    names = sorted({record["device"] for record in found})
    hours = sum(record["wall_seconds"] for record in found) / 3600
    return _row(runs[0], len(found), " and ".join(names), hours, "published")


def _record(run: Run) -> Path:
    return papers.PUBLISHED / "runs" / run.paper / run.fingerprint / "run.json"


def _missing(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if not _record(run).is_file()]


def _measured(runs: Sequence[Run], trials: "_Trials") -> dict[str, Any] | None:
    missing = _missing(runs)
    if not missing:
        return None
    trained = trials.of(missing[0])
    if trained is None:
        how = f"no training step within {trials.patience:.0f} s"
        return _row(missing[0], len(missing), trials.where, None, how)
    if trained.finished_after is not None:
        return _row(missing[0], len(missing), trials.where, len(missing) * trained.finished_after / 3600, "a whole run")
    hours = len(missing) * trained.steps * trained.seconds_a_step / 3600
    row = _row(missing[0], len(missing), trials.where, hours, f"trained for {trials.seconds:.0f} s")
    return row | {"steps of a run": trained.steps, "ms a step": 1000 * trained.seconds_a_step}


def _row(run: Run, n: int, device: str, hours: float | None, how: str) -> dict[str, Any]:
    return {"what": f"{run.paper} {run.experiment}", "runs": n, "device": device, "hours of all": hours, "how": how,
            "steps of a run": None, "ms a step": None}  # fmt: skip


def _sums(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a paper, device and kind of knowledge; what is not known is counted beside them."""
    sums: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        sums[_kind(row)].append(row)
    return [
        {
            "what": f"{paper}: all",
            "runs": sum(row["runs"] for row in same),
            "device": device,
            "hours of all": sum(row["hours of all"] or 0.0 for row in same) or None,
            "how": how,
        }
        for (paper, device, how), same in sums.items()
    ]


def _kind(row: dict[str, Any]) -> tuple[str, str, str]:
    """Paper, device, and how the hours are known."""
    how = "published" if row["how"] == "published" else "measured here" if row["hours of all"] else "not known"
    return row["what"].split()[0], row["device"], how


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The sums for a README, and beside each what costs most in it: one line a paper, device and kind of knowledge."""
    lines = [
        ["paper", "runs", "on", "hours", "known from", "dearest experiment"],
        ["---", "---:", "---", "---:"] + ["---"] * 2,
    ]
    sums = [row for row in rows if row["what"].endswith(": all")]
    for total in sums:
        paper = total["what"].removesuffix(": all")
        same = [row for row in rows if row not in sums and _kind(row) == (paper, total["device"], total["how"])]
        dearest = max(same, key=lambda row: row["hours of all"] or 0.0)
        words = f"{dearest['what'].removeprefix(paper).strip()}, {_few(dearest['hours of all'])} h"
        if dearest["ms a step"]:
            words += f": {dearest['runs']} × {dearest['steps of a run']:,} steps of {_few(dearest['ms a step'])} ms"
        lines.append(
            [f"`{paper}`", str(total["runs"]), total["device"], _few(total["hours of all"]), total["how"], words]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _few(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


class _Trials:
    """One process that trains a run for a while; a new one where it did not come back in time."""

    def __init__(self, device: str, seconds: float, patience: float) -> None:
        self.device, self.seconds, self.patience = device, seconds, patience
        self.where = device_name(torch.device(device)) + (", one thread" if device == "cpu" else "")
        self.pool: ProcessPoolExecutor | None = None
        self.folder = tempfile.TemporaryDirectory(prefix="regen-cost-")  # here, for a killed process leaves its own

    def __enter__(self) -> "_Trials":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()
        self.folder.cleanup()

    def of(self, run: Run) -> Trained | None:
        """None where it took no step and did not end within the patience."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            trained = self.pool.submit(train_for, run, self.seconds, self.device, Path(self.folder.name))
            return trained.result(self.seconds + self.patience)
        except TimeoutError:
            self._end()
            return None

    def _end(self) -> None:
        if self.pool is not None:
            for process in list(self.pool._processes.values()):
                process.kill()
            self.pool.shutdown()
            self.pool = None


def train_for(run: Run, seconds: float, device: str, folder: Path) -> Trained:
    """Train `run` below `folder` until so long after its first steps were told, however long its set-up took."""
    readings: list[tuple[float, int, int]] = []

    def note(done: int, total: int) -> None:
        readings.append((time.monotonic(), done, total))
        if readings[-1][0] - readings[0][0] >= seconds:
            raise OutOfTime("long enough")

    report = execute(run, papers.compute, Store(folder), Options(device=device), note)
    steps = readings[-1][2] if readings else 0
    if report.ending == "crashed":
        raise RunFailed(f"{run.name} crashed: {report.said}")
    if report.ending in ("finished", "failed"):
        return Trained(float("nan"), steps, report.seconds)
    return Trained(seconds_a_step(readings), steps, None)


def seconds_a_step(readings: Sequence[tuple[float, int, int]]) -> float:
    """The median of seconds over steps between neighbouring readings (time, steps done, steps in all) after the first
    third; nan without two. A median, so that an evaluation on the way, of which a long training has few, is left out.
    """
    kept = readings[len(readings) // 3 :]
    each = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in itertools.pairwise(kept) if b[1] > a[1]]
    return statistics.median(each) if each else float("nan")
