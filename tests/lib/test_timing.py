"""Contenders take turns, warm-ups do not count, ratios are of one round; operations and memory are counted."""

import pytest
import torch
from torch import nn

from lib import timing


def test_every_round_calls_each_contender_in_turn(monkeypatch):
    calls, clock = [], iter(range(10**6))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    times = timing.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    n = timing.REPEATS
    assert calls == (["a"] * n + ["b"] * n) * (2 + timing.WARM_UP)
    assert times == {"a": [1 / n] * 2, "b": [1 / n] * 2}  # two readings of the clock are one apart


def test_repeats_and_warm_up_can_be_chosen():
    calls = []
    times = timing.take_turns({"a": lambda: calls.append("a")}, rounds=3, repeats=2, warm_up=1)
    assert len(calls) == 2 * (3 + 1)
    assert len(times["a"]) == 3


def test_ratios_are_of_the_same_round():
    assert timing.ratio_quartiles([1.0, 20.0, 300.0], [1.0, 10.0, 100.0]) == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="shorter"):
        timing.ratio_quartiles([1.0, 2.0], [1.0])


def test_a_step_as_fast_as_the_yardstick_has_a_share_of_one():
    product, rounds = 2 * timing.SIDE**3, [0.1, 0.2, 0.4]
    found = timing.product_rates(product, rounds, rounds)
    assert list(found.values()) == [round(product / 0.2 / 1e9, 1), [1.0, 1.0, 1.0]]
    half = timing.product_rates(product / 2, rounds, rounds)
    slower = timing.product_rates(product, [2 * seconds for seconds in rounds], rounds)
    assert list(half.values())[1] == list(slower.values())[1] == [0.5, 0.5, 0.5]


def test_operations_are_counted_forward_and_backward():
    """A convolution of 4 x 4 outputs: three products of equal size, of which the input's gradient is not asked."""
    conv, x = nn.Conv2d(3, 5, 3), torch.zeros(2, 3, 6, 6)
    forward = 2 * (2 * 5 * 4 * 4) * (3 * 3 * 3)
    assert timing.counted_flop(lambda: conv(x)) == forward
    assert timing.counted_flop(lambda: conv(x).sum().backward()) == 2 * forward
    assert timing.counted_flop(lambda: conv(x.requires_grad_()).sum().backward()) == 3 * forward


def test_peak_memory_is_that_of_a_process_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "taker.py").write_text("def take(megabytes): return b'x' * (int(megabytes) << 20)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    little, much = (timing.peak_megabytes("taker.take", n) for n in (1, 301))
    assert little > 50
    assert 280 < much - little < 320
