"""One run, computed exactly once, in the same bits whatever interrupts it."""

import errno
import importlib
import json
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.errors import UserError
from lib.execution.execute import Compute, Options, Report, deterministic, execute
from lib.execution.runs import Failed, Run, Store
from lib.execution.workspace import CHECKPOINT, Outcome, Workspace, require_finite
from lib.training.checkpoints import load_checkpoint
from lib.training.provenance import REPOSITORY
from replications import vae2013

MakeRun = Callable[..., Run]
Read = Callable[[Store, Run], dict[str, bytes]]


class TestOnce:
    def test_a_finished_run_is_kept(self, store: Store, toy_run: MakeRun, toy: Compute, written: Read) -> None:
        first = execute(toy_run(), toy, store, Options())
        bits = written(store, toy_run())
        second = execute(toy_run(preset="laptop"), toy, store, Options())  # the same numbers by another name
        assert (first.ending, second.ending, toy.calls) == ("finished", "kept", 1)  # type: ignore[attr-defined]
        assert second.said == ""
        assert written(store, toy_run()) == bits

    def test_nothing_is_left_beside_it(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        execute(toy_run(), toy, store, Options())
        folders = {path.name for path in (store.root / "runs" / "toy2000").iterdir()}
        assert folders - {".locks"} == {toy_run().fingerprint}

    def test_a_damaged_run_is_set_aside_and_computed_again(
        self, store: Store, toy_run: MakeRun, toy: Compute, written: Read
    ) -> None:
        execute(toy_run(), toy, store, Options())
        bits = written(store, toy_run())
        (store.folder(toy_run()) / "results.json").write_text("{}")
        report = execute(toy_run(), toy, store, Options())
        assert (report.ending, toy.calls) == ("finished", 2)  # type: ignore[attr-defined]
        assert report.said.startswith("was damaged (results.json does not have the digest")
        assert written(store, toy_run()) == bits

    def test_what_an_earlier_process_left_half_written_is_not_in_the_way(
        self, store: Store, toy_run: MakeRun, toy: Compute
    ) -> None:
        """Killed while it wrote the finished folder, and while it wrote a checkpoint."""
        whole = store.folder(toy_run()).with_name(toy_run().fingerprint + ".whole")
        whole.mkdir(parents=True)
        (whole / "junk.json").write_text("{")
        store.begun_folder(toy_run()).mkdir()
        (store.begun_folder(toy_run()) / CHECKPOINT).write_bytes(b"half")
        assert execute(toy_run(), toy, store, Options()).ending == "finished"
        assert not (store.folder(toy_run()) / "junk.json").exists()


def train_until_it_diverges(run: Run, workspace: Workspace) -> Outcome:
    model = nn.Linear(2, 1)
    history = []
    for step in range(1, 100):
        loss = 2.0**step if step < 8 else math.inf
        history.append({"step": step, "loss": require_finite(loss, "The loss", step, history)})
        workspace.keep({"step": step, "history": history}, 100, model=model)
    raise AssertionError("unreachable")


class TestDiverged:
    @pytest.fixture
    def report(self, store: Store, toy_run: MakeRun) -> Report:
        return execute(toy_run(), train_until_it_diverges, store, Options(checkpoint_seconds=0))

    def test_ends_as_a_failed_run_with_its_reason(self, report: Report, store: Store, toy_run: MakeRun) -> None:
        assert report.ending == "failed"
        assert report.said == "The loss became inf at step 8: the run diverged and was stopped."
        assert store.read(toy_run()) == Failed(toy_run(), store.folder(toy_run()), report.said, 8)

    def test_keeps_the_evidence(self, report: Report, store: Store, toy_run: MakeRun) -> None:
        folder = store.folder(toy_run())
        assert (folder / "history.csv").read_text().splitlines()[-1] == "7,128.0"
        last = load_checkpoint(folder / CHECKPOINT)
        assert last is not None
        assert last.state["step"] == 7  # the last finite one
        record = json.loads((folder / "run.json").read_text())
        assert record["fingerprint"] == toy_run().fingerprint
        assert abs(date.fromisoformat(record["finished_on"]) - datetime.now(UTC).date()) <= timedelta(days=1)
        assert not store.begun_folder(toy_run()).exists()

    def test_is_not_computed_again(self, report: Report, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        again = execute(toy_run(), toy, store, Options())
        assert (again.ending, again.said, toy.calls) == ("failed", report.said, 0)  # type: ignore[attr-defined]


class TestCrash:
    def test_is_told_kept_and_tried_again(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        def bug(run: Run, workspace: Workspace) -> Outcome:
            raise KeyError("no such column")

        report = execute(toy_run(), bug, store, Options())
        assert report.ending == "crashed"
        assert "KeyError: 'no such column'" in report.said
        traceback = store.begun_folder(toy_run()) / "traceback.txt"
        assert str(traceback) in report.said
        assert "in bug\n" in traceback.read_text()
        assert store.state(toy_run()) == "begun"
        assert execute(toy_run(), toy, store, Options()).ending == "finished"
        assert not traceback.exists()

    def test_an_interrupt_is_no_crash(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        def interrupted(run: Run, workspace: Workspace) -> Outcome:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            execute(toy_run(), interrupted, store, Options())
        assert execute(toy_run(), toy, store, Options()).ending == "finished"  # and the lock is free

    def test_an_error_of_the_user_is_no_crash(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        def without_data(run: Run, workspace: Workspace) -> Outcome:
            raise UserError("There is no mnist: regen data mnist brings it.")

        with pytest.raises(UserError, match="There is no mnist"):
            execute(toy_run(), without_data, store, Options())
        assert execute(toy_run(), toy, store, Options()).ending == "finished"

    def test_a_full_disk_is_raised_and_the_same_call_goes_on(
        self,
        store: Store,
        tiny_aevb: MakeRun,
        monkeypatch: pytest.MonkeyPatch,
        written: Read,
        undisturbed: dict[str, bytes],
    ) -> None:
        run, fsync, calls = tiny_aevb(), os.fsync, []

        def full(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) > 5:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            execute(run, vae2013.compute, store, Options(checkpoint_seconds=0))
        assert store.state(run) == "begun"
        monkeypatch.undo()
        assert execute(run, vae2013.compute, store, Options()).ending == "finished"
        assert resumed_at(store, run) == [5]
        assert written(store, run) == undisturbed


def resumed_at(store: Store, run: Run) -> list[int]:
    steps: list[int] = json.loads((store.folder(run) / "run.json").read_text())["resumed_at_steps"]
    return steps


@pytest.fixture(scope="module")
def undisturbed_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def undisturbed(undisturbed_store: Store, tiny_aevb: MakeRun, written: Read) -> dict[str, bytes]:
    """The files of the tiny AEVB run, computed once in one go."""
    execute(tiny_aevb(), vae2013.compute, undisturbed_store, Options())
    assert resumed_at(undisturbed_store, tiny_aevb()) == []
    files = written(undisturbed_store, tiny_aevb())
    assert sorted(files) == ["history.csv", "results.json", "samples.png", "weights.safetensors"]
    return files


class TestDeadline:
    def test_stops_and_goes_on_in_the_same_bits(
        self, store: Store, tiny_aevb: MakeRun, written: Read, undisturbed: dict[str, bytes]
    ) -> None:
        """A deadline that has passed lets each call make one step: the run is cut at every one of its first steps."""
        run = tiny_aevb()
        for step in (1, 2, 3):
            report = execute(run, vae2013.compute, store, Options(deadline=time.monotonic()))
            assert (report.ending, report.said) == ("out of time", f"out of time after step {step} of 200")
            assert store.state(run) == "begun"
        assert execute(run, vae2013.compute, store, Options()).ending == "finished"
        assert resumed_at(store, run) == [1, 2, 3]
        assert written(store, run) == undisturbed

    def test_what_earlier_attempts_were_made_with_is_told_where_it_differs(
        self, store: Store, tiny_aevb: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = importlib.import_module("lib.execution.execute")
        here, run = module.stable_provenance, tiny_aevb()
        for device in ("NVIDIA H100 80GB HBM3", None, None):
            there = {} if device is None else {"device": device, "source_sha256": "e" * 64}
            monkeypatch.setattr(module, "stable_provenance", lambda *a, other=there: here(*a) | other)
            execute(run, vae2013.compute, store, Options(deadline=time.monotonic()))
        assert execute(run, vae2013.compute, store, Options()).ending == "finished"
        told = store.read(run).record["provenance"]  # type: ignore[union-attr]
        assert told["begun_with"] == [{"until_step": 1, "device": "NVIDIA H100 80GB HBM3", "source_sha256": "e" * 64}]
        assert told["device"] == here(run.paper, torch.device("cpu"))["device"]

    def test_the_time_of_earlier_attempts_counts(self, store: Store, toy_run: MakeRun) -> None:
        def slow(run: Run, workspace: Workspace) -> Outcome:
            model = nn.Linear(1, 1)
            state = workspace.resume_(model=model)
            for step in range(state["step"] + 1, 3):
                time.sleep(0.1)
                workspace.keep({"step": step, "history": []}, 2, model=model)
            return Outcome({}, [], {})

        assert execute(toy_run(), slow, store, Options(deadline=time.monotonic())).ending == "out of time"
        assert execute(toy_run(), slow, store, Options()).seconds > 0.2

    def test_a_deadline_in_the_queue_for_another_process(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        lock = store.lock_path(toy_run())
        lock.parent.mkdir(parents=True)
        hold = "import filelock, sys\nwith filelock.FileLock(sys.argv[1]):\n print('held', flush=True)\n input()"
        with subprocess.Popen(
            [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            report = execute(toy_run(), toy, store, Options(deadline=time.monotonic() + 0.2))
            assert (report.ending, toy.calls) == ("out of time", 0)  # type: ignore[attr-defined]
            assert "another process" in report.said
            other.kill()
        assert execute(toy_run(), toy, store, Options()).ending == "finished"  # the system freed the lock


ERROR = 2  # torch.get_deterministic_debug_mode(): nondeterministic algorithms raise


class TestDeterministic:
    @staticmethod
    def settings() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.get_deterministic_debug_mode(),
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
        )

    @pytest.mark.parametrize("fails", [False, True])
    def test_restores_what_was_set(self, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
        threads = torch.get_num_threads()
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
        torch.set_deterministic_debug_mode("warn")
        torch.set_num_threads(3)
        before = self.settings()
        inside = None
        try:
            with deterministic("cpu"):
                inside = self.settings()
                if fails:
                    raise KeyError
        except KeyError:
            pass
        assert inside == (1, ERROR, False, False, False)
        assert self.settings() == before
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode("default")

    def test_holds_while_a_run_is_computed_and_not_after(self, store: Store, toy_run: MakeRun) -> None:
        before, inside = self.settings(), []

        def compute(run: Run, workspace: Workspace) -> Outcome:
            inside.append(self.settings())
            return Outcome({}, [], {})

        execute(toy_run(), compute, store, Options())
        assert inside == [(1, ERROR, False, False, False)]
        assert self.settings() == before

    def test_imports_no_compiler(self) -> None:
        """PyTorch's takes a second and a half of each process, and none of it is used."""
        program = (
            "import sys\nfrom lib.execution.execute import deterministic\n"
            "with deterministic('cpu'):\n    assert 'torch._inductor' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def test_checkpoints_and_deadlines_move_no_bit(
    store: Store, tiny_aevb: MakeRun, written: Read, undisturbed: dict[str, bytes]
) -> None:
    options = Options(checkpoint_seconds=0, deadline=time.monotonic() + 600)
    execute(tiny_aevb(), vae2013.compute, store, options)
    assert written(store, tiny_aevb()) == undisturbed


def test_the_callers_random_state_moves_no_bit_and_is_not_moved(
    store: Store, tiny_aevb: MakeRun, written: Read, undisturbed: dict[str, bytes]
) -> None:
    torch.manual_seed(12345)
    execute(tiny_aevb(), vae2013.compute, store, Options())
    assert written(store, tiny_aevb()) == undisturbed


# --- other processes ---------------------------------------------------------------------------------------------

COMPUTE = """
import pickle, sys
from pathlib import Path
from lib.execution.execute import Options, execute
from lib.execution.runs import Store
from replications import vae2013

run = pickle.loads(Path(sys.argv[1]).read_bytes())
print(execute(run, vae2013.compute, Store(Path(sys.argv[2])), Options(checkpoint_seconds=0.02)).ending)
"""


@pytest.fixture
def start(tmp_path: Path, store: Store) -> Callable[[Run], subprocess.Popen[str]]:
    """Starts a process that computes a real run into the store and prints how it ended."""

    def process(run: Run) -> subprocess.Popen[str]:
        path = tmp_path / "run.pickle"
        path.write_bytes(pickle.dumps(run))
        command = [sys.executable, "-c", COMPUTE, str(path), str(store.root)]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return process


Start = Callable[[Run], "subprocess.Popen[str]"]


def written_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_a_run_that_is_killed_again_and_again_has_the_same_bits(
    store: Store, tmp_path: Path, tiny_aevb: MakeRun, start: Start, written: Read
) -> None:
    run, calm = tiny_aevb(n_samples=20_000), Store(tmp_path / "calm")
    seconds = execute(run, vae2013.compute, calm, Options()).seconds
    choose, killed = random.Random(2013), 0
    for attempt in range(2):
        # The first is killed as soon as it has begun or a little later, the others when they went on for a while.
        awaited = store.begun_folder(run) / CHECKPOINT if attempt else store.begun_folder(run)
        before, process = written_at(awaited), start(run)
        while written_at(awaited) == before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(choose.uniform(0, 0.3) * seconds)
        process.kill()
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL and store.state(run) == "begun"
    assert killed > 0
    out, err = start(run).communicate(timeout=120)
    assert out in ("finished\n", "kept\n"), err
    assert resumed_at(store, run)
    assert all(0 < step <= 200 for step in resumed_at(store, run))
    assert written(store, run) == written(calm, run)


def test_two_processes_share_a_run(
    store: Store, tiny_aevb: MakeRun, start: Start, written: Read, undisturbed: dict[str, bytes]
) -> None:
    both = [start(tiny_aevb()), start(tiny_aevb())]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(out for out, _ in said) == ["finished\n", "kept\n"]
    folders = {path.name for path in (store.root / "runs" / "vae2013").iterdir()} - {".locks"}
    assert folders == {tiny_aevb().fingerprint}
    assert resumed_at(store, tiny_aevb()) == []
    assert written(store, tiny_aevb()) == undisturbed
