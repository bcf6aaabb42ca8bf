"""What `regen cite` prints: the list of what is published, or everything with which one figure or table is cited."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.claims import load_claims
from lib.reporting import citation
from lib.reporting.verify import published_exhibits, records_of, shown
from replications.places import claims_file, known


def listing(root: Path, preset: str | None) -> Iterator[str]:
    """A line for each figure and table below `root` and each preset that has it."""
    for at, record in published_exhibits(root, preset):
        yield f"{record['identifier']:36} {at:8} {record['kind']:7} {record['caption']}"


def bibtex(identifier: str, root: Path, preset: str | None) -> str:
    """An entry for each preset."""
    paper = _paper(identifier)
    return "\n".join(citation.bibtex(record, paper, at) for at, record in records_of(identifier, root, preset))


def told(identifier: str, root: Path, preset: str | None) -> Iterator[str]:
    """Caption, files with digests, protocol, origin and citation of each preset's; then the paper's own BibTeX."""
    paper = _paper(identifier)
    for at, record in records_of(identifier, root, preset):
        yield f"{identifier} ({record['kind']}, preset {at})\n{record['caption']}\n"
        for name, digest in record["files"].items():
            yield f"{shown(root / at / 'figures' / name)}\n  sha256 {digest}"
        for title in ("protocol", "made_from"):
            if record.get(title):
                yield f"\n{title.replace('_', ' ')}:{_laid_out(record[title])}"
        yield f"\n{citation.text_citation(record, paper, at)}\n\n{citation.bibtex(record, paper, at)}"
    if paper:
        yield paper["bibtex"].rstrip("\n")


def _paper(identifier: str) -> dict[str, Any] | None:
    """The claims.yaml of an exhibit's paper; what spans papers has none."""
    key = identifier.partition("/")[0]
    return load_claims(claims_file(key)) if key in known() else None


def _laid_out(value: Any) -> str:
    """Text as it is; the entries of a mapping that say something a line each; what lies deeper as JSON."""
    if isinstance(value, dict):
        return "".join(f"\n  {k}: {_as_text(v)}" for k, v in value.items() if v not in ("", None, [], {}))
    return " " + _as_text(value)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
