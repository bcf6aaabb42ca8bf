"""Figure 2 whole: AEVB against wake-sleep, a panel for each N_z, and by how much the one leads the other."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.execution.runs import Finished
from lib.reporting.tables import number
from replications.papers import Results
from replications.vae2013.config import AevbConfig
from replications.vae2013.side_by_side import CurveConfig

ALGORITHMS = {"aevb": "AEVB", "wake-sleep": "wake-sleep"}  # also the order of colours
STYLES = {"train": "--", "test": "-"}
TITLES = {"mnist": "MNIST", "mnist-5k": "MNIST-5k", "frey-face": "Frey Face"}
PIXELS = {"mnist": 784, "mnist-5k": 784, "frey-face": 560}
START = 1000  # samples: before it the curves are still on their way from the random start
ROOM = 0.06  # of a panel's height, above and below what it shows


def curves(results: Results) -> pd.DataFrame:
    """Long data of every curve: data, algorithm, N_z, images, samples, model, bound in nats per image.

    `model` counts the seeds of experiments that train one model a run, and the models of those that train many.
    """
    rows = []
    for outcome in results.finished():
        config = outcome.run.config
        if not isinstance(config, AevbConfig | CurveConfig):
            continue
        algorithm = config.algorithm if isinstance(config, CurveConfig) else "aevb"
        for row in outcome.history():
            for images in STYLES:
                for model, bound in _bounds(outcome, row, images).items():
                    rows.append((config.data, algorithm, config.n_latent, images, int(row["samples"]), model, bound))
    return pd.DataFrame(rows, columns=["data", "algorithm", "N_z", "images", "samples", "model", "bound"])


def _bounds(outcome: Finished, row: dict[str, float], images: str) -> dict[int, float]:
    """Each model's bound in one row of a run's history."""
    config = outcome.run.config
    if isinstance(config, AevbConfig):
        return {outcome.run.seed: row[f"elbo_{images}"]}
    first = outcome.run.seed * config.n_models  # another seed of the same experiment brings other models
    return {first + r: row[f"elbo_{images}_{r}"] for r in range(config.n_models)}


def panels(data: pd.DataFrame) -> list[tuple[str, int]]:
    """(data set, N_z) of figure 2's panels: those for which there is wake-sleep, in rising order, digits first."""
    found = data.loc[data["algorithm"] == "wake-sleep", ["data", "N_z"]].drop_duplicates()
    return sorted(found.itertuples(index=False, name=None), key=lambda each: (list(TITLES).index(each[0]), each[1]))


def learning_curves(results: Results) -> Figure:
    """Figure 2: bound against samples evaluated; median over models, band from the lowest to the highest."""
    data = curves(results)
    data = data[data["samples"] >= START]
    spread = data.groupby(["data", "N_z", "algorithm", "images", "samples"])["bound"].agg(["median", "min", "max"])
    shown = panels(data)
    sets = list(dict.fromkeys(name for name, _ in shown))
    width = max((sum(name == each for name, _ in shown) for each in sets), default=1)
    figure, axes = plt.subplots(
        len(sets) or 1, width, figsize=(8.0, 2.9 * (len(sets) or 1)), sharey="row", squeeze=False
    )
    colours = dict(zip(ALGORITHMS, sns.color_palette(n_colors=2), strict=True))
    for row, name in zip(axes, sets, strict=False):
        latents = [n for each, n in shown if each == name]
        for axis, n_latent in zip(row, latents, strict=False):
            for algorithm in ALGORITHMS:
                for images, style in STYLES.items():
                    if (name, n_latent, algorithm, images) not in spread.index.droplevel("samples"):
                        continue
                    line = spread.loc[name, n_latent, algorithm, images]
                    colour, label = colours[algorithm], f"{ALGORITHMS[algorithm]}, {images}"
                    axis.plot(line.index, line["median"], style, color=colour, label=label, linewidth=1.3)
                    axis.fill_between(line.index, line["min"], line["max"], color=colour, alpha=0.2, linewidth=0)
            axis.set(xscale="log", title=f"$N_z$ = {n_latent}", xlim=(START, None))
        for axis in row[len(latents) :]:
            axis.axis("off")
        row[0].set(ylabel=f"{TITLES[name]}: bound,\nnats per image", ylim=_limits(spread.loc[name]["median"]))
    figure.supxlabel("samples evaluated", fontsize="medium")  # once: five panels leave no room for it in each
    if shown:
        drawn = (zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes.flat)  # a panel may lack some
        lines = {label: handle for pairs in drawn for handle, label in pairs}
        labels = [f"{ALGORITHMS[a]}, {images}" for a in ALGORITHMS for images in STYLES]
        there = [label for label in labels if label in lines]
        figure.legend([lines[label] for label in there], there, loc="outside upper center", ncols=4, fontsize="small")
    return figure


