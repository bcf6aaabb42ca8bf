"""A citation is BibTeX that a library reads, names the file's digest, and is the same everywhere."""

import pytest

from lib.reporting.citation import bibtex, protocol_text, text_citation

PAPER = {"title": "Generative Adversarial Nets", "arxiv": "1406.2661"}
MADE_FROM = {
    "preset": "laptop",
    "seeds": [0, 1, 2],
    "runs": 29,
    "runs_sha256": "ab" * 32,
    "data": {"mnist-5k": "81769e5d612d" + "0" * 52},
    "devices": ["AMD EPYC"],
    "commits": ["c" * 40],
    "finished_on": "2026-11-28",
}


def an_exhibit(**values: object) -> dict[str, object]:
    files = {"gan2014/table-1.csv": "1" * 64, "gan2014/table-1.json": "2" * 64, "gan2014/table-1.tex": "3" * 64}
    return {"identifier": "gan2014/table-1", "kind": "table", "caption": "Log-likelihoods. The ± is a spread.",
            "files": files, "made_from": MADE_FROM, **values}  # fmt: skip


def parsed(text: str):
    pybtex = pytest.importorskip("pybtex.database", reason="needs pybtex (the `dev` extra)")
    (entry,) = pybtex.parse_string(text, "bibtex").entries.items()
    return entry


def test_bibtex_is_read_by_a_library():
    key, entry = parsed(bibtex(an_exhibit(), PAPER, "laptop"))
    assert (key, entry.type) == ("regen-gan2014-table-1-laptop", "misc")
    assert entry.fields["title"] == "{gan2014/table-1: Log-likelihoods.}"
    assert entry.fields["year"] == "2026"
    assert [str(person) for person in entry.persons["author"]] == ["{The regen developers}"]
    assert "1" * 64 in entry.fields["note"]
    assert "arXiv:1406.2661" in entry.fields["note"]
    assert "gan2014/table-1.csv" in entry.fields["howpublished"]


@pytest.mark.parametrize(
    "caption", ["{ unbalanced", "100 % & #1 $x_1$ ~ ^ \\ } − ± ×", 'quotes " and “these”', "a" * 300]
)
def test_no_caption_breaks_it(caption):
    key, entry = parsed(bibtex(an_exhibit(caption=caption), PAPER, "paper"))
    assert key.endswith("-paper")
    assert entry.fields["title"].count("{") == entry.fields["title"].count("}")


def test_a_figure_is_cited_by_its_svg_and_without_a_day_has_no_year():
    files = {"vae2013/figure-2.csv": "1" * 64, "vae2013/figure-2.png": "2" * 64, "vae2013/figure-2.svg": "3" * 64}
    exhibit = an_exhibit(
        identifier="vae2013/figure-2", kind="figure", files=files, made_from={**MADE_FROM, "finished_on": ""}
    )
    text = bibtex(exhibit, None, "laptop")
    assert "3" * 64 in text
    assert "year" not in text
    assert "arXiv" not in text


def test_the_sentence_names_identifier_preset_and_digest():
    text = text_citation(an_exhibit(), PAPER, "laptop")
    assert text == (
        "The regen developers (2026). Table gan2014/table-1, preset laptop: Log-likelihoods. Replicates Generative "
        "Adversarial Nets (arXiv:1406.2661). regen, gan2014/table-1.csv, sha256 1111111111111111."
    )


@pytest.mark.parametrize(
    ("caption", "cited"),
    [
        ("Bounds. The ± is a spread.", "Bounds."),
        ("Burda et al. train in stages: the bound. Mean over seeds.", "Burda et al. train in stages: the bound."),
        ("Pixels scaled to 0 .. 1; digits train. Digest 8176.", "Pixels scaled to 0 .. 1; digits train."),
        ("Table 2. Labels to photographs. Mean over seeds.", "Table 2. Labels to photographs."),
        ("The paper's figure 1. Lines: points. Dots: others.", "The paper's figure 1. Lines: points."),
        ("Figure 1 in numbers. 10 models.", "Figure 1 in numbers."),
        ("Digits in total. Means.", "Digits in total."),
        ("Example 1.", "Example 1."),
        ("No stop", "No stop"),
    ],
)
def test_the_name_is_the_first_sentence_that_says_something(caption, cited):
    assert f"preset laptop: {cited} Replicates" in text_citation(an_exhibit(caption=caption), PAPER, "laptop")


def test_the_protocol_names_runs_and_data():
    text = protocol_text(an_exhibit())
    assert "Preset laptop, 3 seeds, 29 runs (sha256 of their results abababababab) on AMD EPYC" in text
    assert "mnist-5k (sha256 81769e5d612d)" in text
    assert protocol_text({"identifier": "a/b"}) == ""
