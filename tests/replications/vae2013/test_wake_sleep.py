"""Wake-sleep and AEVB side by side: one step against plain models, which part each phase moves, runs, resuming."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from lib import datasets
from lib.execution.execute import deterministic
from lib.execution.workspace import Diverged, OutOfTime, Workspace
from lib.likelihood import elbo
from lib.training.randomness import Streams
from replications.vae2013 import wake_sleep as module
from replications.vae2013.side_by_side import CurveConfig, Draws, Minibatches, adagrad, build
from replications.vae2013.wake_sleep import (
    aevb_step,
    best_learning_rates,
    curve_point,
    evaluation_steps,
    learning_curves,
    measures,
    trial_bounds,
    wake_sleep_step,
)

N_PIXELS, FLOOR = 9, -1.0
BASE = CurveConfig("none", "wake-sleep", 2, 0, n_models=3, n_hidden=5, batch=8, init_sd=0.8, logvar_floor=FLOOR)
TINY = CurveConfig(
    "mnist-5k", "wake-sleep", 3, 600, n_models=2, n_hidden=8, batch=50, n_trial_steps=4, n_curve_images=40,
    n_elbo_draws=2, first_evaluation=3,
)  # fmt: skip


@pytest.fixture
def double():
    """Float64 throughout: gradients of rounding errors, which Adagrad scales up to whole steps, stay away."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def draws_of(config, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(config.n_models, config.batch, N_PIXELS, generator=rng)
    x = x.round() if config.observation == "bernoulli" else x
    noise, dream_z = (torch.randn(config.n_models, config.batch, config.n_latent, generator=rng) for _ in range(2))
    draw = torch.rand if config.observation == "bernoulli" else torch.randn
    return Draws(x, noise, dream_z, draw(x.shape, generator=rng))


class Plain:
    """Model r of a batched one, written with torch's own layers and distributions."""

    def __init__(self, model, r):
        self.layers = {}
        for name in ("encoder_in", "encoder_out", "decoder_in", "decoder_out"):
            layer = getattr(model, name)
            plain = nn.Linear(*layer.weight.shape[1:])
            with torch.no_grad():
                plain.weight.copy_(layer.weight[r].T)
                plain.bias.copy_(layer.bias[r, 0])
            self.layers[name] = plain
        self.observation = model.observation

    def parameters(self):
        return [p for layer in self.layers.values() for p in layer.parameters()]

    def q(self, x):
        mean, logvar = self.layers["encoder_out"](torch.tanh(self.layers["encoder_in"](x))).chunk(2, -1)
        return Normal(mean, torch.exp(logvar / 2))

    def p(self, z):
        outputs = self.layers["decoder_out"](torch.tanh(self.layers["decoder_in"](z)))
        if self.observation == "bernoulli":
            return Bernoulli(logits=outputs)
        mean, logvar = outputs.chunk(2, -1)
        return Normal(torch.sigmoid(mean), torch.exp(logvar.clamp(min=FLOOR) / 2))


