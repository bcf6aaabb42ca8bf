"""A short real training that belongs to no paper: what executors and their benchmarks are tried with."""

from dataclasses import dataclass

import torch
from torch import nn

from lib.execution.runs import Run
from lib.execution.workspace import Outcome, Workspace


@dataclass(frozen=True)
class TrialConfig:
    steps: int = 100
    width: int = 64


def trial(seed: int, config: TrialConfig = TrialConfig()) -> Run:
    return Run("trial2026", "trial", "smoke", config, seed, {}, 1)


def compute(run: Run, workspace: Workspace) -> Outcome:
    """Two layers learn a random linear map by gradient descent; keeps the loss and the weights."""
    width = run.config.width
    network = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
    generator = workspace.streams.at("initial")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / width**0.5)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    state = workspace.resume_(network=network)
    history = state["history"]
    for step in range(state["step"] + 1, run.config.steps + 1):
        x = torch.randn(128, width, generator=workspace.streams.at("batch", step))
        loss = (network(x) - x.flip(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history = [*history, {"step": step, "loss": loss.item()}]
        workspace.keep({"step": step, "history": history}, run.config.steps, network=network)
    return Outcome({}, history, dict(network.state_dict()))
