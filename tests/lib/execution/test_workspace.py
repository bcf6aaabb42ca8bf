"""How often a run is kept: as asked, and seldom enough that keeping large models does not eat the time."""

import time
from itertools import pairwise

import pytest
import torch
from torch import nn

from lib.execution import workspace
from lib.execution.workspace import CHECKPOINT, MOST_KEEPING, Workspace


@pytest.fixture
def slow_disk(monkeypatch):
    """Each checkpoint takes 20 ms; the times at which they were written."""
    times = []

    def save(path, tensors, state):
        time.sleep(0.02)
        times.append(time.monotonic())

    monkeypatch.setattr(workspace, "save_checkpoint", save)
    return times


def train(kept: Workspace, seconds: float) -> None:
    model, end = nn.Linear(2, 2), time.monotonic() + seconds
    step = 0
    while time.monotonic() < end:
        step += 1
        kept.keep({"step": step, "history": []}, 10**9, model=model)
        time.sleep(0.001)


def test_large_checkpoints_are_written_so_seldom_that_they_cost_one_percent(slow_disk, tmp_path):
    train(Workspace(tmp_path, 0, checkpoint_seconds=0.01), 2.3)
    assert 2 <= len(slow_disk) <= 4  # every 10 ms they would be over 70; two seconds and a bit apart at 1 %
    pauses = [later - before - 0.02 for before, later in pairwise(slow_disk)]
    assert min(pauses) >= 0.02 / MOST_KEEPING * 0.97


def test_zero_seconds_keep_every_step_whatever_it_costs(slow_disk, tmp_path):
    train(Workspace(tmp_path, 0, checkpoint_seconds=0), 0.5)
    assert len(slow_disk) > 10


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
