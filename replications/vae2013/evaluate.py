"""What is measured on a trained model, under which protocol; and the baselines beside it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lib.checks import to_uint8
from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.likelihood import elbo, importance_weighted_bound, parzen_score
from lib.losses.elbo import bernoulli_log_likelihood, kl_to_standard_normal
from lib.metrics.quality import quality
from lib.models.batched_vae import GaussianVAE
from lib.models.gaussian_vae import BernoulliVAE, Gaussian
from lib.reporting.sheets import image_sheet
from lib.results import Score, mean_score
from lib.training.randomness import Streams, generator
from replications.vae2013.config import AevbConfig, BaselinesConfig
from replications.vae2013.likelihoods import BernoulliModel, bracket

ACTIVE_VARIANCE = 0.01  # Burda et al. 2015: a unit is active if the variance of its posterior mean over data exceeds it


def binarised(data: Dataset, split: str, device: torch.device) -> Tensor:
    """A split's images with pixels drawn once, by a draw that no run's seed moves: (N, D) in {0, 1}.

    So every run, of every seed and every N_z, is measured on the same binary images.
    """
    images = data.split(split)[0].flatten(1)
    return dynamic_binarisation(images, generator(0, f"evaluation {data.digest} {split}")).to(device)


def curve_images(data: Dataset, config: AevbConfig, device: torch.device) -> dict[str, Tensor]:
    """The first n_curve_images of train and test (both in a fixed random order)."""
    return {split: binarised(data, split, device)[: config.n_curve_images] for split in ("train", "test")}


def curve_point(model: BernoulliVAE, images: Mapping[str, Tensor], streams: Streams, step: int) -> dict[str, float]:
    """One point of figure 2: mean bound in nats per image, one draw of z an image."""
    return {
        f"elbo_{split}": elbo(model, x, 1, streams.at(f"curve {split}", step)).mean().item()
        for split, x in images.items()
    }


def evaluate(model: BernoulliVAE, data: Dataset, config: AevbConfig, streams: Streams) -> dict[str, Score]:
    """Final numbers of one run, on whole splits."""
    split_of = {split: binarised(data, split, streams.device) for split in ("train", "test")}
    bounds = {s: elbo(model, x, config.n_elbo_draws, streams.at(f"elbo {s}")) for s, x in split_of.items()}
    scores = {
        f"elbo_{split}": mean_score(values, "nats/image", True, _protocol(data, split, "elbo", config.n_elbo_draws))
        for split, values in bounds.items()
    }
    k, test = config.n_importance, split_of["test"]
    weighted = importance_weighted_bound(model, test, k, streams.at("importance test"))
    scores["iwae_test"] = mean_score(
        weighted, "nats/image", True, _protocol(data, "test", "importance-weighted bound", k)
    )
    scores["gap"] = _difference(scores["elbo_train"], scores["elbo_test"])
    with torch.no_grad():
        q_train, q_test = model.posterior(split_of["train"]), model.posterior(test)
    scores["kl_test"] = mean_score(kl_to_standard_normal(*q_test), "nats/image", True, _protocol(data, "test", "KL", 0))
    scores["active_units"] = _active_units(q_test, data)
    scores["knn_test"] = _knn_accuracy(q_train.mean, q_test.mean, data, f"posterior mean, {model.n_latent} dimensions")
    scores["parzen_test"] = parzen(model, data, config, streams)
    scores |= digits_quality(model, data, streams)
    if config.n_few:
        scores |= bracket(model, test[: config.n_few], config, _observed(data, "test"), streams)
    return scores


@torch.no_grad()
def parzen(model: BernoulliVAE, data: Dataset, config: AevbConfig, streams: Streams) -> Score:
    """Goodfellow et al. 2014's score of samples, for their table beside which it stands; no likelihood of this model.

    DEVIATION vae2013-D5: the paper has no such number. Samples are decoder means, images are grey in [0, 1]. Where a
    data set has no validation split, training images choose the kernel width.
    """
    z = torch.randn(config.n_parzen, model.n_latent, generator=streams.at("parzen"), device=streams.device)
    samples = decoder_means(model, z)
    split = "validation" if "validation" in data.splits else "train"
    validation, test = (
        data.split(name)[0].flatten(1).float().div(data.max_value).to(streams.device) for name in (split, "test")
    )
    protocol = {"data": data.name, "data_sha256": data.digest, "split": "test", "bandwidth_from": split}
    return parzen_score(samples, validation[: config.n_parzen_validation], test, protocol=protocol)


def _protocol(data: Dataset, split: str, estimator: str, draws: int) -> dict[str, Any]:
    return {**_observed(data, split), "estimator": estimator, "draws": draws}


def _observed(data: Dataset, split: str) -> dict[str, Any]:
    return {
        "data": data.name,
        "data_sha256": data.digest,
        "split": split,
        "observation": "dynamic-binarised, one fixed draw for evaluation",
    }


def _difference(a: Score, b: Score) -> Score:
    """a - b with the standard error of a difference of independent means."""
    protocol = {**a.protocol, "split": f"{a.protocol['split']} minus {b.protocol['split']}"}
    return Score(a.value - b.value, math.hypot(a.stderr, b.stderr), a.unit, False, min(a.n, b.n), protocol)


def _active_units(q: Gaussian, data: Dataset) -> Score:
    active = (q.mean.var(0) > ACTIVE_VARIANCE).sum().item()
    protocol = {"data": data.name, "split": "test", "rule": f"variance of the posterior mean > {ACTIVE_VARIANCE}"}
    return Score(float(active), math.nan, "units", True, len(q.mean), protocol)


def _knn_accuracy(train: Tensor, test: Tensor, data: Dataset, features: str, neighbours: int = 5) -> Score:
    """Share of test images whose digit a 5-nearest-neighbour vote reads right, binomial standard error."""
    from sklearn.neighbors import KNeighborsClassifier  # here, for half a second of every other start

    classifier = KNeighborsClassifier(neighbours).fit(train.cpu().numpy(), data.labels_of("train").numpy())
    right = torch.from_numpy(classifier.predict(test.cpu().numpy())) == data.labels_of("test")
    protocol = {"data": data.name, "split": "test", "neighbours": neighbours, "features": features}
    return mean_score(right, "share", True, protocol)


@torch.no_grad()
def decoder_means(model: BernoulliModel | GaussianVAE, z: Tensor) -> Tensor:
    """E[x|z], pixels 0 .. 1: (N, Z) -> (N, D)."""
    return model.pixels(z).mean if isinstance(model, GaussianVAE) else torch.sigmoid(model.logits(z))


def sample_sheet(
    model: BernoulliModel | GaussianVAE, streams: Streams, shape: tuple[int, int] = (28, 28), side: int = 10
) -> Tensor:
    """Decoder means of side^2 draws of z from the prior, the first ones drawn: uint8 (1, H, W)."""
    z = torch.randn(side**2, model.n_latent, generator=streams.at("samples"), device=streams.device)
    means = decoder_means(model, z).view(-1, 1, *shape)
    return (image_sheet(means.cpu(), side) * 255).round().to(torch.uint8)


def digits_quality(model: BernoulliVAE, data: Dataset, streams: Streams) -> dict[str, Score]:
    """FID[digits-cnn] and its companions of as many decoder means as there are test images, against those."""
    shape = len(data.splits["test"]), model.n_latent
    z = torch.randn(shape, generator=streams.at("quality"), device=streams.device)
    samples = to_uint8(decoder_means(model, z)).view(-1, 1, 28, 28)
    return _quality(samples, data, streams, "decoder means")


def _quality(samples: Tensor, data: Dataset, streams: Streams, made: str) -> dict[str, Score]:
    protocol = {"data": data.name, "data_sha256": data.digest, "split": "test", "images": made}
    real = data.split("test")[0]
    return quality(samples, real, data.name, seed=streams.seed, device=streams.device, protocol=protocol)[0]


def baselines(config: BaselinesConfig, data: Dataset, streams: Streams) -> dict[str, Score]:
    """What scores must beat, and how good they can be.

    A bound: independent pixels. A 2-D code: two principal components, and all pixels. Samples: real_*, training images
    in their place; and pixels_*, samples of the independent pixels.
    """
    from sklearn.decomposition import PCA

    device = torch.device("cpu")
    images = data.split("train")[0].flatten(1)
    # The maximum-likelihood pixel model under dynamic binarisation, one image of weight kept off 0 and 1.
    share = (images.double().mean(0) / 255 * len(images) + 0.5) / (len(images) + 1)
    values = bernoulli_log_likelihood(binarised(data, "test", device).double(), torch.logit(share))
    train, test = (data.split(split)[0].flatten(1).double() / 255 for split in ("train", "test"))
    pca = PCA(config.n_components, svd_solver="full").fit(train.numpy())
    train_code, test_code = (torch.from_numpy(pca.transform(x.numpy())) for x in (train, test))
    drawn = dynamic_binarisation((share * 255).round().expand(len(test), -1).to(torch.uint8), streams.at("pixels"))
    qualities = {
        "real": _quality(data.split("train")[0][: len(test)], data, streams, "the first training images"),
        "pixels": _quality(to_uint8(drawn).view(-1, 1, 28, 28), data, streams, "independent pixels, drawn"),
    }
    floors = {f"{prefix}_{name}": score for prefix, scores in qualities.items() for name, score in scores.items()}
    return floors | {
        "pixels_test": mean_score(values, "nats/image", True, _protocol(data, "test", "exact log-likelihood", 0)),
        "knn_pca_test": _knn_accuracy(train_code, test_code, data, f"{config.n_components} principal components"),
        "knn_pixels_test": _knn_accuracy(train, test, data, "all 784 pixels"),
    }
