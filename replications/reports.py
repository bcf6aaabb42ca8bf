"""From finished runs to pages: execute a paper's notebook strictly, build its HTML, keep what it was made from."""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lib.claims import Verdict, counts
from lib.errors import UserError
from lib.execution.runs import SUMS
from lib.files import read_json, sha256_of, shown, write_atomically
from lib.reporting.citation import bibtex, protocol_text, text_citation
from lib.reporting.exhibits import complete, read_exhibits
from lib.results import readable_json
from replications import papers
from replications.papers import Paper, Results

if TYPE_CHECKING:
    from lib.reporting.notebooks import Execution
    from lib.reporting.page import Citation

REPORT_TIMEOUT_S = 600.0  # a notebook reads finished runs: seconds; ten minutes mean it hangs
SMOKE_BANNER = "Smoke run: numbers mean nothing. It only shows that every part works."


class Built(NamedTuple):
    """A report that was built. reason: one sentence if the notebook failed, else empty."""

    page: Path
    reason: str


SUMMARY = "summary"  # the notebook across papers


def require_packages() -> None:
    """UserError where the packages that only reports need are not installed; runs do without them."""
    missing = [name for name in ("papermill", "nbformat", "nbconvert", "psutil") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"Reports need {', '.join(missing)}, which this environment lacks: `pip install 'regen[reports]'`."
            " `regen run` computes without."
        )


def build(
    key: str, preset: str, seeds: int, root: Path, device: str, extra: Mapping[str, Any], timeout_s: float | None = None
) -> Built:
    """Execute notebooks/<key>.ipynb on the runs below `root` and write root/<preset>/<key>.html and .ipynb beside it.

    A notebook that fails leaves a partial page that names the cell. Verdicts go to <key>.verdicts.json. Where nothing
    that the page is made from changed since it was made, it stays.
    """
    paper, folder = papers.load(key), root / preset
    parameters = {"preset": preset, "seeds": seeds, "run_dir": str(root.resolve()), "device": device, **extra}
    inputs = _inputs(paper.notebook, parameters, root)
    if _stands(key, folder, inputs):
        return Built(folder / f"{key}.html", "")
    execution = _execute(paper.notebook, folder, parameters, timeout_s)
    results = papers.read(key, preset, parameters["seeds"], root, needs_weights=device != "none")
    _complete(key, [results], root, execution.ok)
    write_page(paper, preset, folder, None if execution.ok else execution)
    write_atomically(folder / f"{key}.verdicts.json", verdicts_json(results.verdicts()))
    write_atomically(folder / f"{key}.report.json", readable_json(_summary(results, execution.ok)))
    # The mark is of what was there before: a run that another command ended meanwhile may not be in the page.
    _mark(key, folder, inputs if execution.ok else "")
    return Built(folder / f"{key}.html", _reason(key, execution))


