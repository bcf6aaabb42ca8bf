"""Gradient estimators beside quadrature, plain automatic differentiation and laws made by hand; a run, resumed."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from lib import datasets
from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.losses.elbo import bernoulli_log_likelihood
from lib.models.gaussian_vae import BernoulliVAE
from lib.results import Score
from lib.training.randomness import Streams, generator
from replications.vae2013 import gradients as module
from replications.vae2013.gradients import (
    GradientsConfig,
    ReparametrisationConfig,
    bound_variances,
    estimates,
    gradients,
    mean_square,
    noise_variance,
    reparametrisation,
    square_gradients,
    step_truth,
    total_variance,
    true_variances,
)

TINY = GradientsConfig("mnist-5k", n_hidden=6, n_latent=2, n_samples=800, images=(1, 4), draws=(1, 2),
                       n_repeats=(5, 4), n_bounds=3, n_images=20)  # fmt: skip


# --- closed forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2])
def test_variances_agree_with_quadrature(d):
    """Gauss-Hermite with 12 nodes a dimension is exact for these polynomials."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(*d * [nodes], indexing="ij"), -1).reshape(-1, d)
    mass = np.stack(np.meshgrid(*d * [weights], indexing="ij"), -1).reshape(-1, d).prod(1)
    square, score = ((1 + grid) ** 2).sum(1), grid[:, 0]
    made = {"reparametrised": 2 * (1 + score), "score": square * score, "baseline": (square - 2 * d) * score}
    for name, values in made.items():
        assert mass @ values == pytest.approx(2)
        assert mass @ values**2 - 4 == pytest.approx(true_variances(d)[name])


def test_the_lectures_numbers():
    assert [true_variances(d)["score"] for d in (1, 10, 100)] == [30, 552, 41412]
    assert [true_variances(d)["baseline"] for d in (1, 10, 100)] == [18, 72, 612]


def test_sampled_gradients_have_the_mean_and_the_variance():
    for name, values in square_gradients(3, 200_000, generator(0, "squares")).items():
        off = (values - values.mean()).square()
        assert values.mean().item() == pytest.approx(2, abs=5 * values.std().item() / 447)
        assert off.mean().item() == pytest.approx(true_variances(3)[name], abs=5 * off.std().item() / 447)


def test_the_steps_derivative_is_the_density():
    for mean in (-1.0, 0.5):
        slope = (norm.cdf(mean + 1e-5) - norm.cdf(mean - 1e-5)) / 2e-5
        assert step_truth(mean) == pytest.approx(slope, rel=1e-8)


def test_reparametrisation_fails_on_the_step_and_the_score_function_does_not(tmp_path):
    config = ReparametrisationConfig(n_recipes=500, n_draws=50_000, dimensions=(1, 4))
    outcome = reparametrisation(config, Workspace(tmp_path, 0))
    assert outcome.scores["step_pathwise"].value == 0
    score = outcome.scores["step_score"]
    assert score.value == pytest.approx(0.352065, abs=4 * score.stderr)
    assert score.stderr == pytest.approx(math.sqrt(0.39148 / 50_000), rel=0.02)  # Phi - mu phi - phi^2 by hand
    soft = [row for row in outcome.facts["step"] if row["estimator"] == "reparametrised"]
    assert [row["temperature"] for row in soft] == list(config.temperatures)
    # A sharp sigmoid's slope squared integrates to 1 / (6 temperature).
    assert soft[-1]["variance"] == pytest.approx(0.352065 / (6 * 0.01), rel=0.1)
    assert soft[0]["mean"] < 0.25
    for d in (1, 4):
        for name, truth in true_variances(d).items():
            found = outcome.scores[f"variance_{name}_d{d}"]
            assert found.value == pytest.approx(truth, abs=5 * found.stderr)


# --- estimators A and B ------------------------------------------------------------------------------------------


def small_model():
    torch.manual_seed(0)
    model = BernoulliVAE(9, 5, 2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def plain_bound(model, x, noise, which):
    """Equations 6 and 7 with torch's own distributions: x (M, D), noise (L, M, Z) -> ()."""
    h = torch.tanh(model.encoder_in(x))
    mean, logvar = model.encoder_out(h).chunk(2, -1)
    q, prior = torch.distributions.Normal(mean, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    z = mean + (0.5 * logvar).exp() * noise
    likelihood = torch.distributions.Bernoulli(logits=model.logits(z), validate_args=False).log_prob(x).sum(-1)
    if which == "a":
        return (likelihood + (prior.log_prob(z) - q.log_prob(z)).sum(-1)).mean()
    return likelihood.mean() - torch.distributions.kl_divergence(q, prior).sum(-1).mean()


@pytest.mark.parametrize("which", ["a", "b"])
def test_each_minibatch_has_the_bound_and_gradient_it_would_have_alone(which):
    model = small_model()
    x, noise = (torch.rand(3, 4, 9) > 0.5).float(), torch.randn(2, 3, 4, 2)
    found = estimates(model, x, noise)
    encoder = [parameter for name, parameter in model.named_parameters() if name.startswith("encoder")]
    for r in range(3):
        bound = plain_bound(model, x[r], noise[:, r], which)
        alone = torch.cat([g.flatten() for g in torch.autograd.grad(bound, encoder)])
        assert getattr(found, f"bound_{which}")[r].item() == pytest.approx(bound.item(), rel=1e-5)
        torch.testing.assert_close(getattr(found, f"gradient_{which}")[r], alone, rtol=1e-4, atol=1e-5)


def test_variances_of_vectors_made_by_hand():
    g = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    assert total_variance(g, {}).value == pytest.approx(20 / 3)  # (1 + 1 + 9 + 9) / (4 - 1), mean 0
    assert noise_variance(g, -g, {}).value == pytest.approx(10)  # half of |2 g|^2, mean over rows
    assert mean_square(g[:3] + 1, {}).value == pytest.approx((1 + 6 + 4) / 3)  # (2,1).(0,1), (2,1).(1,4), (0,1).(1,4)


def test_variances_of_gaussian_vectors():
    torch.manual_seed(0)
    sd, mean = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.3, 0.0, -0.2])
    first, second = (mean + sd * torch.randn(4000, 3) for _ in range(2))
    assert total_variance(first, {}).value == pytest.approx(5.25, rel=0.06)
    assert noise_variance(first, second, {}).value == pytest.approx(5.25, rel=0.06)
    assert mean_square(first, {}).value == pytest.approx(0.13, abs=0.03)
    null = mean_square(first[:300] - second[:300], {})
    assert abs(null.value) < 4 * null.stderr


