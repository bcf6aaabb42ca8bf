"""Figures and tables that can be cited: a permanent identifier, files of repeatable bytes, and their digests.

An identifier is `<paper>/<name>`, as in `vae2013/figure-2`. In a page the exhibit is found at `#figure-2`; in a folder
as `vae2013/figure-2.svg`, `.png` or `.csv`; in that folder's `exhibits.json` with caption and SHA-256.
"""

import base64
import html
import json
import re
import struct
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lib.errors import UserError
from lib.files import write_atomically
from lib.reporting.markup import Html, badge, link, markup, note, plain
from lib.reporting.style import PNG_DPI, figure_bytes

if TYPE_CHECKING:
    import pandas as pd
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
    figure: "Figure",
    identifier: str,
    caption: str | Html,
    alt: str,
    folder: Path | None = None,
    kind: Literal["svg", "png"] = "svg",
    shows_data: bool = False,
) -> Exhibit:
    """Make `figure` an exhibit, to be a cell's last expression (or an argument of `display`). Closes the figure.

    The page gets it as SVG, or as PNG where `kind` says so: sheets of samples, plots of ten thousand points. `folder`,
    if given, gets both. `shows_data` says that images of a data set are in it: then it is left out when the report is
    published, for their licences may not allow it. `alt` tells what is to be seen to those who cannot see it; it must
    not be empty.
    Raises UserError for an identifier unlike `vae2013/figure-2` or an empty `alt`.
    """
    import matplotlib.pyplot as plt

    slug = _slug(identifier)
    if not alt.strip():
        raise UserError(f"{identifier} has no alternative text: say in one sentence what the figure shows")
    content = {"svg": figure_bytes(figure, "svg"), "png": figure_bytes(figure, "png")}
    plt.close(figure)
    files: dict[str, str] = {}
    if folder is not None:
        files = {(name := f"{identifier}.{end}"): write_atomically(folder / name, content[end]) for end in content}
    width, height = _size(content["png"])
    media = "image/svg+xml" if kind == "svg" else "image/png"
    image = (
        f'<img src="data:{media};base64,{base64.b64encode(content[kind]).decode()}" alt="{html.escape(alt)}" '
        f'width="{width}" height="{height}" style="max-width:100%;height:auto;background:#fff">'
    )
    body = f'<figure id="{slug}" class="exhibit picture">{image}{_caption("Figure", identifier, caption)}</figure>'
    return _record(Exhibit(identifier, "figure", plain(caption), alt, files, body, shows_data), folder)


def withhold(markup: str, identifier: str) -> str:
    """A cell's markup without the picture of one figure; its place, identifier and caption stay."""
    slug = _slug(identifier)
    start = markup.find(f'<figure id="{slug}" class="exhibit picture">')
    if start < 0:
        return markup
    image, end = markup.index("<img", start), markup.index("<figcaption", start)
    notice = "Not published: this figure shows images of a data set. The report that you make yourself has it."
    return f"{markup[:image]}<p><em>{notice}</em></p>{markup[end:]}"


def show_table(
    frame: "pd.DataFrame",
    identifier: str,
    caption: str | Html,
    folder: Path | None = None,
    align: Mapping[str, Align] | None = None,
) -> Exhibit:
    """Make `frame` an exhibit: a table in the page and a CSV file in `folder`.

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
    files: dict[str, str] = {}
    if folder is not None:
        text = pd.DataFrame([[plain(c) for c in row] for row in cells], columns=names)
        name = f"{identifier}.csv"
        files[name] = write_atomically(folder / name, text.to_csv(index=False, lineterminator="\n"))
    return _record(Exhibit(identifier, "table", plain(caption), "", files, body), folder)


def read_exhibits(folder: Path) -> list[dict[str, Any]]:
    """What `folder` holds, in order of identifier: {identifier, kind, caption, alt, files: {name: sha256}} each."""
    path = folder / INDEX
    if not path.is_file():
        return []
    try:
        exhibits: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["exhibits"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a list of exhibits ({error}): delete it and make the report again") from error
    return exhibits


def _record(exhibit: Exhibit, folder: Path | None) -> Exhibit:
    """Enter the exhibit in the folder's index, in place of one of the same identifier."""
    if folder is None:
        return exhibit
    from filelock import FileLock

    with FileLock(folder / f".{INDEX}.lock", timeout=60):  # notebooks of several papers may write at once
        known = {entry["identifier"]: entry for entry in read_exhibits(folder)}
        known[exhibit.identifier] = {key: value for key, value in exhibit._asdict().items() if key != "html"}
        index = {"schema": 1, "exhibits": [known[key] for key in sorted(known)]}
        write_atomically(folder / INDEX, json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return exhibit


def _slug(identifier: str) -> str:
    """The part of an identifier that is its anchor in a page."""
    if not _IDENTIFIER.fullmatch(identifier):
        raise UserError(f"{identifier!r} cannot identify an exhibit: write it like vae2013/figure-2, in a-z, 0-9 and -")
    return identifier.partition("/")[2]


def _caption(word: str, identifier: str, caption: str | Html) -> str:
    slug = _slug(identifier)
    anchor = f'<a class="permalink" href="#{slug}" title="Permanent link to {identifier}">{word} {identifier}.</a>'
    return f"<figcaption>{anchor} {markup(caption)}</figcaption>"


def _size(png: bytes) -> tuple[int, int]:
    """CSS pixels (96 to the inch) of a PNG drawn at PNG_DPI; the header holds width and height at bytes 16 to 24."""
    width, height = struct.unpack(">II", png[16:24])
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
