"""Who computes a plan: this process, the workers of a dask cluster, or the processes of torchrun, a run by all of them.

The numbers depend only on whether a run was split between processes, and then by rounding.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lib.errors import RunFailed, UserError
from lib.execution.execute import Compute, Options, Report, deterministic, execute
from lib.execution.progress import Progress
from lib.execution.runs import Run, Store
from lib.execution.workspace import Accompanied, Diverged, Outcome, OutOfTime, Workspace
from lib.files import write_atomically
from lib.training.processes import ALONE, Processes

if TYPE_CHECKING:
    from distributed import Client, Future

HEARTBEAT = "progress.json"


def run_here(runs: Sequence[Run], compute: Compute, store: Store, options: Options, progress: Progress) -> list[Report]:
    """One run after the other in this process."""
    reports = []
    for run in runs:
        report = _execute_in_time(run, compute, store, options, partial(progress.advance, run))
        progress.ended(report)
        reports.append(report)
    return reports


def run_together(
    runs: Sequence[Run],
    compute: Compute,
    store: Store,
    options: Options,
    progress: Progress,
    splits: Callable[[Run], bool],
) -> list[Report]:
    """One run after the other, in the first of options.processes; it calls the others to each run that `splits`.

    They wait in `accompany` until `dismiss`. Raises RunFailed where such a run crashes here: the others stand in the
    middle of it, and end with this process.
    """

    def lead(run: Run, workspace: Workspace) -> Outcome:
        workspace.processes.told(lambda: run)
        return compute(run, workspace)

    reports = []
    for run in runs:
        chosen = options if splits(run) else options._replace(processes=ALONE)
        report = _execute_in_time(run, lead, store, chosen, partial(progress.advance, run))
        progress.ended(report)
        reports.append(report)
        if report.ending == "crashed" and splits(run):
            raise RunFailed(f"{run.name} crashed, so its other processes are ended: {report.said}")
    return reports


def accompany(compute: Compute, store: Store, options: Options) -> None:
    """In every process but the first: take part in each run that the first one calls to, until it dismisses.

    The end of a run is the same in all, for what ends one is told (the time is up) or computed from equal numbers (it
    diverged). Anything else ends this process, and torchrun the others.
    """
    while (run := options.processes.told(_nothing)) is not None:
        workspace = Workspace(
            store.begun_folder(run), run.seed, options.device, deadline=options.deadline, processes=options.processes
        )
        with deterministic(options.device):
            try:
                compute(run, workspace)
            except (Accompanied, Diverged, OutOfTime):
                continue
        raise RuntimeError(f"{run.name} went on in process {options.processes.rank} to where only the first one goes")


def dismiss(processes: Processes) -> None:
    """Let the processes go that `accompany`."""
    processes.told(_nothing)


def _nothing() -> Run | None:
    return None


def run_on_cluster(
    runs: Sequence[Run],
    compute: Compute,
    store: Store,
    options: Options,
    progress: Progress,
    *,
    workers: int,
    scheduler: str | None = None,
) -> list[Report]:
    """Each run is one task of one thread on a dask cluster: `workers` processes here, or those of `scheduler`.

    The store's folder must be the same files for every worker. Workers tell how far they are by a small file in the
    begun run's folder, so any scheduler will do. A run whose worker was lost twice is reported as crashed.
    """
    with _client(workers, scheduler) as client:
        from distributed import wait

        shared = (compute, Store(store.root.resolve()), options)
        futures = {}
        for place, run in enumerate(runs):  # in the plan's order, which puts the longest first
            key = f"run-{run.fingerprint}"  # a common prefix, so that dask queues them as one group
            futures[client.submit(_execute_on_worker, run, *shared, key=key, retries=1, priority=-place)] = run
        waiting, reports = set(futures), []
        while waiting:
            try:
                done, waiting = wait(waiting, timeout=0.5, return_when="FIRST_COMPLETED")
            except TimeoutError:
                done = set()
            for future in done:
                report = _report(future, futures[future])
                progress.ended(report)
                reports.append(report)
            for future in waiting:
                _show_heartbeat(store.begun_folder(futures[future]) / HEARTBEAT, futures[future], progress)
        return reports


def _report(future: "Future", run: Run) -> Report:
    try:
        report: Report = future.result()
        return report
    except (OSError, UserError):
        raise  # a full disk, missing data: every run would meet it
    except Exception as error:  # the worker died, or its environment lacks something
        return Report(run, "crashed", 0.0, f"{type(error).__name__}: {error}")


def _execute_on_worker(run: Run, compute: Compute, store: Store, options: Options) -> Report:
    path = store.begun_folder(run) / HEARTBEAT
    return _execute_in_time(run, compute, store, options, partial(_write_heartbeat, path))


def _execute_in_time(
    run: Run, compute: Compute, store: Store, options: Options, show: Callable[[int, int], None]
) -> Report:
    """Compute the run, unless the time is up already: then nothing is begun that could not be got anywhere."""
    if options.deadline is not None and time.time() >= options.deadline:
        return Report(run, "out of time", 0.0, "not begun")
    return execute(run, compute, store, options, show)


def _write_heartbeat(path: Path, done: int, total: int) -> None:
    write_atomically(path, json.dumps([done, total]))


def _show_heartbeat(path: Path, run: Run, progress: Progress) -> None:
    try:
        progress.advance(run, *json.loads(path.read_text()))
    except (OSError, ValueError):  # not begun, or just finished
        progress.advance(run, 0, 1)


@contextmanager
def _client(workers: int, scheduler: str | None) -> "Iterator[Client]":
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise UserError(
            "Running on several workers needs the package `distributed`: install regen[reports], or use --workers 1."
        ) from None
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=10)
        except (OSError, TimeoutError, ValueError) as error:
            raise UserError(
                f"No dask scheduler answers at {scheduler} ({error}): start one, or leave out --scheduler."
            ) from None
        with client:
            yield client
        return
    # One thread a worker: that is the setting in which numbers are equal on any number of cores. dask's default also
    # sets MALLOC_TRIM_THRESHOLD_, under which glibc gives every gradient's memory back to the system after each step:
    # a VAE's training step takes 1.5 times as long (11.2 against 7.6 ms). Here that is left out.
    # One arena suffices for one thread of work, and saves some 30 MB a worker.
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), 1)
    with (
        dask.config.set(
            {"distributed.nanny.pre-spawn-environ": one_thread, "distributed.scheduler.allowed-failures": 1}
        ),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
