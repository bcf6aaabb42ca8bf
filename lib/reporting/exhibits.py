"""Figures and tables that can be cited: a permanent identifier, files of repeatable bytes, and their digests.

An identifier is `<paper>/<name>`, as in `vae2013/figure-2`. In a page the exhibit is found at `#figure-2`; in a folder
as `vae2013/figure-2.svg`, `.pdf`, `.png` and, with the numbers that it draws, `.csv`; a table as `.csv`, `.tex` and
`.json`; in that folder's `exhibits.json` with caption and SHA-256.
"""

import base64
import html
import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from lib.errors import UserError
from lib.execution.runs import WeightsAbsent
from lib.files import read_json, write_atomically
from lib.reporting.figure_data import figure_data
from lib.reporting.latex import booktabs
from lib.reporting.markup import Html, badge, link, markup, note, plain
from lib.reporting.style import PNG_DPI, figure_files

if TYPE_CHECKING:
    import pandas as pd
    from filelock import BaseFileLock
    from matplotlib.figure import Figure

__all__ = ["Exhibit", "Html", "badge", "link", "note", "read_exhibits", "show_figure", "show_table"]

INDEX = "exhibits.json"
_IDENTIFIER = re.compile(r"[a-z0-9]+/[a-z0-9-]+")
# What a table's author writes for a number: "−101.2 ± 0.4", "1,000", "3e-4", "< 0.01", "62 %", or a dash for none.
_DIGITS = r"[\d.,]+(?:e[-+−]?\d+)?\s*%?"
_NUMBER = re.compile(rf"[<>≤≥~≈]?\s*[-+−±]?{_DIGITS}(?:\s*±\s*{_DIGITS})?|[-–—]?|nan", re.IGNORECASE)

Align = Literal["left", "right", "center"]


class Exhibit(NamedTuple):
    """A figure or table as a notebook shows it. `files` are names under the folder it was written to, with SHA-256."""

    identifier: str
    kind: Literal["figure", "table"]
    caption: str
    alt: str
    files: dict[str, str]
    html: str
    shows_data: bool = False  # images of a data set, which may be looked at here and not handed on

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": repr(self)}

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"[{self.kind.capitalize()} {self.identifier}. {self.caption}]"


def show_figure(
    figure: "Figure | Callable[[], Figure]",
    identifier: str,
    caption: str | Html,
    alt: str,
    folder: Path | None = None,
    kind: Literal["svg", "png"] = "svg",
    shows_data: bool = False,
) -> Exhibit:
    """Make `figure` an exhibit, to be a cell's last expression (or an argument of `display`). Closes the figure.

    The page gets it as SVG, or as PNG where `kind` says so: sheets of samples, plots of ten thousand points. `folder`,
    if given, gets both, a PDF, and the numbers that are drawn as CSV. `shows_data` says that images of a data set are
    in it: then it is left out when the report is published, for their licences may not allow it. `alt` tells what is
    to be seen to those who cannot see it; it must not be empty. A figure drawn from a run's weights is given as a
    function that draws it: where only published runs are here, which are kept without weights, the files of an earlier
    drawing stay as they are.
    Raises UserError for an identifier unlike `vae2013/figure-2` or an empty `alt`.
    """
    slug = _slug(identifier)
    if not alt.strip():
        raise UserError(f"{identifier} has no alternative text: say in one sentence what the figure shows")
    import matplotlib.pyplot as plt

    open_before, kept = plt.get_fignums(), False
    try:
        content = _drawn(figure() if callable(figure) else figure, kind, folder)
    except WeightsAbsent:
        for begun in set(plt.get_fignums()) - set(open_before):  # Jupyter would show it below the cell, half drawn
            plt.close(begun)
        content, kept = _drawn_before(identifier, folder), True
    image = _image(content, kind, alt) if content else "<p><em>Not drawn: the weights of its run are not here.</em></p>"
    files = _write(content, identifier, folder)
    body = f'<figure id="{slug}" class="exhibit picture">{image}{_caption("Figure", identifier, caption)}</figure>'
    return _record(Exhibit(identifier, "figure", plain(caption), alt, files, body, shows_data), folder, kept)


def _drawn(figure: "Figure", kind: Literal["svg", "png"], folder: Path | None) -> dict[str, bytes]:
    """A figure's files by ending, no more than the page needs where none are kept; closes it."""
    import matplotlib.pyplot as plt

    if folder is None:
        content = figure_files(figure, (kind,), packed=False)
    else:
        content = figure_files(figure)
        content["csv"] = figure_data(figure).to_csv(index=False, lineterminator="\n").encode()
    plt.close(figure)
    return content


