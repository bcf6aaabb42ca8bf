"""Timing of contenders that take turns, so that whatever else the machine does strikes them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

REPEATS, WARM_UP = 5, 3


def take_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, repeats: int = REPEATS, warm_up: int = WARM_UP
) -> dict[str, list[float]]:
    """Seconds a call of each contender, one value a round: the mean of `repeats` calls; `warm_up` rounds do not count.

    A contender that queues work on an accelerator must wait for it before it returns.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            for _ in range(repeats):
                run()
            if turn >= warm_up:
                times[name].append((time.perf_counter() - began) / repeats)
    return times


def ratio_quartiles(times: Sequence[float], reference: Sequence[float]) -> list[float]:
    """The quartiles of times / reference, round by round, to two decimals."""
    return [round(q, 2) for q in statistics.quantiles([a / b for a, b in zip(times, reference, strict=True)], n=4)]
