"""Hierarchies: the ladder's algebra, bounds against quadrature and a plain model, free bits, warm-up, a run killed."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal

from lib import datasets
from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.losses.elbo import kl_to_standard_normal
from lib.models.gaussian_vae import Gaussian
from lib.training.randomness import Streams, generator
from replications.vae2013 import hierarchies as module
from replications.vae2013.hierarchies import (
    HierarchiesConfig,
    Measures,
    Minibatches,
    estimates,
    evaluation_steps,
    hierarchies,
    kl_weight,
    noise_like,
    objective,
    presets,
    scores,
    settle_,
    variances,
)
from replications.vae2013.ladder import Hierarchy, Norm, Passed, combined, log_ratio

TINY = HierarchiesConfig("mnist-5k", (4, 3, 2), (6, 5, 4), n_steps=8, n_models=2, n_layers=2, batch=10,
                         learning_rate=1e-2, n_importance=4, n_train_draws=2, n_train_images=20)  # fmt: skip


def config_of(**settings):
    return dataclasses.replace(TINY, **settings)


def binary(*shape, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def model_of(config, n_pixels=7, spread=1.5):
    """A model whose weights are large enough for the layers to say something."""
    model = Hierarchy(config, n_pixels, generator(0, "init"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(spread)
    return model.double()


def noise_of(model, x, draws, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape[0], draws * x.shape[1], sum(model.widths), generator=rng, dtype=torch.float64)


# --- the ladder and the two ways of inference ---------------------------------------------------------------------


def test_combined_is_the_normalised_product_of_densities():
    upward = Gaussian(torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0]))
    prior = Gaussian(torch.tensor([0.2, 3.0]), torch.tensor([-0.3, 0.8]))
    z = torch.linspace(-12, 12, 4001)[:, None]
    product = [Normal(m, (0.5 * v).exp()).log_prob(z).double() for m, v in (upward, prior)]
    density = (product[0] + product[1]).exp()
    density = density / density.sum(0)
    mean = (density * z).sum(0)
    variance = (density * (z - mean).square()).sum(0)
    q = combined(upward, prior)
    assert q.mean.tolist() == pytest.approx(mean.tolist(), abs=1e-4)
    assert q.logvar.exp().tolist() == pytest.approx(variance.tolist(), rel=1e-3)


def test_combined_is_the_prior_where_the_image_says_nothing():
    prior = Gaussian(torch.tensor([0.7]), torch.tensor([-1.2]))
    q = combined(Gaussian(torch.tensor([5.0]), torch.tensor([60.0])), prior)
    assert (q.mean.item(), q.logvar.item()) == pytest.approx((0.7, -1.2))


def test_log_ratio_is_torchs_and_averages_to_appendix_b():
    q, p = (Gaussian(torch.tensor([m]), torch.tensor([v])) for m, v in ((0.5, -0.4), (-1.0, 0.7)))
    noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    z = q.sample(noise)
    expected = [Normal(g.mean, (0.5 * g.logvar).exp()).log_prob(z) for g in (q, p)]
    torch.testing.assert_close(log_ratio(q, p, z, noise), expected[0] - expected[1], rtol=0, atol=1e-5)
    standard = Gaussian(torch.zeros(1), torch.zeros(1))
    mean = log_ratio(q, standard, z, noise).mean().item()
    assert mean == pytest.approx(kl_to_standard_normal(*(part[None] for part in q)).item(), abs=0.01)


def alone(sequence, r):
    """Network r of a batched one as plain PyTorch layers; batch norm with the statistics that it keeps."""
    layers = []
    for layer in sequence if isinstance(sequence, nn.Sequential) else [sequence]:
        if isinstance(layer, nn.LeakyReLU):
            layers.append(layer)
        elif isinstance(layer, Norm):
            n = len(layer.mean) // TINY.n_models
            plain, part = nn.BatchNorm1d(n).double().eval(), slice(r * n, (r + 1) * n)
            for name, value in (("weight", layer.scale), ("bias", layer.shift), ("running_mean", layer.mean),
                                ("running_var", layer.variance)):  # fmt: skip
                getattr(plain, name).data.copy_(value[part])
            layers.append(plain)
        else:
            plain = nn.Linear(*layer.weight.shape[1:]).double()
            plain.weight.data.copy_(layer.weight[r].T)
            plain.bias.data.copy_(layer.bias[r, 0])
            layers.append(plain)
    return nn.Sequential(*layers)


def head(sequence, out, r, h):
    mean, logvar = alone(out, r)(alone(sequence, r)(h)).chunk(2, -1)
    return Normal(mean, (0.5 * logvar).exp())


def plainly(model, r, x, noise):
    """log p(x|z_1) and each layer's log q - log p for one model, one draw an image, written layer by layer."""
    parts = noise.split(model.widths, -1)
    if not model.ladder:
        q, z = [], [x]
        for level, part in enumerate(parts):
            q.append(head(model.up[level], model.up_out[level], r, z[-1]))
            z.append(q[-1].mean + q[-1].stddev * part)
        z = z[1:]
        p = [head(model.down[level], model.down_out[level], r, z[level]) for level in (1, 2)]
        p.append(Normal(0.0, 1.0))
    else:
        h, upward = x, []
        for level in range(3):
            h = alone(model.up[level], r)(h)
            mean, logvar = alone(model.up_out[level], r)(h).chunk(2, -1)
            upward.append(Normal(mean, (0.5 * logvar).exp()))
        q, p, z = [None, None, upward[2]], [None, None, Normal(0.0, 1.0)], [None, None, None]
        z[2] = q[2].mean + q[2].stddev * parts[2]
        for level in (1, 0):
            p[level] = head(model.down[level + 1], model.down_out[level + 1], r, z[level + 1])
            a, b = upward[level].variance.reciprocal(), p[level].variance.reciprocal()
            q[level] = Normal((upward[level].mean * a + p[level].mean * b) / (a + b), (a + b).rsqrt())
            z[level] = q[level].mean + q[level].stddev * parts[level]
    logits = alone(model.down_out[0], r)(alone(model.down[0], r)(z[0]))
    ratios = [qq.log_prob(zz) - pp.log_prob(zz) for qq, pp, zz in zip(q, p, z, strict=True)]
    return Bernoulli(logits=logits).log_prob(x).sum(-1), ratios, [each.mean for each in q]


