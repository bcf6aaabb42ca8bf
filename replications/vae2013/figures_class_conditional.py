"""Generative against discriminative classifiers, drawn from finished runs."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.papers import Results
from replications.vae2013.class_conditional import ClassConditionalConfig

CLASSIFIERS = {  # score: label
    "generative_error": "generative, by the bound", "generative_error_tighter": "generative, by the tighter bound",
    "discriminative_error": "discriminative network", "logistic_error": "logistic regression",
    "knn_error": "nearest neighbour", "majority_error": "most frequent class",
}  # fmt: skip


def runs_of(results: Results) -> list[Finished]:
    """The finished runs, fewest labels first."""
    found = [o for o in results.finished() if isinstance(o.run.config, ClassConditionalConfig)]
    return sorted(found, key=lambda o: o.run.config.n_labels)


def errors(results: Results) -> Figure:
    """Error on test digits against the number of labels; a dot for each model, lines through means."""
    runs = runs_of(results)
    labels = [o.run.config.n_labels for o in runs]
    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    styles = {"generative_error": ("C0", "o-"), "discriminative_error": ("C1", "s-"), "logistic_error": ("0.5", ":"),
              "knn_error": ("0.5", "--")}  # fmt: skip
    for name, (colour, style) in styles.items():
        axis.plot(labels, [100 * o.scores[name].value for o in runs], style, color=colour, label=CLASSIFIERS[name])
        for n, outcome in zip(labels, runs, strict=True):
            each = [100 * value for value in outcome.facts.get(name, [])]
            axis.plot([n] * len(each), each, ".", color=colour, markersize=4)
    axis.set(xscale="log", yscale="log", xlabel="labels", ylabel="test digits misread, %")
    ticks = [5, 10, 20, 40]
    axis.set_xticks(labels, [f"{n:,}" for n in labels], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_yticks(ticks, [str(tick) for tick in ticks], minor=False)
    axis.set_yticks([], minor=True)
    axis.legend(fontsize="small")
    return figure


def table(results: Results) -> pd.DataFrame:
    """Every classifier's error in per cent, a column for each number of labels."""
    rows = []
    for name, label in CLASSIFIERS.items():
        row = {"classifier": label}
        for outcome in runs_of(results):
            score = outcome.scores[name]
            row[f"{outcome.run.config.n_labels:,} labels"] = number(100 * score.value, 1, 100 * score.stderr)
        rows.append(row)
    return pd.DataFrame(rows)


def measures_table(results: Results) -> pd.DataFrame:
    """What else tells the two kinds apart: a row for each measure."""
    names = {
        "generative_log_loss": ("log loss, generative, nats", 1, 2),
        "discriminative_log_loss": ("log loss, discriminative, nats", 1, 2),
        "bound_test": ("bound on log p(x), test, nats", 1, 1),
        "noise_drop": ("bound on log p(x): test digits above noise by, nats", 1, 0),
        "noise_confident": ("noise of which the discriminative network is confident, %", 100, 1),
        "recognised": ("joint draws (x, y) whose x is read as y, %", 100, 1),
        "recognised_real": ("real test digits read right by the same classifier, %", 100, 1),
    }
    rows = []
    for name, (label, factor, digits) in names.items():
        row = {"measure": label}
        for outcome in runs_of(results):
            score = outcome.scores.get(name)
            text = "–" if score is None else number(factor * score.value, digits, factor * score.stderr)
            row[f"{outcome.run.config.n_labels:,} labels"] = text
        rows.append(row)
    return pd.DataFrame(rows)


def sheet(results: Results) -> Figure:
    """x drawn given y: the sheet that the run with most labels wrote."""
    figure, axis = plt.subplots(figsize=(4.6, 4.6))
    picture = plt.imread(runs_of(results)[-1].folder / "samples.png")
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.axis("off")
    return figure


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; none where no run is finished."""
    runs = runs_of(results)
    if not runs:
        return {}
    config: ClassConditionalConfig = runs[-1].run.config
    sizes = runs[-1].facts["parameters"]
    models = f"{config.n_models} models of each kind, {config.n_steps:,} updates with minibatches of {config.batch}"
    return {
        "errors": (
            f"Test digits misread, both axes logarithmic; {models}, a dot each. Parameters: {sizes['generative']:,} "
            f"and {sizes['discriminative']:,}. Grey: well-known classifiers on the same labels, images binarised once."
        ),
        "table": (
            "Test digits misread, %, mean ± standard error over models; of well-known classifiers ± is binomial over "
            f"{runs[-1].scores['knn_error'].n:,} test digits. {models}. The tighter bound takes "
            f"{config.n_importance} importance samples."
        ),
        "measures": f"Mean ± standard error over models. {models}.",
        "sheet": (
            "x drawn given y: a row a class, a column one draw of z, shared by all rows; decoder means of the first "
            f"model trained on {config.n_labels:,} labels, the first draws, not selected."
        ),
    }
