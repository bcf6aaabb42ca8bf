"""A run and its fingerprint; the store that keeps finished runs, each in a folder named by its fingerprint."""

import csv
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lib.errors import UserError
from lib.files import sha256_of
from lib.results import Score, canonical_json, score_from_json

if TYPE_CHECKING:
    from torch import Tensor

State = Literal["finished", "failed", "begun", "damaged", "missing"]
SUMS = "SHA256SUMS"  # lists every other file of a run; `sha256sum -c SHA256SUMS` checks a run without regen


@dataclass(frozen=True)
class Run:
    """One planned training or measurement. `config` is the paper's frozen dataclass; `data` maps set to digest."""

    paper: str
    experiment: str
    preset: str
    config: Any
    seed: int
    data: Mapping[str, str]
    algorithm_version: int

    @cached_property  # asked for at every look at a run's folder: an executor's wait would spend its time on it
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON of everything that decides the numbers. The preset's name does not."""
        identity = {
            "paper": self.paper,
            "experiment": self.experiment,
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "data": dict(self.data),
            "algorithm_version": self.algorithm_version,
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.paper} {self.preset} {self.experiment} seed {self.seed}"


class Finished(NamedTuple):
    """A finished run as read from its folder."""

    run: Run
    folder: Path
    scores: dict[str, Score]
    record: dict[str, Any]  # results.json
    provenance: dict[str, Any]  # run.json

    @property
    def facts(self) -> dict[str, Any]:
        """What the run counted or chose on the way and is no score."""
        return dict(self.record.get("facts", {}))

    def history(self) -> list[dict[str, float]]:
        """The rows of history.csv as numbers."""
        with (self.folder / "history.csv").open(newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def tensors(self) -> "dict[str, Tensor]":
        """What its weights.safetensors holds, on the CPU. Raises WeightsAbsent where a published run left it behind."""
        from safetensors.torch import load_file

        path = self.folder / "weights.safetensors"
        if not path.is_file():
            raise WeightsAbsent(f"The weights of {self.run.name} are not kept here: `regen run` makes them again.")
        return load_file(path)


class WeightsAbsent(UserError):
    """Something that is drawn from a run's weights was asked for, and they are not here."""


class Failed(NamedTuple):
    """A run that stopped with a reason; its folder keeps the evidence."""

    run: Run
    folder: Path
    reason: str
    step: int


class Store:
    """Run folders below `root`/runs/<paper>/<fingerprint>.

    A folder is written as `<fingerprint>.begun` and renamed when it is whole, so a folder with the plain name is
    finished (results.json) or failed (failure.json); SHA256SUMS tells whether a byte changed since. Published runs are
    kept without their weights, of which only the digest stays: read them with needs_weights=False.
    """

    def __init__(self, root: Path, *, needs_weights: bool = True) -> None:
        self.root, self.needs_weights = root, needs_weights

    def folder(self, run: Run) -> Path:
        return self.root / "runs" / run.paper / run.fingerprint

    def begun_folder(self, run: Run) -> Path:
        return self.folder(run).with_name(run.fingerprint + ".begun")

    def begun(self) -> set[str]:
        """The fingerprints of all runs, of any plan, that are being computed or were stopped."""
        return {path.name.removesuffix(".begun") for path in self.root.glob("runs/*/*.begun")}

    def lock_path(self, run: Run) -> Path:
        return self.root / "runs" / run.paper / ".locks" / run.fingerprint

    def state(self, run: Run) -> State:
        folder = self.folder(run)
        if folder.is_dir():
            if damage(folder, self.needs_weights):
                return "damaged"
            return "failed" if (folder / "failure.json").exists() else "finished"
        return "begun" if self.begun_folder(run).is_dir() else "missing"

    def set_aside_damaged(self, run: Run) -> str:
        """Rename a damaged run folder to `<fingerprint>.damaged` (the newest is kept) and say what was wrong."""
        folder = self.folder(run)
        what = damage(folder, self.needs_weights) or "nothing"
        aside = folder.with_name(run.fingerprint + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        return what

    def read(self, run: Run) -> Finished | Failed | None:
        """The run's outcome; None if it was not computed. Raises UserError if its folder is damaged."""
        state, folder = self.state(run), self.folder(run)
        if state == "damaged":
            raise UserError(
                f"The run {run.name} is damaged ({damage(folder, self.needs_weights)}): "
                f"`regen run {run.paper} --preset {run.preset}` sets it aside and computes it again."
            )
        if state == "failed":
            failure = json.loads((folder / "failure.json").read_text())
            return Failed(run, folder, failure["reason"], failure["step"])
        if state != "finished":
            return None
        record = json.loads((folder / "results.json").read_text())
        scores = {name: score_from_json(score) for name, score in record["scores"].items()}
        return Finished(run, folder, scores, record, json.loads((folder / "run.json").read_text()))

    def read_all(self, runs: Sequence[Run]) -> list[Finished | Failed | None]:
        return [self.read(run) for run in runs]


def write_sums(folder: Path) -> None:
    """List every file of `folder` with its sha256, in the format of coreutils' sha256sum."""
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.name != SUMS]
    (folder / SUMS).write_text("".join(lines))


def damage(folder: Path, needs_weights: bool = True) -> str | None:
    """What is wrong with a run folder, in a few words; None if every listed file has the bytes it was written with.

    Weights that are not needed may be absent, and are not read.
    """
    try:
        listed = {name: digest for digest, name in (line.split("  ", 1) for line in _lines(folder / SUMS))}
    except (OSError, ValueError):
        return f"{SUMS} is missing or unreadable"
    if not {"results.json", "failure.json"} & listed.keys():
        return f"{SUMS} lists no results"
    for name, digest in listed.items():
        path = folder / name
        if path.suffix == ".safetensors" and not needs_weights:
            continue
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != digest:
            return f"{name} does not have the digest it was written with"
    return None


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").removesuffix("\n").split("\n")


def history_csv(rows: Sequence[Mapping[str, float]]) -> str:
    """Rows as CSV with every digit of every float (repr), so equal text means equal bits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0].keys())
        writer.writerows([repr(row[name]) for name in rows[0]] for row in rows)
    return text.getvalue()
