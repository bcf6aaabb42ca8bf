"""Strict papermill: parameters checked first, a process that can be lost, and an executed copy in every case."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lib.files import write_atomically
from lib.reporting.canonical import Scrubber, add_banner, canonicalise, started_cell
from lib.reporting.lint import lint_notebook
from lib.reporting.parameters import Parameter, check_parameters, declared_parameters, read_cells

__all__ = [
    "Execution",
    "check_parameters",
    "declared_parameters",
    "execute_notebook",
    "kill_executions",
    "lint_notebook",
]

REPOSITORY = Path(__file__).resolve().parents[2]
_TOKEN = "REGEN_NOTEBOOK"  # every process of one execution carries its folder under this name
_GRACE_S = 20.0  # for papermill to notice that its kernel is gone, and to save


class Execution(NamedTuple):
    """How the execution of a notebook ended."""

    ok: bool
    cell: int | None  # number of the failing code cell in the source, from 1; None if none was at fault
    reason: str  # one sentence; empty if ok
    seconds: float


def execute_notebook(
    source: Path,
    target: Path,
    parameters: Mapping[str, Parameter],
    *,
    timeout_s: float = 3600,
    cell_timeout_s: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path = REPOSITORY,
) -> Execution:
    """Run `source` with `parameters` in a process of its own and write the executed, canonical notebook to `target`.

    `target` is written whether the notebook came to its end, raised, lost its kernel or ran out of `timeout_s` (for
    all of it) or `cell_timeout_s` (for a cell): with a banner on top then. Executed twice, equal sources give equal
    bytes as far as their own outputs do. No process of the execution outlives it. `env` is added to the environment.

    Raises UserError, before any kernel starts, if the parameters are not what the notebook declares.
    """
    check_parameters(source, parameters)
    declared = declared_parameters(source)
    values = {name: declared[name][0](value) for name, value in parameters.items()}
    began = time.monotonic()
    with _folder() as folder:
        job = {
            "source": _copy(source, folder),
            "target": str(folder / "executed.ipynb"),
            "reason": str(folder / "reason.txt"),
            "parameters": values,
            "cell_timeout_s": cell_timeout_s and int(cell_timeout_s),  # nbclient takes whole seconds
            "folder": str(folder),
            "cwd": str(cwd),
        }
        reason = _run_child(job, folder, timeout_s, _environment(folder, env))
        notebook, ids = _read_executed(source, folder / "executed.ipynb")
    scrub = Scrubber(REPOSITORY, values)
    cell = canonicalise(notebook, ids, scrub, started_cell(notebook) if reason else None)
    reason = _sentence(scrub(reason))
    if reason:
        add_banner(notebook, cell, reason)
    write_atomically(target, _as_json(notebook))
    return Execution(not reason, cell, reason, time.monotonic() - began)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A scratch folder of a short name: the path of a Unix socket may have about a hundred characters."""
    roomy = len(tempfile.gettempdir()) < 60
    folder = Path(tempfile.mkdtemp(prefix="regen-nb-", dir=None if roomy else "/tmp"))
    try:
        yield folder
    finally:
        _kill(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Path, folder: Path) -> str:
    return str(shutil.copyfile(source, folder / "source.ipynb"))  # papermill formats braces in a path as parameters


def _environment(folder: Path, extra: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's environment without the caller's IPython: no start-up files, no shared history, no fixed backend."""
    own = {
        _TOKEN: str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONHASHSEED": "0",  # sets print in the same order each time
        "OMP_NUM_THREADS": "1",  # sums in the same order on any number of cores; and papers are executed side by side
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
    }
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**kept, **own, **(extra or {})}


def _run_child(job: dict[str, Any], folder: Path, timeout_s: float, env: dict[str, str]) -> str:
    """Run kernel.py until it ends or is out of time. Returns why the notebook stopped, or nothing."""
    described = folder / "job.json"
    described.write_text(json.dumps(job))
    command = [sys.executable, "-m", "lib.reporting.kernel", str(described)]
    with (folder / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            command, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        import nbconvert.filters  # noqa: F401 - takes a second, and what comes after needs it; now it costs nothing

        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            # Only the kernel first: papermill then saves what the cell had printed, and ends by itself.
            _kill(folder, spare=child.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
            return f"time-out after {timeout_s:g} s"
        finally:
            child.kill()
            child.wait()
    told = Path(job["reason"])
    if told.is_file():
        return told.read_text()
    last = (folder / "log.txt").read_text(errors="replace").strip().rpartition("\n")[2]
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"the process that runs the notebook ended with {how} ({last or 'out of memory, or killed'})"


def _kill(folder: Path, spare: int | None = None) -> None:
    """Kill every process of the execution. A kernel leads a session of its own, so killing a group would miss it."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != spare and process.environ().get(_TOKEN) == str(folder):
                process.kill()


def kill_executions() -> None:
    """Kill the notebooks that threads of this process are executing; their `execute_notebook` then returns."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if _TOKEN in process.environ():
                process.kill()


def _read_executed(source: Path, executed: Path) -> tuple[Any, set[str]]:
    """What papermill left, or the source without outputs if it left nothing whole; and the source's cell ids."""
    import nbformat

    ids = {cell["id"] for cell in read_cells(source) if "id" in cell}
    try:
        return nbformat.read(executed, as_version=4), ids
    except (OSError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook, ids


def _as_json(notebook: Any) -> str:
    import nbformat

    plain = nbformat.from_dict(notebook)
    nbformat.validate(plain)
    return str(nbformat.writes(plain)).rstrip("\n") + "\n"


def _sentence(reason: str) -> str:
    """`reason` on one line, without colours and final stop, of a bearable length."""
    from nbconvert.filters import strip_ansi

    line = " ".join(strip_ansi(reason).split()).rstrip(". ")
    return line if len(line) <= 300 else line[:299] + "…"
