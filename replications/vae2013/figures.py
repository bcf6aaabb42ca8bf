"""The paper's figures and the table of bounds, drawn from finished runs."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from scipy.stats import norm
from torch import Tensor, nn

from lib import datasets
from lib.claims import Reading, read_score
from lib.execution.runs import Finished
from lib.models.gaussian_vae import BernoulliVAE
from lib.reporting.sheets import image_sheet
from lib.reporting.tables import number
from lib.training.randomness import Streams
from replications.papers import Results
from replications.vae2013.config import AevbConfig
from replications.vae2013.evaluate import binarised

SHEETS = (2, 5, 10, 20)  # figure 5


def untrained(config: AevbConfig) -> BernoulliVAE:
    """The model of a config, with weights that mean nothing."""
    n_pixels = math.prod(datasets.registry.entry(config.data).images[1:])
    return BernoulliVAE(n_pixels, config.n_hidden, config.n_latent)


def trained(outcome: Finished) -> BernoulliVAE:
    """The model of a finished run, with its weights."""
    model = untrained(outcome.run.config)
    model.load_state_dict(outcome.tensors())
    return model


def first(results: Results, n_latent: int) -> Finished | None:
    """The finished run of lowest seed with n_latent latents; None where the preset has none."""
    found = results.finished(f"aevb-nz{n_latent}")
    return found[0] if found else None


def latents(results: Results) -> list[int]:
    """Every N_z whose seeds have all ended."""
    found = {o.run.config.n_latent for o in results.finished() if isinstance(o.run.config, AevbConfig)}
    return sorted(n for n in found if results.ended(f"aevb-nz{n}"))


def manifold(model: BernoulliVAE, side: int = 20) -> Figure:
    """Figure 4b: decoder means over the unit square, sent through the inverse Gaussian distribution function."""
    edge = norm.ppf((np.arange(side) + 0.5) / side)
    z = torch.tensor([[x, y] for y in edge[::-1] for x in edge], dtype=torch.float32)
    with torch.no_grad():
        means = torch.sigmoid(model.logits(z)).view(-1, 1, 28, 28)
    return _sheet(image_sheet(means, side, padding=0), 6.0)


def codes(outcome: Finished) -> Figure:
    """Where the two-dimensional posterior means of the test digits lie, a colour for each digit."""
    data = datasets.load(outcome.run.config.data)
    with torch.no_grad():
        mean = trained(outcome).posterior(binarised(data, "test", torch.device("cpu"))).mean.numpy()
    labels = data.labels_of("test").numpy()
    figure, axis = plt.subplots(figsize=(6.0, 5.0), layout="constrained")
    palette = sns.color_palette("husl", 10)
    sns.scatterplot(x=mean[:, 0], y=mean[:, 1], hue=labels, palette=palette, s=14, linewidth=0, ax=axis, legend=False)
    for digit in range(10):  # the digit itself at its median, for colours alone do not tell ten classes apart
        x, y = np.median(mean[labels == digit], 0)
        axis.text(x, y, str(digit), ha="center", va="center", weight="bold",
                  bbox={"boxstyle": "circle,pad=0.2", "fc": "white", "ec": palette[digit], "lw": 1.5})  # fmt: skip
    axis.set(xlabel="posterior mean, $z_1$", ylabel="posterior mean, $z_2$")
    return figure


def data_rows(name: str, count: int = 16) -> Figure:
    """The first training images as they are, above the same images as they are binarised for evaluation."""
    data = datasets.load(name)
    grey = data.split("train")[0].flatten(1)[:count].float() / 255
    binary = binarised(data, "train", torch.device("cpu"))[:count]
    return _sheet(image_sheet(torch.cat([grey, binary]).view(-1, 1, 28, 28), count), 9.2)


def sample_sheets(results: Results) -> Figure:
    """Figure 5: the sheets of samples as the runs of lowest seed wrote them."""
    runs = [run for n in SHEETS if (run := first(results, n)) is not None]
    figure, axes = plt.subplots(1, len(runs), figsize=(2.3 * len(runs), 2.6), squeeze=False, layout="constrained")
    for axis, outcome in zip(axes[0], runs, strict=True):
        axis.imshow(plt.imread(outcome.folder / "samples.png"), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(f"$N_z$ = {outcome.run.config.n_latent}")
        axis.axis("off")
    return figure


def nearest_training_images(outcome: Finished, count: int = 16) -> Figure:
    """The first samples of a model, above the training image nearest to each in Euclidean distance."""
    model, data = trained(outcome), datasets.load(outcome.run.config.data)
    generator = Streams(outcome.run.seed).at("samples")  # the sheet's own stream: the same first samples
    z = torch.randn(100, model.n_latent, generator=generator)[:count]
    with torch.no_grad():
        samples = torch.sigmoid(model.logits(z))
    train = data.split("train")[0].flatten(1).float() / 255
    nearest = train[torch.cdist(samples, train).argmin(1)]
    return _sheet(image_sheet(torch.cat([samples, nearest]).view(-1, 1, 28, 28), count), 9.2)


def _sheet(grid: Tensor, width: float) -> Figure:
    height = width * grid.shape[1] / grid.shape[2]
    figure, axis = plt.subplots(figsize=(width, height))
    axis.imshow(grid[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.axis("off")
    return figure


def layers_table(model: BernoulliVAE) -> pd.DataFrame:
    """Each layer's weight shape and its number of parameters, and their sum."""
    layers = [
        (name, layer.weight.shape, sum(p.numel() for p in layer.parameters()))
        for name, layer in model.named_children() if isinstance(layer, nn.Linear)
    ]  # fmt: skip
    rows = [(name.replace("_", ", "), f"{shape[1]} → {shape[0]}", f"{count:,}") for name, shape, count in layers]
    total = f"{sum(count for *_, count in layers):,}"
    return pd.DataFrame([*rows, ("all", "", total)], columns=["layer", "units", "parameters"])


