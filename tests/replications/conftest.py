"""Trainings by one process and by two, for each paper that can split its minibatches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def trainings(
    request: pytest.FixtureRequest, torchrun: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What each process found for the module's CASES; see two_processes.py."""
    folder = tmp_path_factory.mktemp("trainings")
    done = torchrun(Path(__file__).with_name("two_processes.py"), request.path, folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="session")
def assert_alike() -> Callable[[Any, Any], None]:
    """Equal to the rounding of float64, in which the cases train: losses and weights to a millionth.

    In float32 a bias before a norm has a gradient of nothing but rounding, which Adam and RMSprop make whole steps of.
    """

    def compare(one: Any, other: Any) -> None:
        (history, tensors), (others, other_tensors) = one[:2], other[:2]
        assert [list(row) for row in history] == [list(row) for row in others]
        assert len(history) > 0
        for row, same in zip(history, others, strict=True):
            assert row == pytest.approx(same, rel=1e-6, abs=1e-9, nan_ok=True)
        assert tensors.keys() == other_tensors.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(other_tensors[name], tensor, rtol=1e-6, atol=1e-9, msg=name)

    return compare


@pytest.fixture(scope="session")
def assert_goes_on() -> Callable[[Any, list[dict[str, Any]]], None]:
    """The case that was stopped went on with another number of processes, and where time is up all stop."""

    def check(whole: Any, trainings: list[dict[str, Any]]) -> None:
        first, second = trainings
        *found, resumed_at, worlds = first["resumed"]
        assert (resumed_at, worlds) == ([7, 14], [1, 2, 1])
        assert second["resumed"] is None
        assert [row["step"] for row in found[0]] == [row["step"] for row in whole[0]]
        assert first["out of time"] == second["out of time"] == 1

    return check
