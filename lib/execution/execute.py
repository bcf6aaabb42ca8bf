"""Compute one run, exactly once, into its folder."""

import dataclasses
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits

from lib.errors import RunFailed, UserError, is_of_the_disk
from lib.execution.runs import Run, Store, history_csv, write_sums
from lib.execution.workspace import CHECKPOINT, Diverged, Outcome, OutOfTime, Workspace
from lib.results import readable_json, score_to_json
from lib.training.processes import ALONE, Processes
from lib.training.provenance import commit, peak_memory_bytes, stable_provenance

Compute = Callable[[Run, Workspace], Outcome]


class Options(NamedTuple):
    """How to compute; nothing here moves a number on one device."""

    device: str = "cpu"
    checkpoint_seconds: float = 10.0
    deadline: float | None = None  # time.monotonic() at which to stop: one clock for all processes of a machine
    processes: Processes = ALONE  # those that train one run together; their number does move bits


class Report(NamedTuple):
    """What became of one run. `said` is a sentence for the user, empty where there is nothing to say."""

    run: Run
    ending: Literal["finished", "kept", "failed", "out of time", "crashed"]
    seconds: float
    said: str = ""


def not_begun(run: Run, options: Options) -> Report | None:
    """The report of a run for which there is no time left; None while there is."""
    late = options.deadline is not None and time.monotonic() >= options.deadline
    return Report(run, "out of time", 0.0, "no time was left for it") if late else None


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """One thread on a CPU, deterministic algorithms, no TF32; what was set before is restored."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its bits only with a fixed workspace
    threads, strictness = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.set_num_threads(1)
        # As torch.use_deterministic_algorithms(True), which takes a second and a half to import PyTorch's compiler.
        torch.set_deterministic_debug_mode("error")
        memory.fill_uninitialized_memory = False  # a debugging aid that writes each new tensor twice
        with threadpool_limits(1):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(strictness)
        memory.fill_uninitialized_memory = fill


def execute(
    run: Run,
    compute: Compute,
    store: Store,
    options: Options,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Compute `run` unless it is there; go on from its checkpoint if it was begun.

    A second process that wants the same run waits for the first and then finds it finished. A diverged run ends as a
    folder with failure.json and its evidence. An exception nobody expected is kept as traceback.txt beside the
    checkpoint. Errors of the disk and of the user's input are raised.
    """
    began = time.monotonic()
    said = ""
    store.lock_path(run).parent.mkdir(parents=True, exist_ok=True)
    with _alone(store.lock_path(run), options.deadline) as alone:
        if not alone:
            return Report(run, "out of time", time.monotonic() - began, "another process was still computing it")
        state = store.state(run)
        if state in ("finished", "failed"):
            shutil.rmtree(store.begun_folder(run), ignore_errors=True)  # left by a kill between the last two lines
            return Report(run, "kept" if state == "finished" else "failed", 0.0, _reason(store, run))
        if state == "damaged":
            said = f"was damaged ({store.set_aside_damaged(run)}), set aside and computed again"
        folder = store.begun_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        workspace = Workspace(
            folder,
            run.seed,
            options.device,
            checkpoint_seconds=options.checkpoint_seconds,
            deadline=options.deadline,
            progress=progress,
            processes=options.processes,
        )
        try:
            with deterministic(options.device):
                provenance = stable_provenance(run.paper, torch.device(options.device))
                workspace.made_with = [dict(provenance)]
                outcome = compute(run, workspace)
            provenance |= _attempts(workspace)
            _finish(store, run, _finished_files(run, outcome, provenance), workspace, provenance)
            return Report(run, "finished", workspace.seconds, said)
        except OutOfTime as stopped:
            return Report(run, "out of time", workspace.seconds, str(stopped))
        except Diverged as diverged:
            provenance |= _attempts(workspace)
            _finish(store, run, _failed_files(diverged), workspace, provenance)
            return Report(run, "failed", workspace.seconds, diverged.reason)
        except (RunFailed, UserError):
            raise  # missing data: every other run would meet it too
        except Exception as error:  # a bug in one run must not take the others down
            if is_of_the_disk(error):
                raise
            (folder / "traceback.txt").write_text(traceback.format_exc())
            said = f"{type(error).__name__}: {error} (whole traceback in {folder / 'traceback.txt'})"
            return Report(run, "crashed", workspace.seconds, said)


