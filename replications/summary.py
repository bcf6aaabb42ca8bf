"""What all papers measured in common: scores of samples and likelihood bounds, one table for each protocol.

Read from finished runs alone. Two scores share a table only if everything in their protocols agrees that says how was
measured; what says which model was measured (MODEL) may differ between its rows, what belongs to one metric (METRIC)
between its columns.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from lib.claims import Reading
from lib.datasets import registry
from lib.execution.runs import Finished
from lib.metrics import metric_name
from lib.reporting.latex import booktabs
from lib.reporting.tables import number
from lib.results import Score
from replications import papers
from replications.papers import Results

QUALITY = {"fid": "FID", "is": "IS", "kid": "KID", "precision": "precision", "recall": "recall"}
# Protocol entries that describe what was measured, and not how.
MODEL = {
    "images", "source", "train", "method", "model", "outputs", "algorithm", "generator", "critic", "generator_steps",
    "batch_norm", "noise", "n_samples", "steps", "training_images", "averaged_over", "n_latent", "decoder", "free_bits",
    "ladder", "warm_up", "batch", "n_labels", "n_steps", "n_train", "logvar_floor", "noise_variance", "sigma",
    "segmenter",
    "sigma_chosen_on", "factors", "objective", "k",
}  # fmt: skip
METRIC = {"neighbours", "kernel", "splits", "stderr", "bias"}
# Of a likelihood: how closely it was estimated; an estimator's own settings are told in its cell.
EFFORT = {"draws", "n_chains", "n_distributions", "n_leapfrog", "initial", "importance_samples", "burn_in", "schedule",
          "target_acceptance", "sigmas", "noise"}  # fmt: skip
BOUNDS = {  # estimator -> column, and what it is
    "elbo": ("ELBO", "lower bound"),
    "elbo, everything sampled": ("ELBO", "lower bound"),
    "importance-weighted bound": ("L_{draws}", "lower bound"),
    "log sum over y of p(y) exp L(x, y), a lower bound on log p(x)": ("ELBO, summed over classes", "lower bound"),
    "annealed importance sampling, lower bound": ("AIS", "lower bound"),
    "annealed importance sampling, upper bound": ("reverse AIS", "upper bound"),
    "exact log-likelihood": ("log p(x)", "exact"),
    "exact log-likelihood of probabilistic PCA": ("log p(x)", "exact"),
    "appendix D": ("appendix D", "estimate"),
    "importance sampling from the encoder": ("importance sampling", "estimate, low in the mean"),
    "importance sampling from a Gaussian fitted to posterior draws, variances times 1.5": (
        "importance sampling, fitted", "estimate, low in the mean"),
    "Parzen window, isotropic Gaussian kernel": ("Parzen window", "score of samples, no likelihood of a model"),
}  # fmt: skip
DIFFERENCES = ("gap", "excess", "kl")  # scores of those estimators that are no likelihood themselves
# Words of a likelihood's name that its column or its table says already.
_SAID = {"elbo", "iwae", "test", "ais", "lower", "upper", "few", "simulated", "bound", "appendix", "d", "is", "encoder",
         "fitted", "log", "marginal", "exact", "parzen"}  # fmt: skip
# Observation models in a word of a table's name. None has the word of another, and most tables need none.
_OBSERVED = {
    "dynamic-binarised, one fixed draw for evaluation": "",
    "pooled to 14 x 14, dynamic-binarised, one fixed draw for evaluation": "pooled",
    "(value + uniform noise) / 256, a density on the unit cube": "unit-cube",
    "(value + uniform noise) / 256, a density on the unit cube, one fixed draw for evaluation": "unit-cube-one-draw",
    "pixels dequantised: (k + u) / 256, one fixed draw": "dequantised",
    "N(G(z), sigma^2), pixels dequantised: (k + u) / 256, one fixed draw": "dequantised-generator",
}
Sort = Literal["model", "real images", "baseline"]
REAL: Sort = "real images"
BASELINE: Sort = "baseline"
MODELS: Sort = "model"


class Cell(NamedTuple):
    """One score of one row over the seeds that finished. runs: (seed, paper, fingerprint) of each."""

    reading: Reading
    n: int  # images, or what else one seed's value is over
    runs: tuple[tuple[int, str, str], ...]
    protocol: Mapping[str, Any]

    @property
    def error(self) -> float:
        """Standard deviation over seeds or models; the run's own standard error where there is one run. May be nan."""
        return self.reading.spread if self.reading.size > 1 else self.reading.stderrs[0]


