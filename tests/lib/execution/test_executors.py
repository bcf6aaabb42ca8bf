"""Here or on workers, the numbers are the same; and what goes wrong with one run or one cluster is told."""

import errno
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import distributed
import pytest

from lib.errors import UserError
from lib.execution.execute import Compute, Options, Report
from lib.execution.executors import run_here, run_on_cluster
from lib.execution.progress import Progress
from lib.execution.runs import Run, Store
from lib.execution.workspace import Outcome, Workspace
from replications import papers, vae2013

MakeRun = Callable[..., Run]
Read = Callable[[Store, Run], dict[str, bytes]]


def quiet(runs: Sequence[Run]) -> Progress:
    return Progress(runs, io.StringIO())


def endings(reports: Sequence[Report]) -> dict[str, str]:
    return {report.run.experiment: report.ending for report in reports}


class TestHere:
    def test_one_report_a_run_in_the_plans_order(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        runs = [toy_run(seed=seed) for seed in (2, 0, 1)]
        run_here(runs[:1], toy, store, Options(), quiet(runs[:1]))
        reports = run_here(runs, toy, store, Options(), quiet(runs))
        assert [(report.run, report.ending) for report in reports] == list(
            zip(runs, ["kept", "finished", "finished"], strict=True)
        )

    def test_a_crash_does_not_take_the_others_down(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        def compute(run: Run, workspace: Workspace) -> Outcome:
            return 1 / 0 if run.experiment == "bad" else toy(run, workspace)  # type: ignore[return-value]

        runs = [toy_run(experiment="bad"), toy_run(experiment="good")]
        stream = io.StringIO()
        reports = run_here(runs, compute, store, Options(), Progress(runs, stream))
        assert endings(reports) == {"bad": "crashed", "good": "finished"}
        assert "toy2000 smoke bad seed 0: crashed after" in stream.getvalue()
        assert "ZeroDivisionError" in stream.getvalue()

    def test_a_crash_is_tried_once_more_from_the_checkpoint(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        begun = []

        def compute(run: Run, workspace: Workspace) -> Outcome:
            state = workspace.resume_()
            begun.append((run.experiment, state["step"]))
            workspace.keep({**state, "step": 3}, 4)
            if run.experiment == "bad" or len(begun) == 1:
                raise ZeroDivisionError("on purpose")
            return toy(run, workspace)

        runs = [toy_run(experiment="frail"), toy_run(experiment="bad")]
        stream = io.StringIO()
        reports = run_here(runs, compute, store, Options(checkpoint_seconds=0), Progress(runs, stream))
        assert begun == [("frail", 0), ("frail", 3), ("bad", 0), ("bad", 3)]
        assert endings(reports) == {"frail": "finished", "bad": "crashed"}
        assert stream.getvalue().count("goes on from its last checkpoint, for it crashed") == 2

    def test_what_comes_after_the_deadline_is_not_begun(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        runs = [toy_run(seed=0), toy_run(seed=1)]
        reports = run_here(runs, toy, store, Options(deadline=time.monotonic() - 1), quiet(runs))
        assert [report.ending for report in reports] == ["out of time"] * 2
        assert toy.calls == 0  # type: ignore[attr-defined]

    def test_a_full_disk_stops_all(self, store: Store, toy_run: MakeRun) -> None:
        def compute(run: Run, workspace: Workspace) -> Outcome:
            raise OSError(errno.ENOSPC, "No space left on device")

        runs = [toy_run(seed=0), toy_run(seed=1)]
        with pytest.raises(OSError, match="No space left"):
            run_here(runs, compute, store, Options(), quiet(runs))
        assert store.state(runs[1]) == "missing"


class OnCluster(NamedTuple):
    plan: list[Run]
    bad: Run
    store: Store
    reports: list[Report]


@pytest.fixture(scope="module")
def on_cluster(tmp_path_factory: pytest.TempPathFactory) -> OnCluster:
    """Some runs of the smoke plan and one that raises, computed by two workers."""

    def compute(run: Run, workspace: Workspace) -> Outcome:  # inside a function, so that it is sent whole
        if run.experiment == "bad":
            raise ZeroDivisionError("on purpose")
        return papers.compute(run, workspace)

    plan, store = vae2013.plan("smoke", 1)[:4], Store(tmp_path_factory.mktemp("cluster"))
    bad = replace(plan[-1], experiment="bad")
    runs = [bad, *plan]
    reports = run_on_cluster(runs, compute, store, Options(), quiet(runs), workers=2)
    return OnCluster(plan, bad, store, reports)


def test_a_cluster_gives_the_same_bits(on_cluster: OnCluster, smoke: Path, store: Store, written: Read) -> None:
    """The whole smoke plan: by two workers, as the command ran it, and here, one run after another."""
    plan = vae2013.plan("smoke", 1)
    run_here(plan, papers.compute, store, Options(), quiet(plan))
    for run in plan:
        assert written(Store(smoke), run) == written(store, run)
    for run in on_cluster.plan:
        assert written(on_cluster.store, run) == written(store, run)
    assert {"weights.safetensors", "samples.png"} <= written(store, plan[0]).keys()


def test_a_run_that_fails_on_a_worker_does_not_take_the_others_down(on_cluster: OnCluster) -> None:
    plan, bad, store, reports = on_cluster
    assert endings(reports) == {**{run.experiment: "finished" for run in plan}, "bad": "crashed"}
    said = {report.run.experiment: report.said for report in reports}
    assert "ZeroDivisionError: on purpose" in said["bad"]
    assert store.state(bad) == "begun"
    assert (store.begun_folder(bad) / "traceback.txt").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://nowhere", "127.0.0.1:not-a-port"])
def test_no_scheduler_at_the_address(
    store: Store, toy_run: MakeRun, toy: Compute, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(distributed, "Client", partial(_impatient, distributed.Client))
    with pytest.raises(UserError, match="No dask scheduler answers at") as caught:
        run_on_cluster([toy_run()], toy, store, Options(), quiet([toy_run()]), workers=1, scheduler=address)
    assert address in str(caught.value)
    assert "--scheduler" in str(caught.value)
    assert store.state(toy_run()) == "missing"


def _impatient(client: Callable[..., object], address: str, timeout: float) -> object:
    assert timeout <= 10
    return client(address, timeout=0.2)


@pytest.mark.parametrize(
    ("limit", "scheduler", "sentence"),
    [
        ("much", None, "'much' is no amount of memory: write 4GB"),
        ("100MB", None, "'100MB' is too little"),
        ("4GB", "tcp://there:1", "those of a scheduler have their own"),
    ],
)
def test_a_memory_limit_that_cannot_be(
    store: Store, toy_run: MakeRun, toy: Compute, limit: str, scheduler: str | None, sentence: str
) -> None:
    runs = [toy_run()]
    with pytest.raises(UserError, match=sentence):
        run_on_cluster(runs, toy, store, Options(), quiet(runs), workers=1, scheduler=scheduler, memory_limit=limit)


@pytest.mark.slow
def test_a_worker_over_its_memory_is_killed_and_the_others_go_on(store: Store, tiny_aevb: MakeRun) -> None:
    def compute(run: Run, workspace: Workspace) -> Outcome:  # inside a function, so that it is sent whole
        hoard, until = [], time.monotonic() + 120
        while run.experiment == "greedy" and time.monotonic() < until:
            hoard.append(bytearray(b"x" * 20_000_000))
            time.sleep(0.02)
        return Outcome({}, [], {})

    runs = [replace(tiny_aevb(), experiment=name) for name in ("greedy", "modest")]
    reports = run_on_cluster(runs, compute, store, Options(), quiet(runs), workers=2, memory_limit="1GB")
    assert endings(reports) == {"greedy": "crashed", "modest": "finished"}
    said = {report.run.experiment: report.said for report in reports}
    assert "its worker died 2 times, most likely for want of memory (it may have 1.0 GB" in said["greedy"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    def test_writes_lines_to_what_is_no_terminal(self, toy_run: MakeRun) -> None:
        runs, stream = [toy_run(seed=0), toy_run(seed=1)], io.StringIO()
        with Progress(runs, stream, every=0) as progress:
            progress.advance(runs[0], 1, 4)
            progress.advance(runs[0], 2, 4)
            progress.ended(Report(runs[0], "finished", 12.34))
            progress.advance(runs[1], 1, 2)
        text = stream.getvalue()
        assert "\r" not in text
        assert "\x1b" not in text
        lines = text.splitlines()
        assert [line.split(",")[:2] for line in lines[:2]] == [
            ["0/2 runs", " 12% of the work"],
            ["0/2 runs", " 25% of the work"],
        ]
        assert lines[2] == "toy2000 smoke toy seed 0: finished after 12.3 s"
        assert lines[3].startswith("1/2 runs, 75% of the work, about ")

    def test_what_was_found_done_does_not_count_as_speed(
        self, toy_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lib.execution.progress.time", SimpleNamespace(monotonic=lambda: 0))
        runs, stream = [toy_run(seed=seed) for seed in range(4)], io.StringIO()
        with Progress(runs, stream, every=0) as progress:
            monkeypatch.setattr("lib.execution.progress.time", SimpleNamespace(monotonic=lambda: 100))
            progress.ended(Report(runs[0], "kept", 0.0))
            progress.advance(runs[1], 50, 100)  # goes on from half
            progress.advance(runs[1], 75, 100)
            progress.advance(runs[2], 100, 100)  # a short one, heard of when it was done
        lines = stream.getvalue().splitlines()
        assert lines[0] == "1/4 runs, 38% of the work"
        assert lines[1] == "1/4 runs, 44% of the work, about 15:00 left"  # a quarter in 100 s, 2.25 to do
        assert lines[2] == "1/4 runs, 69% of the work, about 01:40 left"

    def test_a_run_counts_by_what_it_is_expected_to_take(
        self, toy_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lib.execution.progress.time", SimpleNamespace(monotonic=lambda: 0))
        runs, stream = [toy_run(seed=seed) for seed in range(3)], io.StringIO()
        seconds = {runs[0].fingerprint: 30.0, runs[1].fingerprint: 10.0}  # of the third the mean, 20
        with Progress(runs, stream, every=0, seconds=seconds) as progress:
            monkeypatch.setattr("lib.execution.progress.time", SimpleNamespace(monotonic=lambda: 100))
            for run in runs:
                progress.advance(run, 0, 4)
            progress.advance(runs[0], 2, 4)
            progress.advance(runs[1], 4, 4)
            progress.advance(runs[2], 1, 4)
        assert [line.split(", ", 1)[1] for line in stream.getvalue().splitlines()[3:]] == [
            "25% of the work, about 05:00 left",
            "42% of the work, about 02:20 left",
            "50% of the work, about 01:40 left",
        ]

    def test_runs_expected_to_take_no_time_count_alike(self, toy_run: MakeRun) -> None:
        runs, stream = [toy_run(seed=seed) for seed in range(2)], io.StringIO()
        seconds = dict.fromkeys((run.fingerprint for run in runs), 0.0)
        with Progress(runs, stream, every=0, seconds=seconds) as progress:
            progress.advance(runs[0], 1, 1)
        assert stream.getvalue().startswith("0/2 runs, 50% of the work")

    def test_a_bar_goes_on_where_its_run_does(self, toy_run: MakeRun) -> None:
        runs, stream = [toy_run(seed=0), toy_run(seed=1)], Terminal()
        with Progress(runs, stream) as progress:
            progress.advance(runs[0], 3, 4)
            (bar,) = progress._bars.values()
            assert (bar.initial, bar.n) == (0.75, 0.75)
            assert progress._bar is not None
            assert (progress._bar.initial, progress._bar.n) == (0.75, 0.75)
            progress.ended(Report(runs[1], "kept", 0.0))
            assert progress._bar.initial == 1.75

    def test_is_silent_between_lines(self, toy_run: MakeRun) -> None:
        stream = io.StringIO()
        with Progress([toy_run()], stream, every=3600) as progress:
            for step in range(100):
                progress.advance(toy_run(), step, 100)
        assert stream.getvalue() == ""

    def test_a_kept_run_is_told_only_if_there_is_something_to_say(self, toy_run: MakeRun) -> None:
        stream = io.StringIO()
        with Progress([toy_run()], stream) as progress:
            progress.ended(Report(toy_run(), "kept", 0.0))
            assert stream.getvalue() == ""
            progress.ended(Report(toy_run(), "crashed", 1.0, "KeyError: 'x'"))
        assert stream.getvalue() == "toy2000 smoke toy seed 0: crashed after 1.0 s: KeyError: 'x'\n"

    def test_a_line_a_run_that_is_computed_on_a_terminal(self, toy_run: MakeRun) -> None:
        runs, stream = [toy_run(seed=seed) for seed in range(3)], Terminal()
        with Progress(runs, stream) as progress:
            progress.advance(runs[0], 1, 4)
            progress.advance(runs[1], 1, 2)
            text = stream.getvalue()
            assert "toy2000 smoke toy seed 0  25 %" in text
            assert "toy2000 smoke toy seed 1  50 %" in text
            assert "0/3 runs  25 %" in text
            assert "seed 2" not in text
            assert "\x1b[A" in text  # it moves between lines
            progress.ended(Report(runs[0], "finished", 1.0))
            assert len(progress._bars) == 1
        assert "\x1b[A" in stream.getvalue()

    def test_a_notebook_has_the_bar_for_all_alone(self, toy_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
        runs, stream = [toy_run(seed=seed) for seed in range(2)], io.StringIO()
        with Progress(runs, stream) as progress:
            progress.advance(runs[0], 1, 2)
        assert "0/2 runs  25 %" in stream.getvalue()
        assert "seed" not in stream.getvalue()

    def test_a_bar_on_a_terminal(self, toy_run: MakeRun) -> None:
        stream = Terminal()
        with Progress([toy_run()], stream) as progress:
            progress.advance(toy_run(), 1, 2)
            progress.ended(Report(toy_run(), "finished", 1.0))
        assert "0/1 runs" in stream.getvalue()
        assert "1/1 runs" in stream.getvalue()
        assert "finished after 1.0 s" in stream.getvalue()
