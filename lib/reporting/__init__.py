"""From finished runs to something a reader can open, cite and check: figures, tables, notebooks and pages.

`style` and `exhibits` are what a notebook calls, and need nothing but matplotlib and pandas. `notebooks` (strict
papermill) and `page` (one self-contained HTML file) are what the command calls; their packages, the `reports` extra,
are imported only when they are used.
"""

from lib.reporting.exhibits import Exhibit, Html, badge, link, note, read_exhibits, show_figure, show_table
from lib.reporting.style import use_house_style

__all__ = [
    "Exhibit",
    "Html",
    "badge",
    "link",
    "note",
    "read_exhibits",
    "show_figure",
    "show_table",
    "use_house_style",
]
