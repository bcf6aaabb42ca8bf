"""Kept statistics are those of the very data, split, weights and protocol that are asked for, or are made again."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lib.datasets import Dataset, load
from lib.errors import UserError
from lib.metrics import reference
from lib.metrics.extractors import Extractor, extract, extractor
from lib.metrics.gaussian import gaussian_stats
from lib.metrics.reference import reference_features, reference_key, reference_stats
from lib.results import canonical_json


def made_up(seed: int = 0, digest: str = "a" * 64) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (90, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Dataset("made-up", images, None, {"train": range(70), "test": range(70, 90)}, digest, 255)


@pytest.fixture(scope="module")
def digits() -> Extractor:
    return extractor("digits-cnn")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each extraction saw: what comes from the cache adds nothing."""
    seen: list[int] = []

    def counted(extractor: Extractor, images: torch.Tensor, batch_size: int):
        seen.append(len(images))
        return extract(extractor, images, batch_size)

    monkeypatch.setattr(reference, "extract", counted)
    return seen


def test_the_second_time_it_is_read(digits: Extractor, tmp_path: Path, passes: list[int]) -> None:
    data = made_up()
    first = reference_stats(data, "train", digits, cache=tmp_path, batch_size=32)
    again = reference_stats(data, "train", digits, cache=tmp_path)
    assert passes == [70]
    want = gaussian_stats(extract(digits, data.images[:70]).features)
    for got in (first, again):
        torch.testing.assert_close(got.mean, want.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.cov, want.cov, rtol=1e-4, atol=1e-6)
        assert got.mean.dtype == got.cov.dtype == torch.float64
        assert got.count == 70
        assert got.protocol == digits.protocol
    assert torch.equal(first.cov, again.cov)
    assert torch.equal(first.mean, again.mean)


def test_the_file_says_what_it_is(digits: Extractor, tmp_path: Path) -> None:
    """Its name is the SHA-256 of the key, and the key is written in it, with the version of torch beside."""
    import hashlib

    data = made_up()
    reference_stats(data, "test", digits, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
        assert set(file.keys()) == {"mean", "cov", "count"}
    assert state["key"] == {
        "kind": "statistics",
        "data": "a" * 64,
        "split": "test",
        "rows": [70, 90],
        "protocol": dict(digits.protocol),
    }
    assert state["torch"] == torch.__version__
    assert path.name == hashlib.sha256(canonical_json(state["key"]).encode()).hexdigest() + ".safetensors"


def test_whatever_moves_the_numbers_is_in_the_key(digits: Extractor) -> None:
    data = made_up()
    other_weights = Extractor("digits-cnn", "0" * 64, digits.network, digits.prepare, 64, 10, {})
    keys = [
        reference_key("statistics", data, "train", digits),
        reference_key("features", data, "train", digits),
        reference_key("statistics", data, "test", digits),
        reference_key("statistics", dataclasses.replace(data, digest="b" * 64), "train", digits),
        reference_key("statistics", dataclasses.replace(data, splits={"train": range(60)}), "train", digits),
        reference_key("statistics", data, "train", other_weights),
    ]
    assert len({canonical_json(key) for key in keys}) == len(keys)
    renamed = dataclasses.replace(data, name="another name for the same bytes")
    assert reference_key("statistics", renamed, "train", digits) == keys[0]


@pytest.mark.parametrize("damage", ["a flipped bit", "half", "empty", "another's", "not safetensors"])
def test_a_damaged_file_is_never_believed(damage: str, digits: Extractor, tmp_path: Path, passes: list[int]) -> None:
    data = made_up()
    want = reference_stats(data, "train", digits, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "another's":  # a sound file of other data under this name
        reference_stats(made_up(1, "b" * 64), "train", digits, cache=tmp_path / "other")
        (other,) = (tmp_path / "other").iterdir()
        path.write_bytes(other.read_bytes())
    else:
        flipped = whole[:-9] + bytes([whole[-9] ^ 64]) + whole[-8:]
        path.write_bytes(
            {"a flipped bit": flipped, "half": whole[: len(whole) // 2], "empty": b""}.get(damage, b"{}" * 99)
        )
    before = len(passes)
    got = reference_stats(data, "train", digits, cache=tmp_path)
    assert len(passes) == before + 1
    assert torch.equal(got.cov, want.cov)
    assert torch.equal(got.mean, want.mean)
    again = reference_stats(data, "train", digits, cache=tmp_path)
    assert len(passes) == before + 1, "the damaged file was not replaced"
    assert torch.equal(again.cov, want.cov)


def test_a_cache_that_cannot_be_written_costs_a_line(
    digits: Extractor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "a file where a folder should be"
    blocked.write_text("")
    stats = reference_stats(made_up(), "test", digits, cache=blocked)
    assert stats.count == 20
    said = capsys.readouterr().err
    assert "could not be written" in said
    assert said.count("\n") == 1


def test_the_default_place_is_in_the_data_root(
    digits: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGEN_DATA", str(tmp_path))
    reference_stats(made_up(), "test", digits)
    assert [path.parent for path in tmp_path.rglob("*.safetensors")] == [tmp_path / "statistics"]


def test_features_are_kept_likewise(digits: Extractor, tmp_path: Path, passes: list[int]) -> None:
    data = made_up()
    first = reference_features(data, "test", digits, cache=tmp_path)
    again = reference_features(data, "test", digits, cache=tmp_path)
    assert passes == [20]
    want = extract(digits, data.images[70:])
    for got in (first, again):
        assert torch.equal(got.features, want.features)
        assert torch.equal(got.probabilities, want.probabilities)
    reference_stats(data, "test", digits, cache=tmp_path)
    assert passes == [20, 20], "features never stand in for statistics"


def test_what_cannot_be_done_is_told(digits: Extractor, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="made-up has no split 'validation'"):
        reference_stats(made_up(), "validation", digits, cache=tmp_path)
    with pytest.raises(ValueError, match=r"dataset is uci-digits, with grey levels 0 \.\. 16"):
        reference_stats(load("uci-digits"), "test", digits, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
