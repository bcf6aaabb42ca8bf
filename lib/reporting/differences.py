"""What differs between two files of one format, in a sentence or two: tables by cells, pictures by what is drawn."""

import csv
import difflib
import io
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple
from xml.etree import ElementTree

from lib.errors import UserError

FIRST = 3  # differences that are told one by one; the rest are counted
LONGEST = 60  # signs of a cell or line that are shown
ALIGNED = 2_000  # rows up to which inserted ones are looked for; the search is quadratic
DRAWN = ("path", "text", "tspan", "use", "image", "rect", "circle", "ellipse", "line", "polyline", "polygon", "style")


class Unreadable(Exception):
    """A file that is not in the format of its ending; the text says why."""


class Table(NamedTuple):
    columns: list[str]
    rows: list[tuple[str, ...]]
    about: dict[str, Any]  # what a JSON table says beside its rows


class Drawing(NamedTuple):
    size: str
    elements: list[tuple[str, int]]  # (tag, hash of all that decides the look), in the order of drawing


def difference(ending: str, name: str, yours: bytes, published: bytes) -> str:
    """What `yours` has otherwise than `published`, both being files of `ending` (such as ".csv").

    "a → b" is from the published to yours. Raises UserError, naming the file `name`, if `yours` is in no such format.
    """
    sizes = f"{len(yours):,} bytes where the published has {len(published):,}"
    if ending not in FORMATS:
        return f"it has {sizes}."
    read, compare = FORMATS[ending]
    try:
        mine = read(yours)
    except Unreadable as error:
        raise UserError(f"{name} is no {ending.removeprefix('.').upper()} file that can be read: {error}.") from None
    try:
        said = compare(mine, read(published))
    except Unreadable:
        return f"it has {sizes}."
    return f"{said or 'nothing that is shown differs, only how it is written down'} ({sizes})."


# --- tables and text ---------------------------------------------------------------------------------------------


def _csv_table(content: bytes) -> Table:
    try:
        rows = [tuple(row) for row in csv.reader(io.StringIO(_text(content), newline=""), strict=True) if row]
    except csv.Error as error:
        raise Unreadable(str(error)) from None
    if not rows:
        raise Unreadable("it is empty")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise Unreadable(f"row {number} has {len(row)} cells, the first {len(rows[0])}")
    return Table(list(rows[0]), rows[1:], {})


def _json_table(content: bytes) -> Table:
    try:
        document = json.loads(_text(content))
        rows = document.pop("rows")
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [tuple(_plain(row[name]) if name in row else "" for name in columns) for row in rows]
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is no JSON ({str(error) or 'nested too deeply'})") from None
    except (AttributeError, KeyError, TypeError):
        raise Unreadable('it is no table, which is an object with "rows"') from None
    return Table(columns, cells, document)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _tables(yours: Table, published: Table) -> str:
    said = [f"{key!r} differs" for key in sorted(yours.about.keys() | published.about.keys())
            if yours.about.get(key) != published.about.get(key)]  # fmt: skip
    gone = [_short(name) for name in published.columns if name not in yours.columns]
    new = [_short(name) for name in yours.columns if name not in published.columns]
    said += [
        f"{word} {', '.join(names)}" for word, names in (("columns missing:", gone), ("columns added:", new)) if names
    ]
    if not gone and not new and yours.columns != published.columns:
        said.append("its columns are in another order or number")
    both = [name for name in dict.fromkeys(published.columns) if name in yours.columns]
    a = [tuple(row[published.columns.index(name)] for name in both) for row in published.rows]
    b = [tuple(row[yours.columns.index(name)] for name in both) for row in yours.rows]
    if len(a) != len(b):
        said.append(f"it has {len(b):,} rows where the published has {len(a):,}")
    cells, removed, added = [], 0, 0
    for start, old, new_rows in _blocks(a, b):
        shared = min(len(old), len(new_rows))
        removed, added = removed + len(old) - shared, added + len(new_rows) - shared
        for number, (before, after) in enumerate(zip(old, new_rows, strict=False), start=start + 1):
            pairs = zip(both, before, after, strict=True)
            cells += [f"row {number}, {_short(n)}: {_short(x)} → {_short(y)}" for n, x, y in pairs if x != y]
    said += [f"{_number(n, 'row')} {word}" for n, word in ((removed, "missing"), (added, "added")) if n]
    if cells:
        said.append(f"{_number(len(cells), 'cell')} of {len(a) * len(both):,} {_verb(len(cells))} ({_first(cells)})")
    return "; ".join(said)


def _lines(content: bytes) -> list[str]:
    return _text(content).splitlines()


