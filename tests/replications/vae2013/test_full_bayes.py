"""Appendix F beside exact evidences and plain distributions; a run and its resuming."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from lib import datasets
from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.gaussian_vae import Gaussian
from lib.training.randomness import Streams, generator
from replications.vae2013.full_bayes import (
    BatchedVae,
    Conjugate,
    ConjugateConfig,
    FullBayesConfig,
    binary_digits,
    conjugate,
    conjugate_estimates,
    conjugate_models,
    elbos,
    full_bayes,
    measured,
    parameter_noise,
    step,
    whole_bound,
)

CONFIG = ConjugateConfig(n_repeats=20_000)
TINY = FullBayesConfig("uci-digits", 30, n_steps=12, n_models=2, n_latent=2, n_hidden=5, batch=8,
                       n_parameter_draws=3, n_elbo_draws=2)  # fmt: skip


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


# --- where the evidence is known ---------------------------------------------------------------------------------


def test_equation_24_counts_points_n_times_and_parameters_once():
    per_point = numbers([1.0, 3.0], [0.0, 1.0])
    assert whole_bound(10, per_point, numbers(5.0, -1.0)).tolist() == [25, 4]


def test_the_evidence_of_two_numbers_is_that_of_their_covariance():
    model = Conjugate(numbers([1.5]), numbers([0.7]), 0.3)
    x = numbers([0.4], [-1.1])
    own, shared = 1.5**2 + 0.7**2 + 0.3, 1.5**2
    determinant = own**2 - shared**2
    square = (own * (0.4**2 + 1.1**2) - 2 * shared * 0.4 * -1.1) / determinant
    by_hand = -0.5 * (square + math.log(determinant)) - math.log(2 * math.pi)
    assert model.evidence(x) == pytest.approx(by_hand, rel=1e-12)


def case(name):
    model = conjugate_models(CONFIG)[name]
    x = 1.5 * torch.randn(6, CONFIG.n_observed, dtype=torch.float64, generator=generator(0, "x"))
    return model, x


@pytest.mark.parametrize("name", ["shared", "apart"])
def test_the_best_q_has_no_better_neighbour_and_its_gap_is_the_divergence(name):
    model, x = case(name)
    q_theta, q_z = model.best(x)
    best, evidence = model.exact_bound(x, q_theta, q_z), model.evidence(x)
    precision = model.precision(len(x))
    variances = torch.cat([q_theta.logvar, q_z.logvar.flatten()]).exp()
    q = torch.distributions.MultivariateNormal(torch.zeros(len(variances)).double(), variances.diag())
    p = torch.distributions.MultivariateNormal(torch.zeros(len(variances)).double(), precision_matrix=precision)
    assert evidence - best == pytest.approx(torch.distributions.kl_divergence(q, p).item(), abs=1e-9)
    assert (evidence - best > 0.1) == (name == "shared")
    rng = generator(0, "neighbours")
    for _ in range(50):
        near = [Gaussian(*(part + 0.05 * torch.randn(part.shape, dtype=torch.float64, generator=rng) for part in each))
                for each in (q_theta, q_z)]  # fmt: skip
        assert model.exact_bound(x, *near) < best


def test_estimates_average_to_the_exact_bound_of_any_q():
    model, x = case("shared")
    rng = generator(0, "any q")
    q = [Gaussian(torch.randn(shape, dtype=torch.float64, generator=rng), torch.full(shape, -1.0).double())
         for shape in ((2,), (6, 2))]  # fmt: skip
    exact = model.exact_bound(x, *q)
    for batch in (2, 6):
        for values in conjugate_estimates(model, x, q, batch, 40_000, generator(1, f"draws {batch}")):
            assert values.mean().item() == pytest.approx(exact, abs=4.5 * values.std().item() / 200)
            assert values.std().item() / 200 < 0.02 * abs(exact)


def test_with_the_posterior_itself_every_estimate_is_the_evidence():
    model, x = case("apart")
    sampled, closed = conjugate_estimates(model, x, model.best(x), len(x), 50, generator(0, "whole"))
    assert (sampled - model.evidence(x)).abs().max().item() < 1e-10
    assert closed.std().item() > 0.1  # with closed divergences the likelihood's own noise is left


def test_the_conjugate_run(tmp_path):
    scores = conjugate(CONFIG, Workspace(tmp_path, 0)).scores
    assert scores["spread_apart"].value < 1e-9 < 1 < scores["spread_shared"].value
    for name in ("shared", "apart"):
        assert scores[f"gap_residual_{name}"].value == pytest.approx(0, abs=1e-9)
        for kind in ("sampled", "closed"):
            error = scores[f"{kind}_error_{name}"]
            assert abs(error.value) < 4.5 * error.stderr < 1.5


# --- a small VAE -------------------------------------------------------------------------------------------------


def small():
    model = BatchedVae(TINY, 9, generator(0, "init"))
    with torch.no_grad():
        for value in model.logvars:
            value += torch.randn(value.shape, generator=generator(0, "logvars"))
    x = (torch.rand(4, 8, 9, generator=generator(0, "x")) > 0.5).float()
    return model, x, torch.randn(4, 8, 2, generator=generator(0, "noise")), parameter_noise(model, generator(0, "t"))


def plain_objective(model, r, x, noise, theta_noise, n_train):
    """Model r's objective by torch's own layers and distributions."""
    w_e, b_e, w_q, b_q = (each[r] for layer in (model.encoder_in, model.encoder_out) for each in
                          (layer.weight, layer.bias))  # fmt: skip
    means, prior = [mean[r] for mean in model.means()], torch.distributions.Normal(0.0, 1.0)
    theta, cost = means, sum(0.5 * mean.square().sum() for mean in means)
    if r >= model.n_models:
        sds = [(0.5 * v[r - model.n_models]).exp() for v in model.logvars]
        theta = [m + sd * e[r - model.n_models] for m, sd, e in zip(means, sds, theta_noise, strict=True)]
        cost = sum(torch.distributions.kl_divergence(torch.distributions.Normal(m, sd), prior).sum()
                   for m, sd in zip(means, sds, strict=True))  # fmt: skip
    mean, logvar = F.linear(torch.tanh(F.linear(x, w_e.T, b_e[0])), w_q.T, b_q[0]).chunk(2, -1)
    q = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    z = mean + (0.5 * logvar).exp() * noise
    logits = F.linear(torch.tanh(F.linear(z, theta[0].T, theta[1][0])), theta[2].T, theta[3][0])
    likelihood = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    per_point = likelihood - torch.distributions.kl_divergence(q, prior).sum(-1)
    return per_point.mean() - cost / n_train


@pytest.mark.parametrize("r", [0, 1, 2, 3])
def test_each_model_has_the_objective_and_the_step_it_would_have_alone(r):
    model, x, noise, theta_noise = small()
    alone = plain_objective(model, r, x[r], noise[r], theta_noise, 30)
    parameters = dict(model.named_parameters())
    slopes = torch.autograd.grad(alone, parameters.values(), allow_unused=True, materialize_grads=True)
    before = {name: value.detach().clone() for name, value in parameters.items()}
    values = step(model, torch.optim.SGD(model.parameters(), 0.1), 30, x, noise, *theta_noise)
    assert values[r].item() == pytest.approx(alone.item(), rel=1e-5)
    for (name, value), slope in zip(parameters.items(), slopes, strict=True):
        row = r - 2 if name.startswith("logvars") else r
        if row >= 0:
            torch.testing.assert_close(value[row] - before[name][row], 0.1 * slope[row], rtol=1e-3, atol=1e-6)


def test_only_models_by_appendix_f_draw_their_parameters():
    model, x, noise, theta_noise = small()
    drawn, still = model.draw(theta_noise), model.draw([torch.zeros_like(each) for each in theta_noise])
    for with_noise, without, mean in zip(drawn, still, model.means(), strict=True):
        assert torch.equal(with_noise[:2], mean[:2])
        assert torch.equal(without, mean)
        assert not torch.equal(with_noise[2:], mean[2:])
    values = elbos(model, still, x, noise)
    assert values.shape == (4, 8)


def test_digits_are_binary_the_same_each_time_and_as_grey_as_the_data():
    data = datasets.load("uci-digits")
    digits = binary_digits(dataclasses.replace(TINY, n_train=1000), data)
    grey = data.split("train")[0][:1000].flatten(1).float() / 16
    assert digits["train"].unique().tolist() == [0, 1]
    assert digits["train"].mean().item() == pytest.approx(grey.mean().item(), abs=0.005)
    assert torch.equal(digits["train"][grey == 1], torch.ones(int((grey == 1).sum())))
    assert torch.equal(digits["train"][:30], binary_digits(TINY, data)["train"])
    assert len(digits["test"]) == 360


def test_scores_go_to_the_models_that_they_are_of():
    """MAP models whose decoders are certain of black pixels: a terrible bound, and no one else's."""
    model = BatchedVae(TINY, 9, generator(0, "init"))
    with torch.no_grad():
        model.decoder_out.bias[:2] = -20
    x = torch.ones(30, 9)
    found = measured(model, {"train": x, "test": x[:10]}, TINY, Streams(0))
    assert found["map_elbo_train"].max().item() < -150
    assert found["vb_elbo_train"].min().item() > -20
    torch.testing.assert_close(30 * found["kl_theta"], model.cost()[2:].double(), check_dtype=False)