def _limits(medians: pd.Series) -> tuple[float, float]:
    """Room for AEVB's medians in the last tenth of the samples and all above, and as much again below for the rise.

    Curves that stay below are cut off, as in the paper: wake-sleep begins some orders of magnitude lower.
    """
    names, samples, latents = (medians.index.get_level_values(level) for level in ("algorithm", "samples", "N_z"))
    led = latents.isin(latents[names == "aevb"])  # panels that have AEVB; elsewhere wake-sleep is all there is
    late = medians[(samples >= 0.1 * samples.max()) & ((names == "aevb") | ~led)]
    low, high = late.min(), medians.max()
    span = max(high - low, 1e-9)
    return low - span, high + ROOM * span


def leads(results: Results) -> pd.DataFrame:
    """AEVB against wake-sleep, a row a panel, by median curves at the points that both have from START on.

    Medians, for one wake-sleep model of N_z = 200 may lie 1e5 nats below the others, and a mean would be its.

    lead_least: the least of AEVB's bound minus wake-sleep's, nats per image, on test images; at: samples there;
    ahead, points: at how many of how many points AEVB is ahead; level: wake-sleep's last bound; reached: samples at
    AEVB's first own point, from START on, that is not below it, nan if none; factor: wake-sleep's samples divided by
    those.
    """
    data = curves(results)
    data = data[(data["images"] == "test") & (data["samples"] >= START)]
    median = data.groupby(["data", "N_z", "algorithm", "samples"])["bound"].median()
    rows = []
    for name, n_latent in panels(data):
        if (name, n_latent, "aevb") not in median.index.droplevel("samples"):
            continue
        aevb, rival = (median.loc[name, n_latent, algorithm] for algorithm in ALGORITHMS)
        lead = (aevb - rival).dropna()
        level, at_end = rival.iloc[-1], rival.index[-1]
        there = aevb.index[aevb >= level]
        reached = float(there[0]) if len(there) else math.nan
        rows.append(
            {
                "data": name, "N_z": n_latent, "lead_least": lead.min(), "at": lead.idxmin(),
                "ahead": int((lead > 0).sum()), "points": len(lead), "lead_end": lead.iloc[-1],
                "level": level, "reached": reached, "factor": at_end / reached,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def leads_table(results: Results) -> pd.DataFrame:
    """`leads` for reading."""
    rows = []
    for row in leads(results).to_dict("records"):
        there = not math.isnan(row["reached"])
        bound = "≥ " if row["reached"] <= START else ""  # there from the first point that counts, or earlier
        rows.append(
            {
                "data": TITLES[row["data"]],
                "N_z": str(row["N_z"]),
                "AEVB ahead, points": f"{row['ahead']} of {row['points']}",
                "least lead, nats": number(row["lead_least"], 1),
                "at samples": f"{row['at']:,}",
                "lead at the end, nats": number(row["lead_end"], 1),
                "wake-sleep's last bound": number(row["level"], 1),
                "AEVB there after": f"{row['reached']:,.0f}" if there else "not reached",
                "times fewer samples": f"{bound}{row['factor']:.1f}" if there else "–",
            }
        )
    return pd.DataFrame(rows)


def bounds_table(results: Results) -> pd.DataFrame:
    """Final numbers of the models trained side by side, mean ± standard error over models."""
    rows = []
    for outcome in results.finished():
        if not isinstance(config := outcome.run.config, CurveConfig):
            continue
        cell = {name: number(score.value, 1, score.stderr) for name, score in outcome.scores.items()}
        rows.append(
            {
                "data": TITLES[config.data],
                "trained by": ALGORITHMS[config.algorithm],
                "N_z": str(config.n_latent),
                "samples": f"{config.n_samples:,}",
                "bound, train": cell["elbo_train"],
                "bound, test": cell["elbo_test"],
                "gap": cell["gap"],
                "KL term, test": cell["kl_test"],
                "active units": cell["active_units"],
            }
        )
    return pd.DataFrame(rows)


# Products of pixels and hidden units for each image: encoder, and decoder for each output that a pixel has. AEVB: the
# encoder forward and its weights' gradient; the decoder forward, its weights' gradient and its input's. Wake-sleep has
# the encoder forward once more, on dreams, and the decoder forward once more, to dream.
PRODUCTS = {"aevb": (2, 3), "wake-sleep": (3, 4)}


def large_flop(config: AevbConfig | CurveConfig, n_pixels: int) -> float:
    """Of one image in training, in the products that grow with the number of pixels; two operations a multiply-add."""
    algorithm = config.algorithm if isinstance(config, CurveConfig) else "aevb"
    outputs = 2 if config.observation == "gaussian" else 1
    encoder, decoder = PRODUCTS[algorithm]
    return 2.0 * n_pixels * config.n_hidden * (encoder + outputs * decoder)


def speed_table(results: Results) -> pd.DataFrame:
    """Minutes a million samples of whole runs, evaluation included, and the rate of products; and the paper's own."""
    rows = []
    for outcome in results.finished():
        config = outcome.run.config
        if outcome.run.seed or not isinstance(config, AevbConfig | CurveConfig):
            continue
        n_models = config.n_models if isinstance(config, CurveConfig) else 1
        samples, seconds = n_models * config.n_samples, max(outcome.provenance["wall_seconds"], 1e-3)
        rate = samples * large_flop(config, PIXELS[config.data]) / seconds / 1e9
        rows.append(
            {
                "run": f"{outcome.run.experiment}, seed 0",
                "models × samples": f"{n_models} × {config.n_samples:,}",
                "device": f"{outcome.provenance['device']} × {outcome.provenance['threads']}",
                "minutes a million samples": number(seconds / 60 / samples * 1e6, 2),
                "GFLOP/s in large products": number(rate, 1),
            }
        )
    paper = {
        "run": "the paper, section 5", "models × samples": "–", "device": "Intel Xeon",
        "minutes a million samples": "20 to 40", "GFLOP/s in large products": "40",
    }  # fmt: skip
    return pd.DataFrame([*rows, paper])


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; none where there is no wake-sleep."""
    runs = [o for o in results.finished() if isinstance(o.run.config, CurveConfig)]
    rival = [o.run.config for o in runs if o.run.config.algorithm == "wake-sleep"]
    if not rival:
        return {}
    config: CurveConfig = rival[0]
    ends = sorted({each.n_samples for each in rival})
    floors = sorted({each.logvar_floor for each in rival if each.observation == "gaussian"})
    floor = f" Gaussian pixels: log variances at least {floors[0]:g}." if floors else ""
    measured = (
        f"The same bound for both, {config.n_curve_images:,} images of a split, drawn once; wake-sleep's with "
        f"{config.n_curve_draws} draws of z an image, to {' and '.join(f'{n:,}' for n in ends)} samples."
    )
    return {
        "curves": (
            "Figure 2. Median over models; band: from the lowest to the highest of them. Dashed: training images, "
            f"solid: test images. What a panel lacks lies below its axis. {measured}{floor}"
        ),
        "leads": (
            f"AEVB's test bound minus wake-sleep's, median curves, at the points both have from {START:,} samples on; "
            f"and where AEVB's curve first reaches wake-sleep's last bound. {measured}"
        ),
        "bounds": (
            f"Final bounds on whole splits, {config.n_elbo_draws} draws of z an image; mean ± standard error over "
            f"models trained side by side.{floor}"
        ),
    }
