"""Plain text as TeX sets it, in every table and citation that is published."""

import json
import re
import shutil
import subprocess
import unicodedata

import pandas as pd
import pytest

from lib.reporting.latex import booktabs, in_tex
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
        cells = re.sub(r"^  >\{", "", text.replace(r"$\|$", ""), flags=re.MULTILINE)  # but for how columns are set
        assert not re.search(r"(?<!\$)[<>|]|[<>|](?!\$)", cells), name


def table(n_rows, *columns):
    """A table of equal rows; columns: a head, its cells, and the side they are set to."""
    frame = pd.DataFrame({head: n_rows * [cell] for head, cell, _ in columns})
    return booktabs(frame, "gan2014/table-1", "A caption.", [side for *_, side in columns])


NAME, NUMBER = ("model", "GAN", "left"), ("nats/image", "−101.2 ± 0.4", "right")
TEXT = ("why", " ".join(60 * ["words"]), "left")


def numbers(n):
    return [(f"number {i}", NUMBER[1], "right") for i in range(n)]


def test_a_narrow_table_is_set_as_it_is():
    text = table(3, NAME, NUMBER)
    assert text.startswith("% gan2014/table-1. Needs \\usepackage{booktabs}.\n\\begin{table}[htbp]\n\\centering\n")
    assert "\\begin{tabular}{lr}" in text
    assert not re.search("footnotesize|longtable|landscape", text)


def test_a_wider_one_is_set_smaller_before_anything_is_broken():
    text = table(3, NAME, *numbers(5))
    assert "\\centering\\footnotesize" in text
    assert "\\begin{tabular}{@{}lrrrrr@{}}" in text


def test_texts_are_broken_over_lines_and_numbers_are_not():
    text = table(3, NAME, TEXT, NUMBER)
    widths = [float(width) for width in re.findall(r"p\{([\d.]+)\\linewidth\}", text)]
    assert len(widths) == 3
    assert 0.9 < sum(widths) < 1
    assert 12 * 0.45 * 8 / 345 < widths[2] < 0.25  # twelve letters of about half their 8 points
    assert "{booktabs,array}" in text
    assert text.index("raggedright") < text.index("raggedleft")
    assert not re.search("longtable|landscape", text)


@pytest.mark.parametrize("columns", [[NAME, NUMBER], [NAME, TEXT, NUMBER]], ids=["narrow", "broken"])
def test_what_is_higher_than_a_page_goes_on_over_pages(columns):
    text = table(60, *columns)
    assert "\\begin{longtable}" in text
    assert "longtable}" in text.splitlines()[0]
    assert "\\endhead" in text
    assert "\\begin{table}" not in text


def test_what_no_line_holds_is_set_on_a_turned_page():
    text = table(3, NAME, *numbers(7))
    assert text.count("{landscape}") == 2
    assert "pdflscape}" in text.splitlines()[0]


@pytest.mark.parametrize("column", [("", "", "left"), ("word", 300 * "x", "left")], ids=["empty", "unbreakable"])
def test_every_column_has_a_width(column):
    text = table(2, NAME, TEXT, column)
    widths = [float(width) for width in re.findall(r"p\{([\d.]+)\\linewidth\}", text)]
    assert min(widths) > 0.005
    assert sum(widths) < 1
    assert 0.9 < float(re.findall(r"p\{([\d.]+)", table(2, ("word", 300 * "x", "left")))[0]) <= 1


def test_published_tables_fit_a_page(tmp_path):
    """An article of LaTeX's own takes every one of them, without an error and with nothing over its margin."""
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("needs pdflatex (apt-get install texlive-latex-base texlive-latex-recommended)")
    paths = sorted(PUBLISHED.glob("**/*.tex"))
    needed = {
        name for path in paths for name in re.findall(r"Needs \\usepackage{(.*)}", path.read_text())[0].split(",")
    }
    inputs = (f"\\typeout{{FILE {i}}}\\input{{{path}}}\\clearpage" for i, path in enumerate(paths))
    head = f"\\documentclass{{article}}\\usepackage{{{','.join(sorted(needed))}}}\\begin{{document}}"
    (tmp_path / "all.tex").write_text("\n".join([head, *inputs, "\\end{document}"]))
    command = [latex, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    name, wide = "", {}
    for said, excess in re.findall(r"^FILE (\d+)|Overfull \\hbox \(([\d.]+)pt", log, re.MULTILINE):
        name = paths[int(said)].name if said else name
        if excess and float(excess) > 3:  # less is half the gap between two columns
            wide[name] = float(excess)
    assert log.count("FILE ") == len(paths) > 100
    assert wide == {}