def bounds_table(results: Results) -> pd.DataFrame:
    """Final numbers, a row for each N_z: mean over seeds ± standard deviation over seeds; and the trivial baseline."""
    rows = []
    for n_latent in latents(results):
        found = results.finished(f"aevb-nz{n_latent}")
        read = {name: read_score(f"aevb-nz{n_latent}.{name}", results.outcomes) for name in found[0].scores}
        rows.append(
            {
                "model": f"AEVB, N_z = {n_latent}",
                "seeds": str(len(found)),
                "bound, train": _cell(read["elbo_train"]),
                "bound, test": _cell(read["elbo_test"]),
                "s.e. over test images": number(found[0].scores["elbo_test"].stderr, 1),
                f"L_{found[0].run.config.n_importance} bound, test": _cell(read["iwae_test"]),
                "KL term, test": _cell(read["kl_test"]),
                "active units": _cell(read["active_units"]),
                "log p(x), exact": "–",
            }
        )
    baseline = results.finished("baselines")[0].scores["pixels_test"]
    rows.append(
        dict.fromkeys(rows[0], "–")
        | {
            "model": "baseline: independent pixels",
            "s.e. over test images": number(baseline.stderr, 1),
            "log p(x), exact": number(baseline.value, 1),
        }
    )
    return pd.DataFrame(rows)


def bounds_protocol(results: Results) -> str:
    """The protocol of the table of bounds in one sentence, from the scores themselves."""
    scores = results.finished("aevb-nz20")[0].scores
    train, test, weighted = scores["elbo_train"], scores["elbo_test"], scores["iwae_test"]
    return (
        f"Final bounds on {train.n:,} training and {test.n:,} test images ({test.protocol['observation']}), "
        f"{test.protocol['draws']} draws of z an image for the bound and {weighted.protocol['draws']} for the "
        "importance-weighted one; means over seeds ± standard deviation over seeds."
    )


def _cell(reading: Reading) -> str:
    return number(reading.mean, 1, reading.spread)


def codes_table(results: Results) -> pd.DataFrame:
    """5-nearest-neighbour accuracy of each N_z's posterior means, beside its floor and its ceiling."""
    rows = []
    for n_latent in latents(results):
        reading = read_score(f"aevb-nz{n_latent}.knn_test", results.outcomes)
        rows.append((f"posterior mean, N_z = {n_latent}", reading.mean, reading.spread, len(reading.values)))
    for name, label in (("knn_pca_test", "two principal components"), ("knn_pixels_test", "all 784 pixels")):
        rows.append((label, results.finished("baselines")[0].scores[name].value, math.nan, 1))
    columns = ["features", "accuracy on test digits, %", "seeds"]
    return pd.DataFrame([(f, number(100 * a, 1, 100 * s), str(n)) for f, a, s, n in rows], columns=columns)


