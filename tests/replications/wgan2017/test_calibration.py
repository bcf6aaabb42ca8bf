"""Trained critics against the exact W: the laws, the exact plan, the scores, the penalty's closed form, resumption."""

import dataclasses
import math

import numpy as np
import ot
import pytest
import torch

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.training.randomness import Streams, generator
from replications.wgan2017 import calibration as module
from replications.wgan2017.calibration import (
    CLOUDS,
    FAMILIES,
    GAUSSIANS,
    LINES,
    NAMES,
    build,
    calibration,
    clouds,
    draw,
    drift,
    laws,
    learning_rate,
    matched,
    ratios,
    scores_of,
    surfaces,
)
from replications.wgan2017.config import CalibrationConfig

TINY = CalibrationConfig("clip", n_steps=12, width=8, batch=16, n_models=2, learning_rate=1e-3, clip=0.1)
PENALTY = dataclasses.replace(TINY, kind="penalty")


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic("cpu"):
        yield


@pytest.fixture
def known():
    return laws(TINY, Streams(0))


def falling_line(config):
    """Critics f(x) = -x_1 for every law, by one unit for each sign: optimal where the fakes lie to the right."""
    critic = build(dataclasses.replace(config, n_layers=1), Streams(0))
    for parameter in critic.parameters():
        parameter.data.zero_()
    critic[0].weight.data[:, 0, :2] = torch.tensor([1.0, -1.0])
    critic[2].weight.data[:, :2, 0] = torch.tensor([-1.0, 1.0])
    return critic


def test_names_are_in_the_order_of_the_families():
    assert NAMES[FAMILIES["gaussians"]][0] == "gaussian_m0p25"
    assert all(name.startswith(family[:-1]) for family, part in FAMILIES.items() for name in NAMES[part])
    assert len(NAMES) == len(GAUSSIANS) + len(LINES) + len(CLOUDS)


def test_exact_w_is_that_of_linear_programming(known):
    uniform = np.full(TINY.batch, 1 / TINY.batch)
    for place, name in enumerate(CLOUDS):
        real, fake = known.clouds[:, place].double().numpy()
        expected = ot.emd2(uniform, uniform, ot.dist(real, fake, metric="euclidean"))
        assert known.truth[NAMES.index(f"cloud_{name}")].item() == pytest.approx(expected, rel=1e-6)
        cost = np.linalg.norm(real - fake[known.matching[place]], axis=1).mean()
        assert cost == pytest.approx(expected, rel=1e-6)
    assert known.truth[:9].tolist() == [*GAUSSIANS, *LINES]


def test_matched_recovers_a_permutation_of_a_moved_cloud():
    real = 5 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    w, matching = matched(real, real[order] + torch.tensor([0.03, 0.04]))
    assert w == pytest.approx(0.05, rel=1e-4)
    assert torch.equal(order[matching], torch.arange(20))


def test_clouds_are_what_they_are_called():
    real, fake = clouds(4000, generator(0, "clouds"))
    blob, ring = real[0], fake[0]
    assert blob.std(0).tolist() == pytest.approx([0.3, 0.3], rel=0.05)
    assert ring.norm(dim=1).mean().item() == pytest.approx(2, abs=0.02)
    assert ring.mean(0).abs().max() < 0.1
    left = real[1][:, 0] < 0
    assert left.float().mean().item() == pytest.approx(0.5)
    assert fake[1][left].mean(0).tolist() == pytest.approx([-1.5, -1.5], abs=0.05)
    assert fake[1][~left].mean(0).tolist() == pytest.approx([1.5, 1.5], abs=0.05)
    assert 0.5 < real[2].norm(dim=1).min() < real[2].norm(dim=1).max() < 2.3  # 1.5 pi / 7 to 4.5 pi / 7
    assert fake[2].norm(dim=1).mean().item() == pytest.approx(0.3 * math.sqrt(math.pi / 2), rel=0.05)


