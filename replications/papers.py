"""The papers, found by their folders, and what any of them can be asked: plan, compute, outcomes, verdicts."""

import difflib
import fnmatch
import importlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

from yaml import YAMLError

from lib import datasets
from lib.claims import Verdict, judge, load_claims
from lib.datasets import photos
from lib.errors import UserError
from lib.execution.device import resolve_device as resolve_device
from lib.execution.execute import Options, Report
from lib.execution.executors import run_here, run_on_cluster
from lib.execution.progress import Progress
from lib.execution.runs import Failed, Finished, Run, Store
from lib.execution.together import run_together
from lib.execution.workspace import Outcome, Workspace
from lib.training.provenance import committed_on
from replications.places import LATEST as LATEST
from replications.places import PUBLISHED as PUBLISHED
from replications.places import REPOSITORY, claims_file
from replications.places import known as known

PHOTOS = "photos/"  # begins the name of a folder of photographs among a run's data


class Paper(NamedTuple):
    """A paper's key, its package (PRESETS, plan, compute) and its claims.yaml."""

    key: str
    package: ModuleType
    document: dict[str, Any]

    @property
    def byline(self) -> str:
        return f"{', '.join(self.document['authors'])}, {self.document['year']}"

    @property
    def notebook(self) -> Path:
        return REPOSITORY / "notebooks" / f"{self.key}.ipynb"


@cache
def load(key: str) -> Paper:
    """Raises UserError for an unknown key, naming the nearest."""
    if key not in known():
        raise UserError(f"There is no paper {key!r}{nearest(key, known())} The papers are: {', '.join(known())}.")
    package = importlib.import_module(f"replications.{key}")
    if lacking := ", ".join(name for name in ("PRESETS", "plan", "compute") if not hasattr(package, name)):
        raise UserError(f"replications/{key}/__init__.py has no {lacking}: CONTRIBUTING.md says what it needs.")
    try:
        return Paper(key, package, load_claims(claims_file(key)))
    except (ValueError, YAMLError) as error:
        raise UserError(f"replications/{key}/claims.yaml cannot be used: {error}") from None


def plan(key: str, preset: str, seeds: int | None = None) -> list[Run]:
    """The runs of a paper's preset. Raises UserError for an unknown preset or fewer than one seed."""
    paper = load(key)
    if preset not in paper.package.PRESETS:
        presets = list(paper.package.PRESETS)
        raise UserError(f"{key} has no preset {preset!r}{nearest(preset, presets)} It has: {', '.join(presets)}.")
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds counts seeds and must be at least 1, not {seeds}.")
    return list(paper.package.plan(preset, default_seeds(preset) if seeds is None else seeds))


def default_seeds(preset: str) -> int:
    """How many seeds a preset is run with where nobody says: what smoke computes means nothing, so one will do."""
    return 1 if preset == "smoke" else 3


def chosen_runs(
    keys: Sequence[str], preset: str, seeds: int | None = None, experiments: Sequence[str] | None = None
) -> list[Run]:
    """The runs of several papers' plans whose experiments match. Raises UserError where there are none."""
    runs = [run for key in keys for run in plan(key, preset, seeds)]
    if not runs:
        raise UserError(
            f"There is nothing to run at the preset {preset!r}: it takes data of your own, and there are none in "
            f"{datasets.data_root()}. data/README.md says where they go."
        )
    return of_experiments(runs, experiments)


def of_experiments(runs: Sequence[Run], patterns: Sequence[str] | None) -> list[Run]:
    """The runs whose experiment matches one of the shell patterns; all where there are none.

    Raises UserError for a pattern that matches nothing.
    """
    if not patterns:
        return list(runs)
    names = sorted({run.experiment for run in runs})
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UserError(
                f"No experiment is called {pattern!r}{nearest(pattern, names)} There are: {', '.join(names)}."
            )
    return [run for run in runs if any(fnmatch.fnmatch(run.experiment, pattern) for pattern in patterns)]


def nearest(word: str, known: Sequence[str]) -> str:
    """How a sentence about an unknown word goes on: `: did you mean 'vae2013'?`, or a full stop."""
    near = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {near[0]!r}?" if near else "."