def build_all(
    keys: Sequence[str], preset: str, seeds: int, root: Path, device: str,
    extra: Mapping[str, Mapping[str, Any]], timeout_s: float | None, at_once: int,
) -> Iterator[tuple[str, Built]]:  # fmt: skip
    """`build` for several papers, `at_once` notebooks side by side; yields them in the order of `keys`."""
    from lib.reporting.notebooks import kill_executions

    with ThreadPoolExecutor(at_once) as pool:  # threads, for each only waits for the process of its notebook
        built = pool.map(lambda key: build(key, preset, seeds, root, device, extra.get(key, {}), timeout_s), keys)
        try:
            yield from zip(keys, built, strict=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            kill_executions()  # else the command would wait for notebooks that nobody wants any more
            raise


def build_summary(preset: str, seeds: int, root: Path, timeout_s: float | None = None) -> Built:
    """Execute notebooks/summary.ipynb, which computes nothing, on what is below `root`; write its page."""
    from replications import summary

    parameters = {"preset": preset, "seeds": seeds, "run_dir": str(root.resolve()), "device": "none"}
    notebook, folder = papers.REPOSITORY / "notebooks" / f"{SUMMARY}.ipynb", root / preset
    studies = summary.read_all(preset, seeds, root)
    inputs = _inputs(notebook, parameters, root)
    if _stands(SUMMARY, folder, inputs):
        return Built(folder / f"{SUMMARY}.html", "")
    execution = _execute(notebook, folder, parameters, timeout_s)
    _complete(SUMMARY, studies, root, execution.ok)
    write_page(None, preset, folder, None if execution.ok else execution)
    _mark(SUMMARY, folder, inputs if execution.ok else "")
    return Built(folder / f"{SUMMARY}.html", _reason(SUMMARY, execution))


def _inputs(notebook: Path, parameters: Mapping[str, Any], root: Path) -> str:
    """The SHA-256 of everything that a page may be made from: notebook, parameters, source, packages, all runs.

    All, because a page may put another paper's runs beside its own.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode() + notebook.read_bytes())
    for folder in ("lib", "replications"):
        for path in sorted((papers.REPOSITORY / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".j2", ".css", ".js", ".json", ".safetensors"):
                digest.update(f"{path.relative_to(papers.REPOSITORY)} {sha256_of(path)}\n".encode())
    digest.update("".join(sorted(f"{d.name} {d.version}\n" for d in distributions())).encode())
    for path in sorted(root.glob(f"runs/*/*/{SUMS}")):
        digest.update(f"{path.parent.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _stands(key: str, folder: Path, inputs: str) -> bool:
    """Whether the page was made from these inputs, and it and its figures are whole."""
    mark = folder / f".{key}.inputs"
    files = {folder / "figures" / name: digest for exhibit in read_exhibits(folder / "figures")
             if exhibit["identifier"].startswith(f"{key}/") for name, digest in exhibit["files"].items()}  # fmt: skip
    pages = {name: folder / f"{key}.{name}" for name in ("html", "ipynb")}
    made = {"inputs": inputs} | {name: sha256_of(path) for name, path in pages.items() if path.is_file()}
    if not mark.is_file() or mark.read_text() != json.dumps(made):
        return False
    return all(path.is_file() and sha256_of(path) == digest for path, digest in files.items())


def require_standing(key: str, preset: str, root: Path) -> None:
    """UserError unless the page below `root` was made, by this source, of all seeds of the runs that are there now."""
    paper, folder = papers.load(key), root / preset
    parameters = {"preset": preset, "seeds": papers.default_seeds(preset), "run_dir": str(root.resolve())}
    devices = dict.fromkeys([papers.resolve_device("auto"), "cpu", "none"])
    if not any(_stands(key, folder, _inputs(paper.notebook, parameters | {"device": d}, root)) for d in devices):
        raise UserError(
            f"The {preset} report of {key} in {shown(root)} was made of other runs, seeds or parameters, or by other "
            f"code, than are there now: `regen report {key} --preset {preset}` first."
        )


def _mark(key: str, folder: Path, inputs: str) -> None:
    """Write down what a page was made from; nothing for one that failed, which is to be tried again."""
    made = {name: sha256_of(folder / f"{key}.{name}") for name in ("html", "ipynb")}
    if inputs:
        write_atomically(folder / f".{key}.inputs", json.dumps({"inputs": inputs, **made}))
    else:
        (folder / f".{key}.inputs").unlink(missing_ok=True)


def _execute(notebook: Path, folder: Path, parameters: Mapping[str, Any], timeout_s: float | None) -> "Execution":
    from lib.reporting.notebooks import execute_notebook

    return execute_notebook(notebook, folder / notebook.name, parameters, timeout_s=timeout_s or REPORT_TIMEOUT_S)


def _reason(key: str, execution: "Execution") -> str:
    where = f"cell {execution.cell}: " if execution.cell else ""
    return "" if execution.ok else f"{key}: {where}{execution.reason}"


def _complete(key: str, studies: Sequence[Results], root: Path, ok: bool) -> None:
    """Enter in the index of exhibits what each was made from. A notebook that failed keeps what it had before."""
    if not ok or not studies:
        return
    folder = root / studies[0].preset
    complete(folder / "figures", key, _markup(folder / f"{key}.ipynb"), made_from(studies))


def _markup(notebook: Path) -> str:
    outputs = (o for cell in json.loads(notebook.read_text())["cells"] for o in cell.get("outputs", []))
    return "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)


def made_from(studies: Sequence[Results]) -> dict[str, Any]:
    """What every exhibit of a page rests on: runs and their digest, data with digests, days, devices, commits."""
    finished = [outcome for study in studies for outcome in study.finished()]
    runs = sorted({f"{o.run.fingerprint} {sha256_of(o.folder / 'results.json')}" for o in finished})
    return {
        "preset": studies[0].preset,
        "seeds": sorted({outcome.run.seed for outcome in finished}),
        "runs": len(runs),
        "runs_sha256": hashlib.sha256("\n".join(runs).encode()).hexdigest(),
        "data": {name: digest for outcome in finished for name, digest in sorted(outcome.provenance["data"].items())},
        "devices": sorted({outcome.record["provenance"]["device"] for outcome in finished}),
        "commits": sorted({outcome.provenance["commit"] for outcome in finished}),
        "finished_on": papers.finished_on(finished),
    }


def write_page(paper: Paper | None, preset: str, folder: Path, failed: "Execution | None" = None) -> None:
    """The page of an executed notebook in `folder`; `paper` None for the summary."""
    from lib.reporting.page import notebook_page

    key = paper.key if paper else SUMMARY
    notebook_page(
        folder / f"{key}.ipynb",
        folder / f"{key}.html",
        title=paper.document["title"] if paper else "The papers side by side",
        subtitle=f"{paper.byline} · arXiv {paper.document['arxiv']} · preset {preset}" if paper else f"preset {preset}",
        banner=SMOKE_BANNER if preset == "smoke" else None,
        failed=failed,
        citations=[_citation(exhibit, paper, preset) for exhibit in read_exhibits(folder / "figures")
                   if exhibit["identifier"].startswith(f"{key}/")],
    )  # fmt: skip


def _citation(exhibit: Mapping[str, Any], paper: Paper | None, preset: str) -> "Citation":
    from lib.reporting.page import Citation

    document = paper.document if paper else None
    files = {name.rpartition(".")[2]: f"figures/{name}" for name in exhibit["files"]}
    text = text_citation(exhibit, document, preset)
    return Citation(exhibit["identifier"], text, bibtex(exhibit, document, preset), protocol_text(exhibit), files)


def declared_values(key: str, texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE texts as values of the types that the notebook declares. Raises UserError for a misspelt name, and for
    `run_dir`: the page and what stands beside it would be of two folders.
    """
    from lib.reporting.notebooks import check_parameters, declared_parameters

    notebook = papers.load(key).notebook
    declared, values = declared_parameters(notebook), {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--parameter wants NAME=VALUE, not {text!r}.")
        if name == "run_dir":
            raise UserError("Where the runs are is said by --out, not by --parameter run_dir.")
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
    return [Verdict(**record) for record in read_json(path)] if path.exists() else []


def _summary(results: Results, ok: bool) -> dict[str, Any]:
    """What the index says of a report, so that the index is made without reading any run."""
    finished = results.finished()
    devices = sorted({o.record["provenance"]["device"] for o in finished})
    hours = sum(o.provenance["wall_seconds"] for o in finished) / 3600
    diverged, missing = len(results.failed()), sum(outcome is None for _, outcome in results.outcomes)
    detail = (
        f"{len(finished)} runs on {' and '.join(devices) or 'no device'}, {hours * 60:.1f} minutes of compute in all"
    )
    day = papers.finished_on(finished)
    return {
        "paper": results.paper.key,
        "title": results.paper.document["title"],
        "byline": results.paper.byline,
        "preset": results.preset,
        "verdicts": counts(results.verdicts()),
        "state": "failed" if not ok else "numbers mean nothing" if results.preset == "smoke" else "ok",
        "detail": (f"{day} · " if day else "")
        + detail
        + (f"; {diverged} diverged" if diverged else "")
        + (f"; {missing} not run" if missing else ""),
    }
