"""Tables across papers: unlike numbers never meet, and every number is one of a results.json."""

import csv
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lib.execution.runs import Finished, Run, Store
from lib.results import Score
from replications import papers, summary
from replications.papers import PUBLISHED, Results


@dataclass(frozen=True)
class Config:
    width: int = 1


QUALITY = {"extractor": "digits-cnn", "weights": "e1", "data": "mnist-5k", "data_sha256": "81", "split": "test",
           "real": 1000, "generated": 1000, "to_uint8": "rounded"}  # fmt: skip
BOUND = {"data": "mnist-5k", "data_sha256": "81", "split": "test", "observation": "binary"}


def fid(value: float, **protocol: Any) -> Score:
    return Score(value, 0.5, "squared feature distance", False, 1000, {**QUALITY, **protocol})


def nats(value: float, estimator: str, n: int = 1000, **protocol: Any) -> Score:
    return Score(value, 0.5, "nats/image", True, n, {**BOUND, "estimator": estimator, **protocol})


def study(**experiments: list[dict[str, Score]]) -> Results:
    """The scores of each seed of each experiment, as if they had been run."""
    outcomes = []
    for name, seeds in experiments.items():
        for seed, scores in enumerate(seeds):
            run = Run("gan2014", name.replace("_", "-"), "laptop", Config(), seed, {}, 1)
            outcomes.append((run, Finished(run, Path("nowhere"), scores, {}, {})))
    return Results(papers.load("gan2014"), "laptop", Store(Path("nowhere")), outcomes)


def test_a_mean_its_spread_and_the_runs_behind_them():
    (table,) = summary.quality_tables([study(digits=[{"fid": fid(10.0)}, {"fid": fid(14.0)}, {"fid": fid(12.0)}])])
    (row,) = table.rows
    cell = row.cells["FID[digits-cnn]"]
    assert (cell.reading.mean, cell.error, cell.n) == (12.0, 2.0, 1000)
    assert [seed for seed, _, _ in cell.runs] == [0, 1, 2]
    assert len({fingerprint for _, _, fingerprint in cell.runs}) == 3
    assert summary.cell_text(cell) == "12.0 ± 2.0"
    assert summary.row_n(row) == "3 seeds × 1,000"


def test_one_run_has_its_own_standard_error():
    (table,) = summary.quality_tables([study(digits=[{"fid": fid(10.0)}])])
    (row,) = table.rows
    assert row.cells["FID[digits-cnn]"].error == 0.5
    assert summary.row_n(row) == "1 run × 1,000"


@pytest.mark.parametrize(
    "unlike", [{"generated": 5000}, {"extractor": "efficientnet-lite0"}, {"weights": "e2"}, {"data_sha256": "82"},
               {"split": "train from 40,000 on"}, {"neighbours": 5}, {"something new": 1}]
)  # fmt: skip
def test_unlike_protocols_never_share_a_table(unlike):
    tables = summary.quality_tables([study(one=[{"fid": fid(10.0)}], two=[{"fid": fid(20.0, **unlike)}])])
    assert [len(table.rows) for table in tables] == [1, 1]
    assert len({table.slug for table in tables}) == 2


@pytest.mark.parametrize(
    "alike", [{"images": "decoder means"}, {"n_samples": 9}, {"stderr": "none"}, {"method": "bigan"}]
)
def test_what_describes_the_model_divides_nothing(alike):
    (table,) = summary.quality_tables([study(one=[{"fid": fid(10.0)}], two=[{"fid": fid(20.0, **alike)}])])
    assert len(table.rows) == 2


def test_an_old_record_without_its_split_is_of_the_test_split():
    old = Score(20.0, 0.5, "", False, 1000, {key: value for key, value in QUALITY.items() if key != "split"})
    (table,) = summary.quality_tables([study(one=[{"fid": fid(10.0)}], two=[{"fid": old}])])
    assert len(table.rows) == 2


def test_models_come_first_then_real_images_then_baselines():
    made = study(
        baselines=[{"fid_noise": fid(400.0), "fid_real": fid(1.0)}],
        digits=[{"fid": fid(10.0)}],
        dcgan=[{"fid_untrained": fid(90.0)}],
    )
    (table,) = summary.quality_tables([made])
    assert [(row.sort, summary.row_name(row)) for row in table.rows] == [
        ("model", "digits"), ("real images", "baselines, real"),
        ("baseline", "baselines, noise"), ("baseline", "dcgan, untrained"),
    ]  # fmt: skip


