"""The RO-Crate of what is published: read from the folder, the papers and git, written beside the index."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.datasets import registry
from lib.errors import UserError
from lib.execution.runs import Run
from lib.files import read_yaml, sha256_of, write_atomically
from lib.reporting.crate import METADATA, Article, Crate, DataSet, File, PageAction, RunAction, metadata
from lib.reporting.exhibits import read_exhibits
from lib.training.provenance import committed_on
from replications import papers
from replications.places import PUBLISHED, REPOSITORY

OF_A_RUN = ("results.json", "failure.json", "history.csv", "samples.png", "weights.safetensors")  # those there are
OF_A_PAGE = (".html", ".ipynb", ".report.json", ".verdicts.json")


def write_crate(target: Path = PUBLISHED) -> Path:
    """Describe `target`, a folder that `publish` filled, in target/ro-crate-metadata.json. Returns that path."""
    write_atomically(target / METADATA, metadata(gather(target)))
    return target / METADATA


def gather(target: Path) -> Crate:
    """Runs, pages, figures and tables below `target`. Raises UserError if no date is known to publish it under."""
    citation = read_yaml(REPOSITORY / "CITATION.cff")
    notebooks = sorted(target.glob("*/*.ipynb"))
    folders = sorted(path.parent for path in target.glob("runs/*/*/run.json"))
    records = [json.loads((folder / "run.json").read_text()) for folder in folders]
    plans = {preset: _plans(preset) for preset in sorted({path.parent.name for path in notebooks})}
    planned = {run.fingerprint: run for plan in plans.values() for runs in plan.values() for run in runs}
    articles = {key: _article(key) for key in papers.known()}
    across = [*sorted(target.glob("*.html")), *sorted(target.glob("tables/*"))]
    there = {path.parent.name for path in folders} | {path.stem for path in notebooks}
    return Crate(
        name=f"{citation['title']}: published reports",
        description=" ".join(citation["abstract"].split()),
        keywords=tuple(citation["keywords"]),
        author=citation["authors"][0]["name"],
        software="regen",
        version=str(citation["version"]),
        date_published=_date(records, _date_before(target / METADATA), citation),
        runs=tuple(_run(*pair, planned, target) for pair in zip(folders, records, strict=True)),
        pages=tuple(_page(path, plans[path.parent.name], articles.get(path.stem), target) for path in notebooks),
        articles=tuple(article for key, article in articles.items() if key in there),
        files=tuple(_file(path, target, f"{path.name}, across papers") for path in across if path.is_file()),
    )


def _plans(preset: str) -> dict[str, list[Run]]:
    """Each paper's runs of a preset."""
    return {key: papers.plan(key, preset) for key in papers.known() if preset in papers.load(key).package.PRESETS}


def _run(folder: Path, record: Mapping[str, Any], planned: Mapping[str, Run], target: Path) -> RunAction:
    fingerprint, paper = record["fingerprint"], folder.parent.name
    results, failure = folder / "results.json", folder / "failure.json"
    parameters = {"algorithm_version": record["algorithm_version"], **record["config"]}
    name = f"{paper} {fingerprint[:12]}"  # of a run that failed under a former plan, nothing more is written down
    if results.is_file():
        told = json.loads(results.read_text())
        name = f"{paper} {told['preset']} {told['experiment']} seed {told['seed']}"
        parameters["seed"] = told["seed"]
    elif fingerprint in planned:
        name, parameters["seed"] = planned[fingerprint].name, planned[fingerprint].seed
    return RunAction(
        fingerprint=fingerprint,
        name=name,
        description=f"{record['wall_seconds']:.1f} s on {record['device']}, with {record['threads']} threads.",
        commit=record["commit"],
        versions={**record["versions"], "python": record["python"]},
        parameters=parameters,
        data=tuple(_data(name, digest) for name, digest in sorted(record["data"].items())),
        files=tuple(_file(folder / n, target, f"{n} of {name}") for n in OF_A_RUN if (folder / n).is_file()),
        finished_on=record.get("finished_on", ""),
        error=json.loads(failure.read_text())["reason"] if failure.is_file() else "",
    )


def _page(notebook: Path, plans: Mapping[str, Sequence[Run]], article: Article | None, target: Path) -> PageAction:
    """A paper's report; or the summary, which rests on every paper's runs."""
    key, preset = notebook.stem, notebook.parent.name
    files = [path for end in OF_A_PAGE if (path := notebook.with_name(key + end)).is_file()]
    found = [_file(path, target, f"{path.name} of {preset}") for path in files]
    exhibits = notebook.parent / "figures"
    for exhibit in read_exhibits(exhibits):
        if exhibit["identifier"].partition("/")[0] == key:
            named = f"{exhibit['kind'].capitalize()} {exhibit['identifier']}, preset {preset}"
            paths = [exhibits / name for name in sorted(exhibit["files"])]
            found += [_file(path, target, named, exhibit["caption"]) for path in paths if path.is_file()]
    return PageAction(
        key=key,
        preset=preset,
        name=f"Report {key}, preset {preset}",
        description=f"Judged, drawn and written from the finished runs by `regen report --preset {preset}`.",
        runs=tuple(sorted(run.fingerprint for k, runs in plans.items() if not article or k == key for run in runs)),
        files=tuple(found),
        about=article,
    )


def _file(path: Path, target: Path, name: str, description: str = "") -> File:
    return File(path.relative_to(target).as_posix(), path.stat().st_size, sha256_of(path), name, description)


def _data(name: str, digest: str) -> DataSet:
    known = registry.entries(registry.REGISTRY).get(name)
    return DataSet(name, digest, known.title, known.licence, known.home) if known else DataSet(name, digest)


def _article(key: str) -> Article:
    document = papers.load(key).document
    return Article(document["title"], tuple(document["authors"]), document["year"], document["arxiv"])


def _date(records: Iterable[Mapping[str, Any]], before: str, citation: Mapping[str, Any]) -> str:
    """Of the youngest run: the day that it recorded, else that of its commit; without either, the release's.

    before: what the crate said until now. A clone without history does not know the commits, and dates nothing back.
    """
    days = {record.get("finished_on") or committed_on(record["commit"]) for record in records}
    day = max(days | {before}) or str(citation.get("date-released", ""))
    if not day:
        raise UserError(
            "No date is known for what is published: no run recorded one and git does not have their commits. Publish "
            "from the checkout that computed them, or give CITATION.cff its date-released."
        )
    return day


def _date_before(path: Path) -> str:
    if not path.is_file():
        return ""
    return next((e["datePublished"] for e in json.loads(path.read_text())["@graph"] if e["@id"] == "./"), "")
