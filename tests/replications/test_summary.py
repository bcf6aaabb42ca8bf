"""Tables across papers: unlike numbers never meet, and every number is one of a results.json."""

import csv
import itertools
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


def test_real_images_of_other_scenes_are_real_images_and_no_row_is_there_twice():
    """Where no true image is known, `other` and `real` are the same images; scenes have `other` alone."""
    known = {"fid_b_other": fid(4.0, task="scenes"), "fid_b_input": fid(9.0, task="scenes")}
    unknown = {"fid_b_real": fid(3.0, task="digits"), "fid_b_other": fid(3.0, task="digits")}
    unlike = {"fid_b_real": fid(1.0, task="shapes"), "fid_b_other": fid(2.0, task="shapes")}
    made = study(anchors_scenes=[known], anchors_digits=[unknown], anchors_shapes=[unlike])
    tables = {table.protocol["task"]: table for table in summary.quality_tables([made])}
    assert {task: [(row.label, row.sort) for row in table.rows] for task, table in tables.items()} == {
        "scenes": [("other", "real images"), ("input", "baseline")],
        "digits": [("real", "real images")],
        "shapes": [("other", "real images"), ("real", "real images")],
    }


def test_a_caption_says_which_column_has_another_n():
    recall = Score(0.5, 0.1, "share", True, 102, {**QUALITY, "real": 102})
    precision = Score(0.6, 0.1, "share", True, 90, {**QUALITY, "real": 102})
    (table,) = summary.quality_tables([study(one=[{"precision": precision, "recall": recall}])])
    assert summary.row_n(table.rows[0]) == "1 run × 90"
    assert summary.caption(table).endswith("features of digits-cnn; the n of recall[digits-cnn] is 102.")
    (table,) = summary.quality_tables([study(one=[{"precision": precision}])])
    assert summary.caption(table).endswith("features of digits-cnn.")


def test_a_value_of_two_names_is_one_run():
    """A decoder that ignores z has an exact likelihood, which stands under `elbo` and `iwae`."""
    scores = {name: nats(-37.5, "exact log-likelihood", n=3, averaged_over="models") for name in ("elbo", "iwae")}
    (table,) = summary.likelihood_tables([study(decoder_none=[scores])])
    (row,) = table.rows
    assert summary.row_n(row) == "3 models × 1,000"
    assert summary.cell_text(row.cells["log p(x) (exact)"]) == "−37.50 ± 0.87"
    scores["iwae"] = nats(-37.6, "exact log-likelihood", n=3, averaged_over="models")
    with pytest.raises(ValueError, match=r"decoder-none.*iwae is a second value of log p\(x\)"):
        summary.likelihood_tables([study(decoder_none=[scores])])


def test_a_baseline_says_what_it_is():
    (table,) = summary.likelihood_tables([study(baselines=[{"pixels_test": nats(-206, "exact log-likelihood")}])])
    assert [(summary.row_name(row), row.sort) for row in table.rows] == [("baselines, pixels", "baseline")]


def test_a_tables_name_tells_its_protocol_and_no_other_table_takes_it():
    """Whichever of them are there, and however many rows they have."""
    scores = {
        "": {"elbo_test": nats(-5, "elbo")},
        "-24-test-images": {"few_elbo": nats(-6, "elbo", n=24)},
        "-pooled": {
            "pooled_elbo": nats(
                -7, "elbo", observation="pooled to 14 x 14, dynamic-binarised, one fixed draw for evaluation"
            )
        },
        "-simulated-24": {"ais_upper": nats(-1, "annealed importance sampling, upper bound", 24, split="simulated")},
    }
    usual = "dynamic-binarised, one fixed draw for evaluation"
    for found in scores.values():
        for name, score in found.items():
            if score.protocol["observation"] == "binary":
                found[name] = score._replace(protocol={**score.protocol, "observation": usual})
    for n in range(1, len(scores) + 1):
        for ends in itertools.permutations(scores, n):
            made = study(**{f"vae_{i}": [scores[end]] * 2 for i, end in enumerate(ends)}, more=[scores[ends[-1]]])
            tables = summary.likelihood_tables([made])
            assert {t.slug for t in tables} == {f"likelihood-laptop-mnist-5k{end}" for end in ends}
            named = {t.slug: next(iter(t.rows[0].cells.values())).reading.mean for t in tables}
            assert all(
                named[f"likelihood-laptop-mnist-5k{end}"] == next(iter(scores[end].values())).value for end in ends
            )


def test_tables_that_no_word_tells_apart_have_digits_of_their_protocols():
    alone, other = ({"fid": fid(1.0, weights=weights)} for weights in ("e1", "e2"))
    assert [t.slug for t in summary.quality_tables([study(one=[alone])])] == ["quality-laptop-mnist-5k"]
    slugs = {t.slug for t in summary.quality_tables([study(one=[alone], two=[other])])}
    assert slugs == {t.slug for t in summary.quality_tables([study(one=[other], two=[alone] * 2)])}
    assert len(slugs) == 2
    assert all(slug.startswith("quality-laptop-mnist-5k-") and len(slug) == 30 for slug in slugs)


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
