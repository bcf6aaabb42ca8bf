"""From finished runs to something a reader can open, cite and check: figures, tables, notebooks and pages.

`style` and `exhibits` are what a notebook calls, and need nothing but matplotlib and pandas. `notebooks` (strict
papermill) and `page` (one self-contained HTML file) are what the command calls; their packages, the `reports` extra,
are imported only when they are used.
"""

import sys

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

# jsonschema, which stands behind nbformat and papermill, builds a grammar of internationalised web addresses for three
# seconds of every process where this package is found, and does without where it is not. No notebook has such a field.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
