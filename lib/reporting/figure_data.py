"""What a figure draws, as a table: the numbers behind its lines, points, bars and areas, read off the drawing itself.

Read off the drawing, so that the CSV beside a figure cannot differ from what is seen. Pictures (sheets of samples,
maps) are listed by size and digest, not by pixel: their pixels are the PNG.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("panel", "series", "kind", "x", "y", "low", "high", "value")
_MOST_CELLS = 20_000
_DIGITS_OF_FINE_MAPS = 5
_DIGITS = 7  # significant, more than a reader can see and fewer than what differs between processors


def figure_data(figure: "Figure") -> "pd.DataFrame":
    """One row for every point, bar, edge of an area and picture of `figure`, panel by panel in drawing order.

    panel is the panel's title, or its number from 1; series the label in the legend, or the artist's number. x and y
    are in data units. low and high are the edges of a band or error bar, value the colour's number of a point, cell or
    line, where it has one, and text for a picture. What lies at no data coordinate (arrows, words) is left out.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for number, axes in enumerate(figure.axes, 1):
        title = next((text for where in ("left", "center", "right") if (text := axes.get_title(where))), "")
        rows += [{"panel": title or str(number), **row} for row in _of_axes(axes)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.map(_rounded)


def _of_axes(axes: "Axes") -> Iterator[dict[str, Any]]:
    from matplotlib import collections as c
    from matplotlib.contour import ContourSet

    names = _legend_names(axes) | _container_names(axes)
    for number, line in enumerate(axes.lines, 1):
        yield from _line(line, axes, _name(line, names, f"line {number}"))
    for number, artist in enumerate(axes.collections, 1):
        if isinstance(artist, c.PathCollection):
            yield from _points(artist, _name(artist, names, f"points {number}"))
        elif isinstance(artist, c.QuadMesh):
            yield from _mesh(artist, _name(artist, names, f"map {number}"))
        elif isinstance(artist, ContourSet):
            yield from _contours(artist)
        elif isinstance(artist, c.LineCollection):
            yield from _segments(artist, _name(artist, names, f"segments {number}"))
        elif isinstance(artist, c.PolyCollection):
            yield from _area(artist, _name(artist, names, f"area {number}"))
    for container in axes.containers:
        yield from _bars(container, _name(container, names, "bars"))
    for number, image in enumerate(axes.images, 1):
        yield from _image(image, f"picture {number}")


def _legend_names(axes: "Axes") -> dict[tuple[Any, ...], str]:
    """Look -> text of the legend: seaborn draws lines without labels and a legend of stand-ins."""
    legend = axes.get_legend()
    if legend is None:
        return {}
    pairs = zip(legend.legend_handles, legend.get_texts(), strict=False)
    return {look: text.get_text() for handle, text in pairs if (look := _look(handle)) is not None}


def _container_names(axes: "Axes") -> dict[tuple[Any, ...], str]:
    """Error bars carry their label on the container, not on the line and the strokes that it holds."""
    found: dict[tuple[Any, ...], str] = {}
    for container in axes.containers:
        label = str(container.get_label() or "")
        if label and not label.startswith("_"):
            found |= {(id(child),): label for child in _flat(container)}
    return found


def _flat(parts: Any) -> Iterator[Any]:
    for part in parts or ():
        if isinstance(part, tuple | list):
            yield from _flat(part)
        elif part is not None:
            yield part


def _look(artist: Any) -> tuple[Any, ...] | None:
    """Colour, dashes and marker of a line: what tells one line of a legend from another."""
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D

    if not isinstance(artist, Line2D):
        return None
    return to_hex(artist.get_color()), str(artist.get_linestyle()), str(artist.get_marker())


def _name(artist: Any, names: dict[tuple[Any, ...], str], otherwise: str) -> str:
    label = str(artist.get_label() or "")
    if label and not label.startswith("_"):
        return label
    return names.get((id(artist),)) or names.get(_look(artist) or (), otherwise)


def _line(line: Any, axes: "Axes", name: str) -> Iterator[dict[str, Any]]:
    """A curve point by point; a line across the whole panel, as `axhline` draws it, by its one coordinate."""
    in_x, in_y = line.get_transform().contains_branch_seperately(axes.transData)
    xs, ys = line.get_data(orig=False)
    x, y = _plain(xs), _plain(ys)
    if in_x and in_y:
        yield from ({"series": name, "kind": "line", "x": a, "y": b} for a, b in zip(x, y, strict=True))
    elif in_x or in_y:
        yield {"series": name, "kind": "reference", **({"x": x[0]} if in_x else {"y": y[0]})}


def _plain(values: Any) -> Any:
    """An array of floats, masked values as nan."""
    return np.ma.filled(np.ma.asarray(values, float), np.nan)


def _contours(artist: Any) -> Iterator[dict[str, Any]]:
    if artist.filled:
        return  # the lines between the fills tell the same
    for level, path in zip(artist.levels, artist.get_paths(), strict=False):
        for x, y in path.vertices:
            yield {"series": f"contour {level:.6g}", "kind": "contour", "x": x, "y": y, "value": float(level)}


def _points(artist: Any, name: str) -> Iterator[dict[str, Any]]:
    values: Any = artist.get_array()
    for i, (x, y) in enumerate(_plain(artist.get_offsets())):
        row = {"series": name, "kind": "point", "x": x, "y": y}
        yield row if values is None or len(values) <= i else row | {"value": float(values[i])}


def _mesh(artist: Any, name: str) -> Iterator[dict[str, Any]]:
    corners = artist.get_coordinates()  # (R + 1, C + 1, 2)
    centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    values = _plain(artist.get_array()).reshape(-1)
    if len(values) != centres.shape[0] * centres.shape[1]:  # gouraud shading: values at the corners
        centres = corners
    for (x, y), value in zip(centres.reshape(-1, 2), values, strict=True):
        yield {"series": name, "kind": "cell", "x": x, "y": y, "value": value}


def _segments(artist: Any, name: str) -> Iterator[dict[str, Any]]:
    """Error bars and other upright strokes as low and high; every other line point by point."""
    for segment in artist.get_segments():
        if len(segment) == 2 and segment[0][0] == segment[1][0]:
            low, high = sorted((segment[0][1], segment[1][1]))
            yield {"series": name, "kind": "error bar", "x": segment[0][0], "low": low, "high": high}
        else:
            yield from ({"series": name, "kind": "line", "x": x, "y": y} for x, y in segment)


def _area(artist: Any, name: str) -> Iterator[dict[str, Any]]:
    """A band from low to high where it is one, as `fill_between` draws it; else the outline."""
    for path in artist.get_paths():
        corners = path.vertices[:-1] if path.codes is not None else path.vertices
        at: dict[float, list[float]] = {}
        for x, y in corners:
            at.setdefault(float(x), []).append(float(y))
        for x in sorted(at):
            yield {"series": name, "kind": "area", "x": x, "low": min(at[x]), "high": max(at[x])}


def _bars(container: Any, name: str) -> Iterator[dict[str, Any]]:
    from matplotlib.container import BarContainer

    if not isinstance(container, BarContainer):
        return
    for bar in container.patches:
        wide = container.orientation == "horizontal"
        middle = (bar.get_y() + bar.get_height() / 2) if wide else (bar.get_x() + bar.get_width() / 2)
        ends = (bar.get_x(), bar.get_x() + bar.get_width()) if wide else (bar.get_y(), bar.get_y() + bar.get_height())
        low, high = sorted(ends)
        yield {"series": name, "kind": "bar", "y" if wide else "x": middle, "low": low, "high": high}


def _image(image: Any, name: str) -> Iterator[dict[str, Any]]:
    """A map of values cell by cell; a picture in grey or colour as one row."""
    pixels = np.ascontiguousarray(np.ma.filled(image.get_array(), 0))
    if pixels.ndim == 2 and image.get_cmap().name not in ("gray", "gray_r", "Greys") and pixels.size <= _MOST_CELLS:
        left, right, bottom, top = image.get_extent()
        rows, columns = pixels.shape
        xs = left + (np.arange(columns) + 0.5) * (right - left) / columns
        ys = np.linspace(bottom, top, 2 * rows + 1)[1::2]
        ys = ys if image.origin == "lower" else ys[::-1]
        # A fine map has thousands of cells and hundreds of colours: fewer digits tell all of it in a smaller file.
        digits = _DIGITS if pixels.size <= 1000 else _DIGITS_OF_FINE_MAPS
        for i, j in np.ndindex(rows, columns):
            x, y, value = (_rounded(float(each), digits) for each in (xs[j], ys[i], pixels[i, j]))
            yield {"series": name, "kind": "cell", "x": x, "y": y, "value": value}
        return
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    size = " x ".join(map(str, pixels.shape))
    what = f"{size} {pixels.dtype}, {pixels.min():.6g} to {pixels.max():.6g}, sha256 {digest}"
    yield {"series": name, "kind": "picture", "value": what}


def _rounded(value: Any, digits: int = _DIGITS) -> Any:
    """Floats with `digits` significant digits: a last bit that differs between processors makes no other file."""
    return float(f"{value:.{digits}g}") if isinstance(value, float | np.floating) else value
