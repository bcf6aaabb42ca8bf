"""How every figure of every paper looks, and how it becomes the same bytes each time."""

import io
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_INCHES = 8.0  # a report's column; draw at this width and text comes out at its nominal size
PNG_DPI = 150  # 1,200 pixels across a column: sharp on a phone, small in a page

# Text becomes outlines, so a figure looks alike where DejaVu Sans is not installed. The salt names clip paths and
# markers in an SVG: without it matplotlib draws a random one at each save.
_REPEATABLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "regen",
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.06,
}

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


def figure_bytes(figure: "Figure", kind: Literal["svg", "png"]) -> bytes:
    """`figure` as a file's content: equal figures give equal bytes, in any process; no date, no version."""
    import matplotlib

    silent = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with matplotlib.rc_context(_REPEATABLE):
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=silent, facecolor="white")
    return buffer.getvalue() if kind == "svg" else _packed(buffer)


def _packed(png: io.BytesIO) -> bytes:
    """The same picture in fewer bytes: no opacity, grey where it is grey, else a palette of 256 colours of its own."""
    from PIL import Image, ImageChops

    picture = Image.open(png).convert("RGB")
    red, green, blue = picture.split()
    grey = not ImageChops.difference(red, green).getbbox() and not ImageChops.difference(red, blue).getbbox()
    packed = io.BytesIO()
    # Plots have few colours: a palette takes less than half the bytes. Undithered, so that areas stay even.
    picture = red if grey else picture.quantize(256, dither=Image.Dither.NONE)
    picture.save(packed, "PNG", optimize=True, dpi=(PNG_DPI, PNG_DPI))
    return packed.getvalue()