class Row(NamedTuple):
    paper: str
    experiment: str
    label: str  # what of the experiment, where it scored several things; else empty
    sort: Sort
    cells: dict[str, Cell]  # by column


class Table(NamedTuple):
    """Scores of one preset under one protocol. slug: the end of an exhibit's identifier."""

    slug: str
    title: str
    preset: str
    protocol: dict[str, Any]
    columns: list[str]
    rows: list[Row]


class _Found(NamedTuple):
    column: str
    shared: dict[str, Any]  # the protocol that a table shares
    label: str
    sort: Sort


def read_all(preset: str, seeds: int | None, root: Path) -> list[Results]:
    """What the store at `root` holds of every paper's preset, without weights; papers without a run are left out."""
    studies = [papers.read(key, preset, seeds, root, needs_weights=False) for key in papers.known()
               if preset in papers.load(key).package.PRESETS]  # fmt: skip
    return [study for study in studies if study.finished()]


def quality_tables(studies: Sequence[Results]) -> list[Table]:
    """FID, IS, KID, precision and recall of every generator; real images and baselines beside them."""
    return _tables(studies, _quality, "quality")


def likelihood_tables(studies: Sequence[Results]) -> list[Table]:
    """Every bound, estimate and exact value of log p(x) on test images, nats per image."""
    return _tables(studies, _likelihood, "likelihood")


def parzen_tables(studies: Sequence[Results]) -> list[Table]:
    """Parzen-window scores, which stand apart: they are no likelihood of the model that drew the samples."""
    return _tables(studies, _parzen, "parzen")


def _tables(studies: Sequence[Results], find: Any, kind: str) -> list[Table]:
    grouped: dict[tuple[str, str], dict[tuple[str, str, str], dict[str, list[tuple[Finished, Score]]]]] = {}
    shared: dict[tuple[str, str], dict[str, Any]] = {}
    sorts: dict[tuple[str, str, str], Sort] = {}
    for study in studies:
        for outcome in study.finished():
            for name, score in outcome.scores.items():
                found = find(outcome.run.experiment, name, score)
                if found is None or not math.isfinite(score.value):
                    continue
                key = study.preset, json.dumps(found.shared, sort_keys=True)
                row = study.paper.key, outcome.run.experiment, found.label
                shared[key], sorts[row] = found.shared, found.sort
                cell = grouped.setdefault(key, {}).setdefault(row, {}).setdefault(found.column, [])
                values = {known.value for by, known in cell if by is outcome}
                if not values:
                    cell.append((outcome, score))
                elif values != {score.value}:  # two names of one value are one run all the same
                    raise ValueError(f"{outcome.run.name}: {name} is a second value of {found.column}")
    tables = []
    for (preset, text), rows in grouped.items():
        made = [Row(*row, sorts[row], {c: _cell(runs) for c, runs in cells.items()}) for row, cells in rows.items()]
        tables.append(_table(kind, preset, shared[preset, text], [row for row in made if not _is_twin(row, made)]))
    tables = _distinct(tables)
    return sorted(tables, key=lambda t: (t.preset != "paper", -sum(row.sort == MODELS for row in t.rows), t.slug))


