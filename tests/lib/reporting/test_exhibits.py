"""Figures and tables: repeatable bytes, honest digests, readable without the page's style sheet."""

import csv
import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.errors import UserError
from lib.execution.runs import WeightsAbsent
from lib.reporting import Html, badge, link, note, read_exhibits, show_figure, show_table
from lib.reporting.exhibits import complete
from lib.reporting.markup import VERDICTS

DRAW = """
import sys
from pathlib import Path
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
from lib.reporting import show_figure, use_house_style
use_house_style()
figure, axis = plt.subplots()
axis.plot([1, 3, 2], "o-", label="line"); axis.fill_between([0, 1, 2], [0, 1, 0], alpha=.3); axis.legend()
show_figure(figure, "vae2013/figure-2", "A line.", "It rises and falls.", Path(sys.argv[1]))
"""


def a_figure() -> plt.Figure:
    figure, axis = plt.subplots()
    axis.plot([1, 2, 3])
    return figure


def test_drawn_twice_in_two_processes_gives_the_same_bytes(tmp_path):
    processes = [subprocess.Popen([sys.executable, "-c", DRAW, str(tmp_path / name)]) for name in "ab"]
    assert [process.wait(120) for process in processes] == [0, 0]
    for name in (*(f"vae2013/figure-2.{end}" for end in ("svg", "png", "pdf", "csv")), "exhibits.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert b"<dc:date>" not in (tmp_path / "a/vae2013/figure-2.svg").read_bytes()


def test_index_holds_every_exhibit_once_with_the_digests_of_its_files(tmp_path):
    for number in (2, 1, 2):
        show_figure(a_figure(), f"vae2013/figure-{number}", f"Caption {number}.", "A line.", tmp_path)
    show_table(pd.DataFrame({"a": [1]}), "gan2014/table-1", "T.", tmp_path)
    exhibits = read_exhibits(tmp_path)
    assert [e["identifier"] for e in exhibits] == ["gan2014/table-1", "vae2013/figure-1", "vae2013/figure-2"]
    assert [len(e["files"]) for e in exhibits] == [3, 4, 4]
    for exhibit in exhibits:
        for name, digest in exhibit["files"].items():
            assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert exhibits[2] == {**exhibits[2], "kind": "figure", "caption": "Caption 2.", "alt": "A line."}
    text = (tmp_path / "exhibits.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_a_damaged_index_is_told_and_not_overwritten(tmp_path):
    (tmp_path / "exhibits.json").write_text('{"exhibits": [')
    with pytest.raises(UserError, match=r"exhibits\.json"):
        show_table(pd.DataFrame({"a": [1]}), "gan2014/table-1", "T.", tmp_path)


def test_figure_is_closed_labelled_and_inlined():
    figure = a_figure()
    before = plt.get_fignums()
    shown = show_figure(figure, "vae2013/figure-2", "Less < more.", 'It says "rises".')
    assert figure.number in before
    assert figure.number not in plt.get_fignums()
    assert shown.html.startswith('<figure id="figure-2" class="exhibit')
    assert 'alt="It says &quot;rises&quot;."' in shown.html
    assert "Figure vae2013/figure-2.</a> Less &lt; more.</figcaption>" in shown.html
    assert 'src="data:image/svg+xml,%3C' in shown.html
    assert shown._repr_mimebundle_()["text/plain"] == "[Figure vae2013/figure-2. Less < more.]"
    assert shown.files == {}


def absent() -> plt.Figure:
    plt.subplots()
    raise WeightsAbsent("the weights are elsewhere")


def test_a_figure_whose_weights_are_gone_stays_as_it_was_drawn(tmp_path):
    """Published runs are kept without weights: a page made of them again keeps the figures that need them."""
    before = show_figure(a_figure, "vae2013/figure-2", "C.", "Alt.", tmp_path)
    content = {path.name: path.read_bytes() for path in (tmp_path / "vae2013").iterdir()}
    mine = plt.figure()
    again = show_figure(absent, "vae2013/figure-2", "Another caption.", "Alt.", tmp_path)
    assert plt.get_fignums() == [mine.number]  # what was begun is closed, and what the reader drew is not
    plt.close(mine)
    assert again.html == before.html.replace("C.<", "Another caption.<")
    assert {path.name: path.read_bytes() for path in (tmp_path / "vae2013").iterdir()} == content
    assert read_exhibits(tmp_path)[0]["files"] == before.files
    assert read_exhibits(tmp_path)[0]["caption"] == "Another caption."


def test_a_figure_that_was_not_drawn_again_keeps_what_it_was_made_from(tmp_path):
    shown = show_figure(a_figure, "vae2013/figure-2", "C.", "Alt.", tmp_path)
    complete(tmp_path, "vae2013", shown.html, {"commits": ["old"]})
    shown = show_figure(absent, "vae2013/figure-2", "C.", "Alt.", tmp_path)
    complete(tmp_path, "vae2013", shown.html, {"commits": ["new"]})
    assert read_exhibits(tmp_path)[0]["made_from"] == {"commits": ["old"]}
    shown = show_figure(a_figure, "vae2013/figure-2", "C.", "Alt.", tmp_path)
    complete(tmp_path, "vae2013", shown.html, {"commits": ["new"]})
    assert read_exhibits(tmp_path)[0]["made_from"] == {"commits": ["new"]}


def test_a_figure_that_never_was_drawn_says_so(tmp_path):
    shown = show_figure(absent, "vae2013/figure-2", "C.", "Alt.", tmp_path)
    assert "<img" not in shown.html
    assert "the weights of its run are not here" in shown.html
    assert shown.files == {}


def test_what_a_notebook_shows_no_more_is_dropped_and_the_rest_told_its_source(tmp_path):
    kept = show_table(pd.DataFrame({"a": [1]}), "gan2014/table-1", "T.", tmp_path)
    show_table(pd.DataFrame({"a": [1]}), "gan2014/table-old", "T.", tmp_path)
    show_table(pd.DataFrame({"a": [1]}), "vae2013/table-1", "T.", tmp_path)
    complete(tmp_path, "gan2014", kept.html, {"preset": "laptop"})
    assert [e["identifier"] for e in read_exhibits(tmp_path)] == ["gan2014/table-1", "vae2013/table-1"]
    assert [e.get("made_from") for e in read_exhibits(tmp_path)] == [{"preset": "laptop"}, None]
    assert sorted(path.name for path in (tmp_path / "gan2014").iterdir()) == [
        f"table-1.{e}" for e in ("csv", "json", "tex")
    ]
    assert len(list((tmp_path / "vae2013").iterdir())) == 3


def test_papers_that_are_completed_at_once_do_not_undo_each_other(tmp_path):
    frame, papers = pd.DataFrame({"a": [1]}), [f"paper{i}" for i in range(8)]
    shown = {paper: show_table(frame, f"{paper}/table-a", "A.", tmp_path).html for paper in papers}
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda paper: complete(tmp_path, paper, shown[paper], {"preset": paper}), papers))
    assert {e["identifier"]: e["made_from"]["preset"] for e in read_exhibits(tmp_path)} == {
        f"{paper}/table-a": paper for paper in papers
    }


