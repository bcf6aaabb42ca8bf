"""The algorithm against the authors' step order, its ablations, rates, rows, and a killed run."""

import math
from dataclasses import replace

import pytest
import torch

from lib.execution.execute import deterministic
from lib.execution.workspace import Diverged, OutOfTime, Workspace
from lib.training.randomness import Streams
from replications.cyclegan2017 import train as module
from replications.cyclegan2017.bench import LOSSES, PlainLoop, PlainPool
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.domains import Domains
from replications.cyclegan2017.networks import Nets, build
from replications.cyclegan2017.train import cyclegan, rate, train

TINY = TranslationConfig(
    "made up", "cyclegan", 16, 8, 0, 0, batch=2, n_filters=2, n_blocks=1, n_critic_filters=2, n_critic_layers=1,
    pool=3, learning_rate=1e-3, init_sd=0.2,
)  # fmt: skip
CPU = torch.device("cpu")
ABLATIONS = {
    "cycle alone": replace(TINY, adversarial=0.0),
    "GAN alone": replace(TINY, cycle_a=0.0, cycle_b=0.0),
    "one cycle": replace(TINY, cycle_b=0.0),
    "one cycle alone": replace(TINY, adversarial=0.0, cycle_a=0.0),
    "SimGAN": replace(TINY, cycle_a=0.0, cycle_b=0.0, to_input=10.0),
    "identity": replace(TINY, identity=5.0),
}


