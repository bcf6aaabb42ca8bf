"""An optimiser with its state made moves as one that makes it at its first step."""

import pytest
import torch

from lib.training.checkpoints import training_tensors
from lib.training.optimizers import with_state


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.RMSprop(p, lr=0.1),
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.9)),
        lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    ],
    ids=["rmsprop", "adam", "fused adam"],
)
def test_it_steps_as_a_fresh_one(make):
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    prepared, fresh = with_state(make([ours])), make([theirs])
    assert ours.tolist() == [1, -2]
    assert training_tensors(optimizer=prepared)  # there is something to put a checkpoint into
    for step in range(3):
        for parameter, optimizer in ((ours, prepared), (theirs, fresh)):
            parameter.grad = torch.tensor([0.3, -1.0]) * (step + 1)
            optimizer.step()
        assert torch.equal(ours, theirs)
    assert not torch.equal(ours, torch.tensor([1.0, -2.0]))
