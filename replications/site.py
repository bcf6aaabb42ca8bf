"""The site around the reports below one root: index, tables, claims, figures, method, and a page for each run.

Made from runs, reports' records and claims alone, by the same code for reports/latest and reports/published.
"""

import base64
import csv
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.claims import KINDS, SIGNIFICANCE, Verdict
from lib.errors import UserError
from lib.execution.runs import SUMS, Failed, Finished
from lib.files import read_json, write_atomically
from lib.reporting.exhibits import read_exhibits
from lib.reporting.markup import VERDICTS, badge
from lib.reporting.page import IndexEntry, index_page, render
from lib.reporting.tables import config_table, with_minus
from lib.results import Score, readable_json
from replications import bench, papers, summary
from replications.papers import Results

ORDER = {"paper": 0, "laptop": 1, "smoke": 2}
_FORMATS = (("csv", "CSV"), ("tex", "LaTeX"))
MOST_CURVES = 12
MOST_SAMPLE_BYTES = 400_000  # a larger sheet is linked, so that a run's page stays light


def write_site(root: Path) -> Path:
    """Everything below `root` but the reports themselves and what they hold. Returns the index."""
    reports = [read_json(path) for path in sorted(root.glob("*/*.report.json"))]
    reports.sort(key=lambda r: (ORDER.get(r["preset"], 3), r["preset"], r["paper"]))
    entries = [IndexEntry(href=f"{r['preset']}/{r['paper']}.html", **_told(r)) for r in reports]
    summaries = sorted((p.parent.name for p in root.glob("*/summary.html")), key=lambda preset: ORDER.get(preset, 3))
    index_page(root / "index.html", entries, summaries=summaries, speed=(root / "bench").is_dir())
    # What smoke computes means nothing, so it stands in no table and has no page.
    studies = list(_studies(root, [r for r in reports if r["preset"] != "smoke"]))
    _write_tables(root, studies)
    _write_claims(root, studies)
    _write_figures(root)
    render("method.html.j2", root / "method.html", title="Method", significance=f"{SIGNIFICANCE:.1%}")
    _write_runs(root, studies)
    bench.write_page(root)
    return root / "index.html"


def _told(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("paper", "title", "byline", "preset", "verdicts", "state", "detail")}


def _studies(root: Path, reports: Sequence[Mapping[str, Any]]) -> Iterator[Results]:
    for report in reports:
        try:
            yield papers.read(report["paper"], report["preset"], None, root, needs_weights=False)
        except UserError:  # a paper or preset that this version no longer has, a damaged run: its report tells
            continue


# --- tables -------------------------------------------------------------------------------------------------------


def _write_tables(root: Path, studies: Sequence[Results]) -> None:
    found = {
        "quality": summary.quality_tables(studies),
        "likelihoods": summary.likelihood_tables(studies),
        "parzen": summary.parzen_tables(studies),
    }
    words = {
        "quality": (
            "Scores of samples",
            "FID, IS, KID, precision and recall of every generator. For FID and KID lower is better.",
        ),
        "likelihoods": (
            "Likelihoods",
            "Nats per image, higher is better. Lower bounds lie below log p(x), upper bounds above it; on simulated"
            " images, which each model drew itself, the two enclose it.",
        ),
        "parzen": (
            "Parzen windows",
            "Nats per image, as in table 1 of Goodfellow et al. 2014. No likelihood of the model: on digits, k-means"
            " centres beat real images.",
        ),
    }  # fmt: skip
    parts = [
        {"slug": key, "title": words[key][0], "words": words[key][1], "tables": [_table(table) for table in tables]}
        for key, tables in found.items()
    ]
    tables = [table for each in found.values() for table in each]
    folder = root / "tables"
    records = [record for table in tables for record in summary.records(table)]
    write_atomically(folder / "all.json", readable_json(records))
    for table in tables:
        frame = summary.frame(table)
        write_atomically(folder / f"{table.slug}.csv", frame.to_csv(index=False, lineterminator="\n"))
        write_atomically(folder / f"{table.slug}.tex", summary.latex(table))
    _drop_others(folder, {f"{t.slug}.{end}" for t in tables for end in ("csv", "tex")} | {"all.json"})
    files = [{"href": "tables/all.json", "text": "JSON"}]
    render("tables.html.j2", root / "tables.html", title="Scores across papers", parts=parts, files=files)