def test_drawn_points_follow_their_laws():
    config = dataclasses.replace(TINY, batch=400)
    known = laws(config, Streams(0))
    real, fake = (side.view(len(NAMES), 2, 400 * 3, 2) for side in draw(config, known, Streams(0).at("points"), 3))
    for place, shift in enumerate(GAUSSIANS):
        assert real[place].mean((0, 1)).tolist() == pytest.approx([0, 0], abs=0.1)
        assert fake[place].mean((0, 1)).tolist() == pytest.approx([shift, 0], abs=0.1)
        assert fake[place].flatten(0, 1).std(0).tolist() == pytest.approx([1, 1], abs=0.1)
    for place, shift in enumerate(LINES, len(GAUSSIANS)):
        assert (real[place][..., 0] == 0).all()
        assert (fake[place][..., 0] == shift).all()
        assert real[place][..., 1].mean().item() == pytest.approx(0.5, abs=0.05)
        assert real[place][..., 1].min() >= 0
        assert real[place][..., 1].max() <= 1
    for place in range(9):
        assert not torch.equal(real[place, 0], real[place, 1])  # each repeat has its own points
        assert not torch.equal(real[place][..., 1], fake[place][..., 1])  # and each side


def test_clouds_come_whole_and_in_new_orders(known):
    (real, fake), (again, _) = (draw(TINY, known, Streams(0).at("points", step), 2) for step in (0, 1))
    for side, drawn in ((0, real), (1, fake)):
        for place in range(len(CLOUDS)):
            for repeat in range(2):
                model = drawn[2 * (9 + place) + repeat].view(2, TINY.batch, 2)
                for tile in model:
                    assert sorted(tile.tolist()) == sorted(known.clouds[side, place].tolist())
    assert not torch.equal(real[-1], again[-1])
    assert not torch.equal(real[-1], real[-2])


def test_paired_fakes_are_the_moved_real_points(known):
    real, fake = draw(TINY, known, Streams(0).at("points"), paired=True)
    moved = (fake - real)[:18].view(9, -1, 2)
    for place, shift in enumerate([*GAUSSIANS, *LINES]):
        assert moved[place].amin(0).tolist() == pytest.approx([shift, 0], abs=1e-6)
        assert moved[place].amax(0).tolist() == pytest.approx([shift, 0], abs=1e-6)


def test_repeats_start_alike_at_every_law():
    critic = build(TINY, Streams(4))
    weight = critic[0].weight.view(len(NAMES), TINY.n_models, 2, TINY.width)
    assert (weight == weight[:1]).all()
    assert not torch.equal(weight[0, 0], weight[0, 1])


def test_ratios_of_the_optimal_critic_are_one(known):
    found = ratios(TINY, falling_line(TINY), known, Streams(0).at("evaluation"), 4)
    assert found[:9].flatten().tolist() == pytest.approx(18 * [1.0], abs=1e-5)
    means = known.clouds[:, :, :, 0].double().mean(2)
    expected = ((means[1] - means[0]) / known.truth[9:]).tolist()
    assert found[9:, 1].tolist() == pytest.approx(expected, abs=1e-5)


def test_surfaces_are_the_values_of_the_first_repeat():
    critic = falling_line(TINY)
    critic[2].bias.data[18:] = torch.tensor([0.0, 9.0, 1.0, 9.0, 2.0, 9.0]).view(6, 1, 1)
    found = surfaces(TINY, critic)
    assert found.shape == (3, module.GRID, module.GRID)
    assert found[:, 0, 7].tolist() == pytest.approx([3, 4, 5])
    assert found[:, -1, 7].tolist() == pytest.approx([-3, -2, -1])


def test_rate_falls_with_a_penalty_alone():
    assert [learning_rate(TINY, step) for step in (0, 6)] == [1e-3, 1e-3]
    assert [learning_rate(PENALTY, step) for step in (0, 6)] == pytest.approx([1e-3, 5e-4])


