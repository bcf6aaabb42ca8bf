"""Monte Carlo EM: its steps beside a plain model alone, its count of work, a run, resuming."""

import dataclasses
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lib import datasets
from lib.errors import UserError
from lib.execution.execute import deterministic
from lib.execution.workspace import Diverged, OutOfTime, Workspace
from lib.likelihood.hmc import Noise, draw_noise
from lib.losses.elbo import bernoulli_log_likelihood
from lib.models.decoders import BernoulliDecoder
from lib.models.gaussian_vae import BernoulliVAE
from lib.training.randomness import Streams, generator
from replications.vae2013 import monte_carlo_em as module
from replications.vae2013.marginal import MarginalConfig
from replications.vae2013.monte_carlo_em import (
    ChainMinibatches,
    Chains,
    Learner,
    e_step,
    equal_work_step,
    estimated,
    evaluation_steps,
    figure_three,
    m_step,
    products,
    trial_values,
)
from replications.vae2013.side_by_side import adagrad, build

TINY = MarginalConfig(
    "mnist-5k", "mcem", n_train=200, n_samples=800, n_models=2, n_latent=2, n_hidden=8, n_trial_steps=4, n_points=2,
    n_images=6, n_posterior=10, burn_in=10, n_start=4, n_importance=20,
)  # fmt: skip
ALGORITHMS = ("mcem", "aevb", "wake-sleep")


@pytest.fixture(scope="module")
def images():
    return datasets.load("mnist-5k").split("train")[0].flatten(1)[: TINY.n_train]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small(config=TINY, batch=30):
    """Models, chains and one minibatch of 12 pixels in the default dtype, with noise."""
    streams, rng = Streams(0), generator(0, "x")
    x = (torch.rand(config.n_models, batch, 12, generator=rng) < 0.4).to(torch.get_default_dtype())
    index = torch.stack([torch.randperm(config.n_train, generator=rng)[:batch] for _ in range(config.n_models)])
    model, chains = build(config.training(), 12, streams), Chains(config, streams)
    return model, chains, x, index, draw_noise(torch.zeros(config.n_models, batch, config.n_latent), rng)


# --- the E step --------------------------------------------------------------------------------------------------


def plain_leapfrog(decoder, x, z, momentum, step):
    """10 leapfrog steps on -log p(x, z), written out for one model; z (M, Z), step (M, 1)."""

    def gradient(z):
        z = z.detach().requires_grad_()
        log_joint = -0.5 * z.square().sum() - torch.nn.functional.binary_cross_entropy_with_logits(
            decoder(z), x, reduction="sum"
        )
        return torch.autograd.grad(log_joint, z)[0]

    for _ in range(10):
        momentum = momentum + step / 2 * gradient(z)
        z = z + step * momentum
        momentum = momentum + step / 2 * gradient(z)
    return z, momentum


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("accept", [True, False])
def test_the_e_step_is_ten_leapfrog_steps_of_each_model_alone(accept):
    model, chains, x, index, noise = small()
    chains.step_size.copy_(torch.tensor([[0.1], [0.3]]))
    noise = noise._replace(log_uniform=torch.full_like(noise.log_uniform, -math.inf if accept else math.inf))
    before = chains.z.clone()
    z, log_joint = e_step(model, chains, x, index, noise, TINY)
    for r in range(TINY.n_models):
        start, single = before[r, index[r]], model.alone(r)
        step = (chains.step_size.new_tensor([0.1, 0.3])[r] * noise.stretch[r]).unsqueeze(-1)
        end = plain_leapfrog(single.logits, x[r], start, noise.momentum[r], step)[0] if accept else start
        torch.testing.assert_close(z[r], end, rtol=0, atol=1e-6)
        torch.testing.assert_close(chains.z[r, index[r]], z[r])
        others = [n for n in range(TINY.n_train) if n not in index[r].tolist()]
        assert torch.equal(chains.z[r, others], before[r, others])
        expected = single.log_likelihood(x[r], end) + single.log_prior(end)
        torch.testing.assert_close(log_joint[r], expected.detach(), rtol=0, atol=1e-5)


def test_a_proposal_is_accepted_by_its_change_of_energy():
    """With a step far too long nothing is accepted, with a tiny one everything: and the step size follows."""
    for size, share, direction in ((1e-4, 1.0, 1.02), (30.0, 0.0, None)):
        model, chains, x, index, noise = small()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(10)
        chains.step_size.fill_(size)
        before = chains.z.clone()
        z, _ = e_step(model, chains, x, index, noise, TINY)
        moved = (z != before.gather(1, index.unsqueeze(-1).expand_as(z))).any(-1)
        assert moved.float().mean().item() == pytest.approx(share, abs=0.1)
        if direction:
            assert chains.step_size.flatten().tolist() == pytest.approx(2 * [size * direction])
            assert (chains.mean_acceptance > 0.9).all()
        else:
            assert (chains.step_size == 0.5).all()  # one step down, and into hmc.STEP_RANGE
            assert chains.mean_acceptance.flatten().tolist() == pytest.approx(2 * [0.81], abs=0.02)