def compute(run: Run, workspace: Workspace) -> Outcome:
    """One run, by its own paper's package. At module level, so that a worker process can be sent it.

    Raises UserError where the data are not those that the run was planned for.
    """
    for name, digest in run.data.items():
        if (found := _read(name)) != digest:  # a copy that another machine prepared can be another
            raise UserError(
                f"{run.name} was planned for {name} with the digest {digest[:12]}, and here it has {found[:12]}:"
                " give every machine the same prepared copy, and run the command again."
            )
    outcome: Outcome = load(run.paper).package.compute(run, workspace)
    return outcome


def compute_missing(
    runs: Sequence[Run],
    store: Store,
    options: Options,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    memory_limit: str | None = None,
) -> list[Report]:
    """Compute what the store lacks, on one worker a core (one in all on an accelerator) unless `workers` says else.

    Finished runs are reported as kept without starting anything. With several options.processes there are no workers:
    runs that the paper can split are trained by all of them, one after the other, and the rest by this one.
    """
    runs = [_with_digests(run) for run in runs]
    missing = [run for run in runs if store.state(run) not in ("finished", "failed")]
    there = [Report(run, *_ending(store, run)) for run in runs if run not in missing]
    if not missing:
        return there
    for name in sorted({name for run in missing for name in run.data}):
        _read(name)  # absent or corrupt data is told once, here, before any worker starts
    together = not options.processes.alone
    if together:  # their number is torchrun's
        if workers not in (None, 1) or scheduler is not None:
            raise UserError("torchrun's processes train one run together: leave out --workers and --scheduler.")
        _require_equal_shares(missing, options.processes.world)
        workers = 1
    elif workers is None:
        smoke = all(run.preset == "smoke" for run in missing)  # shorter than a worker's start
        alone = smoke or options.device != "cpu" or find_spec("distributed") is None
        workers = 1 if alone else min(os.cpu_count() or 1, len(missing))
    seconds = expected_seconds(missing)
    with Progress(missing, seconds=seconds) as progress:
        if together:
            return there + run_together(missing, compute, store, options, progress, splits)
        if workers == 1 and scheduler is None and memory_limit is None:
            return there + run_here(missing, compute, store, options, progress)
        cluster: Any = {"workers": workers, "scheduler": scheduler, "memory_limit": memory_limit}
        return there + run_on_cluster(longest_first(missing, seconds), compute, store, options, progress, **cluster)


def expected_seconds(runs: Sequence[Run], published: Path = PUBLISHED) -> dict[str, float]:
    """By fingerprint, what published runs of the same paper, preset and experiment took: their median. The others lack.

    The median, since one seed may have been computed on a busy machine, or on a processor of another kind.
    """
    taken: dict[tuple[str, ...], list[float]] = {}
    for path in published.glob("runs/*/*/results.json"):
        try:
            record = json.loads(path.read_text())
            name = (record["paper"], record["preset"], record["experiment"])
            seconds = json.loads(path.with_name("run.json").read_text())["wall_seconds"]
        except (OSError, ValueError, KeyError, TypeError):  # a damaged one: this is but a guess
            continue
        taken.setdefault(name, []).append(seconds)
    names = {run.fingerprint: (run.paper, run.preset, run.experiment) for run in runs}
    return {fingerprint: median(taken[name]) for fingerprint, name in names.items() if name in taken}


def longest_first(runs: Sequence[Run], seconds: Mapping[str, float]) -> list[Run]:
    """The runs in the order in which workers end soonest, by what each is expected to take.

    Those of which nothing is known come first, in the plan's order: the longest are the costliest to begin last.
    """
    return sorted(runs, key=lambda run: -seconds.get(run.fingerprint, math.inf))


def splits(run: Run) -> bool:
    """Whether several processes can train this run together: its paper lists the config in SPLIT."""
    return isinstance(run.config, getattr(load(run.paper).package, "SPLIT", ()))


def _require_equal_shares(runs: Sequence[Run], world: int) -> None:
    for run in runs:
        if splits(run) and run.config.batch % world:
            raise UserError(
                f"{run.name} has minibatches of {run.config.batch}, which do not divide among {world} processes: "
                "start a number that divides it, or choose other runs by --experiment."
            )


