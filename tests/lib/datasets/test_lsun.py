"""LSUN bedrooms, from a real LMDB of a few JPEGs made here: what is prepared, what is kept, and what is told."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lib import datasets
from lib.datasets import lsun, registry
from lib.datasets.contents import Content
from lib.errors import UserError

lmdb = pytest.importorskip("lmdb", reason="LSUN is read with the package lmdb, which only its readers need")

SIZES = [(300, 256), (256, 301), (256, 256), (90, 64), (64, 64), (40, 77), (256, 511)]  # width, height
N = 6  # of the seven that are there


def jpeg(i: int, size: tuple[int, int]) -> bytes:
    """A smooth picture with an edge, so that wrong crops, sides swapped and plain sampling all show; one is grey."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    waves = [np.sin((9 + i) * x + c) * np.cos((11 + i) * y * (c + 1)) for c in range(3)]
    pixels = (127 + 90 * np.stack(waves, axis=-1) + 30 * (x > 0.4)[..., None]).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert("L") if i == 2 else image).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def write_lmdb(folder: Path, values: list[bytes]) -> None:
    """Keys are hexadecimal words, as LSUN's are; put in from the last to the first, for their order must decide."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as writing:
        for i, value in reversed(list(enumerate(values))):
            writing.put(f"{i:040x}".encode(), value)
    (folder / "lock.mdb").unlink()  # the published LMDB has none, and may lie where nothing can be written


@pytest.fixture
def jpegs() -> list[bytes]:
    return [jpeg(i, size) for i, size in enumerate(SIZES)]


@pytest.fixture
def root(jpegs: list[bytes], small: None, tmp_path: Path) -> Path:
    """A data root with an LSUN of seven images, of which the registry takes six."""
    write_lmdb(tmp_path / "data" / "lsun" / lsun.LMDB, jpegs)
    return tmp_path / "data"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    whole = yaml.safe_load(registry.REGISTRY.read_text())
    fields = whole["datasets"]["lsun-bedroom"]
    fields |= {"images": [N, *fields["images"][1:]], "splits": {"train": [0, N]}}
    path = tmp_path / "registry.yaml"
    path.write_text(yaml.safe_dump(whole))
    monkeypatch.setattr(registry, "REGISTRY", path)
    monkeypatch.setattr(lsun, "IMAGES", N)
    monkeypatch.setenv("REGEN_DATA", str(tmp_path / "data"))
    datasets.loading._load.cache_clear()
    yield
    datasets.loading._load.cache_clear()


def array(root: Path) -> Path:
    return next((root / "lsun").glob("*.npy"))


def by_hand(data: bytes) -> np.ndarray:
    """The authors' Scale(64) and CenterCrop(64) in PIL's own words: (3, 64, 64)."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((64 * width // short, 64 * height // short), Image.Resampling.BILINEAR)
    left, top = round((image.width - 64) / 2), round((image.height - 64) / 2)
    return np.asarray(image.crop((left, top, left + 64, top + 64))).transpose(2, 0, 1)


def test_images_are_those_that_pil_makes_by_hand(root: Path, jpegs: list[bytes]) -> None:
    data = datasets.load("lsun-bedroom")
    assert data.images.shape == (N, 3, 64, 64)
    assert (data.images.dtype, data.labels, data.splits["train"]) == (torch.uint8, None, range(N))
    for image, made in zip(data.images.numpy(), jpegs, strict=False):
        assert np.array_equal(image, by_hand(made))
    assert len(np.unique(data.images.numpy(), axis=0)) == N


def test_the_copy_has_its_own_digest(root: Path, jpegs: list[bytes]) -> None:
    assert datasets.digest("lsun-bedroom") == datasets.OF_THE_COPY
    data = datasets.load("lsun-bedroom")
    whole = np.stack([by_hand(made) for made in jpegs[:N]])
    assert data.digest == datasets.digest("lsun-bedroom") == datasets.content_digest(Content(whole, None))
    listed = next(line for line in datasets.status() if line.name == "lsun-bedroom")
    assert (listed.present, listed.path, listed.digest, listed.pinned) == (True, array(root), data.digest, False)


