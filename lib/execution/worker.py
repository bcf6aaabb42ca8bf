"""A run on a dask worker: it shows how far it is, stops when nobody waits for it, and is not begun for ever."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lib.errors import RunFailed, UserError
from lib.execution.device import resolve_device
from lib.execution.execute import Compute, Options, Report, execute, not_begun
from lib.execution.runs import Run, Store
from lib.execution.workspace import Outcome, OutOfTime, Workspace
from lib.files import write_atomically

if TYPE_CHECKING:
    from distributed import Worker

HEARTBEAT = "progress.json"
UNENDED = "unended.txt"  # a word for each attempt that began and has not come back: the client that asked for it
ATTEMPTS = 2


class WorkersLost(RunFailed):
    """As many workers died over the run as it has attempts."""


def execute_on_worker(run: Run, compute: Compute, store: Store, options: Options, client: str) -> Report:
    """`execute`, as a task of a dask worker. `client` is a word that names who asked for it.

    Whether a worker died over a run is told by the run's own folder, since a scheduler also blames a death on what
    merely waited there, and counts by a setting that is not ours. Raises WorkersLost instead of a third attempt.
    """
    from distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads > 1:  # runs in threads of one process would change each other's determinism settings
        raise UserError(
            f"The dask worker {worker.address} takes {worker.state.nthreads} runs at a time, and numbers are only"
            " repeatable with one: start workers with --nthreads 1, and more of them."
        )
    options = options._replace(device=resolve_device(options.device))
    limit = worker.memory_manager.memory_limit
    show = partial(_show, store.begun_folder(run) / HEARTBEAT, worker, worker.get_current_task())
    return not_begun(run, options) or execute(run, partial(_attempt, compute, client, limit), store, options, show)


def _attempt(compute: Compute, client: str, memory_limit: int | None, run: Run, workspace: Workspace) -> Outcome:
    with _counted(workspace.folder / UNENDED, client, memory_limit):
        return compute(run, workspace)


@contextmanager
def _counted(path: Path, client: str, memory_limit: int | None) -> Iterator[None]:
    """Keep `client` in the file for as long as this process lives and computes; an attempt that ends is no loss."""
    before = path.read_text().split() if path.exists() else []
    if before.count(client) >= ATTEMPTS:
        may = f" (it may have {memory_limit / 1e9:.1f} GB: see --memory-limit)" if memory_limit else ""
        raise WorkersLost(f"its worker died {ATTEMPTS} times, most likely for want of memory{may}, or was killed.")
    write_atomically(path, " ".join([*before, client]))
    try:
        yield
    finally:
        write_atomically(path, " ".join(before))


def _show(path: Path, worker: "Worker", key: object, done: int, total: int) -> None:
    """Write how far the run is, for any client that sees the folder. Raises OutOfTime if nobody waits for it.

    That is so after Ctrl-C or the death of every client that wanted it, and when the scheduler is gone. dask itself
    cannot stop a thread: the run would hold its worker to its end.
    """
    task = worker.state.tasks.get(key)  # type: ignore[call-overload]
    if worker.status.name in ("closing", "closed", "failed") or task is None or task.state == "cancelled":
        raise OutOfTime(f"stopped after step {done} of {total}: nobody waits for it any more")
    write_atomically(path, json.dumps([done, total]))


def read_heartbeat(folder: Path) -> tuple[int, int] | None:
    """(steps done, steps in all) of a run that is being computed; (0, 1) before it said; None if it is not begun."""
    try:
        done, total = json.loads((folder / HEARTBEAT).read_text())
    except (OSError, ValueError):
        return (0, 1) if folder.is_dir() else None
    return done, total