def test_png_where_asked():
    assert 'src="data:image/png;base64,' in show_figure(a_figure(), "a/f-1", "C.", "Alt.", kind="png").html


@pytest.mark.parametrize(
    "identifier", ["figure-2", "VAE/figure-2", "vae2013/Figure", "../x", "a/b/c", "vae2013/figure-2\n", ""]
)
def test_identifier_is_checked_before_anything_is_written(identifier, tmp_path):
    with pytest.raises(UserError, match="vae2013/figure-2"):
        show_figure(a_figure(), identifier, "C.", "Alt.", tmp_path)
    with pytest.raises(UserError, match="vae2013/figure-2"):
        show_table(pd.DataFrame(), identifier, "C.", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_figure_without_alternative_text_is_refused():
    with pytest.raises(UserError, match="alternative text"):
        show_figure(a_figure(), "a/f-1", "C.", "  ")


class Cells(HTMLParser):
    """The attributes of every th and td."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("th", "td"):
            self.found.append((tag, dict(attrs)))


def test_table_escapes_strings_but_not_markup_and_writes_csv(tmp_path):
    frame = pd.DataFrame(
        {
            "what": ["<b>bold</b>", "a, b"],
            "ours": ["−101.2 ± 0.4", "–"],
            "value": [1.23456, np.nan],
            "verdict": [badge("replicated"), link("see <here>", "#x")],
        }
    )
    shown = show_table(frame, "gan2014/table-1", "T.", tmp_path)
    assert "&lt;b&gt;bold" in shown.html
    assert "<b>" not in shown.html
    assert 'class="badge replicated"' in shown.html
    assert '<a href="#x">see &lt;here&gt;</a>' in shown.html
    head = [attrs for tag, attrs in Cells(shown.html).found if tag == "th"]
    assert all(attrs["scope"] == "col" for attrs in head)
    assert ["right" in attrs["style"] for attrs in head] == [False, True, True, False]
    rows = list(csv.reader((tmp_path / "gan2014/table-1.csv").open(encoding="utf-8")))
    assert rows[1:] == [["<b>bold</b>", "−101.2 ± 0.4", "1.235", "replicated"], ["a, b", "–", "–", "see <here>"]]
    written = json.loads((tmp_path / "gan2014/table-1.json").read_text(encoding="utf-8"))
    assert [list(row.values()) for row in written["rows"]] == rows[1:]
    assert (written["identifier"], written["caption"]) == ("gan2014/table-1", "T.")
    latex = (tmp_path / "gan2014/table-1.tex").read_text(encoding="utf-8")
    assert "\\label{tab:gan2014-table-1}" in latex
    assert "\\begin{tabular}{lrrl}" in latex
    assert "$<$b$>$bold$<$/b$>$ & $-$101.2 $\\pm$ 0.4 & 1.235 & replicated" in latex


def test_markup_survives_a_column_that_holds_nothing_else():
    frame = pd.DataFrame({"verdict": [badge("partly"), badge("not run")]})  # pandas would make strings plain
    assert show_table(frame.iloc[::-1].reset_index(drop=True), "a/t-1", "T.").html.count('class="badge') == 2


def test_index_becomes_row_headers_and_align_wins():
    frame = pd.DataFrame({"n": [1, 2]}, index=pd.Index(["x", "y"], name="name"))
    found = Cells(show_table(frame, "a/t-1", "T.", align={"n": "center"}).html).found
    assert [tag for tag, _ in found] == ["th", "th", "th", "td", "th", "td"]
    assert found[2][1]["scope"] == "row"
    assert "center" in found[3][1]["style"]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_badge_says_its_verdict_in_words_and_by_glyph(verdict):
    shown = badge(verdict)
    assert shown.text == verdict
    assert f"</span> {verdict}</span>" in str(shown)
    assert sum(badge(other).markup.split(">")[2] == shown.markup.split(">")[2] for other in VERDICTS) == 1


def test_badge_of_no_verdict():
    with pytest.raises(ValueError, match="not run"):
        badge("met")


def test_note_escapes_its_text():
    assert "a &lt; b" in str(note("a < b"))
    assert "<em>" in str(note(Html("<em>x</em>", "x")))


def test_importing_the_package_needs_no_reporting_extra():
    code = (
        "import sys\n"
        "for name in 'papermill nbconvert nbformat latex2mathml mistune psutil'.split(): sys.modules[name] = None\n"
        "import lib.reporting, lib.reporting.notebooks, lib.reporting.page"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_write_leaves_the_old_file_when_the_disk_is_full(tmp_path: Path, monkeypatch):
    from lib import files

    target = tmp_path / "page.html"
    files.write_atomically(target, "old")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="space"):
        files.write_atomically(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert target.read_text() == "old"
