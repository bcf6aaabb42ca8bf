"""Toy runs that cost nothing, and the smallest real training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib import datasets
from lib.execution.runs import Run, Store
from lib.execution.workspace import Outcome, Workspace
from lib.results import Score
from replications.vae2013.config import AevbConfig


@dataclass(frozen=True)
class ToyConfig:
    width: int = 3
    rates: tuple[float, ...] = (0.1, 0.2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def toy_run() -> Callable[..., Run]:
    """A run of a paper that there is not; any field can be given."""

    def make(**fields: Any) -> Run:
        run = Run("toy2000", "toy", "smoke", ToyConfig(), 0, {"digits": "d" * 64}, 1)
        config = ToyConfig(**fields.pop("config", {}))
        return replace(run, config=config, **fields)

    return make


class Toy:
    """A `compute` that counts its calls, and draws its numbers from the run's streams."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, run: Run, workspace: Workspace) -> Outcome:
        self.calls += 1
        draws = torch.rand(4, generator=workspace.streams.at("toy"))
        score = Score(draws.double().mean().item(), float("nan"), "nats", True, 4, {"split": "test"})
        history = [{"samples": step, "level": value} for step, value in enumerate(draws.tolist())]
        sheet = (draws.view(1, 2, 2) * 255).to(torch.uint8)
        return Outcome({"level": score}, history, {"draws": draws}, sheet, {"width": run.config.width})


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def tiny_aevb() -> Callable[..., Run]:
    """A whole AEVB run in about a second, 200 steps unless n_samples says else."""

    def make(n_samples: int = 20_000) -> Run:
        config = AevbConfig(
            data="mnist-5k",
            n_latent=2,
            n_hidden=20,
            n_samples=n_samples,
            n_trial_steps=2,
            n_curve_images=100,
            n_elbo_draws=1,
            n_importance=2,
        )
        return Run("vae2013", "aevb-tiny", "smoke", config, 0, {"mnist-5k": datasets.digest("mnist-5k")}, 1)

    return make


@pytest.fixture
def written() -> Callable[[Store, Run], dict[str, bytes]]:
    """What must be equal wherever and however a run was computed: all its files but run.json and the sums over it."""

    def read(store: Store, run: Run) -> dict[str, bytes]:
        assert store.state(run) == "finished"
        return {
            path.name: path.read_bytes()
            for path in sorted(store.folder(run).iterdir())
            if path.name not in ("run.json", "SHA256SUMS")
        }

    return read
