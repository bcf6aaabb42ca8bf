"""Progress of many runs: on a terminal a bar for all and one for each that is computed, elsewhere a line now and then.

In a notebook, which cannot move its cursor, there is the bar for all.
"""

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TextIO

from tqdm import tqdm

from lib.execution.execute import Report
from lib.execution.runs import Run

BAR = "{desc} {percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} left"


class Progress:
    """The share of all work that is done. Use as a context manager.

    seconds: what each run is expected to take, by fingerprint; one that is not named counts as the mean of those that
    are, and with none named all count alike. every: seconds between two lines where the stream is no terminal.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        stream: TextIO | None = None,
        every: float = 5.0,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        self.stream = stream or sys.stderr
        self.every, self._began, self._line_at = every, time.monotonic(), time.monotonic()
        self._share = {run.fingerprint: 0.0 for run in runs}
        self._weight = _weights(self._share, seconds or {})
        self._found: dict[str, float] = {}  # what an earlier command had done: no measure of how fast this one is
        self._ended = 0
        self._many = len(runs) > 1 and self.stream.isatty()
        live = self.stream.isatty() or "ipykernel" in sys.modules  # a terminal, or a reader's notebook
        self._bar = tqdm(total=len(runs), bar_format=BAR, file=self.stream) if live else None
        self._bars: dict[str, tqdm] = {}  # of the runs that are being computed
        self._describe()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        for bar in [*self._bars.values(), self._bar]:
            if bar is not None:
                bar.close()

    def advance(self, run: Run, done: int, total: int) -> None:
        self._share[run.fingerprint] = done / total
        self._found.setdefault(run.fingerprint, done / total if done < total else 0.0)
        if self._bar is not None:
            if self._many:
                self._draw(run)
            self._describe()
        elif time.monotonic() - self._line_at >= self.every:
            self._line_at = time.monotonic()
            n = len(self._share)
            all_done = self._work(self._share)
            here = all_done - self._work(self._found)
            guess = ""
            if here > 0.005 * n:
                left = (n - all_done) / here * (time.monotonic() - self._began)
                guess = f", about {tqdm.format_interval(left)} left"
            self.say(f"{self._ended}/{n} runs, {all_done / n:.0%} of the work{guess}")

    def ended(self, report: Report) -> None:
        self._ended += 1
        if report.ending == "kept":
            self._found[report.run.fingerprint] = 1.0
        self._share[report.run.fingerprint] = 1.0
        if (bar := self._bars.pop(report.run.fingerprint, None)) is not None:
            bar.close()
        if report.ending != "kept" or report.said:
            said = f": {report.said}" if report.said else ""
            self.say(f"{report.run.name}: {report.ending} after {report.seconds:.1f} s{said}")
        self._describe()

    def say(self, text: str) -> None:
        if self._bar is None:
            print(text, file=self.stream, flush=True)
        else:
            self._bar.write(text, file=self.stream)

    def _draw(self, run: Run) -> None:
        """The line of one run, made when it is first heard of; tqdm hides what the screen has no room for."""
        bar = self._bars.get(run.fingerprint)
        if bar is None:
            named = {"desc": f"  {run.name}", "total": 1, "initial": self._found[run.fingerprint], "leave": False}
            bar = self._bars[run.fingerprint] = tqdm(bar_format=BAR, file=self.stream, **named)
        bar.n = round(self._share[run.fingerprint], 3)
        bar.refresh()

    def _describe(self) -> None:
        if self._bar is not None:
            self._bar.initial, self._bar.n = self._work(self._found), round(self._work(self._share), 3)
            self._bar.set_description_str(f"{self._ended}/{len(self._share)} runs")

    def _work(self, shares: Mapping[str, float]) -> float:
        """In mean runs: all of the work is as much as there are runs."""
        return sum(share * self._weight[fingerprint] for fingerprint, share in shares.items())


def _weights(fingerprints: Collection[str], seconds: Mapping[str, float]) -> dict[str, float]:
    """Of mean 1. No run counts as less than a tenth of a second, which its folder takes."""
    known = [seconds[fingerprint] for fingerprint in fingerprints if fingerprint in seconds]
    mean = sum(known) / len(known) if known else 1.0
    expected = {fingerprint: max(seconds.get(fingerprint, mean), 0.1) for fingerprint in fingerprints}
    total = sum(expected.values())
    return {fingerprint: len(expected) * of_run / total for fingerprint, of_run in expected.items()}
