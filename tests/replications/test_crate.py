"""The RO-Crate of a published folder: every run and page in it, with the digests of what lies there."""

import hashlib
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lib.errors import UserError
from lib.reporting.crate import METADATA, metadata
from replications import crate, papers
from replications.papers import PUBLISHED

MAX_BYTES = 3_000_000
PROVENANCE = {
    "algorithm_version": 1, "commit": "unknown", "data": {"mnist-5k": "81" * 32}, "device": "a machine", "threads": 1,
    "python": "3.11.7", "versions": {"torch": "2.14.1"}, "wall_seconds": 8.04,
}  # fmt: skip


def put(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def put_run(root: Path, run: Any, **changes: Any) -> Path:
    folder = root / "runs" / run.paper / run.fingerprint
    config = {"fingerprint": run.fingerprint, "config": {"width": 4}}
    put(folder / "run.json", PROVENANCE | config | {"finished_on": "2026-05-03"} | changes)
    put(folder / "history.csv", "step,loss\n")
    put(folder / "weights.safetensors", "small ones")
    return folder


@pytest.fixture
def published(tmp_path) -> Path:
    """Two runs of vae2013's smoke plan, of which one failed; its page with a figure and a table; and the summary's."""
    finished, failed = papers.plan("vae2013", "smoke")[:2]
    told = {"preset": finished.preset, "experiment": finished.experiment, "seed": finished.seed}
    put(put_run(tmp_path, finished) / "results.json", told)
    put(put_run(tmp_path, failed, finished_on="2026-05-04") / "failure.json", {"reason": "The loss is nan.", "step": 3})
    for name in ("vae2013.html", "vae2013.ipynb", "vae2013.verdicts.json", "summary.html", "summary.ipynb"):
        put(tmp_path / "smoke" / name, name)
    exhibits = [
        {"identifier": f"vae2013/{slug}", "kind": slug.split("-")[0], "caption": f"About {slug}.", "files": files}
        for slug, files in (("figure-2", {"vae2013/figure-2.svg": "", "vae2013/figure-2.csv": ""}),
                            ("table-1", {"vae2013/table-1.csv": ""}), ("figure-9", {"vae2013/figure-9.png": ""}))
    ]  # fmt: skip
    put(tmp_path / "smoke/figures/exhibits.json", {"exhibits": exhibits})
    for name in ("figure-2.svg", "figure-2.csv", "table-1.csv"):  # figure 9 was withheld
        put(tmp_path / "smoke/figures/vae2013" / name, name)
    put(tmp_path / "index.html", "<html>")
    put(tmp_path / "tables/quality.tex", "a table")
    return tmp_path


def graph(root: Path) -> dict[str, dict[str, Any]]:
    return {entity["@id"]: entity for entity in json.loads((root / METADATA).read_text())["@graph"]}


def ids(references: list[dict[str, str]]) -> list[str]:
    return [reference["@id"] for reference in references]


def test_what_is_published_is_described(published):
    finished, failed = papers.plan("vae2013", "smoke")[:2]
    assert crate.write_crate(published) == published / METADATA
    entities = graph(published)
    actions = {i: entity for i, entity in entities.items() if entity["@type"] == "CreateAction"}
    runs = [f"#run-{run.fingerprint}" for run in (finished, failed)]
    assert set(actions) == {*runs, "#page-smoke-vae2013", "#page-smoke-summary"}
    assert actions[runs[0]]["name"] == finished.name
    assert actions[runs[1]]["name"] == failed.name, "from the plan: a failed run has no results to say it"
    assert actions[runs[1]]["error"] == "The loss is nan."
    named = {entities[i]["name"]: entities[i].get("value") for i in ids(actions[runs[0]]["object"])}
    assert {"width": 4, "seed": finished.seed, "algorithm_version": 1}.items() <= named.items()
    assert "5,000 digits of MNIST, 500 a class" in named
    folder = f"runs/vae2013/{finished.fingerprint}"
    files = ("results.json", "history.csv", "weights.safetensors")
    assert ids(actions[runs[0]]["result"]) == [f"{folder}/{name}" for name in files]
    page = actions["#page-smoke-vae2013"]
    assert ids(page["object"]) == [f"{folder}/results.json"] == ids(actions["#page-smoke-summary"]["object"])
    assert ids(page["result"]) == [
        *(f"smoke/vae2013.{end}" for end in ("html", "ipynb", "verdicts.json")),
        *(f"smoke/figures/vae2013/{name}" for name in ("figure-2.csv", "figure-2.svg", "table-1.csv")),
    ]
    assert entities["smoke/figures/vae2013/figure-2.svg"]["description"] == "About figure-2."
    assert {"index.html", "tables/quality.tex"} <= entities.keys()
    assert entities["./"]["datePublished"] == "2026-05-04"
    assert entities["./"]["author"] == {"@id": "#The%20regen%20developers"}
    assert [entities[i]["name"] for i in ids(entities["./"]["citation"])] == [papers.load("vae2013").document["title"]]
    assert_digests(published, entities)


def assert_digests(root: Path, entities: dict[str, dict[str, Any]]) -> None:
    files = [entity for entity in entities.values() if entity["@type"] == "File"]
    assert files
    for entity in files:
        content = (root / entity["@id"]).read_bytes()
        assert entity["sha256"] == hashlib.sha256(content).hexdigest(), entity["@id"]
        assert entity["contentSize"] == str(len(content)), entity["@id"]


def test_a_second_writing_changes_no_byte(published):
    before = crate.write_crate(published).read_bytes()
    assert crate.write_crate(published).read_bytes() == before
    for record in published.rglob("run.json"):  # as in a clone that does not know when
        put(record, {key: value for key, value in json.loads(record.read_text()).items() if key != "finished_on"})
    crate.write_crate(published)
    assert graph(published)["./"]["datePublished"] == "2026-05-04"


@pytest.mark.parametrize(
    ("records", "before", "date"),
    [
        ([{"commit": "unknown", "finished_on": "2026-05-03"}, {"commit": "unknown"}], "", "2026-05-03"),
        ([{"commit": "unknown", "finished_on": "2026-05-03"}], "2026-06-01", "2026-06-01"),
        ([{"commit": "unknown"}], "", "2026-01-02"),
        ([{"commit": "--output=x"}], "", "2026-01-02"),
        ([], "", "2026-01-02"),
    ],
)
def test_the_date_is_the_youngest_run_s_or_the_release_s(records, before, date):
    assert crate._date(records, before, {"date-released": "2026-01-02"}) == date


def test_the_date_of_a_commit():
    git = subprocess.run(["git", "log", "-1", "--format=%H %ct"], cwd=papers.REPOSITORY, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("this is no git checkout")
    commit, seconds = git.stdout.split()
    day = datetime.fromtimestamp(int(seconds), UTC).date().isoformat()
    for form in (commit, f"{commit}+changes"):
        assert crate._date([{"commit": form}, {"commit": form, "finished_on": "2001-01-01"}], "", {}) == day


def test_without_any_date_nothing_is_invented():
    with pytest.raises(UserError, match="No date is known"):
        crate._date([{"commit": "unknown"}], "", {})


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="nothing is published yet")
def test_all_that_is_published_fits(tmp_path):
    """As the folder is now: every run and page, no file lost, read by another program."""
    try:
        text = metadata(crate.gather(PUBLISHED))
    except UserError as error:  # a clone without history, before a crate was published
        pytest.skip(str(error))
    assert len(text.encode()) < MAX_BYTES
    (tmp_path / METADATA).write_text(text)
    assert_digests(PUBLISHED, graph(tmp_path))
    runs, pages = list(PUBLISHED.glob("runs/*/*/run.json")), list(PUBLISHED.glob("*/*.ipynb"))
    assert len(pages) >= len(list(PUBLISHED.glob("*/*.report.json")))
    reader = pytest.importorskip("rocrate.rocrate", reason="ro-crate-py is not installed")
    entities = reader.ROCrate(tmp_path).get_entities()
    actions = [entity for entity in entities if entity.type == "CreateAction"]
    assert len(actions) == len(runs) + len(pages)
    assert all(action["instrument"].type == "SoftwareApplication" for action in actions)


@pytest.mark.skipif(not (PUBLISHED / METADATA).is_file(), reason="no RO-Crate is published yet")
def test_the_published_crate_is_of_what_is_published():
    entities = graph(PUBLISHED)
    assert_digests(PUBLISHED, entities)
    runs = {f"#run-{path.parent.name}" for path in PUBLISHED.glob("runs/*/*/run.json")}
    assert runs == {i for i in entities if i.startswith("#run-")}
