"""Momentum on the critic: the optimisers and steps beside plain PyTorch's, what a blow-up is, resuming, the scores."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from lib import datasets
from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.batched import BatchedLinear
from lib.training.randomness import Streams
from replications.wgan2017.arms import Arm, OptimizerOfArms, arms_of, cosine, rate_name
from replications.wgan2017.config import MomentumConfig
from replications.wgan2017.momentum import (
    are_finite,
    build,
    critic_step,
    curve_steps,
    generate,
    generator_step,
    minibatches,
    momentum,
    pixels,
)
from replications.wgan2017.momentum_scores import cosine_histograms, of_record, pixel_distances

TINY = MomentumConfig(
    "mnist-5k", n_steps=8, n_models=2, width=6, n_latent=4, learning_rates=(5e-5, 5e-3), beta1s=(0.0, 0.9),
    n_critic=3, batch=8, grace=2, n_generated=40,
)  # fmt: skip
ARMS = [Arm(None, 5e-3), Arm(0.0, 5e-4), Arm(0.9, 5e-3), Arm(0.5, 5e-2)]


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic("cpu"):
        yield


def torchs_own(arm, parameters):
    """PyTorch's optimiser of an arm; alpha .99 and eps 1e-8 are its own defaults."""
    if arm.beta1 is None:
        return torch.optim.RMSprop(parameters, lr=arm.rate)
    return torch.optim.Adam(parameters, lr=arm.rate, betas=(arm.beta1, 0.999))


def plain(batched, r):
    """nn.Linear layers and rectifiers with the weights of model r."""
    layers = []
    for layer in batched:
        if isinstance(layer, BatchedLinear):
            linear = nn.Linear(*layer.weight.shape[1:])
            linear.weight.data, linear.bias.data = layer.weight[r].data.T.clone(), layer.bias[r, 0].data.clone()
            layer = linear
        layers.append(layer)
    return nn.Sequential(*layers)


def in_float64(game, config):
    """RMSProp's first step is 10 rates whatever the gradient: in float32 one near 0 may turn its sign by rounding."""
    g, c = game.generator.double(), game.critic.double()
    arms = [arm for arm in arms_of(config) for _ in range(config.n_models)]
    plain_arms = [Arm(None, arm.rate) for arm in arms]
    return game._replace(
        generator_optimizer=OptimizerOfArms(list(g.parameters()), plain_arms, config.decay, config.beta2),
        critic_optimizer=OptimizerOfArms(list(c.parameters()), arms, config.decay, config.beta2),
    )


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_each_model_is_trained_by_pytorchs_optimizer_of_its_arm():
    rng = torch.Generator().manual_seed(0)
    layer = BatchedLinear(len(ARMS), 4, 5, rng)
    own = [[p.detach()[r].clone().requires_grad_() for p in layer.parameters()] for r in range(len(ARMS))]
    ours = OptimizerOfArms(list(layer.parameters()), ARMS, 0.99, 0.999)
    theirs = [torchs_own(arm, parameters) for arm, parameters in zip(ARMS, own, strict=True)]
    for scale in (1.0, 1e-3, 1e-6, 10.0, 1.0, 1.0):  # 1e-6: eps counts
        for p in layer.parameters():
            p.grad = scale * torch.randn(p.shape, generator=rng)
        ours.step()
        for r, optimizer in enumerate(theirs):
            for mine, p in zip(own[r], layer.parameters(), strict=True):
                mine.grad = p.grad[r].clone()
            optimizer.step()
        for r in range(len(ARMS)):
            for mine, p in zip(own[r], layer.parameters(), strict=True):
                torch.testing.assert_close(p.detach()[r], mine.detach(), rtol=2e-6, atol=1e-7)


