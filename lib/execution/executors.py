"""Who computes a plan: this process, or the workers of a dask cluster, with the same numbers."""

import concurrent.futures
import hashlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING
from uuid import uuid4

from lib.errors import RunFailed, UserError, is_of_the_disk
from lib.execution.execute import Compute, Options, Report, execute, not_begun
from lib.execution.progress import Progress
from lib.execution.runs import Run, Store
from lib.execution.worker import WorkersLost, execute_on_worker, read_heartbeat

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

POLL_S, HEARTBEAT_S = 0.1, 0.5
LEAST_MEMORY = 500_000_000
# What dask looks at ten to a hundred times a second, for dashboards and statistics that nobody asks for here. On two
# cores it took a twentieth of one in the command's process alone, and woke each worker 150 times a second.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.monitor-interval": "500ms",
}
PATIENCE_S = 120.0  # how long a scheduler may be away, as while it is started again
CLOSING_S = 60.0  # what workers take to stop is a second or two


class NoScheduler(UserError):
    """Nobody answers at the address."""


class SchedulerLost(Exception):
    """The scheduler answered before, and does no more."""


def run_here(runs: Sequence[Run], compute: Compute, store: Store, options: Options, progress: Progress) -> list[Report]:
    """One run after the other in this process. One that crashes goes on from its last checkpoint once."""
    reports = []
    for run in runs:
        for crashed_before in (False, True):
            report = not_begun(run, options) or execute(run, compute, store, options, partial(progress.advance, run))
            if report.ending != "crashed" or crashed_before:
                break
            progress.say(_goes_on(report))
        progress.ended(report)
        reports.append(report)
    return reports


def run_on_cluster(
    runs: Sequence[Run],
    compute: Compute,
    store: Store,
    options: Options,
    progress: Progress,
    *,
    workers: int,
    scheduler: str | None = None,
    memory_limit: str | None = None,
) -> list[Report]:
    """Each run is one task of one thread on a dask cluster: `workers` processes here, or those of `scheduler`.

    The runs begin in the order given. The store's folder must be the same files for every worker: by them workers tell
    how far they are, so any scheduler will do. A run that crashes, or whose worker dies, goes on from its last
    checkpoint once; the second time it is reported as crashed, and the others go on. A scheduler that is lost is
    awaited for PATIENCE_S, then RunFailed is raised. memory_limit: of a worker here, as 4GB; a share of all if None.
    """
    ended: dict[str, Report] = {}
    lost_at: float | None = None
    while len(ended) < len({run.fingerprint for run in runs}):
        left = [run for run in runs if run.fingerprint not in ended]
        try:
            with _client(workers, scheduler, memory_limit) as client:
                asked = _Asked(client, left, compute, store, options, outside=scheduler is not None)
                for report in asked.reports(progress):
                    progress.ended(report)
                    ended[report.run.fingerprint] = report
        except SchedulerLost:
            lost_at = time.monotonic()
            progress.say(f"The dask scheduler at {scheduler} is gone: waiting {PATIENCE_S:.0f} s for it to come back.")
        except NoScheduler:
            if lost_at is None:
                raise
            if time.monotonic() - lost_at > PATIENCE_S:
                raise RunFailed(
                    f"The dask scheduler at {scheduler} is gone. {len(ended)} of {len(runs)} runs had ended and are"
                    " kept; once it is back, the same command goes on with the others from their last checkpoints."
                ) from None
            time.sleep(POLL_S)
    return list(ended.values())


def _goes_on(report: Report) -> str:
    return f"{report.run.name} goes on from its last checkpoint, for it crashed: {report.said}"


class _Asked:
    """What one client asked of a scheduler. However it is left, what nobody else waits for is computed no more."""

    def __init__(
        self, client: "Client", runs: Sequence[Run], compute: Compute, store: Store, options: Options, *, outside: bool
    ) -> None:
        self.client, self.store, self.outside = client, Store(store.root.resolve()), outside
        # Other machines have other clocks, so that an outside cluster's deadline is kept from here.
        self.deadline = options.deadline
        self.task = (compute, self.store, options._replace(deadline=None) if outside else options, uuid4().hex)
        self.places = {run.fingerprint: place for place, run in enumerate(runs)}
        self.times = dict.fromkeys(self.places, 0)
        self.waiting = {self._ask(run): run for run in runs}

    def reports(self, progress: Progress) -> Iterator[Report]:
        """The report of each run as it ends. Raises SchedulerLost."""
        if not self.client.scheduler_info()["workers"]:
            progress.say("The dask scheduler has no workers yet: waiting for the first.")
        tried, shown_at = set(), 0.0
        while self.waiting:
            time.sleep(POLL_S)
            if self.client.status != "running":
                raise SchedulerLost
            late = self.deadline is not None and time.monotonic() >= self.deadline
            for future in [future for future in self.waiting if future.done()]:
                run = self.waiting.pop(future)
                report, final = _outcome(future, run)
                if report is None or (report.ending == "out of time" and not late):
                    self.waiting[self._ask(run)] = run  # the scheduler forgot it, or it was stopped for another client
                elif report.ending == "crashed" and not final and run.fingerprint not in tried:
                    tried.add(run.fingerprint)
                    progress.say(_goes_on(report))
                    self.waiting[self._ask(run)] = run
                else:
                    yield report
            if late and self.outside:
                yield from (Report(run, "out of time", 0.0, "stopped") for run in self.waiting.values())
                return
            if time.monotonic() - shown_at >= HEARTBEAT_S:
                shown_at = time.monotonic()
                self._show(progress)

    def _ask(self, run: Run) -> "Future":
        self.times[run.fingerprint] += 1
        # Two clients that want the same run in the same folder share one task. The first word is common to all tasks,
        # so that dask queues them as one group.
        what = f"{run.fingerprint} {self.store.root} {self.times[run.fingerprint]}"
        key = f"run-{hashlib.sha256(what.encode()).hexdigest()}"
        try:
            return self.client.submit(
                execute_on_worker, run, *self.task, key=key, priority=-self.places[run.fingerprint]
            )
        except Exception:
            if self.client.status != "running":
                raise SchedulerLost from None
            raise

    def _show(self, progress: Progress) -> None:
        begun = self.store.begun()  # one look at each paper's folder, for most runs of a long plan are not begun
        for run in self.waiting.values():
            if run.fingerprint in begun and (far := read_heartbeat(self.store.begun_folder(run))) is not None:
                progress.advance(run, *far)


