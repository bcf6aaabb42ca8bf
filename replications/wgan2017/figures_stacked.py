"""Stacked MNIST's table and samples: reported rows, then ours, then real digits read by the same classifier."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.papers import Results

STACKED = {"stacked-wgan": "WGAN", "stacked-wgan-gp": "WGAN-GP"}  # experiment -> words


def stacked_runs(results: Results) -> dict[str, list[Finished]]:
    """The finished runs of each experiment that this preset has, all seeds."""
    found = {experiment: results.finished(experiment) for experiment in STACKED}
    return {experiment: runs for experiment, runs in found.items() if runs}


def stacked_table(results: Results) -> pd.DataFrame:
    """Modes and KL: the rows of claims.yaml's reported_stacked, ours, and real images."""
    rows: list[dict[str, Any]] = [
        {"images": row["model"], "whose": row["source"], "modes of 1,000": row["modes"], "KL, nats": row["kl"],
         "trials": row["trials"]}
        for row in results.paper.document["reported_stacked"]
    ]  # fmt: skip
    found = stacked_runs(results)
    for experiment, runs in found.items():
        rows.append({"images": STACKED[experiment], "whose": "measured here", **_coverage(runs, "")})
    if every := [outcome for runs in found.values() for outcome in runs]:
        distinct = {o.run.seed: o for o in every}  # both experiments stack the same real images of a seed
        rows.append(
            {"images": "real digits, stacked", "whose": "measured here", **_coverage([*distinct.values()], "real_")}
        )
    return pd.DataFrame(rows)


def _coverage(runs: Sequence[Finished], prefix: str) -> dict[str, str]:
    modes, kl = (pd.Series([o.scores[prefix + name].value for o in runs]) for name in ("modes", "kl"))
    return {
        "modes of 1,000": number(modes.mean(), 1, modes.std()),
        "KL, nats": number(kl.mean(), 3, kl.std()),
        "trials": str(len(runs)),
    }


def stacked_sheets(results: Results) -> Figure | None:
    """The first stacked digits of the lowest seed of each experiment; None where the preset has none."""
    first = {STACKED[experiment]: runs[0] for experiment, runs in stacked_runs(results).items()}
    if not first:
        return None
    figure, axes = plt.subplots(1, len(first), figsize=(4.0 * len(first), 4.25), squeeze=False)
    for axis, (title, outcome) in zip(axes[0], first.items(), strict=True):
        axis.imshow(plt.imread(outcome.folder / "samples.png"), interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    return figure


def stacked_caption(results: Results) -> str:
    """How the counts were made, from the runs; or that the preset has none."""
    found = stacked_runs(results)
    if not found:
        return "Stacked MNIST: what was reported. No run of it is finished at this preset."
    outcome = next(iter(found.values()))[0]
    config, made_by = outcome.run.config, outcome.scores["modes"].protocol
    return (
        f"Stacked MNIST: classes that {made_by['classifier']} finds among {made_by['samples']:,} images, and the KL of "
        "their histogram to equal shares. ± is the standard deviation over seeds, in reported rows as printed. Ours: "
        f"{config.n_steps:,} generator updates of {config.n_critic} critic steps, batch {config.batch}."
    )
