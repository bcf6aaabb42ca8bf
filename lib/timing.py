"""Timing of contenders that take turns, so that whatever else the machine does strikes them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

REPEATS, WARM_UP = 5, 3


def take_turns(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds a call of each contender, one value a round: the mean of REPEATS calls; WARM_UP rounds do not count.

    A contender that queues work on an accelerator must wait for it before it returns.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(WARM_UP + rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            for _ in range(REPEATS):
                run()
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - began) / REPEATS)
    return times


def ratio_quartiles(times: Sequence[float], reference: Sequence[float]) -> list[float]:
    """The quartiles of times / reference, round by round, to two decimals."""
    return [round(q, 2) for q in statistics.quantiles([a / b for a, b in zip(times, reference, strict=True)], n=4)]
