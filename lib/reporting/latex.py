"""A table as LaTeX to be pasted into a paper: booktabs, columns set as in the page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Signs that captions and cells use and that plain LaTeX does not know; pandas escapes TeX's own before.
_SIGNS = {
    "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "≠": r"$\neq$",
    "→": r"$\to$", "∞": r"$\infty$", "√": r"$\surd$", "·": r"$\cdot$", "–": "--", "…": r"\ldots{}", "°": r"$^\circ$",
    "²": "$^2$", "α": r"$\alpha$", "β": r"$\beta$", "λ": r"$\lambda$", "μ": r"$\mu$", "σ": r"$\sigma$",
    "θ": r"$\theta$", "ε": r"$\epsilon$", "η": r"$\eta$", "π": r"$\pi$", "φ": r"$\phi$", "Δ": r"$\Delta$",
}  # fmt: skip


def booktabs(frame: "pd.DataFrame", identifier: str, caption: str, sides: Sequence[str]) -> str:
    """`frame` of text as a `table` with label tab:<paper>-<name>. sides: left, right or center, one a column."""
    from pandas.io.formats.style import Styler

    text = frame.map(_escaped).rename(columns=_escaped)
    styler = Styler(text).hide(axis="index")
    body = styler.to_latex(
        hrules=True,
        column_format="".join(side[0] for side in sides),
        caption=_escaped(caption),
        label=f"tab:{identifier.replace('/', '-')}",
        position="htbp",
        position_float="centering",
    )
    return f"% {identifier}. Needs \\usepackage{{booktabs}}.\n{body}"


def _escaped(value: object) -> str:
    text = str(value).replace("\\", "\0")
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    text = (
        text.replace("\0", r"\textbackslash{}").replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
    )
    return "".join(_SIGNS.get(sign, sign) for sign in text)
