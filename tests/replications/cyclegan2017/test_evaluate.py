"""Scores of translators whose answers are known, the sheet, and a training from its config to its scores."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score, recall_score
from torch import Tensor

from lib.datasets import scenes
from lib.execution.execute import deterministic
from lib.execution.workspace import Workspace
from lib.results import Score
from replications.cyclegan2017 import evaluate, tasks
from replications.cyclegan2017.anchors import anchors
from replications.cyclegan2017.config import AnchorsConfig, TranslationConfig
from replications.cyclegan2017.evaluate import (
    Translations,
    difference,
    diversity_scores,
    round_trip_scores,
    sheet,
    through_jpeg,
    translation,
    translator,
)
from replications.cyclegan2017.shapes import shape_scores
from replications.cyclegan2017.tasks import load
from replications.cyclegan2017.train import Method, Trained

N, SIDE = 24, 16
MEAN_ABS_NOISE = 4 * math.sqrt(2 / math.pi)  # E|X| of a normal X of sd 4
HOW = {"task": "made up"}


def blocks(n: int, channels: int, seed: int = 0, low: int = 0, high: int = 256) -> Tensor:
    """Images of flat 8 x 8 blocks, which JPEG keeps well; uint8."""
    rng = torch.Generator().manual_seed(seed)
    small = torch.randint(low, high, (n, channels, SIDE // 8, SIDE // 8), generator=rng)
    return small.repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8)


def scored(to_b, to_a, a: Tensor, b: Tensor, seed: int = 0) -> dict[str, Score]:
    fake_b, fake_a = to_b(a), to_a(b)
    found = Translations(a, b, fake_b, fake_a, to_a(fake_b), to_b(fake_a))
    return round_trip_scores(found, to_b, to_a, HOW, seed)


def value(scores: dict[str, Score], name: str) -> float:
    return scores[name].value


# --- the way there and back ----------------------------------------------------------------------------------------


def test_the_difference_is_a_mean_of_levels_image_by_image():
    x = torch.tensor([0, 255, 10, 20], dtype=torch.uint8).view(1, 1, 2, 2)
    y = torch.tensor([255, 0, 10, 24], dtype=torch.uint8).view(1, 1, 2, 2)
    both = difference(torch.cat([x, x]), torch.cat([y, x]))
    assert both.tolist() == [(255 + 255 + 4) / 4, 0]


def test_a_negative_comes_back_and_reads_no_code():
    a, b = blocks(N, 3, 1, 40, 216), blocks(N, 3, 2, 40, 216)
    negative = lambda x: 255 - x  # noqa: E731
    scores = scored(negative, negative, a, b)
    for name, given in (("a", a), ("b", b)):
        assert value(scores, f"cycle_{name}") == value(scores, f"cycle_share_{name}") == 0
        wanted = (255 - 2 * given.double()).abs().mean().item()
        assert value(scores, f"change_{name}") == pytest.approx(wanted, rel=1e-6)
        # What is put on the translation comes back as it is: no more and no less.
        assert value(scores, f"noise_{name}") == pytest.approx(MEAN_ABS_NOISE, rel=0.03)
        wanted = (through_jpeg(255 - given).int() - (255 - given).int()).abs().double().mean().item()
        assert value(scores, f"jpeg_{name}") == pytest.approx(wanted, rel=1e-6)
        assert value(scores, f"jpeg_{name}") < 10, "coarse in colour"


def test_the_identity_changes_nothing_and_a_constant_loses_everything():
    a, b = blocks(N, 3, 1), blocks(N, 3, 2)
    scores = scored(lambda x: x, lambda x: x, a, b)
    assert [value(scores, f"{key}_{name}") for key in ("change", "cycle") for name in "ab"] == [0, 0, 0, 0]
    assert math.isnan(value(scores, "cycle_share_a")), "0 over 0"
    grey = torch.full((1, 3, SIDE, SIDE), 100, dtype=torch.uint8)
    scores = scored(lambda x: grey.expand(len(x), -1, -1, -1), lambda x: x, a, b)
    lost = (a.double() - 100).abs().mean().item()
    assert value(scores, "cycle_a") == value(scores, "change_a") == pytest.approx(lost, rel=1e-6)
    assert value(scores, "cycle_share_a") == pytest.approx(1)
    assert value(scores, "cycle_b") == pytest.approx((b.double() - 100).abs().mean().item(), rel=1e-6)
    assert value(scores, "change_b") == 0


def test_a_code_in_the_lowest_bit_is_wiped_out_by_noise_and_by_jpeg_and_an_honest_one_is_not():
    """Black and white images; hidden: grey 128 or 129; honest: grey 64 or 192."""
    rng = torch.Generator().manual_seed(0)
    a, b = (255 * torch.randint(0, 2, (N, 1, SIDE, SIDE), generator=rng) for _ in range(2))
    a, b = a.to(torch.uint8), b.to(torch.uint8)
    hide, read = (lambda x: 128 + (x > 127).to(torch.uint8)), (lambda x: 255 * (x & 1))
    hidden = scored(hide, read, a, b)
    assert value(hidden, "cycle_a") == 0
    for damage in ("noise_a", "jpeg_a"):
        assert value(hidden, damage) == pytest.approx(127.5, abs=20), damage
    tell, hear = (lambda x: 64 + 128 * (x > 127).to(torch.uint8)), (lambda x: 255 * (x > 127).to(torch.uint8))
    honest = scored(tell, hear, blocks(N, 1, 3) // 128 * 255, b)
    assert value(honest, "cycle_a") == value(honest, "noise_a") == value(honest, "jpeg_a") == 0
    # The other direction: its way back starts at A's pictures of B.
    other = scored(read, hide, a, b)
    assert value(other, "cycle_b") == 0
    assert value(other, "noise_b") == pytest.approx(127.5, abs=10)


def test_scores_say_what_they_are():
    a, b = blocks(N, 1, 1, 40, 216), blocks(N, 3, 2, 40, 216)

    def to_b(x: Tensor) -> Tensor:
        return (255 - x).expand(-1, 3, -1, -1)

    scores = scored(to_b, lambda x: 255 - x[:, :1], a, b)
    kinds = {"cycle", "noise", "jpeg"}
    assert set(scores) == {f"{kind}_{name}" for kind in kinds for name in "ab"}, "no change between grey and colour"
    assert all((s.unit, s.higher_is_better, s.n) == ("grey levels", False, N) for s in scores.values())
    assert scores["noise_a"].protocol["noise"] == "normal, 4 levels"
    assert scores["jpeg_b"].protocol["jpeg"] == 75
    assert "noise" not in scores["cycle_a"].protocol
    assert scores["cycle_a"].protocol["task"] == "made up"
    values = difference(a, (255 - a)).double()
    whole = scored(lambda x: 255 - x, lambda x: x, a, a)["change_a"]
    assert whole.stderr == pytest.approx(values.std().item() / math.sqrt(N))
    assert scored(lambda x: 255 - x, lambda x: x, a, a)["cycle_share_a"].unit == "ratio"


def test_the_noise_is_the_seeds():
    a, b = blocks(N, 3, 1, 40, 216), blocks(N, 3, 2, 40, 216)
    one, again, other = (value(scored(lambda x: x, lambda x: x, a, b, seed), "noise_a") for seed in (0, 0, 1))
    assert one == again != other


def test_noise_is_rounded_and_stays_in_0_to_255():
    white = torch.full((N, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    scores = scored(lambda x: x, lambda x: x, white, white)
    assert value(scores, "noise_a") == pytest.approx(MEAN_ABS_NOISE / 2, rel=0.05), "half of it is cut off at white"


@pytest.mark.parametrize("channels", [1, 3])
def test_through_jpeg_is_pils_image_by_image(channels):
    rng = torch.Generator().manual_seed(channels)
    images = torch.randint(0, 256, (3, channels, SIDE, SIDE + 8), dtype=torch.uint8, generator=rng)
    back = through_jpeg(images)
    assert (back.shape, back.dtype) == (images.shape, torch.uint8)
    for ours, image in zip(back, images, strict=True):
        file = io.BytesIO()
        array = np.moveaxis(image.numpy(), 0, 2)
        Image.fromarray(array if channels == 3 else array[:, :, 0]).save(file, format="JPEG")  # PIL's default is 75
        read = np.asarray(Image.open(io.BytesIO(file.getvalue())))
        assert np.array_equal(np.moveaxis(ours.numpy(), 0, 2), read if channels == 3 else read[..., None])
    assert not torch.equal(back, images)


def test_at_most_a_hundred_images_go_through_jpeg(monkeypatch):
    monkeypatch.setattr(evaluate, "N_JPEG", 5)
    a, b = blocks(N, 3, 1, 40, 216), blocks(N, 3, 2, 40, 216)
    scores = scored(lambda x: 255 - x, lambda x: 255 - x, a, b)
    assert scores["jpeg_a"].n == 5
    wanted = (through_jpeg(255 - a[:5]).int() - (255 - a[:5]).int()).abs().double().mean().item()
    assert value(scores, "jpeg_a") == pytest.approx(wanted, rel=1e-6)


# --- networks on bytes ---------------------------------------------------------------------------------------------


def test_a_translator_goes_from_bytes_to_bytes(monkeypatch):
    levels = torch.arange(256, dtype=torch.uint8).view(16, 1, 4, 4)
    seen = []

    def network(x: Tensor) -> Tensor:
        seen.append((len(x), x.min().item(), x.max().item(), torch.is_grad_enabled()))
        return x

    assert torch.equal(translator(network)(levels), levels)
    assert seen == [(16, -1, 1, False)]
    assert torch.equal(translator(lambda x: -x)(levels), 255 - levels)
    assert translator(lambda x: 9 * torch.ones_like(x))(levels).min() == 255, "above 1 is white"
    assert translator(lambda x: -9 * torch.ones_like(x))(levels).max() == 0
    half = torch.full((1, 1, 1, 1), 0.6 / 127.5)  # level 128.1
    assert translator(lambda x: half.expand_as(x))(levels).unique().tolist() == [128]
    seen.clear()
    monkeypatch.setattr(evaluate, "CHUNK", 6)
    assert torch.equal(translator(network)(levels), levels)
    assert [n for n, *_ in seen] == [6, 6, 4]


# --- diversity -----------------------------------------------------------------------------------------------------


def diversity(fake_b: Tensor, fake_a: Tensor, a: Tensor, b: Tensor) -> dict[str, Score]:
    return diversity_scores(Translations(a, b, fake_b, fake_a, a, b), HOW, 0)


def test_diversity_is_0_for_a_constant_1_for_real_images_and_falls_with_contrast():
    a, b = blocks(N, 3, 1), blocks(N, 3, 2)
    scores = diversity(b[:1].expand_as(b), a, a, b)
    assert (value(scores, "diversity_b"), value(scores, "diversity_a")) == (0, 1)
    assert value(diversity(255 - b, a // 2, a, b), "diversity_b") == 1
    assert value(diversity(255 - b, a // 2, a, b), "diversity_a") == pytest.approx(0.5, abs=0.01)
    assert all((s.unit, s.higher_is_better, s.n) == ("ratio", True, N) for s in scores.values())
    assert scores["diversity_b"].protocol["pairs"] == evaluate.N_PAIRS


def test_no_image_is_compared_with_itself():
    two = torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 90)]).to(torch.uint8)
    many = torch.arange(0, 240, 10).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).to(torch.uint8)
    assert evaluate._pairs_apart(two, 0).unique().tolist() == [90]
    apart = evaluate._pairs_apart(many, 0)
    assert apart.shape == (evaluate.N_PAIRS,)
    assert apart.min() == 10
    level = many[:, 0, 0, 0].double()
    every = (level[:, None] - level).abs()
    assert apart.double().mean().item() == pytest.approx(every.sum().item() / (24 * 23), rel=0.05)


# --- the sheet -----------------------------------------------------------------------------------------------------


def rows_of(image: Tensor, side: int) -> list[Tensor]:
    """The rows of a sheet of 8 columns, each (8, 3, side, side)."""
    assert image.shape == (3, image.shape[1], 8 * (side + 1) + 1)
    count = (image.shape[1] - 1) // (side + 1)
    return [
        torch.stack([image[:, r * (side + 1) + 1 : (r + 1) * (side + 1), c * (side + 1) + 1 : (c + 1) * (side + 1)]
                     for c in range(8)])
        for r in range(count)
    ]  # fmt: skip


def test_the_sheet_has_no_inputs_unless_they_are_drawn_here():
    a, b, fake_b, fake_a, back_a, back_b = (blocks(10, c, s) for s, c in enumerate((1, 3, 3, 1, 1, 3)))
    found = Translations(a, b, fake_b, fake_a, back_a, back_b)
    drawn = rows_of(sheet(found, True), SIDE)
    wanted = [a, fake_b, back_a, b, fake_a, back_b]
    assert len(drawn) == 6
    assert all(torch.equal(row, w[:8].expand(-1, 3, -1, -1)) for row, w in zip(drawn, wanted, strict=True))
    others = rows_of(sheet(found, False), SIDE)
    assert len(others) == 4
    kept = [fake_b, back_a, fake_a, back_b]
    assert all(torch.equal(row, w[:8].expand(-1, 3, -1, -1)) for row, w in zip(others, kept, strict=True))


def test_the_first_images_are_kept_for_figures():
    parts = [blocks(20, 3, seed) for seed in range(6)]
    kept = evaluate._kept(Translations(*parts))
    assert all(torch.equal(kept[name], part[:16]) for name, part in zip(Translations._fields, parts, strict=True))


# --- a training from its config to its scores ----------------------------------------------------------------------

SMALL = {"side": SIDE, "n_steps": 3, "n_train": 12, "n_test": 12, "batch": 2, "n_filters": 2, "n_blocks": 1,
         "n_critic_filters": 2, "n_critic_layers": 2}  # fmt: skip
BOTH_WAYS = {f"{kind}_{name}" for kind in ("cycle", "noise", "jpeg", "diversity") for name in "ab"}
CHANGED = {f"{kind}_{name}" for kind in ("change", "cycle_share") for name in "ab"}
LABELS = {f"{image}_{key}" for image in ("photo", "label") for key in ("pixel", "class", "iou", "information")}
OWN = {
    "scenes": LABELS | {"kid_b", "two_sample_b"},
    "paintings": {"shift_a", "shift_b", "kid_b", "two_sample_b"},
    "digits": {f"{key}_{name}" for key in ("same", "information", "fid", "kid") for name in "ab"},
    "shapes": {f"{key}_{n}" for key in ("recoloured", "outline_kept", "reshaped", "outline_iou") for n in "ab"},
}


@pytest.mark.parametrize("task", OWN)
def test_a_training_ends_in_scores_a_sheet_and_what_figures_draw(task, tmp_path):
    config = TranslationConfig(task, "cyclegan", **SMALL)
    with deterministic("cpu"):
        outcome = translation(config, Workspace(tmp_path, 0))
    assert set(outcome.scores) == BOTH_WAYS | CHANGED | OWN[task]
    for name, score in outcome.scores.items():
        assert math.isfinite(score.value), name
    assert outcome.scores["cycle_a"].protocol == {
        "task": task, "method": "cyclegan", "side": SIDE, "training_images": 12, "steps": 3, "model": "the last",
        "outputs": "rounded to uint8", "split": "test",
        "distance": "mean absolute difference of an image, levels 0 .. 255",
    }  # fmt: skip
    assert [row["step"] for row in outcome.history] == [1, 2, 3]
    channels = 1 if task == "digits" else 3
    assert set(outcome.weights) == set(Translations._fields)
    assert all(tuple(kept.shape) == (12, channels, SIDE, SIDE) for kept in outcome.weights.values())
    assert outcome.samples is not None
    rows = rows_of(outcome.samples, SIDE)
    kept = outcome.weights
    shown = ["fake_b", "back_a", "fake_a", "back_b"] if task == "digits" else ["a", "fake_b", "back_a", "b", "fake_a",
                                                                               "back_b"]  # fmt: skip
    assert all(torch.equal(row, kept[key][:8].expand(-1, 3, -1, -1)) for row, key in zip(rows, shown, strict=True))
    assert outcome.facts["parameters"]["to_b"] > outcome.facts["parameters"]["judge_b"] > 100
    # What the translators make of the test images, not of the training's.
    assert not torch.equal(kept["back_a"], kept["a"])


def test_what_is_translated_are_the_test_images_there_and_back(tmp_path, monkeypatch):
    """With known translators in the place of trained ones: G makes the negative, F halves the contrast."""
    known = Method(lambda x: -x, lambda x: x / 2, lambda a, b, step: torch.zeros(1), ("nothing",), {})
    monkeypatch.setattr(evaluate, "method_of", lambda *given: known)
    monkeypatch.setattr(evaluate, "train", lambda method, *given: Trained(method, []))
    config = TranslationConfig("shapes", "cyclegan", **SMALL)
    outcome = translation(config, Workspace(tmp_path, 0))
    test = load(config, torch.device("cpu")).domains
    kept = {name: images.float() for name, images in outcome.weights.items()}
    assert torch.equal(outcome.weights["a"], test.test_a)
    assert torch.equal(outcome.weights["b"], test.test_b)
    halved = [127.5 + (kept[name] - 127.5) / 2 for name in ("b", "fake_b")]
    assert torch.equal(kept["fake_b"], 255 - kept["a"])
    assert (kept["fake_a"] - halved[0]).abs().max() <= 0.5
    assert (kept["back_a"] - halved[1]).abs().max() <= 0.5
    assert torch.equal(kept["back_b"], 255 - kept["fake_a"])
    for name, (one, other) in {"cycle_a": ("back_a", "a"), "cycle_b": ("back_b", "b"), "change_a": ("fake_b", "a"),
                               "change_b": ("fake_a", "b")}.items():  # fmt: skip
        wanted = (kept[one] - kept[other]).abs().mean().item()
        assert outcome.scores[name].value == pytest.approx(wanted, rel=1e-5), name
    assert outcome.scores["recoloured_b"].value == pytest.approx(
        shape_scores(outcome.weights["fake_b"], load(config, torch.device("cpu")).truth_a, "a")["recoloured"].value
    )


def test_cogan_has_no_way_back(tmp_path):
    """And so no score and no row of a reconstruction."""
    with deterministic("cpu"):
        outcome = translation(TranslationConfig("scenes", "cogan", **SMALL), Workspace(tmp_path, 0))
    assert set(outcome.scores) == {"diversity_a", "diversity_b"} | OWN["scenes"]
    assert set(outcome.weights) == {"a", "b", "fake_b", "fake_a"}
    assert outcome.samples is not None
    rows = rows_of(outcome.samples, SIDE)
    shown = [outcome.weights[key][:8] for key in ("a", "fake_b", "b", "fake_a")]
    assert all(torch.equal(row, images) for row, images in zip(rows, shown, strict=True))


# --- what stands beside the scores ---------------------------------------------------------------------------------


def test_anchors_know_all_or_nothing(tmp_path):
    with deterministic("cpu"):
        outcome = anchors(AnchorsConfig("scenes", 64, 60, 60), Workspace(tmp_path, 0))
    scores = {name: score.value for name, score in outcome.scores.items()}
    assert {name.rpartition("_")[2] for name in scores} == {"real", "other", "input", "majority"}
    assert scores["label_iou_real"] == 1
    assert scores["label_information_real"] == pytest.approx(1)
    assert scores["photo_iou_real"] > 2 * scores["photo_iou_other"]
    assert scores["label_iou_other"] < 0.35
    assert scores["photo_iou_input"] < scores["photo_iou_real"]
    assert scores["diversity_b_real"] == scores["diversity_a_real"] == 1
    assert scores["diversity_b_other"] == pytest.approx(1, abs=0.15)
    assert scores["two_sample_b_input"] > 0.9 > scores["two_sample_b_other"]
    assert outcome.scores["label_iou_other"].protocol["images"] == "other"
    assert outcome.samples is not None
    assert outcome.samples.shape[1] == 6 * 65 + 1


def test_one_map_for_all_has_the_majority_of_training_at_each_pixel(tmp_path):
    """By numpy from the scenes themselves; it beats other scenes' label maps, and tells the place, not the input."""
    config = AnchorsConfig("scenes", 32, 60, 40)
    with deterministic("cpu"):
        found, again = (anchors(config, Workspace(tmp_path, seed)).scores for seed in (0, 1))
    train, truth = (
        scenes.scenes(n, 32, seed).labels.numpy() for n, seed in ((60, tasks.A_SEED), (40, tasks.TEST_SEED))
    )
    majority = np.empty((32, 32), dtype=np.int64)
    for row, column in np.ndindex(32, 32):
        majority[row, column] = np.bincount(train[:, row, column], minlength=7).argmax()
    t, r = truth.ravel(), np.broadcast_to(majority, truth.shape).ravel()
    assert found["label_pixel_majority"].value == pytest.approx((t == r).mean())
    assert found["label_class_majority"].value == pytest.approx(recall_score(t, r, average="macro"))
    assert found["label_iou_majority"].value == pytest.approx(jaccard_score(t, r, average="macro"))
    for key in ("pixel", "class", "iou", "information"):
        score, other = found[f"label_{key}_majority"], found[f"label_{key}_other"]
        assert score.value > other.value, key
        assert score.value == again[f"label_{key}_majority"].value, "nothing of it is drawn"
        assert {**score.protocol, "images": "other"} == other.protocol
    assert not [name for name in found if name.endswith("_majority") and not name.startswith("label_")]


def test_anchors_of_digits_are_training_images_of_the_target(tmp_path):
    with deterministic("cpu"):
        outcome = anchors(AnchorsConfig("digits", 16, 300, 200), Workspace(tmp_path, 0))
        again = anchors(AnchorsConfig("digits", 16, 300, 200), Workspace(tmp_path, 1))
    scores = {name: score.value for name, score in outcome.scores.items()}
    assert outcome.samples is None, "real digits may not be handed on"
    assert scores["same_b_real"] == scores["same_b_other"] < 0.25
    assert scores["same_a_input"] > 0.5 > scores["same_a_real"], "the input left as it is has the input's digit"
    assert scores["fid_a_real"] < scores["fid_a_input"]
    assert again.scores["same_b_real"].value != scores["same_b_real"], "which ones is the seed's"