def _outcome(future: "Future", run: Run) -> tuple[Report | None, bool]:
    """The run's report, None if the scheduler lost it; and whether another attempt is out of the question.

    Raises what every run would meet: a full disk, missing data.
    """
    if future.status == "error":
        error = future.exception()
        if isinstance(error, UserError) or is_of_the_disk(error):
            raise error
        if isinstance(error, WorkersLost):
            return Report(run, "crashed", 0.0, str(error)), True
        said = f"{type(error).__name__}: {error}"  # the workers' environment lacks something
        if type(error).__name__ == "KilledWorker":
            said = "its workers died, most likely for want of memory: see --memory-limit."
        return Report(run, "crashed", 0.0, said), False
    try:
        return future.result(timeout=60), False
    except Exception:  # cancelled with the scheduler or by it, or its worker went before it handed the report over
        return None, False


def _require_memory(limit: str, scheduler: str | None, parse: Callable[[str], int]) -> None:
    if scheduler is not None:
        raise UserError("--memory-limit is for workers that are started here: those of a scheduler have their own.")
    try:
        amount = parse(limit)
    except (ValueError, OverflowError):
        raise UserError(f"--memory-limit {limit!r} is no amount of memory: write 4GB or 900MB.") from None
    if amount < LEAST_MEMORY:
        raise UserError(f"--memory-limit {limit!r} is too little: PyTorch alone takes half a gigabyte of each worker.")


@contextmanager
def _client(workers: int, scheduler: str | None, memory_limit: str | None) -> "Iterator[Client]":
    try:
        import dask
        from dask.utils import parse_bytes
        from distributed import Client, LocalCluster
    except ImportError:
        raise UserError(
            "Running on several workers needs the package `distributed`: install regen[reports], or use --workers 1."
        ) from None
    if memory_limit is not None:
        _require_memory(memory_limit, scheduler, parse_bytes)
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.CRITICAL)  # what went wrong is said here, in a sentence
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=10)
        except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:  # the latter of tls:// and ucx://
            raise NoScheduler(
                f"No dask scheduler answers at {scheduler!r} ({error}): start one, or leave out --scheduler."
            ) from None
        with client:
            yield client
        return
    # One thread a worker: that is the setting in which numbers are equal on any number of cores. dask's default also
    # sets MALLOC_TRIM_THRESHOLD_, under which glibc gives every gradient's memory back to the system after each step:
    # a VAE's training step takes 1.5 times as long (11.2 against 7.6 ms). Here that is left out.
    # One arena suffices for one thread of work, and saves some 30 MB a worker.
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), 1)
    settings = {
        "distributed.nanny.pre-spawn-environ": one_thread,
        "distributed.scheduler.allowed-failures": 1,  # of what dies before the run begins, and marks its folder
        "distributed.scheduler.worker-saturation": 1.0,  # a run waits at the scheduler, not behind another on a worker
        # A worker over its limit is killed. One that merely came near it would be sent nothing more, for ever.
        **dict.fromkeys((f"distributed.worker.memory.{limit}" for limit in ("target", "spill", "pause")), False),
        **QUIET,
    }
    start = partial(
        LocalCluster,
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=memory_limit or "auto",
        dashboard_address="127.0.0.1:0",
        silence_logs="CRITICAL",
    )
    with dask.config.set(settings), _deaf_to_ctrl_c(start) as cluster, Client(cluster) as client:
        yield client


def _started(starting: "concurrent.futures.Future[LocalCluster]") -> "LocalCluster":
    try:
        return starting.result()
    except RuntimeError as error:
        raise UserError(
            f"The workers did not start ({error}): give each more memory (--memory-limit), or take fewer (--workers)."
        ) from None


@contextmanager
def _deaf_to_ctrl_c(start: "Callable[[], LocalCluster]") -> "Iterator[LocalCluster]":
    """A cluster whose processes leave Ctrl-C to this one. A terminal sends it to all, and each would die of it aloud.

    Signals that a thread blocks stay blocked in the threads and processes that come from it, whenever they are begun.
    Raises UserError if the workers do not start.
    """
    resource_tracker.ensure_running()  # Python 3.11 unblocks the signals of the thread that starts it
    block = partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT})
    with concurrent.futures.ThreadPoolExecutor(1, initializer=block) as thread:
        starting = thread.submit(start)
        try:
            yield _started(starting)
        finally:
            with _undisturbed(), suppress(TimeoutError):
                if starting.exception() is None:  # waits, if Ctrl-C came while it was started
                    starting.result().close(timeout=CLOSING_S)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No second Ctrl-C or SIGTERM: dask would stop closing half-way, and then wait for its own closing for ever."""
    if threading.current_thread() is not threading.main_thread():  # where no signal is handled
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
