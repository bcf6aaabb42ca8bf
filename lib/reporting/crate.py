"""What is published, as an RO-Crate: which run and which page made which file, from what, for machines to read.

RO-Crate Metadata Specification 1.1 with the profile Process Run Crate 0.5 (https://w3id.org/ro/wfrun/process/0.5). One
CreateAction for each run and each page. Equal input gives equal bytes: no time of now, everything in a fixed order.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from math import isfinite
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

METADATA = "ro-crate-metadata.json"
CRATE, PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5"
# The term is the profile's; RO-Crate 1.1 itself has none for a digest.
CONTEXT = [f"{CRATE}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
}
COMPLETED, FAILED = (f"http://schema.org/{word}ActionStatus" for word in ("Completed", "Failed"))

Entity = dict[str, Any]


class File(NamedTuple):
    """A published file; `path` is below the crate's folder, with forward slashes."""

    path: str
    bytes: int
    sha256: str
    name: str
    description: str = ""


class DataSet(NamedTuple):
    """Data as a run saw them. digest: of dtypes, shapes and bytes in memory, so no file has it."""

    name: str
    digest: str
    title: str = ""
    licence: str = ""
    home: str = ""


class Article(NamedTuple):
    """A replicated paper."""

    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str


class RunAction(NamedTuple):
    """A run. error: why it failed, empty if it finished. finished_on: YYYY-MM-DD, empty if not known."""

    fingerprint: str
    name: str
    description: str
    commit: str
    versions: Mapping[str, str]  # of the packages that computed it, and of python
    parameters: Mapping[str, Any]
    data: tuple[DataSet, ...]
    files: tuple[File, ...]
    finished_on: str = ""
    error: str = ""


class PageAction(NamedTuple):
    """A report's page. runs: fingerprints of what it shows; those that are not in the crate are passed over."""

    key: str
    preset: str
    name: str
    description: str
    runs: tuple[str, ...]
    files: tuple[File, ...]
    about: Article | None = None


class Crate(NamedTuple):
    name: str
    description: str
    keywords: tuple[str, ...]
    author: str
    software: str
    version: str
    date_published: str  # YYYY-MM-DD
    runs: tuple[RunAction, ...]
    pages: tuple[PageAction, ...]
    articles: tuple[Article, ...]
    files: tuple[File, ...] = ()  # made by neither a run nor a page


def metadata(crate: Crate) -> str:
    """The text of ro-crate-metadata.json."""
    author = _reference(_identifier(crate.author))
    runs, pages = sorted(crate.runs, key=lambda r: r.fingerprint), sorted(crate.pages, key=lambda p: (p.preset, p.key))
    made = [file for run in runs for file in run.files] + [file for page in pages for file in page.files]
    entities = _unique([
        *(_file(file) for file in (*made, *crate.files)),
        *(_data(data) for run in runs for data in run.data),
        *(_parameter(name, value) for run in runs for name, value in run.parameters.items()),
        *(package for run in runs for package in map(_package, *zip(*sorted(run.versions.items()), strict=True))),
        *(_instrument(crate, run) for run in runs),
        _application(crate, _identifier(crate.software), crate.version, {}),
        *(entity for article in crate.articles for entity in _article(article)),
        {"@id": author["@id"], "@type": "Organization", "name": crate.author},
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": "https://spdx.org/licenses/MIT", "@type": "CreativeWork", "name": "MIT License", "identifier": "MIT"},
    ])  # fmt: skip
    there = {entity["@id"] for entity in entities}
    results = {run.fingerprint: [file.path for file in run.files if file.path.endswith("results.json")] for run in runs}
    actions = [_run(crate, run, author) for run in runs] + [_page(crate, page, results, author) for page in pages]
    parts = [e for e in entities if e["@type"] in ("File", "Dataset")]
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": _reference(PROFILE),
        "name": crate.name,
        "description": crate.description,
        "keywords": ", ".join(crate.keywords),
        "datePublished": crate.date_published,
        "license": _reference("https://spdx.org/licenses/MIT"),
        "author": author,
        "publisher": author,
        "citation": [_reference(_arxiv(article)) for article in crate.articles if _arxiv(article) in there],
        "hasPart": [_reference(entity["@id"]) for entity in parts],
        "mentions": [_reference(action["@id"]) for action in actions],
    }
    head: Entity = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "conformsTo": _reference(CRATE),
        "about": _reference("./"),
    }
    graph = [_filled(entity) for entity in (head, root, *actions, *entities)]
    return json.dumps({"@context": CONTEXT, "@graph": graph}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _run(crate: Crate, run: RunAction, agent: Entity) -> Entity:
    objects = [_data(data) for data in run.data] + [_parameter(name, value) for name, value in run.parameters.items()]
    return {
        "@id": f"#run-{run.fingerprint}",
        "@type": "CreateAction",
        "name": run.name,
        "description": run.description,
        "instrument": _reference(_instrument(crate, run)["@id"]),
        "agent": agent,
        "object": [_reference(entity["@id"]) for entity in objects],
        "result": [_reference(_path(file.path)) for file in run.files],
        "endTime": run.finished_on,
        "actionStatus": FAILED if run.error else COMPLETED,
        "error": run.error,
    }


def _page(crate: Crate, page: PageAction, results: Mapping[str, Sequence[str]], agent: Entity) -> Entity:
    shown = [path for fingerprint in sorted(page.runs) for path in results.get(fingerprint, ())]
    return {
        "@id": f"#page-{page.preset}-{page.key}",
        "@type": "CreateAction",
        "name": page.name,
        "description": page.description,
        "about": _reference(_arxiv(page.about)) if page.about else None,
        "instrument": _reference(_identifier(crate.software)),
        "agent": agent,
        "object": [_reference(_path(path)) for path in shown],
        "result": [_reference(_path(file.path)) for file in page.files],
        "actionStatus": COMPLETED,
    }


def _file(file: File) -> Entity:
    return {
        "@id": _path(file.path),
        "@type": "File",
        "name": file.name,
        "description": file.description,
        "encodingFormat": FORMATS.get(PurePosixPath(file.path).suffix, "application/octet-stream"),
        "contentSize": str(file.bytes),
        "sha256": file.sha256,
    }


def _data(data: DataSet) -> Entity:
    return {
        "@id": f"#sha256-{data.digest}",
        "@type": "Dataset",
        "name": data.title or data.name,
        "alternateName": data.name,
        "identifier": f"sha256:{data.digest}",
        "description": f"{data.name} as runs saw it, whose bytes are not in this crate. The digest is over dtypes, "
        f"shapes and bytes in memory. Licence of the data: {data.licence or 'not recorded'}.",
        "url": data.home,
    }


def _parameter(name: str, value: Any) -> Entity:
    text = json.dumps(value, sort_keys=True)
    told = text if len(text) <= 40 else sha256(text.encode()).hexdigest()[:16]
    # JSON-LD has no place for null or a list of lists, and JSON none for infinity: those become text.
    plain = isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))
    identifier = _identifier(f"{name}={told}")
    return {"@id": identifier, "@type": "PropertyValue", "name": name, "value": value if plain else text}


