"""The notebooks where only some experiments are finished: every cell says what is missing, and none stops the page."""

import contextlib
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from lib import reporting
from lib.execution.runs import WeightsAbsent
from replications import papers

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def shown(monkeypatch):
    """Identifiers of what the cells show; figures are made and not rendered, which takes most of a notebook's time."""
    found = []

    def show_figure(figure, identifier, caption, alt, *_, **__):
        with contextlib.suppress(WeightsAbsent):
            assert figure() if callable(figure) else figure
        plt.close("all")
        assert caption
        assert alt
        found.append(identifier)

    show_table = reporting.show_table

    def table(frame, identifier, caption, folder, *arguments, **named):
        found.append(identifier)
        return show_table(frame, identifier, caption, None, *arguments, **named)

    monkeypatch.setattr(reporting, "show_figure", show_figure)
    monkeypatch.setattr(reporting, "show_table", table)
    with plt.rc_context():  # a notebook sets the house style for its process
        yield found


def execute(key: str, folder: Path, seeds: int = 1) -> None:
    """Every cell of the notebook, on the runs below `folder`."""
    names = {"preset": "smoke", "seeds": seeds, "run_dir": str(folder), "device": "none", "display": lambda *_: None}
    for number, cell in enumerate(json.loads((REPOSITORY / "notebooks" / f"{key}.ipynb").read_text())["cells"]):
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
            exec(compile("".join(cell["source"]), f"{key}, cell {number}", "exec"), names)


def with_runs(key: str, smoke: Path, folder: Path, experiments: set[str]) -> Path:
    (folder / "runs" / key).mkdir(parents=True)
    for run in papers.plan(key, "smoke", 1):
        if run.experiment in experiments:
            (folder / "runs" / key / run.fingerprint).symlink_to(smoke / "runs" / key / run.fingerprint)
    return folder


def experiments_of(key: str) -> list[str]:
    return list(dict.fromkeys(run.experiment for run in papers.plan(key, "smoke", 1)))


@pytest.mark.parametrize("key", papers.known())
def test_without_runs_and_with_one(key, smoke, tmp_path, shown):
    execute(key, with_runs(key, smoke, tmp_path / "none", set()))
    without = set(shown)
    assert f"{key}/table-verdicts" in without
    shown.clear()
    execute(key, with_runs(key, smoke, tmp_path / "one", {experiments_of(key)[0]}))
    assert without <= set(shown)


@pytest.mark.parametrize("key", papers.known())
def test_with_one_seed_of_three(key, smoke, tmp_path, shown):
    execute(key, with_runs(key, smoke, tmp_path, {*experiments_of(key)}), seeds=3)
    assert len(shown) > 15


@pytest.mark.slow
@pytest.mark.parametrize("key", papers.known())
def test_with_any_one_experiment_and_without_any_one(key, smoke, tmp_path, shown):
    names = experiments_of(key)
    for number, name in enumerate(names):
        execute(key, with_runs(key, smoke, tmp_path / f"only {number}", {name}))
        execute(key, with_runs(key, smoke, tmp_path / f"without {number}", {*names} - {name}))
    shown.clear()
    execute(key, with_runs(key, smoke, tmp_path / "all", {*names}))
    assert len(shown) > 15
