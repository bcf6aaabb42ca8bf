"""Deep hierarchies and decoders that ignore z, in figures and tables drawn from finished runs."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.execution.runs import Finished
from lib.reporting.sheets import image_sheet
from lib.reporting.tables import number
from lib.results import Score
from replications.papers import Results
from replications.vae2013.hierarchies import ACTIVE_KL, VARIANTS
from replications.vae2013.strong_decoder import StrongDecoderConfig

DEPTHS = (2, 5)
NAMES = {
    "plain": "plain", "warm-up": "warm-up", "free-bits": "free bits", "batch-norm": "BN",
    "batch-norm-warm-up": "BN,\nwarm-up", "ladder": "ladder,\nBN,\nwarm-up",
}  # fmt: skip
LONG = NAMES | {"batch-norm": "batch norm", "batch-norm-warm-up": "batch norm + warm-up",
                "ladder": "ladder + batch norm + warm-up"}  # fmt: skip
DECODERS = {  # also the order of panels and rows
    "weak": "pixels independent\ngiven z", "strong": "autoregressive,\ngiven z",
    "free-bits": "autoregressive,\ngiven z, free bits", "none": "autoregressive,\nwithout z",
}  # fmt: skip
LEAST_KL = 1e-3  # where the logarithmic axis of the bars begins


def hierarchies_of(results: Results, depth: int) -> dict[str, Finished]:
    """The finished run of each variant of that depth, in the order of VARIANTS."""
    found = {variant: results.finished(f"hierarchy-{depth}-{variant}") for variant in VARIANTS}
    return {variant: runs[0] for variant, runs in found.items() if runs}


def decoders_of(results: Results) -> dict[str, Finished]:
    """The finished run of each decoder, in the order of DECODERS."""
    found = {decoder: results.finished(f"decoder-{decoder}") for decoder in DECODERS}
    return {decoder: runs[0] for decoder, runs in found.items() if runs}


def layers(results: Results) -> Figure:
    """Divergence and active units of each layer by variant, a column for each depth: means over models, bars of sd."""
    depths = [depth for depth in DEPTHS if hierarchies_of(results, depth)]
    figure, axes = plt.subplots(
        2, len(depths), figsize=(9.2, 6.0), squeeze=False, sharey="row", sharex="col", layout="constrained",
        gridspec_kw={"width_ratios": [1 if depth == 2 else 1.25 for depth in depths]},
    )  # fmt: skip
    for (above, below), depth in zip(axes.T, depths, strict=True):
        runs = hierarchies_of(results, depth)
        _bars(above, runs, depth, "kl")
        _bars(below, runs, depth, "units_kl")
        for place, outcome in enumerate(runs.values()):  # Burda's rule as a mark on each of Sonderby's bars
            x = place + _offsets(depth)
            counts = [outcome.scores[f"units_variance_{level}"].value for level in range(1, depth + 1)]
            below.plot(x, counts, "_", color="0.1", markersize=7 if depth == 5 else 13, markeredgewidth=1.6)
        above.set(yscale="log", ylim=(LEAST_KL, None), title=f"{depth} stochastic layers")
        above.axhline(ACTIVE_KL, color="0.4", linestyle="--", linewidth=1)
        below.set_xticks(range(len(runs)), [NAMES[variant] for variant in runs], fontsize="x-small")
        for axis in (above, below):
            axis.grid(visible=False, axis="x")
    axes[0][0].set_ylabel("KL, nats per image")
    axes[1][0].set_ylabel("active units")
    axes[0][-1].legend(title="layer", ncols=5, fontsize="x-small", title_fontsize="x-small", loc="upper right")
    top = max(axis.get_ylim()[1] for axis in axes[0])
    axes[0][0].set_ylim(LEAST_KL, top * 6)  # room for the legend
    return figure


def _offsets(depth: int) -> np.ndarray:
    return (np.arange(depth) - (depth - 1) / 2) * 0.8 / depth


def _bars(axis: Axes, runs: dict[str, Finished], depth: int, name: str) -> None:
    colours = sns.color_palette("viridis", max(DEPTHS))
    for level, offset in enumerate(_offsets(depth)):
        scores = [outcome.scores[f"{name}_{level + 1}"] for outcome in runs.values()]
        heights, spreads = [score.value for score in scores], [_sd(score) for score in scores]
        axis.bar(np.arange(len(runs)) + offset, heights, 0.8 / depth, yerr=spreads, color=colours[level],
                 label=str(level + 1), error_kw={"linewidth": 0.8, "ecolor": "0.3"})  # fmt: skip


def _sd(score: Score) -> float:
    """Standard deviation over models; 0 for one of them, which has none."""
    return score.stderr * math.sqrt(score.n) if score.n > 1 else 0.0


def bounds_table(results: Results) -> pd.DataFrame:
    """Plain and importance-weighted bounds, and active units by both rules: mean ± sd over models."""
    rows = []
    for depth in DEPTHS:
        for variant, outcome in hierarchies_of(results, depth).items():
            s = outcome.scores
            units = [
                ", ".join(f"{s[f'units_{rule}_{level}'].value:.3g}" for level in range(1, depth + 1))
                for rule in ("kl", "variance")
            ]
            rows.append(
                {
                    "layers": str(depth),
                    "trained": LONG[variant].replace("\n", " "),
                    "bound, train": _cell(s["elbo_train"], 1),
                    "bound, test": _cell(s["elbo_test"], 1),
                    f"L_{outcome.run.config.n_importance} bound, test": _cell(s["iwae_test"], 1),
                    "KL, test": _cell(s["kl_test"], 1),
                    "active by KL, layers 1 up": units[0],
                    "active by variance, layers 1 up": units[1],
                }
            )
    return pd.DataFrame(rows)


def _cell(score: Score, digits: int) -> str:
    return number(score.value, digits, _sd(score) if score.n > 1 else math.nan)


def fixed_latents(results: Results) -> Figure:
    """Samples with z fixed along each row, a panel for each decoder; first in a row the test image that z is of."""
    runs = decoders_of(results)
    figure, axes = plt.subplots(1, len(runs), figsize=(9.2, 2.75), squeeze=False, layout="constrained")
    for axis, (decoder, outcome) in zip(axes[0], runs.items(), strict=True):
        images = outcome.tensors()["fixed_z"].float()  # (K, 1 + J, D)
        columns, side = images.shape[1], math.isqrt(images.shape[2])
        sheet = image_sheet(images.view(-1, 1, side, side), columns)[0].numpy()
        axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.axvline(side + 1, color="C1", linewidth=2)
        axis.set_title(DECODERS[decoder], fontsize="small")
        axis.axis("off")
    return figure


def decoders_table(results: Results) -> pd.DataFrame:
    """What tells that z is ignored, beside the bound that does not: mean ± sd over models."""
    rows = []
    for decoder, outcome in decoders_of(results).items():
        s, given = outcome.scores, decoder != "none"
        rows.append(
            {
                "decoder": DECODERS[decoder].replace("\n", " "),
                "log p(x), exact": "–" if given else _cell(s["elbo"], 2),
                "bound": _cell(s["elbo"], 2) if given else "–",
                f"L_{outcome.run.config.n_draws} bound": _cell(s["iwae"], 2) if given else "–",
                "KL": _cell(s["kl"], 2) if given else "–",
                "active by KL": _cell(s["units_kl"], 1) if given else "–",
                "by variance": _cell(s["units_variance"], 1) if given else "–",
                "log p(x|z) lost, z from the prior": _cell(s["used"], 2) if given else "–",
                "variance of samples due to z, %": number(
                    100 * s["explained"].value, 1, 100 * _sd(s["explained"])) if given else "–",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def captions(results: Results) -> dict[str, str]:
    """The captions of those exhibits of this module that have a finished run."""
    found = {}
    deep = next((runs for depth in reversed(DEPTHS) if (runs := hierarchies_of(results, depth))), None)
    if deep:
        outcome = next(iter(deep.values()))
        config, test, train = outcome.run.config, outcome.scores["elbo_test"], outcome.scores["elbo_train"]
        trained = (
            f"{config.n_models} models a variant, {config.n_steps:,} updates with minibatches of {config.batch}; "
            f"latents {', '.join(map(str, config.n_latent))} from the lowest layer up, in two layers the first two"
        )
        found["layers"] = (
            "Above: KL of each layer, mean over test images, on a logarithmic axis; dashed: 0.01 nats, above which a "
            "single unit counts as active by Sønderby's rule. Below: active units; bars by Sønderby's rule (KL), black "
            "strokes by Burda's (variance of the posterior mean over images > 0.01). Means over models, error bars: "
            f"standard deviation over models. {trained}."
        )
        found["bounds"] = (
            f"The plain bound, whatever was maximised, on {config.n_train_images:,} training images "
            f"({train.protocol['draws']} draws of z an image) and the test images ({test.protocol['draws']} draws); "
            f"{test.protocol['data']}, {test.protocol['observation']}. Nats per image, mean ± standard deviation over "
            f"models; units: means over models. {trained}."
        )
    decoders = decoders_of(results)
    if decoders:
        outcome = next(iter(decoders.values()))
        drawn: StrongDecoderConfig = outcome.run.config
        trained = f"{drawn.n_models} models each, {drawn.n_steps:,} updates with minibatches of {drawn.batch}"
        found["fixed"] = (
            "Samples of each decoder's first model, not selected. In each row z is the same, one draw of q(z|x) for "
            "the test image left of the line. Where rows resemble their image, z is used. Without z the rows are like "
            f"any others. {outcome.scores['elbo'].protocol['observation']}; {trained}."
        )
        found["decoders"] = (
            f"Test images, {outcome.scores['elbo'].protocol['observation']}, so not to be compared with 28 × 28 "
            f"digits. Nats per image, mean ± standard deviation over models. Units: of {drawn.n_latent}. The last "
            f"column is Var(E[x|z]) / Var(x) over samples, estimated from pairs with the same z. {trained}."
        )
    return found
