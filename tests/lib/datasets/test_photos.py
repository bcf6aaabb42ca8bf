"""Folders of photographs: what load promises, what is kept beside, and one sentence for everything that is wrong."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib import datasets
from lib.datasets import loading, photo_folders, photos
from lib.errors import UserError

COUNTS = {"trainA": 5, "trainB": 4, "testA": 2, "testB": 3}
SIDE = 24
MINE = "horses at night"  # a user's own name


def jpeg(path: Path, seed: int) -> None:
    """A smooth picture with an edge and a corner, each of another size, which is never square."""
    width, height = 40 + 7 * seed % 31, 70 - 5 * seed % 23
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin((9 + seed) * x + c) * np.cos((11 - seed % 5) * y * (c + 1)) for c in range(3)], axis=-1)
    array = (120 + 80 * waves + 40 * (x > 0.1 * (seed % 9))[..., None]).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, "JPEG", quality=90)


def fill(folder: Path) -> Path:
    """A set in the usual layout; with suffixes in capitals, a folder in a folder, and files that are no images."""
    seed = 0
    for domain, count in COUNTS.items():
        for i in range(count):
            name = ("deep/10.JPG" if domain == "trainB" else "10.JPEG") if i == 0 else f"{i + 1}.jpg"
            jpeg(folder / domain / name, seed)
            seed += 1
    (folder / "trainA" / "notes.txt").write_text("mine")
    (folder / "trainA" / ".DS_Store").write_bytes(b"\0")
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGEN_DATA", str(tmp_path / "data"))
    fill(tmp_path / "data" / "photos" / MINE)
    return tmp_path / "data" / "photos"


def by_hand(path: Path, side: int = SIDE) -> np.ndarray:
    image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def in_order(folder: Path) -> list[Path]:
    """By the bytes of their names below the domain: "10.JPEG" < "2.jpg", capitals first."""
    paths = [p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")]
    return sorted(paths, key=lambda p: os.fsencode(str(p.relative_to(folder))))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as told:
        call()
    assert "\n" not in str(told.value)
    assert str(told.value).endswith(".")
    return str(told.value)


def test_images_are_those_that_pil_makes_by_hand(root: Path) -> None:
    loaded = photos.load(MINE, SIDE)
    assert (loaded.name, loaded.digest) == (MINE, photos.digest(MINE))
    for images, (domain, count) in zip(loaded[:4], COUNTS.items(), strict=True):
        assert isinstance(images, torch.Tensor)
        assert (images.shape, images.dtype) == ((count, 3, SIDE, SIDE), torch.uint8)
        wanted = [by_hand(path) for path in in_order(root / MINE / domain)]
        assert np.array_equal(images.numpy(), np.stack(wanted))


def test_the_digest_is_that_of_sha256sum(root: Path, tmp_path: Path) -> None:
    lines = []
    for domain in sorted(COUNTS):
        for path in in_order(root / MINE / domain):
            digits = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f"{digits}  {path.relative_to(root / MINE).as_posix()}\n")
    wanted = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert photos.digest(MINE) == wanted
    shutil.copytree(root / MINE, tmp_path / "elsewhere" / "photos" / "renamed")
    assert photos.digest("renamed", tmp_path / "elsewhere") == wanted, "neither name nor place of the folder matter"
    (root / MINE / "testB" / "2.jpg").rename(root / MINE / "testB" / "2b.jpg")
    assert photos.digest(MINE) != wanted


def test_a_second_load_decodes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = photos.load(MINE, SIDE)
    monkeypatch.setattr(photos, "pixels", lambda *_: pytest.fail("an image was decoded again"))
    monkeypatch.setattr(photo_folders, "sha256_of", lambda _: pytest.fail("a file was read again"))
    second = photos.load(MINE, SIDE)
    assert torch.equal(first.train_b, second.train_b)
    kept = first.train_b.clone()
    second.train_b.zero_()
    assert torch.equal(kept, photos.load(MINE, SIDE).train_b), "what is written to a tensor stays in it"


def test_two_sides_stand_beside_each_other(root: Path) -> None:
    small, large = photos.load(MINE, SIDE), photos.load(MINE, 2 * SIDE)
    assert large.train_a.shape == (5, 3, 2 * SIDE, 2 * SIDE)
    assert torch.equal(photos.load(MINE, SIDE).train_a, small.train_a)
    kept = sorted(p.name for p in (root / ".prepared" / MINE).iterdir() if p.suffix != ".lock")
    arrays = [f"{part}-{side}.{kind}" for part in ("test", "train") for side in (24, 48) for kind in ("json", "npy")]
    assert kept == ["digest.json", *arrays]


def test_test_images_may_have_a_side_of_their_own(root: Path) -> None:
    both = photos.load(MINE, SIDE, test_side=16)
    assert [images.shape[-1] for images in both[:4]] == [SIDE, SIDE, 16, 16]  # type: ignore[union-attr]
    assert torch.equal(both.train_b, photos.load(MINE, SIDE).train_b)
    assert torch.equal(both.test_b, photos.load(MINE, 16).test_b)
    assert np.array_equal(both.test_a[1].numpy(), by_hand(root / MINE / "testA" / "2.jpg", 16))


def test_a_changed_file_makes_another_digest_and_another_array(root: Path) -> None:
    before, old = photos.load(MINE, SIDE), photos.digest(MINE)
    path = root / MINE / "trainA" / "3.jpg"
    shutil.copy(root / MINE / "testA" / "2.jpg", path)
    after = photos.load(MINE, SIDE)
    assert after.digest == photos.digest(MINE) != old
    assert np.array_equal(after.train_a[2].numpy(), by_hand(path))
    assert torch.equal(before.train_b, after.train_b)
    path.touch()
    assert photos.digest(MINE) == after.digest, "the bytes decide, not the time"


def test_a_digest_is_kept_and_needs_no_place_to_keep_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(photo_folders, "write_atomically", full)
        digest = photos.digest(MINE)
    assert not (root / ".prepared").exists()
    assert photos.digest(MINE) == digest
    for text in ("{", "[]", "{}"):
        (root / ".prepared" / MINE / "digest.json").write_text(text)
        assert photos.digest(MINE) == digest


def test_what_is_absent_or_not_whole_has_no_digest(root: Path) -> None:
    assert photos.digest("horse2zebra") == photos.digest("nothing") == datasets.OF_THE_COPY
    assert photos.require(MINE) == photos.digest(MINE) != datasets.OF_THE_COPY
    shutil.rmtree(root / MINE / "testB")
    assert photos.digest(MINE) == datasets.OF_THE_COPY
    assert "testB is missing" in refusal(lambda: photos.require(MINE))


def test_names_are_the_folders_that_are_there(root: Path, tmp_path: Path) -> None:
    (root / "horse2zebra.zip").write_bytes(b"")
    (root / ".horse2zebra.unpacking").mkdir()
    (root / "begun").mkdir()
    photos.load(MINE, SIDE)
    assert photos.names() == ["begun", MINE]
    assert photos.names(tmp_path / "nowhere") == []


def test_pairs_side_by_side_are_two_domains(root: Path) -> None:
    array = np.zeros((20, 50, 3), dtype=np.uint8)
    for part, count in (("train", 3), ("val", 2)):
        for i in range(count):
            array[:, :25], array[:, 25:] = 10 * i + (part == "val"), 200 + 10 * i + (part == "val")
            path = root / "maps" / part / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    loaded = photos.load("maps", 8)
    values = [images.flatten(1).unique(dim=1)[:, 0].tolist() for images in loaded[:4]]  # type: ignore[union-attr]
    assert values == [[0, 10, 20], [200, 210, 220], [1, 11], [201, 211]]


@pytest.mark.parametrize("domain", COUNTS)
def test_a_missing_or_empty_domain_is_told(domain: str, root: Path) -> None:
    folder = root / MINE / domain
    shutil.rmtree(folder)
    four = "a set has four folders of images, trainA and testA of one domain, trainB and testB of the other."
    assert refusal(lambda: photos.load(MINE, SIDE)) == f"{folder} is missing: {four}"
    folder.symlink_to(folder)
    assert refusal(lambda: photos.load(MINE, SIDE)) == f"{folder} is a link that leads nowhere: {four}"
    folder.unlink()
    folder.mkdir()
    endings = "put files there that end in .jpg .jpeg .png .webp .bmp .tif .tiff .ppm."
    assert refusal(lambda: photos.load(MINE, SIDE)) == f"{folder} holds no images (nothing else either): {endings}"
    (folder / "movie.mp4").write_bytes(b"")
    wanted = f"{folder} holds no images (only others, such as movie.mp4): {endings}"
    assert refusal(lambda: photos.load(MINE, SIDE)) == wanted


def test_links_are_followed_but_not_in_circles(root: Path, tmp_path: Path) -> None:
    before = photos.load(MINE, SIDE)
    (root / MINE / "trainA").rename(tmp_path / "elsewhere")
    (root / MINE / "trainA").symlink_to(tmp_path / "elsewhere")
    assert torch.equal(photos.load(MINE, SIDE).train_a, before.train_a)
    os.mkfifo(root / MINE / "testA" / "pipe.jpg")
    assert len(photo_folders.find(MINE).domain("testA")) == 2, "a pipe is no file, and reading it would never end"
    circle = root / MINE / "testA" / "again"
    circle.symlink_to(root / MINE / "testA")
    assert refusal(lambda: photos.load(MINE, SIDE)) == (
        f"{circle} is a link to a folder that it lies in, a circle: remove it."
    )
    circle.unlink()
    circle = circle.with_name("a.jpg")
    circle.symlink_to(circle)
    assert refusal(lambda: photos.load(MINE, SIDE)).startswith(f"{circle} is a link that leads nowhere (")
    circle.unlink()
    circle.symlink_to("gone.jpg")
    assert "remove it, or put the image there." in refusal(lambda: photos.load(MINE, SIDE))


def test_a_broken_image_is_named_and_nothing_is_kept(root: Path) -> None:
    path = root / MINE / "trainB" / "3.jpg"
    path.write_bytes(path.read_bytes()[:500])
    assert refusal(lambda: photos.load(MINE, SIDE)).startswith(f"{path} cannot be read as an image (")
    assert [p.name for p in (root / ".prepared" / MINE).glob("t*") if p.suffix != ".lock"] == []


def test_a_domain_smaller_than_a_batch_is_told(root: Path) -> None:
    loaded = photos.load(MINE, SIDE)
    photos.require_batch(loaded, 4)
    assert refusal(lambda: photos.require_batch(loaded, 5)) == (
        f"trainB of {MINE} holds 4 images, fewer than a batch of 5: add images to that folder, or take a smaller batch."
    )


def test_absent_photos_say_how_to_get_them(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(lambda: photos.load("horse2zebra", SIDE))
    assert said == (
        f"horse2zebra is not here: {root / 'horse2zebra'} is missing. Run `regen data fetch horse2zebra`, or put the"
        " folder there by hand (home: https://junyanz.github.io/CycleGAN/)."
    )
    assert f"--data-dir {tmp_path}`" in refusal(lambda: photos.load("horse2zebra", SIDE, tmp_path))
    by_hand = "It is not handed out: put the folder there by hand (home: https://www.cityscapes-dataset.com/)."
    assert refusal(lambda: photos.load("cityscapes", SIDE)).endswith(by_hand)
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    assert "REGEN_OFFLINE forbids downloads" in refusal(lambda: photos.load("horse2zebra", SIDE))
    assert refusal(lambda: photos.load("horses at nihgt", SIDE)) == (
        f"There are no photos called 'horses at nihgt'. Did you mean {MINE}? Put them into {root / '<name>'}, in"
        f" folders trainA, trainB, testA, testB; there are {MINE}."
    )
    for name in ("../photos/horses at night", ".prepared", ""):
        photos.digest(MINE)  # so that .prepared is there
        assert refusal(lambda name=name: photos.load(name, SIDE)).startswith(f"There are no photos called {name!r}.")


def test_a_full_disk_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    photos.digest(MINE)
    monkeypatch.setattr(photos.os, "replace", full)
    said = refusal(lambda: photos.load(MINE, SIDE))
    assert said.endswith("could not be written: No space left on device. Free the disk or choose another REGEN_DATA.")
    assert not list((root / ".prepared" / MINE).glob("*.npy*"))


def test_a_kill_between_array_and_record_is_mended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos.load(MINE, SIDE)
    shutil.copy(root / MINE / "testA" / "2.jpg", root / MINE / "trainA" / "3.jpg")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    photos.digest(MINE)
    with monkeypatch.context() as patch:
        patch.setattr(photos, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            photos.load(MINE, SIDE)
    assert not (root / ".prepared" / MINE / "train-24.json").exists(), "an old record beside a new array"
    assert np.array_equal(photos.load(MINE, SIDE).train_a[2], by_hand(root / MINE / "trainA" / "3.jpg"))


def test_a_damaged_array_is_made_again_or_told(root: Path) -> None:
    before = photos.load(MINE, SIDE).test_b.clone()
    array = root / ".prepared" / MINE / "test-24.npy"
    whole = array.read_bytes()
    array.write_bytes(whole[:-1])
    assert torch.equal(photos.load(MINE, SIDE).test_b, before)
    assert array.read_bytes() == whole
    array.write_bytes(b"x" + whole[1:])
    assert refusal(lambda: photos.load(MINE, SIDE)).startswith(f"{array} is damaged (")


def test_a_second_process_takes_the_work_of_the_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = photos.load(MINE, SIDE)
    done = [root / ".prepared" / MINE / name for name in ("train-24.npy", "train-24.json")]
    aside = [path.rename(tmp_path / path.name) for path in done]

    class FirstWasHere:
        def __init__(self, path: Path) -> None:
            self.folder = path.parent

        def __enter__(self) -> None:
            for path in aside:
                shutil.copy(path, self.folder)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(photos, "FileLock", FirstWasHere)
    monkeypatch.setattr(photos, "_write", lambda *_: pytest.fail("it was prepared twice"))
    assert torch.equal(photos.load(MINE, SIDE).train_a, before.train_a)


def test_the_number_of_threads_does_not_matter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images at a time, so that there are several portions and a last one that is not full."""
    monkeypatch.setattr(photos, "AT_A_TIME", 5)
    found = []
    for threads in (1, 4):
        monkeypatch.setattr(photos.os, "cpu_count", lambda threads=threads: threads)
        found.append(torch.cat(photos.load(MINE, SIDE)[:4]))  # type: ignore[arg-type]
        shutil.rmtree(root / ".prepared")
    assert torch.equal(*found)
    assert len(found[0].unique(dim=0)) == sum(COUNTS.values())


