"""The RO-Crate's text: the same every time, and by two other readers a crate of its profile.

The readers are ro-crate-py and rocrate-validator, which holds the profile's rules as SHACL. Both run offline: the
context, which a crate names by its address, is served from ro-crate-py's own copy.
"""

import copy
import importlib.resources
import io
import json
from pathlib import Path
from typing import Any

import pytest

from lib.reporting.crate import METADATA, Article, Crate, DataSet, File, PageAction, RunAction, metadata

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
NADE = Article(
    "The Neural Autoregressive Distribution Estimator", ("Hugo Larochelle", "Iain Murray"), 2011, "1105.00001"
)
DIGITS = DataSet("digits", "d1" * 32, "Digits", "CC BY 4.0", "https://example.org/digits")
VERSIONS = {"torch": "2.14.1", "numpy": "2.4.6", "python": "3.11.7"}


def file(path: str, **fields: Any) -> File:
    return File(path, len(path), f"{len(path):064x}", f"{path.rpartition('/')[2]} of it", **fields)


def run(fingerprint: str, **changes: Any) -> RunAction:
    about = {
        "name": f"nade2011 laptop digits seed {fingerprint[0]}",
        "description": "8.0 s on a machine.",
        "commit": "c0ffee",
        "versions": VERSIONS,
        "parameters": {"lr": 0.001, "layers": [[1, 2], [3]], "clip": None, "top": float("inf"), "kind": "1", "n": 1},
        "data": (DIGITS,),
        "files": (file(f"runs/nade2011/{fingerprint}/results.json"), file(f"runs/nade2011/{fingerprint}/history.csv")),
    }
    return RunAction(fingerprint, **about | changes)


FINISHED = run("0a", finished_on="2026-05-03")
FAILED = run(
    "1b", error="The loss is nan.", files=(file("runs/nade2011/1b/failure.json"),), versions={"torch": "2.11.0"}
)
PAGE = PageAction(
    key="nade2011",
    preset="laptop",
    name="Report nade2011, preset laptop",
    description="Drawn from runs.",
    runs=("1b", "0a", "never published"),
    files=(file("laptop/nade2011.html"), file("laptop/figures/nade2011/figure 1.svg", description="Bits.")),
    about=NADE,
)
CRATE = Crate(
    name="reports",
    description="Replications.",
    keywords=("generative models", "replication"),
    author="The developers",
    software="regen",
    version="0.1.0",
    date_published="2026-05-03",
    runs=(FINISHED, FAILED),
    pages=(PAGE,),
    articles=(NADE,),
    files=(file("index.html"),),
)


@pytest.fixture
def graph() -> dict[str, dict[str, Any]]:
    return {entity["@id"]: entity for entity in json.loads(metadata(CRATE))["@graph"]}


def ids(references: list[dict[str, str]]) -> list[str]:
    return [reference["@id"] for reference in references]


def test_equal_bytes_in_whatever_order(graph):
    turned = FINISHED._replace(versions=dict(reversed(VERSIONS.items())))
    assert metadata(CRATE._replace(runs=(FAILED, turned), pages=(PAGE._replace(runs=("0a", "1b")),))) == metadata(CRATE)
    assert len(graph) == len(json.loads(metadata(CRATE))["@graph"]), "an identifier is described twice"