def stopped_at(workspace, number):
    """The workspace, out of time after that step."""
    keep = workspace.keep

    def keep_and_stop(state, total, **parts):
        workspace.deadline = 0.0 if state["step"] == number else None
        keep(state, total, **parts)

    workspace.keep = keep_and_stop
    return workspace


def test_a_run_has_its_scores_and_repeats_its_bits_after_a_kill(tmp_path):
    data = datasets.load("uci-digits")
    with deterministic("cpu"):
        whole = full_bayes(TINY, data, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        with pytest.raises(OutOfTime):
            full_bayes(TINY, data, stopped_at(Workspace(tmp_path / "killed", 0), 7))
        resumed = Workspace(tmp_path / "killed", 0)
        again = full_bayes(TINY, data, resumed)
    assert resumed.resumed_at == [7]
    assert whole.scores == again.scores
    assert whole.history == again.history
    assert all(torch.equal(each, again.weights[name]) for name, each in whole.weights.items())
    facts = {
        name: torch.tensor(values, dtype=torch.float64) for name, values in whole.facts.items() if name != "parameters"
    }
    assert torch.allclose(facts["full_bound"], facts["vb_elbo_train"] - facts["kl_theta"])
    assert torch.allclose(facts["map_gap"], facts["map_elbo_train"] - facts["map_elbo_test"])
    assert whole.facts["parameters"] == 2 * 5 + 5 + 5 * 64 + 64
    score = whole.scores["full_bound"]
    assert (score.n, score.protocol["averaged_over"], score.unit) == (2, "models", "nats/image")
    assert score.value == pytest.approx(facts["full_bound"].mean().item())


def test_training_raises_both_bounds_and_pays_less_for_parameters(tmp_path):
    config = dataclasses.replace(TINY, n_steps=200, batch=30)
    with deterministic("cpu"):
        short = full_bayes(dataclasses.replace(config, n_steps=1), datasets.load("uci-digits"), Workspace(tmp_path, 0))
        (tmp_path / "long").mkdir()
        long = full_bayes(config, datasets.load("uci-digits"), Workspace(tmp_path / "long", 0))
    for name in ("map_elbo_train", "vb_elbo_train", "full_bound"):
        assert long.scores[name].value > short.scores[name].value + 5
    assert long.scores["kl_theta"].value < short.scores["kl_theta"].value
    assert long.scores["full_bound"].value < long.scores["map_elbo_train"].value
