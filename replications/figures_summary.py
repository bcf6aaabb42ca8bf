"""Figures across papers, drawn from the tables of `replications.summary`."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.claims import counts
from lib.reporting.markup import VERDICTS
from lib.reporting.style import WIDTH_INCHES
from lib.reporting.tables import number
from replications.papers import Results
from replications.summary import BASELINE, MODELS, REAL, Row, Table, row_name

# Two colours that the colour-blind can tell apart, and greys for what is no judgement of the claim.
_COLOURS = dict(zip(VERDICTS, ("#0173b2", "#56b4e9", "#de8f05", "#b0b0b0", "#dcdcdc"), strict=True))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def verdict_bars(studies: Sequence[Results]) -> Figure:
    """How many claims of each paper got which verdict; the count stands in the bar."""
    figure, axis = plt.subplots(figsize=(WIDTH_INCHES, 0.75 + 0.45 * len(studies)))
    for y, study in enumerate(studies):
        left = 0
        for word, count in counts(study.verdicts()).items():
            axis.barh(y, count, left=left, height=0.72, color=_COLOURS[word], label=word if y == 0 else None)
            if count > 2:
                dark = word in ("replicated",)
                axis.text(left + count / 2, y, str(count), ha="center", va="center", color="white" if dark else "black")
            left += count
    axis.set_yticks(range(len(studies)), [study.paper.key for study in studies])
    axis.invert_yaxis()
    axis.grid(False)
    axis.set_xlabel("claims")
    sns.despine(ax=axis, left=True)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=5, frameon=False)
    return figure


def score_dots(table: Table, column: str) -> Figure:
    """One score of every row, the models from low to high; real images as a band, baselines below."""
    rows = [row for row in table.rows if column in row.cells and row.sort != REAL]
    rows.sort(key=lambda row: (row.sort == BASELINE, row.cells[column].reading.mean))
    figure, axis = plt.subplots(figsize=(WIDTH_INCHES, 0.9 + 0.23 * len(rows)))
    papers = sorted({row.paper for row in rows})
    colours = dict(zip(papers, sns.color_palette("colorblind", len(papers)), strict=True))
    for y, row in enumerate(rows):
        cell, model = row.cells[column], row.sort == MODELS
        error = cell.error if math.isfinite(cell.error) else 0.0
        marker, colour = _MARKERS[papers.index(row.paper)], colours[row.paper] if model else "0.45"
        axis.errorbar(cell.reading.mean, y, xerr=error, fmt=marker, color=colour, capsize=2, ms=5)
    real = [row.cells[column].reading.mean for row in table.rows if row.sort == REAL and column in row.cells]
    for value in real[:1]:
        axis.axvline(value, color="black", ls=":", lw=1.2)
        axis.annotate(f"real images {number(value, 2)}", (value, -0.8), xytext=(4, 0), textcoords="offset points",
                      fontsize="small", annotation_clip=False)  # fmt: skip
    axis.set_xscale("log" if all(row.cells[column].reading.mean > 0 for row in rows) else "linear")
    axis.set_yticks(range(len(rows)), [_named(row) for row in rows], fontsize="small")
    axis.set_ylim(len(rows) - 0.4, -1.6)
    axis.set_xlabel(f"{column}, {rows[0].cells[column].reading.unit}")
    axis.grid(axis="y", visible=False)
    return figure


def _named(row: Row) -> str:
    return f"{row_name(row)}  ({row.paper})"


def bound_dots(table: Table) -> Figure:
    """Every bound of every row of a likelihood table, in nats per image; from the loosest to the tightest."""
    points = [
        {"model": row_name(row), "estimate": column, "value": cell.reading.mean, "error": cell.error}
        for row in table.rows
        for column, cell in row.cells.items()
    ]
    frame = pd.DataFrame(points)
    low = 2 * frame["value"].median()  # a model that blew up would squeeze all others into a line
    order = frame.groupby("model")["value"].max().sort_values(ascending=False).index
    figure, axis = plt.subplots(figsize=(WIDTH_INCHES, 1.1 + 0.26 * len(order)))
    palette = sns.color_palette("colorblind", len(table.columns))
    for i, column in enumerate(table.columns):
        part = frame[(frame["estimate"] == column) & (frame["value"] > low)]
        ys = [order.get_loc(model) for model in part["model"]]
        errors = part["error"].where(part["error"].notna(), 0.0)
        axis.errorbar(
            part["value"],
            ys,
            xerr=errors,
            fmt=_MARKERS[i % len(_MARKERS)],
            color=palette[i],
            capsize=2,
            ms=5,
            label=column,
        )
    for _, row in frame[frame["value"] <= low].iterrows():
        text = f"← {row['estimate'].split(' (')[0]} {number(row['value'], 0, row['error'])}"
        place = (0.01, order.get_loc(row["model"]))
        axis.annotate(text, place, xycoords=("axes fraction", "data"), fontsize="small", va="center")
    axis.set_yticks(range(len(order)), order, fontsize="small")
    axis.invert_yaxis()
    axis.set_xlabel("log p(x) and bounds on it, nats per image")
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize="small")
    return figure
