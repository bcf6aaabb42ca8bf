"""Which presets judge which claims, and that the negative cosines elsewhere are those of the models that blow up."""

from pathlib import Path

import pytest

from lib.claims import experiments_of, judge, load_claims
from lib.execution.runs import Finished, Run
from lib.results import Score
from replications.wgan2017 import PRESETS

CLAIMS = load_claims(Path(__file__).resolve().parents[3] / "replications" / "wgan2017" / "claims.yaml")["claims"]
TESTED = [claim for claim in CLAIMS if "test" in claim]


@pytest.mark.parametrize("preset", ["laptop", "paper", "lsun"])
def test_a_preset_judges_what_it_plans(preset):
    planned = {claim["id"] for claim in TESTED if experiments_of(claim["test"]) <= PRESETS[preset].keys()}
    assert {claim["id"] for claim in TESTED if preset in claim["presets"]} == planned
    assert planned


def test_with_no_run_at_lsun_its_claims_are_not_run_and_none_is_said_to_need_a_larger_preset():
    verdicts = {claim["id"]: judge(claim, "wgan2017", "lsun", []) for claim in CLAIMS}
    assert {verdicts[claim["id"]].verdict for claim in TESTED if "lsun" in claim["presets"]} == {"not run"}
    others = [verdicts[claim["id"]] for claim in TESTED if "lsun" not in claim["presets"]]
    assert {verdict.verdict for verdict in others} == {"not comparable"}
    assert not [verdict.why for verdict in others if "laptop preset" in verdict.why or "too small" in verdict.why]


@pytest.mark.parametrize(("share", "word"), [(0.009, "replicated"), (0.011, "not replicated")])
def test_stable_models_do_not_dilute_the_negative_cosines_elsewhere(share, word):
    """Two thirds of the models with momentum never blow up: their zeros would bring .011 below the tolerance of .01."""
    run = Run("wgan2017", "momentum", "laptop", PRESETS["laptop"]["momentum"], 0, {}, 1)
    scores = {
        f"negative_elsewhere_momentum{rate}": Score(value, 0.001, "share", False, n, {"averaged_over": "models"})
        for rate, value, n in (("", share / 3, 18), ("_lr5em5", 0.0, 6), ("_lr5em4", 0.0, 6), ("_lr5em3", share, 6))
    }
    claim = next(claim for claim in CLAIMS if claim["id"] == "momentum-cosine-elsewhere")
    assert judge(claim, "wgan2017", "laptop", [(run, Finished(run, Path("nowhere"), scores, {}, {}))]).verdict == word
