"""The README's tables are those of reports/published, and its pictures are there."""

import json
import re
from pathlib import Path

import pytest

from lib.reporting.markup import VERDICTS
from replications import cost, summary
from replications.papers import PUBLISHED

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    return README.split(f"<!-- {name}:")[1].split("-->\n", 1)[1].split("<!-- end -->")[0]


def test_the_verdicts_are_the_published_ones():
    reports = [json.loads(path.read_text()) for path in sorted(PUBLISHED.glob("*/*.report.json"))]
    assert block("verdicts") == summary.verdicts_markdown(reports, VERDICTS)


def test_the_scores_are_the_published_ones():
    tables = summary.quality_tables(summary.read_all("paper", None, PUBLISHED))
    (table,) = [table for table in tables if table.slug == "quality-paper-mnist"]
    assert block("quality") == summary.markdown(table)


def test_the_hours_are_the_published_ones():
    record = json.loads((PUBLISHED / "bench" / "cost.json").read_text())
    assert block("cost") == cost.markdown(record["rows"])
    assert record["rows"] == cost.retold(record["rows"]), "runs were published since: publish_site tells"


@pytest.mark.parametrize("path", re.findall(r"\]\(((?!https?:)[^)#]+)\)", README))
def test_every_file_it_links_to_is_there(path):
    assert (ROOT / path).exists()


def test_every_picture_has_words():
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", README)
    assert len(pictures) >= 2
    assert all(words for words, _ in pictures)
