"""TeX formulas to MathML when a page is built, so that the page needs no script and no font to show them.

`latex2mathml` does the conversion. Around it stand repairs of what it, or browsers that know only MathML Core, lack.
"""

import html
import itertools
import logging
import re
import unicodedata
import xml.etree.ElementTree as ET

log = logging.getLogger(__name__)

_NAMESPACE = "http://www.w3.org/1998/Math/MathML"
_REWRITES = [
    (re.compile(r"\\(begin|end)\{(?:aligned|alignedat|eqnarray\*?)\}"), r"\\\1{align*}"),
    (re.compile(r"\\begin\{gather(?:ed|\*)?\}"), r"\\begin{array}{c}"),
    (re.compile(r"\\end\{gather(?:ed|\*)?\}"), r"\\end{array}"),
    (re.compile(r"\\arg\s*\\(max|min)(?![a-zA-Z])"), r"\\operatorname{arg\\,\1}"),
    (re.compile(r"\\arg(?![a-zA-Z])"), r"\\operatorname{arg}"),
    (re.compile(r"\\operatorname\*"), r"\\operatorname"),
    (re.compile(r"(\\operatorname\{\w+)(?:\\[,; ]|~)(?=\w+\})"), "\\1\xa0"),  # any other space is dropped from the name
]
_LIMITS = {"max", "min", "sup", "inf", "lim", "arg", "arg\xa0max", "arg\xa0min", "Pr", "det"}
_UNDER = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_OPERATORS = {"~": "∼", ";": ";"}  # come as identifiers, \sim even as an ASCII tilde above the line's middle
_ROWS = {"math", "mrow", "mtd", "mstyle", "msqrt"}
_VARIANTS = {"bold": "BOLD", "bold-italic": "BOLD ITALIC", "double-struck": "DOUBLE-STRUCK", "script": "SCRIPT"}


def mathml(tex: str, display: bool = False) -> str:
    """A formula as `<math>`. What cannot be converted is shown as TeX source, and a warning is logged."""
    from latex2mathml.converter import convert

    source = tex.strip()
    for pattern, replacement in _REWRITES:
        source = pattern.sub(replacement, source)
    try:
        root = ET.fromstring(convert(source, xmlns="", display="block" if display else "inline"))
        unknown = next((text for text in root.itertext() if "\\" in text), None)
        if unknown:
            raise ValueError(f"{unknown} is unknown")
    except Exception as error:  # latex2mathml has an exception for every kind of mistake, and no common base
        log.warning("formula shown as TeX source: %s (%s: %s)", tex, type(error).__name__, error)
        return f'<code class="tex">{html.escape(tex.strip())}</code>'
    _repair(root, display)
    root.attrib = {"xmlns": _NAMESPACE, "display": "block" if display else "inline"}
    body = ET.tostring(root, encoding="unicode", short_empty_elements=False).replace("$", "&#36;")
    return f'<span class="display-math">{body}</span>' if display else body


def _repair(root: ET.Element, display: bool) -> None:
    for element in root.iter():
        if element.tag == "mi" and element.text in _OPERATORS:
            element.tag, element.text = "mo", _OPERATORS[element.text]
        if element.get("mathvariant") in _VARIANTS:
            style = _VARIANTS[element.attrib.pop("mathvariant")]
            element.text = "".join(_letter(letter, style) for letter in element.text or "")
        if side := element.attrib.pop("columnalign", ""):
            element.set("style", f"text-align:{side};padding:.2em {0 if side == 'right' else '.6em'} .2em 0")
        if display and element.tag in _UNDER and (element[0].text or "") in _LIMITS:
            element.tag = _UNDER[element.tag]
    for element in root.iter():
        if element.tag in _ROWS:
            _space_functions(element)


def _letter(letter: str, style: str) -> str:
    """The letter of Unicode's mathematical alphabets: MathML Core has no bold attribute."""
    try:
        words = unicodedata.name(letter).replace("GREEK ", "").replace("LATIN ", "").replace(" LETTER", "")
        return unicodedata.lookup(f"MATHEMATICAL {style} {words}")
    except (KeyError, ValueError):
        return letter


def _space_functions(row: ET.Element) -> None:
    """Set log, max, KL as TeX does: a thin space before and after, none before a bracket."""
    children = list(row)
    for child in children:
        if _is_function(child):  # an operator that no dictionary knows would get wide spaces of its own
            base = child if child.tag in ("mi", "mo") else child[0]
            base.tag, base.attrib = "mi", {}
    for left, right in reversed(list(itertools.pairwise(children))):
        bracket = right.tag == "mrow" and len(right) and right[0].tag == "mo"
        spaced = {left.tag, right.tag} & {"mo", "mspace"} or (_is_function(left) and bracket)
        if not spaced and (_is_function(left) or _is_function(right)):
            row.insert(list(row).index(right), ET.Element("mspace", {"width": "0.167em"}))


def _is_function(element: ET.Element) -> bool:
    base = element[0] if len(element) and element.tag in {*_UNDER, *_UNDER.values()} else element
    name = (base.text or "").replace("\xa0", "")
    return base.tag in ("mi", "mo") and len(name) > 1 and name.isascii() and name.isalpha()
