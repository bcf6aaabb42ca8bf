"""Figure 3 and its table, drawn from finished runs."""

from typing import Literal

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.papers import Results
from replications.vae2013.marginal import MarginalConfig

ALGORITHMS = {"aevb": "AEVB", "wake-sleep": "wake-sleep", "mcem": "Monte Carlo EM"}  # also the order of colours
STYLES: dict[str, Literal["--", "-"]] = {"train": "--", "test": "-"}
COLUMNS = {  # score: heading, digits
    "appendix_d_train": ("appendix D, train", 1), "appendix_d_test": ("appendix D, test", 1),
    "gap": ("train − test", 1), "equal_work_test": ("appendix D, test, equal work", 1),
    "is_fitted_test": ("IS, fitted Gaussian, test", 1), "is_encoder_test": ("IS, encoder, test", 1),
    "excess_test": ("appendix D − IS, fitted, test", 2),
}  # fmt: skip


def runs_of(results: Results) -> dict[tuple[str, int], Finished]:
    """The finished run of each (algorithm, number of training images), fewer images first."""
    found = {}
    for outcome in results.finished():
        config = outcome.run.config
        if isinstance(config, MarginalConfig):
            found[config.algorithm, config.n_train] = outcome
    return dict(sorted(found.items(), key=lambda item: (item[0][1], list(ALGORITHMS).index(item[0][0]))))


def curves(results: Results) -> Figure:
    """Figure 3, a column for each number of training images: against samples evaluated, and against work below."""
    runs = runs_of(results)
    sizes = sorted({n for _, n in runs})
    figure, axes = plt.subplots(2, len(sizes), figsize=(8.0, 6.0), sharey=True, squeeze=False)
    for (algorithm, n_train), outcome in runs.items():
        column = axes[:, sizes.index(n_train)]
        for axis, over in zip(column, ("samples", "gflop"), strict=True):
            _curve(axis, outcome, over, sns.color_palette()[list(ALGORITHMS).index(algorithm)])
        column[0].set(title=f"N = {n_train:,}", xlabel="samples evaluated, thousands")
        column[1].set(xlabel="work of each model, GFLOP (log axis)", xscale="log")
        column[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        column[1].xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        column[1].xaxis.set_minor_formatter(NullFormatter())
    for axis in axes[:, 0]:
        axis.set_ylabel("log p(x), nats per image")
    shown = [name for name in ALGORITHMS if name in {algorithm for algorithm, _ in runs}]
    colours = [Line2D([], [], color=sns.color_palette()[list(ALGORITHMS).index(name)]) for name in shown]
    lines = [Line2D([], [], color="0.3", linestyle=style) for style in STYLES.values()]
    labels = [ALGORITHMS[name] for name in shown] + list(STYLES)
    figure.legend(colours + lines, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _curve(axis: Axes, outcome: Finished, over: str, colour: tuple[float, float, float]) -> None:
    """Mean over models on training and test images, and the models' range on test images."""
    rows = pd.DataFrame(outcome.history())
    x = rows[over] / (1000 if over == "samples" else 1)
    for split, style in STYLES.items():
        axis.plot(x, rows[f"appendix_d_{split}"], style, color=colour, marker=".")
    models = rows[[f"appendix_d_test_{r}" for r in range(outcome.run.config.n_models)]]
    axis.fill_between(x, models.min(axis=1), models.max(axis=1), color=colour, alpha=0.18, linewidth=0)


def table(results: Results) -> pd.DataFrame:
    """Every estimate at the end of training, each in a column of its own; mean ± standard error over models."""
    rows = []
    for (algorithm, n_train), outcome in runs_of(results).items():
        cells = {}
        for name, (heading, digits) in COLUMNS.items():
            score = outcome.scores.get(name)
            cells[heading] = "–" if score is None else number(score.value, digits, score.stderr)
        rows.append({"N": f"{n_train:,}", "algorithm": ALGORITHMS[algorithm], **cells})
    return pd.DataFrame(rows)


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; none where no run is finished."""
    runs = runs_of(results)
    if not runs:
        return {}
    config: MarginalConfig = next(iter(runs.values())).run.config
    work = {algorithm: outcome.facts["products"] for (algorithm, _), outcome in runs.items()}
    cost = ", ".join(f"{count} {ALGORITHMS[name]}" for name, count in work.items())
    protocol = (
        f"{config.n_models} models an algorithm, {config.n_hidden} hidden units, {config.n_latent} latents; the first "
        f"{config.n_images:,} training and test images of {config.data}, binarised once; estimator of appendix D with "
        f"{config.n_posterior} + {config.n_posterior} draws by HMC"
    )
    return {
        "curves": (
            "Estimated log p(x) while training on N images: dashed on training images, solid on test images; lines are "
            "means over models, bands the models' range on test images. Above, as in the paper, against samples "
            "evaluated, where an image counts once a visit; below the same curves against the work done. Large matrix "
            f"products for each sample: {cost}. {protocol}."
        ),
        "table": (
            f"After {config.n_samples:,} samples, nats per image, mean ± standard error over models. Equal work: where "
            "Monte Carlo EM has done as many large matrix products as AEVB in its whole training. Appendix D's "
            "estimate is too high on average and importance sampling (IS) too low, by amounts that fall with more "
            f"draws; IS takes {config.n_importance:,} samples from the encoder's Gaussian or from one fitted to "
            f"posterior draws. {protocol}. The images' own difference between train and test is in every row alike."
        ),
    }
