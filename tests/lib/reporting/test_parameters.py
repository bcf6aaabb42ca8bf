"""Parameters and the rules for notebooks in git: judged without a kernel."""

import json
import subprocess

import pytest

from lib.errors import UserError
from lib.reporting.notebooks import check_parameters, declared_parameters, execute_notebook, lint_notebook


def test_declared_in_order_with_types_and_defaults(notebook):
    assert list(declared_parameters(notebook()).items()) == [
        ("preset", (str, "laptop")),
        ("seed", (int, 0)),
        ("rate", (float, 0.5)),
        ("fast", (bool, False)),
    ]
    assert declared_parameters(notebook(parameters="# what\nshift: int = -1  # why")) == {"shift": (int, -1)}


@pytest.mark.parametrize(
    "cell",
    ["seed = 0", "seed: int", "seed: int = 2 + n", "seed: int = 0\nprint(seed)", "seed: list = []", "seed: int = 1.0",
     "seed: int = True", "import os", "seed: int = 0\nseed: int = 1", "seed: int = "],
)  # fmt: skip
def test_anything_but_typed_literals_is_refused(notebook, cell):
    with pytest.raises(UserError, match=r"source\.ipynb"):
        declared_parameters(notebook(parameters=cell))


def test_exactly_one_tagged_cell(notebook):
    path = notebook("x = 1")
    content = json.loads(path.read_text())
    for tagged, count in (([], 0), ([1, 2], 2)):
        for number, cell in enumerate(content["cells"]):
            cell["metadata"] = {"tags": ["parameters"]} if number in tagged else {}
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"has {count} cells tagged 'parameters'"):
            declared_parameters(path)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"preste": "smoke"}, "no parameter 'preste': did you mean 'preset'"),
        ({"zzz": 1}, "it has preset, seed, rate, fast"),
        ({"seed": "1"}, "'seed' of source.ipynb is int, was given '1'"),
        ({"seed": True}, "'seed' of source.ipynb is int, was given True"),
        ({"seed": 1.0}, "is int"),
        ({"fast": 1}, "is bool"),
        ({"rate": True}, "is float"),
        ({"preset": None}, "is str"),
    ],
)
def test_wrong_parameters_are_refused_before_any_process_starts(notebook, tmp_path, monkeypatch, given, complaint):
    def no_process(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    with pytest.raises(UserError, match=complaint) as caught:
        execute_notebook(notebook(), tmp_path / "executed.ipynb", given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed.ipynb").exists()


def test_right_parameters_pass(notebook):
    check_parameters(notebook(), {"preset": "smoke", "seed": 3, "rate": 1, "fast": True})


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json"])
def test_a_file_that_is_no_notebook(tmp_path, content):
    path = tmp_path / "broken.ipynb"
    path.write_text(content)
    with pytest.raises(UserError, match=r"broken\.ipynb is not a Jupyter notebook"):
        check_parameters(path, {})
    with pytest.raises(UserError, match="there is no notebook"):
        check_parameters(tmp_path / "absent.ipynb", {})


def test_lint_passes_a_good_notebook(notebook):
    assert (
        lint_notebook(
            notebook("import numpy as np\nfrom lib.metrics import x", "def f(x):\n    return x"), {"numpy", "lib"}
        )
        == []
    )


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ("class A: pass", "class A"),
        ("def f():\n" + "    x = 1\n" * 5, "def f exceeds 5 lines"),
        ("\n".join(f"x{i} = 1" for i in range(26)), "26 lines"),
        ("!pip install x", "shell"),
        ("%matplotlib inline", "shell"),
        ("open('/home/me/data')", "absolute path"),
        ("import torch\nimport tensorflow.keras", "imports tensorflow.keras"),
        ("from os import path", "imports os"),
        ("x = (", "no Python"),
    ],
)
def test_lint_finds(notebook, cell, complaint):
    found = lint_notebook(notebook(cell), {"torch"})
    assert [complaint in sentence for sentence in found] == [True], found


def test_lint_counts_all_lines_and_finds_outputs_and_a_missing_tag(notebook):
    path = notebook(*["x = 1\n" * 25] * 10)
    content = json.loads(path.read_text())
    content["cells"][1]["metadata"] = {}
    content["cells"][2]["execution_count"] = 1
    path.write_text(json.dumps(content))
    found = " ".join(lint_notebook(path))
    assert "254 lines" in found
    assert "keeps outputs" in found
    assert "0 cells tagged" in found


def test_lint_finds_an_invalid_notebook(notebook):
    path = notebook()
    content = json.loads(path.read_text())
    del content["cells"][0]["metadata"]
    path.write_text(json.dumps(content))
    assert any("not a valid notebook" in complaint for complaint in lint_notebook(path))