def test_scores_of_known_ratios(known):
    found = torch.ones(12, 2, dtype=torch.float64)
    found[:5] = torch.tensor([[1.0, 2.0], [2, 4], [3, 6], [4, 8], [5, 10]])
    found[5:9] = 1 + known.truth[5:9, None] * torch.tensor([0.05, 0.07])
    bounds = torch.full_like(found, 20.0)
    history = [{"step": 1.0, **dict.fromkeys(NAMES, 1.0)}, {"step": 4.0, **dict.fromkeys(NAMES, 2.0)}]
    scores = scores_of(PENALTY, known, found, bounds, history)
    assert scores["ratio_gaussian_m1"].value == pytest.approx(4.5)
    assert scores["ratio_gaussians"].value == pytest.approx(4.5)
    assert scores["ratio_gaussians"].stderr == pytest.approx(1.5)  # of 3 and 6
    assert scores["spread_gaussians"].value == pytest.approx(math.sqrt(2.5) / 3)  # the same for both repeats
    assert scores["spread_gaussians"].stderr == pytest.approx(0, abs=1e-12)
    assert scores["decades_gaussians"].value == pytest.approx((math.log10(3) + math.log10(6)) / 2)
    assert scores["excess_lines"].value == pytest.approx(0.06)
    assert scores["largest_over_bound"].value == pytest.approx(0.5)
    assert scores["over_bound"].value == pytest.approx(found.mean().item() / 20)
    assert scores["drift"].value == pytest.approx(0.5)
    assert "excess_lines" not in scores_of(TINY, known, found, bounds, history)
    for name in ("ratio_gaussians", "spread_lines"):
        assert (scores[name].n, scores[name].protocol["averaged_over"]) == (2, "models")
    assert "averaged_over" not in scores["largest_over_bound"].protocol


def test_drift_is_the_largest_change_of_the_last_quarter():
    rows = [{"step": float(step), **dict.fromkeys(NAMES, 1.0)} for step in (50, 75, 76, 100)]
    rows[0]["line_t1"], rows[1]["line_t1"], rows[2]["line_t1"] = 7.0, 1.2, 9.0
    rows[1]["cloud_roll"] = 0.7
    assert drift(rows) == pytest.approx(0.3)
    dead = [{"step": float(step), **dict.fromkeys(NAMES, 0.0)} for step in (50, 100)]
    assert drift(dead) == 0  # a critic whose units are all off


@pytest.mark.parametrize("config", [TINY, PENALTY], ids=["clip", "penalty"])
def test_a_killed_run_ends_in_the_same_bits(config, tmp_path, monkeypatch):
    whole = calibration(config, Workspace(tmp_path / "whole", 0))
    (tmp_path / "part").mkdir()
    steps, keep = iter(range(5)), Workspace.keep

    def stopping(self, state, total, **parts):
        if next(steps, None) is None:
            self.deadline = 0.0
        keep(self, state, total, **parts)

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "keep", stopping)
        with pytest.raises(OutOfTime):
            calibration(config, Workspace(tmp_path / "part", 0))
    resumed = calibration(config, Workspace(tmp_path / "part", 0))
    assert resumed.facts == whole.facts
    assert resumed.history == whole.history
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)


@pytest.mark.parametrize("config", [TINY, PENALTY], ids=["clip", "penalty"])
def test_outcome_is_whole(config, tmp_path):
    outcome = calibration(config, Workspace(tmp_path, 3))
    assert all(math.isfinite(score.value) for score in outcome.scores.values())
    assert [row["step"] for row in outcome.history] == list(range(1, 13))
    assert {tuple(row) for row in outcome.history} == {("step", *NAMES)}
    assert outcome.scores["largest_over_bound"].value <= 1
    assert outcome.facts["parameters"] == 2 * 8 + 8 + 8 * 8 + 8 + 8 + 1
    for name in NAMES:
        assert outcome.scores[f"ratio_{name}"].value == pytest.approx(np.mean(outcome.facts["ratios"][name]))
    assert not torch.equal(outcome.weights["surfaces"][0], outcome.weights["surfaces"][1])


def test_the_estimate_rises_with_training(tmp_path):
    config = dataclasses.replace(TINY, n_steps=150, batch=32)
    history = calibration(config, Workspace(tmp_path, 0)).history
    assert all(history[-1][name] > history[0][name] for name in NAMES)
    assert min(history[-1][name] for name in NAMES) > 0


def test_penalty_ends_at_its_closed_form(tmp_path):
    config = CalibrationConfig("penalty", n_steps=1000, learning_rate=2e-3, n_models=1, penalty=5.0)
    scores = calibration(config, Workspace(tmp_path, 1)).scores
    assert scores["ratio_line_t2"].value == pytest.approx(1 + 2 / (2 * 5), abs=0.005)
    assert scores["excess_lines"].value == pytest.approx(0.1, abs=0.005)
    assert scores["ratio_gaussian_m4"].value == pytest.approx(1 + 4 / (2 * 5), abs=0.02)
