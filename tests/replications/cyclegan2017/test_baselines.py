"""Each method beside a plain PyTorch computation of its sentence in section 5.1, and what only one method has."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.metrics import extractor
from lib.training.checkpoints import training_tensors
from lib.training.randomness import Streams
from replications.cyclegan2017.baselines import N_LATENT, coupled, feature_distance, method_of
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.domains import Domains
from replications.cyclegan2017.presets import METHODS
from replications.cyclegan2017.train import Method, cyclegan, train

CPU = torch.device("cpu")
SIDE = 16
TINY = TranslationConfig("scenes", "cyclegan", SIDE, 4, 12, 8, batch=3, n_filters=3, n_blocks=1, n_critic_filters=3,
                         n_critic_layers=2, paired=3.0, learning_rate=1e-2)  # fmt: skip
UNLIKE = (1, 3)  # channels of A and B: an exchange of the two is an error of shapes
ALIKE = (3, 3)
CHANNELS = {name: ALIKE if name in ("simgan", "feature") else UNLIKE for name in METHODS}


def config_of(name: str) -> TranslationConfig:
    return replace(TINY, **METHODS[name])


def build(name: str, channels: tuple[int, int] | None = None, seed: int = 5) -> Method:
    return method_of(config_of(name), channels or CHANNELS[name], Streams(seed), CPU)


def minibatches(channels: tuple[int, int], n: int = 2) -> list[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(3)
    return [tuple(2 * torch.rand(3, c, SIDE, SIDE, generator=rng) - 1 for c in channels) for _ in range(n)]  # type: ignore[misc]


# --- every method beside plain PyTorch -----------------------------------------------------------------------------


class Witness:
    """Copies of a method's networks, each under an Adam of its own; `descend` moves the named ones alone."""

    def __init__(self, method: Method, config: TranslationConfig) -> None:
        modules = {name: part for name, part in method.parts.items() if isinstance(part, nn.Module)}
        self.nets = {name: copy.deepcopy(part) for name, part in modules.items() if list(part.parameters())}
        betas = (config.beta1, config.beta2)
        self.adams = {name: torch.optim.Adam(net.parameters(), config.learning_rate, betas)
                      for name, net in self.nets.items()}  # fmt: skip

    def __getattr__(self, name: str) -> nn.Module:
        return self.nets[name]

    def descend(self, loss: Tensor, *names: str) -> None:
        weights = [weight for name in names for weight in self.nets[name].parameters()]
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        for name in names:
            self.adams[name].step()


def off(values: Tensor, target: float) -> Tensor:
    return ((values - target) ** 2).mean()


def pix2pix_step(w: Witness, x: Tensor, y: Tensor, config: TranslationConfig, step: int) -> list[Tensor]:
    fake_b, fake_a = w.to_b(x), w.to_a(y)
    fooled = off(w.judge_b(torch.cat((x, fake_b), 1)), 1) + off(w.judge_a(torch.cat((y, fake_a), 1)), 1)
    l1 = (fake_b - y).abs().mean() + (fake_a - x).abs().mean()
    w.descend(fooled + config.paired * l1, "to_b", "to_a")
    told_b = (off(w.judge_b(torch.cat((x, y), 1)), 1) + off(w.judge_b(torch.cat((x, fake_b.detach()), 1)), 0)) / 2
    told_a = (off(w.judge_a(torch.cat((y, x), 1)), 1) + off(w.judge_a(torch.cat((y, fake_a.detach()), 1)), 0)) / 2
    w.descend(told_b, "judge_b")
    w.descend(told_a, "judge_a")
    return [fooled, l1, told_b, told_a]


def bigan_step(w: Witness, x: Tensor, y: Tensor, config: TranslationConfig, step: int) -> list[Tensor]:
    made_b, made_a = torch.cat((x, w.to_b(x)), 1), torch.cat((w.to_a(y), y), 1)
    fooled = off(w.judge(made_b), 1) + off(w.judge(made_a), 0)
    w.descend(fooled, "to_b", "to_a")
    told = (off(w.judge(made_b.detach()), 0) + off(w.judge(made_a.detach()), 1)) / 2
    w.descend(told, "judge")
    return [fooled, told]