def _drawn_before(identifier: str, folder: Path | None) -> dict[str, bytes]:
    """The files of an earlier drawing, as far as there are any."""
    if folder is None:
        return {}
    found = {end: folder / f"{identifier}.{end}" for end in ("svg", "png", "pdf", "csv")}
    return {end: path.read_bytes() for end, path in found.items() if path.is_file()}


def _image(content: Mapping[str, bytes], kind: Literal["svg", "png"], alt: str) -> str:
    width, height = _size(content[kind])
    return (
        f'<img src="{_uri(content[kind], kind)}" alt="{html.escape(alt)}" '
        f'width="{width}" height="{height}" style="max-width:100%;height:auto;background:#fff">'
    )


def withhold(markup: str, identifier: str) -> str:
    """A cell's markup without the picture of one figure; its place, identifier and caption stay."""
    slug = _slug(identifier)
    start = markup.find(f'<figure id="{slug}" class="exhibit picture">')
    if start < 0:
        return markup
    image, end = markup.find("<img", start), markup.index("<figcaption", start)
    if not 0 <= image < end:  # it was not drawn: the run's weights are not here
        return markup
    notice = "Not published: this figure shows images of a data set. The report that you make yourself has it."
    return f"{markup[:image]}<p><em>{notice}</em></p>{markup[end:]}"


def show_table(
    frame: "pd.DataFrame",
    identifier: str,
    caption: str | Html,
    folder: Path | None = None,
    align: Mapping[str, Align] | None = None,
) -> Exhibit:
    """Make `frame` an exhibit: a table in the page; in `folder` CSV, LaTeX (booktabs) and JSON.

    Strings stay as the caller formatted them and are escaped; cells of `Html` (badges, links) are not. Floats get four
    significant digits, missing values a dash. A column of numbers is set to the right unless `align` says otherwise.
    An index other than 0, 1, 2 … becomes the rows' headers.
    """
    import pandas as pd

    slug = _slug(identifier)
    indexed = not isinstance(frame.index, pd.RangeIndex)
    flat = frame.reset_index() if indexed else frame
    headers = frame.index.nlevels if indexed else 0
    names = ["" if indexed and name in ("index", "level_0") else str(name) for name in flat.columns]
    cells = [[_cell(value) for value in row] for row in flat.itertuples(index=False, name=None)]
    sides = [(align or {}).get(name, _side([row[i] for row in cells])) for i, name in enumerate(names)]
    titles = zip(names, sides, strict=True)
    head = "".join(f'<th scope="col" style="text-align:{side}">{html.escape(name)}</th>' for name, side in titles)
    rows = "".join(f"<tr>{_row(row, sides, headers)}</tr>" for row in cells)
    body = (
        f'<figure id="{slug}" class="exhibit table">{_caption("Table", identifier, caption)}'
        f'<div class="scroll" style="overflow-x:auto" tabindex="0" role="region" aria-label="Table {identifier}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></figure>"
    )
    text = pd.DataFrame([[plain(cell) for cell in row] for row in cells], columns=names)
    content = {
        "csv": text.to_csv(index=False, lineterminator="\n"),
        "tex": booktabs(text, identifier, plain(caption), sides),
        "json": json.dumps(
            {"identifier": identifier, "caption": plain(caption), "rows": text.to_dict("records")},
            indent=1, ensure_ascii=False,
        ) + "\n",
    } if folder is not None else {}  # fmt: skip
    files = _write(content, identifier, folder)
    return _record(Exhibit(identifier, "table", plain(caption), "", files, body), folder)


def complete(folder: Path, paper: str, shown: str, made_from: Mapping[str, Any]) -> list[dict[str, Any]]:
    """After a notebook of `paper` was executed: enter what its exhibits were made from, and drop those it has no more.

    shown: the notebook's markup. Files of dropped exhibits go as well. A figure that was kept from an earlier drawing
    keeps what that was made from. Returns the paper's exhibits.
    """
    mine, others = [], []
    with _locked(folder):
        for entry in read_exhibits(folder):
            owner, _, slug = entry["identifier"].partition("/")
            if owner != paper:
                others.append(entry)
            elif f'<figure id="{slug}" class="exhibit' in shown:
                mine.append({"made_from": dict(made_from), **entry})
        write_index(folder, [*others, *mine])
    kept = {name for entry in mine for name in entry["files"]}
    for path in (folder / paper).glob("*"):
        if f"{paper}/{path.name}" not in kept:
            path.unlink()
    return mine


