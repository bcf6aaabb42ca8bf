"""What a run does on a dask worker, with a worker that is made up."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import distributed
import pytest

from lib.errors import UserError
from lib.execution.execute import Compute, Options
from lib.execution.runs import Run, Store
from lib.execution.worker import HEARTBEAT, UNENDED, WorkersLost, execute_on_worker, read_heartbeat
from lib.execution.workspace import Outcome, Workspace

MakeRun = Callable[..., Run]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A worker of one thread and two gigabytes that is asked for the task "key"."""
    made_up = SimpleNamespace(
        address="tcp://here",
        status=distributed.Status.running,
        state=SimpleNamespace(nthreads=1, tasks={"key": SimpleNamespace(state="executing")}),
        memory_manager=SimpleNamespace(memory_limit=2_000_000_000),
        get_current_task=lambda: "key",
    )
    monkeypatch.setattr(distributed, "get_worker", lambda: made_up)
    return made_up


def stepping(run: Run, workspace: Workspace) -> Outcome:
    """One step, after which progress is due."""
    workspace._shown = -100.0
    workspace.keep({"step": 1, "history": []}, 2)
    return Outcome({}, [], {})


def test_a_worker_of_several_threads_is_refused(
    worker: SimpleNamespace, store: Store, toy_run: MakeRun, toy: Compute
) -> None:
    worker.state.nthreads = 4
    with pytest.raises(UserError, match=r"tcp://here takes 4 runs at a time.*--nthreads 1"):
        execute_on_worker(toy_run(), toy, store, Options(), "me")
    assert store.state(toy_run()) == "missing"


def test_the_device_is_the_workers(worker: SimpleNamespace, store: Store, toy_run: MakeRun) -> None:
    devices = []

    def compute(run: Run, workspace: Workspace) -> Outcome:
        devices.append(workspace.device.type)
        return Outcome({}, [], {})

    execute_on_worker(toy_run(), compute, store, Options(device="auto"), "me")
    assert devices[0] in ("cpu", "cuda")
    with pytest.raises(UserError, match="cannot be used"):
        execute_on_worker(toy_run(seed=1), compute, store, Options(device="nonsense"), "me")


class TestAttempts:
    def attempt(self, store: Store, run: Run, died: str, compute: Compute) -> str:
        """Computes the run after what `died` names began it and did not come back."""
        store.begun_folder(run).mkdir(parents=True)
        (store.begun_folder(run) / UNENDED).write_text(died)
        return execute_on_worker(run, compute, store, Options(), "me").ending

    @pytest.mark.parametrize("died", ["", "me", "another another", "another me another"])
    def test_as_long_as_fewer_than_two_of_mine_died(
        self, worker: SimpleNamespace, store: Store, toy_run: MakeRun, toy: Compute, died: str
    ) -> None:
        assert self.attempt(store, toy_run(), died, toy) == "finished"

    def test_no_third(self, worker: SimpleNamespace, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        with pytest.raises(WorkersLost, match=r"died 2 times, most likely for want of memory \(it may have 2\.0 GB"):
            self.attempt(store, toy_run(), "me another me", toy)
        assert toy.calls == 0  # type: ignore[attr-defined]

    def test_counts_only_what_does_not_come_back(self, worker: SimpleNamespace, store: Store, toy_run: MakeRun) -> None:
        seen = []

        def fails(run: Run, workspace: Workspace) -> Outcome:
            seen.append((workspace.folder / UNENDED).read_text())
            raise ZeroDivisionError

        for _ in range(3):
            assert execute_on_worker(toy_run(), fails, store, Options(), "me").ending == "crashed"
        assert seen == ["me"] * 3
        assert (store.begun_folder(toy_run()) / UNENDED).read_text() == ""


def cancelled(worker: SimpleNamespace) -> None:
    worker.state.tasks["key"].state = "cancelled"


def forgotten(worker: SimpleNamespace) -> None:
    worker.state.tasks.clear()


def closing(worker: SimpleNamespace) -> None:
    worker.status = distributed.Status.closing


class TestStopsWhenNobodyWaits:
    @pytest.mark.parametrize("happens", [cancelled, forgotten, closing])
    def test_at_its_next_step(
        self, worker: SimpleNamespace, store: Store, toy_run: MakeRun, happens: Callable[[SimpleNamespace], None]
    ) -> None:
        happens(worker)
        report = execute_on_worker(toy_run(), stepping, store, Options(), "me")
        assert (report.ending, report.said) == (
            "out of time",
            "stopped after step 1 of 2: nobody waits for it any more",
        )
        assert not (store.begun_folder(toy_run()) / HEARTBEAT).exists()

    @pytest.mark.parametrize("state", ["executing", "resumed"])
    def test_not_else(self, worker: SimpleNamespace, store: Store, toy_run: MakeRun, state: str) -> None:
        worker.state.tasks["key"].state = state
        assert execute_on_worker(toy_run(), stepping, store, Options(), "me").ending == "finished"


def test_the_heartbeat_is_read_from_the_folder(tmp_path: Path) -> None:
    assert read_heartbeat(tmp_path / "none") is None
    assert read_heartbeat(tmp_path) == (0, 1)
    (tmp_path / HEARTBEAT).write_text("[3, 7]")
    assert read_heartbeat(tmp_path) == (3, 7)
    (tmp_path / HEARTBEAT).write_text("[3,")
    assert read_heartbeat(tmp_path) == (0, 1)
