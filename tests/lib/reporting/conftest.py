"""Notebooks made on the spot, and one page that several tests look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lib.reporting  # noqa: F401 - before nbformat, which it makes quick to import

nbformat = pytest.importorskip("nbformat", reason="needs the `reports` extra")

PARAMETERS = 'preset: str = "laptop"\nseed: int = 0\nrate: float = 0.5\nfast: bool = False'


def make_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A notebook with a title and a parameters cell; a cell that begins with `md:` is Markdown."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# A title"), nbformat.v4.new_code_cell(parameters)]
    notebook.cells[1].metadata["tags"] = ["parameters"]
    for cell in cells:
        new = nbformat.v4.new_markdown_cell if cell.startswith("md:") else nbformat.v4.new_code_cell
        notebook.cells.append(new(cell.removeprefix("md:")))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"source-{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    def make(*cells: str, **how: Any) -> Path:
        return make_notebook(tmp_path / "source.ipynb", *cells, **how)

    return make


PAGE = {"title": "A <title>", "banner": "smoke run: numbers mean nothing"}
PROSE = r"""md:## The method

The model $p_\theta(\mathbf{x}|\mathbf{z})$ has a bound; $a_1 * b_2 * c$ and $d_1 * e$ keep their stars.

$$\log p(\mathbf{x}) \ge \mathcal{L}(\theta, \phi; \mathbf{x})
= -D_{KL}\left(q_\phi(z|x)\,\|\,p(z)\right) + \mathbb{E}_{q}\left[\log p_\theta(x|z)\right]
+ \sum_{j=1}^{J} \left(1 + \log \sigma_j^2 - \mu_j^2 - \sigma_j^2\right)$$

| symbol | meaning |
|---|---|
| $p(x|z)$ | decoder |

```bash
echo "$HOME and $PATH"
```

Inline `$code$` stays.

### The method
### Where $\beta$ counts
"""
DRAW = """import matplotlib.pyplot as plt
import pandas as pd
from lib.reporting import badge, note, show_figure, show_table, use_house_style
use_house_style()
figure, axis = plt.subplots()
axis.plot([1, 3, 2])
show_figure(figure, "vae2013/figure-2", "A line.", "A line that rises and falls.")"""
TABLE = """frame = pd.DataFrame({f"column {i}": ["a cell of some length", "−1.5 ± 0.2"] for i in range(9)})
show_table(frame.assign(verdict=[badge("replicated"), badge("not run")]), "vae2013/table-1", "Nine columns.")"""
PLAIN = """import sys
print("a line " * 40)
print("to stderr", file=sys.stderr)
plt.plot([1, 2])
display(object(), frame)"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(folder, Execution) of a notebook with one of everything; the folder holds source, executed.ipynb, page.html."""
    pytest.importorskip("papermill", reason="needs the `reports` extra")
    from lib.reporting.notebooks import execute_notebook
    from lib.reporting.page import notebook_page

    folder = tmp_path_factory.mktemp("report")
    source = make_notebook(folder / "source.ipynb", PROSE, DRAW, TABLE, PLAIN)
    execution = execute_notebook(source, folder / "executed.ipynb", {"preset": "smoke"}, timeout_s=120)
    notebook_page(folder / "executed.ipynb", folder / "page.html", **PAGE)
    return folder, execution
