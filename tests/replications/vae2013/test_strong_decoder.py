"""Strong decoders: what a pixel may see, probabilities that add up to 1, bounds, samples, and a run killed."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

from lib import datasets
from lib.execution.execute import deterministic
from lib.execution.workspace import OutOfTime, Workspace
from lib.models.gaussian_vae import Gaussian
from lib.training.randomness import Streams, generator
from replications.vae2013 import strong_decoder as module
from replications.vae2013.strong_decoder import (
    DECODERS,
    DigitModel,
    StrongDecoderConfig,
    causal_window,
    evaluate,
    explained,
    kl_of_units,
    objective,
    pooled,
    presets,
    sampled,
    samples_of_codes,
    scores,
    strong_decoder,
)

TINY = StrongDecoderConfig("mnist-5k", "strong", n_steps=8, n_models=2, n_latent=2, n_hidden=6, n_channels=5, reach=2,
                           batch=20, n_draws=3, n_codes=2, n_repeats=3, n_spread_codes=4)  # fmt: skip


def config_of(decoder="strong", **settings):
    return dataclasses.replace(TINY, decoder=decoder, **settings)


def model_of(config, n_pixels=9, spread=2.0):
    """A model with large weights, biases of places included, so that everything that may matter does."""
    model = DigitModel(config, n_pixels, generator(0, "init"))
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(spread).add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return model


def binary(*shape, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


# --- what a pixel sees --------------------------------------------------------------------------------------------


def test_a_window_by_hand():
    """3 x 3 places, one row and one column around: upper left, above, upper right, left; 9 is outside."""
    window = causal_window(3, 1)
    assert window[0].tolist() == [9, 9, 9, 9]
    assert window[4].tolist() == [0, 1, 2, 3]
    assert window[5].tolist() == [1, 2, 9, 4]
    assert window[6].tolist() == [9, 3, 4, 9]
    assert causal_window(14, 4).shape == (196, 2 * 4 * 5)


@pytest.mark.parametrize("decoder", ["none", "strong"])
def test_a_pixel_sees_those_before_it_in_its_window_and_no_others(decoder):
    model = model_of(config_of(decoder, n_models=1), n_pixels=25)
    x, z = binary(1, 1, 25), None if decoder == "none" else torch.ones(1, 1, 2)
    before = model.decoder(x, z)
    for pixel in range(25):
        turned = x.clone()
        turned[..., pixel] = 1 - turned[..., pixel]
        moved = {place for place in range(25) if before[0, 0, place] != model.decoder(turned, z)[0, 0, place]}
        y, column = divmod(pixel, 5)
        later = {
            (yy, xx) for yy in range(y, min(5, y + 3)) for xx in range(max(0, column - 2), min(5, column + 3))
            if (yy, xx) > (y, column)
        }  # fmt: skip
        assert moved <= {5 * yy + xx for yy, xx in later}
        assert len(moved) >= 0.6 * len(later)  # a ReLU may sleep


@pytest.mark.parametrize("decoder", DECODERS)
def test_probabilities_of_all_images_add_up_to_one(decoder):
    model = model_of(config_of(decoder))
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).expand(2, -1, -1)
    z = None if decoder == "none" else torch.tensor([0.5, -1.0]).expand(2, 512, 2)
    total = model.log_likelihood(x, z).double().logsumexp(1)
    assert total.tolist() == pytest.approx([0, 0], abs=1e-4)


def test_draws_of_an_image_stand_in_turn_and_places_are_a_part():
    for decoder in ("strong", "weak"):
        model, x = model_of(config_of(decoder)), binary(2, 3, 9)
        z = torch.randn(2, 12, 2, generator=torch.Generator().manual_seed(0))
        whole = model.decoder(x, z)
        for s in range(4):
            torch.testing.assert_close(whole[:, 3 * s : 3 * s + 3], model.decoder(x, z[:, 3 * s : 3 * s + 3]))
        torch.testing.assert_close(model.decoder(x, z, slice(4, 6)), whole[..., 4:6])


def test_a_pixels_logit_is_one_network_of_its_window_its_place_and_z():
    model = model_of(config_of(), n_pixels=16)
    x, z, d = binary(2, 1, 16), torch.tensor([[[0.5, -1.0]], [[2.0, 0.3]]]), model.decoder
    with torch.no_grad():
        found = d(x, z)
        for r, pixel in itertools.product(range(2), range(16)):
            seen = torch.cat([x[r, 0], torch.zeros(1)])[causal_window(4, 2)[pixel]]
            h = seen @ d.of_window.weight[r] + d.of_window.bias[r, 0] + d.place[r, 0, pixel]
            h = torch.relu(h + z[r, 0] @ d.of_z.weight[r] + d.of_z.bias[r, 0])
            h = torch.relu(h @ d.middle.weight[r] + d.middle.bias[r, 0])
            logit = h @ d.out.weight[r, :, 0] + d.out.bias[r, 0, 0] + d.place_out[r, 0, pixel]
            assert found[r, 0, pixel].item() == pytest.approx(logit.item(), abs=1e-4)


def test_models_side_by_side_do_not_meet():
    model, x, z = model_of(config_of()), binary(2, 3, 9), torch.ones(2, 3, 2)
    other = x.clone()
    other[1] = 1 - other[1]
    assert torch.equal(model.decoder(x, z)[0], model.decoder(other, z)[0])
    assert not torch.equal(model.decoder(x, z)[1], model.decoder(other, z)[1])


def test_unknown_decoders_are_refused():
    with pytest.raises(ValueError, match="'strange': there are"):
        model_of(config_of("strange"))


# --- objective and measures ---------------------------------------------------------------------------------------


def test_kl_of_units_is_torchs():
    q = Gaussian(torch.tensor([[[0.5, -1.0]]]), torch.tensor([[[0.3, -2.0]]]))
    expected = kl_divergence(Normal(q.mean, (0.5 * q.logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_of_units(q), expected)


@pytest.mark.parametrize("free", [0.0, 1000.0])
def test_the_objective_is_the_bound_or_what_free_bits_leave_of_it(free):
    model, x, noise = model_of(config_of()), binary(2, 4, 9), torch.zeros(2, 4, 2)
    q = model.posterior(x)
    log_likelihood = Bernoulli(logits=model.decoder(x, q.mean)).log_prob(x).sum(-1).mean(1)
    kl = kl_divergence(Normal(q.mean, (0.5 * q.logvar).exp()), Normal(0.0, 1.0)).sum(-1).mean(1)
    value, found, cost = objective(model, x, noise, free)
    torch.testing.assert_close((found, cost), (log_likelihood, kl))
    assert value.item() == pytest.approx((log_likelihood - kl.clamp_min(free)).sum().item(), rel=1e-5)
    if free:
        torch.testing.assert_close(value, (log_likelihood - free).sum())


def test_without_z_the_objective_is_the_exact_likelihood():
    model, x = model_of(config_of("none")), binary(2, 4, 9)
    value, _, kl = objective(model, x, torch.zeros(2, 4, 2), 5.0)
    expected = Bernoulli(logits=model.decoder(x, None)).log_prob(x).sum(-1).mean(1).sum()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert kl.tolist() == [0, 0]


@pytest.mark.parametrize("decoder", ["strong", "weak"])
def test_measures_against_quadrature_over_z(decoder):
    config = config_of(decoder, n_latent=1, n_draws=40_000)
    model, x = model_of(config, spread=1.0), binary(3, 9)
    grid = torch.linspace(-7, 7, 1401)
    shown = x.expand(2, -1, -1)
    with torch.no_grad():
        z = grid.repeat_interleave(3)[None, :, None].expand(2, -1, -1)  # (R, G N, 1): the images in turn
        of_x = model.log_likelihood(shown, z).unflatten(1, (-1, 3)).double()  # (R, G, N)
        q = model.posterior(shown)
    prior = Normal(0.0, 1.0).log_prob(grid).double()[:, None]
    density = Normal(q.mean[..., 0], (0.5 * q.logvar[..., 0]).exp()).log_prob(grid[:, None, None]).exp()  # (G, R, N)
    exact = (of_x + prior + math.log(0.01)).logsumexp(1).mean(1)
    of_q, of_prior = (density.transpose(0, 1) * of_x).sum(1) * 0.01, (prior.exp() * of_x).sum(1) * 0.01
    kl = kl_divergence(Normal(q.mean, (0.5 * q.logvar).exp()), Normal(0.0, 1.0)).sum(-1).mean(1)
    found = evaluate(model, x, config, Streams(0))
    expected = {"iwae": exact, "elbo": of_q.mean(1) - kl, "prior_z": of_prior.mean(1), "kl": kl,
                "used": (of_q - of_prior).mean(1)}  # fmt: skip
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values.tolist(), abs=0.03), name
    assert found["units_kl"].tolist() == (kl > 0.01).double().tolist()
    variance = q.mean[..., 0].var(1)
    assert found["units_variance"].tolist() == (variance > 0.01).double().tolist()


def test_without_z_every_bound_is_the_likelihood():
    model, x = model_of(config_of("none")), binary(5, 9)
    found = evaluate(model, x, TINY, Streams(0))
    exact = Bernoulli(logits=model.decoder(x.expand(2, -1, -1), None)).log_prob(x).sum(-1).mean(1)
    for name in ("elbo", "iwae", "prior_z"):
        assert found[name].tolist() == pytest.approx(exact.tolist(), rel=1e-5)
    assert found["kl"].tolist() == found["used"].tolist() == [0, 0]


@pytest.mark.parametrize("decoder", ["none", "strong", "weak"])
def test_samples_have_the_probabilities_that_the_model_gives(decoder):
    config = config_of(decoder)
    model = model_of(config, n_pixels=4)
    n = 20_000
    z = None if decoder == "none" else torch.tensor([0.5, -1.0]).expand(2, n, 2)
    with torch.no_grad():
        drawn = sampled(model, z, n, torch.Generator().manual_seed(0))
        every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).expand(2, -1, -1)
        probability = model.log_likelihood(every, None if z is None else z[:, :16]).exp()
    number = (drawn @ torch.tensor([8.0, 4, 2, 1])).long()
    for r in range(2):
        share = number[r].bincount(minlength=16) / n
        torch.testing.assert_close(share, probability[r], rtol=0, atol=0.016)


class Given(torch.nn.Module):
    """A decoder whose pixels are 1 with a probability that z's first number sets, or does not."""

    autoregressive, given_z = False, True

    def __init__(self, strength):
        super().__init__()
        self.strength = strength

    def forward(self, x, z, places=slice(None)):
        return (self.strength * z[..., :1].sign()).expand(-1, -1, 9)[..., places]