def test_steps_are_those_of_a_plain_wgan():
    """Three generator updates of every model beside plain layers and PyTorch's optimisers, the clip included."""
    game, config, clip = in_float64(build(TINY, 9, 3, "cpu"), TINY), TINY, 0.05
    by_model = [arm for arm in arms_of(config) for _ in range(config.n_models)]
    nets = [(plain(game.generator, r), plain(game.critic, r)) for r in range(len(by_model))]
    steppers = [
        (torchs_own(Arm(None, arm.rate), g.parameters()), torchs_own(arm, c.parameters()))
        for arm, (g, c) in zip(by_model, nets, strict=True)
    ]
    rng = torch.Generator().manual_seed(1)
    for _ in range(3):
        for _ in range(2):
            real = torch.rand(len(by_model), 8, 9, generator=rng, dtype=torch.float64)
            z = torch.randn(len(by_model), 8, config.n_latent, generator=rng, dtype=torch.float64)
            estimate, cosines = critic_step(game, real, z, clip)
            for r, ((g, c), (_, optimizer)) in enumerate(zip(nets, steppers, strict=True)):
                loss = c(g(z[r]).detach()).mean() - c(real[r]).mean()
                optimizer.zero_grad()
                loss.backward()
                before, gradient = flat(c.parameters()), flat([p.grad for p in c.parameters()])
                optimizer.step()
                step = flat(c.parameters()) - before
                expected = torch.nn.functional.cosine_similarity(step, -gradient, dim=0)
                assert estimate[r].item() == pytest.approx(-loss.item(), abs=1e-12)
                assert cosines[r].item() == pytest.approx(expected.item(), abs=1e-9)
                for p in c.parameters():
                    p.data.clamp_(-clip, clip)
        z = torch.randn(len(by_model), 8, config.n_latent, generator=rng, dtype=torch.float64)
        generator_step(game, z)
        for r, ((g, c), (optimizer, _)) in enumerate(zip(nets, steppers, strict=True)):
            optimizer.zero_grad()
            (-c(g(z[r])).mean()).backward()
            optimizer.step()
    for r, (g, c) in enumerate(nets):
        for ours, theirs in ((game.generator, g), (game.critic, c)):
            torch.testing.assert_close(flat(plain(ours, r).parameters()), flat(theirs.parameters()), rtol=0, atol=1e-12)


def test_the_critic_is_clipped_after_its_step_and_each_step_touches_one_network():
    game = build(TINY, 9, 0, "cpu")
    g, c = flat(game.generator.parameters()), flat(game.critic.parameters())
    real, z = torch.rand(12, 8, 9), torch.randn(12, 8, TINY.n_latent)
    assert c.abs().max() > 0.1
    critic_step(game, real, z, 0.01)
    assert torch.equal(g, flat(game.generator.parameters()))
    c = flat(game.critic.parameters())
    assert c.abs().max().item() == pytest.approx(0.01)
    generator_step(game, z)
    assert torch.equal(c, flat(game.critic.parameters()))
    assert not torch.equal(g, flat(game.generator.parameters()))


def test_a_generator_step_raises_the_critics_value_of_its_images():
    game, z = build(TINY, 9, 0, "cpu"), torch.randn(12, 8, TINY.n_latent)
    before = game.critic(game.generator(z)).mean((1, 2))
    generator_step(game, z)
    assert (game.critic(game.generator(z)).mean((1, 2)) > before).all()


def test_a_repeat_starts_alike_in_every_arm_and_repeats_differ():
    game = build(TINY, 9, 0, "cpu")
    for network in (game.generator, game.critic):
        for p in network.parameters():
            by_arm = p.detach().view(len(arms_of(TINY)), TINY.n_models, *p.shape[1:])
            assert (by_arm == by_arm[:1]).all()
            assert not torch.equal(by_arm[0, 0], by_arm[0, 1])
    ours, rates = game.generator_optimizer, [5e-5] * 6 + [5e-3] * 6
    assert ours.rate.flatten().tolist() == game.critic_optimizer.rate.flatten().tolist() == rates
    assert ours.corrected.sum() == 0
    assert game.critic_optimizer.corrected.flatten().tolist() == 2 * [0, 0, 1, 1, 1, 1]
    assert game.critic_optimizer.beta1.flatten().tolist() == 2 * [0, 0, 0, 0, 0.9, 0.9]


