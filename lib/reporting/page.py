"""A notebook, or a list of reports, as one HTML file that asks no other host, and runs no script.

The page carries a Content-Security-Policy that forbids both, so what a cell's output might embed cannot break that.
"""

import base64
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lib.files import write_atomically
from lib.reporting.canonical import BANNER
from lib.reporting.markup import VERDICTS, badge
from lib.reporting.notebooks import Execution

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).with_name("templates")
MOST_BYTES = 3_000_000
_SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain"]


class IndexEntry(NamedTuple):
    """One report on the index page."""

    paper: str  # its key, as in vae2013
    title: str
    byline: str  # authors and year
    preset: str
    href: str  # relative to the index
    verdicts: Mapping[str, int]  # how many claims got each verdict
    state: Literal["ok", "failed", "numbers mean nothing"]
    detail: str = ""  # such as "3 runs, cpu, 2 threads"


def notebook_page(
    executed: Path,
    html: Path,
    *,
    title: str,
    subtitle: str = "",
    banner: str | None = None,
    failed: Execution | None = None,
) -> None:
    """Write the executed notebook as the page `html`. Equal notebooks give equal bytes.

    `title` is the page's heading, in place of the notebook's first one. `banner` is a notice on top. `failed`, if not
    ok, puts a banner there that names the failing cell and links to it. A page over MOST_BYTES is written, and a
    warning logged. Raises OSError if it cannot be written.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.filters import strip_ansi

    from lib.reporting.markdown import Prose, highlighted

    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if BANNER not in cell.metadata.get("tags", [])]
    prose = Prose()
    exporter = HTMLExporter(
        template_name="regen",
        extra_template_basedirs=[str(TEMPLATES)],
        filters={
            "prose": prose.render,
            "headings": lambda _: prose.headings,  # a filter, for nbconvert hands the template a copy of its resources
            "highlighted": highlighted,
            "plain": strip_ansi,
            "svg_uri": lambda text: "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode(),
            "without_break": lambda data: "".join(data.split()),
        },
        config={"NbConvertBase": {"display_data_priority": _SHOWN}},
    )
    page = {
        "title": title,
        "subtitle": subtitle,
        "banner": banner,
        "failed": failed if failed is not None and not failed.ok else None,
    }
    text, _ = exporter.from_notebook_node(notebook, {"page": page})
    _write(html, text)


def index_page(
    path: Path, entries: Sequence[IndexEntry], *, title: str = "Replication reports", banner: str | None = None
) -> None:
    """Write the page that leads to the reports, in the order of `entries`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES / "regen"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    cards = [{**entry._asdict(), "badges": _counted(entry.verdicts)} for entry in entries]
    text = environment.get_template("reports.html.j2").render(page={"title": title, "banner": banner}, cards=cards)
    _write(path, text)


def _counted(verdicts: Mapping[str, int]) -> list[tuple[int, Any]]:
    """(count, badge) of each verdict that occurs, best first. Raises ValueError on a word that is no verdict."""
    ordered = sorted(verdicts, key=lambda word: VERDICTS.index(word) if word in VERDICTS else -1)
    return [(verdicts[word], badge(word)) for word in ordered if verdicts[word]]


def _write(path: Path, text: str) -> None:
    content = text.strip() + "\n"
    write_atomically(path, content)
    if (size := len(content.encode())) > MOST_BYTES:
        log.warning("%s has %.1f MB, more than %.1f: show sample sheets as PNG, fewer or smaller", path, size / 1e6, 3)