def test_slopes_and_ratio_of_a_planted_law():
    scores = {
        f"s_{key}_{name}_m{m}_l{n}": Score(scale * m**-1.0 * n**slope, 0.0, "", False, 1, {})
        for key, slope in (("variance", -0.5), ("noise", -1.0))
        for name, scale in (("a", 6.0), ("b", 2.0)) for m in TINY.images for n in TINY.draws
    }  # fmt: skip
    found = module._laws(scores, TINY, "s")
    slopes = [found[f"s_{key}_slope_{of}"].value for key in ("variance", "noise") for of in ("images", "draws")]
    assert slopes == pytest.approx([-1, -0.5, -1, -1])
    assert found["s_gradient_ratio"].value == pytest.approx(3)
    scores["s_noise_a_m4_l2"] = scores["s_noise_a_m4_l2"]._replace(value=6.0)  # M L times it: 48, where the law has 6
    assert module._laws(scores, TINY, "s")["s_gradient_ratio"].value == pytest.approx((3 * 6 + 48) / (4 * 2))


def test_variance_of_the_bound_where_it_is_known():
    """q = N(1, I) and a decoder that ignores z: log p(z) - log q(z) = 1/2 - z, of variance 1 a latent."""
    model = BernoulliVAE(784, 6, 2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        model.encoder_out.bias[:2] = 1
        model.decoder_out.bias[:] = 1
    images = torch.zeros(400, 784, dtype=torch.uint8)
    images[:200] = 255  # of another likelihood, but of the same for every z
    found = bound_variances(model, images, dataclasses.replace(TINY, n_bounds=50), Streams(0), "s")
    assert found["s_bound_a"].value == pytest.approx(2, rel=0.05)
    assert found["s_bound_b"].value == pytest.approx(0, abs=1e-4)
    assert found["s_bound_ratio"].value > 1e4


def test_two_sets_of_noise_share_their_images_and_no_two_minibatches_do(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "MAX_DECODED", 16)  # blocks of two minibatches
    monkeypatch.setattr(
        module, "estimates", lambda model, x, noise: seen.append((x, noise)) or module.Estimates(*4 * [x])
    )
    images = datasets.load("mnist-5k").split("train")[0].flatten(1)
    module._repeated(BernoulliVAE(784, 6, 2), images, 4, 2, TINY, Streams(0), "s")
    assert [x.shape[0] for x, _ in seen] == [2, 2, 2, 2]
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][1], seen[1][1])
    assert not torch.equal(seen[0][0], seen[2][0])
    assert not torch.equal(seen[0][0][0], seen[0][0][1])


# --- a run -------------------------------------------------------------------------------------------------------


def stopped_at(workspace, step):
    """The workspace, out of time after that step."""
    keep = workspace.keep

    def keep_and_stop(state, total, **parts):
        workspace.deadline = 0.0 if state["step"] == step else None
        keep(state, total, **parts)

    workspace.keep = keep_and_stop
    return workspace


def test_a_run_has_its_scores_and_repeats_its_bits_after_a_kill(tmp_path):
    data = datasets.load("mnist-5k")
    with deterministic("cpu"):
        whole = gradients(TINY, data, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        with pytest.raises(OutOfTime):
            gradients(TINY, data, stopped_at(Workspace(tmp_path / "killed", 0), 5))
        resumed = Workspace(tmp_path / "killed", 0)
        again = gradients(TINY, data, resumed)
    assert resumed.resumed_at == [5]
    assert whole.scores == again.scores
    assert whole.history == again.history
    assert all(torch.equal(each, again.weights[name]) for name, each in whole.weights.items())
    assert whole.weights["encoder_in.weight"].shape == (6, 784)
    for stage in ("start", "trained"):
        assert [(row["images"], row["draws"]) for row in whole.facts[stage]] == [(1, 1), (1, 2), (4, 1), (4, 2)]
        assert whole.facts[stage][2]["noise_b"] == whole.scores[f"{stage}_noise_b_m4_l1"].value
    assert whole.scores["start_bound_b"] != whole.scores["trained_bound_b"]
    score = whole.scores["trained_gradient_difference"]
    assert score.n == 6  # pairs of the four minibatches
    assert score.protocol["images"] == 4


def test_likelihoods_broadcast_over_minibatches():
    """What `estimates` relies on: (R, M, D) against (L, R, M, D)."""
    x, logits = (torch.rand(3, 4, 9) > 0.5).float(), torch.randn(2, 3, 4, 9)
    expected = torch.stack([torch.stack([bernoulli_log_likelihood(x[r], logits[i, r]) for r in range(3)])
                            for i in range(2)])  # fmt: skip
    torch.testing.assert_close(bernoulli_log_likelihood(x, logits), expected)