def _tex(yours: list[str], published: list[str]) -> str:
    lines = []
    for start, old, new in _blocks(published, yours):
        for number, (before, after) in enumerate(zip_longest(old, new), start=start + 1):
            if before != after:
                pair = ("nothing" if line is None else _short(line) for line in (before, after))
                lines.append(f"line {number}: {' → '.join(pair)}")
    if not lines:
        return ""
    return f"{_number(len(lines), 'line')} of {len(published):,} {_verb(len(lines))} ({_first(lines)})"


def _blocks(a: Sequence[Any], b: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any], Sequence[Any]]]:
    """What differs of two lists: where it starts in `a`, those entries of `a`, those in their place in `b`."""
    if len(a) == len(b) or max(len(a), len(b)) > ALIGNED:
        yield 0, a, b
        return
    for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            yield i, a[i:j], b[k:m]


def _text(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")  # a spreadsheet program puts a mark in front
    except UnicodeDecodeError:
        raise Unreadable("it is no UTF-8 text") from None
    if "\0" in text:
        raise Unreadable("it is no text")
    return text


# --- pictures ----------------------------------------------------------------------------------------------------


def _png(mine: Any, theirs: Any) -> str:
    import numpy as np

    if mine.shape != theirs.shape:
        sizes = [f"{width:,} × {height:,}" for height, width, _ in (mine.shape, theirs.shape)]
        return f"it is {sizes[0]} pixels large, the published {sizes[1]}"
    differ = int(np.count_nonzero((mine != theirs).any(axis=2)))
    height, width, _ = mine.shape
    share = 100 * differ / (height * width)
    return f"{_number(differ, 'pixel')} of {width:,} × {height:,} {_verb(differ)}, {share:.2g} %" if differ else ""


def _pixels(content: bytes) -> Any:
    """(H, W, 4) uint8."""
    import numpy as np
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
                return np.asarray(picture.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable("it is no whole picture" if isinstance(error, OSError) else str(error)) from None


def _svg(yours: Drawing, published: Drawing) -> str:
    (size, mine), (their_size, theirs) = yours, published
    said = [] if size == their_size else [f"its size is {_short(size)}, the published one's {_short(their_size)}"]
    for tag in DRAWN:
        a, b = Counter(e for e in theirs if e[0] == tag), Counter(e for e in mine if e[0] == tag)
        if differ := max(a.total(), b.total()) - (a & b).total():
            said.append(f"{_number(differ, f'{tag} element')} {_verb(differ)} ({b.total():,}, published {a.total():,})")
    if not said and mine != theirs:
        said.append("the same elements are drawn in another order")
    return "; ".join(said)


def _drawn(content: bytes) -> Drawing:
    """Size and elements of an SVG.

    An element's look hangs on the groups around it as well. Names (id) are left out, and so are references to clips.
    """
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unreadable(f"it is no XML ({error})") from None
    if root.tag.rpartition("}")[2] != "svg":
        raise Unreadable(f"its root is <{_short(root.tag.rpartition('}')[2])}>")
    size = " × ".join(root.get(side, "?") for side in ("width", "height")) + f" (viewBox {root.get('viewBox', 'none')})"
    drawn, waiting = [], [(child, 0) for child in reversed(root)]
    while waiting:  # not by recursion: a file may nest as deep as it likes
        element, around = waiting.pop()
        attributes = sorted((key, value) for key, value in element.attrib.items() if key not in ("id", "clip-path"))
        tag = str(element.tag).rpartition("}")[2]
        look = hash((around, tag, tuple(attributes)))
        if tag in DRAWN:
            drawn.append((tag, hash((look, (element.text or "").strip()))))
        waiting += [(child, look) for child in reversed(element)]
    return Drawing(size, drawn)


def _pdf_head(content: bytes) -> None:
    if not content.startswith(b"%PDF-"):
        raise Unreadable("it does not begin with %PDF-")


def _pdf(*_: None) -> str:
    return "its bytes differ, and PDF is compared by nothing else: verify the SVG or PNG to learn what"


# --- words -------------------------------------------------------------------------------------------------------


def _number(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _verb(count: int) -> str:
    return "differs" if count == 1 else "differ"


def _first(items: Sequence[str]) -> str:
    return "; ".join(items[:FIRST]) + ("; …" if len(items) > FIRST else "")


def _short(text: str) -> str:
    """Fit to be printed: no control signs, which a terminal would obey, and not too long."""
    clean = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[: LONGEST + 1])
    return (clean[:LONGEST] + "…" if len(clean) > LONGEST else clean) or "(empty)"


FORMATS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any, Any], str]]] = {  # how one is read, how two compare
    ".csv": (_csv_table, _tables),
    ".json": (_json_table, _tables),
    ".tex": (_lines, _tex),
    ".png": (_pixels, _png),
    ".svg": (_drawn, _svg),
    ".pdf": (_pdf_head, _pdf),
}
