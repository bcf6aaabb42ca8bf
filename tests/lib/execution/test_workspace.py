"""How often a run is kept: as asked, and seldom enough that keeping large models does not eat the time."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from lib.execution import workspace
from lib.execution.workspace import CHECKPOINT, MOST_KEEPING, Workspace


class Clock:
    """A clock that moves when it is told to: on a busy machine a sleep is as long as it likes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(workspace, "time", clock)
    return clock


@pytest.fixture
def slow_disk(monkeypatch, clock):
    """Each checkpoint takes 20 ms; the times at which they were written."""
    times = []

    def save(path, tensors, state):
        clock.now += 0.02
        times.append(clock.now)

    monkeypatch.setattr(workspace, "save_checkpoint", save)
    return times


def train(kept: Workspace, clock: Clock, seconds: float) -> None:
    """Steps of a millisecond each."""
    model, end = nn.Linear(2, 2), clock.now + seconds
    step = 0
    while clock.now < end:
        step += 1
        clock.now += 0.001
        kept.keep({"step": step, "history": []}, 10**9, model=model)


def test_large_checkpoints_are_written_so_seldom_that_they_cost_one_percent(slow_disk, clock, tmp_path):
    train(Workspace(tmp_path, 0, checkpoint_seconds=0.01), clock, 9)
    assert len(slow_disk) == 5  # every 10 ms they would be 300; the first at once, the others two seconds apart at 1 %
    pauses = [later - before - 0.02 for before, later in pairwise(slow_disk)]
    assert min(pauses) >= 0.02 / MOST_KEEPING - 1e-9
    assert max(pauses) <= 0.02 / MOST_KEEPING + 0.002


def test_zero_seconds_keep_every_step_whatever_it_costs(slow_disk, clock, tmp_path):
    train(Workspace(tmp_path, 0, checkpoint_seconds=0), clock, 0.5)
    assert len(slow_disk) == 24  # of 21 ms each


def test_what_was_kept_is_put_back(tmp_path):
    model = nn.Linear(2, 2)
    Workspace(tmp_path, 0, checkpoint_seconds=0).keep({"step": 3, "history": []}, 5, model=model)
    assert (tmp_path / CHECKPOINT).is_file()
    other, again = nn.Linear(2, 2), Workspace(tmp_path, 0)
    assert again.resume_(model=other)["step"] == 3
    assert torch.equal(model.weight, other.weight)
    assert again.resumed_at == [3]


def test_progress_is_told_in_steps_or_in_the_work_that_they_are(tmp_path):
    told = []
    kept = Workspace(tmp_path, 0, progress=lambda *counts: told.append(counts))
    kept.keep({"step": 5, "history": []}, 5)
    kept.keep({"step": 5, "history": []}, 5, (106, 106))
    assert told == [(5, 5), (106, 106)]