def _table(table: summary.Table) -> dict[str, Any]:
    rows = []
    for row in table.rows:
        cells = [_cell(row.cells[column]) if column in row.cells else None for column in table.columns]
        rows.append(
            {
                "name": summary.row_name(row),
                "paper": row.paper,
                "sort": row.sort,
                "cells": cells,
                "n": summary.row_n(row),
            }
        )
    return {
        "slug": table.slug,
        "caption": summary.caption(table),
        "protocol": [(key, value) for key, value in sorted(table.protocol.items()) if value not in ({}, None)],
        "head": ["model", "paper", "row", *table.columns, "n"],
        "rows": rows,
        "files": [{"href": f"tables/{table.slug}.{end}", "text": text} for end, text in _FORMATS],
    }  # fmt: skip


def _cell(cell: summary.Cell) -> dict[str, Any]:
    told = "; ".join(
        f"{key}: {value}" for key, value in sorted(cell.protocol.items()) if key in summary.EFFORT | summary.METRIC
    )
    return {
        "text": summary.cell_text(cell),
        "sortable": repr(cell.reading.mean),
        "told": told or "no settings of its own",
        "runs": [{"seed": seed, "href": f"runs/{paper}/{fingerprint}.html"} for seed, paper, fingerprint in cell.runs],
    }


# --- claims and figures -------------------------------------------------------------------------------------------


def _write_claims(root: Path, studies: Sequence[Results]) -> None:
    rows = []
    for study in studies:
        claims = {claim["id"]: claim for claim in study.paper.document["claims"]}
        for verdict in study.verdicts():
            claim = claims[verdict.claim]
            rows.append(
                {
                    **verdict._asdict(),
                    "measured": with_minus(verdict.measured),
                    "badge": badge(verdict.verdict),
                    "statement": claim["statement"],
                    "where": claim["where"],
                    "href": f"{study.preset}/{study.paper.key}.html#table-verdicts",
                }
            )
    judged = VERDICTS.index("not comparable")
    rows.sort(key=lambda row: VERDICTS.index(row["verdict"]) >= judged)  # what was judged comes first
    plain = [{key: row[key] for key in (*Verdict._fields, "statement", "where")} for row in rows]
    write_atomically(root / "tables" / "claims.json", readable_json(plain))
    files = [{"href": "tables/claims.json", "text": "JSON"}]
    choices = [
        ("paper", sorted({row["paper"] for row in rows})),
        ("preset", sorted({row["preset"] for row in rows}, key=lambda preset: ORDER.get(preset, 3))),
        ("verdict", VERDICTS),
        ("kind", KINDS),
    ]
    render("claims.html.j2", root / "claims.html", title="Claims", rows=rows, choices=choices, files=files)


def _write_figures(root: Path) -> None:
    rows = []
    for index in sorted(root.glob("*/figures/exhibits.json"), key=lambda p: ORDER.get(p.parts[-3], 3)):
        preset = index.parts[-3]
        for exhibit in read_exhibits(index.parent):
            paper, _, slug = exhibit["identifier"].partition("/")
            if not (root / preset / f"{paper}.html").exists():
                continue
            files = [{"ending": n.rpartition(".")[2], "href": f"{preset}/figures/{n}"} for n in exhibit["files"]]
            rows.append(
                {**exhibit, "paper": paper, "preset": preset, "files": files, "href": f"{preset}/{paper}.html#{slug}"}
            )
    choices = [
        ("paper", sorted({row["paper"] for row in rows})),
        ("preset", sorted({row["preset"] for row in rows}, key=lambda preset: ORDER.get(preset, 3))),
        ("kind", ("figure", "table")),
    ]
    render("figures.html.j2", root / "figures.html", title="Figures and tables to cite", rows=rows, choices=choices)


# --- runs ---------------------------------------------------------------------------------------------------------


def _write_runs(root: Path, studies: Sequence[Results]) -> None:
    uses: dict[Path, list[Results]] = {}
    outcomes: dict[Path, Finished | Failed] = {}
    for study in studies:
        for _, outcome in study.outcomes:
            if outcome is not None:
                outcomes[outcome.folder] = outcome
                uses.setdefault(outcome.folder, []).append(study)
    for folder, outcome in outcomes.items():
        target = folder.with_name(f"{folder.name}.html")
        render("run.html.j2", target, title=_title(outcome), up="../../", **_run(outcome, uses[folder]))
    for page in root.glob("runs/*/*.html"):
        if page.with_suffix("") not in outcomes:
            page.unlink()


