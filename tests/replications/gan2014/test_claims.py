"""What claims on copies and on mode collapse let pass: verdicts on published runs, and on what must not pass."""

import math

import pytest
import torch

from lib.claims import judge
from lib.metrics.modes import coverage_of_models
from lib.training.randomness import generator
from replications import papers
from replications.gan2014.toys import MIXTURES, coverage_scores

PRESETS = ("laptop", "paper")


@pytest.fixture(scope="module", params=PRESETS)
def published(request):
    return papers.read("gan2014", request.param, None, papers.PUBLISHED, needs_weights=False)


def word(results, claim, change=lambda outcome: outcome):
    """The verdict on one claim, each finished run as `change` returns it."""
    listed = next(c for c in results.paper.document["claims"] if c["id"] == claim)
    outcomes = [(run, outcome and change(outcome)) for run, outcome in results.outcomes]
    return judge(listed, "gan2014", results.preset, outcomes).verdict


@pytest.mark.parametrize("claim", ["fig2-no-copies", "fig3-closest"])
def test_a_generator_of_copies_fails(published, claim):
    copies = {o.run.seed: o.scores["distance_ratio_copies"].value for o in published.finished("baselines")}

    def copier(outcome):
        if outcome.run.experiment != "digits-simultaneous":
            return outcome
        values = {"distance_ratio": copies[outcome.run.seed], "path_closest": 0.0, "path_nearest": 0.0}
        changed = {name: outcome.scores[name]._replace(value=value) for name, value in values.items()}
        return outcome._replace(scores=outcome.scores | changed)

    assert word(published, claim) == "replicated"
    assert word(published, claim, copier) == "not replicated"


def test_a_shapeless_cloud_wins_modes_and_loses_quality(published):
    """Uniform noise over +-5 in PacGAN2's place; the numbers are those of the comment in claims.yaml."""
    mixture, rng = MIXTURES["grid"], generator(0, "cloud")
    clouds = 10 * torch.rand(100, 2500, 2, generator=rng) - 5
    found = coverage_of_models(clouds, mixture.centres, mixture.sd)
    scores = coverage_scores(found, published.planned("grid-pac2").config)
    assert scores["modes"].value == pytest.approx(20.8, abs=0.5)
    assert scores["reverse_kl"].value == pytest.approx(0.005, abs=0.001)
    assert scores["high_quality"].value == pytest.approx(25 * math.pi * 0.15**2 / 100, abs=0.001)

    def cloud(outcome):
        return outcome._replace(scores=outcome.scores | scores) if outcome.run.experiment == "grid-pac2" else outcome

    words = [word(published, f"modes-grid-{name}", cloud) for name in ("captured", "kl", "pac2-quality")]
    assert words == ["replicated", "replicated", "not replicated"]
    assert word(published, "modes-grid-pac2-quality") == "not replicated"


def test_numbers_of_longer_trainings_are_compared_at_no_preset(published):
    claims = [c["id"] for c in published.paper.document["claims"] if c["id"].endswith("-lin")]
    assert len(claims) == 6
    assert {word(published, claim) for claim in claims} == {"not comparable"}


def test_annealing_is_judged_where_it_has_images_enough():
    results = {p: papers.read("gan2014", p, None, papers.PUBLISHED, needs_weights=False) for p in PRESETS}
    images = {p: results[p].planned("digits-simultaneous").config.n_ais_images for p in PRESETS}
    assert images == {"laptop": 8, "paper": 100}
    words = [word(results[preset], "ais-above-parzen") for preset in PRESETS]
    assert words == ["not comparable", "replicated"]
