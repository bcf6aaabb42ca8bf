"""Pages of the site, each one HTML file that asks no other host: a notebook, or data in a template.

A page carries a Content-Security-Policy that forbids every request, and every script but page.js, which is named by
its digest; so what a cell's output might embed cannot break that.
"""

import base64
import functools
import hashlib
import html
import logging
import re
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


class Citation(NamedTuple):
    """What a reader copies to cite one exhibit. files: ending -> href from the page."""

    identifier: str
    text: str
    bibtex: str
    protocol: str
    files: Mapping[str, str]


def notebook_page(
    executed: Path,
    target: Path,
    *,
    title: str,
    subtitle: str = "",
    banner: str | None = None,
    failed: Execution | None = None,
    citations: Sequence[Citation] = (),
) -> None:
    """Write the executed notebook as the page `target`. Equal notebooks give equal bytes.

    `title` is the page's heading, in place of the notebook's first one. `banner` is a notice on top. `failed`, if not
    ok, puts a banner there that names the failing cell and links to it. Each exhibit of `citations` gets its citation
    below its caption. A page over MOST_BYTES is written, and a warning logged. Raises OSError if it cannot be written.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.filters import strip_ansi

    from lib.reporting.markdown import Prose, highlighted

    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if BANNER not in cell.metadata.get("tags", [])]
    _say_once(notebook.cells)
    prose = Prose()
    exporter = HTMLExporter(
        template_name="regen",
        extra_template_basedirs=[str(TEMPLATES)],
        filters={
            "prose": prose.render,
            "headings": lambda _: prose.headings,  # a filter, for nbconvert hands the template a copy of its resources
            "highlighted": highlighted,
            "citable": functools.partial(_with_citations, citations={c.identifier: c for c in citations}),
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
        "script": _script(),
    }
    text, _ = exporter.from_notebook_node(notebook, {"page": page})
    _write(target, text)


def _say_once(cells: Sequence[Any]) -> None:
    """Where cells that follow each other show the same notice and nothing else, leave it to the last of them."""
    said = [_notice(cell) for cell in cells]
    for cell, notice, following in zip(cells, said, said[1:], strict=False):
        if notice and notice == following:
            cell.outputs = []


def _notice(cell: Any) -> str:
    """The markup of a cell that shows a notice alone, else empty."""
    shown = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
    return shown[0] if len(shown) == 1 and shown[0].startswith('<div class="note ') else ""


def render(template: str, target: Path, *, title: str, up: str = "", **values: Any) -> None:
    """Write one page of the site from a template of this package. up: the way from it to the site's root, as "../"."""
    kind = template.partition(".")[0]
    page = {"title": title, "kind": kind, "script": _script(), **values.pop("page", {})}
    _write(target, _environment().get_template(template).render(page=page, up=up, badge=badge, **values))


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


def index_page(
    path: Path,
    entries: Sequence[IndexEntry],
    *,
    title: str = "Replication reports",
    summaries: Sequence[str] = (),
    speed: bool = False,
) -> None:
    """Write the page that leads to the reports, in the order of `entries`.

    summaries: the presets whose folder holds a summary.html. speed: whether bench.html lies beside the index.
    """
    cards = [{**entry._asdict(), "badges": _counted(entry.verdicts)} for entry in entries]
    totals = [{**card, "verdicts": {word: card["verdicts"].get(word, 0) for word in VERDICTS}} for card in cards]
    totals = [row for row in totals if any(row["verdicts"].values())]
    shown: dict[str, Any] = {"cards": cards, "totals": totals, "summaries": summaries, "speed": speed}
    render("reports.html.j2", path, title=title, words=VERDICTS, **shown)


@functools.cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES / "regen"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


@functools.cache
def _script() -> dict[str, Any]:
    """The pages' script and its digest, by which the policy knows it."""
    from markupsafe import Markup

    text = (TEMPLATES / "regen" / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": Markup(text), "digest": Markup(f"sha256-{digest}")}


_EXHIBIT = re.compile(
    r'<figure id="[a-z0-9-]+" class="exhibit.*?title="Permanent link to ([^"]+)".*?(?=</figcaption>)', re.S
)


_STYLE = re.compile(r"<style>.*?</style>", re.S)


def _with_citations(markup: str, citations: Mapping[str, Citation]) -> str:
    """A cell's markup with the citation of each of its exhibits at the end of the caption.

    Style sheets that a library puts into an output are dropped: they are no content, and ours colours code, which the
    keyboard can reach to scroll it.
    """

    def cited(found: re.Match[str]) -> str:
        citation = citations.get(html.unescape(found[1]))
        if citation is None:
            return found[0]
        files = [{"ending": ending, "href": href} for ending, href in citation.files.items()]
        template = _environment().get_template("cite.html.j2")
        return found[0] + str(template.render({**citation._asdict(), "files": files}))

    reachable = _STYLE.sub("", markup).replace(
        '<div class="highlight"><pre>', '<div class="highlight"><pre tabindex="0">'
    )
    return _EXHIBIT.sub(cited, reachable)


def _counted(verdicts: Mapping[str, int]) -> list[tuple[int, Any]]:
    """(count, badge) of each verdict that occurs, best first. Raises ValueError on a word that is no verdict."""
    ordered = sorted(verdicts, key=lambda word: VERDICTS.index(word) if word in VERDICTS else -1)
    return [(verdicts[word], badge(word)) for word in ordered if verdicts[word]]


def _write(path: Path, text: str) -> None:
    content = text.strip() + "\n"
    write_atomically(path, content)
    if (size := len(content.encode())) > MOST_BYTES:
        log.warning("%s has %.1f MB, more than %.1f: show sample sheets as PNG, fewer or smaller", path, size / 1e6, 3)