def test_minibatches_are_new_at_every_critic_step_and_the_same_in_every_arm():
    images = torch.arange(500.0)[:, None].expand(500, 9)  # an image is its own number
    seen = []
    for step in (0, 1):
        real, z = minibatches(TINY, images, Streams(0), step)
        drawn = [(real(k)[..., 0], z(k)) for k in range(TINY.n_critic)] + [(None, z(TINY.n_critic))]
        for numbers, noise in drawn:
            assert noise.shape == (12, TINY.batch, TINY.n_latent)
            for each in (noise,) if numbers is None else (noise, numbers):
                by_arm = each.unflatten(0, (6, TINY.n_models))
                assert (by_arm == by_arm[:1]).all()
                seen += [by_arm[0, repeat].flatten()[: TINY.batch].tolist() for repeat in range(TINY.n_models)]
    assert len(seen) == len({tuple(each) for each in seen}) == 2 * (4 + 3) * TINY.n_models
    numbers = torch.cat([real(k)[..., 0].flatten() for k in range(TINY.n_critic)])
    assert ((numbers >= 0) & (numbers < 500)).all()


def test_names():
    names = [arm.name for arm in arms_of(MomentumConfig("mnist-5k"))]
    assert names[:5] == ["rmsprop_lr5em5", "adam0_lr5em5", "adam0p5_lr5em5", "adam0p9_lr5em5", "rmsprop_lr5em4"]
    assert names[-1] == "adam0p9_lr5em3"
    assert len(set(names)) == 12
    assert rate_name(1.5e-3) == "lr1p5em3"


def test_cosine_of_known_vectors():
    a = [torch.tensor([[[3.0]], [[1.0]], [[0.0]]]), torch.tensor([[[4.0]], [[0.0]], [[0.0]]])]
    b = [torch.tensor([[[4.0]], [[-2.0]], [[1.0]]]), torch.tensor([[[3.0]], [[0.0]], [[1.0]]])]
    got = cosine(a, b)
    assert got[:2].tolist() == pytest.approx([24 / 25, -1])
    assert math.isnan(got[2])


def test_momentum_carries_on_past_a_turn_of_the_gradient():
    """g, g, -g: Adam's mean is .1 (.81 + .9 - 1) g > 0 with beta1 .9, and .5 (.25 + .5 - 1) g < 0 with .5."""
    layer = BatchedLinear(4, 3, 2, torch.Generator().manual_seed(0))
    arms = [Arm(None, 1e-3), Arm(0.0, 1e-3), Arm(0.5, 1e-3), Arm(0.9, 1e-3)]
    optimizer = OptimizerOfArms(list(layer.parameters()), arms, 0.99, 0.999)
    for sign in (1, 1, -1):
        gradients = [torch.full_like(p, float(sign)) for p in layer.parameters()]
        for p, gradient in zip(layer.parameters(), gradients, strict=True):
            p.grad = gradient
        got = cosine(optimizer.step(), gradients).tolist()
        assert got == pytest.approx([1, 1, 1, 1] if sign == 1 else [1, 1, 1, -1], abs=1e-6)


def test_what_is_blown_up_and_what_is_unstable():
    """Four models over 200 steps: never below 0; 2 steps of 200 (1 %); 3 of 200; not finite at the end."""
    estimate, cosines = torch.full((200, 4), 0.5), torch.full((200, 4), 0.25)
    estimate[:3, 2] = torch.tensor([-0.5, -1.0, math.nan])
    estimate[10:12, 1] = -0.1
    cosines[:4, 2] = torch.tensor([-0.5, 0.5, math.nan, -0.25])
    estimate[50, 0] = 0  # no better than a constant critic, but no worse either
    estimate[100:150, 3], estimate[150:, 3] = 1.5, 1.25  # a rise is no drop
    found = of_record(estimate, cosines, torch.tensor([True, True, True, False]))
    assert found.blown.tolist() == [0, 0.01, 0.015, 0]
    assert found.unstable.tolist() == [0, 0, 1, 1]
    assert math.isnan(found.cosine_blown[0])
    assert found.cosine_blown[1].item() == 0.25
    assert found.cosine_blown[2].item() == 0  # of -.5 and .5; the third is no number
    assert found.cosine_elsewhere[2].item() == pytest.approx((196 * 0.25 - 0.25) / 197)
    assert found.negative_blown[2].item() == pytest.approx(1 / 3)
    assert found.negative_elsewhere.tolist() == pytest.approx([0, 0, 1 / 197, 0])
    assert math.isnan(found.blown_of_negative[1])
    assert found.blown_of_negative[2].item() == 0.5
    assert found.drop[[0, 1, 3]].tolist() == pytest.approx([0.5, 0.6, 0.25])