def cogan_step(w: Witness, x: Tensor, y: Tensor, config: TranslationConfig, step: int) -> list[Tensor]:
    z = torch.randn(len(x), 100, generator=Streams(5).at("latent", step))
    a, b = w.head_a(w.trunk(z)), w.head_b(w.trunk(z))

    def judged(end: nn.Module, images: Tensor) -> Tensor:
        return w.judge_shared(end(images))  # type: ignore[no-any-return]

    fooled = off(judged(w.judge_a, a), 1) + off(judged(w.judge_b, b), 1)
    w.descend(fooled, "trunk", "head_a", "head_b")
    a, b = a.detach(), b.detach()
    told_a = (off(judged(w.judge_a, x), 1) + off(judged(w.judge_a, a), 0)) / 2
    told_b = (off(judged(w.judge_b, y), 1) + off(judged(w.judge_b, b), 0)) / 2
    w.descend(told_a + told_b, "judge_a", "judge_b", "judge_shared")
    return [fooled, told_a, told_b]


def one_sided(distance: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., list[Tensor]]:
    """A GAN each way with a distance between output and input, of weight 10; no cycle."""

    def step(w: Witness, x: Tensor, y: Tensor, config: TranslationConfig, step: int) -> list[Tensor]:
        losses, told = [], []
        fakes = w.to_b(x), w.to_a(y)
        for fake, given, judge, name in ((fakes[0], x, w.judge_b, "to_b"), (fakes[1], y, w.judge_a, "to_a")):
            terms = [off(judge(fake), 1), distance(fake, given)]
            w.descend(terms[0] + 10 * terms[1], name)
            losses += terms
        for fake, real, judge, name in ((fakes[0], y, w.judge_b, "judge_b"), (fakes[1], x, w.judge_a, "judge_a")):
            loss = (off(judge(real), 1) + off(judge(fake.detach()), 0)) / 2
            w.descend(loss, name)
            told.append(loss)
        return losses + told

    return step


def phi(x: Tensor) -> Tensor:
    """The third stage of efficientnet-lite0, caught on its way through the whole network."""
    network, caught = extractor("efficientnet-lite0").network, []
    handle = network.blocks[4].register_forward_hook(lambda module, given, out: caught.append(out))
    network(((x + 1) * 127.5 - 127) / 128)
    handle.remove()
    return caught[0]


def feature_loss(x: Tensor, y: Tensor) -> Tensor:
    target = phi(y).detach()
    return (phi(x) - target).abs().mean() / target.abs().mean()


WITNESSES = {
    "pix2pix": pix2pix_step, "bigan": bigan_step, "cogan": cogan_step,
    "simgan": one_sided(lambda x, y: (x - y).abs().mean()), "feature": one_sided(feature_loss),
}  # fmt: skip


@pytest.mark.parametrize("name", WITNESSES)
def test_losses_and_updates_are_those_of_the_plain_computation(name):
    """Two steps: the second sees Adam's state, and translators that moved before the discriminators did."""
    method, config = build(name), config_of(name)
    witness = Witness(method, config)
    for step, (x, y) in enumerate(minibatches(CHANNELS[name])):
        ours, theirs = method.update(x, y, step), WITNESSES[name](witness, x, y, config, step)
        assert ours.shape == (len(method.columns),)
        assert not ours.requires_grad
        torch.testing.assert_close(ours, torch.stack(theirs).detach(), rtol=1e-3, atol=1e-6)
    moved = 0
    for part, net in witness.nets.items():
        for (key, theirs), ours in zip(net.named_parameters(), method.parts[part].parameters(), strict=True):
            # A bias in front of a norm moves nothing: its gradient is rounding, which Adam makes a whole step. So it
            # does with a weight here and there.
            if ours.ndim > 1:
                apart = ((ours - theirs).abs() > 1e-3 * config.learning_rate).float().mean().item()
                assert apart < 0.02, f"{part}.{key}: {apart:.0%} of the weights moved to another place"
                moved += 1
    assert moved >= 8