def _title(outcome: Finished | Failed) -> str:
    return f"{outcome.run.paper} {outcome.run.experiment}, seed {outcome.run.seed}"


def _run(outcome: Finished | Failed, uses: Sequence[Results]) -> dict[str, Any]:
    run, folder = outcome.run, outcome.folder
    provenance = read_json(folder / "run.json")
    lines = (folder / SUMS).read_text().splitlines()
    digests = [(name, digest) for digest, name in (line.split("  ", 1) for line in lines)]
    settings = config_table(run.config).itertuples(index=False, name=None)
    files = [{"text": name, "href": f"{folder.name}/{name}"} for name, _ in digests if (folder / name).exists()]
    values: dict[str, Any] = {
        "uses": [{"text": f"{u.paper.key}, {u.preset}", "href": f"../../{u.preset}/{u.paper.key}.html"} for u in uses],
        "files": files,
        "digests": digests,
        "settings": list(settings),
        "provenance": list(_flat(provenance, skip=("config",))),
        "page": {"subtitle": f"fingerprint {run.fingerprint}"},
        "sample": _sample(folder / "samples.png", _title(outcome)),
        **_curves(folder / "history.csv"),
    }
    if isinstance(outcome, Failed):
        return {**values, "reason": f"{outcome.reason} (step {outcome.step:,})"}
    protocols = [score.protocol for score in outcome.scores.values()]
    common = (
        {k: v for k, v in protocols[0].items() if all(k in p and p[k] == v for p in protocols)} if protocols else {}
    )
    scores = [_score(name, score, common) for name, score in sorted(outcome.scores.items())]
    return {**values, "scores": scores, "common": _protocol_text(common)}


def _protocol_text(protocol: Mapping[str, Any]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in sorted(protocol.items()))


def _score(name: str, score: Score, common: Mapping[str, Any]) -> dict[str, Any]:
    """Five significant digits: more would claim what no seed agrees on; results.json has them all."""
    protocol = _protocol_text({key: value for key, value in score.protocol.items() if key not in common})
    return {
        "name": name,
        "value": f"{score.value:.5g}".replace("-", "−"),
        "sortable": repr(score.value) if math.isfinite(score.value) else "",
        "stderr": "–" if math.isnan(score.stderr) else f"{score.stderr:.2g}",
        "unit": score.unit,
        "n": score.n,
        "count": f"{score.n:,}",
        "protocol": protocol,
    }


def _flat(record: Mapping[str, Any], prefix: str = "", skip: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    for key, value in sorted(record.items()):
        if key in skip:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}".replace("_", " "), "–" if value is None else str(value)


def _sample(path: Path, title: str) -> dict[str, Any] | None:
    if not path.exists() or path.stat().st_size > MOST_SAMPLE_BYTES:
        return None
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    return {
        "uri": f"data:image/png;base64,{base64.b64encode(content).decode()}",
        "alt": f"Samples of {title}, the first ones, not selected.",
        "width": width,
        "height": height,
    }


def _curves(path: Path) -> dict[str, Any]:
    """Columns of history.csv as small curves over its first column, at most MOST_CURVES."""
    with path.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    if len(rows) < 2:
        return {}
    over, *names = rows[0]
    curves = [curve for name in names if (curve := _curve([r[over] for r in rows], [r[name] for r in rows], name))]
    return {"curves": curves[:MOST_CURVES], "over": over.replace("_", " "), "left_out": len(curves[MOST_CURVES:])}


def _curve(xs: Sequence[float], ys: Sequence[float], name: str) -> dict[str, Any] | None:
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    if len(points) < 2:
        return None
    (left, right), (low, high) = ((min(v), max(v)) for v in zip(*points, strict=True))
    wide, tall = (right - left) or 1.0, (high - low) or 1.0
    drawn = (f"{5 + 230 * (x - left) / wide:.1f},{85 - 80 * (y - low) / tall:.1f}" for x, y in points)
    texts = {
        key: _short(value)
        for key, value in (("first", points[0][1]), ("last", points[-1][1]), ("low", low), ("high", high))
    }
    label = re.sub(r"_+", " ", name)
    return {
        "name": label,
        "points": " ".join(drawn),
        "alt": f"Curve of {label} from {texts['first']} to {texts['last']}",
        **texts,
    }


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _drop_others(folder: Path, kept: set[str]) -> None:
    for path in folder.glob("*"):
        if path.name not in kept | {"claims.json"}:
            path.unlink()