def plain_objective(plain, algorithm, x, noise, dream_z, dream_noise):
    """What one step climbs, and the bound that it reports; sections 2 and 5."""
    q = plain.q(x)
    z = q.mean + q.stddev * noise
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    if algorithm == "aevb":
        bound = (plain.p(z).log_prob(x).sum(1) - kl).mean()
        return bound, bound
    wake = plain.p(z.detach()).log_prob(x).sum(1).mean()
    with torch.no_grad():
        p = plain.p(dream_z)
        dream = (
            (dream_noise < p.probs).to(x.dtype) if plain.observation == "bernoulli" else p.mean + p.stddev * dream_noise
        )
    sleep = plain.q(dream).log_prob(dream_z).sum(1).mean()
    return wake + sleep, wake - kl.mean()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("observation", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(("algorithm", "step"), [("aevb", aevb_step), ("wake-sleep", wake_sleep_step)])
def test_steps_are_those_of_a_plain_model_alone(algorithm, step, observation):
    config = dataclasses.replace(BASE, algorithm=algorithm, observation=observation)
    model = build(config, N_PIXELS, Streams(0))
    optimizer = adagrad(model, [0.01, 0.02, 0.1], config, n_train=40)
    plain = Plain(model, 1)
    its_optimizer = torch.optim.Adagrad(plain.parameters(), lr=0.02, weight_decay=1 / 40)
    for i in range(4):
        draws = draws_of(config, i)
        objective, bound = plain_objective(plain, algorithm, *(part[1] for part in draws))
        its_optimizer.zero_grad()
        (-objective).backward()
        its_optimizer.step()
        bounds = step(model, optimizer, draws)
        assert bounds.shape == (3,)
        assert bounds[1].item() == pytest.approx(bound.item(), rel=1e-6)
    for got, expected in zip(Plain(model, 1).parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("observation", ["bernoulli", "gaussian"])
def test_wake_moves_the_decoder_by_data_and_sleep_the_encoder_by_dreams(observation):
    """Other images leave the encoder's step as it was but through z; other dreams leave the decoder's as it was."""
    config = dataclasses.replace(BASE, observation=observation)
    draws = draws_of(config)
    other = draws_of(config, seed=1)
    ends = []
    for given in (draws, draws._replace(x=other.x, noise=other.noise),
                  draws._replace(dream_z=other.dream_z, dream_noise=other.dream_noise)):  # fmt: skip
        model = build(config, N_PIXELS, Streams(0))
        wake_sleep_step(model, adagrad(model, [0.1] * 3, config, 40), given)
        ends.append(model)
    start = build(config, N_PIXELS, Streams(0))
    for name in ("encoder_in", "encoder_out", "decoder_in", "decoder_out"):
        first, other_data, other_dreams, before = (getattr(each, name).weight for each in (*ends, start))
        assert not torch.equal(first, before)
        assert torch.equal(first, other_data) == name.startswith("encoder")
        assert torch.equal(first, other_dreams) == name.startswith("decoder")


def test_sleep_alone_teaches_the_encoder_the_posterior_of_a_linear_decoder():
    """p(x|z) nearly linear with unit-free Gaussian noise: q's mean must come near the exact posterior mean."""
    config = CurveConfig("none", "wake-sleep", 1, 0, observation="gaussian", n_models=1, n_hidden=20, batch=200,
                         init_sd=0.1, logvar_floor=-8.0, prior_precision=0.0)  # fmt: skip
    model = build(config, 4, Streams(0))
    with torch.no_grad():  # mean = sigmoid(2 tanh(z / 10)) = 1/2 + z / 20 nearly, in each of 4 pixels; variance 0.01
        for parameter in (*model.decoder_in.parameters(), *model.decoder_out.parameters()):
            parameter.zero_()
        model.decoder_in.weight[0, 0, 0] = 0.1
        model.decoder_out.weight[0, 0, :4] = 2.0
        model.decoder_out.bias[0, 0, 4:] = math.log(0.01)
    kept = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("decoder")}
    optimizer, rng = adagrad(model, [0.1], config, 1), torch.Generator().manual_seed(0)
    for _ in range(600):
        noise, dream_z = torch.randn(2, 1, 200, 1, generator=rng)
        dream_noise = torch.randn(1, 200, 4, generator=rng)
        wake_sleep_step(model, optimizer, Draws(torch.full((1, 200, 4), 0.5), noise, dream_z, dream_noise))
        model.load_state_dict(kept, strict=False)  # the wake phase undone
    x = torch.tensor([[[0.4] * 4, [0.5] * 4, [0.65] * 4]])
    q = model.posterior(x)
    precision = 1 + 4 * 0.05**2 / 0.01  # slope 1/20, variance 0.01, 4 pixels
    expected = (x[0].sum(1) - 2) * 0.05 / 0.01 / precision
    torch.testing.assert_close(q.mean[0, :, 0], expected, rtol=0.1, atol=0.12)
    torch.testing.assert_close(q.logvar[0, :, 0].exp(), torch.full((3,), 1 / precision), rtol=0.2, atol=0)


def test_each_model_takes_the_step_size_of_its_own_best_trial():
    trials = {"0.01": [-3.0, -2.0, math.nan], "0.02": [-2.0, math.nan, math.nan], "0.1": [-4.0, -1.0, -1e9]}
    assert best_learning_rates(trials) == [0.02, 0.1, 0.1]


def test_trials_are_the_mean_of_their_second_half(monkeypatch):
    seen = []

    def step(model, optimizer, draws):
        rates = [group["lr"] for group in optimizer.param_groups]
        seen.append(rates)
        return torch.tensor([len(seen) % 10, 100.0 * rates[0]])

    monkeypatch.setattr(module, "STEPS", {"wake-sleep": step})
    config = dataclasses.replace(TINY, n_trial_steps=5)
    images = torch.zeros(100, N_PIXELS, dtype=torch.uint8)
    found = trial_bounds(Minibatches(images, config, Streams(0)))
    assert seen == [[0.01] * 2] * 5 + [[0.02] * 2] * 5 + [[0.1] * 2] * 5
    assert found["0.01"] == [4.0, 1.0]  # of steps 3, 4, 5
    assert found["0.1"][0] == 4.0
    assert found["0.02"][1] == 2.0


def test_the_curve_has_every_second_point_of_the_other_runs():
    from replications.vae2013.presets import PRESETS
    from replications.vae2013.train import evaluation_steps as of_aevb

    for preset in ("laptop", "paper"):
        steps = evaluation_steps(PRESETS[preset]["wake-sleep-nz3"])
        assert steps <= of_aevb(PRESETS[preset]["aevb-nz3"])
    config = CurveConfig("mnist-5k", "wake-sleep", 3, 200_000)
    assert (min(steps := evaluation_steps(config)), max(steps), len(steps)) == (10, 2000, 15)
    assert evaluation_steps(dataclasses.replace(config, n_samples=500)) == {5}


@pytest.mark.parametrize("observation", ["bernoulli", "gaussian"])
def test_the_measures_are_those_of_each_model_alone(observation):
    config = dataclasses.replace(BASE, observation=observation, n_curve_images=5, n_curve_draws=4, n_elbo_draws=3)
    model, streams = build(config, N_PIXELS, Streams(0)), Streams(4)
    images = {"train": draws_of(config).x[0], "test": draws_of(config, 1).x[0][:6]}
    found = measures(model, images, config, streams)
    point = curve_point(model, images, config, streams, 7)
    for r in range(3):
        plain = Plain(model, r)
        train, test = (
            elbo(model.alone(r), images[s], 3, streams.at(f"elbo {s} {r}")).mean().item() for s in ("train", "test")
        )
        assert found["elbo_train"][r].item() == pytest.approx(train)
        assert found["gap"][r].item() == pytest.approx(train - test, abs=1e-5)
        q = plain.q(images["test"])
        kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean().item()
        assert found["kl_test"][r].item() == pytest.approx(kl, rel=1e-5)
        assert found["active_units"][r].item() == (q.mean.var(0) > 0.01).sum().item()
        expected = elbo(model.alone(r), images["test"][:5], 4, streams.at(f"curve test {r}", 7)).mean().item()
        assert point[f"elbo_test_{r}"] == pytest.approx(expected)
        if observation == "gaussian":
            raw = plain.layers["decoder_out"](torch.tanh(plain.layers["decoder_in"](q.mean)))[:, N_PIXELS:]
            assert found["at_floor"][r].item() == pytest.approx((raw <= FLOOR).float().mean().item())
    assert point["elbo_test"] == pytest.approx(sum(point[f"elbo_test_{r}"] for r in range(3)) / 3)
    assert ("at_floor" in found) == (observation == "gaussian")


def stopped_at(workspace, step):
    """The workspace, out of time after that step."""
    keep = workspace.keep

    def keep_and_stop(state, total, **parts):
        workspace.deadline = 0.0 if state["step"] == step else None
        keep(state, total, **parts)

    workspace.keep = keep_and_stop
    return workspace


@pytest.mark.parametrize("change", [{}, {"algorithm": "aevb", "observation": "gaussian"}], ids=["digits", "grey"])
def test_a_run_has_its_scores_and_repeats_its_bits_after_a_kill(tmp_path, change):
    config = dataclasses.replace(TINY, **change)
    with deterministic("cpu"):
        whole = learning_curves(config, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        with pytest.raises(OutOfTime):
            learning_curves(config, stopped_at(Workspace(tmp_path / "killed", 0), 5))
        resumed = Workspace(tmp_path / "killed", 0)
        again = learning_curves(config, resumed)
    assert resumed.resumed_at == [5]
    assert all(torch.equal(value, again.weights[name]) for name, value in whole.weights.items())
    assert (whole.history, whole.scores) == (again.history, again.scores)
    assert [row["samples"] for row in whole.history] == [150, 250, 350, 500, 600]
    assert whole.history[-1]["elbo_train"] > whole.history[0]["elbo_train"] + 20
    score = whole.scores["elbo_test"]
    assert (score.n, score.protocol["averaged_over"], score.protocol["split"]) == (2, "models", "test")
    assert (score.protocol["draws"], score.protocol["algorithm"]) == (2, config.algorithm)
    assert score.value == pytest.approx(sum(whole.facts["elbo_test"]) / 2)
    assert score.stderr == pytest.approx(abs(whole.facts["elbo_test"][0] - whole.facts["elbo_test"][1]) / 2)
    assert whole.facts["parameters"] == 785 * 8 + 9 * 6 + 4 * 8 + 9 * 784 * (2 if "observation" in change else 1)
    assert whole.scores["gap"].protocol["split"] == "train minus test"
    floors = {score.protocol.get("logvar_floor") for score in whole.scores.values()}
    assert floors == ({config.logvar_floor} if "observation" in change else {None})


def test_step_t_sees_minibatch_t_by_the_chosen_step_sizes(tmp_path, monkeypatch):
    seen = []

    def step(model, optimizer, draws):
        rates = [group["lr"] for group in optimizer.param_groups]
        seen.append((rates, draws.x))
        return torch.tensor([-abs(rates[0] - 0.02), rates[1]])  # best: 0.02 for model 0, 0.1 for model 1

    monkeypatch.setattr(module, "STEPS", {"wake-sleep": step})
    outcome = learning_curves(TINY, Workspace(tmp_path, 0))
    trained = seen[3 * TINY.n_trial_steps :]
    assert outcome.facts["learning_rates"] == [0.02, 0.1]
    assert [rates for rates, _ in trained] == 12 * [[0.02, 0.1]]
    minibatches = Minibatches(datasets.load("mnist-5k").split("train")[0].flatten(1), TINY, Streams(0))
    assert all(torch.equal(x, minibatches(t).x) for t, (_, x) in enumerate(trained))


def test_a_run_that_diverges_stops_with_a_sentence(tmp_path):
    wild = dataclasses.replace(TINY, learning_rates=(1e30,))
    with deterministic("cpu"), pytest.raises(Diverged, match=r"bound on the train images became .* at step"):
        learning_curves(wild, Workspace(tmp_path, 0))
