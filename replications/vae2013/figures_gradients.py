"""Estimators, tightness and full variational Bayes in figures and tables, drawn from finished runs."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.claims import read_score
from lib.reporting.sheets import image_sheet
from lib.reporting.tables import number
from lib.results import Score
from replications.papers import Results
from replications.vae2013.evaluate import ACTIVE_VARIANCE
from replications.vae2013.gradients import true_variances
from replications.vae2013.linear_vae import UNITS

KINDS = {
    "inverse_cdf": "inverse distribution function",
    "location_scale": "location-scale",
    "composition": "composition",
}
ESTIMATORS = {  # also the order of colours
    "score": "score function",
    "baseline": "the same, baseline",
    "reparametrised": "reparametrised",
}
STAGES = {"start": "Before training", "trained": "Trained"}
FULL_BAYES = ("full-bayes-100", "full-bayes-1000")


def recipes_table(results: Results) -> pd.DataFrame:
    """Every law of section 2.4 that was drawn, and how far it is from what it should be; first seed."""
    rows = results.finished("reparametrisation")[0].facts["recipes"]
    return pd.DataFrame(
        {
            "recipe": KINDS[row["kind"]],
            "law": row["name"],
            "√n × KS distance": number(row["ks"], 2),
            "mean and variance, s.e.": number(_finite(row["moments"]), 1),
            "derivative of E z², s.e.": number(_finite(row["derivatives"]), 1),
        }
        for row in rows
    )


def _finite(value: float | None) -> float:
    """JSON has no nan: what was one came back as null."""
    return math.nan if value is None else value


def variances(results: Results) -> Figure:
    """Variance against dimension beside its closed form; the step function's derivative by a sigmoid in its place."""
    facts = results.finished("reparametrisation")[0].facts
    figure, axes = plt.subplots(1, 3, figsize=(8.0, 3.0))
    colours = dict(zip(ESTIMATORS, sns.color_palette(), strict=False))
    dimensions = np.unique(np.geomspace(1, max(row["dimensions"] for row in facts["squares"]), 40).round())
    for name, label in ESTIMATORS.items():
        rows = [row for row in facts["squares"] if row["estimator"] == name]
        axes[0].plot(dimensions, [true_variances(int(d))[name] for d in dimensions], color=colours[name], linewidth=1.2)
        axes[0].scatter([r["dimensions"] for r in rows], [r["variance"] for r in rows], s=26, color=colours[name],
                        label=label, zorder=3)  # fmt: skip
    axes[0].set(
        xscale="log",
        yscale="log",
        title="Of $|z|^2$",
        xlabel="dimensions",
        ylabel="variance of the gradient",
        ylim=(2, 3e6),
    )
    axes[0].legend(fontsize="x-small", loc="upper left", handletextpad=0.1)
    _step(axes[1], facts, "mean", colours)
    axes[1].axhline(facts["step_truth"], linestyle="--", color="0.35", linewidth=1)
    axes[1].set(title="Of a step, mean", ylabel="mean of the gradient", ylim=(0, None))
    _step(axes[2], facts, "variance", colours)
    axes[2].set(title="Of a step, variance", ylabel="variance of the gradient", yscale="log")
    return figure


def _step(axis: Axes, facts: dict[str, Any], column: str, colours: dict[str, Any]) -> None:
    soft = [row for row in facts["step"] if row["estimator"] == "reparametrised"]
    axis.plot([r["temperature"] for r in soft], [r[column] for r in soft], "o-", color=colours["reparametrised"],
              markersize=5)  # fmt: skip
    (score,) = (row for row in facts["step"] if row["estimator"] == "score")
    axis.axhline(score[column], color=colours["score"], linewidth=1.6)
    axis.set(xscale="log", xlabel="temperature")
    axis.invert_xaxis()