def checks_table(results: Results) -> pd.DataFrame:
    """The closed-form checks: what it should be, what was measured (seeds pooled), standard error."""
    names = {
        "eq1_residual": ("equation 1: largest residual", "0"),
        "kl_closed": ("appendix B: KL as coded", "0.887678"),
        "kl_monte_carlo": ("appendix B: KL by Monte Carlo", "0.887678"),
        "gap_exact": ("gap of the bound, closed form", "0.464357"),
        "gap_1": ("gap of the bound, sampled", "0.464357"),
        "gap_5": ("gap with 5 importance samples", "below the last"),
        "gap_50": ("gap with 50 importance samples", "below the last"),
        "gap_rotated": ("gap after rotating the latents", "0"),
    }
    rows = []
    for name, (label, truth) in names.items():
        reading = read_score(f"linear-gaussian.{name}", results.outcomes)
        value = f"{reading.mean:.1e}" if abs(reading.mean) < 1e-6 else f"{reading.mean:.6f}"
        error = "–" if math.isnan(reading.stderr) else f"{reading.stderr:.6f}"
        rows.append(
            {"quantity, nats": label, "should be": truth, "measured": value.replace("-", "−"), "standard error": error}
        )
    return pd.DataFrame(rows)


ESTIMATORS = {
    "elbo": ("variational bound (ELBO), estimator B", "lower"),
    "iwae": ("importance-weighted bound, k = {k}", "lower"),
    "ais": ("annealed importance sampling (AIS)", "lower"),
    "ais_reverse": ("AIS in reverse, from exact posterior draws", "upper"),
    "appendix_d": ("appendix D, {draws} + {draws} draws by HMC", "upper, if the chains have mixed"),
    "appendix_d_exact": ("appendix D, {draws} + {draws} exact posterior draws", "upper"),
}


def estimators_table(results: Results) -> pd.DataFrame:
    """Estimate minus exact log p(x), mean over points, seeds pooled; and which side it is on in expectation."""
    example = results.finished("estimators")[0]
    rows = []
    for kind, (label, side) in ESTIMATORS.items():
        names = [f"iwae_{k}" for k in example.run.config.n_importance] if kind == "iwae" else [kind]
        for name in names:
            reading = read_score(f"estimators.{name}_error", results.outcomes)
            rows.append(
                {
                    "estimator": label.format(**example.scores[f"{name}_error"].protocol),
                    "bound": side,
                    "error, nats": f"{reading.mean:+.4f}".replace("-", "−"),
                    "standard error": f"{reading.stderr:.4f}",
                }
            )
    return pd.DataFrame(rows)


def ppca_table(results: Results) -> pd.DataFrame:
    """Exact likelihood of probabilistic PCA on digits, and its bound's gap before and after turning the latents."""
    scores = results.finished("ppca")[0].scores
    rows = []
    for k in results.finished("ppca")[0].run.config.n_latent:
        exact = scores[f"log_marginal_{k}"]
        rows.append(
            {
                "latents": k,
                "noise variance": f"{exact.protocol['noise_variance']:.4f}",
                "log p(x), nats/image": f"{exact.value:.1f} ± {exact.stderr:.1f}",
                "gap of the bound": f"{abs(scores[f'gap_{k}'].value):.4f}",
                "gap with turned latents": f"{scores[f'gap_turned_{k}'].value:.4f}",
            }
        )
    return pd.DataFrame(rows)


def ppca_caption(results: Results) -> str:
    scores = results.finished("ppca")[0].scores
    exact = next(score for name, score in scores.items() if name.startswith("log_marginal"))
    return (
        f"Probabilistic PCA of {exact.protocol['data']}, {exact.n:,} test images; exact, ± the standard error over test"
        f" images. Observed: {exact.protocol['observation']}."
    )
