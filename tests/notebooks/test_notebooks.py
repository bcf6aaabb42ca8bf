"""Every notebook that is found: its form, its smoke report, the same bytes twice, and a refused parameter."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from lib.claims import load_claims
from lib.execution.execute import Options, execute
from lib.execution.runs import Store
from lib.execution.workspace import Diverged
from lib.reporting.notebooks import declared_parameters, lint_notebook
from replications import papers
from replications.reports import SUMMARY, build_summary
from replications.site import write_site

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
PAPERS = [path for path in NOTEBOOKS if path.stem != SUMMARY]
QUICKEST = "cyclegan2017"  # of these notebooks
ALLOWED = {"lib", "replications", "inspect", "pathlib", "pandas", "IPython", "torch", "torchvision",
           "torchmetrics", "seaborn", "numpy", "matplotlib"}  # fmt: skip


@pytest.fixture(scope="module")
def reports(smoke_reports):
    """The smoke reports of all papers, and the summary of them."""
    assert build_summary("smoke", 1, smoke_reports).reason == ""
    write_site(smoke_reports)
    return smoke_reports


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(notebook):
    assert lint_notebook(notebook, allowed_imports=ALLOWED) == []
    assert list(declared_parameters(notebook)) == ["preset", "seeds", "run_dir", "device"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_types_no_verdict(notebook):
    """Prose names no verdict: verdicts are computed."""
    prose = " ".join(
        "".join(c["source"]) for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "markdown"
    )
    assert not re.search(r"\b(is|was|were|are) (not )?replicated\b(?! here)", prose.replace("What was replicated", ""))


@pytest.mark.parametrize("notebook", PAPERS, ids=lambda path: path.stem)
def test_smoke_report_has_every_verdict_and_says_that_numbers_mean_nothing(notebook, reports):
    page = (reports / "smoke" / f"{notebook.stem}.html").read_text()
    assert "numbers mean nothing" in page
    document = load_claims(REPOSITORY / "replications" / notebook.stem / "claims.yaml")
    verdicts = json.loads((reports / "smoke" / f"{notebook.stem}.verdicts.json").read_text())
    assert [v["claim"] for v in verdicts] == [claim["id"] for claim in document["claims"]]
    table = page[page.index('id="table-verdicts"') :]
    for verdict in verdicts:
        row = table[table.index(f">{verdict['claim']}<") :].split("</tr>")[0]
        assert verdict["verdict"] in row
    for departure in document["deviations"] + document["notes"]:
        assert departure["id"] in page
    assert len(page.encode()) < 3_000_000


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_file_of_a_figure_has_the_digest_that_is_listed(notebook, reports):
    """So a citation's digest can be checked."""
    folder = reports / "smoke" / "figures"
    exhibits = json.loads((folder / "exhibits.json").read_text())["exhibits"]
    files = {
        name: digest
        for e in exhibits
        if e["identifier"].startswith(notebook.stem)
        for name, digest in e["files"].items()
    }
    assert files
    for name, digest in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_the_summary_puts_papers_side_by_side(reports):
    page = (reports / "smoke" / f"{SUMMARY}.html").read_text()
    assert "numbers mean nothing" in page
    rows = list(csv.DictReader((reports / "smoke/figures/summary/table-verdicts.csv").open()))
    for row in rows:
        verdicts = json.loads((reports / "smoke" / f"{row['paper']}.verdicts.json").read_text())
        assert int(row["claims"]) == len(verdicts)
        assert int(row["not comparable"]) == sum(v["verdict"] == "not comparable" for v in verdicts)
    assert [row["paper"] for row in rows] == [path.stem for path in PAPERS]
    table = reports / "smoke/figures/summary/table-quality-smoke-mnist-5k-100-generated.csv"
    quality = list(csv.DictReader(table.open()))
    assert {"gan2014", "wgan2017"} <= {row["paper"] for row in quality}  # one table, as they measure alike