def test_a_model_tunes_its_own_step_size():
    model, chains, x, index, noise = small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    chains.step_size.copy_(torch.tensor([[1e-4], [30.0]]))
    e_step(model, chains, x, index, noise, TINY)
    assert chains.step_size.flatten().tolist() == pytest.approx([1.02e-4, 0.5])
    assert chains.mean_acceptance.flatten().tolist() == pytest.approx([0.91, 0.81], abs=0.02)


def test_many_e_steps_leave_the_posterior_and_accept_nine_in_ten(images):
    """One image for all chains of one model, two latents: the chains' mean is the posterior's, by quadrature."""
    config = dataclasses.replace(TINY, n_train=400, n_models=1, first_step_size=0.4)
    model, chains, x, *_ = small(config, batch=400)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    x, index = x[:, :1].expand(-1, 400, -1).contiguous(), torch.arange(400)[None]
    means, accepted = [], []
    for t in range(160):
        noise = draw_noise(chains.z, generator(0, "noise", t))
        z, _ = e_step(model, chains, x, index, noise, config)
        if t >= 60:
            means.append(z.double().mean(1))
            accepted.append(chains.mean_acceptance.item())
    grid = torch.cartesian_prod(*2 * [torch.linspace(-5, 5, 200)])
    single = model.alone(0)
    weights = torch.softmax((single.log_likelihood(x[0, :1], grid[:, None]) + single.log_prior(grid)[:, None])[:, 0], 0)
    expected = weights.detach() @ grid
    assert expected.abs().max().item() > 0.3  # not the prior's mean
    assert torch.stack(means).mean(0)[0].tolist() == pytest.approx(expected.tolist(), abs=0.05)
    assert sum(accepted) / len(accepted) == pytest.approx(0.9, abs=0.03)


# --- the M step --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("double")
def test_the_m_step_is_adagrad_on_each_decoder_alone():
    model, _, x, _, _ = small()
    rates = [0.1, 0.02]
    optimizer = adagrad(model, rates, TINY.training(), TINY.n_train)
    z = torch.randn(2, 30, 2, generator=generator(0, "z"))
    plain = []
    for r, rate in enumerate(rates):
        single = BernoulliVAE(12, 8, 2)
        single.load_state_dict(model.alone(r).state_dict())
        decoder = [*single.decoder_in.parameters(), *single.decoder_out.parameters()]
        by_hand = torch.optim.Adagrad(decoder, lr=rate, weight_decay=1 / TINY.n_train)
        for _ in range(5):
            by_hand.zero_grad()
            (-bernoulli_log_likelihood(x[r], single.logits(z[r])).mean()).backward()
            by_hand.step()
        plain.append(single)
    m_step(model, optimizer, x, z, 5)
    for r, single in enumerate(plain):
        for name, value in model.alone(r).state_dict().items():  # the encoder too: it must stay
            torch.testing.assert_close(value, single.state_dict()[name], rtol=0, atol=1e-9)


def test_a_step_hands_the_sample_of_the_e_step_to_the_m_step(images, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "m_step", lambda model, optimizer, x, z, n: seen.append((x, z, n)))
    learner = Learner(TINY, images, [0.1, 0.1], Streams(0))
    first = learner.step(0)
    (x, z, n), index = seen[0], learner.minibatches.index(0)
    chains = learner.parts["chains"]
    assert n == 5
    assert torch.equal(z, chains.z.gather(1, index.unsqueeze(-1).expand_as(z)))
    assert (images.view(200, -1)[index[1]][x[1] == 1] > 0).all()  # a pixel is on only where its own image has ink
    log_joint = learner.model.log_likelihood(x, z) - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(first, log_joint.detach().double().mean(1), rtol=1e-5, atol=0)


def test_chains_belong_to_their_images(images):
    minibatches = ChainMinibatches(images, TINY.training(), Streams(3))
    seen = torch.cat([minibatches.index(step) for step in range(2)], 1)  # one epoch
    assert seen.sort(1).values.tolist() == 2 * [list(range(200))]
    assert not torch.equal(seen[0], seen[1])