@pytest.mark.parametrize("name", METHODS)
def test_neither_side_moves_in_the_others_step(name):
    for frozen in ("optimizer", "judges_optimizer"):
        method = build(name)
        method.parts[frozen].param_groups[0]["lr"] = 0.0
        judged = {key: "judge" in key for key, part in method.parts.items()
                  if isinstance(part, nn.Module) and list(part.parameters())}  # fmt: skip
        before = {key: copy.deepcopy(method.parts[key].state_dict()) for key in judged}
        method.update(*minibatches(CHANNELS[name], 1)[0], 0)
        for key, is_judge in judged.items():
            still = all(torch.equal(before[key][k], v) for k, v in method.parts[key].state_dict().items())
            assert still == (is_judge == (frozen == "judges_optimizer")), (key, frozen)


def test_what_is_no_method_is_refused():
    with pytest.raises(ValueError, match="'gan' is no method: cyclegan, simgan, feature, pix2pix, bigan, cogan"):
        method_of(replace(TINY, method="gan"), ALIKE, Streams(0), CPU)


# --- what only one method has --------------------------------------------------------------------------------------


def test_simgan_is_cyclegan_with_an_l1_to_the_input():
    config = config_of("simgan")
    assert (config.cycle_a, config.cycle_b, config.to_input, config.adversarial) == (0, 0, 10, 1)
    simgan, plain = build("simgan"), cyclegan(replace(config, method="cyclegan"), ALIKE, Streams(5), CPU)
    for step, (x, y) in enumerate(minibatches(ALIKE)):
        assert torch.equal(simgan.update(x, y, step), plain.update(x, y, step))
    assert simgan.columns == plain.columns
    for key, tensor in training_tensors(**simgan.parts).items():
        assert torch.equal(tensor, training_tensors(**plain.parts)[key]), key


def test_pix2pix_is_told_the_pair_both_ways():
    """Its L1 is to the image that belongs to the input, so with the pairs exchanged it is another number."""
    x, y = minibatches(UNLIKE, 1)[0]
    method = build("pix2pix")
    told = dict(zip(method.columns, build("pix2pix").update(x, y, 0).tolist(), strict=True))
    other = dict(zip(method.columns, build("pix2pix").update(x, y.roll(1, 0), 0).tolist(), strict=True))
    with torch.no_grad():
        wanted = (method.to_b(x) - y).abs().mean() + (method.to_a(y) - x).abs().mean()
    assert told["paired"] == pytest.approx(wanted.item(), rel=1e-5)
    assert other["paired"] != pytest.approx(told["paired"], rel=1e-5)
    assert other["discriminator_b"] != pytest.approx(told["discriminator_b"], rel=1e-7), "D sees the input too"


