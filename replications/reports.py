"""From finished runs to pages: execute a paper's notebook strictly, build its HTML, keep the index; and publish it."""

import ast
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lib.claims import Verdict, counts
from lib.errors import UserError
from lib.execution.runs import Failed, Finished
from lib.files import write_atomically
from lib.reporting.exhibits import read_exhibits, withhold
from lib.results import readable_json
from replications import papers
from replications.papers import PUBLISHED, Paper, Results

if TYPE_CHECKING:
    from lib.reporting.notebooks import Execution

REPORT_TIMEOUT_S = 600.0  # a notebook reads finished runs: seconds; ten minutes mean it hangs
SMOKE_BANNER = "Smoke run: numbers mean nothing. It only shows that every part works."


class Built(NamedTuple):
    """A report that was built. reason: one sentence if the notebook failed, else empty."""

    page: Path
    reason: str


def build(
    key: str, preset: str, seeds: int, root: Path, device: str, extra: Mapping[str, Any], timeout_s: float | None = None
) -> Built:
    """Execute notebooks/<key>.ipynb on the runs below `root` and write root/<preset>/<key>.html and .ipynb beside it.

    A notebook that fails leaves a partial page that names the cell. Verdicts go to <key>.verdicts.json.
    """
    from lib.reporting.notebooks import execute_notebook

    paper, folder = papers.load(key), root / preset
    executed, page = folder / f"{key}.ipynb", folder / f"{key}.html"
    parameters = {"preset": preset, "seeds": seeds, "run_dir": str(root.resolve()), "device": device, **extra}
    execution = execute_notebook(paper.notebook, executed, parameters, timeout_s=timeout_s or REPORT_TIMEOUT_S)
    _write_page(paper, preset, executed, page, None if execution.ok else execution)
    results = papers.read(key, preset, parameters["seeds"], root)
    write_atomically(folder / f"{key}.verdicts.json", verdicts_json(results.verdicts()))
    write_atomically(folder / f"{key}.report.json", readable_json(_summary(results, execution.ok)))
    where = f"cell {execution.cell}: " if execution.cell else ""
    return Built(page, "" if execution.ok else f"{key}: {where}{execution.reason}")


def _write_page(paper: Paper, preset: str, executed: Path, page: Path, failed: "Execution | None" = None) -> None:
    from lib.reporting.page import notebook_page

    notebook_page(
        executed,
        page,
        title=paper.document["title"],
        subtitle=f"{paper.byline} · arXiv {paper.document['arxiv']} · preset {preset}",
        banner=SMOKE_BANNER if preset == "smoke" else None,
        failed=failed,
    )


