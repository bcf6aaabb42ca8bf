"""Every fault of `regen bench faults` ends in the right bits, and in a sentence where something was refused."""

import sys
from types import SimpleNamespace

import pytest

from lib.execution import bench
from replications import faults


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and mounts file systems")
def test_every_fault_ends_right() -> None:
    rows = faults.measure(kills=2)
    assert [row for row in rows if row["right"] < row["n"]] == []
    assert len({row["fault"] for row in rows}) >= 9


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (1, "regen: No space left", True),
        (0, "regen: No space left", False),
        (1, "regen: something else", False),
        (1, "Traceback (most recent call last):\nNo space left", False),
    ],
)
def test_a_refusal_has_its_code_its_sentence_and_no_traceback(code: int, said: str, expected: bool) -> None:
    assert faults.refused(faults.Ended(code, said), 1, "No space left") is expected


@pytest.mark.slow
def test_the_schedulers_cost_is_measured() -> None:
    here, cluster = bench.overhead(tasks=4)
    assert 0 < here["sum_of_runs_s"] <= here["wall_s"]
    assert 0 < cluster["sum_of_runs_s"] <= 2 * cluster["wall_s"]


def test_equal_runs_last_as_long_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_computed", lambda runs, workers: (0.3, [SimpleNamespace(seconds=0.25)]))
    assert bench._lasting(10.0).steps == 20_000  # 500 of them took a quarter of a second
    assert bench._lasting(0.01).steps == 100
