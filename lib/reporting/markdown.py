"""A notebook's prose to HTML: formulas become MathML, headings get stable anchors, code is highlighted."""

import html
import logging
import re
from typing import Any, NamedTuple

import mistune
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from lib.reporting.mathml import mathml

log = logging.getLogger(__name__)

# Formulas are taken out before Markdown is read, so that it sees no emphasis in $a_1 * b_2$ and no table in $p(x|z)$.
# Code is matched first, to be passed over. A dollar opens a formula only before, and closes one only after, something
# that is no space, and no digit follows: "from $5 to $10" is prose (pandoc's rule).
_MATH = re.compile(
    r"""
    (?P<code> ^[ ]{0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n .*? (?:^[ ]{0,3}(?P=fence)[`~]*[ ]*$|\Z)
      | (?<!`)(?P<ticks>`+)(?!`) (?:(?!\n\s*\n).)+? (?<!`)(?P=ticks)(?!`)
      | \\[\\$`] )
    | \$\$(?P<display> .+? )\$\$
    | (?P<environment> \\begin\{(?P<name>(?:equation|align|gather|eqnarray)\*?)\} .+? \\end\{(?P=name)\} )
    | \$(?=\S)(?P<inline> (?:\\.|[^$\\\n]|\n(?!\s*\n))+? )(?<=\S)\$(?!\d)
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_HELD = re.compile("\ue000(\\d+)\ue001")  # private use: in no prose, and neither space nor punctuation to Markdown
_TAG = re.compile(r"<[^>]+>")


class Heading(NamedTuple):
    """A line of the table of contents."""

    level: int
    slug: str
    markup: str


class Prose(mistune.HTMLRenderer):
    """Renders the Markdown cells of one page, one after another, and remembers their headings.

    The first heading of level 1 is left out, for the page's own title stands there; a further one is of level 2.
    """

    def __init__(self) -> None:
        super().__init__(escape=False)
        self.headings: list[Heading] = []
        self._titled = False
        self._held: list[tuple[str, str]] = []  # TeX as written, and its MathML
        self._attachments: dict[str, dict[str, str]] = {}
        self._parse = mistune.create_markdown(renderer=self, plugins=["table", "strikethrough"])

    def render(self, source: str, attachments: dict[str, dict[str, str]] | None = None) -> str:
        """Markdown to HTML. `attachments` are the cell's images, as nbformat keeps them."""
        self._held, self._attachments = [], attachments or {}
        return _HELD.sub(lambda found: self._held[int(found[1])][1], str(self._parse(_MATH.sub(self._hold, source))))

    def _hold(self, found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        display = found["inline"] is None
        tex = found["inline"] or found["display"] or found["environment"]
        self._held.append((found[0], mathml(tex, display)))
        return f"\ue000{len(self._held) - 1}\ue001"

    def _as_written(self, text: str) -> str:
        return _HELD.sub(lambda found: self._held[int(found[1])][0], text)

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        if level == 1 and not self._titled:
            self._titled = True
            return ""
        level = max(level, 2)
        words = html.unescape(_TAG.sub("", self._as_written(text))).lower()
        slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "section"
        taken = {heading.slug for heading in self.headings}
        unique = next(s for s in (slug, *(f"{slug}-{n}" for n in range(2, 999))) if s not in taken)
        shown = _HELD.sub(lambda found: self._held[int(found[1])][1], text)
        self.headings.append(Heading(level, unique, re.sub(r"</?a\b[^>]*>", "", shown)))
        link = f'<a class="permalink" href="#{unique}" aria-label="Link to this section">#</a>'
        return f'<h{level} id="{unique}">{text} {link}</h{level}>\n'

    def block_code(self, code: str, info: str | None = None) -> str:
        return highlighted(self._as_written(code), (info or "text").split()[0])

    def inline_html(self, html: str) -> str:
        return _TAG.sub(lambda tag: self._as_written(tag[0]), html)  # a dollar in an attribute is none of ours

    block_html = inline_html

    def table(self, text: str) -> str:
        return f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>{text}</table></div>\n'

    def image(self, text: str, url: str, title: str | None = None) -> str:
        images = self._attachments.get(url.removeprefix("attachment:"), {})
        for media, content in images.items():
            url = f"data:{media};base64,{''.join(content.split())}"
        if not url.startswith("data:"):
            log.warning("image left out, for a page loads nothing: %s (attach it to its cell)", url)
            return f"<em>[{text or url}]</em>"
        return f'<img src="{html.escape(url)}" alt="{html.escape(html.unescape(text), quote=True)}">'


def highlighted(code: str, language: str = "python") -> str:
    """Code as a `<pre>` of pygments' classes; the page's style sheet colours them."""
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False)
    body = highlight(code.rstrip("\n"), lexer, HtmlFormatter(nowrap=True)).rstrip("\n")
    return f'<pre class="highlight" tabindex="0"><code>{body}</code></pre>\n'
