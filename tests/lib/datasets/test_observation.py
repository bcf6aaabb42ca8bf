"""The three observation models: right probabilities, right support, and the draws that they promise."""

import hashlib

import pytest
import torch

from lib.datasets import OBSERVATION_MODELS, dynamic_binarisation, real_valued, static_binarisation

LEVELS = torch.arange(256, dtype=torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dynamic(images: torch.Tensor, seed: int) -> torch.Tensor:
    return dynamic_binarisation(images, generator(seed))


@pytest.mark.parametrize("draw", [dynamic, static_binarisation], ids=["dynamic", "static"])
class TestBothBinarisations:
    def test_every_level_has_its_probability(self, draw) -> None:
        count = 20_000
        ones = draw(LEVELS.expand(count, 256), 3)
        p = LEVELS.double() / 255
        z = (ones.double().mean(0) - p) / (p * (1 - p) / count).sqrt().clamp_min(1e-12)
        assert z.abs().max() < 4.5  # 254 levels: a sound draw exceeds this once in six hundred seeds
        assert z.mean().abs() < 4 / 254**0.5
        assert z[1:255].std() == pytest.approx(1, abs=0.2)

    def test_black_is_never_lit_and_white_always(self, draw) -> None:
        count = 1 << 20  # a draw of 16 bits with the top one let through would fail some 16 times here
        assert draw(torch.zeros(count, dtype=torch.uint8), 0).count_nonzero() == 0
        assert draw(torch.full((count,), 255, dtype=torch.uint8), 0).count_nonzero() == count

    @pytest.mark.parametrize("shape", [(3, 1, 28, 28), (5, 7), (1,), (0, 1, 28, 28)])
    def test_shape_support_and_type(self, draw, shape: tuple[int, ...]) -> None:
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator())
        ones = draw(images, 1)
        assert ones.shape == images.shape
        assert ones.dtype == torch.float32
        assert set(ones.unique().tolist()) <= {0.0, 1.0}

    def test_neighbouring_pixels_are_independent(self, draw) -> None:
        ones = draw(torch.full((400_000,), 128, dtype=torch.uint8), 5)
        for lag in (1, 2, 3, 4, 8):  # four pixels share a word
            pairs = torch.stack([ones[:-lag], ones[lag:]])
            assert torch.corrcoef(pairs)[0, 1].abs() < 4.5 / 400_000**0.5

    def test_same_seed_same_draw_other_seed_other_draw(self, draw) -> None:
        images = torch.full((100, 784), 99, dtype=torch.uint8)
        assert torch.equal(draw(images, 1), draw(images, 1))
        assert not torch.equal(draw(images, 1), draw(images, 2))

    def test_layout_in_memory_does_not_matter(self, draw) -> None:
        images = torch.randint(0, 256, (8, 28, 28), dtype=torch.uint8, generator=generator())
        turned = images.transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(draw(images, 1), draw(turned, 1))

    def test_images_are_left_alone(self, draw) -> None:
        images = LEVELS.clone()
        draw(images, 1)
        assert torch.equal(images, LEVELS)

    def test_scaled_images_are_refused(self, draw) -> None:
        with pytest.raises(ValueError, match=r"0 .. 255, not torch.float32"):
            draw(torch.rand(4), 0)


def test_dynamic_draws_anew_at_each_visit() -> None:
    images, rng = torch.full((784,), 128, dtype=torch.uint8), generator()
    assert not torch.equal(dynamic_binarisation(images, rng), dynamic_binarisation(images, rng))


def test_dynamic_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    dynamic_binarisation(LEVELS, generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_static_draw_of_an_image_does_not_depend_on_those_after_it() -> None:
    images = torch.randint(0, 256, (9, 1, 5, 5), dtype=torch.uint8, generator=generator())
    assert torch.equal(static_binarisation(images, 4)[:3], static_binarisation(images[:3], 4))


def test_static_draw_does_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (1001,), dtype=torch.uint8, generator=generator())
    whole = static_binarisation(images, 4)
    monkeypatch.setattr("lib.datasets.observation._CHUNK", 64)
    assert torch.equal(static_binarisation(images, 4), whole)


def test_static_draw_is_the_pinned_one() -> None:
    """Integer arithmetic on a published generator: these bits hold for every version of every library."""
    ones = static_binarisation(LEVELS.repeat(40), seed=7)
    assert (
        hashlib.sha256(ones.byte().numpy().tobytes()).hexdigest()
        == "86eaa2faa03a4b7bb4061fffe4f9e6934601b911fa867df23a34039d4d009a5c"
    )


def test_real_values_span_the_unit_interval() -> None:
    values = real_valued(LEVELS)
    assert values.dtype == torch.float32
    assert (values[0], values[255]) == (0.0, 1.0)
    torch.testing.assert_close(values.diff(), torch.full((255,), 1 / 255))


def test_the_names_are_the_three_of_the_literature() -> None:
    assert OBSERVATION_MODELS == ("dynamic-binarised", "static-binarised", "real-valued")