def test_nothing_is_left_but_the_array_and_its_record(root: Path, tmp_path: Path, monkeypatch) -> None:
    """Nor a list of keys in the working folder, where torchvision leaves one, and believes one that it finds."""
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    letters = "".join(c for c in str(root / "lsun" / lsun.LMDB) if c.isascii() and c.isalpha())
    (working / f"_cache_{letters}").write_text("no list of keys")
    datasets.load("lsun-bedroom")
    assert [path.name for path in working.iterdir()] == [f"_cache_{letters}"]
    name = f"bedroom_train_first_{N}_64x64"
    kept = {path.name for path in (root / "lsun").iterdir()} - {f"{name}.lock"}
    assert kept == {lsun.LMDB, f"{name}.npy", f"{name}.json"}
    assert json.loads((root / "lsun" / f"{name}.json").read_text())["bytes"] == array(root).stat().st_size


def test_the_second_load_does_without_the_lmdb_and_the_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = datasets.load("lsun-bedroom")
    images = first.images.clone()
    shutil.rmtree(root / "lsun" / lsun.LMDB)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    datasets.loading._load.cache_clear()
    monkeypatch.setattr(datasets.loading, "content_digest", lambda _: pytest.fail("3.7 GB were hashed for one load"))
    second = datasets.load("lsun-bedroom")
    assert second is not first
    assert torch.equal(second.images, images)
    assert second.digest == first.digest


def test_the_array_is_mapped_and_never_written_to(root: Path) -> None:
    data = datasets.load("lsun-bedroom")
    before = array(root).read_bytes()
    data.images.zero_()
    assert array(root).read_bytes() == before


def test_a_shortened_array_is_told_at_load(root: Path) -> None:
    datasets.load("lsun-bedroom")
    datasets.loading._load.cache_clear()
    path = array(root)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError) as told:
        datasets.load("lsun-bedroom")
    assert str(told.value) == (
        f"{path} is damaged: it holds {path.stat().st_size:,} bytes where {path.stat().st_size + 100:,} were written."
        " Delete it and run `regen data fetch lsun-bedroom`."
    )


def test_a_changed_pixel_is_told_by_verify_and_mended_by_fetch(root: Path) -> None:
    digest = datasets.load("lsun-bedroom").digest
    sound = datasets.verify("lsun-bedroom")
    assert sound == ("lsun-bedroom", True, f"lsun-bedroom is sound: 6 images in {array(root)}, "
                                           f"digest {digest[:12]}, this copy's own.")  # fmt: skip
    path = array(root)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged = datasets.verify("lsun-bedroom")
    assert not damaged.ok
    assert damaged.sentence.startswith(f"{path}: the bytes read well, but not as lsun-bedroom: digest ")
    assert "Delete it and run `regen data fetch lsun-bedroom`." in damaged.sentence
    path.unlink()
    datasets.fetch("lsun-bedroom")
    assert path.read_bytes() == whole
    assert datasets.digest("lsun-bedroom") == digest


def test_a_record_that_is_no_record_is_told(root: Path) -> None:
    datasets.load("lsun-bedroom")
    datasets.loading._load.cache_clear()
    record = array(root).with_suffix(".json")
    for text in ("{", "[]", "{}"):
        record.write_text(text)
        with pytest.raises(UserError, match=r"\.json is no record of a prepared copy .* Delete it and run"):
            datasets.load("lsun-bedroom")
        assert datasets.digest("lsun-bedroom") == datasets.OF_THE_COPY


