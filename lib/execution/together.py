"""One plan computed by the processes of torchrun, each run by all of them; rounding apart, with the same numbers."""

from collections.abc import Callable, Sequence
from functools import partial

from lib.errors import RunFailed
from lib.execution.execute import Compute, Options, Report, deterministic, execute, not_begun
from lib.execution.progress import Progress
from lib.execution.runs import Run, Store
from lib.execution.workspace import Accompanied, Diverged, Outcome, OutOfTime, Workspace
from lib.training.processes import ALONE, Processes


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
        report = not_begun(run, chosen) or execute(run, lead, store, chosen, partial(progress.advance, run))
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