def _read(name: str) -> str:
    """The digest of a data set, read; "photos/NAME" is a folder of photographs, of which each copy has its own."""
    if name.startswith(PHOTOS):
        return photos.require(name.removeprefix(PHOTOS))
    return datasets.load(name).digest


def _with_digests(run: Run) -> Run:
    """The run with the digest of every set of which each copy has its own; a copy gets it when it is first read."""
    own = {name: _read(name) for name, digest in run.data.items() if digest == datasets.OF_THE_COPY}
    return replace(run, data={**run.data, **own}) if own else run


def _ending(store: Store, run: Run) -> tuple[Any, float, str]:
    outcome = store.read(run)
    return ("failed", 0.0, outcome.reason) if isinstance(outcome, Failed) else ("kept", 0.0, "")


class Results(NamedTuple):
    """All planned runs of one paper at one preset, with what became of each."""

    paper: Paper
    preset: str
    store: Store
    outcomes: list[tuple[Run, Finished | Failed | None]]

    def finished(self, experiment: str | None = None) -> list[Finished]:
        """The finished runs of an experiment (of all), in the plan's order."""
        found = [o for _, o in self.outcomes if isinstance(o, Finished)]
        return [o for o in found if experiment in (None, o.run.experiment)]

    def ended(self, *experiments: str) -> bool:
        """Whether every planned run of each of these experiments has ended, and at least one of each is finished."""
        left = {run.experiment for run, outcome in self.outcomes if outcome is None}
        return all(self.finished(name) and name not in left for name in experiments)

    def planned(self, experiment: str) -> Run:
        """The first planned run of an experiment, whatever became of it."""
        return next(run for run, _ in self.outcomes if run.experiment == experiment)

    def failed(self) -> list[Failed]:
        return [o for _, o in self.outcomes if isinstance(o, Failed)]

    def verdicts(self) -> list[Verdict]:
        claims = self.paper.document["claims"]
        return [judge(claim, self.paper.key, self.preset, self.outcomes) for claim in claims]


def read(
    key: str, preset: str, seeds: int | None = None, root: Path = LATEST, *, needs_weights: bool = True
) -> Results:
    """What the store at `root` holds of a plan; computes nothing."""
    store = open_store(root) if needs_weights else Store(root, needs_weights=False)
    return Results(load(key), preset, store, [(run, store.read(run)) for run in plan(key, preset, seeds)])


def finished_on(finished: Sequence[Finished]) -> str:
    """The day on which runs ended, or the first and the last; of one that does not say, the day of its commit.

    Runs of before 2026-11-28 do not say. Empty where git does not know the commit of one of these either.
    """
    days = sorted({o.provenance.get("finished_on") or committed_on(o.provenance["commit"]) for o in finished})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days and days[0] else ""


def open_store(root: Path) -> Store:
    """The runs below `root`; those that are published have left their weights behind."""
    return Store(root, needs_weights=root.resolve() != PUBLISHED)


def load_or_run(key: str, preset: str, seeds: int, root: str | Path = "", device: str = "auto") -> Results:
    """For notebooks: the results of a plan; runs that are missing are computed first, with progress shown.

    Not with device "none": then what is there is shown, with or without its weights, and nothing is computed.
    """
    folder = Path(root) if root else LATEST
    if device == "none":
        return read(key, preset, seeds, folder, needs_weights=False)
    reports = compute_missing(plan(key, preset, seeds), Store(folder), Options(resolve_device(device)), workers=1)
    for report in reports:
        if report.ending == "crashed":
            raise RuntimeError(f"{report.run.name} crashed: {report.said}")
    return read(key, preset, seeds, folder)


def deadline_after(budget: str | None) -> float | None:
    """`9m`, `90s`, `1.5h` or seconds, as the time.monotonic() at which to stop. Raises UserError for anything else."""
    if budget is None:
        return None
    scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(budget[-1:], 0.0)
    try:
        seconds = float(budget[:-1]) * scale if scale else float(budget)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise UserError(f"--time-budget {budget!r} is no time: write 90s, 9m or 1.5h.")
    return time.monotonic() + seconds
