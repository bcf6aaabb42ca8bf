"""How a figure or table is cited: BibTeX and a sentence, made from its record and nothing else, so equal everywhere."""

import re
from collections.abc import Mapping
from typing import Any

from lib.reporting.latex import in_tex

PUBLISHER = "The regen developers"
SOFTWARE = "regen"
_STOP = re.compile(r"(?<=\.)(?<!\bal\.)(?<!\.\.) ")  # after a sentence; not after "et al." and "0 .. 1"
_NUMBERED = re.compile(r"(the paper's )?(table|figure|example) \w+\.", re.IGNORECASE)


def bibtex(exhibit: Mapping[str, Any], paper: Mapping[str, Any] | None, preset: str) -> str:
    """A BibTeX @misc entry of an exhibit's record (see exhibits.json).

    paper: the replicated paper's claims.yaml, None for what spans papers. The year is that of the youngest run behind
    the exhibit, left out where that is unknown. The note holds the SHA-256 of its SVG or CSV.
    """
    identifier = exhibit["identifier"]
    name, digest = _pinned_file(exhibit)
    about = f"; replicates arXiv:{paper['arxiv']}" if paper else ""
    title = f"{identifier}: {in_tex(_first_sentence(exhibit['caption']))}"
    fields = {
        "author": f"{{{PUBLISHER}}}",
        "title": f"{{{title}}}",
        "year": _year(exhibit),
        "howpublished": f"{SOFTWARE}, {in_tex(f'reports/published/{preset}/figures/{name}')}",
        "note": in_tex(f"{exhibit['kind'].capitalize()}, preset {preset}, sha256 {digest}{about}"),
    }
    body = ",\n".join(f"  {key:<12} = {{{value}}}" for key, value in fields.items() if value)
    return f"@misc{{{SOFTWARE}-{identifier.replace('/', '-')}-{preset},\n{body}\n}}\n"


def text_citation(exhibit: Mapping[str, Any], paper: Mapping[str, Any] | None, preset: str) -> str:
    """The same as one sentence."""
    name, digest = _pinned_file(exhibit)
    year = f" ({_year(exhibit)})" if _year(exhibit) else ""
    about = f" Replicates {paper['title']} (arXiv:{paper['arxiv']})." if paper else ""
    caption = _first_sentence(exhibit["caption"])
    return (
        f"{PUBLISHER}{year}. {exhibit['kind'].capitalize()} {exhibit['identifier']}, preset {preset}: {caption}"
        f"{about} {SOFTWARE}, {name}, sha256 {digest[:16]}."
    )


def protocol_text(exhibit: Mapping[str, Any]) -> str:
    """What the exhibit rests on, in a sentence; empty where its record does not say. Its caption names estimators."""
    made = exhibit.get("made_from")
    if not made:
        return ""
    data = ", ".join(f"{name} (sha256 {digest[:12]})" for name, digest in made["data"].items())
    seeds = f"{len(made['seeds'])} seed{'s' if len(made['seeds']) > 1 else ''}"
    return (
        f"Preset {made['preset']}, {seeds}, {made['runs']} runs (sha256 of their results {made['runs_sha256'][:12]})"
        f" on {' and '.join(made['devices'])}; data: {data or 'none'}."
    )


def _pinned_file(exhibit: Mapping[str, Any]) -> tuple[str, str]:
    """The file whose bytes stand for the exhibit: a figure's SVG, a table's CSV; its name and digest."""
    ending = ".svg" if exhibit["kind"] == "figure" else ".csv"
    named = {name: digest for name, digest in exhibit["files"].items() if name.endswith(ending)}
    return next(iter((named or exhibit["files"]).items()), (exhibit["identifier"], "unknown"))


def _year(exhibit: Mapping[str, Any]) -> str:
    return str(exhibit.get("made_from", {}).get("finished_on") or "").rpartition(" ")[2][:4]


def _first_sentence(caption: str) -> str:
    """Captions go on to say how to read a figure; a citation wants its name, and more than the paper's number of it."""
    sentences = _STOP.split(caption)
    return " ".join(sentences[: 2 if _NUMBERED.fullmatch(sentences[0]) else 1])
