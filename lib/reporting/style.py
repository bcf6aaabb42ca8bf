"""How every figure of every paper looks, and how it becomes the same bytes each time."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Kind = Literal["svg", "png", "pdf"]
WIDTH_INCHES = 8.0  # a report's column; draw at this width and text comes out at its nominal size
PNG_DPI = 150  # 1,200 pixels across a column: sharp on a phone, small in a page

# Text becomes outlines, so a figure looks alike where DejaVu Sans is not installed. The salt names clip paths and
# markers in an SVG: without it matplotlib draws a random one at each save.
_REPEATABLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "regen",
}
_SILENT: dict[Any, dict[Any, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_PADDING_INCHES = 0.06
_PATH = re.compile(rb' d="([^"]*)"')

_LOOK = {
    "axes.axisbelow": True,
    "axes.edgecolor": "0.35",
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 96,
    "figure.figsize": (WIDTH_INCHES, 3.6),
    "font.family": "DejaVu Sans",  # comes inside matplotlib: no machine lacks it
    "grid.color": "0.88",
    "grid.linewidth": 0.8,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": PNG_DPI,
}


def use_house_style() -> None:
    """Set seaborn's theme for this process: white grid, paper context, a palette the colour-blind can tell apart."""
    import seaborn

    seaborn.set_theme(
        context="paper", style="whitegrid", palette="colorblind", font_scale=1.15, rc={**_LOOK, **_REPEATABLE}
    )


def figure_files(
    figure: "Figure", kinds: Sequence[Kind] = ("svg", "png", "pdf"), *, packed: bool = True
) -> dict[str, bytes]:
    """`figure` as the content of files, by their endings. No date, no version.

    Equal figures give equal bytes, in any process; in the vector formats words are outlines. Layout and edges are
    settled once, for that takes longer than drawing; the figure keeps its layout. packed: in half the bytes, for
    pictures that are kept.
    """
    import matplotlib

    files = {}
    settled = _REPEATABLE | {"figure.constrained_layout.use": False, "figure.autolayout": False}
    with matplotlib.rc_context(settled), _ticks_found_once(figure):
        _plain_log_ticks(figure)
        figure.set_dpi(PNG_DPI)  # words are widest where they are hinted to pixels: there nothing may be cut off
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # "none" would leave a stand-in, for which each saving draws twice
        box = figure.get_tightbbox().padded(_PADDING_INCHES)
        for kind in kinds:
            buffer = io.BytesIO()
            silent = dict(_SILENT[kind])
            with _outlined_words(figure) if kind == "pdf" else contextlib.nullcontext():
                figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=silent, facecolor="white", bbox_inches=box)
            finish = _FINISH.get(kind, bytes) if packed else bytes
            files[str(kind)] = finish(buffer.getvalue())
    return files


def _plain_log_ticks(figure: "Figure") -> None:
    """0.1, 60, 100 and not 10^-1, 6 x 10^1, 10^2, on log axes that stay within 0.01 to 100,000."""
    from matplotlib.ticker import LogFormatter, LogFormatterSciNotation

    class Plain(LogFormatter):
        """Labels the ticks that LogFormatter does; that writes 1e-01 beside 1, and 2e+04."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    for axis in _axes_of(figure):
        low, high = sorted(axis.get_view_interval())
        usual = type(axis.get_major_formatter()) is LogFormatterSciNotation
        if axis.get_scale() == "log" and usual and low >= 0.01 and high < 1e5:
            axis.set_major_formatter(Plain())
            axis.set_minor_formatter(Plain(minor_thresholds=(1, 0.4)))


def _axes_of(figure: "Figure") -> "Iterator[Axis]":
    return (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis))


@contextlib.contextmanager
def _ticks_found_once(figure: "Figure") -> Iterator[None]:
    """Each axis finds its ticks, and how much room their words take, once for each view, size and renderer.

    Matplotlib does it some 25 times an axis while it lays out and draws: up to a quarter of a figure's time.
    """
    names = ("_update_ticks", "_get_ticklabel_bboxes")  # matplotlib's own: one that lacks them only takes longer
    methods = [(axis, name) for axis in _axes_of(figure) for name in names if hasattr(axis, name)]
    for axis, name in methods:
        setattr(axis, name, _remembered(getattr(axis, name), axis, figure))
    try:
        yield
    finally:
        for axis, name in methods:
            delattr(axis, name)


def _remembered(method: Callable[..., Any], axis: "Axis", figure: "Figure") -> Callable[..., Any]:
    found: dict[Any, Any] = {}

    def call(*arguments: Any) -> Any:
        depends_on = (*axis.get_view_interval(), *axis.axes.bbox.bounds, figure.dpi)
        key = (depends_on, *(tuple(value) if isinstance(value, list) else value for value in arguments))
        if key not in found:
            found[key] = method(*arguments)
        return found[key]

    return call


@contextlib.contextmanager
def _outlined_words(figure: "Figure") -> Iterator[None]:
    """Words as outlines, as in the SVG: to cut out the letters of a font takes longer than to draw the figure."""
    from matplotlib.patheffects import Normal
    from matplotlib.text import Text

    words = [text for text in figure.findobj(Text) if not text.get_path_effects()]
    for text in words:
        text.set_path_effects([Normal()])
    try:
        yield
    finally:
        for text in words:
            text.set_path_effects([])


def _compact(svg: bytes) -> bytes:
    """The same drawing in about half the bytes: paths to a hundredth of a pixel, without needless blanks."""
    return _PATH.sub(lambda found: b' d="' + _compact_path(found[1]) + b'"', svg)


def _compact_path(path: bytes) -> bytes:
    path = re.sub(rb"(\.\d\d)\d+", rb"\1", path)
    path = re.sub(rb"\s*([A-Za-z])\s*", rb"\1", path.strip())
    return re.sub(rb"\s+", b",", path)


def _packed(png: bytes) -> bytes:
    """The same picture in fewer bytes: no opacity, grey where it is grey, else a palette of 256 colours of its own."""
    from PIL import Image, ImageChops

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    red, green, blue = picture.split()
    grey = not ImageChops.difference(red, green).getbbox() and not ImageChops.difference(red, blue).getbbox()
    packed = io.BytesIO()
    # Plots have few colours: a palette takes less than half the bytes. Undithered, so that areas stay even.
    picture = red if grey else picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(packed, "PNG", optimize=True, dpi=(PNG_DPI, PNG_DPI))
    return packed.getvalue()


_FINISH = {"svg": _compact, "png": _packed}
