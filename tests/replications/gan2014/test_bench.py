"""What the digit nets' step is timed beside: the floor's products are counted, and a row divides the right times."""

from dataclasses import replace

import pytest
import torch

from lib.timing import counted_flop
from replications.gan2014 import bench
from replications.gan2014.presets import PRESETS

CPU = torch.device("cpu")
TINY = replace(
    PRESETS["smoke"]["digits-simultaneous"], batch=5, n_latent=7, generator_hidden=11, maxout_units=3, maxout_pieces=2
)


def test_the_floor_multiplies_what_is_counted():
    assert counted_flop(bench.bare_products(TINY, CPU, n_pixels=13)) == bench.products_flop(TINY, n_pixels=13)


@pytest.mark.parametrize("name", ["step", "textbook"])
def test_a_step_multiplies_as_much_as_the_floor(name):
    """By PyTorch's own counter, but for the discriminator's last layer, whose one unit the floor leaves out: it is
    passed twice forward, has two gradients of its weights and three of its input."""
    torch.manual_seed(0)
    counted = counted_flop(bench._contenders(TINY, CPU)[name])
    last = TINY.batch * TINY.maxout_units
    assert counted == bench.products_flop(TINY) + 2 * 7 * last


def test_a_row_divides_by_the_floor(monkeypatch):
    taken = {"floor": 0.002, "step": 0.004, "minibatch": 0.001, "textbook": 0.012, "product": 0.1}
    monkeypatch.setattr(bench, "_contenders", lambda *_: dict.fromkeys(taken))
    monkeypatch.setattr(bench, "take_turns", lambda works, rounds: {name: rounds * [taken[name]] for name in works})
    monkeypatch.setattr(bench, "peak_megabytes", lambda call, which, preset, threads: {"step": 1, "textbook": 2}[which])
    row = bench.measure_case("cpu", "laptop", 1, rounds=4)
    assert row["step / floor"] == [2, 2, 2]
    assert row["textbook / floor"] == [6, 6, 6]
    assert row["step ms"] == pytest.approx(4)
    batch = PRESETS["laptop"]["digits-simultaneous"].batch
    assert row["images/s"] == pytest.approx(batch / 0.004)
    assert (row["step peak MB"], row["textbook peak MB"]) == (1, 2)
    assert row["case"].endswith("1 thread, cpu")