def declared_values(key: str, texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE texts as values of the types that the notebook declares. Raises UserError for a misspelt name."""
    from lib.reporting.notebooks import check_parameters, declared_parameters

    notebook = papers.load(key).notebook
    declared, values = declared_parameters(notebook), {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--parameter wants NAME=VALUE, not {text!r}.")
        values[name] = value if declared.get(name, (str,))[0] is str else _literal(value)
    check_parameters(notebook, values)
    return values


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def verdicts_json(verdicts: Sequence[Verdict]) -> str:
    return json.dumps([verdict._asdict() for verdict in verdicts], indent=2, ensure_ascii=False) + "\n"


def read_verdicts(path: Path) -> list[Verdict]:
    return [Verdict(**record) for record in json.loads(path.read_text())] if path.exists() else []


def _summary(results: Results, ok: bool) -> dict[str, Any]:
    """What the index says of a report, so that the index is made without reading any run."""
    finished = results.finished()
    devices = sorted({o.record["provenance"]["device"] for o in finished})
    hours = sum(o.provenance["wall_seconds"] for o in finished) / 3600
    diverged, missing = len(results.failed()), sum(outcome is None for _, outcome in results.outcomes)
    detail = (
        f"{len(finished)} runs on {' and '.join(devices) or 'no device'}, {hours * 60:.1f} minutes of compute in all"
    )
    return {
        "paper": results.paper.key,
        "title": results.paper.document["title"],
        "byline": results.paper.byline,
        "preset": results.preset,
        "verdicts": counts(results.verdicts()),
        "state": "failed" if not ok else "numbers mean nothing" if results.preset == "smoke" else "ok",
        "detail": detail + (f"; {diverged} diverged" if diverged else "") + (f"; {missing} not run" if missing else ""),
    }


def write_index(root: Path) -> Path:
    """root/index.html, leading to every report below `root`."""
    from lib.reporting.page import IndexEntry, index_page

    order = {"paper": 0, "laptop": 1, "smoke": 2}
    entries = []
    for path in sorted(root.glob("*/*.report.json"), key=lambda p: (order.get(p.parent.name, 3), p.name)):
        summary = json.loads(path.read_text())
        entries.append(IndexEntry(href=f"{path.parent.name}/{summary['paper']}.html", **summary))
    index_page(root / "index.html", entries)
    return root / "index.html"


def publish(
    key: str, preset: str, root: Path, *, weights: bool, partial: bool = False, target: Path = PUBLISHED
) -> list[Path]:
    """Promote a report, its figures and its finished runs from `root` to `target`. Returns the files written.

    Figures that show images of a data set are left out, in the pages too. Weights stay behind unless asked for: their
    digest is kept in SHA256SUMS, and the run makes them again bit for bit.
    Raises UserError if the report is missing, failed, or, unless `partial`, not of all planned runs.
    """
    source = root / preset
    summary_path = source / f"{key}.report.json"
    if not summary_path.exists() or not (source / f"{key}.html").exists():
        raise UserError(
            f"There is no {preset} report of {key} in {root}: `regen report {key} --preset {preset}` first."
        )
    if json.loads(summary_path.read_text())["state"] == "failed":
        raise UserError(f"The {preset} report of {key} failed and is not published: mend it and report again.")
    results = papers.read(key, preset, None, root)
    missing = [run.name for run, outcome in results.outcomes if outcome is None]
    if missing and not partial:
        raise UserError(
            f"{len(missing)} runs of {key} {preset} are not computed (the first: {missing[0]}): `regen run` computes"
            " them; with --partial what is there is published."
        )
    figures = source / "figures"
    withheld = [e for e in read_exhibits(figures) if e["shows_data"] and e["identifier"].startswith(f"{key}/")]
    executed = _without_data(source / f"{key}.ipynb", target / preset / f"{key}.ipynb", withheld)
    page = executed.with_suffix(".html")
    _write_page(papers.load(key), preset, executed, page)
    written = [executed, page]
    written += [
        _copy(source / f"{key}.{end}", target / preset / f"{key}.{end}") for end in ("verdicts.json", "report.json")
    ]
    kept_back = {figures / name for exhibit in withheld for name in exhibit["files"]}
    for path in sorted(set((figures / key).iterdir()) - kept_back):
        written.append(_copy(path, target / preset / path.relative_to(source)))
    written.append(_merge_exhibits(figures / "exhibits.json", target / preset / "figures" / "exhibits.json", key))
    for _, outcome in results.outcomes:
        if isinstance(outcome, Finished | Failed):
            names = sorted(path for path in outcome.folder.iterdir() if weights or path.suffix != ".safetensors")
            written += [_copy(path, target / path.relative_to(root)) for path in names]
    return [*written, write_index(target)]


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def _without_data(source: Path, target: Path, withheld: Sequence[Mapping[str, Any]]) -> Path:
    """Copy an executed notebook with the pictures of some figures left out."""
    notebook = json.loads(source.read_text())
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        if "text/html" in output.get("data", {}):
            markup = "".join(output["data"]["text/html"])
            for exhibit in withheld:
                markup = withhold(markup, exhibit["identifier"])
            output["data"]["text/html"] = markup.splitlines(keepends=True)
    write_atomically(target, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return target


def _merge_exhibits(source: Path, target: Path, key: str) -> Path:
    """The paper's entries of `source` in place of its entries in `target`."""
    mine = [e for e in read_exhibits(source.parent) if e["identifier"].startswith(f"{key}/") and not e["shows_data"]]
    kept = [e for e in read_exhibits(target.parent) if not e["identifier"].startswith(f"{key}/")]
    exhibits = sorted([*kept, *mine], key=lambda exhibit: exhibit["identifier"])
    write_atomically(
        target, json.dumps({"schema": 1, "exhibits": exhibits}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    )
    return target