def test_every_reference_leads_somewhere(graph):
    def leads(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [value["@id"]] if set(value) == {"@id"} else [found for v in value.values() for found in leads(v)]
        return [found for v in value for found in leads(v)] if isinstance(value, list) else []

    missing = {lead for entity in graph.values() for lead in leads(entity)} - graph.keys()
    assert missing == {"https://w3id.org/ro/crate/1.1"}


def test_a_run_names_what_it_took_and_made(graph):
    action = graph["#run-0a"]
    values = [graph[i].get("value", graph[i].get("identifier")) for i in ids(action["object"])]
    assert values == [f"sha256:{'d1' * 32}", 0.001, "[[1, 2], [3]]", "null", "Infinity", "1", 1]
    assert ids(action["result"]) == ["runs/nade2011/0a/results.json", "runs/nade2011/0a/history.csv"]
    assert (action["endTime"], action["actionStatus"]) == ("2026-05-03", "http://schema.org/CompletedActionStatus")
    assert "error" not in action
    instrument = graph[action["instrument"]["@id"]]
    assert (instrument["name"], instrument["softwareVersion"]) == ("regen", "0.1.0, commit c0ffee")
    needs = {(graph[i]["name"], graph[i]["softwareVersion"]) for i in ids(instrument["softwareRequirements"])}
    assert needs == set(VERSIONS.items())


def test_a_failed_run_says_why_and_when_is_left_out_where_unknown(graph):
    action = graph["#run-1b"]
    assert (action["actionStatus"], action["error"]) == ("http://schema.org/FailedActionStatus", "The loss is nan.")
    assert "endTime" not in action
    assert action["instrument"] != graph["#run-0a"]["instrument"], "computed with another torch"


def test_a_page_is_made_from_its_runs_results(graph):
    action = graph["#page-laptop-nade2011"]
    assert ids(action["object"]) == ["runs/nade2011/0a/results.json"]
    assert ids(action["result"]) == ["laptop/nade2011.html", "laptop/figures/nade2011/figure%201.svg"]
    article = graph[action["about"]["@id"]]
    assert (article["@type"], article["datePublished"]) == ("ScholarlyArticle", "2011")
    assert [graph[i]["name"] for i in ids(article["author"])] == list(NADE.authors)


def test_files_are_parts_with_size_digest_and_format(graph):
    drawn = graph["laptop/figures/nade2011/figure%201.svg"]
    assert drawn["encodingFormat"] == "image/svg+xml"
    assert drawn["contentSize"] == str(len("laptop/figures/nade2011/figure 1.svg"))
    assert len(drawn["sha256"]) == 64
    files = {i for i, entity in graph.items() if entity["@type"] == "File"}
    assert files == {i for i in ids(graph["./"]["hasPart"]) if not i.startswith("#")}
    data = [graph[i] for i in ids(graph["./"]["hasPart"]) if graph[i]["@type"] == "Dataset"]
    assert [("whose bytes are not in this crate" in d["description"], d["name"]) for d in data] == [(True, "Digits")]
    assert set(ids(graph["./"]["mentions"])) == {"#run-0a", "#run-1b", "#page-laptop-nade2011"}


# --- other readers -----------------------------------------------------------------------------------------------


def filled(folder: Path) -> Path:
    """A folder with every file that CRATE names, and its metadata."""
    for made in (*CRATE.files, *PAGE.files, *FINISHED.files, *FAILED.files):
        (folder / made.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / made.path).write_text("0")
    (folder / METADATA).write_text(metadata(CRATE))
    return folder


def test_ro_crate_py_reads_it(tmp_path):
    reader = pytest.importorskip("rocrate.rocrate", reason="ro-crate-py is not installed")
    crate = reader.ROCrate(filled(tmp_path))
    actions = [entity for entity in crate.get_entities() if entity.type == "CreateAction"]
    assert len(actions) == len(CRATE.runs) + len(CRATE.pages)
    assert {action["instrument"].type for action in actions} == {"SoftwareApplication"}
    assert crate.root_dataset["datePublished"] == "2026-05-03"
    assert crate.root_dataset["license"]["identifier"] == "MIT"
    assert {entity.id for entity in crate.data_entities} >= {"index.html", "laptop/nade2011.html"}


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """The validator with the context in its cache: a function from a crate's JSON to what it finds wrong."""
    validator = pytest.importorskip("rocrate_validator.services", reason="roc-validator is not installed")
    pytest.importorskip("rocrate", reason="ro-crate-py, whose copy of the context is used, is not installed")
    from requests import Response
    from requests.adapters import BaseAdapter
    from requests_cache import CachedSession
    from rocrate_validator.models import Severity, ValidationSettings
    from urllib3 import HTTPResponse

    class Copy(BaseAdapter):
        def send(self, request, **_):
            body = (importlib.resources.files("rocrate") / "data" / "ro-crate.jsonld").read_bytes()
            answer = Response()
            answer.status_code, answer.url, answer.request = 200, request.url, request
            answer.headers["Content-Type"] = "application/ld+json"
            answer.raw = HTTPResponse(io.BytesIO(body), status=200, preload_content=False)
            return answer

        def close(self):
            pass

    folder = tmp_path_factory.mktemp("crate")
    with CachedSession(str(folder / "cache"), backend="sqlite") as session:
        session.mount("https://", Copy())
        session.get(CONTEXT)
    payload = filled(folder / "payload")

    def wrong(document: dict[str, Any]) -> set[str]:
        settings = ValidationSettings(
            rocrate_uri=".",
            metadata_dict=document,
            package_root=payload,
            profile_identifier="process-run-crate-0.5",
            requirement_severity=Severity.REQUIRED,
            cache_path=folder / "cache",
            offline=True,
        )
        result = validator.validate(settings)
        assert {str(profile.identifier) for profile in result.context.profiles} >= {"ro-crate-1.1"}
        return {issue.message for issue in result.get_issues()}

    return wrong


@pytest.mark.slow
def test_the_profile_s_rules_are_kept(rules):
    """And the validator sees faults, or it would say nothing."""
    sound = json.loads(metadata(CRATE))
    assert rules(sound) == set()
    broken = copy.deepcopy(sound)
    by_id = {entity["@id"]: entity for entity in broken["@graph"]}
    del by_id["#run-0a"]["instrument"]
    del by_id["./"]["datePublished"]
    by_id["./"]["conformsTo"] = {"@id": "https://w3id.org/ro/crate/1.1"}
    by_id["./"]["hasPart"].append({"@id": "lost.svg"})
    broken["@graph"].append({"@id": "lost.svg", "@type": "File", "name": "Not there"})
    said = " ".join(rules(broken))
    assert "The Action MUST have an instrument property" in said
    assert "datePublished" in said
    assert "versioned permalink of the profile" in said
    assert "does not include the Data Entity 'lost.svg'" in said