@pytest.mark.parametrize("ladder", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_each_model_is_the_plain_one_alone(ladder, batch_norm):
    model = model_of(config_of(ladder=ladder, batch_norm=batch_norm))
    x = binary(2, 5, 7).double()
    model(binary(2, 40, 7, seed=3).double(), noise_of(model, binary(2, 40, 7), 1, seed=4))  # statistics to keep
    model.eval()
    noise = noise_of(model, x, 3)
    passed = model(x, noise)
    for r in range(2):
        for s in range(3):
            rows = slice(5 * s, 5 * s + 5)
            log_likelihood, ratios, means = plainly(model, r, x[r], noise[r, rows])
            found = Bernoulli(logits=passed.logits[r, rows]).log_prob(x[r]).sum(-1)
            torch.testing.assert_close(found, log_likelihood, rtol=0, atol=1e-9)
            for level in range(3):
                torch.testing.assert_close(passed.kl[level][r, rows], ratios[level], rtol=0, atol=1e-9)
                torch.testing.assert_close(passed.means[level][r, rows], means[level], rtol=0, atol=1e-9)


def test_widths_must_agree():
    with pytest.raises(ValueError, match="2 widths for 3 stochastic layers"):
        Hierarchy(config_of(n_hidden=(6, 5)), 7, generator(0, "init"))


def test_in_evaluation_an_image_does_not_depend_on_the_others():
    model = model_of(config_of(batch_norm=True))
    x = binary(2, 30, 7).double()
    model(x, noise_of(model, x, 1))
    model.eval()
    noise = noise_of(model, x, 1, seed=5)
    torch.testing.assert_close(model(x[:, :3], noise[:, :3]).logits, model(x, noise).logits[:, :3], rtol=0, atol=1e-12)


def test_settling_takes_the_statistics_of_the_training_images():
    config = config_of(batch_norm=True)
    model = Hierarchy(config, 12, generator(0, "init"))
    images = (255 * binary(50, 12)).to(torch.uint8)
    settle_(model, images, Streams(0))
    first = model.up[0]
    before = first[0](images.float().div(255).expand(2, -1, -1))  # 0 and 255 are binarised as they are
    assert not model.training
    assert first[1].mean.tolist() == pytest.approx(before.mean(1).flatten().tolist(), abs=1e-5)
    assert first[1].variance.tolist() == pytest.approx(before.var(1).flatten().tolist(), rel=1e-4)


# --- objective ----------------------------------------------------------------------------------------------------


def made_up(kl):
    """x and a pass of one-pixel images with log p(x|z) = -log 2, and divergences kl[layer][model] of two units."""
    units = tuple(torch.tensor(row)[:, None, None].expand(-1, 4, 2) / 2 for row in kl)
    return Passed(torch.zeros(2, 4, 1), units, ()), torch.ones(2, 4, 1)


@pytest.mark.parametrize(
    ("weight", "free", "cost"), [(1.0, 0.0, 3.5), (0.5, 0.0, 1.75), (1.0, 1.0, 5.0), (1.0, 0.4, 3.9), (0.5, 1.0, 2.5)]
)
def test_what_the_layers_cost(weight, free, cost):
    """Layers cost 2 and 1 nats in the first model, 0 and .5 in the second; free bits are of each layer and model."""
    passed, x = made_up([[2.0, 0.0], [1.0, 0.5]])
    value = objective(passed, x, torch.tensor(weight), free)
    assert value.item() == pytest.approx(-2 * math.log(2) - cost)


def test_without_free_bits_a_negative_divergence_counts():
    """One draw's estimate of a lower layer's divergence may be below zero; cutting it off would break the bound."""
    passed, x = made_up([[2.0, -1.0], [1.0, 0.5]])
    assert objective(passed, x, torch.tensor(1.0), 0.0).item() == pytest.approx(-2 * math.log(2) - 2.5)


def test_warm_up_rises_to_one():
    config = config_of(n_steps=100, warm_up=0.2)
    assert [kl_weight(config, step) for step in (0, 5, 10, 20, 99)] == pytest.approx([0, 0.25, 0.5, 1, 1])
    assert kl_weight(config_of(n_steps=100), 0) == 1


def test_the_curve_has_its_points_and_the_end():
    assert evaluation_steps(100) == {1, *range(5, 101, 5)}
    assert evaluation_steps(3) == {1, 2, 3}


def test_each_model_sees_all_images_in_an_order_of_its_own():
    images = torch.eye(40, dtype=torch.uint8) * 255  # image i has one bright pixel, i, so that binarising keeps it
    minibatches = Minibatches(images, 2, 10, Streams(0))
    seen = torch.stack([minibatches(step).argmax(-1) for step in range(4)])  # (4, R, B)
    for r in range(2):
        assert sorted(seen[:, r].flatten().tolist()) == list(range(40))
    assert not torch.equal(seen[:, 0], seen[:, 1])


# --- measures -----------------------------------------------------------------------------------------------------


def one_layer():
    """R = 2 models of one layer of one unit, of which the decoder says more: log p(x) by quadrature is easy."""
    model = model_of(config_of(n_latent=(1,), n_hidden=(5,)), n_pixels=6, spread=1.0).float()
    with torch.no_grad():
        for parameter in (*model.down.parameters(), *model.down_out.parameters()):
            parameter.mul_(2)
    return model


def test_bounds_of_one_layer_against_quadrature():
    model, x = one_layer(), binary(3, 6)
    grid = torch.linspace(-8, 8, 2001)
    logits = model.down_out[0](model.down[0](grid[None, :, None].expand(2, -1, -1)))  # (R, G, D)
    log_joint = Bernoulli(logits=logits[:, None]).log_prob(x[:, None]).sum(-1) + Normal(0.0, 1.0).log_prob(grid)
    exact = torch.logsumexp(log_joint.double() + math.log(16 / 2000), -1)  # (R, N)
    found = estimates(model, x, 20_000, torch.Generator().manual_seed(0))
    assert found.iwae.flatten().tolist() == pytest.approx(exact.flatten().tolist(), abs=0.02)
    mean, logvar = model.up_out[0](model.up[0](x.expand(2, -1, -1))).chunk(2, -1)
    kl = kl_to_standard_normal(mean, logvar)
    q = Normal(mean, (0.5 * logvar).exp()).log_prob(grid).exp()  # (R, N, G)
    reconstruction = (q * (log_joint - Normal(0.0, 1.0).log_prob(grid))).sum(-1) * 16 / 2000
    assert found.elbo.flatten().tolist() == pytest.approx((reconstruction - kl).flatten().tolist(), abs=0.03)
    assert found.kl[..., 0].flatten().tolist() == pytest.approx(kl.flatten().tolist(), abs=0.02)
    assert (found.iwae > found.elbo).all()
    torch.testing.assert_close(found.means[0], mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ladder", [False, True])
def test_both_ways_of_inference_find_the_same_likelihood(ladder):
    """Three layers: the bound of many draws is log p(x) by plain sampling of the prior, whichever q proposed."""
    model, x = model_of(config_of(ladder=ladder), spread=1.2).float(), binary(2, 7)
    with torch.no_grad():
        for parameter in (*model.up.parameters(), *model.up_out.parameters()):
            parameter.mul_(0.4)
        for out in model.up_out:  # wide proposals: narrower ones than the posterior give weights of infinite variance
            out.bias.chunk(2, -1)[1].add_(2.0 if ladder else 0.5)
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(2, 100_000, 2, generator=rng)
    with torch.no_grad():
        for level in (1, 0):
            p = model.prior(level, z)
            z = p.sample(torch.randn(p.mean.shape, generator=rng))
        logits = model.down_out[0](model.down[0](z))
    log_likelihood = Bernoulli(logits=logits[:, None]).log_prob(x[None, :, None]).sum(-1).double()
    exact = log_likelihood.logsumexp(-1) - math.log(100_000)
    found = estimates(model, x, 40_000, rng)
    assert found.iwae.flatten().tolist() == pytest.approx(exact.flatten().tolist(), abs=0.03)


def test_blocks_do_not_matter_for_the_mean(monkeypatch):
    model, x = one_layer(), binary(4, 6)
    whole = estimates(model, x, 10_000, torch.Generator().manual_seed(0))
    monkeypatch.setattr(module, "_ALIVE", 1)
    parts = estimates(model, x, 10_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(whole.elbo, parts.elbo, rtol=0, atol=0.1)
    torch.testing.assert_close(whole.means, parts.means)
    with pytest.raises(ValueError, match="even"):
        estimates(model, x, 3, torch.Generator())


def test_variances_have_no_part_of_the_draws():
    """Means over images have variance .25; the halves' own noise, of variance 1, must not count."""
    rng = torch.Generator().manual_seed(0)
    true = 0.5 * torch.randn(1, 3, 20_000, 1, generator=rng)
    noisy = true + torch.randn(2, 3, 20_000, 1, generator=rng) + 7
    assert variances(noisy).flatten().tolist() == pytest.approx(3 * [0.25], abs=0.04)
    exact = true.expand(2, -1, -1, -1)
    torch.testing.assert_close(variances(exact), true[0].double().var(1), rtol=0, atol=1e-9)


def test_scores_of_known_measures():
    two = torch.tensor
    found = Measures(
        elbo_test=two([-10.0, -12.0]), iwae_test=two([-9.0, -9.0]), elbo_train=two([-8.0, -8.0]),
        kl=two([[3.0, 1.0, 0.5], [5.0, 0.2, 0.6]]), units_kl=two([[4.0, 2, 1], [3, 1, 1]]),
        units_variance=two([[4.0, 3, 2], [4, 3, 0]]),
    )  # fmt: skip
    named = scores(found, TINY, datasets.load("mnist-5k"))
    expected = {
        "elbo_test": -11, "kl_test": 5.15, "kl_least": 0.35, "kl_1": 4, "kl_3": 0.55, "units_kl": 6, "units_kl_2": 1.5,
        "units_kl_upper": 1, "units_variance": 8, "units_variance_upper": 1, "units_variance_1": 4,
    }  # fmt: skip
    for name, value in expected.items():
        assert named[name].value == pytest.approx(value), name
    assert named["elbo_test"].stderr == pytest.approx(1)
    assert (named["kl_1"].n, named["kl_1"].protocol["averaged_over"]) == (2, "models")


# --- a run --------------------------------------------------------------------------------------------------------


def stopped_at(workspace, step):
    """The workspace, out of time after that step."""
    keep = workspace.keep

    def keep_and_stop(state, total, **parts):
        workspace.deadline = 0.0 if state["step"] == step else None
        keep(state, total, **parts)

    workspace.keep = keep_and_stop
    return workspace


@pytest.mark.parametrize("settings", [{"free_bits": 1.0}, {"ladder": True, "batch_norm": True, "warm_up": 0.5}])
def test_a_run_repeats_its_bits_after_a_kill(tmp_path, settings):
    config = config_of(**settings)
    with deterministic("cpu"):
        whole = hierarchies(config, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        with pytest.raises(OutOfTime):
            hierarchies(config, stopped_at(Workspace(tmp_path / "killed", 0), 5))
        resumed = Workspace(tmp_path / "killed", 0)
        again = hierarchies(config, resumed)
    assert resumed.resumed_at == [5]
    assert whole.history == again.history
    assert all(torch.equal(whole.weights[name], again.weights[name]) for name in whole.weights)
    assert {name: score.value for name, score in whole.scores.items()} == {
        name: score.value for name, score in again.scores.items()
    }
    assert whole.facts["parameters"] * 2 == sum(
        tensor.numel() for name, tensor in whole.weights.items() if not name.endswith((".mean", ".variance"))
    )


def test_every_step_has_noise_of_its_own(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "noise_like", lambda *given: seen.append(noise_like(*given)) or seen[-1])
    hierarchies(TINY, Workspace(tmp_path, 0))
    assert len({noise[0, 0, 0].item() for noise in seen[: TINY.n_steps]}) == TINY.n_steps


def test_training_raises_the_bound_and_settles_batch_norm(tmp_path):
    config = config_of(n_latent=(6, 3), n_hidden=(16, 8), n_steps=80, batch=50, batch_norm=True, n_layers=1)
    with deterministic("cpu"):
        outcome = hierarchies(config, Workspace(tmp_path, 0))
    assert outcome.history[0]["elbo"] < -500
    assert -260 < outcome.history[-1]["elbo"] < -150  # independent pixels have -206, see the fact sheet
    assert outcome.scores["elbo_test"].value == pytest.approx(outcome.history[-1]["elbo"], abs=25)
    assert outcome.scores["iwae_test"].value > outcome.scores["elbo_test"].value


def test_noise_is_for_each_draw_and_model():
    noise = noise_like(torch.zeros(2, 5, 3), 4, 3, torch.Generator().manual_seed(0))
    assert noise.shape == (2, 15, 4)
    assert noise.unique().numel() == noise.numel()


def test_presets_have_both_depths_of_each_variant():
    for experiments in presets().values():
        assert len(experiments) == 12
        assert {len(config.n_latent) for config in experiments.values()} == {2, 5}
        ladder = experiments["hierarchy-5-ladder"]
        assert (ladder.ladder, ladder.batch_norm) == (True, True)
        assert ladder.warm_up > 0