def test_a_translation_stands_by_its_direction():
    tables = summary.quality_tables(
        [study(horses=[{"fid_a": fid(1.0, task="horses"), "fid_b": fid(2.0, task="horses")}])]
    )
    assert [table.protocol["into"] for table in tables] == ["a", "b"]


def test_bounds_are_columns_from_loose_to_tight_and_say_what_they_are():
    scores = {
        "few_iwae_5000": nats(-3, "importance-weighted bound", draws=5000),
        "few_iwae_5": nats(-4, "importance-weighted bound", draws=5),
        "few_ais": nats(-2, "annealed importance sampling, lower bound", n_chains=4),
        "few_elbo": nats(-5, "elbo", draws=8),
        "gap": nats(9, "elbo"),
        "elbo_train": nats(-1, "elbo", split="train"),
    }
    (table,) = summary.likelihood_tables([study(vae=[scores])])
    assert table.columns == ["ELBO (lower bound)", "L_5 (lower bound)", "L_5,000 (lower bound)", "AIS (lower bound)"]
    (row,) = table.rows
    assert [row.cells[column].reading.mean for column in table.columns] == [-5, -4, -3, -2]


def test_other_images_or_another_observation_model_are_another_table():
    scores = {
        "elbo_test": nats(-5, "elbo"),
        "few_elbo": nats(-6, "elbo", n=24),
        "elbo_pooled": nats(-7, "elbo", observation="pooled"),
        "ais_upper": nats(-1, "annealed importance sampling, upper bound", split="simulated"),
    }
    tables = summary.likelihood_tables([study(vae=[scores])])
    assert sorted((t.protocol["split"], t.protocol["test images"], t.protocol["observation"]) for t in tables) == [
        ("simulated", 1000, "binary"), ("test", 24, "binary"), ("test", 1000, "binary"), ("test", 1000, "pooled"),
    ]  # fmt: skip


def test_a_parzen_score_is_in_no_table_of_likelihoods():
    made = study(
        gan=[{"parzen_test": nats(200, "Parzen window, isotropic Gaussian kernel"), "elbo_test": nats(-5, "elbo")}]
    )
    assert [list(t.columns) for t in summary.likelihood_tables([made])] == [["ELBO (lower bound)"]]
    (parzen,) = summary.parzen_tables([made])
    assert "no likelihood" in parzen.columns[0]


@pytest.mark.parametrize(
    ("values", "text"),
    [([-101.234, -101.834], "−101.53 ± 0.42"), ([0.0, 0.0], "0.00 ± 0.00"), ([1234.5, 1834.5], "1,534 ± 424"),
     ([0.5, 0.5002], "0.5001 ± 0.0001")],
)  # fmt: skip
def test_digits_go_as_far_as_the_error(values, text):
    (table,) = summary.quality_tables([study(one=[{"fid": fid(value)} for value in values])])
    assert summary.cell_text(table.rows[0].cells["FID[digits-cnn]"]) == text


# --- what is published ---------------------------------------------------------------------------------------------

RECORDS = PUBLISHED / "tables" / "all.json"


@pytest.mark.skipif(not RECORDS.exists(), reason="no site is published yet")
def test_every_number_of_every_table_is_in_a_results_json():
    """Recomputed from the runs' files alone, without the code that made the tables."""
    results: dict[Path, Any] = {}
    records = json.loads(RECORDS.read_text())
    assert len(records) > 300
    cells = {}
    for record in records:
        for run, value in zip(record["runs"], record["values"], strict=True):
            path = PUBLISHED / "runs" / run["paper"] / run["fingerprint"] / "results.json"
            if path not in results:
                results[path] = json.loads(path.read_text())["scores"]
            assert value in [score["value"] for score in results[path].values()], (record["model"], record["score"])
        assert record["mean"] == pytest.approx(statistics.fmean(record["values"]), rel=1e-12)
        if len(record["values"]) > 1:
            assert record["sd"] == pytest.approx(statistics.stdev(record["values"]), rel=1e-9, abs=1e-12)
        cells[record["table"], record["paper"], record["model"], record["score"]] = record
    assert cells
    for table in {record["table"] for record in records}:
        for row in csv.DictReader((PUBLISHED / "tables" / f"{table}.csv").open(encoding="utf-8")):
            for column, text in row.items():
                if text != "–" and column not in ("model", "paper", "row", "n"):
                    record = cells[table, row["paper"], row["model"], column]
                    shown = float(text.split(" ± ")[0].replace("−", "-").replace(",", ""))
                    step = 10.0 ** -len(text.split(" ± ")[0].partition(".")[2])
                    assert math.isclose(shown, record["mean"], abs_tol=0.5001 * step), (table, row["model"], column)
