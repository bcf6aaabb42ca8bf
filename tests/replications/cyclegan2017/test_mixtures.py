"""Two rings: a step of each variant beside plain models alone, the measures on known maps, resuming, a run."""

import dataclasses
import math

import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import nn

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.batched import BatchedLinear
from lib.training.randomness import Streams, generator
from replications.cyclegan2017 import mixtures as module
from replications.cyclegan2017.config import MixturesConfig
from replications.cyclegan2017.mixtures import (
    Measures,
    build,
    discriminators_step,
    domains,
    evaluated,
    evaluation_steps,
    fresh_points,
    learning_rate,
    measures,
    mixtures,
    other_half,
    translators_step,
)

VARIANTS = {
    "gan": {"cycle_a": 0.0, "cycle_b": 0.0},
    "forward": {"cycle_b": 0.0},
    "cyclegan": {"cycle_b": 7.0},  # unlike cycle_a, so that an exchange of the two is seen
    "cycle": {"adversarial": 0.0},
    "identity": {"identity": 5.0, "adversarial": 2.0},
}
TINY = MixturesConfig("ring", n_steps=12, n_models=3, width=6, batch=10, n_points=20, learning_rate=1e-2)


@pytest.fixture
def double():
    """Float64 throughout: a bias that moves nothing has a gradient of rounding errors, which Adam scales up."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def config_of(variant):
    return dataclasses.replace(TINY, **VARIANTS[variant])


def minibatch(seed=0):
    return torch.randn(6, 10, 2, generator=torch.Generator().manual_seed(seed))


def alone(network, r):
    """Network r of a batched one as plain PyTorch layers."""
    layers = []
    for layer in network:
        if isinstance(layer, BatchedLinear):
            plain = nn.Linear(*layer.weight.shape[1:])
            with torch.no_grad():
                plain.weight.copy_(layer.weight[r].T)
                plain.bias.copy_(layer.bias[r, 0])
            layers.append(plain)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def players_of(game, r):
    """G, F, D_B, D_A of model r."""
    return [alone(player.network, place) for player in game for place in (r, r + TINY.n_models)]


# --- the domains -------------------------------------------------------------------------------------------------


def angles_of(mixture):
    return torch.atan2(mixture.centres[:, 1], mixture.centres[:, 0]).double().rad2deg() % 360


@pytest.mark.parametrize("target", ["ring", "grid", "groups"])
def test_modes_are_counted_anticlockwise_and_lie_apart(target):
    a, b = domains(target)
    assert angles_of(a).tolist() == pytest.approx(list(range(0, 360, 45)), abs=1e-4)
    assert (angles_of(b).diff() > 1).all()
    assert len(a.centres) == len(b.centres) == 8
    assert torch.pdist(b.centres).min().item() > 8 * b.sd
    torch.testing.assert_close(b.centres.mean(0), torch.zeros(2), rtol=0, atol=1e-6)


def test_where_the_modes_of_b_lie():
    ring, grid, groups = (domains(target)[1] for target in ("ring", "grid", "groups"))
    assert angles_of(ring).tolist() == pytest.approx(list(range(15, 360, 45)), abs=1e-4)
    assert ring.centres.norm(dim=1).tolist() == pytest.approx(8 * [1])
    assert {tuple(centre) for centre in grid.centres.tolist()} == {
        (x, y) for x in (-1.5, -0.5, 0.5, 1.5) for y in (-0.5, 0.5)
    }
    side = groups.centres[:, 0].sign()
    off = groups.centres - side[:, None] * torch.tensor([0.8, 0.0])
    assert off.norm(dim=1).tolist() == pytest.approx(8 * [0.3])
    assert side.sum() == 0
    with pytest.raises(ValueError, match="ring, grid and groups"):
        domains("line")


def test_points_come_mode_by_mode():
    a = domains(TINY.target)[0]
    points = fresh_points(a, 2000, torch.Generator().manual_seed(0))
    offsets = points.view(8, 2000, 2) - a.centres[:, None]
    torch.testing.assert_close(offsets.mean((1, 2)), torch.zeros(8), rtol=0, atol=0.005)
    assert offsets.std().item() == pytest.approx(a.sd, rel=0.02)


# --- one step ----------------------------------------------------------------------------------------------------


def plain_steps(g, f, d_b, d_a, config, batches):
    """CycleGAN's two steps on one model, written from the paper: sections 3.1, 3.2, 4 and 5.2."""
    betas = config.beta1, config.beta2
    for_translators = torch.optim.Adam([*g.parameters(), *f.parameters()], config.learning_rate, betas)
    for_discriminators = torch.optim.Adam([*d_b.parameters(), *d_a.parameters()], config.learning_rate, betas)
    for a, b in batches:
        fake_b, fake_a = g(a), f(b)
        loss = config.adversarial * (((d_b(fake_b) - 1) ** 2).mean() + ((d_a(fake_a) - 1) ** 2).mean())
        loss = loss + config.cycle_a * (f(fake_b) - a).abs().mean() + config.cycle_b * (g(fake_a) - b).abs().mean()
        loss = loss + config.identity * ((g(b) - b).abs().mean() + (f(a) - a).abs().mean())
        for_translators.zero_grad()
        loss.backward()
        for_translators.step()
        if config.adversarial:
            loss = ((d_b(b) - 1) ** 2).mean() + (d_b(fake_b.detach()) ** 2).mean()
            loss = 0.5 * (loss + ((d_a(a) - 1) ** 2).mean() + (d_a(fake_a.detach()) ** 2).mean())
            for_discriminators.zero_grad()
            loss.backward()
            for_discriminators.step()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_are_those_of_a_plain_model_alone(variant):
    config = config_of(variant)
    game = build(config, Streams(0))
    plain = players_of(game, 1)
    minibatches = [minibatch(step) for step in range(4)]
    plain_steps(*plain, config, [(ab[1], ab[4]) for ab in minibatches])
    for ab in minibatches:
        before = game.translators.network(ab).detach()
        fake = translators_step(game, ab, config)
        torch.testing.assert_close(fake, before, rtol=0, atol=1e-12)
        if config.adversarial:
            discriminators_step(game, other_half(ab), fake)
    for got, expected in zip(players_of(game, 1), plain, strict=True):
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(got.state_dict()[name], value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_step_touches_one_side(variant):
    config, game = config_of(variant), build(config_of(variant), Streams(0))
    before = [player.flat.vector.detach().clone() for player in game]
    fake = translators_step(game, minibatch(), config)
    assert not torch.equal(game.translators.flat.vector, before[0])
    assert torch.equal(game.discriminators.flat.vector, before[1])
    before = [player.flat.vector.detach().clone() for player in game]
    discriminators_step(game, other_half(minibatch()), fake)
    assert torch.equal(game.translators.flat.vector, before[0])
    assert not torch.equal(game.discriminators.flat.vector, before[1])


def test_the_rate_is_constant_and_then_falls_to_zero():
    config = dataclasses.replace(TINY, n_steps=100, decay_from=0.6, learning_rate=2.0)
    assert [learning_rate(config, step) for step in (0, 30, 60, 80, 90)] == pytest.approx([2, 2, 2, 1, 0.5])
    assert learning_rate(config, 99) == pytest.approx(2 / 40)


@pytest.mark.parametrize(("n", "expected"), [(100, [*range(10, 101, 10)]), (3, [1, 2, 3]), (1, [1])])
def test_the_curve_has_ten_points_and_the_end(n, expected):
    assert evaluation_steps(n) == expected


# --- the measures ------------------------------------------------------------------------------------------------


def landed(targets, n=10):
    """Measures of models whose points of A land exactly in the modes targets[r][k] (a mode or a list of n of them)."""
    b = domains(TINY.target)[1]
    rows = [[each for entry in row for each in (entry if isinstance(entry, list) else n * [entry])] for row in targets]
    mapped = b.centres[torch.tensor(rows)]
    points = torch.zeros(8 * n, 2)
    return measures(points, mapped, mapped, b)


def test_measures_of_known_maps():
    turned = [(k + 3) % 8 for k in range(8)]
    swapped = [1, 0, *range(2, 8)]
    found = landed([range(8), turned, swapped, 8 * [2], [0, 0, *range(2, 8)]])
    log8, two_in_one = math.log(8), math.log(8) - math.log(2) / 4
    expected = Measures(
        pairing=[1, 0, 6 / 8, 1 / 8, 7 / 8], modes_hit=[8, 8, 8, 1, 7], bijection=[1, 1, 1, 0, 0],
        consistency=5 * [1], information=[log8, log8, log8, 0, two_in_one], on_modes=5 * [1],
        cycle_error=5 * [1], moved=5 * [1], cycle_share=5 * [1],
    )  # fmt: skip
    for name, values in found._asdict().items():
        assert values.tolist() == pytest.approx(list(getattr(expected, name)), abs=1e-6), name


def test_measures_of_a_torn_map():
    """Of each mode 6 points land in the next mode and 4 in their own."""
    found = landed([[6 * [(k + 1) % 8] + 4 * [k] for k in range(8)]])
    entropy = -0.6 * math.log(0.6) - 0.4 * math.log(0.4)
    assert found.pairing.item() == pytest.approx(0.4)
    assert found.consistency.item() == pytest.approx(0.6)
    assert found.bijection.item() == 1
    assert found.information.item() == pytest.approx(math.log(8) - entropy)


def test_a_mode_that_only_a_minority_lands_in_is_not_hit():
    found = landed([[6 * [0] + 4 * [7], *range(1, 7), 0]])
    assert (found.modes_hit.item(), found.bijection.item()) == (7, 0)
    assert found.consistency.item() == pytest.approx(1 - 0.4 / 8)


def test_information_is_scikit_learns():
    targets = torch.randint(8, (2, 8, 30), generator=torch.Generator().manual_seed(0))
    found = landed([[row.tolist() for row in model] for model in targets], n=30)
    source = torch.arange(8).repeat_interleave(30)
    expected = [mutual_info_score(source, model.flatten()) for model in targets]
    assert found.information.tolist() == pytest.approx(expected, abs=1e-9)
    assert min(expected) > 0.05  # the bias that the doc-string tells of: 49 / 480


def test_distances_and_share_on_modes():
    b = domains(TINY.target)[1]
    points = torch.zeros(16, 2)
    mapped = b.centres.repeat_interleave(2, 0)[None] + torch.tensor([[0.0, 0.149], [0.0, 0.151]]).repeat(8, 1)
    back = (points + torch.tensor([0.03, 0.04]))[None]
    found = measures(points, mapped, back, b)
    assert found.on_modes.item() == 0.5  # 3 sd = .15
    assert found.cycle_error.item() == pytest.approx(0.05)
    assert found.moved.item() == pytest.approx(mapped.norm(dim=-1).mean().item())
    assert found.cycle_share.item() == pytest.approx(0.05 / found.moved.item())


def test_draws_of_b_lie_on_its_modes():
    b = domains(TINY.target)[1]
    draws = fresh_points(b, 2000, torch.Generator().manual_seed(0))
    found = measures(draws, draws[None], draws[None], b)
    assert found.on_modes.item() == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    assert found.pairing.item() == 1


def test_the_maps_that_are_measured_are_g_and_then_f():
    game = build(TINY, Streams(0))
    found, points, mapped = evaluated(game, TINY, generator(0, "evaluation"))
    for r in range(TINY.n_models):
        g, f, _, _ = players_of(game, r)
        with torch.no_grad():
            there, back = g(points), f(g(points))
        torch.testing.assert_close(mapped[r], there, rtol=0, atol=1e-6)
        assert found.moved[r].item() == pytest.approx((there - points).norm(dim=1).mean().item(), rel=1e-5)
        assert found.cycle_error[r].item() == pytest.approx((back - points).norm(dim=1).mean().item(), rel=1e-5)


# --- a run -------------------------------------------------------------------------------------------------------


def test_every_step_sees_fresh_points_without_pairs(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "translators_step", lambda game, ab, config: seen.append(ab) or ab)
    monkeypatch.setattr(module, "discriminators_step", lambda game, ba, fake: seen.append(ba))
    config = dataclasses.replace(TINY, batch=200)
    mixtures(config, Workspace(tmp_path, 0))
    assert all(torch.equal(ba, other_half(ab)) for ab, ba in zip(seen[::2], seen[1::2], strict=True))
    firsts = [ab[0, 0, 0].item() for ab in seen[::2]]
    assert len(set(firsts)) == config.n_steps
    a, b = domains(config.target)
    numbers = [torch.cdist(torch.stack(seen[::2])[:, part].reshape(-1, 2), mixture.centres).argmin(1)
               for part, mixture in ((slice(3), a), (slice(3, 6), b))]  # fmt: skip
    assert (numbers[0] == numbers[1]).float().mean().item() == pytest.approx(1 / 8, abs=0.016)  # 4 standard errors
    off = [(seen[0][part] - mixture.centres[n.view(12, 3, 200)[0]]).norm(dim=-1).max().item()
           for part, mixture, n in ((slice(3), a, numbers[0]), (slice(3, 6), b, numbers[1]))]  # fmt: skip
    assert max(off) < 6 * a.sd


def stopped_at(workspace, step):
    """The workspace, out of time after that step."""
    keep = workspace.keep

    def keep_and_stop(state, total, **parts):
        workspace.deadline = 0.0 if state["step"] == step else None
        keep(state, total, **parts)

    workspace.keep = keep_and_stop
    return workspace


@pytest.mark.parametrize("variant", ["cycle", "identity"])
def test_a_run_has_its_scores_and_repeats_its_bits_after_a_kill(tmp_path, variant):
    config = config_of(variant)
    with deterministic("cpu"):
        whole = mixtures(config, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        with pytest.raises(OutOfTime):
            mixtures(config, stopped_at(Workspace(tmp_path / "killed", 0), 7))
        resumed = Workspace(tmp_path / "killed", 0)
        again = mixtures(config, resumed)
    assert resumed.resumed_at == [7]
    assert torch.equal(whole.weights["mapped"], again.weights["mapped"])
    assert whole.history == again.history
    assert [row["step"] for row in whole.history] == evaluation_steps(12)
    assert set(whole.scores) == set(Measures._fields)
    score, per_model = whole.scores["moved"], torch.tensor(whole.facts["moved"])
    assert (score.n, score.protocol["averaged_over"], score.protocol["identity"]) == (3, "models", config.identity)
    assert score.value == pytest.approx(per_model.mean().item())
    assert score.stderr == pytest.approx(per_model.std().item() / math.sqrt(3))
    assert whole.history[-1]["moved"] == pytest.approx(score.value)
    assert whole.facts["parameters"] == {"translators": 3 * 6 + 7 * 6 + 7 * 2, "discriminators": 3 * 6 + 7 * 6 + 7}


def test_training_goes_towards_the_data_and_back(tmp_path):
    """The translations start within .6 of the origin; 150 steps bring them near the circle, and the cycle closes."""
    config = dataclasses.replace(TINY, n_steps=150, width=24, batch=40, learning_rate=5e-3)
    with deterministic("cpu"):
        start, _, before = evaluated(build(config, Streams(0)), config, Streams(0).at("evaluation"))
        outcome = mixtures(config, Workspace(tmp_path, 0))
    mapped = outcome.weights["mapped"].float()
    off_circle = [(points.norm(dim=-1) - 1).abs().median().item() for points in (before, mapped)]
    assert off_circle[0] > 0.4
    assert off_circle[1] < 0.25
    assert start.cycle_error.mean().item() > 0.7
    assert outcome.scores["cycle_error"].value < 0.3
