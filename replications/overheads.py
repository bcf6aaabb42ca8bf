"""What runs and reports spend on anything but training: checkpoints, provenance, pages with nothing to compute."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from lib.execution import workspace
from lib.execution.execute import Options, execute
from lib.execution.runs import Store, write_sums
from lib.training import provenance
from replications import papers

TRAINED_SECONDS = 25.0
MOST = 0.02  # asked: the share of a run's time that checkpoints and provenance may take together
# The laptop run of each paper with the largest checkpoint.
LARGE = {
    "vae2013": "aevb-nz200",
    "gan2014": "digits-simultaneous",
    "wgan2017": "wgan-dcgan",
    "cyclegan2017": "scenes-cyclegan",
}


def measure() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as folder:
        root = Path(folder)
        checkpoints = [checkpoint_row(key, experiment, root) for key, experiment in LARGE.items()]
        return [*checkpoints, provenance_row(root), *report_rows(root)]


def checkpoint_row(key: str, experiment: str, root: Path) -> dict[str, Any]:
    """Train a laptop run for TRAINED_SECONDS with checkpoints as always, and take the time of writing them."""
    run = next(run for run in papers.plan(key, "laptop", 1) if run.experiment == experiment)
    written: list[float] = []
    save = workspace.save_checkpoint

    def timed(*arguments: Any) -> None:
        began = time.perf_counter()
        save(*arguments)
        written.append(time.perf_counter() - began)

    deadline = time.monotonic() + TRAINED_SECONDS
    with mock.patch.object(workspace, "save_checkpoint", timed):
        report = execute(run, papers.compute, Store(root), Options(deadline=deadline))
    return {
        "what": f"checkpoints of {key} {experiment}",
        "seconds": sum(written),
        "of seconds": report.seconds,
        "share": sum(written) / report.seconds,
        "asked, at most": MOST,
        "how": f"{len(written)} written, the one at the stop included",
    }


def provenance_row(root: Path) -> dict[str, Any]:
    """Digests of source and of a finished run's files, versions and commit, beside the median published laptop run."""
    run = next(run for run in papers.plan("vae2013", "smoke", 1) if run.experiment == "aevb-nz20")
    store = Store(root)
    execute(run, papers.compute, store, Options())
    for cached in (provenance.source_digest, provenance.commit):
        cached.cache_clear()
    began = time.perf_counter()
    provenance.stable_provenance(run.paper, torch.device("cpu"))
    provenance.commit()
    write_sums(store.folder(run))
    seconds = time.perf_counter() - began
    usual = statistics.median(_published_seconds())
    return {
        "what": "provenance of a run",
        "seconds": seconds,
        "of seconds": usual,
        "share": seconds / usual,
        "asked, at most": MOST,
        "how": "once a process, later runs of it pay less; beside the median published laptop run",
    }


def _published_seconds() -> list[float]:
    runs = [run for key in papers.known() for run in papers.plan(key, "laptop")]
    paths = [papers.PUBLISHED / "runs" / run.paper / run.fingerprint / "run.json" for run in runs]
    return [json.loads(path.read_text())["wall_seconds"] for path in paths if path.is_file()]


def report_rows(root: Path) -> list[dict[str, Any]]:
    """From the command to the page of vae2013's smoke runs, all finished: page unchanged, and page made anew."""
    out = root / "reports"
    command = ["report", "vae2013", "--preset", "smoke", "--out", str(out)]
    _regen(*command)  # computes
    unchanged = _regen(*command)
    (out / "smoke" / ".vae2013.inputs").unlink()
    anew = _regen(*command)
    finished = all(Store(papers.LATEST).state(run) == "finished"
                   for key in papers.known() for run in papers.plan(key, "laptop"))  # fmt: skip
    rows: list[tuple[str, float, float | None]] = [
        ("vae2013, smoke: nothing changed", unchanged, None),
        ("vae2013, smoke: its page made anew", anew, None),
    ]
    if finished:
        _regen("report")
        rows.append(("all papers, laptop: nothing changed", _regen("report"), 60.0))
    return [
        {"what": f"`regen report`, {what}", "seconds": seconds, "asked, at most": asked, "how": "nothing to compute"}
        for what, seconds, asked in rows
    ]


def _regen(*arguments: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "replications", *arguments]
    subprocess.run(command, cwd=papers.REPOSITORY, check=True, capture_output=True)
    return time.perf_counter() - began
