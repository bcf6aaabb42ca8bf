"""`regen data list|fetch|verify` for folders of photographs."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from replications.__main__ import main


def regen(arguments: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["regen", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_verbs_know_photographs(tmp_path: Path, capsys, monkeypatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((9, 7, 3), dtype=np.uint8)).save(buffer, "PNG")
    for domain in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / "photos" / "mine" / domain).mkdir(parents=True)
        (tmp_path / "photos" / "mine" / domain / "1.png").write_bytes(buffer.getvalue())

    def run(*arguments: object):
        return regen([*arguments, "--data-dir", tmp_path], capsys, monkeypatch)

    code, text, _ = run("data", "list")
    assert code == 0
    photographs = text.split("Photographs, two domains a set:")[1]
    assert "horse2zebra            absent  Horses and zebras, from ImageNet" in photographs
    assert "trainA 1,067, trainB 1,334, testA 120, testB 140; licence: none stated" in photographs
    assert "mine                   here    a folder of yours" in photographs
    listed = [entry for entry in json.loads(run("data", "list", "--json")[1]) if entry["kind"] == "photos"]
    assert (listed[0]["name"], listed[-1]["name"], listed[-1]["present"]) == ("horse2zebra", "mine", True)

    for named in (["mine"], []):
        code, text, _ = run("data", "verify", *named)
        assert code == 0
        assert f"mine is readable: 4 images in {tmp_path / 'photos' / 'mine'}, digest " in text
    (tmp_path / "photos" / "mine" / "testB" / "1.png").write_bytes(b"")
    code, text, _ = run("data", "verify", "mine")
    assert (code, "testB/1.png is no image that can be read" in text) == (2, True)

    for verb in ("fetch", "verify"):
        code, out, error = run("data", verb, "horse2zebr")
        assert (code, "Did you mean horse2zebra?" in out + error) == (2, True)
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    code, _, error = run("data", "fetch", "horse2zebra")
    assert code == 2
    assert error.startswith("regen: REGEN_OFFLINE forbids downloads, so horse2zebra was not fetched")
    assert "Traceback" not in error


def test_a_preset_of_the_users_own_photographs_says_where_they_go(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("REGEN_DATA", str(tmp_path / "empty"))
    code, _, said = regen(["run", "cyclegan2017", "--preset", "photos", "--out", tmp_path], capsys, monkeypatch)
    assert code == 2
    assert "data of your own" in said
    assert str(tmp_path / "empty") in said
    assert "data/README.md" in said
