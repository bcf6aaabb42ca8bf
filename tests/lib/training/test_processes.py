"""Two processes of torchrun: shares, means and batch norm beside PyTorch's own of the whole minibatch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib.models.batch_norm import SharedBatchNorm2d, share_batch_norm_
from lib.training.processes import ALONE, Processes, joined


@pytest.fixture(scope="module")
def found(torchrun: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    done = torchrun(Path(__file__).with_name("two_processes.py"), folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_each_knows_which_it_is(found):
    assert [each["processes"] for each in found] == [(0, 2, True, "cpu"), (1, 2, False, "cpu")]


def test_shares_are_the_batch_cut_in_order(found):
    assert [each["share"].tolist() for each in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [each["share of columns"].tolist() for each in found] == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    assert found[1]["uneven"] == "7 rows do not divide among 2 processes"


def test_all_get_the_shares_the_mean_and_the_word_of_the_first(found):
    for each in found:
        assert each["gathered"].tolist() == [[0, 1], [2, 3], [10, 11], [12, 13]]
        a, b = each["means"]
        assert a.tolist() == [1.5, 1.5, 1.5]
        assert torch.equal(b, torch.arange(24.0).view(1, 2, 3, 4) / 2)
        assert each["copied"].tolist() == [[5, 5], [5, 5]]
        assert each["told"] == {"by": 0, "n": 3}


def test_batch_norm_is_that_of_the_whole_minibatch(found):
    for each in found:
        torch.testing.assert_close(each["norm"]["found"], each["norm"]["wanted"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(*each["norm"]["evaluated"], rtol=1e-5, atol=1e-6)


def test_averaged_gradients_are_those_of_distributed_data_parallel(found):
    for each in found:
        torch.testing.assert_close(each["ddp"]["ours"], each["ddp"]["theirs"], rtol=1e-6, atol=1e-7)
        assert (each["ddp"]["own"] - each["ddp"]["ours"]).abs().max() > 0.01  # a share's own gradient is another


def test_one_process_alone_touches_nothing(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with joined("cpu") as (processes, device):
        assert (processes, device) == (ALONE, "cpu")
    x = torch.rand(4, 3)
    assert ALONE.share(x) is x
    assert ALONE.gather(x) is x
    before = x.clone()
    ALONE.mean_(x)
    ALONE.copy_([x])
    assert torch.equal(x, before)
    assert torch.equal(ALONE.stacked(x), x[None])
    assert ALONE.told(lambda: x) is x
    network = nn.Sequential(nn.BatchNorm2d(3))
    share_batch_norm_(network, ALONE)
    assert type(network[0]) is nn.BatchNorm2d


def test_batch_norm_that_cannot_be_shared_is_refused():
    for layer in (nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, momentum=None)):
        with pytest.raises(ValueError, match="only batch norm with scale"):
            SharedBatchNorm2d(layer, Processes(0, 2))
