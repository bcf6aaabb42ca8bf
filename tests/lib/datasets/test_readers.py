"""The file formats, on files made here: IDX, MATLAB, .npz, CIFAR-10's pickles and their archive."""

import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.datasets import cifar10, fixed_random, frey_face, mnist
from lib.datasets.contents import Content, CorruptFile, MissingFile, content_digest

Spoil = Callable[[bytes], bytes]


@pytest.fixture
def cifar_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)  # five batches of 2, a test of 3


@pytest.fixture
def batches(cifar_images: np.ndarray, python2_batch: Callable[..., bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "made" / cifar10.FOLDER
    folder.mkdir(parents=True)
    parts = [*np.split(cifar_images[:10], 5), cifar_images[10:]]
    for name, images in zip(cifar10.BATCHES, parts, strict=True):
        (folder / name).write_bytes(python2_batch(images, [int(image[0, 0, 0]) % 10 for image in images]))
    (folder / "readme.html").write_text("not a batch")
    return folder


def test_cifar_sources_give_the_same_bytes(cifar_images: np.ndarray, batches: Path, tmp_path: Path) -> None:
    labels = (cifar_images[:, 0, 0, 0] % 10).astype(np.int64)
    arrays, folder, archive = tmp_path / "arrays", tmp_path / "folder", tmp_path / "archive"
    for root in (arrays, folder, archive):
        (root / "cifar10").mkdir(parents=True)
    for name, part in zip(cifar10.ARRAYS, (slice(0, 10), slice(10, 13)), strict=True):
        x = cifar_images[part].transpose(0, 2, 3, 1)
        np.savez(arrays / "cifar10" / name, x=x, y=labels[part].astype(np.uint8))
    with tarfile.open(archive / "cifar10" / cifar10.ARCHIVE, "w:gz") as tar:
        for path in sorted(batches.iterdir(), reverse=True):  # the order in the archive does not matter
            tar.add(path, f"{cifar10.FOLDER}/{path.name}")
    batches.rename(folder / cifar10.FOLDER)  # where torchvision puts it

    wanted = content_digest(Content(cifar_images, labels))
    for root in (arrays, folder, archive):
        assert content_digest(cifar10.read(cifar10.locate(root))) == wanted, root


def test_only_the_first_thousand_test_images_count(batches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "TEST_IMAGES", 2)
    content = cifar10.read([batches / name for name in cifar10.BATCHES])
    assert content.images.shape == (12, 3, 32, 32)
    assert content.labels is not None
    assert content.labels.shape == (12,)


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def test_malicious_batch_is_refused_and_not_run(batches: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    attack = pickle.dumps({"data": Attack(trace), "labels": [1]}, protocol=2)
    (batches / "data_batch_3").write_bytes(attack)
    with pytest.raises(CorruptFile, match=r"data_batch_3 holds no CIFAR-10 batch \(it asks for \w+\.mkdir, which was"):
        cifar10.read([batches / name for name in cifar10.BATCHES])
    assert not trace.exists()
    pickle.loads(attack)
    assert trace.exists(), "the attack is a real one"


def test_archive_without_a_batch_names_it(batches: Path, tmp_path: Path) -> None:
    path = tmp_path / cifar10.ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        tar.add(batches / "test_batch", "test_batch")
    with pytest.raises(CorruptFile, match=r"lacks data_batch_1, .*data_batch_5$"):
        cifar10.read([path])


def halve(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def flip(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 255]) + raw[middle + 1 :]


@pytest.mark.parametrize("spoil", [halve, lambda raw: b"", lambda raw: b"<html>404</html>"])
def test_spoilt_archive_is_corrupt(spoil: Spoil, batches: Path, tmp_path: Path) -> None:
    path = tmp_path / cifar10.ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        tar.add(batches, cifar10.FOLDER)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CorruptFile) as caught:
        cifar10.read([path])
    assert caught.value.path == path


@pytest.mark.parametrize("spoil", [halve, flip, lambda raw: b"", lambda raw: b"<html>404</html>"])
def test_spoilt_arrays_are_corrupt(spoil: Spoil, tmp_path: Path) -> None:
    arrays = [tmp_path / name for name in cifar10.ARRAYS]
    for path in arrays:
        np.savez(path, x=np.zeros((4, 32, 32, 3), np.uint8), y=np.zeros(4, np.uint8))
    arrays[0].write_bytes(spoil(arrays[0].read_bytes()))
    with pytest.raises(CorruptFile) as caught:
        cifar10.read(arrays)
    assert caught.value.path == arrays[0]


def test_pickled_arrays_in_an_npz_are_refused(tmp_path: Path) -> None:
    arrays = [tmp_path / name for name in cifar10.ARRAYS]
    for path in arrays:
        np.savez(path, x=np.array([Attack(tmp_path / "trace")], dtype=object), y=np.zeros(1, np.uint8))
    with pytest.raises(CorruptFile, match="Object arrays cannot be loaded"):
        cifar10.read(arrays)
    assert not (tmp_path / "trace").exists()


def test_idx_files_are_read_packed_or_not(idx_root: Path) -> None:
    content = mnist.read(mnist.locate(idx_root))
    train = (torch.arange(5 * 784) % 256).view(5, 1, 28, 28)
    assert torch.equal(torch.from_numpy(content.images[:5]).long(), train)
    assert torch.equal(torch.from_numpy(content.images[5:]).long(), train[:2])
    assert content.labels is not None
    assert content.labels.tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_missing_idx_file_is_named(idx_root: Path) -> None:
    path = idx_root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.unlink()
    with pytest.raises(MissingFile) as caught:
        mnist.locate(idx_root)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("name", "spoil", "what"),
    [
        ("train-images-idx3-ubyte", halve, "is truncated: it holds 1,968 bytes where its header promises 3,936"),
        ("train-images-idx3-ubyte", lambda raw: raw + b"!", "is too long: it holds 3,937"),
        ("train-images-idx3-ubyte", lambda raw: raw[:7], "is truncated"),
        ("train-labels-idx1-ubyte", lambda raw: b"<html>", "is no IDX file of 1 axes: it begins with 3c68746d"),
        ("train-labels-idx1-ubyte", lambda raw: b"", "begins with nothing"),
        ("t10k-labels-idx1-ubyte.gz", halve, "is truncated: its gzip stream ends early"),
        ("t10k-labels-idx1-ubyte.gz", flip, "is no sound gzip file"),
        ("t10k-labels-idx1-ubyte.gz", lambda raw: b"<html>404</html>", "is no sound gzip file"),
    ],
)
def test_spoilt_idx_file_is_corrupt(name: str, spoil: Spoil, what: str, idx_root: Path) -> None:
    path = idx_root / "MNIST" / "raw" / name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CorruptFile, match=what) as caught:
        mnist.read(mnist.locate(idx_root))
    assert caught.value.path == path


