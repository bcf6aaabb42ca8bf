"""Small pieces of HTML that read well in a report, and still read in JupyterLab, where the report's CSS is absent."""

import html
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, repr=False)
class Html:
    """Markup that tables, captions and notes take as it is, where they escape every plain string.

    Not a subclass of `str`: pandas keeps strings in an array of its own and would hand back plain ones, to be escaped.
    """

    markup: str
    text: str  # the same in plain words: what a CSV file or a terminal gets

    def __str__(self) -> str:
        return self.markup

    def __html__(self) -> str:  # jinja2 and markupsafe ask for this
        return self.markup

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.text


def markup(value: object) -> str:
    """`value` as HTML: escaped, unless it is `Html` already."""
    return value.markup if isinstance(value, Html) else html.escape(str(value))


def plain(value: object) -> str:
    """`value` as text."""
    return value.text if isinstance(value, Html) else str(value)


# A glyph beside the colour: a tenth of male readers, and every printer, would otherwise see five equal boxes.
_GLYPHS = {"replicated": "✓", "partly": "◐", "not replicated": "✗", "not comparable": "≠", "not run": "○"}
VERDICTS = tuple(_GLYPHS)


def badge(verdict: str) -> Html:
    """A verdict as a small labelled box. Raises ValueError on a word that is no verdict."""
    if verdict not in _GLYPHS:
        raise ValueError(f"no verdict is called {verdict!r}; verdicts are {', '.join(VERDICTS)}")
    style = "border:1px solid;border-radius:.3em;padding:0 .4em;white-space:nowrap"
    slug = verdict.replace(" ", "-")
    glyph = f'<span aria-hidden="true">{_GLYPHS[verdict]}</span>'
    return Html(f'<span class="badge {slug}" style="{style}">{glyph} {verdict}</span>', verdict)


def link(text: object, href: str) -> Html:
    """A link for a cell or a caption; `text` is escaped unless it is `Html`."""
    return Html(f'<a href="{html.escape(href)}">{markup(text)}</a>', plain(text))


def note(text: object, kind: Literal["warning", "info"] = "warning") -> Html:
    """A boxed notice, for what a reader must not miss. `text` is escaped unless it is `Html`."""
    word = {"warning": "Warning", "info": "Note"}[kind]
    style = "border:1px solid;border-left-width:.4em;border-radius:.3em;padding:.6em .9em;margin:1em 0"
    return Html(
        f'<div class="note {kind}" role="note" style="{style}"><strong>{word}.</strong> {markup(text)}</div>',
        f"{word}. {plain(text)}",
    )
