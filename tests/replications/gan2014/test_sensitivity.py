"""Sensitivity: Adam with a rate a model against PyTorch's, a lost model alone, the rule of failure, resuming."""

import math

import pytest
import torch

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.metrics.modes import CoverageOfModels, coverage_of_models
from lib.models.batched import BatchedLinear
from replications.gan2014.config import SensitivityConfig
from replications.gan2014.sensitivity import AdamOfRates, has_failed, sensitivity

TINY = SensitivityConfig(8, 2, 6, learning_rates=(1e-3, 1e-2), n_models=2, batch=10, n_samples=40)


def test_adam_of_rates_is_pytorchs_adam_for_each_model():
    """Five steps on a batched layer and on a flat vector; each model against torch.optim.Adam at its own rate."""
    rates, rng = torch.tensor([1e-3, 1e-2, 1e-1]), torch.Generator().manual_seed(0)
    layer, flat = BatchedLinear(3, 4, 5, rng), torch.nn.Parameter(torch.randn(6, generator=rng))
    parameters = [*layer.parameters(), flat]
    slices = [[p.detach().unflatten(0, (3, -1))[r].clone().requires_grad_() for p in parameters] for r in range(3)]
    ours = AdamOfRates(parameters, rates, (0.5, 0.999))
    theirs = [torch.optim.Adam(s, lr=r.item(), betas=(0.5, 0.999)) for s, r in zip(slices, rates, strict=True)]
    for _ in range(5):
        gradients = [torch.randn(p.shape, generator=rng) for p in parameters]
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
        ours.step()
        for r, optimizer in enumerate(theirs):
            for p, gradient in zip(slices[r], gradients, strict=True):
                p.grad = gradient.unflatten(0, (3, -1))[r].clone()
            optimizer.step()
    for r in range(3):
        for p, own in zip(parameters, slices[r], strict=True):
            torch.testing.assert_close(p.detach().unflatten(0, (3, -1))[r], own.detach(), rtol=1e-5, atol=1e-7)


def test_a_model_that_is_lost_takes_no_other_with_it(tmp_path):
    """An absurd rate overflows its models; those of the other rate end where they end without it at their side."""
    with deterministic("cpu"):
        runs = [
            sensitivity(SensitivityConfig(8, 1, 6, rates, 2, batch=10, n_samples=40), Workspace(tmp_path / name, 0))
            for name, rates in (("beside", (1e-3, 1e30)), ("sane", (1e-3, 1e-3)))
        ]
    beside, sane = runs
    assert beside.facts["finite"] == [True, True, False, False]
    assert beside.facts["failed"][2:] == [True, True]
    assert beside.facts["reverse_kl"][:2] == pytest.approx(sane.facts["reverse_kl"][:2], abs=1e-12)
    assert beside.scores["failed_lr1e+30"].value == 1


@pytest.mark.parametrize(
    ("modes", "quality", "failed"), [(4, 0.5, False), (8, 1.0, False), (3, 1.0, True), (8, 0.49, True), (0, 0.0, True)]
)
def test_the_rule_of_failure(modes, quality, failed):
    numbers = [torch.tensor([float(x)], dtype=torch.float64) for x in (modes, quality, 0, 0)]
    assert has_failed(CoverageOfModels(*numbers, torch.tensor([True]))).tolist() == [failed]


def test_a_run_has_a_share_for_each_rate_and_repeats_its_bits_after_a_kill(tmp_path, monkeypatch):
    with deterministic("cpu"):
        whole = sensitivity(TINY, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        stopped = Workspace(tmp_path / "killed", 0)
        keep = stopped.keep

        def keep_and_stop(state, total, **parts):
            stopped.deadline = 0.0 if state["step"] == 3 else None
            keep(state, total, **parts)

        monkeypatch.setattr(stopped, "keep", keep_and_stop)
        with pytest.raises(OutOfTime):
            sensitivity(TINY, stopped)
        again = sensitivity(TINY, Workspace(tmp_path / "killed", 0))
    assert whole.facts["reverse_kl"] == again.facts["reverse_kl"]
    assert set(whole.scores) == {f"{n}_lr{r}" for n in ("failed", "modes", "high_quality") for r in ("0.001", "0.01")}
    score = whole.scores["modes_lr0.01"]
    assert (score.n, score.protocol["learning_rate"], score.protocol["ratio"]) == (2, 1e-2, 2)
    assert score.value == pytest.approx(sum(whole.facts["modes"][2:]) / 2)


def test_the_rates_of_one_cell_move_its_models_only(tmp_path):
    """Models of a higher rate end elsewhere; those of the unchanged rate end in the same place."""
    with deterministic("cpu"):
        low, high = (
            sensitivity(
                SensitivityConfig(8, 1, 6, (1e-3, r), 2, batch=10, n_samples=40), Workspace(tmp_path / f"{r}", 0)
            )
            for r in (1e-3, 1e-1)
        )
    assert low.facts["reverse_kl"][:2] == pytest.approx(high.facts["reverse_kl"][:2], abs=1e-12)
    assert low.facts["reverse_kl"][2:] != high.facts["reverse_kl"][2:]


def test_coverage_of_a_wider_ring_takes_its_own_spread():
    from lib.datasets.mixtures import ring

    centres = ring(8, 1.0, 0.05).centres
    points = centres[None] * 1.1  # 0.1 off: within 3 sd of .05, beyond those of .01
    assert [coverage_of_models(points, centres, sd).high_quality.item() for sd in (0.05, 0.01)] == [1, 0]
    assert math.isclose(coverage_of_models(points, centres, 0.05).reverse_kl.item(), 0, abs_tol=1e-12)