def test_frey_frames_are_columns_in_time_order(small_frey: Callable[..., bytes], tmp_path: Path) -> None:
    path = tmp_path / "frey_rawface.mat"
    path.write_bytes(small_frey())
    images = frey_face.read([path]).images  # column t holds pixel p at (6 * p + t) % 251
    assert images.shape == (6, 1, 28, 20)
    assert images[4, 0, 0, :3].tolist() == [4, 10, 16]
    assert images[4, 0, 1, 0] == (6 * 20 + 4) % 251


def test_the_fixed_order_is_a_permutation_and_is_pinned() -> None:
    order = fixed_random.permutation(5000)
    assert sorted(order.tolist()) == list(range(5000))
    assert order[:8].tolist() == [338, 4600, 3711, 1112, 3250, 261, 3798, 3607]


def test_streams_and_seeds_are_apart() -> None:
    first = [int(fixed_random.bits(stream, seed).random_raw()) for stream in (1, 2) for seed in (0, 1, 2**64 - 1)]
    assert len(set(first)) == 6
    with pytest.raises(ValueError, match="a seed lies in"):
        fixed_random.bits(1, 2**64)


def test_digest_sees_pixels_labels_shape_and_type() -> None:
    images, labels = np.zeros((2, 1, 2, 2), np.uint8), np.zeros(2, np.int64)
    changed = images.copy()
    changed[1, 0, 1, 1] = 1
    others = [
        Content(changed, labels),
        Content(images, labels + 1),
        Content(images, None),
        Content(images.reshape(2, 1, 4, 1), labels),
        Content(images.view(np.int8), labels),  # type: ignore[arg-type]
    ]
    assert len({content_digest(content) for content in [Content(images, labels), *others]}) == 6
    assert content_digest(Content(np.asfortranarray(images), labels)) == content_digest(Content(images, labels))
