"""Orders between runs that train many models side by side: the models are what seeds are elsewhere."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from lib.claims import Verdict, judge
from lib.execution.runs import Finished, Run
from lib.results import Score

LOW, HIGH = (5.0, 6.0, 6.5, 7.0, 5.5), (7.0, 7.5, 8.0, 8.0, 6.5, 7.5)


@dataclass(frozen=True)
class Config:
    width: int = 1


def batched(experiment: str, values: Sequence[float]) -> tuple[Run, Finished]:
    run = Run("toy2000", experiment, "laptop", Config(), 0, {}, 1)
    stderr = statistics.stdev(values) / math.sqrt(len(values))
    score = Score(statistics.mean(values), stderr, "modes", True, len(values), {"averaged_over": "models"})
    return run, Finished(run, Path("nowhere"), {"level": score}, {}, {})


def verdict(test: dict[str, Any], *outcomes: tuple[Run, Finished]) -> Verdict:
    whole = {"id": "c", "where": "Table 1", "kind": "order", "statement": "s", "reported": {"text": "a < b"}}
    return judge({**whole, "presets": ["laptop"], "protocol": "p", "test": test}, "toy2000", "laptop", outcomes)


@pytest.mark.parametrize("shift", [-1.0, -0.02, 0.02, 1.0])
def test_an_order_is_welchs_test_on_the_models_own_values(shift):
    """At the margin where scipy's p on the values themselves crosses 2.5 %, the verdict turns."""
    interval = scipy.stats.ttest_ind(HIGH, LOW, equal_var=False, alternative="greater").confidence_interval(0.975)
    margin = interval.low + shift * 0.5
    got = verdict({"increasing": ["a.level", "b.level"], "margin": margin}, batched("a", LOW), batched("b", HIGH))
    assert got.verdict == ("replicated" if shift < 0 else "not replicated")
    assert "over 6 models" in got.why
    assert f"(sd {statistics.stdev(LOW):.2g} over 5 models)" in got.measured


def test_against_models_that_all_agree_it_is_the_one_sample_test():
    p = scipy.stats.ttest_1samp(LOW, 5.0, alternative="greater").pvalue
    assert p < 0.025
    order = {"increasing": ["a.level", "b.level"], "margin": 0}
    assert verdict(order, batched("a", [5.0] * 4), batched("b", LOW)).verdict == "replicated"
    assert verdict(order, batched("a", [5.1] * 4), batched("b", LOW)).verdict == "not replicated"


def test_one_run_that_averages_images_is_still_one_seed():
    run, finished = batched("b", HIGH)
    score = finished.scores["level"]._replace(protocol={})
    alone = run, finished._replace(scores={"level": score})
    other = batched("a", LOW)
    plain = other[0], other[1]._replace(scores={"level": other[1].scores["level"]._replace(protocol={})})
    got = verdict({"increasing": ["a.level", "b.level"], "margin": 0}, plain, alone)
    assert got.verdict == "not run"
    assert "at least two seeds" in got.why


def test_the_first_dot_ends_the_experiments_name():
    run, finished = batched("a", LOW)
    scores = {"failed_lr0.001": finished.scores["level"], "failed_lr0.01": batched("a", HIGH)[1].scores["level"]}
    test = {"increasing": ["a.failed_lr0.001", "a.failed_lr0.01"], "margin": 0}
    assert verdict(test, (run, finished._replace(scores=scores))).verdict == "replicated"


def test_a_score_that_a_finished_run_does_not_have_is_said_and_not_a_crash():
    got = verdict({"increasing": ["a.level", "a.fid"], "margin": 0}, batched("a", LOW))
    assert got.verdict == "not run"
    assert got.why == "Not run: a has no score fid."
    (run, first), (_, second) = batched("a", LOW), batched("a", LOW)
    some = first._replace(scores={**first.scores, "fid": first.scores["level"]})
    got = verdict({"score": "a.fid", "within": 1}, (run, some), (run, second))
    assert got.why == "Not run: a has no score fid in 1 of its 2 runs."
