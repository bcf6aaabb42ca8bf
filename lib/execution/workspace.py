"""What a training loop may ask of the run it belongs to: to go on, to be kept, to be stopped in time."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.errors import RunFailed
from lib.results import Score
from lib.training.checkpoints import load_checkpoint, restore_, save_checkpoint, training_tensors
from lib.training.processes import ALONE, Processes
from lib.training.randomness import Streams

CHECKPOINT = "checkpoint.safetensors"
MOST_KEEPING = 0.01  # the share of a run's time that writing checkpoints may take, after the first


class Outcome(NamedTuple):
    """What a paper's `compute` hands back; the store writes it. A part that a run does not have stays empty."""

    scores: Mapping[str, Score]
    history: list[dict[str, float]]
    weights: Mapping[str, Tensor]
    samples: Tensor | None = None  # (C, H, W) uint8, one sheet
    facts: Mapping[str, Any] = {}  # what was counted or chosen on the way and is no score: parameters, a step size


class OutOfTime(Exception):
    """The time budget is spent; the checkpoint is written and the same command goes on from it."""


class Accompanied(Exception):
    """This process has done its part of a run; the first one goes on with it alone."""


class Diverged(RunFailed):
    """A loss or parameter left the finite numbers."""

    def __init__(self, reason: str, step: int, history: list[dict[str, float]]) -> None:
        super().__init__(reason)
        self.reason, self.step, self.history = reason, step, history


class Workspace:
    """One run's folder while it is begun.

    checkpoint_seconds: at least so long between two checkpoints, and longer where they are large and writing them would
    take more than MOST_KEEPING of the time; 0 is after every step. deadline: time.monotonic() at which to stop.
    progress: called with (steps done, steps in all) at most twice a second. processes: those that train this run
    together; only the first of them reads and writes the folder.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        checkpoint_seconds: float = 10.0,
        deadline: float | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.folder, self.device, self.streams = folder, torch.device(device), Streams(seed, device)
        self._pause, self.deadline, self._progress = checkpoint_seconds, deadline, progress
        self.seconds_before = 0.0  # wall seconds that earlier, interrupted attempts put into the checkpoint
        self.resumed_at: list[int] = []
        self.worlds = [processes.world]  # of each attempt that the run consists of: how many processes it had
        self.made_with: list[Mapping[str, Any]] = []  # of each attempt: its stable provenance
        self._began = self._kept = self._shown = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall seconds of this run so far, those before the last checkpoint of killed attempts included."""
        return self.seconds_before + time.monotonic() - self._began

    def resume_(self, **parts: nn.Module | torch.optim.Optimizer) -> dict[str, Any]:
        """Put the last checkpoint into `parts`; return its state, {"step": 0, "history": []} where there is none."""
        live = training_tensors(**parts)

        def from_disk() -> dict[str, Any] | None:
            checkpoint = load_checkpoint(self.folder / CHECKPOINT, self.device)
            if checkpoint is None:
                return None
            restore_(live, checkpoint.tensors)
            return checkpoint.state

        state = self.processes.told(from_disk)
        if state is None:
            return {"step": 0, "history": []}
        self.processes.copy_(live.values())
        self.seconds_before = state.pop("seconds")
        self.resumed_at = [*state.pop("resumed_at"), state["step"]]
        self.worlds = [*state.pop("worlds", [1]), self.processes.world]
        self.made_with = [*state.pop("made_with", []), *self.made_with]
        return state

    def keep(
        self,
        state: Mapping[str, Any],
        total: int,
        work: tuple[int, int] | None = None,
        /,
        **parts: nn.Module | torch.optim.Optimizer,
    ) -> None:
        """Call after every step with the state to go on from: {"step": steps done, "history": rows, ...}.

        Writes a checkpoint when one is due, shows progress, and raises OutOfTime, checkpoint written, past the
        deadline. Costs one clock reading otherwise, and never waits for the device. Of several processes the first does
        all that, and tells the others whether it is late. work: (done, in all) in other units than steps, for progress,
        where some steps cost many times others.
        """
        now = time.monotonic()
        deadline = self.deadline
        late = deadline is not None and self.processes.told(lambda: now >= deadline)
        if self.processes.first and (late or now - self._kept >= self._pause):
            attempts = {"resumed_at": self.resumed_at, "worlds": self.worlds, "made_with": self.made_with}
            extra = {"seconds": self.seconds, **attempts}
            save_checkpoint(self.folder / CHECKPOINT, training_tensors(**parts), {**state, **extra})
            self._kept = time.monotonic()
            if self._pause:
                self._pause = max(self._pause, (self._kept - now) / MOST_KEEPING)
        if now - self._shown >= 0.5 or state["step"] == total:
            self._progress(*(work or (state["step"], total)))
            self._shown = now
        if late:
            raise OutOfTime(f"out of time after step {state['step']} of {total}")

    def leave_scores_to_the_first(self) -> None:
        """Call after a training: of several processes, only the first goes on. So scores count each image once."""
        if not self.processes.first:
            raise Accompanied


def require_finite(value: float, what: str, step: int, history: list[dict[str, float]]) -> float:
    """`value`, or Diverged with one sentence if it is not finite."""
    if not math.isfinite(value):
        raise Diverged(f"{what} became {value} at step {step}: the run diverged and was stopped.", step, history)
    return value
