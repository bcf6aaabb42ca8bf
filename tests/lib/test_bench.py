"""What is timed side by side does the same work; and a ratio says how many times our time the peer takes."""

import pytest
import torch

from lib import bench
from lib.likelihood import importance_weighted_bound
from lib.models.gaussian_vae import BernoulliVAE


def test_a_ratio_above_one_means_that_the_peer_takes_longer() -> None:
    row = bench._row("w", "p", [1.0, 2.0, 4.0], [3.0, 4.0, 4.0], 2, "")
    assert (row["work_s"], row["peer_s"]) == (2.0, 4.0)
    assert (row["low"], row["ratio"], row["high"]) == (1.0, 2.0, 3.0)


def test_work_and_peer_take_turns_after_one_untimed_call_each() -> None:
    called: list[str] = []
    taken = bench._seconds(lambda: called.append("a"), lambda: called.append("b"), rounds=3)
    assert called == ["a", "b"] * 4
    assert [len(seconds) for seconds in taken] == [3, 3]


def test_pythae_computes_the_same_bound() -> None:
    """Its get_nll returns +log p: the same sign as ours, on the same weights."""
    pytest.importorskip("pythae", reason="pythae is not installed")
    torch.manual_seed(0)
    model = BernoulliVAE(64, 20, 2)
    x = torch.bernoulli(torch.full((10, 64), 0.3))
    theirs = bench._pythae(model)
    assert theirs is not None
    ours = importance_weighted_bound(model, x, 2000, torch.Generator().manual_seed(1)).mean().item()
    assert theirs.get_nll(x, n_samples=2000) == pytest.approx(ours, abs=0.05)
