"""The plan of cyclegan2017, that its folder and claims agree, that every experiment runs, and what a reader is told."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import lib.reporting
from lib.claims import load_claims
from lib.datasets import scenes
from lib.execution.runs import Finished
from replications import papers
from replications.cyclegan2017 import PRESETS, compute, figures_scenes, figures_tasks, judge, plan, presets
from replications.cyclegan2017.config import ALGORITHM_VERSION, MixturesConfig, NetworksConfig, TranslationConfig

FOLDER = Path(__file__).resolve().parents[2] / "replications" / "cyclegan2017"
CLAIMS = load_claims(FOLDER / "claims.yaml")


# --- the plan ------------------------------------------------------------------------------------------------------


def test_the_paper_preset_has_the_papers_settings():
    """Sections 3 to 5 and the appendix; ../shared/papers/cyclegan2017.md, (b)."""
    config = PRESETS["paper"]["scenes-cyclegan"]
    assert isinstance(config, TranslationConfig)
    assert (config.adversarial, config.cycle_a, config.cycle_b, config.identity) == (1, 10, 10, 0)
    assert (config.batch, config.learning_rate, config.beta1, config.beta2, config.init_sd) == (
        1,
        2e-4,
        0.5,
        0.999,
        0.02,
    )
    assert (config.n_filters, config.n_blocks, config.n_critic_filters, config.n_critic_layers) == (64, 6, 64, 3)
    assert (config.pool, config.decay_from) == (50, 0.5)
    # Cityscapes: 2,975 training images at 128 x 128, its 500 of validation for the tests, 200 epochs.
    assert (config.side, config.n_train, config.n_test, config.n_steps) == (128, 2975, 500, 200 * 2975)
    assert PRESETS["paper"]["paintings-identity"].identity == 0.5 * config.cycle_a


def test_photographs_are_trained_on_as_in_the_authors_code(monkeypatch):
    monkeypatch.setattr(presets.photos, "names", lambda: ["horse2zebra"])
    runs = presets.photo_tasks()
    plain, identity = runs["photos-horse2zebra-cyclegan"], runs["photos-horse2zebra-identity"]
    assert isinstance(plain, TranslationConfig)
    assert (plain.side, plain.crop_from, plain.flip, plain.n_blocks, plain.batch) == (256, 286, True, 9, 1)
    assert plain.n_steps == 200 * 1334
    assert (plain.n_train, plain.n_test, plain.identity) == (0, 0, 0)
    assert identity == replace(plain, identity=5.0)
    assert (plain.learning_rate, plain.pool, plain.cycle_a) == (2e-4, 50, 10)


def test_arms_differ_from_cyclegan_in_what_they_name():
    for preset in ("smoke", "laptop", "paper"):
        arms = PRESETS[preset]
        full = arms["scenes-cyclegan"]
        assert arms["scenes-cycle-alone"] == replace(full, adversarial=0)
        assert arms["scenes-gan-alone"] == replace(full, cycle_a=0, cycle_b=0)
        assert arms["scenes-cycle-labels"] == replace(full, cycle_b=0)
        assert arms["scenes-cycle-photos"] == replace(full, cycle_a=0)
        assert arms["scenes-simgan"] == replace(full, method="simgan", cycle_a=0, cycle_b=0, to_input=10)
        assert arms["scenes-feature"] == replace(arms["scenes-simgan"], method="feature")
        for name in ("cogan", "bigan", "pix2pix"):
            assert arms[f"scenes-{name}"] == replace(full, method=name)
        assert arms["paintings-identity"] == replace(arms["paintings-plain"], identity=5)
        assert full.identity == 0, "the authors' code has it on by default; the ablations must not"


def test_anchors_see_what_the_trainings_of_their_task_see():
    for preset in ("smoke", "laptop", "paper"):
        for name, config in PRESETS[preset].items():
            if isinstance(config, TranslationConfig):
                anchor = PRESETS[preset][f"anchors-{config.task}"]
                assert (anchor.task, anchor.side, anchor.n_train, anchor.n_test) == (
                    config.task, config.side, config.n_train, config.n_test), name  # fmt: skip


def test_what_is_trained_side_by_side_is_one_run_and_the_rest_one_a_seed():
    for preset in ("smoke", "laptop", "paper"):
        runs = plan(preset, 3)
        assert len({run.fingerprint for run in runs}) == len(runs)
        for experiment, config in PRESETS[preset].items():
            count = sum(run.experiment == experiment for run in runs)
            assert count == (1 if isinstance(config, MixturesConfig | NetworksConfig) else 3), experiment


def test_the_seed_that_the_judge_was_trained_with_is_in_no_table():
    from replications.cyclegan2017.train_judge import HELD_OUT

    assert max(run.seed for preset in PRESETS for run in plan(preset, 10)) < HELD_OUT


# --- the folder and its claims -------------------------------------------------------------------------------------


def test_deviations_and_notes_in_the_code_are_those_listed():
    listed = [entry["id"] for kind in ("deviations", "notes") for entry in CLAIMS[kind]]
    assert len(listed) == len(set(listed))
    marker = re.compile(r"(?:DEVIATION|NOTE) (cyclegan2017-[DN]\d+)")
    in_code = {name for path in FOLDER.glob("*.py") for name in marker.findall(path.read_text())}
    assert in_code == set(listed)
    for kind, letter in (("deviations", "D"), ("notes", "N")):
        assert {entry["id"].partition("-")[2][0] for entry in CLAIMS[kind]} == {letter}


@pytest.fixture(scope="module")
def results(smoke: Path) -> papers.Results:
    """Every experiment of the smoke preset, computed."""
    return papers.read("cyclegan2017", "smoke", 1, smoke)


def test_every_experiment_has_finite_scores_with_units_and_protocols(results):
    finished = results.finished()
    assert {outcome.run.experiment for outcome in finished} == PRESETS["smoke"].keys() >= PRESETS["laptop"].keys()
    for outcome in finished:
        assert outcome.scores, outcome.run.experiment
        for name, score in outcome.scores.items():
            where = f"{outcome.run.experiment}.{name}"
            assert re.fullmatch(r"[A-Za-z0-9_]+", name), where
            assert math.isfinite(score.value), where
            assert score.unit, where
            assert score.n >= 1, where
            assert score.protocol, where
            if score.unit == "share" and name != "cycle_share":
                assert -1e-9 <= score.value <= 1 + 1e-9, where


def test_every_claim_that_is_judged_names_scores_of_planned_experiments(results):
    """The smoke preset has every experiment of the laptop preset, so a misspelt score would be found here."""
    scores = {outcome.run.experiment: outcome.scores for outcome in results.finished()}
    lacking = []
    for claim in CLAIMS["claims"]:
        for preset in claim.get("presets", []):
            test = claim["test"]
            names = [name for key in ("increasing", "decreasing") for name in test.get(key, [])] or [test["score"]]
            for name in names:
                experiment, score = name.split(".", 1)
                assert experiment in PRESETS[preset], claim["id"]
                # The judge looks at photographs of its own side, which those of smoke have not.
                if score.startswith("fooling_b"):
                    assert PRESETS[preset][experiment].side == judge.SIDE, claim["id"]
                elif experiment in scores and score not in scores[experiment]:
                    lacking.append(name)
    assert lacking == []


def test_a_smoke_run_judges_nothing_but_what_was_counted(results):
    claims = {claim["id"]: claim for claim in CLAIMS["claims"]}
    for verdict in results.verdicts():
        if verdict.verdict not in ("not run", "not comparable"):
            assert claims[verdict.claim]["test"]["score"].startswith("networks."), verdict.claim
            assert verdict.verdict == "replicated"


PRINTED = {  # pixel accuracy / class accuracy / class IoU, copied from the fact sheet a second time
    "table 2": "CoGAN .40/.10/.06; BiGAN/ALI .19/.06/.02; SimGAN .20/.10/.04; feature loss + GAN .06/.04/.01; CycleGAN "
               ".52/.17/.11; pix2pix .71/.25/.18; real images .80/.26/.21",
    "table 3": "CoGAN .45/.11/.08; BiGAN/ALI .41/.13/.07; SimGAN .47/.11/.07; feature loss + GAN .50/.10/.06; CycleGAN "
               ".58/.22/.16; pix2pix .85/.40/.32",
    "table 4": "cycle alone .22/.07/.02; GAN alone .51/.11/.08; GAN + forward cycle .55/.18/.12; GAN + backward cycle "
               ".39/.14/.06; CycleGAN .52/.17/.11",
    "table 5": "cycle alone .10/.05/.02; GAN alone .53/.11/.07; GAN + forward cycle .49/.11/.07; GAN + backward cycle "
               ".01/.06/.01; CycleGAN .58/.22/.16",
}  # fmt: skip


def test_reported_tables_are_those_of_the_fact_sheet():
    told = {
        table: "; ".join(f"{row} {'/'.join(values)}" for row, values in rows.items())
        for table, rows in CLAIMS["reported_tables"].items()
    }
    assert told == PRINTED


def test_reported_values_are_those_of_the_tables_beside_them():
    reported = {claim["id"]: claim["reported"] for claim in CLAIMS["claims"]}
    tables = CLAIMS["reported_tables"]
    for claim, table, worse, better in (
        ("t2-cogan", "table 2", "CoGAN", "CycleGAN"), ("t2-simgan", "table 2", "SimGAN", "CycleGAN"),
        ("t2-gap", "table 2", "CycleGAN", "pix2pix"), ("t3-bigan", "table 3", "BiGAN/ALI", "CycleGAN"),
        ("t3-gap", "table 3", "CycleGAN", "pix2pix"), ("t4-cycle-alone", "table 4", "cycle alone", "CycleGAN"),
        ("t4-gan-alone", "table 4", "GAN alone", "CycleGAN"), ("t5-gan-alone", "table 5", "GAN alone", "CycleGAN"),
        ("t4-cycle-photos", "table 4", "GAN + backward cycle", "CycleGAN"),
        ("t5-cycle-photos", "table 5", "GAN + forward cycle", "CycleGAN"),
        ("t5-cycle-labels", "table 5", "GAN + backward cycle", "CycleGAN"),
        ("t4-forward", "table 4", "CycleGAN", "GAN + forward cycle"),
    ):  # fmt: skip
        said = re.findall(r"\.\d\d", reported[claim]["text"])
        told = {tables[table][worse][2], tables[table][better][2]}
        assert set(said[:2]) == told, claim
        assert float(tables[table][worse][2]) < float(tables[table][better][2])


# --- what a reader is told -----------------------------------------------------------------------------------------


def test_what_is_no_config_of_this_paper_is_refused():
    class Stranger:
        config = 3

    with pytest.raises(TypeError, match="no runs of int"):
        compute(Stranger(), None)


def test_a_report_of_what_was_run_so_far_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "compute_missing", lambda *a, **k: pytest.fail("something was computed"))
    found = papers.load_or_run("cyclegan2017", "smoke", 1, str(tmp_path), "none")
    assert {verdict.verdict for verdict in found.verdicts()} <= {"not run", "not comparable"}


def record(results: papers.Results, experiment: str) -> dict[str, float]:
    (outcome,) = results.finished(experiment)
    scores = json.loads((outcome.folder / "results.json").read_text())["scores"]
    return {name: score["value"] for name, score in scores.items()}


def test_the_algorithms_version_rises_with_the_program_that_draws_scenes():
    """Fingerprints of runs on drawn scenes hold no digest of data: change both together."""
    assert (scenes.GENERATOR_VERSION, ALGORITHM_VERSION) == ("scenes-1", 1)


def test_numbers_of_the_tables_are_those_of_results_json(results):
    """And no cell is empty, so every name that a table asks for is one that runs have."""
    for name, (way, rows) in figures_scenes.TABLES.items():
        found = figures_scenes.table(results, name)
        assert len(found) == len(rows)
        for (_, line), row in zip(found.iterrows(), rows, strict=True):
            scores = record(results, row.experiment)
            for key, words in figures_scenes.COLUMNS.items():
                assert line[words] == f"{scores[f'{way}_{key}{row.suffix}']:.2f}".replace("-", "−"), (name, row)
    fooling = figures_scenes.fooling_table(results)
    judged = "taken for real by the held-out discriminator"
    assert set(fooling[judged]) == {"–"}, "photographs of smoke are too small for the judge"
    # The real images of these scenes are the test images themselves, so they are not compared with those.
    real = fooling.set_index("photographs by").loc["real images"]
    assert (real["told from real by a classifier"], real["KID[scenes-fcn]"]) == ("–", "–")
    others = fooling[fooling["photographs by"] != "real images"].drop(columns=judged)
    tables = [others, figures_tasks.digit_table(results), figures_tasks.shape_table(results)]
    assert [len(table) for table in tables] == [12, 8, 6]
    for table in tables:
        assert not (table == "–").any().any()
    digits = figures_tasks.digit_table(results).iloc[5]
    assert digits["digits by"] == "GAN alone"
    scores = record(results, "digits-gan-alone")
    assert digits["read as the input's digit"] == f"{scores['same_a']:.3f}"
    assert digits["FID[digits-cnn]"] == f"{scores['fid_a']:.1f}"


NOTEBOOK = FOLDER.parents[1] / "notebooks" / "cyclegan2017.ipynb"
PARTS = {
    "all": lambda name: True,
    "none": lambda name: False,
    "no anchors": lambda name: "anchors" not in name,
    "anchors alone": lambda name: "anchors" in name,
    "CycleGAN on scenes alone": lambda name: name == "scenes-cyclegan",
    "without CycleGAN": lambda name: not name.endswith("-cyclegan"),
    "one arm of each": lambda name: name in ("scenes-cyclegan", "digits-cyclegan", "paintings-plain", "shapes-cyclegan",
                                             "mixtures-grid-gan"),
    "the other arms": lambda name: name in ("scenes-cyclegan", "scenes-bigan", "digits-gan-alone", "paintings-identity",
                                            "mixtures-ring-cyclegan"),
    "the plane alone": lambda name: name.startswith("mixtures"),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_the_notebook_draws_whatever_is_there(part, results, monkeypatch):
    """Its cells, one after the other, on a store from which runs are missing."""
    kept = [(run, outcome if PARTS[part](run.experiment) else None) for run, outcome in results.outcomes]
    monkeypatch.setattr(papers, "load_or_run", lambda *a: results._replace(outcomes=kept))
    exhibits: list[tuple[str, Any]] = []
    for name in ("show_figure", "show_table"):
        monkeypatch.setattr(lib.reporting, name, lambda what, identifier, *a, **k: exhibits.append((identifier, what)))
    names: dict[str, Any] = {}
    with plt.rc_context():  # the house style is for this page
        for cell in json.loads(NOTEBOOK.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]).replace('"laptop"', '"smoke"'), names)
        plt.close("all")
    found = [identifier for identifier, _ in exhibits]
    assert len(found) == len(set(found))
    assert {"cyclegan2017/table-verdicts", "cyclegan2017/table-departures", "cyclegan2017/table-runs"} <= set(found)
    for what in ("figure-4", "figure-5", "figure-7", "table-2", "table-3", "table-4", "table-5", "table-1-substitute"):
        assert (f"cyclegan2017/{what}" in found) == any(
            run.experiment == "scenes-cyclegan" and isinstance(outcome, Finished) for run, outcome in kept
        ), what
    if part == "all":
        assert {f"cyclegan2017/{what}" for what in ("figure-9", "figure-17", "table-digits", "table-shapes")} <= set(
            found
        )
        for identifier, what in exhibits:
            assert not hasattr(what, "columns") or len(what) > 0, f"{identifier} has no rows"
