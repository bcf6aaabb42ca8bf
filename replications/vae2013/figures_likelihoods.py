"""The likelihood table: every bound of a model in a column of its own; and what others report, under their protocol."""

import itertools

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.claims import Reading
from lib.execution.runs import Finished
from lib.reporting.tables import cell, number, reading
from replications.papers import Results
from replications.vae2013.config import AevbConfig
from replications.vae2013.iwae import N_CURVE_IMAGES, IwaeConfig
from replications.vae2013.likelihoods import KS

COLUMNS = {"few_elbo": "ELBO", **{f"few_iwae_{k}": f"L_{k:,}" for k in KS}, "few_ais": "AIS, lower bound"}
BRACKET = {
    f"simulated_iwae_{KS[-1]}": f"L_{KS[-1]:,}", "ais_lower": "AIS, lower bound", "ais_upper": "AIS, upper bound",
    "ais_gap": "upper − lower",
}  # fmt: skip
BURDA = "MNIST, binarised anew at each visit; 3,280 epochs; 5,000 importance samples, test images"
# Values of others are theirs, under protocols that differ from ours and from each other: no column holds both.
THEIRS = (
    ("Burda et al. 2015, VAE, k = 1", "−86.76", "19, from memory", BURDA),
    ("Burda et al. 2015, IWAE, k = 5", "−85.54", "22, from memory", BURDA),
    ("Burda et al. 2015, IWAE, k = 50", "−84.78", "25, from memory", BURDA),
    ("Burda et al. 2015, VAE, k = 1, fixed binarisation", "−88.71", "–", "as above, pixels drawn once for all"),
    ("a TensorFlow 2 port of it, k = 1", "−87.75", "–", "its own; read in the repository"),
    ("xqding's PyTorch port, VAE, k = 1", "−87.78", "–", "its own; read in the repository"),
    ("pythae, VAE", "−89.78 ± 0.01", "–", "binary MNIST, 200 importance samples; its reference 89.9"),
    ("pythae, IWAE, k = 50", "−86.82", "–", "binary MNIST, 200 importance samples; its reference 87.1"),
    ("mean-field VAE, 128 latents, 2 × 256 units", "−97.10", "–", "fixed binarisation (Larochelle); ELBO −103.31"),
    ("3 latents, 400 units", "−122.41", "–", "100 importance samples"),
    ("fully connected VAE", "−86.83", "–", "5,000 importance samples; −90.85 with one, −87.00 with 100"),
)  # fmt: skip


def models(results: Results) -> dict[str, tuple[str, list[Finished]]]:
    """Experiment -> (label, finished runs) of those that have the table's bounds, in the table's order."""
    found: dict[str, tuple[str, list[Finished]]] = {}
    for outcome in results.finished():
        config = outcome.run.config
        if "few_elbo" not in outcome.scores:
            continue
        if isinstance(config, AevbConfig):
            label = f"AEVB, one layer of {config.n_hidden}, N_z = {config.n_latent}"
        elif isinstance(config, IwaeConfig):
            objective = "VAE" if config.k == 1 else f"IWAE, k = {config.k}"
            label = f"Burda's, two layers of {config.n_hidden}, N_z = {config.n_latent}, {objective}"
            label += f", {outcome.facts['epochs']:,} epochs"
        else:
            continue
        found.setdefault(outcome.run.experiment, (label, []))[1].append(outcome)
    order = sorted(found, key=lambda name: (name.startswith("iwae"), name.startswith("iwae-k"), _size(found[name][1])))
    return {name: found[name] for name in order}


def _size(runs: list[Finished]) -> int:
    config = runs[0].run.config
    return config.k if isinstance(config, IwaeConfig) else config.n_latent


def table(results: Results) -> pd.DataFrame:
    """Ours: mean ± standard deviation over seeds, all on the same few test images."""
    return _table(results, COLUMNS)


def bracket_table(results: Results) -> pd.DataFrame:
    """Both sides, on images simulated from each model: mean ± standard deviation over seeds."""
    return _table(results, BRACKET)


def _table(results: Results, columns: dict[str, str]) -> pd.DataFrame:
    rows = []
    for label, runs in models(results).values():
        row = {"model": label, "seeds": str(len(runs))}
        row |= {heading: cell(runs, score, 2) for score, heading in columns.items()}
        last = runs[0].scores[list(columns)[-1]]
        rows.append({**row, "s.e. over images": number(last.stderr, 2)})
    return pd.DataFrame(rows)