def test_histograms_count_cosines_by_arm_at_blow_ups_and_elsewhere():
    estimate = torch.tensor([[1.0, -1.0, -1.0, 1.0], [1.0, 1.0, -1.0, 1.0]])
    cosines = torch.tensor([[0.99, -0.99, 0.01, 0.99], [0.99, 0.99, 0.01, math.nan]])
    counts = cosine_histograms(estimate, cosines, 2)
    assert counts.shape == (2, 2, 40)
    assert counts.sum(2).tolist() == [[1, 3], [2, 1]]
    assert counts[0, 0].argmax() == 0
    assert counts[0, 1].argmax() == 39
    assert counts[1, 0].argmax() == 20


def test_pixels_are_means_of_two_by_two():
    data = datasets.load("mnist-5k")
    got = pixels(data, "test")
    assert got.shape == (1000, 196)
    image = data.split("test")[0][7, 0].double().numpy() / 127.5 - 1
    expected = image.reshape(14, 2, 14, 2).mean((1, 3))
    np.testing.assert_allclose(got[7].view(14, 14).numpy(), expected, atol=1e-6)
    assert -1 <= got.min() < got.max() <= 1


def test_distance_is_that_of_the_leading_components():
    """A shift counts by its part within them, by scikit-learn's components; the images themselves are at 0."""
    rng = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.1, 2.0, 30)
    train, test = (spread * torch.randn(500, 30, generator=rng) for _ in range(2))
    shift = torch.linspace(-1.0, 1.0, 30)
    lost = torch.full_like(test, math.nan)
    got, floor = pixel_distances(torch.stack([test, test + shift, lost]), train, test)
    components = PCA(20, svd_solver="full").fit(train.double().numpy()).components_
    assert got[0].item() == pytest.approx(0, abs=1e-9)
    assert got[1].item() == pytest.approx(float(np.square(components @ shift.double().numpy()).sum()), rel=1e-5)
    assert math.isnan(got[2])
    assert 0 < floor < 1


def test_a_model_that_is_lost_takes_no_other_with_it(tmp_path):
    """An absurd rate leaves the finite numbers; the models of the other rate end where they end without it."""
    beside, sane = (
        momentum(dataclasses.replace(TINY, learning_rates=(5e-5, rate)), Workspace(tmp_path / f"{rate}", 0))
        for rate in (1e38, 5e-3)
    )
    assert beside.facts["unstable"]["rmsprop_lr1e38"] == [1, 1]
    for column in ("blown", "cosine_elsewhere", "distance"):
        for arm in ("rmsprop_lr5em5", "adam0p9_lr5em5"):
            assert beside.facts[column][arm] == pytest.approx(sane.facts[column][arm], rel=1e-4)
    assert beside.samples.dtype == torch.uint8


def test_every_parameter_and_output_counts_as_finite_or_not():
    game, outputs = build(TINY, 9, 0, "cpu"), torch.zeros(12, 5, 9)
    assert are_finite(game, outputs).all()
    outputs[3, 2, 1] = math.inf
    game.critic[0].weight.data[5, 0, 0] = math.nan
    game.generator[4].bias.data[7, 0, 0] = math.inf
    assert are_finite(game, outputs).logical_not().nonzero().flatten().tolist() == [3, 5, 7]


