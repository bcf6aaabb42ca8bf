"""What two processes train together; started through torchrun by `trainings` (conftest.py) with MODULE and FOLDER.

MODULE has CASES, name -> function of a workspace that trains and returns (history, tensors), and RESUMED, the name of
the case that is also stopped and gone on from. Each process writes what it found to FOLDER/RANK.pt.
"""

import runpy
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lib.execution.execute import deterministic
from lib.execution.workspace import CHECKPOINT, OutOfTime, Workspace
from lib.training.checkpoints import load_checkpoint
from lib.training.processes import ALONE, Processes, joined

STOPS = (7, 14)  # steps after which the interrupted training goes on with another number of processes
Case = Callable[[Workspace], tuple[list[dict[str, float]], dict[str, torch.Tensor]]]


class Interrupted(Workspace):
    """A workspace whose time is up after a step."""

    stop = 0

    def keep(self, state: Mapping[str, Any], *counts: Any, **parts: Any) -> None:
        if state["step"] == self.stop:
            self.deadline = 0.0
        super().keep(state, *counts, **parts)


def workspace(folder: Path, processes: Processes, stop: int = 0) -> Interrupted:
    folder.mkdir(parents=True, exist_ok=True)
    made = Interrupted(folder, 0, checkpoint_seconds=10**6, processes=processes)
    made.stop = stop
    return made


def interrupted(case: Case, folder: Path, processes: Processes) -> Any:
    """The first process until the first stop, all until the second, the first to the end: what it found and went on
    from."""
    for stop, those in zip(STOPS, (ALONE, processes), strict=True):
        if processes.first or those is processes:
            with suppress(OutOfTime):
                case(workspace(folder, those, stop))
    if not processes.first:
        return None
    last = workspace(folder, ALONE)
    return *case(last), last.resumed_at, last.worlds


def out_of_time(case: Case, folder: Path, processes: Processes) -> int:
    """The step after which the training stopped here, although only the first process's time is up; 0 if it did not."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + (0 if processes.first else 10**6)
    try:
        case(Workspace(folder, 0, checkpoint_seconds=10**6, deadline=deadline, processes=processes))
    except OutOfTime as stopped:
        kept = load_checkpoint(folder / CHECKPOINT) if processes.first else None
        assert kept is not None or not processes.first
        return int(str(stopped).split()[5])  # out of time after step 1 of 20
    return 0


def main(module: str, out: str) -> None:
    found: dict[str, Any] = {}
    defined, folder = runpy.run_path(module), Path(out)
    torch.set_default_dtype(torch.float64)
    with joined("cpu") as (processes, device), deterministic(device):
        for name, case in defined["CASES"].items():
            if processes.first:
                found[f"{name} by one"] = case(workspace(folder / f"{name}-one", ALONE))
            found[f"{name} by two"] = case(workspace(folder / f"{name}-two", processes))
        case = defined["CASES"][defined["RESUMED"]]
        found["resumed"] = interrupted(case, folder / "resumed", processes)
        found["out of time"] = out_of_time(case, folder / "late", processes)
    torch.save(found, folder / f"{processes.rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
