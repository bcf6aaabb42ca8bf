"""The page: whole in itself, formulas as MathML, headings that can be linked to, colours that can be read."""

import base64
import hashlib
import itertools
import logging
import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("nbconvert", reason="needs the `reports` extra")

import nbformat

from lib.reporting.markdown import Prose
from lib.reporting.markup import note
from lib.reporting.mathml import mathml
from lib.reporting.notebooks import Execution
from lib.reporting.page import TEMPLATES, IndexEntry, index_page, notebook_page


class Reader(HTMLParser):
    """Every tag with its attributes, and the text outside code and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("pre", "code", "style", "script"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        self.words += "" if self._inside else data

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]


@pytest.fixture(scope="module")
def page(finished) -> str:
    return (finished[0] / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(page) -> Reader:
    return Reader(page)


def outside_requests(text: str) -> list[str]:
    """Whatever in a page would make a browser fetch something."""
    read = Reader(text)
    loaded = [
        attrs.get(name) or "" for _, attrs in read.tags for name in ("src", "srcset", "data", "poster", "background")
    ]
    loaded += [attrs.get("href") or "" for attrs in read.all("link", "base", "image", "use")]
    text = re.sub(r"<script>.*?</script>", "", text, flags=re.S)  # ours, read by the test of the script
    loaded += re.findall(r"url\(\s*['\"]?([^'\")]+)", text) + re.findall(r"@import[^;]+", text)
    return [url for url in loaded if url and not url.startswith(("data:", "#", "%23"))] + [
        a["src"] or "" for a in read.all("script") if "src" in a
    ]


def test_page_asks_no_other_host_and_runs_its_one_script(page, read):
    assert outside_requests(page) == []
    assert read.all("iframe", "object", "embed") == []
    assert read.all("script") == [{}]
    script = page[page.index("<script>") + len("<script>") : page.index("</script>")]
    assert script == (TEMPLATES / "regen/page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page
    policy = next(
        attrs["content"] for attrs in read.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    assert outside_requests('<img src="https://a.org/x"><style>@import "x.css";</style>') != []


def test_page_is_small(page):
    assert len(page.encode()) < 200_000


def test_formulas_are_mathml_and_no_dollar_is_left(read, page):
    assert (
        len(read.all("math")) == 8
    )  # three in the text, one displayed, one in the table, a heading and its two lines of contents
    assert "$" not in read.words
    assert 'display="block"' in page
    assert "𝐱" in page


def test_code_keeps_its_dollars(page):
    assert "<code>$code$</code>" in page
    assert "$HOME" in page
    assert "$PATH" in page


def test_every_link_within_the_page_resolves(read):
    ids = [attrs["id"] for _, attrs in read.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    targets = {(attrs.get("href") or "")[1:] for attrs in read.all("a") if (attrs.get("href") or "").startswith("#")}
    assert targets <= set(ids)
    assert {"the-method", "the-method-2", "where-beta-counts", "figure-2", "table-1", "content"} <= targets


def test_every_image_has_an_alternative_text(read):
    assert len(read.all("img")) == 2
    assert all(attrs.get("alt") for attrs in read.all("img"))


def test_landmarks_language_title_and_one_h1(read, page):
    assert read.all("html")[0]["lang"] == "en"
    assert len(read.all("main")) == len(read.all("h1")) == 1
    assert "<h1>A &lt;title&gt;</h1>" in page
    assert "smoke run: numbers mean nothing</div>" in page


def test_stderr_is_apart_and_code_is_folded(read, page):
    assert '<pre class="stream stderr"' in page
    assert all("open" not in attrs for attrs in read.all("details"))


def test_hide_input_and_hostile_output(tmp_path):
    hidden = nbformat.v4.new_code_cell("secret = 1")
    hidden.metadata["tags"] = ["hide-input"]
    hidden.outputs = [
        nbformat.v4.new_output("stream", text="<script>alert(1)</script>\x1b[31mred\x1b[0m"),
        nbformat.v4.new_output(
            "display_data", {"image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>'}
        ),
        nbformat.v4.new_output("display_data", {"text/latex": "$x^2$", "text/plain": "x"}),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=[hidden]), tmp_path / "n.ipynb")
    notebook_page(tmp_path / "n.ipynb", tmp_path / "n.html", title="T")
    page = (tmp_path / "n.html").read_text()
    assert "secret" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;red" in page
    assert page.count("<script") == 1  # the page's own
    assert len(Reader(page).all("math")) == 1
    assert 'class="contents' not in page  # no headings, no empty list of them


def test_failure_outside_the_cells_and_an_oversized_page(tmp_path, caplog):
    big = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("stream", text="x" * 3_100_000)])
    nbformat.write(nbformat.v4.new_notebook(cells=[big]), tmp_path / "n.ipynb")
    with caplog.at_level(logging.WARNING, "lib.reporting.page"):
        notebook_page(tmp_path / "n.ipynb", tmp_path / "n.html", title="T", failed=Execution(False, None, "a < b", 1.0))
    assert "3.1 MB" in caplog.text
    page = (tmp_path / "n.html").read_text()
    assert "outside its cells" in page
    assert "a &lt; b" in page


@pytest.mark.parametrize(
    ("markdown", "formulas"),
    [
        ("costs $5 to $10", 0),
        (r"\$x\$", 0),
        ("`$x$` and $y$", 1),
        ("~~~\n$x$\n~~~\n$y$", 1),
        ("    $x$ indented\n\n$y$", 1),
        ("*$a_1 * b$* and **$c$**", 2),
        ("$a$$b$", 2),
        ("$$a\n+ b$$", 1),
        ("\\begin{align}a &= b\\end{align}", 1),
        ("$a\n\nb$", 0),
        ("a ` tick\n\n$x$ and a ` tick", 1),
        ('<img src="data:," alt="$x$">', 0),
    ],
)
def test_what_is_a_formula(markdown, formulas):
    html = Prose().render(markdown)
    assert html.count("<math") == formulas, html
    assert "\ue000" not in html
    assert "<em>" not in html or "<em><math" in html


@pytest.mark.parametrize(
    ("tex", "within"),
    [
        (r"x \sim p", "<mo>∼</mo>"),
        (r"\boldsymbol{\mu}", "<mi>𝝁</mi>"),
        (r"\min_G V", "<munder><mi>min</mi><mi>G</mi></munder>"),
        (r"\arg\max_x f", "<mi>arg\xa0max</mi>"),
        (r"\log x", '<mi>log</mi><mspace width="0.167em"></mspace><mi>x</mi>'),
        (r"\log(x)", "<mi>log</mi><mo"),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "text-align:right"),
        ("a < b", "<mo>&lt;</mo>"),
    ],
)
def test_repairs_of_latex2mathml(tex, within):
    assert within in mathml(tex, display=True)


@pytest.mark.parametrize("tex", [r"\frac{", r"\nosuchcommand{x}", "a & b"])
def test_a_formula_that_cannot_be_converted_is_shown_and_told(tex, caplog):
    assert mathml(tex).startswith('<code class="tex">')
    assert tex in caplog.text


def test_index_page(tmp_path):
    entries = [
        IndexEntry(
            "vae2013",
            "AEVB <1>",
            "Kingma, 2013",
            "laptop",
            "v.html",
            {"not run": 1, "replicated": 4, "partly": 0},
            "ok",
            "9 runs",
        ),
        IndexEntry("gan2014", "GAN", "Goodfellow, 2014", "smoke", "g.html", {}, "numbers mean nothing"),
        IndexEntry("wgan2017", "WGAN", "Arjovsky, 2017", "smoke", "w.html", {}, "failed"),
    ]
    index_page(tmp_path / "index.html", entries)
    page = (tmp_path / "index.html").read_text()
    assert outside_requests(page) == []
    assert "AEVB &lt;1&gt;" in page
    links = [a["href"] for a in Reader(page).all("a")]
    assert links[:6] == ["#content", *(f"{name}.html" for name in ("index", "tables", "claims", "figures", "method"))]
    claims = [f"claims.html#paper=vae2013&preset=laptop&verdict={word}" for word in ("replicated", "not+run")]
    assert links[6:] == ["method.html#verdicts", "v.html", *claims, "v.html", "g.html", "w.html"]
    assert page.index("replicated</span>") < page.index("not run</span>")
    assert "partly</span>" not in page
    assert "numbers mean nothing" in page
    assert "report incomplete" in page
    index_page(tmp_path / "again.html", entries)
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "index.html").read_bytes()
    index_page(tmp_path / "index.html", entries, summaries=("paper", "laptop"))
    more = [a["href"] for a in Reader((tmp_path / "index.html").read_text()).all("a")]
    assert more == [*links, "paper/summary.html", "laptop/summary.html"]


def test_the_same_notice_of_cells_in_a_row_is_said_once(tmp_path):
    def cell(*markup: str) -> nbformat.NotebookNode:
        outputs = [nbformat.v4.new_output("display_data", data={"text/html": text}) for text in markup]
        return nbformat.v4.new_code_cell("absent", outputs=outputs)

    absent, other = note("No run is finished.", "info").markup, note("Another.", "info").markup
    heading = nbformat.v4.new_markdown_cell("## Next")
    for cells, said in (
        ([cell(absent), cell(absent), cell(absent)], 1),
        ([cell(absent), heading, cell(absent)], 2),
        ([cell(absent), cell("<p>a figure</p>"), cell(absent)], 2),
        ([cell(absent), cell("<p>a figure</p>", absent)], 2),
        ([cell(absent), cell(other), cell(absent)], 2),
    ):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "n.ipynb")
        notebook_page(tmp_path / "n.ipynb", tmp_path / "n.html", title="T")
        page = (tmp_path / "n.html").read_text()
        assert page.count("No run is finished.") == said
        assert page.count("a figure") == sum("a figure" in str(c.get("outputs", "")) for c in cells)
    assert page.count("Another.") == 1


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [0, 1], ids=["light", "dark"])
def test_every_text_colour_has_a_contrast_of_four_and_a_half(palette):
    css = (TEMPLATES / "regen/page.css").read_text()
    colours = dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css.split("@media screen and (prefers-color-scheme")[palette])
    )
    pairs = list(itertools.product(["ink", "muted", "link"], ["paper", "panel"]))
    pairs += [(name, f"{name}-bg") for name in ("good", "fair", "bad", "neutral")] + [("bad", "paper")]
    pairs += [(name, "panel") for name in colours if name.startswith("code-")]
    assert len(pairs) == 17
    for ink, ground in pairs:
        light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
