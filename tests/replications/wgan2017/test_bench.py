"""What an iteration of the image GANs is timed beside: loops of the same work, and a row divides the right times."""

import pytest
import torch

from lib.timing import counted_flop
from replications.wgan2017 import bench


def test_the_loops_convolve_alike():
    """By PyTorch's own counter; ours may compute a layer in another shape, never in fewer than nine tenths."""
    works = bench.contenders(4, 1, torch.device("cpu"))
    ours, loop, loaded = (counted_flop(works[name]) for name in ("ours", "loop", "with loader"))
    assert loop == loaded > 0
    assert 0.9 * loop <= ours <= 1.3 * loop


def test_a_row_divides_by_our_iteration(monkeypatch):
    taken = {"ours": 0.004, "loop": 0.008, "with loader": 0.016, "product": 0.1}
    monkeypatch.setattr(bench, "contenders", lambda *_: dict.fromkeys(taken))
    monkeypatch.setattr(bench, "take_turns", lambda works, rounds: {name: rounds * [taken[name]] for name in works})
    monkeypatch.setattr(bench, "counted_flop", lambda step: 10**6)
    monkeypatch.setattr(bench, "peak_megabytes", lambda call, filters, channels, threads, which: len(which))
    row = bench.measure_case("cpu", 16, 1, 1, rounds=4)
    assert row["loop / ours"] == [2, 2, 2]
    assert row["with loader / ours"] == [4, 4, 4]
    config = bench.made_up_config(16)
    assert row["images/s"] == pytest.approx(config.batch * config.n_critic / 0.004)
    assert (row["ours peak MB"], row["loop peak MB"]) == (4, 4)
    assert row["case"] == "1 x 32 x 32, 16 filters, 1 thread, cpu"
