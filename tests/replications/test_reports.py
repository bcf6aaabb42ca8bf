"""A page is made again only if something that it is made from changed, or it is not whole any more."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.errors import UserError
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


def test_a_run_that_ends_while_the_page_is_made_is_in_no_mark(tmp_path, monkeypatch):
    """It may be another paper's, which the page shows as not run."""

    def execute(*_):
        write_atomically(tmp_path / "runs/vae2013/ef56/SHA256SUMS", "3 results.json")
        return SimpleNamespace(ok=True)

    marks = []
    monkeypatch.setattr(reports, "_execute", execute)
    for name in ("_complete", "write_page", "_reason"):
        monkeypatch.setattr(reports, name, lambda *_: "")
    monkeypatch.setattr(reports, "_mark", lambda key, folder, mark: marks.append(mark))
    reports.build("gan2014", "smoke", 1, tmp_path, "none", {})
    parameters = {"preset": "smoke", "seeds": 1, "run_dir": str(tmp_path.resolve()), "device": "none"}
    assert marks != [reports._inputs(reports.papers.load("gan2014").notebook, parameters, tmp_path)]
    assert len(marks[0]) == 64


def test_packages_that_only_reports_need_are_named(monkeypatch):
    reports.require_packages()
    monkeypatch.setattr(reports, "find_spec", lambda name: None if name in ("psutil", "nbconvert") else name)
    with pytest.raises(UserError, match=r"Reports need nbconvert, psutil, .*regen\[reports\]"):
        reports.require_packages()


def build_all(keys, monkeypatch, build, at_once=2):
    monkeypatch.setattr(reports, "build", build)
    return reports.build_all(keys, "smoke", 1, Path("/nowhere"), "cpu", {}, None, at_once)


def test_notebooks_of_papers_are_executed_side_by_side_and_told_of_in_order(monkeypatch):
    both = threading.Barrier(2, timeout=20)

    def build(key, *arguments):
        both.wait()  # neither comes through alone
        if key == "first":
            time.sleep(0.1)
        return reports.Built(Path(key), "")

    built = list(build_all(["first", "second"], monkeypatch, build))
    assert built == [(key, reports.Built(Path(key), "")) for key in ("first", "second")]


def test_who_stops_waiting_leaves_no_notebook_running(monkeypatch):
    children = []

    def build(key, *arguments):
        if key == "first":
            return reports.Built(Path(key), "")
        environment = {**os.environ, "REGEN_NOTEBOOK": "a folder"}  # as each of an execution's processes has it
        children.append(subprocess.Popen(["sleep", "60"], start_new_session=True, env=environment))
        return children[-1].wait()

    began = time.monotonic()
    other = subprocess.Popen(["sleep", "60"])
    told = build_all(["first", "second", "third", "fourth"], monkeypatch, build)
    next(told)
    while len(children) < 2:
        time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt):
        told.throw(KeyboardInterrupt)
    assert [child.wait(10) for child in children] == [-signal.SIGKILL] * 2, "or what had not begun was begun"
    assert time.monotonic() - began < 30
    assert other.poll() is None, "a process was killed that executes no notebook"
    other.kill()
