"""The plan of wgan2017, that its folder and claims agree, that every experiment runs, and what a reader is told."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lib.claims import load_claims
from replications import papers
from replications.wgan2017 import PRESETS, bench, compute, plan
from replications.wgan2017.config import ImagesConfig, StackedConfig
from replications.wgan2017.presets import ARCHITECTURES, SEVERAL_IN_ONE

FOLDER = Path(__file__).resolve().parents[2] / "replications" / "wgan2017"
CLAIMS = load_claims(FOLDER / "claims.yaml")


def test_the_paper_preset_has_algorithm_1s_settings():
    config = PRESETS["paper"]["wgan-dcgan"]
    assert isinstance(config, ImagesConfig)
    assert (config.learning_rate, config.clip, config.batch, config.n_critic) == (5e-5, 0.01, 64, 5)
    assert (config.optimizer, config.clip_when, config.schedule, config.n_filters) == (
        "rmsprop",
        "after",
        "constant",
        64,
    )
    gan = PRESETS["paper"]["gan-dcgan"]
    assert (gan.n_critic, gan.optimizer, gan.beta1, gan.learning_rate) == (1, "adam", 0.5, 2e-4)
    penalty = PRESETS["paper"]["wgan-gp"]
    assert (penalty.penalty, penalty.beta1, penalty.beta2, penalty.learning_rate) == (10, 0, 0.9, 1e-4)


def test_both_algorithms_make_equally_many_updates():
    for preset in PRESETS:
        for name in ARCHITECTURES:
            wgan, gan = (PRESETS[preset][f"{algorithm}-{name}"] for algorithm in ("wgan", "gan"))
            assert wgan.n_steps * (wgan.n_critic + 1) == gan.n_steps * (gan.n_critic + 1)


def test_variants_differ_from_algorithm_1_in_what_they_name():
    laptop = PRESETS["laptop"]
    plain = laptop["wgan-dcgan"]
    assert laptop["wgan-clip-before"] == replace(plain, clip_when="before")
    assert laptop["wgan-clip-start"] == replace(plain, clip_when="start")
    assert laptop["wgan-schedule"] == replace(plain, schedule="authors")
    assert laptop["wgan-paper-rate"] == replace(plain, learning_rate=5e-5)
    assert laptop["wgan-mlp-he"] == replace(laptop["wgan-mlp"], init_linear="he")
    assert laptop["wgan-mlp-mlp"].learning_rate == 10 * plain.learning_rate


def test_what_is_trained_side_by_side_is_one_run_and_the_rest_one_a_seed():
    for preset in PRESETS:
        runs = plan(preset, 3)
        assert len({run.fingerprint for run in runs}) == len(runs)
        for experiment, config in PRESETS[preset].items():
            count = sum(run.experiment == experiment for run in runs)
            assert count == (1 if isinstance(config, SEVERAL_IN_ONE) else 3), experiment


def test_runs_of_real_images_carry_the_digest_of_their_data():
    for run in plan("paper", 1):
        data = getattr(run.config, "data", None)
        assert set(run.data) == ({data} if data else set()), run.experiment
    assert {run.config.data for run in plan("paper", 1) if isinstance(run.config, ImagesConfig)} == {"cifar10"}
    assert all(run.config.data == "mnist" for run in plan("paper", 1) if isinstance(run.config, StackedConfig))


@pytest.fixture(scope="module")
def finished(smoke):
    """Every experiment of the smoke preset, computed."""
    return papers.read("wgan2017", "smoke", 1, smoke).finished()


def test_every_experiment_has_scores_with_units_and_protocols(finished):
    assert {outcome.run.experiment for outcome in finished} == PRESETS["smoke"].keys()
    for outcome in finished:
        assert outcome.scores, outcome.run.experiment
        for name, score in outcome.scores.items():
            assert "." not in name
            assert score.protocol, f"{outcome.run.experiment}.{name}"


def test_every_claim_that_is_judged_names_scores_of_planned_experiments(finished):
    """The smoke preset has every experiment of the laptop preset, so a misspelt score would be found here."""
    scores = {outcome.run.experiment: outcome.scores for outcome in finished}
    rare = re.compile(r"(negative|cosine|blown_of)_")  # there only if a step blew up: absent in a run of seconds
    assert PRESETS["laptop"].keys() <= scores.keys()
    lacking = []
    for claim in CLAIMS["claims"]:
        for preset in claim.get("presets", []):
            test = claim["test"]
            for name in test.get("increasing") or [test["score"]]:
                experiment, score = name.split(".", 1)
                assert experiment in PRESETS[preset], claim["id"]
                if experiment in scores and score not in scores[experiment] and not rare.search(score):
                    lacking.append(name)
    assert lacking == []


def test_deviations_and_notes_in_the_code_are_those_listed():
    listed = {entry["id"] for kind in ("deviations", "notes") for entry in CLAIMS[kind]}
    marker = re.compile(r"(?:DEVIATION|NOTE) (wgan2017-[DN]\d+)")
    in_code = {name for path in FOLDER.glob("*.py") for name in marker.findall(path.read_text())}
    assert in_code == listed


def test_no_claim_orders_estimates():
    """They have units of their own critic."""
    for claim in CLAIMS["claims"]:
        names = claim.get("test", {}).get("increasing", [])
        assert not [name for name in names if name.endswith(".estimate")], claim["id"]


def test_what_is_no_config_of_this_paper_is_refused():
    class Stranger:
        config = 3

    with pytest.raises(TypeError, match="no runs of int"):
        compute(Stranger(), None)


def test_a_report_of_what_was_run_so_far_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "compute_missing", lambda *a, **k: pytest.fail("something was computed"))
    results = papers.load_or_run("wgan2017", "smoke", 1, str(tmp_path), "none")
    assert {verdict.verdict for verdict in results.verdicts()} == {"not run", "not comparable"}


def test_the_benchmark_compares_the_same_work():
    """Counted by PyTorch's own counter of operations: ours does what the authors' loop does, and a little more."""
    from torch.utils.flop_counter import FlopCounterMode

    counted = {}
    for name, run in bench.contenders(8, 1, bench.torch.device("cpu")).items():
        with FlopCounterMode(display=False) as counter:
            run()
        counted[name] = counter.get_total_flops()
    assert counted["loop"] == counted["with loader"]
    # 36 in place of 16 products a pixel in the layer to the image, which is a small one.
    assert 0.97 * counted["loop"] < counted["ours"] < 1.2 * counted["loop"]
