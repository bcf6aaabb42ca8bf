"""The integrator against its closed form, the chains against distributions that are known."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.likelihood import hmc
from lib.likelihood.hmc import Noise, Point, StepSize, evaluate, hmc_transition, leapfrog

pytestmark = pytest.mark.usefixtures("one_thread")

ONE = (1.0,)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def normal(z: Tensor) -> tuple[Tensor]:
    return (-0.5 * z.square().sum(-1),)


def logistic(z: Tensor) -> tuple[Tensor]:
    return ((-z - 2 * torch.nn.functional.softplus(-z)).sum(-1),)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.01, 1.5))
def test_one_step_on_a_normal_is_the_written_out_one(q: float, p: float, step: float) -> None:
    """Neal 2011, eqs. 5.18 to 5.20 with U = q^2 / 2."""
    z, momentum = torch.tensor([[q]], dtype=torch.float64), torch.tensor([[p]], dtype=torch.float64)
    end, last = leapfrog(normal, evaluate(normal, z), ONE, momentum, number(step), 1)
    assert end.z.item() == pytest.approx(q * (1 - step**2 / 2) + step * p, abs=1e-12)
    assert last.item() == pytest.approx(p * (1 - step**2 / 2) - q * step * (1 - step**2 / 4), abs=1e-12)


@pytest.mark.parametrize("terms", [normal, logistic])
def test_trajectories_run_backwards(terms: hmc.LogTerms) -> None:
    z, momentum, step = draws(4, 5, 2), draws(4, 5, 2, seed=2), 0.1 + 0.1 * torch.rand(5, generator=generator())
    end, last = leapfrog(terms, evaluate(terms, z), ONE, momentum, step, 7)
    back, first = leapfrog(terms, end, ONE, -last, step, 7)
    torch.testing.assert_close(back.z, z, rtol=0, atol=1e-12)
    torch.testing.assert_close(-first, momentum, rtol=0, atol=1e-12)


def test_volume_is_preserved() -> None:
    """The determinant of (q, p) -> (q', p'), by central differences."""
    step, h, columns = number(0.4), 1e-5, []
    for direction in ((1.0, 0.0), (0.0, 1.0)):
        ends = []
        for sign in (1, -1):
            z, momentum = (
                number(start + sign * h * d).view(1, 1) for start, d in zip((0.7, -1.1), direction, strict=True)
            )
            end, last = leapfrog(logistic, evaluate(logistic, z), ONE, momentum, step, 5)
            ends.append(torch.stack([end.z[0, 0], last[0, 0]]))
        columns.append((ends[0] - ends[1]) / (2 * h))
    assert torch.linalg.det(torch.stack(columns)).item() == pytest.approx(1.0, abs=1e-8)


def energy_change(step: float, n_leapfrog: int) -> Tensor:
    z = torch.logit(torch.rand(20_000, 1, generator=generator(3), dtype=torch.float64))  # logistic draws
    momentum = draws(20_000, 1, seed=4)
    end, last = leapfrog(logistic, evaluate(logistic, z), ONE, momentum, number(step), n_leapfrog)
    change = end.log_terms[0] - evaluate(logistic, z).log_terms[0]
    return change + 0.5 * (momentum.square() - last.square()).sum(-1)


def test_the_energy_error_is_of_second_order() -> None:
    coarse, fine = energy_change(0.2, 10).abs().mean(), energy_change(0.1, 20).abs().mean()
    assert (coarse / fine).item() == pytest.approx(4.0, rel=0.05)


def test_the_mean_exponential_energy_change_is_one() -> None:
    """E exp(-dH) = 1 at equilibrium for any reversible, volume-preserving map: Neal 2011, section 5.4.3.2 (Creutz)."""
    ratio = energy_change(1.5, 3).exp()
    error = ratio.std().item() / math.sqrt(len(ratio))
    assert error < 0.02
    assert ratio.std() > 0.05  # else the step is too small for the test to say anything
    assert abs(ratio.mean().item() - 1) < 4 * error


def chains(terms: hmc.LogTerms, z: Tensor, step: float, transitions: int, seed: int = 0) -> tuple[Tensor, float]:
    noise, point, accepted = generator(seed), evaluate(terms, z), 0.0
    for _ in range(transitions):
        result = hmc_transition(terms, point, ONE, number(step), 3, hmc.draw_noise(point.z, noise))
        point, accepted = result.point, accepted + result.accepted.double().mean().item() / transitions
        torch.testing.assert_close(point.log_terms, evaluate(terms, point.z).log_terms)
        torch.testing.assert_close(point.gradients, evaluate(terms, point.z).gradients)
    return point.z, accepted


@pytest.mark.parametrize("start", ["exact", "far"])
def test_chains_have_the_logistic_distribution(start: str) -> None:
    """One draw a chain, so the draws are independent; a third is rejected, so the Metropolis step is at work."""
    z = torch.logit(torch.rand(4000, 1, generator=generator(5), dtype=torch.float64))
    if start == "far":
        z = torch.full_like(z, 6.0)
    z, accepted = chains(logistic, z, 2.4, 12 if start == "exact" else 60)
    assert 0.5 < accepted < 0.9
    assert scipy.stats.kstest(z[:, 0].numpy(), scipy.stats.logistic.cdf).pvalue > 1e-3


def test_chains_have_the_covariance_of_a_correlated_gaussian() -> None:
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    precision = torch.linalg.inv(covariance)
    z, _ = chains(lambda z: (-0.5 * (z @ precision * z).sum(-1),), torch.zeros(4000, 2, dtype=torch.float64), 0.6, 25)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    for column in white.T:
        assert scipy.stats.kstest(column.numpy(), scipy.stats.norm.cdf).pvalue > 1e-3
    assert abs(torch.corrcoef(white.T)[0, 1].item()) < 4 / math.sqrt(4000)


def test_the_target_is_the_weighted_sum_of_terms() -> None:
    """N(0, 1) times N(3, 1)^(1/2): precision 1.5, mean 1."""

    def terms(z: Tensor) -> tuple[Tensor, Tensor]:
        return *normal(z), -0.5 * (z - 3).square().sum(-1)

    noise, point = generator(), evaluate(terms, torch.zeros(4000, 1, dtype=torch.float64))
    for _ in range(15):
        point = hmc_transition(terms, point, (1.0, 0.5), number(0.5), 4, hmc.draw_noise(point.z, noise)).point
    target = scipy.stats.norm(1.0, 1 / math.sqrt(1.5))
    assert scipy.stats.kstest(point.z[:, 0].numpy(), target.cdf).pvalue > 1e-3


def test_a_term_of_no_weight_may_be_infinite() -> None:
    terms = torch.tensor([[1.0, 2.0], [-math.inf, math.nan]])
    assert hmc.weighted((2.0, 0.0), terms).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_diverges_is_rejected(bad: float) -> None:
    def broken(z: Tensor) -> tuple[Tensor]:  # a normal, bad outside (-1, 1)
        inside = z.abs().amax(-1) < 1
        return (torch.where(inside, normal(z)[0], bad),)

    z = 0.9 * (2 * torch.rand(500, 2, generator=generator(), dtype=torch.float64) - 1)
    result = hmc_transition(broken, evaluate(broken, z), ONE, number(1.0), 2, hmc.draw_noise(z, generator()))
    assert torch.isfinite(result.point.z).all()
    assert (result.point.z.abs() < 1).all()
    assert torch.isfinite(result.point.log_terms).all()
    assert torch.equal(result.accepted, (result.point.z != z).any(-1))
    assert 0 < result.accepted.double().mean() < 1
    assert (result.acceptance[result.accepted] > 0).all()
    assert (result.acceptance == 0).any()


def test_an_overflowing_trajectory_is_rejected() -> None:
    def steep(z: Tensor) -> tuple[Tensor]:
        return (-(z**4).sum(-1),)

    z = draws(20, 3).float()
    result = hmc_transition(steep, evaluate(steep, z), ONE, torch.tensor(50.0), 20, hmc.draw_noise(z, generator()))
    assert not result.accepted.any()
    assert torch.equal(result.point.z, z)
    assert torch.equal(result.acceptance, torch.zeros(20, dtype=torch.float64))


def test_a_bad_gradient_alone_is_rejected() -> None:
    class _Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):  # type: ignore[no-untyped-def]
            return z.clone()

        @staticmethod
        def backward(ctx, upstream):  # type: ignore[no-untyped-def]
            return upstream * math.nan

    z = torch.zeros(50, 1, dtype=torch.float64)
    start = evaluate(normal, z)
    result = hmc_transition(lambda z: normal(_Bad.apply(z)), start, ONE, number(0.1), 1, hmc.draw_noise(z, generator()))
    assert not result.accepted.any()


def test_a_chain_moves_alike_alone_and_among_others() -> None:
    z, noise = draws(3, 4, 2), hmc.draw_noise(draws(3, 4, 2), generator())
    steps = torch.tensor([0.1, 0.5, 1.0, 1.5], dtype=torch.float64)
    whole = hmc_transition(logistic, evaluate(logistic, z), ONE, steps, 4, noise)
    for c in range(3):
        for i in range(4):
            one = Noise(noise.momentum[c, i], noise.log_uniform[c, i], noise.stretch[c, i])
            alone = hmc_transition(logistic, evaluate(logistic, z[c, i]), ONE, steps[i], 4, one)
            torch.testing.assert_close(alone.point.z, whole.point.z[c, i], rtol=0, atol=1e-13)
            assert bool(alone.accepted) == bool(whole.accepted[c, i])


def test_the_stretch_multiplies_the_step_size() -> None:
    z = draws(6, 2)
    noise, point = hmc.draw_noise(z, generator()), evaluate(logistic, z)
    by_noise = hmc_transition(
        logistic, point, ONE, number(0.5), 3, noise._replace(stretch=torch.full((6,), 1.2).double())
    )
    by_step = hmc_transition(logistic, point, ONE, number(0.6), 3, noise._replace(stretch=torch.ones(6).double()))
    torch.testing.assert_close(by_noise.point.z, by_step.point.z, rtol=1e-6, atol=1e-6)
    assert by_step.accepted.any()


def test_blocks_are_the_whole_in_parts() -> None:
    scale = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)

    def terms(block: slice) -> hmc.LogTerms:
        return lambda z: (-0.5 * (z / scale[block, None]).square().sum(-1), z.sum(-1))

    z, steps, weights = draws(3, 5, 2), 0.1 * scale, (1.0, 0.3)
    parts = [(block, terms(block)) for block in (slice(0, 2), slice(2, 3), slice(3, 8))]
    whole = [(slice(None), terms(slice(None)))]
    for got, want in zip(hmc.evaluate_blocks(parts, z), hmc.evaluate_blocks(whole, z), strict=True):
        assert torch.equal(got, want)
    point = hmc.evaluate_blocks(whole, z)
    got = hmc.transition_blocks(parts, point, weights, steps, 3, generator())
    want = hmc.transition_blocks(whole, point, weights, steps, 3, generator())
    assert torch.equal(got.point.z, want.point.z)
    assert torch.equal(got.point.gradients, want.point.gradients)
    assert torch.equal(got.acceptance, want.acceptance)


def test_image_blocks_cover_once_within_the_limit() -> None:
    x = torch.zeros(10, 2, 3)
    assert hmc.image_blocks(x, 4, 72) == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)]
    assert len(hmc.image_blocks(x, 4, 1)) == 10
    assert hmc.image_blocks(x, 4, 1 << 20) == [slice(0, 43690)]


def test_step_sizes_find_the_target_each_for_itself() -> None:
    """Gaussians of scale 0.01 to 0.3, one an image: each step size settles in proportion, at the wanted acceptance."""
    scale = torch.tensor([0.01, 0.03, 0.1, 0.3], dtype=torch.float64)
    blocks = [(slice(None), lambda z: (-0.5 * (z / scale[:, None]).square().sum(-1),))]
    noise, point = generator(), hmc.evaluate_blocks(blocks, draws(16, 4, 10) * scale[:, None])
    step, seen, sizes = StepSize(torch.full((4,), 0.1, dtype=torch.float64), torch.full((4,), 0.65)), [], []
    for _ in range(500):
        result = hmc.transition_blocks(blocks, point, ONE, step.value, 4, noise)
        point, step = result.point, hmc.adapted(step, result.acceptance.mean(0), 0.65)
        seen.append(result.acceptance.mean(0))
        sizes.append(step.value)
    torch.testing.assert_close(torch.stack(seen[250:]).mean(0), torch.full((4,), 0.65).double(), rtol=0, atol=0.04)
    ratio = torch.stack(sizes[250:]).mean(0) / scale
    assert ratio.max() / ratio.min() < 1.15


def test_adaptation_goes_two_percent_at_a_time_within_its_range() -> None:
    step = StepSize(torch.tensor([0.1, 0.1, 0.5, 1e-4]), torch.full((4,), 0.65))
    new = hmc.adapted(step, torch.tensor([1.0, 0.0, 1.0, 0.0]), 0.65)
    assert new.value.tolist() == pytest.approx([0.102, 0.098, 0.5, 1e-4], rel=1e-5)
    assert new.mean_acceptance.tolist() == pytest.approx([0.685, 0.585, 0.685, 0.585], rel=1e-5)


def test_noise_is_what_it_says() -> None:
    noise = hmc.draw_noise(torch.zeros(20_000, 2, dtype=torch.float64), generator())
    for part, law in (
        (noise.momentum[:, 0], scipy.stats.norm.cdf),
        (noise.log_uniform.exp(), scipy.stats.uniform.cdf),
        (noise.stretch, scipy.stats.uniform(0.8, 0.4).cdf),
    ):
        assert scipy.stats.kstest(part.numpy(), law).pvalue > 1e-3
    assert abs(torch.corrcoef(torch.stack([noise.log_uniform, noise.stretch]))[0, 1]) < 0.03


def test_no_gradient_reaches_a_parameter_and_no_mode_is_left_behind() -> None:
    net = torch.nn.Linear(2, 1).double()
    with torch.no_grad():
        point = evaluate(lambda z: (net(z).sum(-1),), draws(4, 2))
        assert not torch.is_grad_enabled()
    assert isinstance(point, Point)
    assert not any(part.requires_grad for part in point)
    assert net.weight.grad is None
    assert net.weight.requires_grad
    torch.testing.assert_close(point.gradients[0], net.weight.detach().expand(4, 2))


@pytest.mark.parametrize("detached", [True, False])
def test_a_density_without_a_gradient_is_refused(detached: bool) -> None:
    net = torch.nn.Linear(2, 1).double()  # its parameters ask for gradients: the term does too, though not in z
    with pytest.raises(ValueError, match="no gradient in z"):
        evaluate(lambda z: (z.detach().sum(-1) if detached else net(z.detach()).sum(-1),), draws(4, 2))


@pytest.mark.parametrize("target", [0.0, 1.0, -0.2, 90.0, math.nan])
def test_the_target_acceptance_is_a_probability(target: float) -> None:
    with pytest.raises(ValueError, match=r"target_acceptance is .*between 0 and 1"):
        hmc.require_acceptance(target)
