"""Execution in a process that may be lost: what is left afterwards, in the good case and in four bad ones."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("papermill", reason="needs the `reports` extra")

import nbformat
import psutil

from lib.reporting.canonical import Scrubber
from lib.reporting.notebooks import REPOSITORY, Execution, execute_notebook
from lib.reporting.page import notebook_page

PAGE = {"title": "A <title>", "banner": "smoke run: numbers mean nothing"}  # as in conftest.py


def run(source: Path, **how: float) -> tuple[Execution, nbformat.NotebookNode, str]:
    """Execute, make the page; both must exist in every case."""
    target, page = source.with_name("executed.ipynb"), source.with_name("page.html")
    execution = execute_notebook(source, target, {"preset": "smoke", "rate": 1}, **{"timeout_s": 120, **how})
    notebook_page(target, page, title="T", failed=execution)
    notebook = nbformat.read(target, as_version=4)
    nbformat.validate(notebook)
    return execution, notebook, page.read_text()


def assert_names_the_cell(
    execution: Execution, notebook: nbformat.NotebookNode, page: str, cell: int, reason: str
) -> None:
    assert (execution.ok, execution.cell) == (False, cell)
    assert reason in execution.reason
    assert "\n" not in execution.reason
    assert f"[code cell {cell}](#failed-cell)" in notebook.cells[0].source
    assert f'<a href="#failed-cell">code cell {cell}</a>' in page
    assert reason in page
    assert page.count('id="failed-cell"') == 1
    assert "before the fall" in page.partition('id="failed-cell"')[2], "what the cell printed is lost"
    assert not any("papermill" in str(c.metadata) or "papermill-error-cell" in c.source for c in notebook.cells)


def has_ended(pid: int) -> bool:
    """Within ten seconds: what is killed ends when it is scheduled next, which a busy machine may put off."""
    for _ in range(200):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_to_the_end(finished):
    folder, execution = finished
    assert execution[:3] == (True, None, "")
    notebook = nbformat.read(folder / "executed.ipynb", as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [1, None, 2, 3, 4]  # the injected cell has no number in the source
    assert [cell.id for cell in notebook.cells[:4]] == ["source-0", "source-1", "injected-parameters", "source-2"]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    kinds = [(o.output_type, o.get("name")) for o in notebook.cells[-1].outputs]
    assert [kind for kind, _ in kinds].count("stream") == 2
    assert kinds[-1] == ("stream", "stderr")
    assert "<object at 0x…>" in (folder / "executed.ipynb").read_text()


def test_executed_again_gives_identical_bytes(finished, tmp_path):
    folder, _ = finished
    execute_notebook(folder / "source.ipynb", tmp_path / "again.ipynb", {"preset": "smoke"}, timeout_s=120)
    notebook_page(tmp_path / "again.ipynb", tmp_path / "p.html", **PAGE)
    assert (tmp_path / "again.ipynb").read_bytes() == (folder / "executed.ipynb").read_bytes()
    assert (tmp_path / "p.html").read_bytes() == (folder / "page.html").read_bytes()


def test_exception_and_where_the_kernel_runs(notebook):
    facts = (
        "import os, sys, replications\nfrom ipykernel.connect import get_connection_info\n"
        "info = get_connection_info(unpack=True)\n"
        "private = info['ip'].startswith(os.environ['REGEN_NOTEBOOK'])\n"
        "print(os.getcwd(), sys.executable, info['transport'], private, type(rate).__name__)"
    )
    source = notebook(facts, "print('before the fall')\nraise ValueError('no *such* <thing>')", "print('never')")
    execution, executed, page = run(source)
    assert_names_the_cell(execution, executed, page, 3, "ValueError: no")
    said = next(cell for cell in executed.cells if "getcwd" in cell.source).outputs[0].text
    assert said.split() == [".", "[env]/bin/" + Path(os.sys.executable).name, "ipc", "True", "float"]
    assert "In[3]" in page
    assert "In[4]" not in page
    assert "no *such* &lt;thing&gt;" in page
    assert "\x1b" not in page
    assert str(REPOSITORY) not in source.with_name("executed.ipynb").read_text() + page


def test_kernel_that_kills_itself(notebook):
    source = notebook(
        "print('before the fall', flush=True)\nimport os, time\ntime.sleep(1)\nos.kill(os.getpid(), 9)", "2"
    )
    assert_names_the_cell(*run(source), cell=2, reason="kernel died")


def test_time_out_ends_every_process_of_the_notebook(notebook, finished, tmp_path):
    stuck = (
        "import os, signal, subprocess, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('before the fall', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)"
    )
    deadline = round(finished[1].seconds) + 3  # time enough to reach the cell on this machine
    began = time.monotonic()
    execution, executed, page = run(notebook(stuck, "2"), timeout_s=deadline)
    assert_names_the_cell(execution, executed, page, 2, f"time-out after {deadline} s")
    assert time.monotonic() - began < deadline + 20
    for pid in (tmp_path / "pids").read_text().split():
        assert has_ended(int(pid))


def test_side_by_side_and_nothing_outlives_a_good_end(notebook, tmp_path):
    leave = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        f"pathlib.Path({str(tmp_path)!r}, f'{{seed}}.pid').write_text(str(child.pid))"
    )
    source = notebook(leave)
    with ThreadPoolExecutor(3) as pool:  # over TCP, or sockets of one name, some of these would hang
        ended = pool.map(
            lambda k: execute_notebook(source, tmp_path / f"{k}.ipynb", {"seed": k}, timeout_s=120), range(3)
        )
    assert [execution[:3] for execution in ended] == [(True, None, "")] * 3
    for pid in (int((tmp_path / f"{k}.pid").read_text()) for k in range(3)):
        assert has_ended(pid)


def test_time_out_of_one_cell(notebook):
    source = notebook("print('before the fall', flush=True)\nimport time\ntime.sleep(60)")
    assert_names_the_cell(*run(source, cell_timeout_s=1), cell=2, reason="the cell ran longer than 1 s")


def test_a_lost_papermill_is_a_failed_execution_with_the_source_as_its_copy(notebook, monkeypatch):
    monkeypatch.setattr("lib.reporting.notebooks.sys.executable", "/bin/false")
    execution, executed, page = run(notebook("x = 1"))
    assert (execution.ok, execution.cell) == (False, None)
    assert "status 1" in execution.reason
    assert "outside its cells" in page
    assert executed.cells[-1].source == "x = 1"


def test_scrubber_leaves_images_and_hashes_alone():
    scrub = Scrubber(Path("/work/regen"), {"out": "/scratch/me/out", "seed": 3})
    assert scrub("/work/regen/lib/a.py /scratch/me/out/x /work/regenerate") == "./lib/a.py [out]/x /work/regenerate"
    assert scrub("<f at 0x7f00deadbeef> 0xDEADBEEF") == "<f at 0x…> 0xDEADBEEF"
    assert scrub("/tmp/ipykernel_12/34567.py:2: W") == "[cell]:2: W"
    image = 'src="data:image/png;base64,AAAA/work/regen/tmp/tmpabcd1234AA=="'
    assert scrub(image) == image
