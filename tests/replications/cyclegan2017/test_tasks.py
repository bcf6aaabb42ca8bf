"""Which images a task has: unpaired, never tested on what was trained on, the same for every seed; and folders."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from lib import datasets
from lib.datasets import photos, scenes
from lib.errors import UserError
from lib.execution.workspace import Workspace
from replications import papers
from replications.__main__ import main
from replications.cyclegan2017 import plan, presets, shapes, tasks
from replications.cyclegan2017.config import AnchorsConfig, TranslationConfig
from replications.cyclegan2017.tasks import Loaded, load, resized

CPU = torch.device("cpu")


def config_of(task: str, method: str = "cyclegan", side: int = 16, n_train: int = 40, n_test: int = 20):
    return TranslationConfig(task, method, side, 1, n_train, n_test)


def loaded(task: str, **values) -> Loaded:
    return load(config_of(task, **values), CPU)


def rows(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


# --- drawn tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["scenes", "paintings", "shapes", "digits"])
def test_images_are_bytes_of_the_asked_size_and_number(task):
    found = loaded(task)
    channels = 1 if task == "digits" else 3
    for images, n in zip(found.domains, (40, 40, 20, 20), strict=True):
        assert (images.shape, images.dtype) == ((n, channels, 16, 16), torch.uint8)
        assert images.max() > 180
    for images in found.domains:
        assert len(rows(images)) == len(images), "no image twice"
    trained = rows(found.domains.a) | rows(found.domains.b)
    assert not trained & (rows(found.domains.test_a) | rows(found.domains.test_b))
    anchor = load(AnchorsConfig(task, 16, 40, 20), CPU)
    for of_training, of_anchors in zip(found.domains, anchor.domains, strict=True):
        assert torch.equal(of_training, of_anchors)


def labels_of(pictures: Tensor) -> set[bytes]:
    return rows(scenes.read_pictures(pictures))


@pytest.mark.parametrize("arms", [("scenes-cyclegan", "scenes-feature"), ("paintings-plain", "paintings-identity")])
def test_runs_of_one_process_draw_their_images_once_and_leave_them_as_they_are(arms, tmp_path):
    plan_of = [run for run in plan("smoke", 1) if run.experiment in arms]

    def images() -> list[Tensor]:
        found = load(plan_of[0].config, CPU)
        return [each for each in (*found.domains, found.truth_a) if each is not None]

    before = images()
    kept = [each.clone() for each in before]
    for run in plan_of:
        papers.compute(run, Workspace(tmp_path / run.experiment, run.seed))
    after = images()
    drawn = slice(1, None, 2) if "scenes" in arms[0] else slice(4)  # label maps are coloured anew for every run
    assert [each.data_ptr() for each in after[drawn]] == [each.data_ptr() for each in before[drawn]]
    assert all(torch.equal(*pair) for pair in zip(after, kept, strict=True))


def test_scenes_are_unpaired_but_for_pix2pix_and_the_tests():
    found, paired = loaded("scenes"), loaded("scenes", method="pix2pix")
    first = scenes.scenes(40, 16, tasks.A_SEED)
    assert torch.equal(found.domains.a, scenes.as_pictures(first.labels))
    assert torch.equal(paired.domains.a, found.domains.a)
    assert torch.equal(paired.domains.b, first.photographs), "pix2pix sees the photographs of A's own scenes"
    assert not rows(found.domains.b) & rows(first.photographs), "and the others those of none of them"
    # The scenes behind B: neither those behind A nor those of the tests.
    behind_b = scenes.scenes(40, 16, tasks.B_SEED)
    assert torch.equal(found.domains.b, behind_b.photographs)
    assert found.truth_a is not None
    assert not rows(behind_b.labels) & rows(first.labels)
    assert not rows(found.truth_a) & (rows(behind_b.labels) | rows(first.labels))
    for one in (found, paired):
        test = scenes.scenes(20, 16, tasks.TEST_SEED)
        assert one.truth_a is one.truth_b or torch.equal(one.truth_a, one.truth_b)
        assert torch.equal(one.truth_a, test.labels)
        assert torch.equal(one.domains.test_b, test.photographs), "tests know the truth of either side"
        assert torch.equal(one.domains.test_a, scenes.as_pictures(test.labels))


def test_paintings_and_photographs_show_other_streets():
    found = loaded("paintings")
    assert torch.equal(found.domains.b, scenes.scenes(40, 16, tasks.B_SEED).photographs)
    assert torch.equal(found.domains.a, scenes.paintings(40, 16, tasks.A_SEED))
    assert found.truth_a is None
    assert found.truth_b is None
    seeds = {tasks.A_SEED, tasks.B_SEED, tasks.TEST_SEED, tasks.TEST_SEED + 1}
    assert len(seeds) == 4


def test_outlines_of_shapes_are_those_of_the_test_images():
    found = loaded("shapes", side=32)
    for domain, images, masks in (
        ("a", found.domains.test_a, found.truth_a),
        ("b", found.domains.test_b, found.truth_b),
    ):
        drawn = shapes.shapes(domain, 20, 32, tasks.TEST_SEED)
        assert torch.equal(images, drawn.images)
        assert torch.equal(masks, drawn.masks)
    kinds = [shapes.seen(images).kind.float().mean().item() for images in found.domains]
    assert [round(kind) for kind in kinds] == [0, 1, 0, 1]


def test_the_data_are_the_same_for_every_seed_of_a_training():
    assert not {"seed", "seeds"} & set(TranslationConfig.__dataclass_fields__)
    first, again = loaded("digits"), loaded("digits")
    for one, other in zip(first.domains, again.domains, strict=True):
        assert torch.equal(one, other)
    by_seed = [run.config for run in plan("smoke", 2) if run.experiment == "digits-cyclegan"]
    assert by_seed[0] == by_seed[1]


# --- digits --------------------------------------------------------------------------------------------------------


def test_digits_are_grey_levels_of_the_asked_side_from_their_own_splits():
    found = loaded("digits", n_train=0, n_test=0)
    assert [len(images) for images in found.domains] == [4000, 1437, 1000, 360]
    for name, images, test, truth in (
        ("mnist-5k", found.domains.a, found.domains.test_a, found.truth_a),
        ("uci-digits", found.domains.b, found.domains.test_b, found.truth_b),
    ):
        data = datasets.load(name)
        (train, _), (held_out, labels) = data.split("train"), data.split("test")
        assert torch.equal(test, resized(held_out, 16, data.max_value))
        assert torch.equal(truth, labels)
        assert rows(images) == rows(resized(train, 16, data.max_value))
        assert not torch.equal(images, resized(train, 16, data.max_value)), "a part of them is a random part"
        assert (images.min(), images.max()) == (0, 255)
    few = loaded("digits", n_train=100, n_test=50)
    assert torch.equal(few.domains.a, found.domains.a[:100])
    assert torch.equal(few.truth_b, found.truth_b[:50])


def test_resized_keeps_flat_grey_and_fills_the_range():
    flat = torch.full((2, 1, 8, 8), 4, dtype=torch.uint8)
    assert resized(flat, 16, 16).unique().tolist() == [64]  # 4 / 16 * 255 = 63.75
    assert resized(16 * (flat > 0).byte(), 28, 16).unique().tolist() == [255]
    picture = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resized(picture, 16, 255), picture)
    # A quarter of the side is antialiased: no pixel is skipped, and none counts twice.
    line = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    line[..., 5] = 200
    assert resized(line, 4, 255).float().mean().item() == pytest.approx(line.float().mean().item(), rel=0.1)


def test_runs_carry_the_digests_of_what_is_read():
    for run in plan("smoke", 1):
        wanted = {"mnist-5k", "uci-digits"} if "digits" in run.experiment else set()
        assert set(run.data) == wanted, run.experiment
    real = {run.experiment: run.data for run in plan("paper", 1) if run.data}
    assert set(real) == {f"{e}{t}{c}" for t in ("horse2deer", "automobile2truck") for e, c in
                         (("", "-cyclegan"), ("anchors-", ""))}  # fmt: skip
    assert all(set(data) == {"cifar10"} for data in real.values())
    assert tasks.digests(config_of("digits"))["mnist-5k"] == datasets.digest("mnist-5k")


def test_pairs_of_cifar10_are_its_classes(monkeypatch):
    asked = []

    def pair(a: str, b: str) -> photos.Photos:
        asked.append((a, b))
        parts = [torch.full((12, 3, 32, 32), value, dtype=torch.uint8) for value in (1, 2, 3, 4)]
        return photos.Photos(*parts, "digest", "cifar10")

    monkeypatch.setattr(photos, "cifar10_pair", pair)
    found = load(AnchorsConfig("horse2deer", 32, 0, 11), CPU)
    assert [images[0, 0, 0, 0].item() for images in found.domains] == [1, 2, 3, 4]
    assert [len(images) for images in found.domains] == [12, 12, 11, 11]
    load(AnchorsConfig("automobile2truck", 32, 0, 0), CPU)
    assert asked == [("horse", "deer"), ("automobile", "truck")]


# --- folders of photographs ----------------------------------------------------------------------------------------

COUNTS = {"trainA": 12, "trainB": 13, "testA": 10, "testB": 11}  # scores need ten


def fill(folder: Path, counts: dict[str, int] = COUNTS, seed: int = 0) -> None:
    """Smooth JPEGs of many sizes, none square; A is reddish, B bluish."""
    rng = np.random.default_rng(seed)
    for domain, count in counts.items():
        (folder / domain).mkdir(parents=True)
        for i in range(count):
            small = rng.integers(0, 120, (4, 5, 3))
            small[..., 0 if domain.endswith("A") else 2] += 120
            Image.fromarray(small.astype(np.uint8)).resize((30 + i, 50 - i)).save(folder / domain / f"{i:02}.jpg")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGEN_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "photos"


def test_a_folder_called_like_a_task_of_ours_is_a_folder(root):
    for place, name in enumerate(("shapes", "mnist", "scenes", "horse2deer")):
        fill(root / name, seed=place)
    experiments = {run.experiment for run in plan("photos", 2)}
    for name in ("shapes", "mnist", "scenes", "horse2deer"):
        config = replace(config_of(f"photos/{name}", n_train=0, n_test=0), crop_from=18)
        found = load(config, CPU)
        wanted = photos.load(name, 18, test_side=16)
        for ours, theirs in zip(found.domains, wanted[:4], strict=True):
            assert torch.equal(ours, theirs)
        assert [tuple(images.shape) for images in found.domains] == [
            (12, 3, 18, 18), (13, 3, 18, 18), (10, 3, 16, 16), (11, 3, 16, 16)
        ]  # fmt: skip
        red, blue = (images.float().mean((0, 2, 3))[[0, 2]] for images in (found.domains.a, found.domains.b))
        assert red[0] > red[1] + 60
        assert blue[1] > blue[0] + 60
        assert tasks.digests(config) == {f"photos/{name}": photos.digest(name)}
        anchor = load(AnchorsConfig(f"photos/{name}", 16, 0, 0), CPU)
        assert anchor.domains.a.shape == (12, 3, 16, 16), "anchors see no crops"
        assert {f"photos-{name}-cyclegan", f"photos-{name}-identity", f"anchors-photos-{name}"} <= experiments
    assert "shapes-cyclegan" not in experiments


def test_what_is_wrong_with_a_folder_is_one_sentence(root):
    def refusal(name: str) -> str:
        with pytest.raises(UserError) as told:
            load(config_of(f"photos/{name}", n_train=0, n_test=0), CPU)
        assert "\n" not in str(told.value)
        return str(told.value)

    assert "horses" in refusal("horses")
    fill(root / "few", {**COUNTS, "testB": 9})
    assert refusal("few") == "testB of few holds 9 images: scores take 10 at least, put more there."
    fill(root / "small")
    with pytest.raises(UserError, match=r"^trainA of small holds 12 images, fewer than a batch of 13: "):
        load(replace(config_of("photos/small", n_train=0, n_test=0), batch=13), CPU)
    fill(root / "broken")
    (root / "broken" / "trainB" / "03.jpg").write_bytes(b"no JPEG")
    assert "trainB/03.jpg" in refusal("broken")
    (root / "empty" / "trainA").mkdir(parents=True)
    assert "empty" in refusal("empty")


SIZES = {"side": 16, "crop_from": 18, "flip": True, "n_steps": 3, "n_train": 0, "n_test": 0, "batch": 2,
         "n_filters": 2, "n_blocks": 1, "n_critic_filters": 2, "n_critic_layers": 2, "pool": 3}  # fmt: skip


@pytest.fixture
def regen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`regen run cyclegan2017 --preset photos` in this process: its exit code and all it said."""
    monkeypatch.setattr(presets, "PHOTOS", SIZES)

    def run(out: Path, *more: str) -> tuple[int, str]:
        words = ["run", "cyclegan2017", "--preset", "photos", "--seeds", "1", "--workers", "1", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["regen", *words, "--out", str(out), *more])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run


