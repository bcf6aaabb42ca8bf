"""An executed notebook without what differs between two equal executions: times, paths, addresses, random ids."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FAILED_CELL = "failed-cell"  # tag of the cell that failed, and its anchor in the page
BANNER = "failure-banner"  # tag of the markdown cell on top that says so
_PAPERMILL_BANNER = "papermill-error-cell-tag"
_INJECTED = "injected-parameters"

_ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]+")
_CELL_FILE = re.compile(r"[^\s\"'<>(]*ipykernel_\d+/\d+\.py")
_TEMPORARY = re.compile(r"[\w./-]*/tmp[a-z0-9_]{8}(?![\w-])")
_IN = re.compile(r"In ?\[(\d+)\]")
_DATA_URI = re.compile(r"(data:[a-z]+/[a-z+.-]+;base64,[A-Za-z0-9+/=]+|data:image/svg\+xml,[^\"]+)")


class Scrubber:
    """Replaces in text what belongs to this machine or this process."""

    def __init__(self, root: Path, parameters: Mapping[str, object] | None = None) -> None:
        given = [str(value) for value in (parameters or {}).values()]
        words = {text: f"[{Path(text).name}]" for text in given if Path(text).is_absolute()}
        words |= {str(root): ".", sys.prefix: "[env]", str(Path.home()): "~"}
        longest_first = sorted((word for word in words if len(word) > 1), key=len, reverse=True)
        self._words = words
        self._paths = re.compile("|".join(re.escape(word) + r"(?![\w-])" for word in longest_first))

    def __call__(self, text: str) -> str:
        """`text` without paths, addresses and process numbers; an inlined image is left as it is."""
        parts = _DATA_URI.split(text)
        return "".join(part if index % 2 else self._scrub(part) for index, part in enumerate(parts))

    def _scrub(self, text: str) -> str:
        text = _CELL_FILE.sub("[cell]", text)
        text = self._paths.sub(lambda found: self._words[found[0]], text)
        return _ADDRESS.sub("0x…", _TEMPORARY.sub("[tmp]", text))


def started_cell(notebook: Any) -> int | None:
    """Position among all cells of the last code cell that papermill began, or None."""
    begun = [position for position, cell in enumerate(notebook.cells) if cell.cell_type == "code" and _begun(cell)]
    return begun[-1] if begun else None


def canonicalise(notebook: Any, source_ids: set[str], scrub: Scrubber, failed: int | None = None) -> int | None:
    """Make `notebook` (nbformat 4) repeatable in place, and tag the cell at position `failed`.

    Execution counts become the number of the code cell in the source, so "cell 3" is In [3] and the third code cell;
    tracebacks follow. Returns that number for the failed cell; papermill's injected cell has none.
    """
    failed_cell: Any = None if failed is None else notebook.cells[failed]
    notebook.cells = [cell for cell in notebook.cells if _PAPERMILL_BANNER not in _tags(cell)]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    numbers = _number(notebook)
    failed_number = None
    for position, cell in enumerate(notebook.cells):
        tags, injected = _tags(cell), _INJECTED in _tags(cell)
        if cell.get("id") not in source_ids:
            cell["id"] = _INJECTED if injected else f"cell-{position}"
        if injected:
            cell.source = scrub(cell.source)
        if cell.cell_type == "code":
            cell.outputs = _outputs(cell.outputs, cell.execution_count, scrub, numbers)
        if cell is failed_cell:
            failed_number = cell.execution_count
            tags = [*tags, FAILED_CELL]
        cell.metadata = {"tags": tags} if tags else {}
    return failed_number


def _number(notebook: Any) -> dict[str, str]:
    """Set the execution counts. Returns what In [n] of the kernel has become, for tracebacks."""
    became: dict[str, str] = {}
    number = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            injected = _INJECTED in _tags(cell)
            number += not injected
            if cell.execution_count is not None:
                became[str(cell.execution_count)] = "parameters" if injected else str(number)
            cell.execution_count = number if _begun(cell) and not injected else None
    return became


def _begun(cell: Any) -> bool:
    """Whether papermill came to this cell. Its `status` would not tell: in the end it calls all cells completed."""
    return cell.metadata.get("papermill", {}).get("start_time") is not None


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def add_banner(notebook: Any, cell: int | None, reason: str) -> None:
    """Say on top of `notebook` that it is not whole, and why."""
    import nbformat

    where = f"in [code cell {cell}](#{FAILED_CELL})" if cell else "outside its cells"
    words = re.sub(r"([\\`*_$<>\[\]])", r"\\\1", reason)
    text = f"**This notebook stopped {where}: {words}.** What follows is incomplete."
    banner = nbformat.v4.new_markdown_cell(text, metadata={"tags": [BANNER]}, id=BANNER)
    notebook.cells.insert(0, banner)


def _outputs(outputs: list[Any], count: int | None, scrub: Scrubber, numbers: Mapping[str, str]) -> list[Any]:
    """Outputs in their order, streams joined: the system decides how print's text is cut into messages.

    What went to stderr comes last and in one piece, for its place between the others is a race.
    """
    kept: list[Any] = []
    errors = ""
    for output in outputs:
        output.pop("transient", None)
        if output.output_type == "stream":
            text = scrub(_as_on_terminal(output.text))
            if output.name == "stderr":
                errors += text
            elif kept and kept[-1].output_type == "stream":
                kept[-1].text += text
            elif text:
                kept.append(output)
                output.text = text
            continue
        if output.output_type == "error":
            output.evalue = scrub(output.evalue)
            traceback = (
                _IN.sub(lambda found: f"In[{numbers.get(found[1], found[1])}]", line) for line in output.traceback
            )
            output.traceback = [scrub(line) for line in traceback]
        else:
            output.metadata = {}
            output.data = {kind: scrub(v) if kind.startswith("text/") else v for kind, v in output.data.items()}
        if output.output_type == "execute_result":
            output.execution_count = count
        kept.append(output)
    if errors.strip():
        last = next(output for output in outputs if output.output_type == "stream" and output.name == "stderr")
        last.text = errors
        kept.append(last)
    return kept


def _as_on_terminal(text: str) -> str:
    """A line that was overwritten by carriage returns, as progress bars are, in its last state."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