def test_pix2pix_learns_a_map_from_pairs():
    config = replace(config_of("pix2pix"), n_filters=6, paired=100.0)
    method = method_of(config, ALIKE, Streams(0), CPU)
    rng = torch.Generator().manual_seed(0)
    x = (2 * torch.rand(3, 3, 4, 4, generator=rng) - 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    y = -x  # the negative: unpaired losses have no reason to prefer it
    losses = [method.update(x, y, step)[1].item() for step in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_bigans_discriminator_tells_the_two_kinds_of_pairs_apart():
    """With translators that stand still it takes (F(b), b) to 1 and (a, G(a)) to 0."""
    method = build("bigan")
    method.parts["optimizer"].param_groups[0]["lr"] = 0.0
    x, y = minibatches(UNLIKE, 1)[0]
    for step in range(60):
        method.update(x, y, step)
    with torch.no_grad():
        forward = method.parts["judge"](torch.cat([x, method.to_b(x)], 1)).mean().item()
        backward = method.parts["judge"](torch.cat([method.to_a(y), y], 1)).mean().item()
    assert forward < 0.25
    assert backward > 0.75


def test_cogans_shared_layers_are_one():
    nets = coupled(config_of("cogan"), UNLIKE, Streams(5), CPU)
    assert nets.trunk(torch.zeros(2, N_LATENT)).shape == (2, 6, 8, 8)
    shapes = {key: [tuple(w.shape) for w in net.parameters()] for key, net in nets._asdict().items()}
    assert [shape[:2] for shape in shapes["head_a"] if len(shape) == 4] == [(6, 3), (1, 3)]
    assert [shape[:2] for shape in shapes["head_b"] if len(shape) == 4] == [(6, 3), (3, 3)]
    assert shapes["judge_a"] == [(3, 1, 4, 4), (3,)]
    assert shapes["judge_b"] == [(3, 3, 4, 4), (3,)]
    with torch.no_grad():
        for layer in (nets.trunk, nets.judge_shared):
            weights = [w for w in layer.parameters() if w.ndim > 1]
            assert all(abs(w.std().item() / 0.02 - 1) < 0.35 for w in weights), "N(0, .02), as everywhere"
    # One step on images of A alone: the gradient of the joint loss moves the trunk for B too.
    method = build("cogan")
    before = method.parts["head_b"](method.parts["trunk"](torch.ones(1, N_LATENT))).detach()
    method.parts["optimizer"].param_groups[0]["lr"] = 0.05
    kept = copy.deepcopy(method.parts["head_b"].state_dict())
    method.update(*minibatches(UNLIKE, 1)[0], 0)
    method.parts["head_b"].load_state_dict(kept)
    after = method.parts["head_b"](method.parts["trunk"](torch.ones(1, N_LATENT))).detach()
    assert not torch.allclose(before, after, atol=1e-3)


def test_cogan_finds_the_latent_of_an_image_it_made():
    method = build("cogan")
    for step in range(30):  # the search starts at z = 0, where a trunk without biases has no gradient
        method.update(*minibatches(UNLIKE, 1)[0], step)
    trunk, head_a, head_b = (method.parts[key] for key in ("trunk", "head_a", "head_b"))
    with torch.no_grad():
        h = trunk(torch.randn(4, N_LATENT, generator=torch.Generator().manual_seed(1)))
        in_a, in_b = head_a(h), head_b(h)
        into_b, into_a = method.to_b(in_a), method.to_a(in_b)
        for found, wanted in ((into_b, in_b), (into_a, in_a)):
            chance = (wanted.roll(1, 0) - wanted).abs().mean()
            assert (found - wanted).abs().mean() < 0.35 * chance
        # Each image is searched as it would be alone.
        torch.testing.assert_close(method.to_b(in_a[2:3]), into_b[2:3], rtol=0, atol=0.005)
    assert not into_b.requires_grad
    assert all(weight.grad is None or not weight.grad.any() for weight in head_a.parameters())


def test_the_feature_distance_is_that_of_the_third_stages_features():
    x, y = minibatches(ALIKE, 1)[0]
    distance = feature_distance(CPU)
    assert distance(x, x).item() == 0
    assert distance(x, y).item() == pytest.approx(feature_loss(x, y).item(), rel=1e-5)
    assert phi(x).shape == (3, 40, SIDE // 8, SIDE // 8)
    x.requires_grad_()
    y.requires_grad_()
    distance(x, y).backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert y.grad is None, "the input is what the output is measured against"


# --- resuming ------------------------------------------------------------------------------------------------------


def pictures(channels: tuple[int, int]) -> Domains:
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 256, (12, c, SIDE, SIDE), dtype=torch.uint8, generator=rng) for c in channels)
    return Domains(a, b, a[:2], b[:2])


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_is_killed_after_every_step_ends_in_the_same_bits(name, tmp_path):
    config = replace(config_of(name), pool=2)  # full after the first step
    domains = pictures(CHANNELS[name])

    def run(folder: str, **options: float) -> tuple[dict[str, Tensor], list[dict[str, float]], Tensor]:
        (tmp_path / folder).mkdir(exist_ok=True)
        workspace = Workspace(tmp_path / folder, 5, **options)
        method = method_of(config, CHANNELS[name], workspace.streams, CPU)
        trained = train(method, config, domains, workspace)
        with torch.no_grad():
            return training_tensors(**method.parts), trained.history, method.to_b(domains.a[:1].float() / 127.5 - 1)

    with deterministic("cpu"):
        tensors, history, image = run("whole")
        for _ in range(config.n_steps):
            with pytest.raises(OutOfTime):
                run("killed", deadline=0.0)
        again, told, same = run("killed")
    assert len(history) == config.n_steps
    assert told == history
    assert torch.equal(image, same)
    assert again.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert torch.equal(again[key], tensor), key