def kept(out: Path) -> dict[str, dict[str, bytes]]:
    """What every finished run of a store holds, but for the record of how it went."""
    found = {}
    for folder in (out / "runs" / "cyclegan2017").iterdir():
        if (folder / "results.json").exists():
            files = ("results.json", "history.csv", "weights.safetensors", "samples.png")
            found[folder.name] = {name: (folder / name).read_bytes() for name in files if (folder / name).exists()}
    return found


def test_a_users_folder_is_trained_on_and_a_killed_run_goes_on_in_the_same_bits(root, tmp_path, regen):
    """Cropped, mirrored and from a pool that is full; killed after each of its steps."""
    fill(root / "shapes")
    code, said = regen(tmp_path / "whole")
    assert code == 0, said
    assert "3 runs: 3 computed" in said
    keep = Workspace.keep

    def keep_and_stop(self: Workspace, *state: Any, **parts: Any) -> None:
        self.deadline = 0.0
        keep(self, *state, **parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workspace, "keep", keep_and_stop)
        for _ in range(SIZES["n_steps"]):
            code, said = regen(tmp_path / "killed", "--experiment", "photos-shapes-identity")
            assert (code, "1 out of time" in said) == (1, True), said
    code, said = regen(tmp_path / "killed", "--experiment", "photos-shapes-identity")
    assert code == 0, said
    whole, killed = kept(tmp_path / "whole"), kept(tmp_path / "killed")
    runs = {run.experiment: run for run in plan("photos", 1)}
    assert set(runs) == {"photos-shapes-cyclegan", "photos-shapes-identity", "anchors-photos-shapes"}
    assert whole.keys() == {run.fingerprint for run in runs.values()}
    assert killed == {key: whole[key] for key in [runs["photos-shapes-identity"].fingerprint]}
    files = whole[runs["photos-shapes-identity"].fingerprint]
    assert files["history.csv"].count(b"\n") == 4
    assert b"identity_a" in files["history.csv"]
    path = tmp_path / "whole" / "runs" / "cyclegan2017" / runs["photos-shapes-cyclegan"].fingerprint
    pictures = load_file(path / "weights.safetensors")
    assert torch.equal(pictures["a"], photos.load("shapes", 16).test_a[:16])
    with Image.open(path / "samples.png") as sheet:
        assert sheet.size == (8 * 17 + 1, 4 * 17 + 1), "photographs may not be handed on: no rows of inputs"


def test_a_changed_folder_is_another_run(root, tmp_path, regen):
    fill(root / "mnist")
    first = {run.fingerprint for run in plan("photos", 1)}
    (root / "mnist" / "trainA" / "00.jpg").unlink()
    assert not first & {run.fingerprint for run in plan("photos", 1)}
    (root / "mnist" / "testB" / "00.jpg").unlink()
    (root / "mnist" / "testB" / "01.jpg").unlink()
    code, said = regen(tmp_path / "out")
    assert code == 2
    assert "testB of mnist holds 9 images" in said
    assert "Traceback" not in said
