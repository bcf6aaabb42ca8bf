"""Downloads, against a server on this machine: what arrives is checked, and what is broken leaves nothing behind."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib import datasets
from lib.errors import UserError

pytest.importorskip("pooch", reason="downloads need pooch, which machines with an accelerator lack")

Register = Callable[..., bytes]
Mirrors = Callable[[str], Any]


def files_below(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_fetch_brings_the_file_once(small_frey: Register, mirrors: Mirrors, root: Path) -> None:
    mirror = mirrors("a")
    mirror.answers = [small_frey(mirror.url)]
    target = root / "frey_face" / "frey_rawface.mat"
    assert datasets.fetch("frey-face", root, progress=False) == [target]
    assert target.read_bytes() == mirror.answers[0]
    assert datasets.load("frey-face", root).images.shape == (6, 1, 28, 20)
    assert datasets.fetch("frey-face", root, progress=False) == [target]
    assert mirror.requests == 1, "what is there and sound is not fetched again"


def test_fetch_refuses_other_bytes(small_frey: Register, mirrors: Mirrors, root: Path) -> None:
    mirror = mirrors("a")
    mirror.answers = [small_frey(mirror.url)[:-1] + b"?"]
    with pytest.raises(UserError, match=r"a/ \(the bytes have another SHA-256\)"):
        datasets.fetch("frey-face", root, progress=False)
    assert files_below(root) == []
    assert mirror.requests == 1, "wrong bytes are not asked for twice"


def test_fetch_goes_on_to_the_next_mirror(small_frey: Register, mirrors: Mirrors, root: Path) -> None:
    first, second = mirrors("a"), mirrors("b")
    second.answers = [small_frey(first.url, second.url)]
    first.answers = [404]
    assert len(datasets.fetch("frey-face", root, progress=False)) == 1
    assert (first.requests, second.requests) == (1, 1)
    assert files_below(root) == ["frey_rawface.mat"]


def test_fetch_begins_a_broken_transfer_again(small_frey: Register, mirrors: Mirrors, root: Path) -> None:
    mirror = mirrors("a")
    mirror.body = small_frey(mirror.url)
    mirror.answers = [None, mirror.body]
    datasets.fetch("frey-face", root, progress=False)
    assert mirror.requests == 2
    assert datasets.verify("frey-face", root).ok


def test_transfer_that_keeps_breaking_leaves_nothing(small_frey: Register, mirrors: Mirrors, root: Path) -> None:
    mirror = mirrors("a")
    mirror.body = small_frey(mirror.url)
    mirror.answers = [None]
    with pytest.raises(UserError, match=r"a/ \(the transfer broke off\)"):
        datasets.fetch("frey-face", root, progress=False)
    assert files_below(root) == []
    assert mirror.requests == 2, "begun again once, no more"
    mirror.answers = [mirror.body]
    datasets.fetch("frey-face", root, progress=False)
    assert datasets.verify("frey-face", root).ok


def test_all_mirrors_failing_is_one_sentence(small_frey: Register, mirrors: Mirrors, root: Path) -> None:
    first = mirrors("a")
    first.answers = [503]
    nobody = "http://127.0.0.1:9/"  # the discard port, closed
    small_frey(first.url, nobody)
    with pytest.raises(UserError) as caught:
        datasets.fetch("frey-face", root, progress=False)
    message = str(caught.value)
    assert f"{first.url} (HTTP 503), {nobody} (no connection)" in message
    assert str(root / "frey_face" / "frey_rawface.mat") in message
    assert "\n" not in message


def test_fetch_replaces_a_corrupt_file(small_frey: Register, mirrors: Mirrors, root: Path) -> None:
    mirror = mirrors("a")
    mirror.answers = [small_frey(mirror.url)]
    target = root / "frey_face" / "frey_rawface.mat"
    target.parent.mkdir(parents=True)
    target.write_bytes(mirror.answers[0][:300])
    datasets.fetch("frey-face", root, progress=False)
    assert target.read_bytes() == mirror.answers[0]


def test_offline_forbids_the_download(
    small_frey: Register, mirrors: Mirrors, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = mirrors("a")
    mirror.answers = [small_frey(mirror.url)]
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    with pytest.raises(UserError, match="REGEN_OFFLINE forbids downloads, so frey-face was not fetched"):
        datasets.fetch("frey-face", root)
    assert mirror.requests == 0
    assert not root.exists()


def test_unwritable_root_is_one_sentence(small_frey: Register, mirrors: Mirrors, root: Path) -> None:
    mirror = mirrors("a")
    mirror.answers = [small_frey(mirror.url)]
    root.write_text("a file where a folder should be")
    with pytest.raises(UserError, match=re.escape(str(root)) + ".* could not be written"):
        datasets.fetch("frey-face", root, progress=False)


def test_without_pooch_the_command_is_named(small_frey: Register, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_frey("http://127.0.0.1:9/")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(UserError, match="pip install pooch"):
        datasets.fetch("frey-face", root)


def test_progress_is_lines_where_there_is_no_terminal(
    small_frey: Register,
    mirrors: Mirrors,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror = mirrors("a")
    mirror.answers = [small_frey(mirror.url)]
    monkeypatch.setattr("lib.datasets.download.SECONDS_BETWEEN_LINES", 0.0)
    datasets.fetch("frey-face", root)
    assert re.fullmatch(r"(frey_rawface\.mat: \d+ of \d+ MB\n)+", capsys.readouterr().err)


def test_a_wheel_needs_no_fetch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    assert datasets.fetch("uci-digits", root) == []
