"""A data root of one's own, a small registry, and a web server that misbehaves on demand."""

import gzip
import hashlib
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml

from lib.datasets import frey_face, loading, registry
from lib.datasets.contents import content_digest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test depends on the caller's settings, and none on a data set that another one loaded."""
    monkeypatch.delenv("REGEN_OFFLINE", raising=False)
    loading._load.cache_clear()
    yield
    loading._load.cache_clear()


@pytest.fixture
def small_frey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Registers a Frey Face of six made-up frames at the given mirrors; returns the bytes of its file."""

    def register(*mirrors: str) -> bytes:
        path = tmp_path / "made" / "frey_rawface.mat"
        path.parent.mkdir()
        scipy.io.savemat(path, {"ff": (np.arange(560 * 6) % 251).astype(np.uint8).reshape(560, 6)})
        fields: dict[str, Any] = {
            "title": "six frames",
            "home": "here",
            "licence": "none stated",
            "images": [6, 1, 28, 20],
            "classes": 0,
            "max_value": 255,
            "splits": {"train": [0, 4], "test": [4, 6]},
            "digest": content_digest(frey_face.read([path])),
            "mirrors": list(mirrors),
            "files": [
                {
                    "path": "frey_face/frey_rawface.mat",
                    "bytes": path.stat().st_size,
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                }
            ],
        }
        small = tmp_path / "registry.yaml"
        small.write_text(yaml.safe_dump({"schema": 1, "datasets": {"frey-face": fields}}))
        monkeypatch.setattr(registry, "REGISTRY", small)
        return path.read_bytes()

    return register


class Mirror:
    """What a folder of the server answers, attempt by attempt; the last answer is repeated."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[bytes | int | None] = []  # the body; a status; None: half a body, then silence
        self.body = b""
        self.requests = 0

    def next_answer(self) -> bytes | int | None:
        self.requests += 1
        return self.answers[min(self.requests, len(self.answers)) - 1]


@pytest.fixture
def mirrors() -> Iterator[Callable[[str], Mirror]]:
    """`mirrors("a")` is a folder of a local server, to be told what to answer."""
    folders: dict[str, Mirror] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirror = folders[self.path.split("/")[1]]
            answer = mirror.next_answer()
            if isinstance(answer, int):
                return self.send_error(answer)
            body = mirror.body if answer is None else answer
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if answer is None else body)
            return None

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def folder(name: str) -> Mirror:
        return folders.setdefault(name, Mirror(f"http://127.0.0.1:{server.server_port}/{name}/"))

    yield folder
    server.shutdown()
    server.server_close()


@pytest.fixture
def idx_root(tmp_path: Path) -> Path:
    """A data root with an MNIST of five training and two test digits, unpacked and, for the test labels, as .gz."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 2)):
        shape = (count, 28, 28)
        header = bytes([0, 0, 8, 3]) + np.array(shape, dtype=">i4").tobytes()
        pixels = (np.arange(count * 784) % 256).astype(np.uint8).tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
        labels = bytes([0, 0, 8, 1, 0, 0, 0, count]) + bytes(range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    plain = raw / "t10k-labels-idx1-ubyte"
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return tmp_path


@pytest.fixture
def python2_batch() -> Callable[..., bytes]:
    """Writes a CIFAR-10 batch as the official ones are written."""

    def pickled(images: np.ndarray, labels: list[int]) -> bytes:
        """A batch as cPickle of Python 2 wrote the official ones, opcode by opcode: strings are bytes, protocol 2."""

        def string(value: bytes) -> bytes:
            return b"T" + struct.pack("<i", len(value)) + value

        def integer(value: int) -> bytes:
            return b"J" + struct.pack("<i", value)

        empty = (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85" + string(b"b") + b"\x87R"
        )
        dtype = b"cnumpy\ndtype\n" + string(b"u1") + integer(0) + integer(1) + b"\x87R"
        dtype += b"(" + integer(3) + string(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
        shape = integer(len(images)) + integer(images[0].size) + b"\x86"
        data = empty + b"(" + integer(1) + shape + dtype + b"\x89" + string(images.tobytes()) + b"tb"
        names = b"](" + b"".join(map(integer, labels)) + b"e"
        return b"\x80\x02}(" + string(b"data") + data + string(b"labels") + names + b"u."

    return pickled