def test_estimators_do_not_see_an_encoder_that_was_never_trained(images):
    kinds = {a: type(Learner(dataclasses.replace(TINY, algorithm=a), images, [0.1, 0.1], Streams(0)).alone(1))
             for a in ALGORITHMS}  # fmt: skip
    assert kinds == {"mcem": BernoulliDecoder, "aevb": BernoulliVAE, "wake-sleep": BernoulliVAE}


def test_all_algorithms_start_from_equal_decoders(images):
    weights = [Learner(dataclasses.replace(TINY, algorithm=a), images, [0.1, 0.1], Streams(0)).model.decoder_out.weight
               for a in ALGORITHMS]  # fmt: skip
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_each_model_has_its_step_size_and_the_prior_counts_once_per_data_set(images):
    groups = Learner(TINY, images, [0.1, 0.02], Streams(0)).optimizer.param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.02]
    assert [group["weight_decay"] for group in groups] == pytest.approx(2 * [1 / 200])


def test_every_step_draws_noise_of_its_own(images, monkeypatch):
    seen = []
    real = module.e_step
    monkeypatch.setattr(module, "e_step", lambda *args: seen.append(args[4]) or real(*args))
    learner = Learner(TINY, images, [0.1, 0.1], Streams(0))
    for t in range(2):
        learner.step(t)
    assert not torch.isclose(seen[0].momentum, seen[1].momentum).any()
    assert not torch.isclose(seen[0].momentum[0], seen[0].momentum[1]).any()


def test_a_trial_is_judged_by_its_second_half(images, monkeypatch):
    monkeypatch.setattr(Learner, "step", lambda self, t: torch.tensor([t, 10.0 * t]))
    assert trial_values(TINY, images, Streams(0)) == {"0.01": [2.5, 25], "0.02": [2.5, 25], "0.1": [2.5, 25]}


def test_the_estimators_chains_start_at_the_encoders_mean(images, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "appendix_d", lambda *args: seen.append(args))
    x = {split: (images[part].float() > 100).float() for split, part in (("train", slice(5)), ("test", slice(5, 10)))}
    for algorithm in ALGORITHMS:
        learner = Learner(dataclasses.replace(TINY, algorithm=algorithm), images, [0.1, 0.1], Streams(0))
        estimated(learner, x, 3)
        model, both, *_, start = seen[-1]
        if algorithm == "mcem":
            assert start is None
        else:
            torch.testing.assert_close(start, model.posterior(both).mean.detach())
            assert torch.equal(model.decoder_out.weight, learner.model.decoder_out.weight[1].T)


# --- work and the curve's points ---------------------------------------------------------------------------------


class LargeProducts(TorchDispatchMode):
    """Counts the multiply-adds of batched products with 784 in their sizes, as PyTorch runs them."""

    # PyTorch's own FlopCounterMode fails where autograd.grad is called, as lib.likelihood.hmc does.
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default):
            (r, n, k), m = args[-2].shape, args[-1].shape[-1]
            self.count += r * n * k * m if 784 in (n, k, m) else 0
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("algorithm", "count"), [("mcem", 37), ("aevb", 5), ("wake-sleep", 7)])
def test_the_count_of_products_is_what_pytorch_runs(images, algorithm, count):
    config = dataclasses.replace(TINY, algorithm=algorithm)
    learner = Learner(config, images, [0.1, 0.1], Streams(0))
    with LargeProducts() as counted:
        learner.step(0)
    assert counted.count == 2 * 100 * 784 * 8 * count
    assert products(config) == count


def test_points_are_even_and_monte_carlo_em_has_one_at_equal_work():
    config = dataclasses.replace(TINY, n_samples=60_000, n_points=3)
    assert equal_work_step(config) == 82  # 600 * 5 / 37 = 81.1
    assert evaluation_steps(config) == [82, 200, 400, 600]
    for algorithm in ("aevb", "wake-sleep"):
        assert evaluation_steps(dataclasses.replace(config, algorithm=algorithm)) == [200, 400, 600]


# --- a run -------------------------------------------------------------------------------------------------------


