"""`regen bench scheduler`: what the scheduler costs a task, and what a second worker brings."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lib.execution.execute import Options, Report
from lib.execution.executors import run_here, run_on_cluster
from lib.execution.progress import Progress
from lib.execution.runs import Run, Store
from lib.execution.trial import TrialConfig, compute, trial

SHORT, LONG = TrialConfig(steps=100), TrialConfig(steps=500, width=256)  # the second to find how many fill SECONDS
SECONDS = 10.0  # of each equal run; one of `laptop` takes 20, and the workers' start is to weigh about as there


def measure(tasks: int = 500, equal_runs: int = 6, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows of what was measured: `tasks` short runs by two workers and here, and longer ones by one worker and two."""
    return [*overhead(tasks), *scaling(equal_runs, rounds)]


def overhead(tasks: int, workers: int = 2) -> list[dict[str, Any]]:
    """Many short runs, so that what is not the runs themselves shows: the overhead, the workers' start in it."""
    runs = [trial(seed, SHORT) for seed in range(tasks)]
    rows = []
    for name, count in (("in this process", 0), (f"{workers} workers", workers)):
        start = _computed([trial(tasks, SHORT), trial(tasks + 1, SHORT)], count)[0] if count else 0.0
        seconds, reports = _computed(runs, count)
        computing = sum(report.seconds for report in reports)
        rows.append(
            {
                "what": f"{tasks} runs of {SHORT.steps} steps, {name}",
                "wall_s": round(seconds, 2),
                "start_measured_apart_s": round(start, 2),
                "sum_of_runs_s": round(computing, 2),
                "overhead_ms_a_task": round(1000 * (seconds * max(count, 1) - computing) / tasks, 2),
            }
        )
    return rows


def scaling(equal_runs: int, rounds: int, lasting: float = SECONDS) -> list[dict[str, Any]]:
    """The wall seconds of one worker over those of two, for the same runs, in turns; the workers' start counts.

    Beside them the same runs by as many processes without a scheduler: what the machine's cores allow, for two that
    share caches or execution units slow each other down.
    """
    config = _lasting(lasting)
    ways = {"workers of dask": _computed, "plain processes": _computed_apart}
    taken: dict[tuple[str, int], list[float]] = {(way, count): [] for way in ways for count in (1, 2)}
    for turn in range(rounds):
        runs = [trial(turn * equal_runs + n, config) for n in range(equal_runs)]
        for (way, count), seconds in taken.items():
            seconds.append(ways[way](runs, count)[0])
    return [_scaling_row(f"{equal_runs} runs of {config.steps} steps, {way}", taken[way, 1], taken[way, 2])
            for way in ways]  # fmt: skip


def _lasting(seconds: float) -> TrialConfig:
    """LONG with as many hundreds of steps as take this machine so many seconds."""
    _, (report,) = _computed([trial(0, LONG)], 0)
    return replace(LONG, steps=100 * max(1, round(seconds / report.seconds * LONG.steps / 100)))


def _scaling_row(what: str, one: Sequence[float], two: Sequence[float]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    return {
        "what": what,
        "wall_s_by_one": round(statistics.median(one), 1),
        "wall_s_by_two": round(statistics.median(two), 1),
        "one / two": round(statistics.median(ratios), 2),
        "low": round(min(ratios), 2),
        "high": round(max(ratios), 2),
        "asked, at least": 1.8,
    }


def _computed_apart(runs: Sequence[Run], count: int) -> tuple[float, list[Report]]:
    """Wall seconds of the runs in `count` processes that know nothing of each other, their start included."""
    begun = time.perf_counter()
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        parts = pool.map(_computed, [runs[place::count] for place in range(count)], [0] * count)
        reports = [report for _, reports in parts for report in reports]
    return time.perf_counter() - begun, reports


def _computed(runs: Sequence[Run], workers: int) -> tuple[float, list[Report]]:
    """Wall seconds of the runs in a new folder, on so many workers or, with none, in this process."""
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as folder, Progress(runs, StringIO()) as progress:
        store, begun = Store(Path(folder)), time.perf_counter()
        if workers:
            reports = run_on_cluster(runs, compute, store, Options(), progress, workers=workers)
        else:
            reports = run_here(runs, compute, store, Options(), progress)
        seconds = time.perf_counter() - begun
    bad = [report.said for report in reports if report.ending != "finished"]
    assert not bad, bad
    return seconds, reports
