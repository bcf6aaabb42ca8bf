"""A scheduler and workers as somebody else starts them, on loopback: what dies, what is stopped, who asks twice."""

import errno
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import distributed
import pytest
import torch
from filelock import FileLock
from torch import nn

from lib.errors import RunFailed
from lib.execution import executors
from lib.execution.execute import Compute, Options, Report
from lib.execution.executors import run_here, run_on_cluster
from lib.execution.progress import Progress
from lib.execution.runs import Run, Store
from lib.execution.workspace import CHECKPOINT, Outcome, Workspace
from lib.training.provenance import REPOSITORY

MakeRun = Callable[..., Run]
Read = Callable[[Store, Run], dict[str, bytes]]
OFTEN = Options(checkpoint_seconds=0)


class Cluster:
    """A scheduler at a port of its own, and two workers that end when it goes, as dask's do."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.address = folder, f"tcp://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.scheduler = self._process("scheduler", "--host", "127.0.0.1", "--port", self.port, "--no-dashboard")
        self.workers = self._process("worker", self.address, "--nworkers", 2, "--nthreads", 1, "--no-dashboard")

    def wait(self) -> None:
        for _ in range(600):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError((self.folder / "scheduler.log").read_text())

    def _process(self, kind: str, *arguments: object) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, arguments)]
        with (self.folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)

    def stop(self) -> None:
        for process in (self.workers, self.scheduler):
            process.terminate()
        for process in (self.workers, self.scheduler):
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("dask"))
    started.wait()
    yield started
    started.stop()


def quiet(runs: Sequence[Run]) -> Progress:
    return Progress(runs, io.StringIO())


def training(log: Path, steps: int = 20, seconds: float = 0.02) -> Compute:
    """A training whose every step counts; what its experiment is called befalls it from step 10.

    Made here inside, so that it is sent to workers whole.
    """

    def befall(run: Run, begun: int) -> None:
        if run.experiment == "crashes" or (run.experiment == "crashes-once" and begun == 1):
            raise ZeroDivisionError("on purpose")
        if run.experiment == "dies" or (run.experiment == "dies-once" and begun == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if run.experiment == "full-disk":
            raise OSError(errno.ENOSPC, "No space left on device")

    def compute(run: Run, workspace: Workspace) -> Outcome:
        path = log / run.name.replace(" ", "-")
        with path.open("a") as file:
            file.write("begun\n")
        begun = len(path.read_text().split())
        model = nn.Linear(2, 2)
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
        state = workspace.resume_(model=model)
        for step in range(state["step"] + 1, steps + 1):
            with torch.no_grad():
                model.weight.mul_(0.9).add_(torch.randn(2, 2, generator=workspace.streams.at("step", step)))
            time.sleep(seconds)
            workspace.keep({"step": step, "history": []}, steps, model=model)
            if step >= 10:
                befall(run, begun)
        return Outcome({}, [], {"weight": model.weight})

    return compute


def begun_times(log: Path) -> Counter[str]:
    """How often each run was begun, by its experiment's name."""
    return Counter(
        {path.name.split("-", 2)[-1].removesuffix("-seed-0"): len(path.read_text().split()) for path in log.iterdir()}
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def named(tiny_aevb: MakeRun) -> Callable[..., list[Run]]:
    """Runs of these experiments. Their config is one that every worker can import, and means nothing."""
    return lambda *names: [replace(tiny_aevb(), experiment=name) for name in names]


class Disturbed(NamedTuple):
    reports: dict[str, Report]
    begun: Counter[str]
    said: str
    store: Store


# The whole file takes a minute and a half on two free cores, most of it for workers to start again and import PyTorch.
pytestmark = pytest.mark.slow
NAMES = ("dies", "dies-once", "crashes", "crashes-once", "calm")


@pytest.fixture(scope="module")
def disturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    """Runs that crash and runs whose worker dies, once and always, and one that nothing befalls."""
    from replications import vae2013

    folder, stream = tmp_path_factory.mktemp("disturbed"), io.StringIO()
    (folder / "log").mkdir()
    runs = [replace(vae2013.plan("smoke", 1)[0], experiment=name) for name in NAMES]
    store, compute = Store(folder / "store"), training(folder / "log")
    reports = run_on_cluster(runs, compute, store, OFTEN, Progress(runs, stream), workers=0, scheduler=cluster.address)
    by_name = {report.run.experiment: report for report in reports}
    return Disturbed(by_name, begun_times(folder / "log"), stream.getvalue(), store)


class TestWhatFails:
    def test_once_goes_on_from_its_checkpoint_in_the_same_bits(
        self, disturbed: Disturbed, store: Store, written: Read, tmp_path: Path
    ) -> None:
        calm = disturbed.reports["calm"].run
        run_here([calm], training(tmp_path), store, Options(), quiet([calm]))
        for name in ("dies-once", "crashes-once", "calm"):
            report = disturbed.reports[name]
            assert report.ending == "finished"
            weights = written(disturbed.store, report.run)["weights.safetensors"]
            assert weights == written(store, calm)["weights.safetensors"]
            finished = disturbed.store.read(report.run)
            assert finished.provenance["resumed_at_steps"] == ([] if name == "calm" else [10])  # type: ignore[union-attr]
        assert disturbed.begun["dies-once"] == disturbed.begun["crashes-once"] == 2
        assert disturbed.begun["calm"] == 1

    def test_twice_is_told_and_tried_no_more(self, disturbed: Disturbed) -> None:
        assert disturbed.reports["crashes"].ending == disturbed.reports["dies"].ending == "crashed"
        assert disturbed.begun["crashes"] == disturbed.begun["dies"] == 2
        assert "ZeroDivisionError: on purpose" in disturbed.reports["crashes"].said
        assert "its worker died 2 times, most likely for want of memory" in disturbed.reports["dies"].said
        assert disturbed.said.count("crashes seed 0 goes on from its last checkpoint, for it crashed: Zero") == 1
        assert disturbed.store.state(disturbed.reports["dies"].run) == "begun"

    def test_the_same_command_again_gives_it_two_more_attempts(
        self, disturbed: Disturbed, cluster: Cluster, log: Path
    ) -> None:
        run = disturbed.reports["dies"].run
        calm = training(log)

        def harmless(run: Run, workspace: Workspace) -> Outcome:
            return calm(replace(run, experiment="calm"), workspace)

        (report,) = run_on_cluster(
            [run], harmless, disturbed.store, OFTEN, quiet([run]), workers=0, scheduler=cluster.address
        )
        assert report.ending == "finished"

    def test_a_full_disk_stops_all(
        self, cluster: Cluster, store: Store, log: Path, named: Callable[..., list[Run]]
    ) -> None:
        runs = named("full-disk", *(f"waits-{number}" for number in range(8)))
        with pytest.raises(OSError, match="No space left"):
            run_on_cluster(
                runs, training(log, seconds=0.3), store, OFTEN, quiet(runs), workers=0, scheduler=cluster.address
            )
        require_idle(cluster)
        assert len(begun_times(log)) < len(runs)


def require_idle(cluster: Cluster, within: float = 20.0) -> None:
    """The cluster has both its workers, and they compute nothing."""
    with distributed.Client(cluster.address, timeout=10) as client:
        until = time.monotonic() + within
        while time.monotonic() < until:
            active = client.run(lambda dask_worker: len(dask_worker.active_threads))
            if len(active) == 2 and not any(active.values()):
                return
            time.sleep(0.1)
    raise AssertionError(f"still computing after {within} s: {active}")


class Interrupted(Progress):
    """Ctrl-C as soon as a run has made some steps."""

    def advance(self, run: Run, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt


class TestStopped:
    def test_ctrl_c_frees_the_workers(
        self, cluster: Cluster, store: Store, log: Path, named: Callable[..., list[Run]]
    ) -> None:
        runs = named(*(f"long-{number}" for number in range(6)))
        with pytest.raises(KeyboardInterrupt):
            run_on_cluster(
                runs,
                training(log, steps=10_000, seconds=0.05),
                store,
                OFTEN,
                Interrupted(runs, io.StringIO()),
                workers=0,
                scheduler=cluster.address,
            )
        require_idle(cluster)
        assert 1 <= len(begun_times(log)) <= 4
        assert {store.state(run) for run in runs} == {"begun", "missing"}

    def test_a_deadline_is_kept_from_here(
        self, cluster: Cluster, store: Store, log: Path, named: Callable[..., list[Run]]
    ) -> None:
        runs, began = named("long", "longer", "longest"), time.monotonic()
        options = Options(checkpoint_seconds=0, deadline=began + 3)
        reports = run_on_cluster(
            runs,
            training(log, steps=10_000, seconds=0.05),
            store,
            options,
            quiet(runs),
            workers=0,
            scheduler=cluster.address,
        )
        assert [report.ending for report in reports] == ["out of time"] * 3
        assert time.monotonic() - began < 20
        require_idle(cluster)


class TestTwoClients:
    def both(self, cluster: Cluster, stores: Sequence[Store], runs: list[Run], log: Path) -> list[list[Report]]:
        found: list[list[Report]] = []

        def client(store: Store) -> None:
            compute = training(log)
            found.append(run_on_cluster(runs, compute, store, OFTEN, quiet(runs), workers=0, scheduler=cluster.address))

        threads = [threading.Thread(target=client, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        return found

    def test_of_one_folder_compute_nothing_twice(
        self, cluster: Cluster, store: Store, log: Path, named: Callable[..., list[Run]]
    ) -> None:
        runs = named(*(f"run-{number}" for number in range(6)))
        found = self.both(cluster, [store, store], runs, log)
        assert [len(reports) for reports in found] == [6, 6]
        assert {report.ending for reports in found for report in reports} <= {"finished", "kept"}
        assert set(begun_times(log).values()) == {1}
        assert {store.state(run) for run in runs} == {"finished"}

    def test_of_two_folders_fill_both(
        self, cluster: Cluster, tmp_path: Path, log: Path, named: Callable[..., list[Run]]
    ) -> None:
        runs, stores = named("one", "two"), [Store(tmp_path / "a"), Store(tmp_path / "b")]
        self.both(cluster, stores, runs, log)
        assert {store.state(run) for store in stores for run in runs} == {"finished"}


class TestScheduler:
    """These take the cluster down, so they come last."""

    def test_started_again_loses_nothing_and_doubles_nothing(
        self, cluster: Cluster, store: Store, log: Path, named: Callable[..., list[Run]], written: Read, tmp_path: Path
    ) -> None:
        runs, stream, reports = named("a", "b", "c", "d", "e"), io.StringIO(), []
        compute = training(log, steps=40, seconds=0.05)

        def client() -> None:
            progress = Progress(runs, stream)
            reports.extend(run_on_cluster(runs, compute, store, OFTEN, progress, workers=0, scheduler=cluster.address))

        thread = threading.Thread(target=client)
        thread.start()
        while not any(store.state(run) == "finished" for run in runs):
            time.sleep(0.05)
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        cluster.workers.wait(timeout=60)  # without their scheduler they end, whatever they compute
        cluster.start()
        thread.join(timeout=120)
        assert len(reports) == 5
        assert {report.ending for report in reports} <= {"finished", "kept"}  # kept: nobody was left to hear of its end
        assert "is gone: waiting" in stream.getvalue()
        begun = begun_times(log)
        assert 5 < sum(begun.values()) <= 7  # only what was being computed was begun again, and went on
        calm = Store(tmp_path / "calm")
        run_here(runs[:1], training(tmp_path, steps=40, seconds=0), calm, Options(), quiet(runs[:1]))
        weights = written(calm, runs[0])["weights.safetensors"]
        assert {written(store, run)["weights.safetensors"] for run in runs} == {weights}

    def test_gone_for_good_is_told(
        self,
        cluster: Cluster,
        store: Store,
        log: Path,
        named: Callable[..., list[Run]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(executors, "PATIENCE_S", 1.0)
        runs = named("a", "b", "c")

        class Killing(Progress):
            def advance(self, run: Run, done: int, total: int) -> None:
                if done:
                    cluster.scheduler.kill()

        with pytest.raises(RunFailed, match=r"is gone\. 0 of 3 runs had ended and are kept; .* the same command goes"):
            run_on_cluster(
                runs,
                training(log, steps=10_000, seconds=0.05),
                store,
                OFTEN,
                Killing(runs, io.StringIO()),
                workers=0,
                scheduler=cluster.address,
            )
        cluster.workers.wait(timeout=60)
        for run in runs:
            store.lock_path(run).parent.mkdir(parents=True, exist_ok=True)
            with FileLock(store.lock_path(run), timeout=0):  # nobody computes it unseen
                pass
        assert any((store.begun_folder(run) / CHECKPOINT).exists() for run in runs)