def _is_twin(row: Row, rows: Sequence[Row]) -> bool:
    """Whether the images drawn as `other` are the very ones of the row `real`: only scenes know their true images."""
    values = {column: cell.reading.values for column, cell in row.cells.items()}
    return row.label == "other" and any(
        (twin.paper, twin.experiment, twin.label) == (row.paper, row.experiment, "real")
        and {column: cell.reading.values for column, cell in twin.cells.items()} == values
        for twin in rows
    )


def _cell(runs: Sequence[tuple[Finished, Score]]) -> Cell:
    scores = [score for _, score in runs]
    models = scores[0].n if len(scores) == 1 and scores[0].protocol.get("averaged_over") == "models" else 0
    reading = Reading(tuple(s.value for s in scores), tuple(s.stderr for s in scores), scores[0].unit, models)
    made_by = tuple((outcome.run.seed, outcome.run.paper, outcome.run.fingerprint) for outcome, _ in runs)
    return Cell(reading, _images(scores[0]), made_by, scores[0].protocol)


def _images(score: Score) -> int:
    """How many images a value is over: a score that averages over models says it elsewhere, or took the whole split."""
    if score.protocol.get("averaged_over") != "models":
        return score.n
    if "images" in score.protocol:
        return int(score.protocol["images"])
    return len(registry.entry(score.protocol["data"]).splits[score.protocol["split"]])


def _quality(experiment: str, name: str, score: Score) -> _Found | None:
    protocol, words = score.protocol, name.split("_")
    network = protocol.get("extractor") or protocol.get("segmenter")
    metrics = [word for word in words if word in QUALITY]
    if network is None or len(metrics) != 1:
        return None
    own = {key: protocol[key] for key in sorted(METRIC & protocol.keys())}
    shared = {key: value for key, value in protocol.items() if key not in MODEL | METRIC | {"observation"}}
    shared.setdefault("split", "test")  # records of before November 2026 leave out what is so at every digit set
    shared["extractor"] = network
    words.remove(metrics[0])
    if words and words[0] in ("a", "b"):  # translations: into which of a task's two domains
        shared["into"] = words.pop(0)
    label = " ".join(words)
    anchor = experiment.startswith(("baselines", "anchors"))
    # other: real images drawn without regard to the input, beside the true ones where a task has those
    sort: Sort = REAL if label in ("real", "other") else BASELINE if anchor or label == "untrained" else MODELS
    column = metric_name(QUALITY[metrics[0]], network)
    # Never two settings of one metric in one column: the settings would be a table's own.
    shared["metrics"] = {} if _usual(metrics[0], own) else {column: own}
    return _Found(column, shared, label, sort)


def _usual(metric: str, own: Mapping[str, Any]) -> bool:
    usual = {"neighbours": 3, "splits": 10, "kernel": "(x.y / D + 1)^3, all pairs"}
    return all(usual.get(key, value) == value for key, value in own.items())


def _likelihood(experiment: str, name: str, score: Score) -> _Found | None:
    return None if "Parzen" in str(score.protocol.get("estimator")) else _estimate(experiment, name, score)


def _parzen(experiment: str, name: str, score: Score) -> _Found | None:
    return _estimate(experiment, name, score) if "Parzen" in str(score.protocol.get("estimator")) else None


def _estimate(experiment: str, name: str, score: Score) -> _Found | None:
    protocol = score.protocol
    known = BOUNDS.get(str(protocol.get("estimator")))
    if known is None or score.unit != "nats/image" or name.startswith(DIFFERENCES):
        return None
    if protocol.get("split") not in ("test", "simulated"):
        return None
    draws = protocol.get("draws", "")
    words = [word for word in name.split("_") if word not in _SAID and word != str(draws)]
    told = MODEL | EFFORT | METRIC | {"estimator", "grid", "samples", "validation", "bandwidth_from", "burn_in"}
    if "Parzen" in str(protocol["estimator"]):
        told -= {"sigma"}
        shared = {key: protocol.get(key) for key in ("data", "data_sha256", "split")} | {"estimator": known[0]}
        shared |= {"kernel width": "chosen on validation images from one grid"}
    else:
        shared = {key: value for key, value in protocol.items() if key not in told}
    shared["test images"] = _images(score)
    label = " ".join(words)
    anchor = experiment.startswith(("baselines", "frey-baselines", "anchors"))
    sort: Sort = REAL if label == "real" else BASELINE if anchor else MODELS
    column = known[0].format(draws=f"{draws:,}" if isinstance(draws, int) else draws)
    return _Found(f"{column} ({known[1]})", shared, label, sort)