def estimators(results: Results) -> Figure:
    """Variance of the encoder's gradient against M, by A and B, all of it and what noise alone makes; mean of seeds."""
    found = results.finished("gradients")
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.6), squeeze=False)
    colours = dict(zip("ab", sns.color_palette(), strict=False))
    for axis, (stage, title) in zip(axes[0], STAGES.items(), strict=True):
        data = pd.concat([pd.DataFrame(outcome.facts[stage]) for outcome in found])
        mean = data.groupby(["draws", "images"]).mean()
        for (draws, marker), name, (key, style) in (
            (d, n, k)
            for d in zip(sorted(data["draws"].unique()), "os^", strict=False)
            for n in "ab"
            for k in (("variance", "-"), ("noise", ":"))
        ):
            rows = mean.loc[draws]
            what = "all" if key == "variance" else "images held"
            axis.plot(rows.index, rows[f"{key}_{name}"], style, marker=marker, markersize=5, color=colours[name],
                      label=f"{name.upper()}, L = {draws:g}, {what}")  # fmt: skip
        axis.set(xscale="log", yscale="log", title=title, xlabel="M, images a minibatch")
    axes[0][0].set_ylabel("variance of the gradient, nats²")
    axes[0][1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def estimators_table(results: Results) -> pd.DataFrame:
    """A beside B: variance of one bound, noise of the gradient at the largest M and L = 1; ± sd over seeds."""
    config = results.finished("gradients")[0].run.config
    of = f"m{max(config.images)}_l{min(config.draws)}"
    rows = []
    for stage, title in STAGES.items():
        for names, ratio, label, digits in (
            ("bound_{}", "bound_ratio", "bound of one image", 2),
            (f"noise_{{}}_{of}", "gradient_ratio", "encoder's gradient, images held", 2),
            (f"variance_{{}}_{of}", "", "encoder's gradient", 2),
        ):
            a, b = (read_score(f"gradients.{stage}_{names.format(name)}", results.outcomes) for name in "ab")
            cells = {
                f"estimator {name}, nats²": number(reading.mean, digits, reading.spread)
                for name, reading in (("A", a), ("B", b))
            }
            share = read_score(f"gradients.{stage}_{ratio}", results.outcomes) if ratio else None
            text = number(share.mean, 3, share.spread) if share else number(a.mean / b.mean, 3)
            rows.append({"model": title.lower(), "variance of": label, **cells, "A / B": text})
    return pd.DataFrame(rows)


def collapse(results: Results) -> Figure:
    """What is used: variance of each posterior mean against the closed form, and how many exceed the threshold."""
    outcome = results.finished("linear-vae")[0]
    config, facts = outcome.run.config, outcome.facts
    sweep = [model for model in facts["models"] if not model["name"].startswith("k")]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4))
    lambdas = np.array(facts["variances"])
    colours = sns.color_palette(n_colors=len(sweep))
    for model, colour in zip(sweep, colours, strict=True):
        level = model["noise_variance"] * model["beta"]
        line = np.geomspace(lambdas[config.n_latent - 1], lambdas[0], 200)
        left.plot(line, (1 - level / line).clip(0), color=colour, linewidth=1)
        spread = np.sort(np.array(model["spread"][0]))[::-1]
        label = f"s² = {model['noise_variance']:g}, β = {model['beta']:g}"
        marker = "o" if model["beta"] == 1 else "x"
        # Rings and crosses, for models of equal β s² lie on each other.
        look: dict[str, Any] = {"marker": marker, "linewidths": 1.3}
        look |= {"facecolors": "none", "edgecolors": [colour]} if marker == "o" else {"color": colour}
        left.scatter(lambdas[: len(spread)], spread, s=30, label=label, **look)
        used = outcome.scores[f"used_{model['name']}"].value
        right.scatter(level, used, s=60, zorder=3, **look)
    left.set(xscale="log", xlabel="eigenvalue λ of its direction", ylabel="variance of the posterior mean",
             title="Each latent of a model")  # fmt: skip
    left.legend(fontsize="x-small", loc="upper left", handletextpad=0.1)
    levels = np.geomspace(min(lambdas[config.n_latent - 1], 0.4), 6, 500)
    right.step(levels, [(lambdas > level).sum() for level in levels], color="0.4", linewidth=1, where="mid")
    right.set(xscale="log", xlabel="β s²", ylabel="latents in use", title="Eigenvalues above β s²")
    for axis in (left, right):
        axis.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        axis.minorticks_off()
    return figure


