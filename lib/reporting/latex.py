"""A table as LaTeX to be pasted into a paper: booktabs, columns set as in the page."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

# TeX's own signs; those that its first font sets as others; and those of mathematics that captions and cells use. What
# is no letter and not here would stop plain LaTeX. Braces by their names, for BibTeX counts the others.
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\textbraceleft{}", "}": r"\textbraceright{}", "%": r"\%", "&": r"\&",
    "#": r"\#", "$": r"\$", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": "$<$", ">": "$>$", "|": "$|$",
    "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "≠": r"$\neq$",
    "→": r"$\to$", "∞": r"$\infty$", "√": r"$\surd$", "·": r"$\cdot$", "‖": r"$\|$", "–": "--", "…": r"\ldots{}",
    "°": r"$^\circ$", "α": r"$\alpha$", "β": r"$\beta$", "δ": r"$\delta$", "λ": r"$\lambda$", "μ": r"$\mu$",
    "σ": r"$\sigma$", "θ": r"$\theta$", "ε": r"$\epsilon$", "η": r"$\eta$", "π": r"$\pi$", "φ": r"$\phi$",
    "Δ": r"$\Delta$", "“": "``", "”": "''", "’": "'",
}  # fmt: skip
# In points: a line of an article of 10 points, one of its turned page, and what a page leaves beside a caption; letters
# and half the gap between columns, as they are and in \footnotesize, which is wide for its 8 points; lines in letters.
_LINE, _TURNED_LINE, _PAGE = 345, 550, 450
_POINTS, _GAP, _SMALL_POINTS, _SMALL_GAP, _LEADING = 10, 6, 8.8, 3, 1.2
_SMALLER = r"\footnotesize\setlength{\tabcolsep}{3pt}"
_SIDES = {"left": r"\raggedright", "right": r"\raggedleft", "center": r"\centering"}
_WORDS = re.compile(r"[^ -]+-?")  # what TeX does not break
_WIDTHS = (
    dict.fromkeys("fijlt.,;:!|'’·", 0.31)
    | dict.fromkeys("rs()[]/ -", 0.39)
    | dict.fromkeys("⁻⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ₋₀₁₂₃₄₅₆₇₈₉ₙ", 0.4)
    | dict.fromkeys("wm@%&−±×≤≥≈≠<>→=+√", 0.8)
    | {"∞": 1.0, "…": 1.2}
)
_RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ", "-0123456789n")
_LOWERED = str.maketrans("₋₀₁₂₃₄₅₆₇₈₉ₙ", "-0123456789n")
_RAISED_RUN, _LOWERED_RUN = (re.compile(f"[{''.join(map(chr, signs))}]+") for signs in (_RAISED, _LOWERED))


class _Layout(NamedTuple):
    """How a table is set: on a turned page, smaller, its columns in TeX, and its height in points."""

    turned: bool
    small: bool
    columns: list[str]
    height: float


def booktabs(frame: "pd.DataFrame", identifier: str, caption: str, sides: Sequence[str]) -> str:
    """`frame` of text as LaTeX with label tab:<paper>-<name>. sides: left, right or center, one a column.

    It fits an article of 10 points: what is too wide is set smaller, else its cells are broken over lines, else the
    page is turned; what is higher than a page is a `longtable`. The first line names the packages that takes.
    """
    from pandas.io.formats.style import Styler

    layout = _layout([[str(name), *map(str, frame.iloc[:, i])] for i, name in enumerate(frame.columns)], sides)
    long = layout.turned or layout.height > _PAGE
    body = (
        Styler(frame.map(_cell).rename(columns=_cell))
        .hide(axis="index")
        .to_latex(
            environment="longtable" if long else None,
            hrules=True,
            column_format="".join(layout.columns),
            caption=in_tex(caption),
            label=f"tab:{identifier.replace('/', '-')}",
            position=None if long else "htbp",
            position_float=None if long else "centering",
        )
    )
    if layout.small and long:
        body = f"\\begingroup{_SMALLER}\n{body}\\endgroup\n"
    elif layout.small:
        body = body.replace("\\centering\n", f"\\centering{_SMALLER}\n", 1)
    if layout.turned:
        body = f"\\begin{{landscape}}\n{body}\\end{{landscape}}\n"
    packages = ["booktabs", *["array"] * ("p{" in body), *["longtable"] * long, *["pdflscape"] * layout.turned]
    return f"% {identifier}. Needs \\usepackage{{{','.join(packages)}}}.\n{body}"


def _layout(columns: Sequence[Sequence[str]], sides: Sequence[str]) -> _Layout:
    """columns: their heads and cells.

    Set smaller, the first of these that fits, or the last: as it is; texts broken, numbers whole, then on a turned
    page; all broken, likewise. A column gets the least it needs and of what is left its share of what it would take.
    """
    natural = [max([0.5, *map(_width, column)]) for column in columns]
    if sum(natural) * _POINTS + 2 * _GAP * len(columns) <= _LINE:
        return _Layout(False, False, [side[0] for side in sides], _LEADING * _POINTS * len(columns[0]))
    words = [max([0.5, *(_width(word) for cell in column for word in _WORDS.findall(cell))]) for column in columns]
    whole = [
        word if side == "left" else max([word, *map(_width, column[1:])])
        for word, column, side in zip(words, columns, sides, strict=True)
    ]
    for turned, least in ((False, natural), (False, whole), (True, whole), (False, words), (True, words)):
        line = _TURNED_LINE if turned else _LINE
        room = (line - 2 * _SMALL_GAP * (len(columns) - 1)) / _SMALL_POINTS
        if sum(least) <= room:
            break
    if sum(natural) <= room:
        specs = ["@{}", *(side[0] for side in sides), "@{}"]
        return _Layout(turned, True, specs, _LEADING * _SMALL_POINTS * len(columns[0]))
    if sum(least) > room:
        widths = [need * room / sum(least) for need in least]
    else:
        share = (room - sum(least)) / (sum(natural) - sum(least))
        widths = [need + share * (have - need) for have, need in zip(natural, least, strict=True)]
    lines = [
        max(math.ceil(_width(cell) / width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    ]
    parts = [
        f"\n  >{{{_SIDES[side]}\\arraybackslash}}p{{{width * _SMALL_POINTS / line:.4f}\\linewidth}}"
        for side, width in zip(sides, widths, strict=True)
    ]
    return _Layout(turned, True, ["@{}", *parts, "@{}"], _LEADING * _SMALL_POINTS * sum(lines))


def _width(text: str) -> float:
    """Of a text in Computer Modern, in ems, to a few hundredths."""
    return sum(_WIDTHS.get(sign, 0.72 if sign.isupper() else 0.5) for sign in text)


def in_tex(text: str) -> str:
    """Plain text as LaTeX and BibTeX set it: 10⁻⁶ as 10$^{-6}$. Letters of other languages stay as they are."""
    text = "".join(_SIGNS.get(sign, sign) for sign in text)
    text = _RAISED_RUN.sub(lambda found: f"$^{{{found[0].translate(_RAISED)}}}$", text)
    return _LOWERED_RUN.sub(lambda found: f"$_{{{found[0].translate(_LOWERED)}}}$", text)


def _cell(value: object) -> str:
    return in_tex(str(value))