def _table(kind: str, preset: str, shared: dict[str, Any], rows: list[Row]) -> Table:
    order = {MODELS: 0, REAL: 1, BASELINE: 2}
    rows.sort(key=lambda row: (order[row.sort], row.paper, row.experiment, row.label))
    columns: list[str] = []
    for row in rows:
        columns += [column for column in row.cells if column not in columns]
    columns.sort(key=_place)
    what = shared.get("data") or shared.get("task") or "images"
    if "into" in shared:
        what = f"{what} into {shared['into']}"
    by = shared.get("extractor") or shared.get("observation") or shared.get("estimator") or ""
    slug = "-".join([kind, preset, _slug(what), *_unusual(shared)])
    return Table(slug, f"{what}: {by}", preset, shared, columns, rows)


def _place(column: str) -> tuple[int, float, str]:
    """FID, IS, KID, precision, recall; lower bounds from loose to tight, then upper, exact, the rest."""
    names = [*QUALITY.values(), "ELBO", "L_", "AIS", "reverse AIS", "log p(x)"]
    at = next((i for i, name in reversed(list(enumerate(names))) if column.startswith(name)), len(names))
    digits = "".join(c for c in column.split(" ")[0] if c.isdigit())
    return at, float(digits or 0), column


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")


def _unusual(shared: Mapping[str, Any]) -> list[str]:
    """What a table's name says of its protocol: nothing where all test images are used, as they usually are observed.

    From the protocol alone, whatever other tables there are: a published name must not pass to another table.
    """
    observed = _OBSERVED.get(shared["observation"], _digest(shared)) if "observation" in shared else ""
    split, n = shared.get("split", "test"), shared.get("test images", shared.get("generated"))
    known = registry.entries(registry.REGISTRY).get(shared.get("data", ""))
    if split != "test":
        counted = f"{_slug(split)}-{n}"
    elif known is None or n == len(known.splits.get("test", ())):
        counted = ""
    else:
        counted = f"{n}-test-images" if "test images" in shared else f"{n}-generated"
    return [word for word in (observed, counted) if word]


def _digest(shared: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:6]


def _distinct(tables: Sequence[Table]) -> list[Table]:
    """Slugs that are identifiers: where a protocol's words are those of another too, each has digits of its digest."""
    count = Counter(table.slug for table in tables)
    return [t if count[t.slug] == 1 else t._replace(slug=f"{t.slug}-{_digest(t.protocol)}") for t in tables]


def cost_table(studies: Sequence[Results]) -> pd.DataFrame:
    """Devices, days and hours behind each paper's runs."""
    rows = []
    for study in studies:
        finished = study.finished()
        seconds = math.fsum(outcome.provenance["wall_seconds"] for outcome in finished)
        missing = sum(outcome is None for _, outcome in study.outcomes)
        rows.append(
            {
                "paper": study.paper.key,
                "runs": len(finished),
                "not run": missing,
                "devices": ", ".join(sorted({outcome.record["provenance"]["device"] for outcome in finished})),
                "finished": papers.finished_on(finished) or "not recorded",
                "minutes of compute": number(seconds / 60, 1),
            }
        )
    return pd.DataFrame(rows)


# --- as text ------------------------------------------------------------------------------------------------------