@contextmanager
def _alone(lock_path: Path, deadline: float | None) -> Iterator[bool]:
    """Hold the run's lock; the system frees it when its holder dies. Gives False if the deadline comes first."""
    lock = FileLock(lock_path)
    timeout = -1 if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _attempts(workspace: Workspace) -> dict[str, Any]:
    """What a run's attempts add to the provenance of the last: how many processes they had, and, as `begun_with`, what
    those before were made with (device, processor, versions, source) where that differs, and until which step.
    """
    *earlier, last = workspace.made_with
    steps = workspace.resumed_at[len(workspace.resumed_at) - len(earlier) :]  # an old checkpoint tells of none
    begun_with = [
        {"until_step": step, **differing}
        for step, made_with in zip(steps, earlier, strict=True)
        if (differing := {key: value for key, value in made_with.items() if value != last.get(key)})
    ]
    return {"processes": _processes(workspace), **({"begun_with": begun_with} if begun_with else {})}


def _processes(workspace: Workspace) -> int | str:
    """How many processes trained the run: "1, 2 from step 30" where two went on from a checkpoint of one."""
    said = str(workspace.worlds[0])
    for (before, world), step in zip(pairwise(workspace.worlds), workspace.resumed_at, strict=True):
        said += f", {world} from step {step}" if world != before else ""
    return int(said) if said.isdigit() else said


def _reason(store: Store, run: Run) -> str:
    return getattr(store.read(run), "reason", "")


def _finished_files(run: Run, outcome: Outcome, provenance: dict[str, Any]) -> Callable[[Path], None]:
    record = {
        "schema": 1,
        "paper": run.paper,
        "experiment": run.experiment,
        "preset": run.preset,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
        "scores": {name: score_to_json(score) for name, score in outcome.scores.items()},
        "facts": dict(outcome.facts),
        "provenance": provenance,
    }

    def write(folder: Path) -> None:
        (folder / "results.json").write_text(readable_json(record))
        (folder / "history.csv").write_text(history_csv(outcome.history))
        if outcome.weights:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in outcome.weights.items()}
            save_file(weights, folder / "weights.safetensors")
        if outcome.samples is not None:
            _write_png(folder / "samples.png", outcome.samples)

    return write


def _failed_files(diverged: Diverged) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "failure.json").write_text(readable_json({"reason": diverged.reason, "step": diverged.step}))
        (folder / "history.csv").write_text(history_csv(diverged.history))

    return write


def _finish(
    store: Store, run: Run, write: Callable[[Path], None], workspace: Workspace, provenance: dict[str, Any]
) -> None:
    """Write the folder aside, list its digests, rename it into place, drop the checkpoint."""
    whole = store.folder(run).with_name(run.fingerprint + ".whole")
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    write(whole)
    checkpoint = workspace.folder / CHECKPOINT
    if (whole / "failure.json").exists() and checkpoint.exists():
        shutil.copy(checkpoint, whole / CHECKPOINT)  # evidence: the last state that was kept
    record = {
        **provenance,
        "commit": commit(),
        "config": dataclasses.asdict(run.config),
        "data": dict(run.data),
        "algorithm_version": run.algorithm_version,
        "fingerprint": run.fingerprint,
        "finished_on": datetime.now(UTC).date().isoformat(),  # a page tells when; no number depends on it
        "wall_seconds": round(workspace.seconds, 3),
        "resumed_at_steps": workspace.resumed_at,
        "peak_memory_bytes_of_process": peak_memory_bytes(),
    }
    (whole / "run.json").write_text(readable_json(record))
    write_sums(whole)
    whole.rename(store.folder(run))
    shutil.rmtree(workspace.folder)


def _write_png(path: Path, sheet: torch.Tensor) -> None:
    from PIL import Image

    pixels = sheet.cpu().permute(1, 2, 0).numpy()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path)