def all_test_images(results: Results) -> pd.DataFrame:
    """The two bounds that are measured on every test image, and active units; mean ± standard deviation over seeds."""
    rows = []
    for label, runs in models(results).values():
        weighted = runs[0].scores["iwae_test"]
        rows.append(
            {
                "model": label,
                "ELBO": cell(runs, "elbo_test", 2),
                f"L_{weighted.protocol['draws']}": cell(runs, "iwae_test", 2),
                "s.e. over images": number(weighted.stderr, 2),
                "active units": cell(runs, "active_units", 1),
            }
        )
    return pd.DataFrame(rows)


def schedule_table(results: Results) -> pd.DataFrame:
    """The bound after each stage of Burda et al.'s schedule, by epochs so far: what a stage more was worth."""
    rows = []
    for label, runs in models(results).values():
        if not isinstance(runs[0].run.config, IwaeConfig):
            continue
        bounds = zip(*([row["elbo_test"] for row in run.history()] for run in runs), strict=True)  # stages x seeds
        stages = [Reading(over_seeds, (), "nats/image") for over_seeds in bounds]
        after = {
            f"ELBO at epoch {(3 ** (i + 1) - 1) // 2}": number(stage.mean, 1, stage.spread)
            for i, stage in enumerate(stages)
        }
        gains = [later.mean - sooner.mean for sooner, later in itertools.pairwise(stages)]
        last = number(gains[-1] / gains[-2], 2) if len(gains) > 1 else "–"
        rows.append({"model": label, "seeds": str(len(runs)), **after, "last gain / the one before": last})
    return pd.DataFrame(rows).fillna("–")


def theirs() -> pd.DataFrame:
    """What others report of such models."""
    return pd.DataFrame(THEIRS, columns=["model", "reported, nats/image", "active units", "their protocol"])


def bounds(results: Results) -> Figure:
    """Each model's bound against the number of importance samples, its annealed estimate as a line; mean over seeds."""
    figure, axis = plt.subplots(figsize=(8.0, 4.2))
    names = ["few_elbo", *(f"few_iwae_{k}" for k in KS)]
    for n, (label, runs) in enumerate(models(results).values()):
        values = [read.mean for name in names if (read := reading(runs, name))]
        axis.plot([1, *KS], values, "o-", color=f"C{n}", label=label)
        if annealed := reading(runs, "few_ais"):
            axis.axhline(annealed.mean, color=f"C{n}", linestyle=":", linewidth=1.2)
    axis.set(xscale="log", xlabel="importance samples (1: the ELBO)", ylabel="lower bound on log p(x),\nnats per image")
    figure.legend(loc="outside upper center", ncols=1, fontsize="small")
    return figure


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits; none where no run has the bounds."""
    found = models(results)
    if not found:
        return {}
    runs = next(iter(found.values()))[1]
    ais, gap = runs[0].scores["few_ais"], runs[0].scores["ais_gap"]
    how = (
        f"annealing: {ais.protocol['n_distributions']} distributions from q(z|x) to the posterior, "
        f"{ais.protocol['n_chains']} chains, {ais.protocol['n_leapfrog']} leapfrog steps"
    )
    return {
        "table": (
            f"Lower bounds on log p(x) of the same {ais.n} test images of {ais.protocol['data']} "
            f"({ais.protocol['observation']}), nats per image, mean ± standard deviation over seeds; {how}. The error "
            "in the last column is of the last bound, one seed, over images: another draw of images would move all "
            "columns together by as much."
        ),
        "bracket": (
            f"The same on {gap.n} images simulated from each model, where an exact posterior draw is known: on average "
            f"log p(x) lies between the two columns of annealing; {how}. Images differ from model to model, so rows do "
            "not compare."
        ),
        "all": "All test images: the bound and the importance-weighted bound, nats per image.",
        "bounds": (
            f"Bounds of the same {ais.n} test images against the number of importance samples; dotted: the lower "
            "bound by annealing. Mean over seeds."
        ),
        "schedule": (
            "Burda et al. train in stages, each of three times the epochs of the one before at a smaller step: the "
            f"bound (2 draws) of the first {N_CURVE_IMAGES:,} test images after each stage that ran, nats per image, "
            "mean ± standard deviation over seeds. Theirs ends after eight stages, 3,280 epochs."
        ),
        "theirs": "As others report it: not comparable with our columns nor, where protocols differ, with each other.",
    }
