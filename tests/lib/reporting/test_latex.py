"""Plain text as TeX sets it, in every table and citation that is published."""

import json
import re
import unicodedata

import pytest

from lib.reporting.latex import in_tex
from replications.papers import PUBLISHED


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("10⁻⁶", "10$^{-6}$"),
        ("σ² ≤ 3", r"$\sigma$$^{2}$ $\leq$ 3"),
        ("xₙ₋₁", "x$_{n-1}$"),
        ("p(x|z) < 1 > 0", "p(x$|$z) $<$ 1 $>$ 0"),
        ("100 % & #1 $x_1$", r"100 \% \& \#1 \$x\_1\$"),
        ("{a} \\ ~ ^", r"\textbraceleft{}a\textbraceright{} \textbackslash{} \textasciitilde{} \textasciicircum{}"),
        ("Sønderby", "Sønderby"),
    ],
)
def test_signs(text, tex):
    assert in_tex(text) == tex


def test_what_is_published_has_no_sign_that_stops_latex():
    """Nor one that its first font sets as another. Foreign letters are known to LaTeX, Greek ones are not."""
    tables = {str(path): path.read_text(encoding="utf-8") for path in sorted(PUBLISHED.glob("**/*.tex"))}
    records = [json.loads(path.read_text(encoding="utf-8")) for path in PUBLISHED.glob("**/exhibits.json")]
    captions = {
        exhibit["identifier"]: in_tex(exhibit["caption"]) for record in records for exhibit in record["exhibits"]
    }
    assert tables
    assert captions
    for name, text in (tables | captions).items():
        signs = {sign for sign in text if unicodedata.category(sign)[0] != "L" or "\u0370" <= sign <= "\u03ff"}
        assert not [sign for sign in signs if not sign.isascii()], name
        assert not re.search(r"(?<!\$)[<>|]|[<>|](?!\$)", text.replace(r"$\|$", "")), name