def batch(step: int = 0, channels: tuple[int, int] = (3, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(step)
    a, b = (torch.rand(2, c, 16, 16, generator=g).mul(2).sub(1) for c in channels)
    return a, b


def made_up(n: int = 8) -> Domains:
    a, b = torch.randint(0, 256, (2, n, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    return Domains(a, b, a, b)


def method(config=TINY, channels=(3, 3), **options):
    return cyclegan(config, channels, Streams(0), CPU, **options)


def vectors(found):
    """The parameters of each network as one vector, copied."""
    names = ("to_b", "to_a", "judge_b", "judge_a")
    return {
        n: torch.cat([p.detach().flatten() for p in found.parts[n].parameters()]) for n in names if n in found.parts
    }


class Given(PlainPool):
    """The authors' pool with the draws that ours takes."""

    def __init__(self, size, name):
        super().__init__(size)
        self.name, self.step = name, 0

    def query(self, images):
        chance = torch.rand(2, len(images), generator=Streams(0).at(f"pool {self.name}", self.step))
        self.step += 1
        drawn, kept = [], len(self.images)
        for whether, which in chance.T.tolist():
            if kept < self.size:
                kept += 1
            else:
                drawn += [whether, which] if whether > 0.5 else [whether]
        given = iter(drawn)
        self.uniform = lambda: next(given)
        return super().query(images)


@pytest.mark.parametrize("identity", [0.0, 5.0])
def test_six_steps_are_those_of_the_authors_order(identity, monkeypatch):
    """Losses and all four networks, the pools in use, in double precision: Adam's first steps have the size of the rate
    whatever the gradient's, so in single precision a gradient that is rounding alone would be a whole step."""
    config = replace(TINY, identity=identity)
    monkeypatch.setattr(module, "build", lambda *args: Nets(*(network.double() for network in build(*args))))
    plain, ours = PlainLoop(config, module.build(config, (3, 3), Streams(0))), method(config)
    plain.fake_A_pool, plain.fake_B_pool = Given(config.pool, "a"), Given(config.pool, "b")
    ours.parts["pool_a"].double(), ours.parts["pool_b"].double()
    start = vectors(ours)
    for step in range(6):
        a, b = (x.double() for x in batch(step))
        theirs = plain.optimize_parameters(a, b)
        losses = dict(zip(ours.columns, ours.update(a, b, step), strict=True))
        torch.testing.assert_close(torch.stack([losses[name] for name in LOSSES[identity]]), theirs, rtol=1e-7, atol=0)
    pairs = {"to_b": plain.netG_A, "to_a": plain.netG_B, "judge_b": plain.netD_A, "judge_a": plain.netD_B}
    for name, network in pairs.items():
        for x, y in zip(ours.parts[name].parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)
        assert (vectors(ours)[name] - start[name]).abs().max() > 2e-3, name  # and they moved


def test_losses_are_those_of_the_equations_before_the_update():
    """Sections 3.1 to 3.3 and 5.2, from the networks as they were; the pool hands back what it gets at first."""
    found = method(replace(TINY, identity=5.0, to_input=1.0))
    a, b = batch()
    with torch.no_grad():
        g, f, d_a, d_b = (found.parts[name] for name in ("to_b", "to_a", "judge_a", "judge_b"))
        fake_b, fake_a = g(a), f(b)
        want = {
            "adversarial_b": (d_b(fake_b) - 1).square().mean(), "adversarial_a": (d_a(fake_a) - 1).square().mean(),
            "cycle_a": (f(fake_b) - a).abs().mean(), "cycle_b": (g(fake_a) - b).abs().mean(),
            "identity_b": (g(b) - b).abs().mean(), "identity_a": (f(a) - a).abs().mean(),
            "to_input_a": (fake_b - a).abs().mean(), "to_input_b": (fake_a - b).abs().mean(),
            "discriminator_b": 0.5 * ((d_b(b) - 1).square().mean() + d_b(fake_b).square().mean()),
            "discriminator_a": 0.5 * ((d_a(a) - 1).square().mean() + d_a(fake_a).square().mean()),
        }  # fmt: skip
    losses = dict(zip(found.columns, found.update(a, b, 0).tolist(), strict=True))
    assert losses == pytest.approx({name: value.item() for name, value in want.items()}, rel=1e-4)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_moves_what_it_has_and_computes_no_more(name, monkeypatch):
    """Columns say what is there; a network without a loss stays as it was; passes are counted."""
    config = ABLATIONS[name]
    found = method(config)
    before, calls = vectors(found), {"to_b": 0, "to_a": 0}
    for which in calls:
        found.parts[which].register_forward_hook(lambda *_, which=which: calls.update({which: calls[which] + 1}))
    losses = found.update(*batch(), 0)
    assert losses.shape == (len(found.columns),)
    assert not losses.requires_grad
    assert all(not torch.equal(moved, before[which]) for which, moved in vectors(found).items())
    assert ("judge_a" in found.parts) == ("discriminator_a" in found.columns) == (config.adversarial > 0)
    # fake_b = G(a), fake_a = F(b), the ways back, and the identities
    want = {"cycle alone": (2, 2), "GAN alone": (1, 1), "one cycle": (1, 2), "one cycle alone": (1, 1),
            "SimGAN": (1, 1), "identity": (3, 3)}  # fmt: skip
    assert (calls["to_b"], calls["to_a"]) == want[name]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_learns_its_minibatch(name):
    """What the translators alone lower falls on one minibatch; without any of that, a discriminator's loss."""
    config = replace(ABLATIONS[name], learning_rate=2e-3)
    found, (a, b) = method(config), batch()
    own = [i for i, column in enumerate(found.columns) if column.startswith(("cycle", "identity", "to_input"))]
    own = own or [found.columns.index("discriminator_a")]
    first = found.update(a, b, 0)
    for step in range(1, 40):
        last = found.update(a, b, step)
    assert last[own].sum() < 0.8 * first[own].sum()


def test_the_loss_to_the_input_can_be_another():
    seen = []

    def loss(output, given):
        seen.append(given)
        return (output - given).square().mean()

    found, (a, b) = method(ABLATIONS["SimGAN"], to_input_loss=loss), batch()
    with torch.no_grad():
        want = (found.to_b(a) - a).square().mean().item()
    losses = dict(zip(found.columns, found.update(a, b, 0).tolist(), strict=True))
    assert losses["to_input_a"] == pytest.approx(want, rel=1e-4)
    assert torch.equal(seen[0], a)
    assert torch.equal(seen[1], b)


def test_domains_of_unlike_channels_translate_but_cannot_be_compared():
    found = method(channels=(1, 3))
    a, b = batch(channels=(1, 3))
    assert found.update(a, b, 0).isfinite().all()
    assert found.to_b(a).shape == b.shape
    with pytest.raises(ValueError, match="have \\(1, 3\\) channels"):
        method(replace(TINY, identity=5.0), channels=(1, 3))


def test_the_rate_is_the_authors_rule():
    """lr (1 - max(0, epoch + 1 - 100) / 101), epochs counted from 0: exactly for 200 epochs of one step, and for 200
    of 30 steps to a hundredth, the drop of one epoch."""

    def authors(epoch):
        return 2e-4 * (1 - max(0, epoch + 1 - 100) / 101)

    one = replace(TINY, n_steps=200, learning_rate=2e-4)
    assert [rate(one, step) for step in range(200)] == pytest.approx([authors(epoch) for epoch in range(200)])
    assert rate(one, 99) == 2e-4  # the 100th
    assert rate(one, 100) < 2e-4
    assert rate(one, 199) == pytest.approx(2e-4 / 101)  # the 200th
    many = replace(one, n_steps=200 * 30)
    for epoch in (0, 98, 99, 100, 150, 199):
        assert rate(many, 30 * epoch + 29) == pytest.approx(authors(epoch), abs=2e-4 / 100)
    assert {rate(replace(one, decay_from=1.0), step) for step in (0, 150, 199)} == {2e-4}


def space(tmp_path, name, **options):
    (tmp_path / name).mkdir(exist_ok=True)
    return Workspace(tmp_path / name, 0, checkpoint_seconds=0, **options)


def trained(config, workspace):
    return train(cyclegan(config, (3, 3), workspace.streams, CPU), config, made_up(), workspace)


@pytest.mark.parametrize(
    "config",
    [replace(TINY, n_steps=9, decay_from=0.3), replace(ABLATIONS["cycle alone"], flip=True), ABLATIONS["identity"]],
)
def test_a_killed_training_goes_on_in_the_same_bits(tmp_path, config, monkeypatch):
    """Both optimisers, the epochs of both domains, the rate, the pools, the sums behind the next row of the history."""
    monkeypatch.setattr(module, "N_ROWS", 2)
    with deterministic("cpu"):
        whole = trained(config, space(tmp_path, "whole"))
        for _ in range(5):  # from the second on from a checkpoint, a step each; an epoch has four steps
            with pytest.raises(OutOfTime):
                trained(config, space(tmp_path, "killed", deadline=1.0))
        killed = trained(config, space(tmp_path, "killed"))
    assert whole.history == killed.history
    assert len(whole.history) == 2
    for name, part in whole.method.parts.items():
        other = killed.method.parts[name]
        if isinstance(part, torch.nn.Module):
            for key, tensor in part.state_dict().items():
                assert torch.equal(tensor, other.state_dict()[key]), (name, key)
        else:
            (state,), (again,) = part.state.values(), other.state.values()
            assert all(torch.equal(state[key], again[key]) for key in ("step", "exp_avg", "exp_avg_sq")), name
            assert state["step"] == config.n_steps
            assert part.param_groups[0]["lr"] == other.param_groups[0]["lr"] == rate(config, config.n_steps - 1)
    if config.adversarial:
        assert whole.method.parts["pool_a"].count == 3


def test_rows_are_means_since_the_row_before(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "N_ROWS", 2)
    whole = trained(TINY, space(tmp_path, "means")).history
    monkeypatch.setattr(module, "N_ROWS", 8)
    each = trained(TINY, space(tmp_path, "each")).history
    assert [row["step"] for row in whole] == [4, 8]
    assert [row["step"] for row in each] == list(range(1, 9))
    for i, row in enumerate(whole):
        for column in ("cycle_a", "discriminator_b"):
            mean = math.fsum(r[column] for r in each[4 * i : 4 * i + 4]) / 4
            assert row[column] == pytest.approx(mean, rel=1e-5)
    assert [row["rate"] for row in each] == [rate(TINY, step) for step in range(8)]


def test_minibatches_are_paired_for_pix2pix_alone(tmp_path):
    """A method that only looks."""
    same = made_up()._replace(b=made_up().a)
    for name in ("pix2pix", "cyclegan"):
        seen = []

        def look(a, b, step, seen=seen):
            seen.append(torch.equal(a, b))
            return torch.zeros(1)

        plain = module.Method(lambda x: x, lambda x: x, look, ("nothing",), {})
        train(plain, replace(TINY, method=name), same, space(tmp_path, name))
        assert all(seen) == (name == "pix2pix")
        assert len(seen) == TINY.n_steps


def test_a_training_that_diverges_is_stopped(tmp_path):
    with pytest.raises(Diverged, match=r"The loss .* became"):
        trained(replace(TINY, learning_rate=1e30), space(tmp_path, "x"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_recorded_step_is_the_cpus_and_follows_the_rate():
    device = torch.device("cuda")
    with deterministic("cuda"):
        found = {name: cyclegan(TINY, (3, 3), Streams(0, name), torch.device(name)) for name in ("cpu", "cuda")}
        losses = [one.update(*(x.to(name) for x in batch()), 0).cpu() for name, one in found.items()]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-4)
        module.set_rate_([found["cuda"].parts["optimizer"], found["cuda"].parts["judges_optimizer"]], 0.0)
        before = vectors(found["cuda"])
        found["cuda"].update(*(x.to(device) for x in batch()), 1)
        assert all(torch.equal(before[name], now) for name, now in vectors(found["cuda"]).items())
