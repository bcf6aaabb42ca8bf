"""Tables of text: signs and thousands of numbers, names as they are, a note's reason true of every note."""

import math

import pytest

from lib.claims import Verdict
from lib.reporting.tables import departures_table, number, verdicts_table, with_minus


@pytest.mark.parametrize(
    ("value", "digits", "spread", "text"),
    [(-101.23, 1, 0.4, "−101.2 ± 0.4"), (-90343.4, 0, 148283.2, "−90,343 ± 148,283"), (1234.5, 1, math.nan, "1,234.5"),
     (math.nan, 1, 0.4, "–")],
)  # fmt: skip
def test_a_number_and_its_spread_are_written_alike(value, digits, spread, text):
    assert number(value, digits, spread) == text


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("aevb-nz3 -1.21 < frey-aevb-nz10 46.5", "aevb-nz3 −1.21 < frey-aevb-nz10 46.5"),
        ("-173.9 (sd 1)", "−173.9 (sd 1)"),
        ("4.7e-15 (sd -5e-16)", "4.7e−15 (sd −5e−16)"),
        ("name-3e-5", "name-3e−5"),
        ("[-1, -.5]", "[−1, −.5]"),
        ("-inf", "−inf"),
        ("2026-05-03", "2026-05-03"),
        ("one-sided", "one-sided"),
    ],
)
def test_signs_become_minus_and_hyphens_of_names_stay(text, read):
    assert with_minus(text) == read


def test_a_table_of_verdicts_keeps_names():
    measured = "aevb-nz3 1.21, aevb-nz5 -3.16"
    verdict = Verdict(**dict.fromkeys(Verdict._fields, "") | {"measured": measured, "verdict": "replicated"})
    assert verdicts_table([verdict])["measured"].tolist() == ["aevb-nz3 1.21, aevb-nz5 −3.16"]


def test_no_note_is_said_to_be_the_papers_silence():
    """Some are about the authors' code, some about another text: the text of each tells."""
    document = {
        "deviations": [{"id": "D1", "what": "a", "why": "no time", "effect": "none"}],
        "notes": [{"id": "N1", "what": "Section 5 swaps words."}],
    }
    assert departures_table(document)["why"].tolist() == [
        "no time", "the note says it: most often the paper is silent, or its code differs"
    ]  # fmt: skip