def caption(table: Table) -> str:
    """What is in a table, in a sentence or two."""
    protocol = table.protocol
    if "extractor" in protocol:
        what = table.title.split(":")[0]
        counted = f"{protocol['generated']:,} generated images against {protocol['real']:,} real ones of {what}"
        features = f"({protocol['split']} split); features of {protocol['extractor']}{_other_counts(table)}."
        return f"Preset {table.preset}; {counted} {features}"
    told = f"Preset {table.preset}; {protocol['test images']:,} {protocol['split']} images of {protocol['data']}"
    return f"{told}; {protocol.get('observation') or protocol.get('estimator')}."


def _other_counts(table: Table) -> str:
    """The n of each column that is not what `row_n` says: recall's is the number of real images."""
    first = {id(row): next(iter(row.cells.values())).n for row in table.rows}
    counts = {(c, cell.n) for row in table.rows for c, cell in row.cells.items() if cell.n != first[id(row)]}
    return "".join(f"; the n of {column} is {n:,}" for column, n in sorted(counts))


def row_name(row: Row) -> str:
    return f"{row.experiment}, {row.label}" if row.label else row.experiment


def row_n(row: Row) -> str:
    """Over how many seeds or models, and how many images one of them was measured on: of its first score."""
    cell = next(iter(row.cells.values()))
    several = f"{cell.reading.size} {'models' if cell.reading.models else 'seeds'}"
    return f"{several if cell.reading.size > 1 else '1 run'} × {cell.n:,}"


def cell_text(cell: Cell) -> str:
    """`−101.23 ± 0.41`: down to the error's second digit, four decimals at most; without error four digits."""
    mean, error = cell.reading.mean, cell.error
    if math.isfinite(error) and error > 0:
        return number(mean, min(4, max(0, 1 - math.floor(math.log10(error)))), error)
    digits = 2 if mean == 0 else min(4, max(0, 3 - math.floor(math.log10(abs(mean)))))
    return number(mean, digits, error if cell.reading.size > 1 else math.nan)


def frame(table: Table) -> pd.DataFrame:
    """The table as text, a row a model, for a notebook, a CSV file or LaTeX."""
    rows = []
    for row in table.rows:
        texts = {c: cell_text(row.cells[c]) if c in row.cells else "–" for c in table.columns}
        rows.append({"model": row_name(row), "paper": row.paper, "row": row.sort, **texts, "n": row_n(row)})
    return pd.DataFrame(rows)


def latex(table: Table) -> str:
    text = frame(table)
    sides = ["left"] * 3 + ["right"] * (len(text.columns) - 3)
    return booktabs(text, f"summary/table-{table.slug}", caption(table), sides)


def records(table: Table) -> Iterator[dict[str, Any]]:
    """One record for each cell, with every digit, its protocol and the runs behind it."""
    for row in table.rows:
        for column, cell in row.cells.items():
            yield {
                "table": table.slug,
                "preset": table.preset,
                "paper": row.paper,
                "model": row_name(row),
                "row": row.sort,
                "score": column,
                "unit": cell.reading.unit,
                "mean": cell.reading.mean,
                "sd": cell.reading.spread,
                "values": list(cell.reading.values),
                "stderrs": list(cell.reading.stderrs),
                "over": "models" if cell.reading.models else "seeds",
                "n": cell.n,
                "runs": [{"seed": seed, "paper": paper, "fingerprint": f} for seed, paper, f in cell.runs],
                "protocol": dict(cell.protocol),
            }


def markdown(table: Table) -> str:
    """The table for a README: one line a row."""
    text = frame(table)
    lines = [text.columns.tolist(), ["---"] * 3 + ["---:"] * (len(text.columns) - 3), *text.to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def verdicts_markdown(reports: Sequence[Mapping[str, Any]], words: Sequence[str]) -> str:
    """How many claims of each report got which verdict, from the reports' records, for a README."""
    lines = [["paper", "preset", *words], ["---"] * 2 + ["---:"] * len(words)]
    for report in reports:
        page = f"reports/published/{report['preset']}/{report['paper']}.html"
        counted = [str(report["verdicts"][word]) for word in words]
        lines.append([f"[`{report['paper']}`]({page})", report["preset"], *counted])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
