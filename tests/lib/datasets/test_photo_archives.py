"""Published photographs: what a fetch leaves behind and refuses, what verify compares, and that the lists are sound."""

import hashlib
import io
import os
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lib.datasets import photo_archives, photos, registry
from lib.errors import UserError

Mirrors = Callable[[str], Any]
COUNTS = (3, 2, 1, 2)
NAME = "apple2orange"
SHARED = registry.REGISTRY.parent.parent.parent / "shared" / "data" / "cyclegan_manifests"


def files() -> dict[str, bytes]:
    """The images of a small set, by their names in its archive."""
    made = {}
    for domain, count in zip(photo_archives.DOMAINS, COUNTS, strict=True):
        for i in range(count):
            ramp = np.arange(20 * 30 * 3) // (3 + i) % 256
            buffer = io.BytesIO()
            Image.fromarray(ramp.astype(np.uint8).reshape(20, 30, 3)).save(buffer, "JPEG", quality=80 + i)
            made[f"{NAME}/{domain}/n{i}.jpg"] = buffer.getvalue()
    return made


def packed(content: dict[str, bytes], *others: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in [*content.items(), *others]:
            archive.writestr(name, data)
    return buffer.getvalue()


def digest_of(content: dict[str, bytes]) -> str:
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name.partition('/')[2]}\n" for name, data in content.items()]
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line[66:])).encode()).hexdigest()


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Registers an archive, and the list of the files it ought to hold, at the given mirrors."""

    def register(archive: bytes, *mirrors: str, listed: dict[str, bytes] | None = None) -> None:
        entry: dict[str, Any] = {"title": "eight", "home": "here", "licence": "none stated", "counts": list(COUNTS)}
        entry["archive"] = {"bytes": len(archive), "sha256": hashlib.sha256(archive).hexdigest()}
        if listed:
            entry["digests"] = {"unpaired": digest_of(listed)}
            rows = [f"{hashlib.sha256(d).hexdigest()[:8]}  {n.partition('/')[2]}" for n, d in listed.items()]
            (tmp_path / f"{NAME}.txt").write_text("\n".join(["# a list", *rows]))
        small = tmp_path / "registry.yaml"
        content = {"datasets": {}, "photos": {"mirrors": list(mirrors), "sets": {NAME: entry}}}
        small.write_text(yaml.safe_dump(content))
        monkeypatch.setattr(registry, "REGISTRY", small)
        monkeypatch.setattr(photo_archives, "LISTS", tmp_path)
        registry.content.cache_clear()

    return register


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def left(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir())


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as told:
        call()
    assert "\n" not in str(told.value)
    return str(told.value)


# --- fetch ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(mirrors: Mirrors) -> Any:
    pytest.importorskip("pooch", reason="downloads need pooch, which machines with an accelerator lack")
    return mirrors("a")


def test_fetch_brings_the_images_once_and_nothing_else(publish: Callable, mirror: Any, root: Path) -> None:
    content = files()
    mirror.answers = [packed(content, (f"{NAME}/.DS_Store", b"x"), (f"__MACOSX/{NAME}/trainA/._n0.jpg", b"x"))]
    publish(mirror.answers[0], mirror.url)
    folder = root / "photos" / NAME
    assert photo_archives.fetch(NAME, root, progress=False) == [folder]
    assert left(root) == sorted(f"photos/{name}" for name in content)
    assert {f"{NAME}/{n}": (folder / n).read_bytes() for n in left(folder)} == content
    assert [len(part) for part in photos.load(NAME, 8, root)[:4]] == list(COUNTS)
    assert photo_archives.fetch(NAME, root, progress=False) == [folder]
    assert mirror.requests == 1


def test_fetch_refuses_other_bytes_and_goes_on(publish: Callable, mirrors: Mirrors, mirror: Any, root: Path) -> None:
    whole = packed(files())
    publish(whole, mirror.url)
    mirror.answers = [whole[:-1] + b"?"]
    said = refusal(lambda: photo_archives.fetch(NAME, root, progress=False))
    assert f"{NAME}.zip of {NAME} could not be fetched from {mirror.url} (the bytes have another SHA-256)" in said
    assert left(root) == []
    second = mirrors("b")
    second.answers = [whole]
    publish(whole, mirror.url, second.url)
    photo_archives.fetch(NAME, root, progress=False)
    assert (second.requests, len(left(root))) == (1, 8)


def test_offline_only_an_archive_that_is_there_is_taken(
    publish: Callable, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    whole = packed(files())
    publish(whole, "http://127.0.0.1:9/")
    said = refusal(lambda: photo_archives.fetch(NAME, root))
    assert f"REGEN_OFFLINE forbids downloads, so {NAME} was not fetched" in said
    assert f"{root / 'photos' / NAME}, {root / 'photos' / NAME}.zip there by hand" in said
    archive = root / "photos" / f"{NAME}.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(whole[:-1] + b"?")
    assert "REGEN_OFFLINE" in refusal(lambda: photo_archives.fetch(NAME, root))
    archive.write_bytes(whole)
    photo_archives.fetch(NAME, root)
    assert (len(left(root)), archive.exists()) == (8, False)


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "member",
    [
        "/tmp/evil.jpg",
        f"{NAME}/../../evil.jpg",
        "../evil.jpg",
        f"{NAME}/trainA/..\\..\\evil.jpg",
        "C:/evil.jpg",
        link(f"{NAME}/trainA/evil.jpg"),
    ],
)
def test_an_archive_that_reaches_elsewhere_is_refused_whole(member: Any, root: Path, tmp_path: Path) -> None:
    archive = root / "photos" / "x.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(packed(files(), (member, b"../../../../etc/passwd")))
    said = refusal(lambda: photo_archives.unpack(archive, root / "photos" / NAME))
    assert said.startswith(f"{archive} was not unpacked: its member ")
    assert left(tmp_path) == ["root/photos/x.zip"]


def test_a_damaged_archive_leaves_nothing(root: Path) -> None:
    archive = root / "x.zip"
    root.mkdir()
    whole = packed(files())
    first = whole.index(b"\xff\xd8")
    other = {f"pear/{name}": data for name, data in files().items()}
    broken = whole[: first + 9] + b"?" + whole[first + 10 :]  # a byte of an image: its checksum tells
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archived:
        archived.writestr(f"{NAME}/trainA/0.jpg", bytes(10_000))
    stream = deflated.getvalue()
    begun = stream.index(b".jpg") + 4
    for content, what in (
        (stream[:begun] + b"\xff" + stream[begun + 1 :], f"{archive} is no sound .zip file (Error -3"),
        (broken, f"{archive} is no sound .zip file (Bad CRC-32"),
        (whole[:-30], f"{archive} is no sound .zip file (File is not a zip file)"),
        (packed(other), f"{archive} holds no images below {NAME}/: get it again."),
    ):
        archive.write_bytes(content)
        assert refusal(lambda: photo_archives.unpack(archive, root / NAME)).startswith(what)
        assert left(root) == ["x.zip"]


def test_a_killed_fetch_is_begun_again(publish: Callable, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packed(files())
    publish(whole)
    beside = root / "photos" / f".{NAME}.unpacking"
    (beside / "trainA").mkdir(parents=True)
    (beside / "trainA" / "half.jpg").write_bytes(b"x")
    assert photos.names(root) == []
    archive = root / "photos" / f"{NAME}.zip"
    archive.write_bytes(whole)
    monkeypatch.setattr(registry, "offline", lambda: True)
    publish(whole, "http://127.0.0.1:9/")
    photo_archives.fetch(NAME, root, progress=False)
    assert left(root) == sorted(f"photos/{name}" for name in files())


def test_a_full_disk_is_one_sentence(publish: Callable, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packed(files())
    publish(whole, "http://127.0.0.1:9/")
    (root / "photos").mkdir(parents=True)
    (root / "photos" / f"{NAME}.zip").write_bytes(whole)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(photo_archives.shutil, "copyfileobj", full)
    said = refusal(lambda: photo_archives.fetch(NAME, root, progress=False))
    assert said.endswith("could not be written: No space left on device. Free the disk or choose another REGEN_DATA.")
    assert left(root) == [f"photos/{NAME}.zip"], "the archive stays for the next time"


def test_a_folder_that_is_not_whole_is_left_alone(publish: Callable, root: Path) -> None:
    publish(packed(files()), "http://127.0.0.1:9/")
    folder = root / "photos" / NAME
    (folder / "trainA").mkdir(parents=True)
    said = refusal(lambda: photo_archives.fetch(NAME, root))
    assert said.startswith(f"{folder / 'trainB'} is missing: ")
    assert said.endswith(f"Mend {folder}, or move it away and fetch again.")


def test_what_cannot_be_fetched_is_told(root: Path) -> None:
    said = refusal(lambda: photo_archives.fetch("horse2zebr", root))
    assert said.startswith(
        "No photos 'horse2zebr' are known to fetch. Did you mean horse2zebra? There are horse2zebra,"
    )
    assert "It is not handed out: put the folder there by hand" in refusal(
        lambda: photo_archives.fetch("cityscapes", root)
    )


# --- verify and status ---------------------------------------------------------------------------------------------


@pytest.fixture
def copy(publish: Callable, root: Path) -> Path:
    publish(b"", listed=files())
    for name, data in files().items():
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root / "photos" / NAME


def test_verify_compares_with_the_list_and_warns(copy: Path, root: Path) -> None:
    start = f"{NAME} is readable: 8 images in {copy}, digest {photos.digest(NAME, root)[:12]}"
    assert photo_archives.verify(NAME, root) == (NAME, True, f"{start}, which is that of the known list of its files.")
    shutil.copy(copy / "trainA" / "n1.jpg", copy / "trainA" / "n0.jpg")
    (copy / "testB" / "n1.jpg").rename(copy / "testB" / "n9.jpg")
    found = photo_archives.verify(NAME, root)
    assert found.ok
    assert found.sentence.endswith(
        ". Warning: other bytes than listed: 1 (first trainA/n0.jpg), missing: 1 (first testB/n1.jpg),"
        " not on the list: 1 (first testB/n9.jpg); where the list came from is not proven, so the copy is used as"
        " it is."
    )


def test_verify_compares_counts_where_no_list_is_known(copy: Path, root: Path, publish: Callable) -> None:
    publish(b"")
    end = "; no list of its files is known, and its counts are the published ones."
    assert photo_archives.verify(NAME, root).sentence.endswith(end)
    (copy / "testB" / "n1.jpg").unlink()
    assert photo_archives.verify(NAME, root).sentence.endswith(
        ". Warning: its counts are not the published ones: testB 1 for 2."
    )
    copy.rename(copy.with_name("mine"))
    found = photo_archives.verify("mine", root)
    assert found.ok
    assert found.sentence.endswith(", this copy's own.")


def test_verify_decodes_every_image(copy: Path, root: Path) -> None:
    path = copy / "testA" / "n0.jpg"
    path.write_bytes(path.read_bytes()[:300])
    found = photo_archives.verify(NAME, root)
    assert (found.ok, found.sentence.startswith(f"{path} cannot be read as an image (")) == (False, True)
    assert not photo_archives.verify("nothing", root).ok


def test_verify_sees_bytes_that_changed_by_themselves(copy: Path, root: Path) -> None:
    before = photos.digest(NAME, root)
    path = copy / "trainB" / "n0.jpg"
    times, whole = path.stat(), path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert photos.digest(NAME, root) == before, "planning a run reads no image"
    found = photo_archives.verify(NAME, root)
    assert not found.ok
    assert found.sentence.startswith(f"{copy} has changed: digest {photos.digest(NAME, root)[:12]}, and when it was")
    path.touch()
    path.write_bytes(whole)
    assert photo_archives.verify(NAME, root).ok


def test_status_lists_published_sets_and_the_user_s_own(copy: Path, root: Path) -> None:
    (root / "photos" / "mine").mkdir()
    digest = photos.digest(NAME, root)
    published, own = photo_archives.status(root)
    assert (published.name, published.present, published.digest, published.path) == (NAME, True, digest, copy)
    assert published.counts == {"trainA": 3, "trainB": 2, "testA": 1, "testB": 2}
    assert (own.name, own.title, own.present, own.digest) == ("mine", "a folder of yours", True, "of-the-copy")
    shutil.rmtree(copy)
    assert (photo_archives.status(root)[0].present, photo_archives.status(root)[0].digest) == (False, "of-the-copy")


# --- the registry and the lists ------------------------------------------------------------------------------------


def test_the_registry_knows_the_published_sets() -> None:
    known = photos.known()
    assert list(known)[:2] == ["horse2zebra", "apple2orange"]
    for name, entry in known.items():
        assert all(count > 0 for count in entry.counts)
        if name == "cityscapes":
            assert entry.mirrors == ()
            continue
        assert len(entry.sha256) == 64
        assert entry.bytes > 30e6
        assert all(url.endswith(f"/{name}.zip") for url in entry.mirrors)
        assert len(entry.mirrors) >= 4


@pytest.mark.parametrize("name", ["horse2zebra", "apple2orange", "maps"])
def test_the_lists_have_the_published_counts(name: str) -> None:
    entry = photos.known()[name]
    rows = [line.split("  ", 1) for line in (photo_archives.LISTS / f"{name}.txt").read_text().splitlines()[2:]]
    names = [file for _, file in rows]
    assert names == sorted(names, key=os.fsencode)
    counts = Counter(file.split("/")[0] for file in names)
    if name == "maps":
        assert counts == {"train": entry.counts[0], "val": entry.counts[2]}
    else:
        assert counts == dict(zip(photo_archives.DOMAINS, entry.counts, strict=True))
    if not SHARED.is_dir():
        pytest.skip("the whole digests are not kept in this repository")
    whole = [line.split(maxsplit=2) for line in (SHARED / f"{name}.sha256.txt").read_text().splitlines()]
    lines = sorted((f"{name_[len(name) + 1 :]}", digits) for digits, _, name_ in whole)
    assert [[digits[:8], file] for file, digits in lines] == rows
    text = "".join(f"{digits}  {file}\n" for file, digits in lines)
    assert list(entry.digests.values()) == [hashlib.sha256(text.encode()).hexdigest()]
