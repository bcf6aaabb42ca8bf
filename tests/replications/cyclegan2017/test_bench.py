"""The plain step that ours is timed beside: the same networks, and the same numbers where every fast layer works."""

from dataclasses import replace

import pytest
import torch

from lib.models import resnet_generator
from lib.training.randomness import Streams
from replications.cyclegan2017 import bench
from replications.cyclegan2017.bench import PAPER, SMALL, PlainPool, largest_difference, measure_case, steps_of
from replications.cyclegan2017.networks import n_parameters
from replications.cyclegan2017.train import weights_of

CPU = torch.device("cpu")


def test_plain_networks_are_the_authors():
    with torch.device("meta"):
        assert n_parameters(bench.plain_generator(3, 3, 64, 9)) == 11_378_179
        assert n_parameters(bench.plain_discriminator(3, 64, 3)) == 2_764_737
        assert bench.plain_discriminator(3, 64, 3)(torch.empty(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_a_step_at_the_papers_width_has_the_plain_steps_losses(monkeypatch):
    """One block at 128 x 128 in single precision, tiles in use."""
    used = []
    by_tiles = resnet_generator.reflected_conv3
    monkeypatch.setattr(resnet_generator, "reflected_conv3", lambda *args: used.append(1) or by_tiles(*args))
    config = replace(PAPER, side=128, n_blocks=1)
    steps = steps_of(config, CPU)
    off = largest_difference(config, steps["ours"](), steps["plain"]())
    assert len(used) == 4 * 2  # passes through a translator, convolutions of its block
    assert off < 1e-4


def test_a_difference_is_relative_and_by_name():
    columns = (*weights_of(PAPER), "discriminator_b", "discriminator_a")
    value = {name: float(i + 1) for i, name in enumerate(columns)}
    ours = torch.tensor([value[name] for name in columns])
    plain = torch.tensor([value[name] for name in bench.LOSSES[0.0]])
    assert largest_difference(PAPER, ours, plain) == 0
    plain[bench.LOSSES[0.0].index("cycle_b")] *= 2
    assert largest_difference(PAPER, ours, plain) == pytest.approx(0.5)


def test_a_row_says_how_many_times_our_time_the_plain_step_takes(monkeypatch):
    monkeypatch.setattr(bench, "peak_megabytes", lambda call, which, case: {"ours": 1, "plain": 2}[which])
    monkeypatch.setattr(bench, "counted_flop", lambda step: 10**6)
    taken = {"ours": 0.001, "plain": 0.004, "product": 0.1}
    monkeypatch.setattr(
        bench, "take_turns", lambda works, rounds, **_: {work: rounds * [taken[work]] for work in works}
    )
    monkeypatch.setattr(bench, "steps_of", lambda *_: dict.fromkeys(("ours", "plain"), lambda: torch.ones(6)))
    row = measure_case("made up", SMALL, "cpu", 1, rounds=3)
    assert row["plain / ours"] == [4, 4, 4]
    assert (row["ours peak MB"], row["plain peak MB"]) == (1, 2)
    assert row["losses off by"] == "0.0e+00"


def test_peak_memory_is_that_of_a_process_of_its_own():
    """Which holds PyTorch, a small network and little more."""
    case = next(name for name, (config, _, _) in bench.CASES.items() if config == SMALL)
    assert 100 < bench.peak_megabytes(f"{bench.__name__}.two_steps", "ours", case) < 1500


def test_the_plain_pool_is_the_authors():
    pool = PlainPool(2)
    draws = iter([0.9, 0.6, 0.2])
    pool.uniform = lambda: next(draws)
    x = torch.arange(4.0).view(4, 1, 1, 1)
    assert pool.query(x).flatten().tolist() == [0, 1, 1, 3]  # the third takes the place of the second
    assert [image.item() for image in pool.images] == [0, 2]


def test_both_steps_start_from_the_same_weights():
    loop = bench.PlainLoop(SMALL, nets := bench.build(SMALL, (3, 3), Streams(0)))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(loop.netG_A(x), nets.to_b(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(loop.netG_B(x), nets.to_a(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(loop.netD_A(x).squeeze(1), nets.judge_b(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(loop.netD_B(x).squeeze(1), nets.judge_a(x), rtol=1e-3, atol=1e-4)