@pytest.mark.parametrize("strength", [0.0, 1.0, 30.0])
def test_the_share_of_variance_that_z_explains(strength):
    """P(1) is s(a) or 1 - s(a), a coin each: Var(E[x|z]) = (s - 1/2)^2 of 1/4 in all."""
    config = config_of(n_spread_codes=4000)
    model = model_of(config)
    model.decoder = Given(strength)
    share = 4 * (torch.sigmoid(torch.tensor(strength)).item() - 0.5) ** 2
    assert explained(model, config, Streams(0)).tolist() == pytest.approx(2 * [share], abs=0.03)


def test_the_sheet_holds_z_fixed_along_rows():
    config = config_of("weak", n_repeats=3, n_codes=2)
    model, x = model_of(config), binary(60, 9)
    with torch.no_grad():
        model.encoder[-1].weight[..., 2:] = 0
        model.encoder[-1].bias[..., 2:] = -40  # no noise
        code = model.posterior(x.expand(2, -1, -1)).mean[0, :, 0]
        model.encoder[-1].bias[..., 0] -= (
            code.max() + code.min()
        ) / 2  # so that it is above 0 for some, not for others
    model.decoder = Given(50.0)
    x = x[torch.stack([code.argmax(), code.argmin()])]
    sheet = samples_of_codes(model, x, config, Streams(0))
    assert sheet.shape == (2, 4, 9)
    assert torch.equal(sheet[:, 0].float(), x[:2])
    on = (model.posterior(x[:2].expand(2, -1, -1)).mean[0, :, 0] > 0).to(torch.uint8)
    assert on.tolist() == [1, 0]
    assert torch.equal(sheet[:, 1:], on[:, None, None].expand(2, 3, 9))


