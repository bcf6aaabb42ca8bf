"""Timing of contenders that take turns, so that whatever else the machine does strikes them alike.

And what a step's time is held against: the machine's rate of matrix products, and the memory of a process of its own.
"""

import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from lib.training.provenance import REPOSITORY, peak_memory_bytes

REPEATS, WARM_UP = 5, 3
SIDE = 1024  # of the matrices whose product is the yardstick


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


def waiting(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`run`, and then for what it has queued on the device."""
    if device.type == "cpu":
        return run

    def run_and_wait() -> None:
        run()
        torch.cuda.synchronize(device)

    return run_and_wait


def matrix_product(device: torch.device) -> Callable[[], object]:
    """A call that multiplies two float32 matrices of SIDE x SIDE, and waits for it."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SIDE, SIDE, generator=generator).to(device) for _ in range(2))
    return waiting(lambda: torch.mm(a, b), device)


def product_rates(flop: float, times: Sequence[float], product_times: Sequence[float]) -> dict[str, object]:
    """GFLOP/s of `matrix_product`, and the quartiles of a step's own rate over it, round by round; flop: of a step."""
    of_product = 2 * SIDE**3
    share = ratio_quartiles([flop / seconds for seconds in times], [of_product / seconds for seconds in product_times])
    rate = of_product / statistics.median(product_times) / 1e9
    return {f"{SIDE}-square product GFLOP/s": round(rate, 1), "step's share of that rate": share}


def counted_flop(step: Callable[[], object]) -> int:
    """Of the matrix products and convolutions of one call, forward and backward; two operations a multiply-add."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak_megabytes(function: str, *arguments: object) -> int:
    """Largest resident size of a new process that calls function, as package.module.name, with arguments as texts."""
    command = [sys.executable, "-m", "lib.timing", function, *map(str, arguments)]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return int(found.stdout.splitlines()[-1])


def _peak_of(function: str, *arguments: str) -> int:
    module, name = function.rsplit(".", 1)
    getattr(importlib.import_module(module), name)(*arguments)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent had before this program was started
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) // 1024
    return peak_memory_bytes() // 2**20


if __name__ == "__main__":
    print(_peak_of(*sys.argv[1:]))
