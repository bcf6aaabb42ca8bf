"""The plan of gan2014, that its paper folder and claims agree, and that reports live with what has not been run."""

import re
from pathlib import Path

import pytest

from lib.claims import load_claims
from replications import papers
from replications.gan2014 import PRESETS, bench, compute, plan
from replications.gan2014.config import GanConfig, ToyConfig
from replications.gan2014.presets import BATCHED

FOLDER = Path(__file__).resolve().parents[2] / "replications" / "gan2014"
CLAIMS = load_claims(FOLDER / "claims.yaml")


def test_the_paper_preset_has_the_papers_settings():
    digits = PRESETS["paper"]["digits-simultaneous"]
    assert isinstance(digits, GanConfig)
    assert digits == GanConfig("mnist", 50_000, 250, n_ais_images=100, n_ais_distributions=300)
    assert PRESETS["paper"]["digits-alternating"].n_epochs == 60  # DEVIATION gan2014-D5
    assert {c.data for c in PRESETS["paper"].values() if isinstance(c, GanConfig)} == {"mnist", "frey-face", "cifar10"}


def test_what_is_trained_side_by_side_is_one_run_and_the_rest_one_a_seed():
    for preset in PRESETS:
        runs = plan(preset, 3)
        for experiment, config in PRESETS[preset].items():
            count = sum(run.experiment == experiment for run in runs)
            assert count == (1 if isinstance(config, BATCHED) else 3), experiment


def test_the_laptop_toys_are_ten_models():
    toys = [config for config in PRESETS["laptop"].values() if isinstance(config, ToyConfig)]
    assert len(toys) == 6
    assert {toy.n_models for toy in toys} == {10}
    assert {(toy.loss, toy.n_pack) for toy in toys} == {("minimax", 1), ("nonsaturating", 1), ("nonsaturating", 2)}


def test_runs_of_real_images_carry_the_digest_of_their_data():
    for run in plan("paper", 1):
        data = getattr(run.config, "data", None)
        assert set(run.data) == ({data} if data in ("mnist", "frey-face", "cifar10") else set()), run.experiment


def test_what_is_no_config_of_this_paper_is_refused():
    class Stranger:
        config = 3

    with pytest.raises(TypeError, match="no runs of int"):
        compute(Stranger(), None)


def test_every_claim_that_is_judged_names_scores_of_planned_experiments():
    for claim in CLAIMS["claims"]:
        for preset in claim.get("presets", []):
            test = claim["test"]
            names = test.get("increasing") or [test["score"]]
            assert {name.split(".", 1)[0] for name in names} <= PRESETS[preset].keys(), claim["id"]


def test_deviations_and_notes_in_the_code_are_those_listed():
    listed = {entry["id"] for kind in ("deviations", "notes") for entry in CLAIMS[kind]}
    marker = re.compile(r"(?:DEVIATION|NOTE) (gan2014-[DN]\d+)")
    in_code = {name for path in FOLDER.glob("*.py") for name in marker.findall(path.read_text())}
    assert in_code == listed


def test_the_reported_table_is_the_papers():
    rows = {row["model"]: (row["value"], row["stderr"]) for row in CLAIMS["reported_table_1"]}
    assert rows == {"DBN": (138, 2), "Stacked CAE": (121, 1.6), "Deep GSN": (214, 1.1), "Adversarial nets": (225, 2)}


def test_the_benchmark_compares_the_same_products():
    """Counted a second time by PyTorch's own counter of operations, on the laptop preset's sizes."""
    from torch.utils.flop_counter import FlopCounterMode

    config = PRESETS["smoke"]["digits-simultaneous"]
    contenders = bench._contenders(config, bench.torch.device("cpu"))
    counted = {}
    for name in ("floor", "step", "textbook"):
        with FlopCounterMode(display=False) as counter:
            contenders[name]()
        counted[name] = counter.get_total_flops()
    assert counted["floor"] == bench.products_flop(config)
    # The step's last layer of the discriminator, one column wide, is not in the floor.
    assert counted["floor"] < counted["step"] < 1.02 * counted["floor"]
    assert counted["textbook"] == counted["step"]


def test_a_report_of_what_was_run_so_far_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "compute_missing", lambda *a, **k: pytest.fail("something was computed"))
    results = papers.load_or_run("gan2014", "smoke", 1, str(tmp_path), "none")
    assert all(outcome is None for _, outcome in results.outcomes)
    words = {verdict.verdict for verdict in results.verdicts()}
    assert words == {"not run", "not comparable"}