def test_every_number_of_the_bounds_table_is_in_a_results_json(reports):
    """Each cell of the VAE's bounds, recomputed from the runs' files alone."""
    rows = list(csv.DictReader((reports / "smoke/figures/vae2013/table-bounds.csv").open()))
    records = [json.loads(path.read_text()) for path in (reports / "runs" / "vae2013").glob("*/results.json")]
    columns = {
        "bound, train": "elbo_train",
        "bound, test": "elbo_test",
        "L_3 bound, test": "iwae_test",
        "KL term, test": "kl_test",
    }
    models = [row for row in rows if row["model"].startswith("AEVB")]
    assert len(models) == 2
    for row in models:
        experiment = "aevb-nz" + row["model"].rpartition(" ")[2]
        scores = next(r["scores"] for r in records if r["experiment"] == experiment)
        for column, score in columns.items():
            assert row[column] == f"{scores[score]['value']:.1f}".replace("-", "−")


def test_a_diverged_run_is_shown_as_failed(smoke, regen, tmp_path):
    """One seed of two diverges: the page says so, the other seed's numbers stand, the command exits 1."""
    shutil.copytree(smoke / "runs" / "vae2013", tmp_path / "runs" / "vae2013")  # the first seed's
    store, options = Store(tmp_path), Options()
    runs = papers.plan("vae2013", "smoke", 2)
    unlucky = next(run for run in runs if run.experiment == "aevb-nz20" and run.seed == 1)

    def diverge(run, workspace):
        raise Diverged("The bound on the train images became nan at step 7: the run diverged and was stopped.", 7, [])

    assert execute(unlucky, diverge, store, options).ending == "failed"
    done = regen("report", "vae2013", "--preset", "smoke", "--seeds", 2, "--out", tmp_path)
    assert done.returncode == 1
    assert "diverged and was stopped" in done.stderr
    page = (tmp_path / "smoke" / "vae2013.html").read_text()
    table = page[page.index('id="table-runs"') :].split("</table>")[0]
    assert table.count("FAILED: The bound on the train images became nan at step 7") == 1
    assert table.count(">finished<") == len(runs) - 1
    assert 'id="failed-cell"' not in page  # the notebook itself came to its end


@pytest.mark.parametrize(
    "again", [p.stem if p.stem == QUICKEST else pytest.param(p.stem, marks=pytest.mark.slow) for p in PAPERS]
)
def test_a_second_report_computes_nothing_and_has_the_same_bytes(again, reports, regen):
    kept = [p for p in sorted(reports.rglob("*")) if p.is_file() and ".locks" not in p.parts]
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in kept}
    (reports / "smoke" / f".{again}.inputs").unlink()  # this page is made anew, for all the others stand
    done = regen("report", "--preset", "smoke", "--out", reports)
    assert done.returncode == 0, done.stderr
    assert "already there" in done.stdout
    assert "computed" not in done.stdout
    pages = {reports / "smoke" / f"{notebook.stem}.html" for notebook in PAPERS}
    written = {path for path in pages if path.stat().st_mtime_ns != before[path][1]}
    assert written == {reports / "smoke" / f"{again}.html"}
    for path, (content, mtime) in before.items():
        if path.suffix != ".inputs":
            assert path.read_bytes() == content, path
        if path.parent.parent.parent == reports / "runs":
            assert path.stat().st_mtime_ns == mtime, f"{path} was written again"


def test_index_leads_to_every_report(reports):
    index = (reports / "index.html").read_text()
    for notebook in PAPERS:
        assert f'href="smoke/{notebook.stem}.html"' in index


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        ("sead=1", "no parameter 'sead': did you mean 'seeds'"),
        ("seeds=many", "is int, was given 'many'"),
        ("seeds", "NAME=VALUE"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(parameter, sentence, regen, tmp_path):
    done = regen("report", "vae2013", "--preset", "smoke", "--out", tmp_path, "--parameter", parameter)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not any(tmp_path.iterdir())
