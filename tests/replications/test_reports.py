"""A page is made again only if something that it is made from changed, or it is not whole any more."""

import json
from pathlib import Path

import pytest

from lib.files import write_atomically
from replications import reports

PARAMETERS = {"preset": "smoke", "seeds": 1}


@pytest.fixture
def root(tmp_path):
    """A page with one figure, made from one run."""
    write_atomically(tmp_path / "notebook.ipynb", "{}")
    write_atomically(tmp_path / "runs/vae2013/ab12/SHA256SUMS", "1 results.json")
    write_atomically(tmp_path / "smoke/gan2014.html", "a page")
    write_atomically(tmp_path / "smoke/gan2014.ipynb", "{}")
    digest = write_atomically(tmp_path / "smoke/figures/gan2014/figure-1.svg", "<svg/>")
    exhibit = {"identifier": "gan2014/figure-1", "files": {"gan2014/figure-1.svg": digest}}
    write_atomically(tmp_path / "smoke/figures/exhibits.json", json.dumps({"exhibits": [exhibit]}))
    reports._mark("gan2014", tmp_path / "smoke", inputs(tmp_path))
    return tmp_path


def inputs(root: Path, **changed: object) -> str:
    return reports._inputs(root / "notebook.ipynb", {**PARAMETERS, **changed}, root)


def stands(root: Path, **changed: object) -> bool:
    return reports._stands("gan2014", root / "smoke", inputs(root, **changed))


def test_it_stands_where_nothing_changed(root):
    assert stands(root)
    write_atomically(root / "smoke/vae2013.html", "another page")
    assert stands(root)


@pytest.mark.parametrize(
    "path",
    ["notebook.ipynb", "runs/vae2013/ab12/SHA256SUMS", "smoke/gan2014.html", "smoke/gan2014.ipynb",
     "smoke/figures/gan2014/figure-1.svg"],
)  # fmt: skip
def test_it_falls_with_anything_it_is_made_from_or_made_of(root, path):
    content = (root / path).read_text()
    write_atomically(root / path, content + " ")
    assert not stands(root)
    (root / path).unlink()
    if "notebook" not in path:
        assert not stands(root)


def test_another_run_another_parameter_or_a_failure_makes_it_anew(root):
    assert not stands(root, seeds=2)
    write_atomically(root / "runs/gan2014/cd34/SHA256SUMS", "2 results.json")
    assert not stands(root)
    reports._mark("gan2014", root / "smoke", inputs(root))
    assert stands(root)
    reports._mark("gan2014", root / "smoke", "")
    assert not stands(root)


def test_the_source_counts(root, monkeypatch):
    before = inputs(root)
    monkeypatch.setattr(reports.papers, "REPOSITORY", root)
    write_atomically(root / "lib/a.py", "a = 1")
    other = inputs(root)
    assert other != before
    write_atomically(root / "lib/a.py", "a = 2")
    assert inputs(root) != other
