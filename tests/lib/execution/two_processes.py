"""Runs of a toy on two processes, started through torchrun by test_together.py with FOLDER and what is to happen."""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lib.execution.execute import Options
from lib.execution.progress import Progress
from lib.execution.runs import Run, Store
from lib.execution.together import accompany, dismiss, run_together
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.results import Score
from lib.training.processes import joined


@dataclass(frozen=True)
class ToyConfig:
    what: str


def run(what: str) -> Run:
    return Run("toy2000", what, "smoke", ToyConfig(what), 0, {}, 1)


def compute(run: Run, workspace: Workspace) -> Outcome:
    """Ten steps, each of which needs both processes; then as many scored images as the first one has."""
    what, processes, model, total = run.config.what, workspace.processes, nn.Linear(1, 1), torch.zeros(())
    state = workspace.resume_(model=model)
    for step in range(state["step"], 10):
        if step == 3 and what == f"dies in {processes.rank}":
            os._exit(7)
        if step == 3 and what == f"crashes in {processes.rank}":
            raise KeyError("no such column")
        seen = torch.tensor(float(processes.rank))
        processes.mean_(seen)
        total += seen
        row = {"step": step + 1, "level": math.inf if what == "diverges" and step == 5 else seen.item()}
        state["history"].append(row)
        require_finite(row["level"], "The level", step + 1, state["history"])
        state["step"] = step + 1
        if what == "late" and step == 4:
            workspace.deadline = 0.0 if processes.first else 1e18  # only the first one's clock counts
        workspace.keep(state, 10, model=model)
    workspace.leave_scores_to_the_first()
    assert processes.first
    return Outcome(
        {"level": Score(1.0, math.nan, "nats", True, 10, {})}, state["history"], {"w": model.weight.detach()}
    )


def main(folder: str, *whats: str) -> None:
    before = threads()
    with joined("cpu") as (processes, device):
        options, store = Options(device, 10**6, processes=processes), Store(Path(folder))
        if processes.first:
            runs = [run(what) for what in whats]
            with Progress(runs) as progress:
                reports = run_together(runs, compute, store, options, progress, lambda run: run.config.what != "alone")
            dismiss(processes)
            say(repr([(report.run.experiment, report.ending, report.said) for report in reports]))
        else:
            accompany(compute, store, options)
    say(f"process {processes.rank} went home and left {threads() - before} threads")


def say(line: str) -> None:
    """In one piece, for two processes write to one stream."""
    sys.stdout.write(f"{line}\n")


def threads() -> int:
    """Those of the process, Python's own and others; 0 where the system does not tell."""
    return len(list(Path("/proc/self/task").glob("*")))


if __name__ == "__main__":
    main(*sys.argv[1:])
