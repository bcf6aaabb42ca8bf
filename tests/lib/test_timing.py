"""Contenders take turns, warm-ups do not count, and ratios are taken within each round."""

import pytest

from lib import timing


def test_every_round_calls_each_contender_in_turn(monkeypatch):
    calls, clock = [], iter(range(10**6))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    times = timing.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    n = timing.REPEATS
    assert calls == (["a"] * n + ["b"] * n) * (2 + timing.WARM_UP)
    assert times == {"a": [1 / n] * 2, "b": [1 / n] * 2}  # two readings of the clock are one apart


def test_ratios_are_of_the_same_round():
    assert timing.ratio_quartiles([1.0, 20.0, 300.0], [1.0, 10.0, 100.0]) == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="shorter"):
        timing.ratio_quartiles([1.0, 2.0], [1.0])
