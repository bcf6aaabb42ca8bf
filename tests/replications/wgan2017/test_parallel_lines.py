"""Example 1's discriminators and slopes against plain PyTorch, central differences and scores by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib import transport as ot
from lib.execution.execute import deterministic
from lib.training.randomness import Streams
from replications.wgan2017 import parallel_lines as lines
from replications.wgan2017.config import DistancesConfig

SMOKE = DistancesConfig(n_points=32, descent_rate=0.2, width=16)


@pytest.fixture(autouse=True)
def _deterministic():
    with deterministic("cpu"):
        yield


def test_names_hold_no_dot_and_no_sign():
    assert lines.key("js", t=-0.5) == "js_tm0p5"
    assert lines.key("bias", d=2, n=64) == "bias_d2_n64"
    assert lines.key("js", t=0.0) == "js_t0"


def test_the_discriminators_are_those_of_plain_pytorch():
    """Two models side by side against two nn.Sequential trained by nn.Module's own loss and Adam."""
    config = dataclasses.replace(SMOKE, width=8)
    net, optimizer = lines.discriminators(2, config, Streams(3))
    plain = []
    for model in range(2):
        layers = []
        for layer in net:
            if hasattr(layer, "weight"):
                linear = nn.Linear(*layer.weight.shape[1:])
                linear.weight.data = layer.weight[model].data.T.clone()
                linear.bias.data = layer.bias[model, 0].data.clone()
                layer = linear
            layers.append(layer)
        plain.append(nn.Sequential(*layers))
    z = np.random.default_rng(0).random((2, 2, 10))
    real, fake = lines.planes([0.0, 0.0], z[0]), lines.planes([0.5, -1.0], z[1])
    assert fake[1, :, 0].tolist() == [-1.0] * 10
    assert fake[0, :, 1].tolist() == pytest.approx(z[1, 0].tolist(), abs=1e-7)
    lines.train_(net, optimizer, real, fake, 15)
    label = torch.cat([torch.ones(10, 1), torch.zeros(10, 1)])
    for model, alone in enumerate(plain):
        adam = torch.optim.Adam(alone.parameters(), lr=config.discriminator_rate)
        for _ in range(15):
            adam.zero_grad()
            F.binary_cross_entropy_with_logits(alone(torch.cat([real[model], fake[model]])), label).backward()
            adam.step()
        torch.testing.assert_close(net(real)[model], alone(real[model]), rtol=0, atol=1e-4)