def directions(results: Results, count: int = 10) -> Figure:
    """Principal directions above, trained columns of the first model of 10 latents below, each turned to the same sign.

    A column is set below the direction that it is nearest to; each picture has its own scale, black to white.
    """
    outcome = results.finished("linear-vae")[0]
    weights = outcome.tensors()
    k = max(outcome.run.config.fitted)
    count = min(count, k)
    column, basis = weights[f"weight_k{k}"], weights["directions"]  # (D', K) in principal coordinates, (D, K)
    cosines = column / column.norm(dim=0)
    order = cosines[:count].abs().argmax(1)
    size = min(len(column), basis.shape[1])
    trained = basis[:, :size] @ cosines[:size, order]  # (D, count); the coordinates left out carry next to nothing
    trained = trained * cosines[range(count), order].sign()
    pictures = torch.cat([basis[:, :count], trained], 1).T.reshape(2 * count, 1, 28, 28)
    pictures = 0.5 + 0.5 * pictures / pictures.abs().amax((1, 2, 3), keepdim=True)
    figure, axis = plt.subplots(figsize=(8.0, 1.8))
    axis.imshow(image_sheet(pictures, count)[0].numpy(), vmin=0, vmax=1)
    axis.axis("off")
    return figure


def linear_table(results: Results) -> pd.DataFrame:
    """Trained linear VAEs beside their closed forms, means over models."""
    outcome = results.finished("linear-vae")[0]
    rows = []
    for model in outcome.facts["models"]:
        score = {name: outcome.scores[f"{name}_{model['name']}"] for name in UNITS}
        rows.append(
            {
                "latents": str(model["n_latent"]),
                "s²": f"{model['noise_variance']:.4g}",
                "β": f"{model['beta']:g}",
                "log p(x), closed form": number(model["log_marginal_exact"], 2),
                "log p(x), trained": number(score["log_marginal"].value, 2),
                "bound, trained": number(score["bound"].value, 2),
                "gap": number(score["gap"].value, 4),
                "λ above β s²": str(model["above"]),
                "used by rule": str(model["predicted_used"]),
                "used": number(score["used"].value, 1),
                "alignment": number(_finite(score["alignment"].value), 4),
            }
        )
    return pd.DataFrame(rows)


def conjugate_table(results: Results) -> pd.DataFrame:
    """Appendix F where the evidence is known; first seed."""
    scores = results.finished("conjugate")[0].scores
    rows = []
    for name, label in (("shared", "common directions"), ("apart", "orthogonal")):
        rows.append(
            {
                "parameters and latents": label,
                "exact evidence, nats": number(scores[f"evidence_{name}"].value, 3),
                "gap of the bound": number(abs(scores[f"gap_{name}"].value), 4),
                "eq. 24 − exact bound": _signed(scores[f"sampled_error_{name}"]),
                "F.1 − exact bound": _signed(scores[f"closed_error_{name}"]),
                "largest |estimate − evidence|, all points": f"{scores[f'spread_{name}'].value:.2g}",
            }
        )
    return pd.DataFrame(rows)


def _signed(score: Score) -> str:
    return number(score.value, 3, score.stderr)