def stopped_at(workspace, step):
    keep = workspace.keep

    def keep_and_stop(state, total, **parts):
        workspace.deadline = 0.0 if state["step"] == step else None
        keep(state, total, **parts)

    workspace.keep = keep_and_stop
    return workspace


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("stop", [5, 8])
def test_a_run_has_its_scores_and_repeats_its_bits_after_a_kill(tmp_path, algorithm, stop):
    config = dataclasses.replace(TINY, algorithm=algorithm)
    with deterministic("cpu"):
        whole = figure_three(config, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        with pytest.raises(OutOfTime):
            figure_three(config, stopped_at(Workspace(tmp_path / "killed", 0), stop))
        resumed = Workspace(tmp_path / "killed", 0)
        again = figure_three(config, resumed)
    assert resumed.resumed_at == [stop]
    assert whole.history == again.history
    assert whole.scores == again.scores
    assert whole.facts == again.facts
    assert all(torch.equal(value, again.weights[name]) for name, value in whole.weights.items())
    assert {name.partition("_")[0] for name in whole.weights} == {"decoder"} | (
        {"encoder"} - {algorithm == "mcem" and "encoder"}
    )
    last = whole.history[-1]
    assert last["samples"] == 800
    assert last["gflop"] == pytest.approx(800 * products(config) * 2 * 784 * 8 / 1e9)
    for split in ("train", "test"):
        values = torch.tensor([last[f"appendix_d_{split}_{r}"] for r in range(2)], dtype=torch.float64)
        score = whole.scores[f"appendix_d_{split}"]
        assert (score.value, score.n) == (pytest.approx(values.mean().item()), 2)
        assert score.stderr == pytest.approx(values.std().item() / math.sqrt(2))
        assert score.protocol["averaged_over"] == "models"
        parts = whole.facts[f"appendix_d_{split}"], whole.facts[f"is_fitted_{split}"]
        expected = torch.tensor(parts[0]) - torch.tensor(parts[1])
        assert whole.facts[f"excess_{split}"] == pytest.approx(expected.tolist(), abs=1e-4)
    gap = whole.scores["appendix_d_train"].value - whole.scores["appendix_d_test"].value
    assert whole.scores["gap"].value == pytest.approx(gap)
    assert ("is_encoder_test" in whole.scores) == (algorithm != "mcem")
    assert ("equal_work_test" in whole.scores) == (algorithm == "mcem")
    if algorithm == "mcem":
        row = next(row for row in whole.history if row["samples"] == 200)
        assert whole.scores["equal_work_test"].value == pytest.approx(row["appendix_d_test"])
        assert whole.scores["equal_work_train"].value == pytest.approx(row["appendix_d_train"])


def test_training_images_come_first_and_are_those_trained_on(tmp_path, monkeypatch):
    """The estimator gets the first images of each split, training images above test images."""
    seen = []
    real = module.appendix_d
    monkeypatch.setattr(module, "appendix_d", lambda model, x, *rest: seen.append(x) or real(model, x, *rest))
    with deterministic("cpu"):
        outcome = figure_three(TINY, Workspace(tmp_path, 0))
    data = datasets.load("mnist-5k")
    grey = torch.cat([data.split(split)[0].flatten(1)[:6] for split in ("train", "test")])
    assert (grey[seen[-1] == 1] > 0).all()
    assert (grey[seen[-1] == 0] < 255).all()
    rng = Streams(0).at("appendix d 0", 8)
    model = BernoulliVAE(784, 8, 2)
    weights = {name: value[0].T if name.endswith("weight") else value[0, 0] for name, value in outcome.weights.items()}
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        value = real(BernoulliDecoder(model.logits, 2), seen[-1], TINY, rng).value
    assert outcome.history[-1]["appendix_d_train_0"] == pytest.approx(value[:6].mean().item(), abs=1e-3)
    assert outcome.history[-1]["appendix_d_test_0"] == pytest.approx(value[6:].mean().item(), abs=1e-3)


@pytest.mark.parametrize("sizes", [{"n_train": 4100}, {"n_images": 201}])
def test_more_images_than_there_are_is_told(tmp_path, sizes):
    with pytest.raises(UserError, match="mnist-5k has 4000 training images"):
        figure_three(dataclasses.replace(TINY, **sizes), Workspace(tmp_path, 0))


def test_a_run_that_leaves_the_numbers_is_told(tmp_path):
    config = dataclasses.replace(TINY, algorithm="aevb", learning_rates=(1e30,))
    with pytest.raises(Diverged, match="training objective"):
        figure_three(config, Workspace(tmp_path, 0))


def test_monte_carlo_em_learns(tmp_path):
    config = dataclasses.replace(TINY, n_samples=6000, n_hidden=20, learning_rates=(0.1,))
    with deterministic("cpu"):
        outcome = figure_three(config, Workspace(tmp_path, 0))
    assert outcome.scores["appendix_d_train"].value > -206  # what independent pixels reach on these digits
    assert outcome.facts["parameters"] == 2 * 20 + 20 + 20 * 784 + 784


def test_noise_has_the_shape_of_the_latents():
    """What Learner.step rests on: Draws.noise of figure 2's minibatches has the shape of z."""
    minibatches = ChainMinibatches(torch.zeros(200, 12, dtype=torch.uint8), TINY.training(), Streams(0))
    noise = draw_noise(minibatches(0).noise, generator(0, "n"))
    assert isinstance(noise, Noise)
    assert noise.momentum.shape == (2, 100, 2)