def test_trained_scores_are_held_out_entropies(monkeypatch):
    """A discriminator whose logit is 3 x - 2 z + 1/2: log 2 - BCE and accuracy on the second half, by hand."""

    class Known(nn.Module):
        def forward(self, points):
            return (3 * points[..., 0] - 2 * points[..., 1] + 0.5).unsqueeze(-1)

    monkeypatch.setattr(lines, "discriminators", lambda *_: (Known(), None))
    monkeypatch.setattr(lines, "train_", lambda *_: None)
    scores = lines.trained_scores(SMOKE, Streams(0))
    z = lines.uniform(Streams(0), "trained lines", 0, 2, len(SMOKE.thetas), SMOKE.n_points)[..., SMOKE.n_points // 2 :]
    estimates, accuracies = [], []
    for theta, of_real, of_fake in zip(SMOKE.thetas, z[0], z[1], strict=True):
        logits = torch.from_numpy(np.concatenate([0.5 - 2 * of_real, 3 * theta - 2 * of_fake + 0.5]))
        label = torch.cat([torch.ones(len(of_real)), torch.zeros(len(of_fake))]).double()
        estimates.append(math.log(2) - F.binary_cross_entropy_with_logits(logits, label).item())
        accuracies.append(((logits > 0) == (label > 0.5)).double().mean().item())
        assert scores[lines.key("js_trained", t=theta)].value == pytest.approx(estimates[-1], abs=1e-6)
        assert scores[lines.key("accuracy", t=theta)].value == pytest.approx(accuracies[-1], abs=1e-12)
        assert scores[lines.key("js_trained", t=theta)].n == SMOKE.n_points // 2
    at_zero = SMOKE.thetas.index(0)
    estimates.pop(at_zero)
    accuracies.pop(at_zero)
    assert scores["js_trained_least"].value == pytest.approx(min(estimates), abs=1e-6)
    assert scores["accuracy_least"].value == pytest.approx(min(accuracies), abs=1e-12)


def test_training_sees_one_half_and_scores_the_other(monkeypatch):
    seen = []
    monkeypatch.setattr(lines, "train_", lambda net, optimizer, real, fake, n_steps: seen.append((real, fake)))
    lines.trained_scores(SMOKE, Streams(0))
    ((real, fake),) = seen
    assert real.shape == fake.shape == (len(SMOKE.thetas), SMOKE.n_points // 2, 2)
    z = lines.uniform(Streams(0), "trained lines", 0, 2, len(SMOKE.thetas), SMOKE.n_points)
    assert real[2, :, 1].tolist() == pytest.approx(z[0, 2, : SMOKE.n_points // 2].tolist(), abs=1e-7)
    assert not set(real[..., 1].flatten().tolist()) & set(fake[..., 1].flatten().tolist())


def test_a_discriminator_tells_the_lines_apart():
    config = dataclasses.replace(SMOKE, n_points=128, n_discriminator_steps=300, width=32)
    scores = lines.trained_scores(config, Streams(0))
    assert scores["accuracy_least"].value == 1
    assert scores["js_trained_least"].value == pytest.approx(math.log(2), abs=0.01)
    assert scores["js_trained_t0"].value == pytest.approx(0, abs=0.15)


def test_the_slope_of_w_is_the_derivative_of_the_assignment():
    z = np.random.default_rng(1).random((2, 40))
    for theta in (0.05, -0.3, 1.0):
        w = [ot.optimal_assignment(lines.line(theta + step, z[0]), lines.line(0, z[1])).value for step in (-1e-6, 1e-6)]
        slope = lines.cost_slope(lines.line(theta, z[0]), lines.line(0, z[1]))
        assert slope[0] == pytest.approx((w[1] - w[0]) / 2e-6, abs=1e-7)
    same = lines.line(0.0, z[0])
    assert lines.cost_slope(same, same).tolist() == [0, 0]


def test_the_slope_through_a_discriminator_is_that_of_the_minimax_loss():
    net, _ = lines.discriminators(1, SMOKE, Streams(0))
    z = torch.linspace(0, 1, 9)

    def loss(theta):
        points = torch.stack([torch.full_like(z, theta), z], 1).unsqueeze(0)
        return torch.log(1 - torch.sigmoid(net.double()(points.double()))).mean().item()

    expected = (loss(0.7 + 1e-4) - loss(0.7 - 1e-4)) / 2e-4
    assert lines.loss_slope(net.float(), 0.7, z) == pytest.approx(expected, rel=1e-3)


def test_scores_of_descents_by_hand():
    names = ("step", "w", "w_fresh", "js", "js_trained", "js_slope")
    rows = [
        dict(zip(names, row, strict=True))
        for row in ((0, 1, 1, 1, 1, math.nan), (1, 0.5, 0.3, 1.5, 0.9, -0.25), (2, -0.1, -0.2, 1.25, 1.2, 0.125))
    ]
    found = {name: score.value for name, score in lines.descent_scores(SMOKE, rows).items()}
    assert found == pytest.approx(
        {"descent_w": 0.1, "descent_w_fresh": 0.2, "descent_w_fresh_steps": 2, "descent_js_moved": 0.25,
         "descent_js_slope": 0.25, "descent_js_trained_moved": 0.2}
    )  # fmt: skip
    never = lines.descent_scores(dataclasses.replace(SMOKE, descent_rate=0.01), rows)
    assert never["descent_w_fresh_steps"].value == math.inf