@pytest.mark.parametrize("call", [datasets.load, datasets.fetch])
def test_an_absent_folder_is_one_sentence(call: Callable[[str], Any], small: None, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        call("lsun-bedroom")
    assert str(told.value) == (
        f"lsun-bedroom is not here: {tmp_path / 'data' / 'lsun' / 'bedroom_train_lmdb'} is missing."
        " Get it from https://www.yf.io/p/lsun and unpack it there, or set REGEN_DATA to a folder that has it;"
        " to read it, run `pip install lmdb`."
    )
    assert not next(line for line in datasets.status() if line.name == "lsun-bedroom").present


def test_an_absent_package_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError) as told:
        datasets.load("lsun-bedroom")
    sentence = "lsun-bedroom is read with the package lmdb, which is not installed: run `pip install lmdb`."
    assert str(told.value) == sentence


def test_too_few_images_leave_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsun, "IMAGES", 8)
    with pytest.raises(UserError, match="holds 7 images, and lsun-bedroom is the first 8: get the whole of it") as told:
        datasets.load("lsun-bedroom")
    assert not list((root / "lsun").glob("*.npy*"))
    monkeypatch.setattr(lsun, "IMAGES", N)
    datasets.load("lsun-bedroom")  # the LMDB was closed: it cannot be opened twice in one process
    assert told.tb is not None, "what had opened it is alive until here"


def test_a_broken_image_is_named_and_nothing_is_kept(jpegs: list[bytes], small: None, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "lsun" / lsun.LMDB
    write_lmdb(folder, [*jpegs[:3], jpegs[3][:400], *jpegs[4:]])
    with pytest.raises(UserError, match=f"Image 3 of {folder} cannot be read"):
        datasets.load("lsun-bedroom")
    assert not list(folder.parent.glob("*.npy*"))
    assert datasets.digest("lsun-bedroom") == datasets.OF_THE_COPY


def test_a_folder_that_is_no_lmdb_is_told(small: None, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "lsun" / lsun.LMDB
    folder.mkdir(parents=True)
    for content in (None, b"not an LMDB" * 1000):
        if content:
            (folder / "data.mdb").write_bytes(content)
        with pytest.raises(UserError, match=f"{folder} is damaged or no LMDB"):
            datasets.load("lsun-bedroom")


def test_a_full_disk_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lsun.os, "replace", full)
    with pytest.raises(UserError, match=r"could not be written: No space left on device\. Free the disk"):
        datasets.load("lsun-bedroom")
    assert not list((root / "lsun").glob("*.npy*"))


def test_a_kill_between_array_and_record_leaves_no_old_digest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.load("lsun-bedroom")
    array(root).unlink()
    assert datasets.digest("lsun-bedroom") != datasets.OF_THE_COPY, "runs stay readable without the array"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    datasets.loading._load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(lsun, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            datasets.load("lsun-bedroom")
    assert datasets.digest("lsun-bedroom") == datasets.OF_THE_COPY
    assert datasets.verify("lsun-bedroom").ok


def test_a_second_process_takes_the_work_of_the_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = datasets.load("lsun-bedroom").digest
    done = [path.rename(tmp_path / path.name) for path in (array(root), array(root).with_suffix(".json"))]

    class FirstWasHere:
        def __init__(self, path: Path) -> None:
            self.folder = path.parent

        def __enter__(self) -> None:
            for path in done:
                shutil.copy(path, self.folder)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(lsun, "FileLock", FirstWasHere)
    monkeypatch.setattr(lsun, "_write", lambda *_: pytest.fail("it was prepared twice"))
    datasets.loading._load.cache_clear()
    assert datasets.load("lsun-bedroom").digest == digest


def test_progress_is_lines_where_there_is_no_terminal(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lsun, "SECONDS_BETWEEN_LINES", 0.0)
    datasets.load("lsun-bedroom")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"lsun-bedroom: listing the images of {root / 'lsun' / lsun.LMDB}"
    assert said[1:] == [f"lsun-bedroom: {i} of {N} images prepared" for i in range(N)]
