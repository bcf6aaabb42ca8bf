"""What is demanded of a notebook in git, told without running it."""

import ast
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.reporting.parameters import cell_source, declared_parameters, read_cells

MOST_LINES_A_CELL = 25
MOST_LINES = 250
MOST_LINES_A_DEF = 5
_ABSOLUTE = re.compile(r"""(?<![\w.:/<])(?:/(?:home|Users|root|tmp|mnt|data|content|work|scratch|opt)\b|[A-Z]:\\|~/)""")


def lint_notebook(path: Path, allowed_imports: Collection[str] | None = None) -> list[str]:
    """Everything wrong with the notebook at `path`, a sentence each; an empty list if nothing is.

    `allowed_imports` are top-level package names; without it, imports are not judged. Raises UserError only if the
    file is no notebook at all.
    """
    complaints = _invalid(path)
    try:
        declared_parameters(path)
    except UserError as error:
        complaints.append(str(error))
    code = [cell for cell in read_cells(path) if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        where = f"code cell {number}"
        if cell.get("outputs") or cell.get("execution_count") is not None:
            complaints.append(f"{where} keeps outputs or an execution count: strip it")
        if (lines := _lines(cell)) > MOST_LINES_A_CELL:
            complaints.append(f"{where} has {lines} lines of code, more than {MOST_LINES_A_CELL}")
        complaints += [f"{where}: {what}" for what in _code_complaints(cell_source(cell), allowed_imports)]
    if (total := sum(map(_lines, code))) > MOST_LINES:
        complaints.append(f"{total} lines of code in all, more than {MOST_LINES}")
    return complaints


def _invalid(path: Path) -> list[str]:
    import nbformat

    read_cells(path)  # a file that is no notebook is told in our words
    try:
        nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))
    except (nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        return [f"not a valid notebook: {str(error).splitlines()[0]}"]
    return []


def _lines(cell: dict[str, Any]) -> int:
    return sum(1 for line in cell_source(cell).splitlines() if line.strip())


def _code_complaints(source: str, allowed_imports: Collection[str] | None) -> list[str]:
    magics = [line for line in source.splitlines() if re.match(r"\s*[!%]", line)]
    if magics:
        return [f"`{magics[0].strip()}` is for a shell, not a notebook that others rerun"]
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError as error:
        return [f"no Python: {error.msg}"]
    found: list[str] = []
    for node in nodes:
        match node:
            case ast.ClassDef(name=name):
                found.append(f"class {name} belongs in lib/ or replications/")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if (node.end_lineno or node.lineno) - node.lineno + 1 > MOST_LINES_A_DEF:
                    found.append(f"def {name} exceeds {MOST_LINES_A_DEF} lines: move it to lib/ or replications/")
            case ast.Constant(value=str(text)) if _ABSOLUTE.search(text):
                found.append(f"absolute path {text!r}")
            case ast.Import() | ast.ImportFrom():
                found += [f"imports {n}, which is not allowed" for n in _foreign(node, allowed_imports)]
    return found


def _foreign(node: ast.Import | ast.ImportFrom, allowed: Collection[str] | None) -> list[str]:
    if allowed is None:
        return []
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."]
    return [name for name in names if name.partition(".")[0] not in allowed]