def test_a_killed_run_ends_in_the_same_bits(tmp_path, monkeypatch):
    whole = momentum(TINY, Workspace(tmp_path / "whole", 0))
    (tmp_path / "killed").mkdir()
    stopped = Workspace(tmp_path / "killed", 0)
    keep = stopped.keep

    def keep_and_stop(state, total, **parts):
        stopped.deadline = 0.0 if state["step"] == 5 else None
        keep(state, total, **parts)

    monkeypatch.setattr(stopped, "keep", keep_and_stop)
    with pytest.raises(OutOfTime):
        momentum(TINY, stopped)
    again = momentum(TINY, Workspace(tmp_path / "killed", 0))
    assert again.facts == whole.facts
    assert again.history == whole.history
    assert all(torch.equal(whole.weights[name], again.weights[name]) for name in whole.weights)
    assert torch.equal(whole.samples, again.samples)


def test_the_run_counts_the_steps_it_says_it_counts(tmp_path):
    """Of the first models the outcome keeps every critic step: the facts follow from those after the grace."""
    outcome = momentum(TINY, Workspace(tmp_path, 0))
    estimate, cosines = outcome.weights["estimate"], outcome.weights["cosine"]
    assert estimate.shape == cosines.shape == (TINY.n_steps * TINY.n_critic, 6)
    later = estimate[TINY.grace * TINY.n_critic :]
    names = [arm.name for arm in arms_of(TINY)]
    assert [outcome.facts["blown"][name][0] for name in names] == pytest.approx(
        (later < 0).double().mean(0).tolist(), abs=1e-6
    )
    assert outcome.weights["histogram"].sum() == 12 * (TINY.n_steps - TINY.grace) * TINY.n_critic
    assert outcome.weights["histogram"].sum((1, 2)).tolist() == [2 * len(later)] * 6
    assert curve_steps(TINY.n_steps) == set(range(1, 9))
    last = outcome.history[-1]
    assert last["step"] == 8
    assert {tuple(row) for row in outcome.history} == {("step", *[f"estimate_{n}" for n in names],
                                                        *[f"cosine_{n}" for n in names])}  # fmt: skip
    # beta1 = 0: the step is the gradient divided by positive numbers, parameter by parameter (NOTE wgan2017-N54)
    assert (cosines[:, [0, 1, 3, 4]] > 0).all()


def test_scores_are_means_over_models_and_momentum_pools_its_arms(tmp_path):
    config = dataclasses.replace(TINY, beta1s=(0.0, 0.5, 0.9))
    outcome = momentum(config, Workspace(tmp_path, 0))
    scores, facts = outcome.scores, outcome.facts
    for name, score in scores.items():
        assert math.isfinite(score.value), name
    assert scores["distance_adam0p5_lr5em3"].value == pytest.approx(
        sum(facts["distance"]["adam0p5_lr5em3"]) / 2, abs=1e-5
    )
    pooled = [facts["cosine_elsewhere"][f"adam{b}_lr5em3"] for b in ("0p5", "0p9")]
    score = scores["cosine_elsewhere_momentum_lr5em3"]
    assert score.value == pytest.approx(np.mean(pooled), abs=1e-5)
    assert score.stderr == pytest.approx(np.std(pooled, ddof=1) / 2, abs=1e-5)
    assert (score.n, score.protocol["averaged_over"]) == (4, "models")
    assert score.protocol["arms"] == ["adam0p5_lr5em3", "adam0p9_lr5em3"]
    assert scores["unstable_momentum"].n == 8
    assert scores["distance_untrained"].n == 2
    barely_moved = scores["distance_adam0_lr5em5"].value  # the distance of the start again
    assert scores["distance_untrained"].value == pytest.approx(barely_moved, rel=0.03)
    assert scores["distance_untrained"].value != barely_moved
    assert scores["unstable_rmsprop_lr5em5"].unit == "share"
    assert "negative_blown_rmsprop_lr5em5" not in scores or scores["negative_blown_rmsprop_lr5em5"].value == 0


def test_generated_images_share_their_noise_over_arms():
    game = build(TINY, 9, 0, "cpu")
    made = generate(TINY, game, Streams(0))
    assert made.shape == (12, TINY.n_generated, 9)
    torch.testing.assert_close(made[0], made[2])  # arms start alike
    assert not torch.allclose(made[0], made[1])