def test_progress_and_what_is_left_out_are_lines(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(photos, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(photos, "AT_A_TIME", 5)
    photos.load(MINE, SIDE)
    assert capsys.readouterr().err.splitlines() == [
        f"{MINE}: files that are no images by their names are left out: 1, such as trainA/notes.txt",
        *(f"{MINE}: {i} of {n} images decoded" for i, n in ((5, 9), (9, 9), (5, 5))),
    ]
    photos.load(MINE, SIDE)
    assert capsys.readouterr().err == ""


def test_a_side_has_a_pixel() -> None:
    with pytest.raises(ValueError, match="at least one pixel, not 0"):
        photos.load(MINE, 0)


def test_two_classes_of_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.tensor([7, 4, 1, 7, 9, 4, 7])
    images = torch.arange(7, dtype=torch.uint8)[:, None, None, None].expand(7, 3, 32, 32)
    splits = {"train": range(5), "test": range(5, 7)}
    data = datasets.Dataset("cifar10", images, labels, splits, "ab" * 32, 255)
    monkeypatch.setattr(loading, "load", lambda name, root: data if (name, root) == ("cifar10", None) else None)
    pair = photos.cifar10_pair("horse", "deer")
    assert [part[:, 0, 0, 0].tolist() for part in pair[:4]] == [[0, 3], [1], [6], [5]]  # type: ignore[index]
    assert (pair.digest, pair.name) == ("ab" * 32, "cifar10-horse-deer")
    with pytest.raises(ValueError, match="no class 'zebra': it has airplane, automobile, bird"):
        photos.cifar10_pair("horse", "zebra")


def test_cifar10_itself_where_it_is() -> None:
    """The first two of its training images are commonly known: a frog, and a truck."""
    root = os.environ.get("REGEN_DATA")
    if not root or not next(s for s in datasets.status(Path(root)) if s.name == "cifar10").present:
        pytest.skip("REGEN_DATA names no folder with cifar10")
    images = datasets.load("cifar10", Path(root)).images
    pair = photos.cifar10_pair("frog", "truck", Path(root))
    assert torch.equal(pair.train_a[0], images[0])
    assert torch.equal(pair.train_b[0], images[1])
    assert [len(part) for part in pair[:2]] == [5_000, 5_000]
    for a, b in (("horse", "deer"), ("automobile", "truck")):
        there, back = photos.cifar10_pair(a, b, Path(root)), photos.cifar10_pair(b, a, Path(root))
        assert torch.equal(there.train_a, back.train_b)
        assert 80 < len(there.test_a) < 120
        assert json.dumps(there.name) == f'"cifar10-{a}-{b}"'