def full_bayes_table(results: Results) -> pd.DataFrame:
    """MAP beside appendix F on few digits, nats per image, mean ± standard error over models."""
    rows = []
    for experiment in FULL_BAYES:
        for outcome in results.finished(experiment)[:1]:
            for key, label in (("map", "MAP"), ("vb", "appendix F")):
                cell = {
                    name: number(outcome.scores[full].value, 2, outcome.scores[full].stderr)
                    if (full := f"{key}_{name}") in outcome.scores
                    else "–"
                    for name in ("elbo_train", "elbo_test", "gap", "active")
                }
                whole = ("kl_theta", "full_bound") if key == "vb" else ()
                paid = [number(outcome.scores[n].value, 2, outcome.scores[n].stderr) for n in whole] or ["–", "–"]
                rows.append(
                    {
                        "training images": f"{outcome.run.config.n_train:,}",
                        "trained by": label,
                        "plain bound, train": cell["elbo_train"],
                        "plain bound, test": cell["elbo_test"],
                        "train − test": cell["gap"],
                        "paid for parameters": paid[0],
                        "appendix F's bound": paid[1],
                        "active units": cell["active"],
                    }
                )
    return pd.DataFrame(rows)


def captions(results: Results) -> dict[str, str]:
    """The captions of this module's exhibits, of those whose runs are there."""
    found: dict[str, str] = {}
    for outcome in results.finished("reparametrisation")[:1]:
        config = outcome.run.config
        found["recipes"] = (
            f"{config.n_recipes:,} draws a law against scipy's of that name. By chance √n × distance exceeds 1.95 once "
            "in a thousand; s.e.: distance from the truth in standard errors. A dash: no moments, or no parameter."
        )
        found["variances"] = (
            f"Left: variance of single-draw estimates of one component of the gradient of E|z|², z ~ N(1, I); points: "
            f"{config.n_draws:,} estimates, lines: closed form. Middle and right: gradient of P(z > 0), z ~ "
            f"N({config.step_mean}, 1). The reparametrised one is 0 at every draw; with a sigmoid of that temperature "
            "in the step's place it is not. Blue line: score function, on the step itself; dashed, mostly under it: "
            "the truth."
        )
    for outcome in results.finished("gradients")[:1] if results.ended("gradients") else ():
        config = outcome.run.config
        model = f"a VAE of {config.n_hidden} hidden units and {config.n_latent} latents"
        found["estimators"] = (
            f"Trace of the covariance of the encoder's gradient, {model}, mean over seeds. Solid: all of it; dotted: "
            "what the noise of z makes with the images held. Dynamic binarisation."
        )
        found["estimators_table"] = (
            f"{model[0].upper()}{model[1:]}, M = {max(config.images)}, L = {min(config.draws)}; ± standard deviation "
            f"over seeds. A / B with the images held is over all M and L. Trained: {config.n_samples:,} samples."
        )
    for outcome in results.finished("linear-vae")[:1]:
        config = outcome.run.config
        found["collapse"] = (
            f"{config.n_latent} latents. Left: one trained model each, its latents in falling order of the variance of "
            "their posterior mean against the eigenvalues in falling order; lines: 1 − β s² / λ. Right: latents whose "
            f"variance exceeds {ACTIVE_VARIANCE}, mean over {config.n_models} models; line: eigenvalues above β s²."
        )
        found["directions"] = (
            f"Above: the first {min(10, max(config.fitted))} principal directions of the training digits. Below: the "
            "trained columns nearest to them, first model, not selected. Grey is 0, signs turned to agree."
        )
        found["linear"] = (
            f"Nats per image on test digits, (value + uniform noise) / 256; means over {config.n_models} models. The "
            f"rule counts directions with 1 − β s² / λ > {ACTIVE_VARIANCE}, and at most as many as there are latents."
        )
    for outcome in results.finished("conjugate")[:1]:
        config = outcome.run.config
        found["conjugate"] = (
            f"A linear-Gaussian model, {config.n_points} points, {config.n_parameters} parameters, {config.n_latent} "
            f"latents a point; estimates with M = {config.batch}, ± standard error over {config.n_repeats:,}."
        )
    for outcome in results.finished(FULL_BAYES[0])[:1]:
        config = outcome.run.config
        found["full_bayes"] = (
            f"Digits of 8 by 8 pixels, binarised once; {config.n_hidden} hidden units, {config.n_latent} latents. Nats "
            f"per image, mean ± standard error over {config.n_models} models of each kind."
        )
    return found