def write_index(folder: Path, exhibits: list[dict[str, Any]], withheld: Iterable[str] | None = None) -> None:
    """withheld: identifiers of figures that pages name and that are not here, for they show images of a data set; None
    leaves those that are listed."""
    index: dict[str, Any] = {"schema": 1, "exhibits": sorted(exhibits, key=lambda entry: str(entry["identifier"]))}
    if names := sorted(read_withheld(folder) if withheld is None else withheld):
        index["withheld"] = names
    write_atomically(folder / INDEX, json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_exhibits(folder: Path) -> list[dict[str, Any]]:
    """What `folder` holds, in order of identifier: {identifier, kind, caption, alt, files: {name: sha256}} each."""
    exhibits: list[dict[str, Any]] = _index(folder).get("exhibits", [])
    return exhibits


def read_withheld(folder: Path) -> list[str]:
    """Identifiers of the figures that were left out when the others were published."""
    withheld: list[str] = _index(folder).get("withheld", [])
    return withheld


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        return {}
    index = read_json(path)
    if not (isinstance(index, dict) and isinstance(index.get("exhibits"), list)):
        raise UserError(f"{path} is not a list of exhibits: delete it and make the report again.")
    return index


def _record(exhibit: Exhibit, folder: Path | None, kept: bool = False) -> Exhibit:
    """Enter the exhibit in the folder's index, in place of one of the same identifier.

    kept: its files are those of an earlier drawing. Else its `made_from` is left out, for `complete` to say.
    """
    if folder is None:
        return exhibit
    with _locked(folder):
        known = {entry["identifier"]: entry for entry in read_exhibits(folder)}
        before = known.get(exhibit.identifier, {})
        origin = {"made_from": before["made_from"]} if kept and "made_from" in before else {}
        known[exhibit.identifier] = {k: value for k, value in exhibit._asdict().items() if k != "html"} | origin
        write_index(folder, list(known.values()))
    return exhibit


def _locked(folder: Path) -> "BaseFileLock":
    """The folder's index for one process, or thread, at a time: notebooks of several papers may write at once."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f".{INDEX}.lock", timeout=60)


def _write(content: Mapping[str, bytes | str], identifier: str, folder: Path | None) -> dict[str, str]:
    """One file for each ending; their names under `folder`, with SHA-256."""
    if folder is None:
        return {}
    return {(name := f"{identifier}.{end}"): write_atomically(folder / name, content[end]) for end in content}


def _uri(content: bytes, kind: Literal["svg", "png"]) -> str:
    """A picture as a data: URI; an SVG as text, which is a quarter shorter than base64."""
    if kind == "png":
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"
    text = content.decode().replace('"', "'") if b"'" not in content else content.decode()
    return "data:image/svg+xml," + quote(" ".join(text.split()), safe=" ,;:=/!?()*.'@+-_")


def _slug(identifier: str) -> str:
    """The part of an identifier that is its anchor in a page."""
    if not _IDENTIFIER.fullmatch(identifier):
        raise UserError(f"{identifier!r} cannot identify an exhibit: write it like vae2013/figure-2, in a-z, 0-9 and -")
    return identifier.partition("/")[2]


def _caption(word: str, identifier: str, caption: str | Html) -> str:
    slug = _slug(identifier)
    anchor = f'<a class="permalink" href="#{slug}" title="Permanent link to {identifier}">{word} {identifier}.</a>'
    return f"<figcaption>{anchor} {markup(caption)}</figcaption>"


def _size(picture: bytes) -> tuple[int, int]:
    """CSS pixels (96 to the inch): of an SVG, which counts in points, or of a PNG drawn at PNG_DPI.

    A PNG's header holds width and height at bytes 16 to 24.
    """
    if points := re.search(rb'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', picture[:2000]):
        return round(float(points[1]) * 96 / 72), round(float(points[2]) * 96 / 72)
    width, height = struct.unpack(">II", picture[16:24])
    return round(width * 96 / PNG_DPI), round(height * 96 / PNG_DPI)


def _cell(value: object) -> Html | str:
    import pandas as pd

    if isinstance(value, Html | str):
        return value
    if value is None or value is pd.NA or value != value:  # only NaN and NaT differ from themselves
        return "–"
    if isinstance(value, Real) and not isinstance(value, Integral):  # numpy's floats are Real too
        return f"{value:.4g}".replace("-", "−")
    return str(value)


def _side(column: list[Html | str]) -> Align:
    numeric = all(isinstance(cell, str) and _NUMBER.fullmatch(cell.strip()) for cell in column)
    return "right" if column and numeric else "left"


def _row(row: list[Html | str], sides: list[Align], headers: int) -> str:
    cells = []
    for i, (cell, side) in enumerate(zip(row, sides, strict=True)):
        tag, scope = ("th", ' scope="row"') if i < headers else ("td", "")
        whole = ";white-space:nowrap" if side == "right" or len(plain(cell)) <= 14 else ""
        cells.append(f'<{tag}{scope} style="text-align:{side}{whole}">{markup(cell)}</{tag}>')
    return "".join(cells)
