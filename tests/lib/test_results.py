"""Scores and their files: the standard error, one text for one value, and files that are whole or not there."""

import json
import math
import os
from pathlib import Path

import pytest
import scipy.stats
import torch

from lib.files import sha256_of, write_atomically
from lib.results import (
    Score,
    canonical_json,
    mean_score,
    readable_json,
    score_from_json,
    score_to_json,
)


@pytest.mark.parametrize("n", [2, 3, 1000])
def test_standard_error_is_scipys(n: int) -> None:
    values = torch.randn(n, generator=torch.Generator().manual_seed(n)) * 3 - 100
    score = mean_score(values, "nats", True, {})
    assert score.value == pytest.approx(values.double().numpy().mean(), rel=1e-14)
    assert score.stderr == pytest.approx(scipy.stats.sem(values.double().numpy()), rel=1e-12)
    assert score.n == n


def test_the_mean_is_taken_in_float64() -> None:
    """In float32 the small part of a sum of large numbers is lost."""
    values = torch.tensor([2.0**24, 1.0, 1.0, 1.0], dtype=torch.float32)
    assert mean_score(values, "", True, {}).value == (2**24 + 3) / 4


def test_one_value_has_no_standard_error() -> None:
    score = mean_score(torch.tensor([3.0]), "nats", True, {})
    assert (score.value, score.n) == (3.0, 1)
    assert math.isnan(score.stderr)


def test_a_share_has_the_binomial_standard_error() -> None:
    score = mean_score(torch.tensor([True, False, True, True]), "share", True, {})
    assert score.value == 0.75
    assert score.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 3))  # divisor n - 1


def test_canonical_json_does_not_see_the_order_of_keys() -> None:
    a = {"b": [1, {"y": 2.5, "x": "é"}], "a": (1, 2)}
    b = {"a": [1, 2], "b": [1, {"x": "é", "y": 2.5}]}
    assert canonical_json(a) == canonical_json(b) == '{"a":[1,2],"b":[1,{"x":"é","y":2.5}]}'


def test_canonical_json_tells_values_apart() -> None:
    texts = [canonical_json(value) for value in (1, 1.0, "1", [1], {"1": 1}, None, True, 1.0000000000000002)]
    assert len(set(texts)) == len(texts)


def test_json_has_no_nan() -> None:
    assert canonical_json({"a": [math.nan, 1.0]}) == '{"a":[null,1.0]}'
    assert json.loads(readable_json({"a": (math.nan,)})) == {"a": [None]}
    assert canonical_json([math.inf, -math.inf]) == '["inf","-inf"]'


def test_readable_json_holds_the_same_value() -> None:
    value = {"b": 0.1 + 0.2, "a": {"z": [1, "ü"], "y": None}}
    assert readable_json(value).endswith("}\n")
    assert json.loads(readable_json(value)) == json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("stderr", [math.nan, 0.1 + 0.2])
def test_a_score_survives_its_file(stderr: float) -> None:
    score = Score(-103.3, stderr, "nats/image", True, 1000, {"split": "test", "draws": 8})
    back = score_from_json(json.loads(readable_json(score_to_json(score))))
    assert back._replace(stderr=0.0) == score._replace(stderr=0.0)
    assert back.stderr == pytest.approx(stderr, rel=0, abs=0, nan_ok=True)


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, example B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("content", ["zwölf\n", b"\x00\xff", ""])
def test_write_atomically_writes_and_leaves_nothing_beside(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "results.json"
    path.write_text("old and longer than the new one")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def fail(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (os, "replace")], ids=["flush", "rename"])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    path, new = tmp_path / "results.json", tmp_path / "new.json"
    path.write_text("old")
    monkeypatch.setattr(owner, name, fail)
    for target in (path, new):
        with pytest.raises(OSError, match="No space left"):
            write_atomically(target, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, "newer")  # what was left aside is not in the way
    assert path.read_text() == "newer"
