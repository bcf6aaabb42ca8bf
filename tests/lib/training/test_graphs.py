"""A captured step does what the step does: on a CPU by calling it, on a GPU by a record that repeats its bits."""

import copy

import pytest
import torch
from torch import nn

from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep


def regression(device: str) -> tuple[nn.Module, torch.optim.SGD, CapturedStep]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, optimizer, CapturedStep(step, training_tensors(model=model), torch.device(device))


def batches(device: str, n: int = 5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 3, generator=generator).to(device), torch.randn(8, 1, generator=generator).to(device))
            for _ in range(n)]  # fmt: skip


def test_on_a_cpu_every_call_is_the_step_itself():
    model, _, captured = regression("cpu")
    x, y = batches("cpu")[0]
    before = copy.deepcopy(model)
    loss = captured(x, y)
    assert loss.item() == pytest.approx((before(x) - y).square().mean().item())
    plain = torch.autograd.grad((before(x) - y).square().mean(), list(before.parameters()))
    for moved, start, gradient in zip(model.parameters(), before.parameters(), plain, strict=True):
        torch.testing.assert_close(moved, start - 0.1 * gradient)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnAGpu:
    def test_the_record_repeats_the_steps_bits_and_its_warm_ups_do_not_count(self):
        plain, captured = regression("cuda"), regression("cuda")
        plain[2]._recorded = False
        assert captured[2]._recorded
        for x, y in batches("cuda"):
            losses = plain[2](x, y).item(), captured[2](x, y).item()
            assert losses[0] == losses[1]
        for one, other in zip(plain[0].parameters(), captured[0].parameters(), strict=True):
            assert torch.equal(one, other)

    def test_a_frozen_number_is_the_old_one_until_the_record_is_renewed(self):
        model, optimizer, captured = regression("cuda")
        x, y = batches("cuda")[0]
        captured(x, y)
        optimizer.param_groups[0]["lr"] = 0.0
        before = copy.deepcopy(model.state_dict())
        captured(x, y)
        assert not torch.equal(before["0.weight"], model.state_dict()["0.weight"])
        captured.renew()
        before = copy.deepcopy(model.state_dict())
        captured(x, y)
        assert torch.equal(before["0.weight"], model.state_dict()["0.weight"])