def _instrument(crate: Crate, run: RunAction) -> Entity:
    """The program at the commit and with the packages that computed a run."""
    packages = sha256(json.dumps(dict(run.versions), sort_keys=True).encode()).hexdigest()[:8]
    identifier = _identifier(f"{crate.software}-{run.commit}-{packages}")
    return _application(crate, identifier, f"{crate.version}, commit {run.commit}", run.versions)


def _application(crate: Crate, identifier: str, version: str, requirements: Mapping[str, str]) -> Entity:
    return {
        "@id": identifier,
        "@type": "SoftwareApplication",
        "name": crate.software,
        "softwareVersion": version,
        "license": _reference("https://spdx.org/licenses/MIT"),
        "softwareRequirements": [_reference(_package(*pair)["@id"]) for pair in sorted(requirements.items())],
    }


def _package(name: str, version: str) -> Entity:
    home = "https://www.python.org/" if name == "python" else f"https://pypi.org/project/{name}/{version}/"
    identifier = _identifier(f"python-{version}") if name == "python" else home
    return {"@id": identifier, "@type": "SoftwareApplication", "name": name, "softwareVersion": version, "url": home}


def _article(article: Article) -> Iterator[Entity]:
    authors = [{"@id": _identifier(name), "@type": "Person", "name": name} for name in article.authors]
    yield from authors
    yield {
        "@id": _arxiv(article),
        "@type": "ScholarlyArticle",
        "name": article.title,
        "author": [_reference(author["@id"]) for author in authors],
        "datePublished": str(article.year),
        "url": _arxiv(article),
        "identifier": f"arXiv:{article.arxiv}",
    }


def _arxiv(article: Article) -> str:
    return f"https://arxiv.org/abs/{article.arxiv}"


def _path(path: str) -> str:
    return quote(path)


def _identifier(text: str) -> str:
    """A name that is known in this crate only."""
    return "#" + quote(text, safe="=:+")


def _reference(identifier: str) -> Entity:
    return {"@id": identifier}


def _filled(entity: Entity) -> Entity:
    """Without what is not known."""
    return {key: value for key, value in entity.items() if value not in ("", None, [])}


def _unique(entities: Iterable[Entity]) -> list[Entity]:
    """Each once, in order of type and identifier."""
    by_id = {entity["@id"]: entity for entity in entities}
    return sorted(by_id.values(), key=lambda entity: (entity["@type"], entity["@id"]))
