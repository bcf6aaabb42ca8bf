"""`regen bench`: measures, part by part, how fast this is beside its peers and its floors; and the page that shows it.

Each part is a module with `measure() -> rows`. What it found is kept below a root as bench/<part>.json with the machine
that it was found on, so that parts can be measured on different days and devices, and the site has them on one page.
"""

import importlib
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lib.errors import UserError
from lib.files import write_atomically
from lib.reporting.page import render
from lib.training.provenance import commit, device_name
from replications import papers

# Module and what its rows are, in the order of the page; the papers' own follow.
PARTS = {
    "lib": (
        "lib.bench",
        "Metrics and estimators",
        "The peer's time as a multiple of ours: above 1 the peer takes longer. Peers run at the same settings, and were"
        " seen to compute the same value first (agreement). Medians, and the range over rounds in which both took"
        " turns.",
    ),
    "growth": (
        "lib.growth",
        "How cost grows",
        "Seconds as one number grows and all else stays; the exponent is the slope of log seconds over log size. How a"
        " training step grows with latents, and with models (seeds) side by side, stands below vae2013.",
    ),
    "overheads": (
        "replications.overheads",
        "What is spent on anything but training",
        "Checkpoints and provenance as shares of a run's time, and the time from a command to its page where nothing is"
        " to be computed.",
    ),
}
# What many runs cost on workers, what the largest plan would, and what becomes of runs when something breaks: many
# minutes, so only where they are named.
NAMED = {
    "scheduler": (
        "lib.execution.bench",
        "Many runs",
        "Short real runs through dask's scheduler: seconds in all, what a task costs beside its run, and the same runs"
        " by one worker and by two.",
    ),
    "cost": (
        "replications.cost",
        "What the paper preset costs",
        "Hours of every experiment's runs one after the other: the seconds of published runs, and for the others the"
        " steps of a training times what a step took here in some seconds of it. Scores that come after a training are"
        " not in the latter.",
    ),
    "faults": (
        "replications.faults",
        "Faults",
        "Each fault was injected into short real runs. It ended right if the run then had the bits of an undisturbed"
        " one, or if the command refused with one sentence and the exit code that it promises.",
    ),
}
ALL = PARTS | NAMED

STEPS = (
    "Milliseconds of one training step, medians. The floor is the step's bare matrix products; the textbook loop is"
    " the plain way to write the same step. Ratios are taken within each round: median and quartiles."
)


class Title(NamedTuple):
    """Of a column."""

    text: str
    number: bool  # the column is set to the right


def parts() -> list[str]:
    return [*ALL, *papers.known()]


def module_of(part: str) -> str:
    """Raises UserError for a part that there is not."""
    if part in ALL:
        return ALL[part][0]
    if part not in papers.known():
        raise UserError(
            f"`regen bench` has no part {part!r}{papers.nearest(part, parts())} It has: {', '.join(parts())}."
        )
    return f"replications.{part}.bench"


def measure(part: str) -> dict[str, Any]:
    """One part's record: its rows and the machine, seconds that the measurement took included."""
    began = time.monotonic()
    rows = importlib.import_module(module_of(part)).measure()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "schema": 1,
        "part": part,
        "rows": rows,
        "measured_on": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": {
            "devices": sorted({device_name(torch.device("cpu")), device_name(device)}),
            "cores": os.cpu_count(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        },
        "seconds": round(time.monotonic() - began, 1),
    }


def keep(record: dict[str, Any], root: Path) -> Path:
    """Write a part's record below `root`, its keys in the order of the page's columns; and the page anew."""
    write_atomically(root / "bench" / f"{record['part']}.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    page = write_page(root)
    assert page is not None
    return page


def retell_cost(root: Path) -> None:
    """What the kept costs say of published runs, as these are now; nothing is measured."""
    from replications import cost

    if (path := root / "bench" / "cost.json").is_file():
        record = _read(path)
        keep(record | {"rows": cost.retold(record["rows"])}, root)


def write_page(root: Path) -> Path | None:
    """bench.html of what is kept below `root`; None where nothing is."""
    found = [_read(path) for part in parts() if (path := root / "bench" / f"{part}.json").is_file()]
    if not found:
        return None
    tables = [table for record in found for table in _tables(record)]
    render("bench.html.j2", root / "bench.html", title="Speed", tables=tables)
    return root / "bench.html"


def text(record: dict[str, Any]) -> str:
    """A part for the terminal: a block a row."""
    lines = [f"{record['part']}: {record['seconds']:.0f} s of measuring"]
    for row in record["rows"]:
        first, *others = row.items()
        told = "; ".join(f"{name} {cell_text(value)}" for name, value in others if value not in (None, ""))
        lines.append(f"  {first[1]}: {told}")
    return "\n".join(lines)


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        if not {"part", "machine", "rows", "seconds"} <= record.keys():
            raise ValueError("it lacks part, machine, rows or seconds")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is no measurement ({error}): delete it and run `regen bench` again.") from None
    return record


def _tables(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A part for the page: a table for the rows of each shape. Papers' rows have many columns and few cases: there the
    cases stand side by side."""
    part, machine = record["part"], record["machine"]
    shapes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in record["rows"]:
        shapes.setdefault(tuple(row), []).append(row)
    tables: list[dict[str, Any]] = []
    for columns, rows in shapes.items():
        whole = [[heading(column) for column in columns], *([cell_text(row[name]) for name in columns] for row in rows)]
        numeric = [all(not isinstance(row[name], str) or not row[name] for row in rows) for name in columns]
        if part not in ALL:
            whole = [list(cells) for cells in zip(*whole, strict=True)]
            numeric = [False, *(True for _ in rows)]
        titles = [Title(*pair) for pair in zip(whole[0], numeric, strict=True)]
        slug = f"{part}-{len(tables) + 1}" if tables else part
        tables.append({"slug": slug, "columns": titles, "rows": whole[1:]})
    first, *others = tables
    first |= {
        "title": ALL[part][1] if part in ALL else f"Training step of {part}",
        "words": ALL[part][2] if part in ALL else STEPS,
        "machine": f"{' and '.join(machine['devices'])}, {machine['cores']} cores, {machine['instructions']}, torch"
        f" {machine['torch']}; {record['measured_on']}, commit {record['commit'][:12]}",
        "file": f"bench/{part}.json",
    }
    return [first, *others]


def heading(key: str) -> str:
    """A record's key as the page says it: wall_s_by_one -> wall, s by one."""
    return re.sub(r"_s(?=_|$)", ", s", key).replace("_", " ")


def cell_text(value: Any) -> str:
    """Three significant digits; three quartiles as the median with the other two in brackets, other lists in a row."""
    if value is None or value == "":
        return "–"
    if isinstance(value, list):
        texts = [cell_text(each) for each in value]
        return f"{texts[1]} ({texts[0]}–{texts[2]})" if len(texts) == 3 else ", ".join(texts)
    if isinstance(value, float):
        if abs(value) >= 1e3:
            return f"{float(f'{value:.3g}'):,.0f}"
        return f"{value:.3g}" if abs(value) >= 1e-3 or not value else f"{value:.2e}"
    return f"{value:,}" if isinstance(value, int) else str(value)