def test_pooled_is_the_mean_of_squares_of_pixels():
    images = torch.randint(256, (3, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    expected = images.view(3, 14, 2, 14, 2).float().mean((2, 4)).round()
    assert torch.equal(pooled(images, 2).view(3, 14, 14).float(), expected)
    assert torch.equal(pooled(images, 1), images.flatten(1))
    assert F.avg_pool2d(images.float(), 4).shape[1:] == (7, 7)


# --- a run --------------------------------------------------------------------------------------------------------


def stopped_at(workspace, step):
    """The workspace, out of time after that step."""
    keep = workspace.keep

    def keep_and_stop(state, total, **parts):
        workspace.deadline = 0.0 if state["step"] == step else None
        keep(state, total, **parts)

    workspace.keep = keep_and_stop
    return workspace


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_run_repeats_its_bits_after_a_kill(tmp_path, decoder):
    config = config_of(decoder, free_bits=2.0 if decoder == "free-bits" else 0.0)
    with deterministic("cpu"):
        whole = strong_decoder(config, Workspace(tmp_path / "whole", 0))
        (tmp_path / "killed").mkdir()
        with pytest.raises(OutOfTime):
            strong_decoder(config, stopped_at(Workspace(tmp_path / "killed", 0), 5))
        resumed = Workspace(tmp_path / "killed", 0)
        again = strong_decoder(config, resumed)
    assert resumed.resumed_at == [5]
    assert whole.history == again.history
    assert all(torch.equal(whole.weights[name], again.weights[name]) for name in whole.weights)
    assert whole.weights["fixed_z"].shape == (2, 4, 196)
    assert whole.history[-1]["elbo"] > whole.history[0]["elbo"] + 2
    score = whole.scores["elbo"]
    assert score.value == pytest.approx(torch.tensor(whole.facts["elbo"]).mean().item())
    assert score.protocol["estimator"] == ("exact log-likelihood" if decoder == "none" else "elbo")
    assert ("explained" in whole.scores) == (decoder != "none")


def test_free_bits_keep_the_latents_in_use_while_they_are_free(tmp_path):
    config = config_of("weak", n_steps=60, n_latent=4)
    found = {}
    with deterministic("cpu"):
        for free in (0.0, 6.0):
            outcome = strong_decoder(dataclasses.replace(config, free_bits=free), Workspace(tmp_path, 0))
            found[free] = outcome.scores["kl"].value
    assert found[6.0] > found[0.0] + 0.1


def test_scores_are_means_over_models():
    found = {name: torch.tensor([1.0, 3.0]) for name in ("elbo", "iwae", "kl", "used", "prior_z", "units_kl")}
    named = scores(found, TINY, datasets.load("mnist-5k"))
    assert (named["kl"].value, named["kl"].stderr, named["kl"].n) == (2, pytest.approx(1), 2)
    assert "14 x 14" in named["kl"].protocol["observation"]


def test_blocks_do_not_matter(monkeypatch):
    model, x = model_of(config_of()), binary(6, 9)
    whole = evaluate(model, x, config_of(n_draws=4000), Streams(0))
    monkeypatch.setattr(module, "_ALIVE", 1)
    parts = evaluate(model, x, config_of(n_draws=4000), Streams(1))
    for name in ("elbo", "prior_z", "iwae"):
        torch.testing.assert_close(whole[name], parts[name], rtol=0, atol=0.1)
    torch.testing.assert_close(whole["kl"], parts["kl"], rtol=1e-5, atol=1e-6)


def test_presets_have_each_decoder():
    for experiments in presets().values():
        assert [config.decoder for config in experiments.values()] == list(DECODERS)
        assert [config.free_bits > 0 for config in experiments.values()] == [True, False, False, False]
