"""What a notebook may be asked to vary, read from its source without running it.

papermill only warns on an unknown parameter, runs with the default, and is green; its own inspector takes legitimate
annotations for unknown ones. So a notebook declares its parameters in one tagged cell, as annotated literals, and
whatever else stands there is refused.
"""

import ast
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.errors import UserError

Parameter = str | int | float | bool
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
TAG = "parameters"


def declared_parameters(source: Path) -> dict[str, tuple[type, Parameter]]:
    """Name to (type, default), in the order of the notebook's one `parameters` cell.

    Raises UserError if the file is no notebook, if not exactly one cell is tagged `parameters`, or if that cell holds
    anything but lines such as `preset: str = "laptop"` (types str, int, float, bool), comments aside.
    """
    tagged = [cell for cell in read_cells(source) if TAG in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise UserError(f"{source.name} has {len(tagged)} cells tagged '{TAG}': tag exactly one")
    text = cell_source(tagged[0])
    try:
        statements = ast.parse(text).body
    except SyntaxError as error:
        raise UserError(f"the parameters cell of {source.name} is no Python: {error.msg}") from error
    declared = dict(_declaration(source, statement) for statement in statements)
    if len(declared) < len(statements):
        raise UserError(f"the parameters cell of {source.name} declares a name twice")
    return declared


def check_parameters(source: Path, parameters: Mapping[str, object]) -> None:
    """Refuse what the notebook does not declare, before a kernel starts.

    Raises UserError for an unknown name, with the nearest known one, and for a value of another type. An int will do
    for a float; a bool is no int.
    """
    declared = declared_parameters(source)
    for name, value in parameters.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(declared) or 'none'}"
            raise UserError(f"{source.name} has no parameter '{name}': {hint}")
        kind = declared[name][0]
        if not _fits(value, kind):
            raise UserError(f"parameter '{name}' of {source.name} is {kind.__name__}, was given {value!r}")


def read_cells(source: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file as they stand in its JSON. Raises UserError if it is missing or no notebook."""
    try:
        cells: list[dict[str, Any]] = json.loads(source.read_text(encoding="utf-8"))["cells"]
    except FileNotFoundError as error:
        raise UserError(f"there is no notebook {source}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{source} is not a Jupyter notebook (format 4)") from error
    return cells


def cell_source(cell: Mapping[str, Any]) -> str:
    """A cell's text: the file format allows a string or a list of lines."""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def _declaration(source: Path, statement: ast.stmt) -> tuple[str, tuple[type, Parameter]]:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id=annotation), value=ast.expr() as value):
            kind = TYPES.get(annotation)
            try:
                default = ast.literal_eval(value)
            except ValueError:
                kind = None
            if kind is not None and _fits(default, kind):
                return name, (kind, default)
    raise UserError(
        f"the parameters cell of {source.name} may hold only literals with a type, such as `seed: int = 0`, "
        f"not `{ast.unparse(statement)}`"
    )


def _fits(value: object, kind: type) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)
