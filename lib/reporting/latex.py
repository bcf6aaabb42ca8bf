"""A table as LaTeX to be pasted into a paper: booktabs, columns set as in the page."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
_RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ", "-0123456789n")
_LOWERED = str.maketrans("₋₀₁₂₃₄₅₆₇₈₉ₙ", "-0123456789n")
_RAISED_RUN, _LOWERED_RUN = (re.compile(f"[{''.join(map(chr, signs))}]+") for signs in (_RAISED, _LOWERED))


def booktabs(frame: "pd.DataFrame", identifier: str, caption: str, sides: Sequence[str]) -> str:
    """`frame` of text as a `table` with label tab:<paper>-<name>. sides: left, right or center, one a column."""
    from pandas.io.formats.style import Styler

    text = frame.map(_cell).rename(columns=_cell)
    styler = Styler(text).hide(axis="index")
    body = styler.to_latex(
        hrules=True,
        column_format="".join(side[0] for side in sides),
        caption=in_tex(caption),
        label=f"tab:{identifier.replace('/', '-')}",
        position="htbp",
        position_float="centering",
    )
    return f"% {identifier}. Needs \\usepackage{{booktabs}}.\n{body}"


def in_tex(text: str) -> str:
    """Plain text as LaTeX and BibTeX set it: 10⁻⁶ as 10$^{-6}$. Letters of other languages stay as they are."""
    text = "".join(_SIGNS.get(sign, sign) for sign in text)
    text = _RAISED_RUN.sub(lambda found: f"$^{{{found[0].translate(_RAISED)}}}$", text)
    return _LOWERED_RUN.sub(lambda found: f"$_{{{found[0].translate(_LOWERED)}}}$", text)


def _cell(value: object) -> str:
    return in_tex(str(value))
