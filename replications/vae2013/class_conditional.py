"""Generative against discriminative: p(x, y) = p(y) int p(x|y, z) p(z) dz as a classifier, beside p(y|x) of equal size.

The generative model gives a bound L(x, y) on log p(x|y) for every class, and classifies by Bayes' rule with the bound
in the likelihood's place. Axis 0 of every tensor is the model: R of each kind train side by side on the same labels.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import datasets
from lib.checks import to_uint8
from lib.datasets import Dataset
from lib.errors import UserError
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.elbo import bernoulli_log_likelihood, kl_to_standard_normal
from lib.metrics import extract, extractor
from lib.models.activations import tanh
from lib.models.batched import BatchedLinear
from lib.models.flat import FlatParameters
from lib.models.gaussian_vae import Gaussian, standard_normal_log_prob
from lib.reporting.sheets import image_sheet
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.vae2013.evaluate import binarised
from replications.vae2013.hierarchies import Minibatches

N_CLASSES = 10
CONFIDENT = 0.9  # ours: a classifier is confident where its largest probability exceeds it
N_CURVE_POINTS = 10
_ALIVE = 1 << 21  # decoded pixels alive at a time in evaluation


@dataclass(frozen=True)
class ClassConditionalConfig:
    """Both kinds of model on the same few labels; the paper of 2013 has neither: DEVIATION vae2013-D80."""

    data: str  # ours
    n_labels: int  # ours: the first so many training images; NOTE vae2013-N80
    n_steps: int  # ours: updates of each kind, fixed before; no early stopping, which would need more labels
    n_models: int = 3  # ours: of each kind, side by side, in place of seeds
    n_latent: int = 10  # figure 2
    n_hidden: int = 100  # ours, tanh, each way; section 5 has 500
    n_classifier: int = 205  # ours, tanh: as many parameters in all as the generative model, to .2 %
    batch: int = 100  # section 5, M
    learning_rate: float = 3e-3  # ours, Adam, both kinds; by the training bound of a trial of 1e-3, 3e-3, 1e-2
    prior_precision: float = 1.0  # section 5: prior N(0, I) on all parameters, both kinds
    n_draws: int = 8  # ours: draws of z behind each bound of a test image
    n_importance: int = 50  # ours: k of the tighter bound
    n_samples: int = 1000  # ours: pairs (x, y) drawn from the model
    n_noise: int = 1000  # ours: images of noise


class ConditionalVAE(nn.Module):
    """R models of p(x|y, z) with Bernoulli pixels and q(z|x, y), a diagonal Gaussian; y one-hot, a tanh layer each."""

    def __init__(self, config: ClassConditionalConfig, n_pixels: int, rng: torch.Generator) -> None:
        super().__init__()
        r, h, z = config.n_models, config.n_hidden, config.n_latent
        self.encoder_in = BatchedLinear(r, n_pixels + N_CLASSES, h, rng)
        self.encoder_out = BatchedLinear(r, h, 2 * z, rng)
        self.decoder_in = BatchedLinear(r, z + N_CLASSES, h, rng)
        self.decoder_out = BatchedLinear(r, h, n_pixels, rng)

    def posterior(self, x: Tensor, y: Tensor) -> Gaussian:
        """q(z|x, y): (R, B, D), (R, B, C) -> mean and logvar (R, B, Z)."""
        return Gaussian(*self.encoder_out(tanh(self.encoder_in(torch.cat([x, y], -1)))).chunk(2, -1))

    def logits(self, z: Tensor, y: Tensor) -> Tensor:
        """Log odds of each pixel being 1: (R, B, Z), (R, B, C) -> (R, B, D)."""
        return self.decoder_out(tanh(self.decoder_in(torch.cat([z, y], -1))))


class Classifier(nn.Module):
    """R models of p(y|x), one tanh layer: (R, B, D) -> logits (R, B, C)."""

    def __init__(self, config: ClassConditionalConfig, n_pixels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.hidden = BatchedLinear(config.n_models, n_pixels, config.n_classifier, rng)
        self.out = BatchedLinear(config.n_models, config.n_classifier, N_CLASSES, rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(tanh(self.hidden(x)))


def conditional_bound(model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """Estimator B of the bound on log p(x|y), one draw of z: (R, B, D), (R, B, C), noise (R, B, Z) -> (R, B), nats."""
    q = model.posterior(x, y)
    return bernoulli_log_likelihood(x, model.logits(q.sample(noise), y)) - kl_to_standard_normal(*q)


def ascend(flat: FlatParameters, optimizer: torch.optim.Optimizer, objective: Tensor, decay: float) -> None:
    """One step towards `objective` (), nats per image summed over models, and the prior on the parameters."""
    flat.take_gradient(-objective)
    assert flat.vector.grad is not None
    flat.vector.grad.add_(flat.vector.data, alpha=decay)
    optimizer.step()


def generative_and_discriminative(config: ClassConditionalConfig, workspace: Workspace) -> Outcome:
    """Train both kinds on the same minibatches, side by side, and measure; goes on from the workspace's checkpoint."""
    data, streams = datasets.load(config.data), workspace.streams
    images, labels = (part[: config.n_labels] for part in labelled(data, "train", workspace.device))
    if len(images) < max(config.n_labels, config.batch):
        raise ValueError(f"{len(images)} images: {config.n_labels} labels and minibatches of {config.batch} are asked")
    one_hot = F.one_hot(labels, N_CLASSES).float()  # (N, C)
    vae = ConditionalVAE(config, images.shape[1], generator(streams.seed, "init generative")).to(workspace.device)
    classifier = Classifier(config, images.shape[1], generator(streams.seed, "init discriminative")).to(
        workspace.device
    )
    flats = [FlatParameters(network) for network in (vae, classifier)]
    adams = [with_state(torch.optim.Adam([flat.vector], config.learning_rate, fused=True)) for flat in flats]
    minibatches = LabelledMinibatches(images, config.n_models, config.batch, streams)
    parts: dict[str, Any] = {
        "vae": vae, "classifier": classifier, "adam_vae": adams[0], "adam_classifier": adams[1],
    }  # fmt: skip
    state, decay = workspace.resume_(**parts), config.prior_precision / len(images)
    due = {math.ceil(config.n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS)}
    for step in range(state["step"], config.n_steps):
        x, chosen = minibatches(step), minibatches.chosen
        y = one_hot[chosen]  # (R, B, C)
        noise = torch.randn(*y.shape[:2], config.n_latent, generator=streams.at("latent", step), device=y.device)
        bound = conditional_bound(vae, x, y, noise).mean(1)
        ascend(flats[0], adams[0], bound.sum(), decay)
        right = -F.cross_entropy(classifier(x).flatten(0, 1), labels[chosen].flatten(), reduction="sum") / config.batch
        ascend(flats[1], adams[1], right, decay)
        state["step"] = step + 1
        if step + 1 in due:
            row = {"step": step + 1, "bound": bound.mean().item(), "log_loss": -right.item() / config.n_models}
            state["history"].append(row)
            require_finite(row["bound"], "The bound on a minibatch", step + 1, state["history"])
        workspace.keep(state, config.n_steps, **parts)
    shares = (one_hot.sum(0) + 1) / (len(labels) + N_CLASSES)  # p(y), add-one
    scores, per_model = measured(vae, classifier, shares, data, config, streams)
    counts = {"generative": len(flats[0].vector), "discriminative": len(flats[1].vector)}
    facts = {"parameters": {name: n // config.n_models for name, n in counts.items()}, **per_model}
    weights = {**vae.state_dict(prefix="vae."), **classifier.state_dict(prefix="classifier.")}
    return Outcome(scores, state["history"], weights, class_sheet(vae, config, streams), facts)


class LabelledMinibatches(Minibatches):
    """Minibatches that say which images they hold: `chosen`, (R, B), of the last call."""

    chosen: Tensor

    def __call__(self, step: int) -> Tensor:
        self.chosen = torch.stack([order(step) for order in self.orders])
        return super().__call__(step)


def labelled(data: Dataset, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels (N, D) uint8 and labels (N,) on the device."""
    # NOTE vae2013-N80: the first images in the data set's random order, so classes are not exactly balanced.
    return data.split(split)[0].flatten(1).to(device), data.labels_of(split).to(device)


@torch.no_grad()
def class_bounds(
    vae: ConditionalVAE, x: Tensor, n_draws: int, config: ClassConditionalConfig, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The bound and the importance-weighted bound of n_draws samples on log p(x|y) for every class: each (R, N, C).

    x: (N, D). Both from the same draws; the first with the divergence in closed form (estimator B).
    """
    # Made before the blocks: small results kept among their large passing tensors had left holes that no later block
    # fitted into, 21 GB of them by the end of 10,000 images.
    plain, weighted = x.new_empty(2, config.n_models, len(x), N_CLASSES)
    size = max(1, _ALIVE // (config.n_models * N_CLASSES * n_draws * x.shape[1]))
    y = torch.eye(N_CLASSES, device=x.device)
    for start in range(0, len(x), size):
        part = x[start : start + size]
        n = len(part)
        pixels = part.repeat_interleave(N_CLASSES, 0).expand(config.n_models, -1, -1)  # (R, n C, D)
        classes = y.repeat(n, 1).expand(config.n_models, -1, -1)  # (R, n C, C)
        q = vae.posterior(pixels, classes)
        shape = n_draws, *q.mean.shape
        z = q.sample(torch.randn(shape, generator=rng, device=x.device))  # (S, R, n C, Z)
        logits = torch.stack([vae.logits(each, classes) for each in z])
        log_likelihood = bernoulli_log_likelihood(pixels, logits)  # (S, R, n C)
        log_weights = log_likelihood + standard_normal_log_prob(z) - q.log_prob(z)
        of_part = slice(start, start + n)
        plain[:, of_part] = (log_likelihood.mean(0) - kl_to_standard_normal(*q)).unflatten(1, (n, N_CLASSES))
        weighted[:, of_part] = torch.logsumexp(log_weights, 0).sub_(math.log(n_draws)).unflatten(1, (n, N_CLASSES))
    return plain, weighted


@torch.no_grad()
def measured(
    vae: ConditionalVAE, classifier: Classifier, shares: Tensor, data: Dataset, config: ClassConditionalConfig,
    streams: Streams,
) -> tuple[dict[str, Score], dict[str, list[float]]]:  # fmt: skip
    """Scores, and each model's values of those that are means over models."""
    x, labels = binarised(data, "test", streams.device), data.labels_of("test").to(streams.device)
    log_prior = shares.log()
    plain, _ = class_bounds(vae, x, config.n_draws, config, streams.at("bounds"))
    _, weighted = class_bounds(vae, x, config.n_importance, config, streams.at("weighted bounds"))
    joint, tighter = plain + log_prior, weighted + log_prior  # (R, N, C) bounds on log p(x, y)
    logits = classifier(x.expand(config.n_models, -1, -1))
    # Noise: every pixel on with the mean rate of the test images, alike everywhere: as much ink, no digit.
    rate = x.mean().expand(config.n_noise, x.shape[1])
    noise = torch.bernoulli(rate, generator=streams.at("noise"))
    noise_bound, _ = class_bounds(vae, noise, config.n_draws, config, streams.at("noise bounds"))
    noise_logits = classifier(noise.expand(config.n_models, -1, -1))
    per_model = {
        "generative_error": _error(joint, labels), "generative_error_tighter": _error(tighter, labels),
        "discriminative_error": _error(logits, labels),
        "error_difference": _error(joint, labels) - _error(logits, labels),
        "generative_log_loss": _log_loss(joint, labels), "discriminative_log_loss": _log_loss(logits, labels),
        "bound_test": torch.logsumexp(joint, -1).mean(1),
        "noise_drop": torch.logsumexp(joint, -1).mean(1) - torch.logsumexp(noise_bound + log_prior, -1).mean(1),
        "noise_confident": _confident(noise_logits),
    }  # fmt: skip
    recognised = _recognised(vae, shares, data, config, streams)
    per_model |= recognised["of_models"]
    protocol: dict[str, Any] = {
        "averaged_over": "models", "data": data.name, "data_sha256": data.digest, "split": "test",
        "n_labels": config.n_labels, "n_steps": config.n_steps, "draws": config.n_draws,
        "observation": "dynamic-binarised, one fixed draw for evaluation",
    }  # fmt: skip
    scores = {name: mean_score(values.double().cpu(), *UNITS[name], _told(name, protocol, config))
              for name, values in per_model.items()}  # fmt: skip
    plain_protocol = {key: value for key, value in protocol.items() if key not in ("averaged_over", "draws", "n_steps")}
    scores |= recognised["of_data"] | references(data, config.n_labels, plain_protocol)
    return scores, {name: values.tolist() for name, values in per_model.items()}


UNITS = {  # of each measure that is a mean over models, and whether more is better
    "generative_error": ("share", False), "generative_error_tighter": ("share", False),
    "discriminative_error": ("share", False), "error_difference": ("share", False),
    "generative_log_loss": ("nats/image", False), "discriminative_log_loss": ("nats/image", False),
    "bound_test": ("nats/image", True), "noise_drop": ("nats/image", True), "noise_confident": ("share", False),
    "recognised": ("share", True),
}  # fmt: skip


def _told(name: str, protocol: dict[str, Any], config: ClassConditionalConfig) -> dict[str, Any]:
    """The protocol with what is special to one measure."""
    special: dict[str, dict[str, Any]] = {
        "generative_error_tighter": {"estimator": "importance-weighted bound", "draws": config.n_importance},
        "error_difference": {"difference": "generative minus discriminative"},
        "bound_test": {"estimator": "log sum over y of p(y) exp L(x, y), a lower bound on log p(x)"},
        "noise_drop": {"noise": "independent pixels, all with the mean rate of test images", "images": config.n_noise},
        "noise_confident": {"rule": f"largest probability > {CONFIDENT}", "images": config.n_noise},
        "recognised": {"classifier": "digits-cnn", "images": "decoder means", "samples": config.n_samples},
    }
    return {**protocol, **special.get(name, {})}


def _error(scores: Tensor, labels: Tensor) -> Tensor:
    """(R, N, C), (N,) -> share of images whose highest score is another class's, (R,)."""
    return (scores.argmax(-1) != labels).double().mean(1)


def _log_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """(R, N, C), (N,) -> mean of -log p(y|x) with p proportional to exp(scores), nats, (R,)."""
    return -scores.log_softmax(-1).gather(-1, labels.expand(len(scores), -1).unsqueeze(-1)).squeeze(-1).mean(1)


def _confident(logits: Tensor) -> Tensor:
    return (logits.softmax(-1).amax(-1) > CONFIDENT).double().mean(1)


def _recognised(
    vae: ConditionalVAE, shares: Tensor, data: Dataset, config: ClassConditionalConfig, streams: Streams
) -> dict[str, Any]:
    """Pairs (x, y) drawn jointly, y ~ p(y), z ~ p(z): share whose x digits-cnn reads as y; and of test images."""
    try:
        network = extractor("digits-cnn", device=streams.device)
    except UserError:
        return {"of_models": {}, "of_data": {}}
    shape = config.n_models, config.n_samples
    y = torch.multinomial(shares.expand(config.n_models, -1), config.n_samples, True, generator=streams.at("draw y"))
    z = torch.randn(*shape, config.n_latent, generator=streams.at("draw z"), device=streams.device)
    means = torch.sigmoid(vae.logits(z, F.one_hot(y, N_CLASSES).float()))  # (R, S, D)
    read = extract(network, to_uint8(means).view(-1, 1, 28, 28), 1000, streams.device).probabilities.argmax(1)
    real, labels = data.split("test")[0], data.labels_of("test")
    right = extract(network, real, 1000, streams.device).probabilities.argmax(1).cpu() == labels
    protocol = {"data": data.name, "split": "test", "classifier": "digits-cnn"}
    return {
        "of_models": {"recognised": (read.view(shape) == y).double().mean(1)},
        "of_data": {"recognised_real": mean_score(right, "share", True, protocol)},
    }


def references(data: Dataset, n_labels: int, protocol: dict[str, Any]) -> dict[str, Score]:
    """Errors of well-known classifiers on the same labels, images binarised once, and of one class; binomial s.e."""
    from sklearn.linear_model import LogisticRegression  # here, for half a second of every other start
    from sklearn.neighbors import KNeighborsClassifier

    device = torch.device("cpu")
    train, test = (binarised(data, split, device).numpy() for split in ("train", "test"))
    labels, truth = data.labels_of("train")[:n_labels].numpy(), data.labels_of("test")
    train = train[:n_labels]
    fitted = {
        "logistic_error": LogisticRegression(C=1.0, max_iter=1000),  # scikit-learn's default penalty
        "knn_error": KNeighborsClassifier(1),
    }
    scores = {}
    for name, classifier in fitted.items():
        wrong = torch.from_numpy(classifier.fit(train, labels).predict(test)) != truth
        scores[name] = mean_score(wrong, "share", False, {**protocol, "classifier": type(classifier).__name__})
    most = torch.bincount(data.labels_of("train")[:n_labels]).argmax()
    scores["majority_error"] = mean_score(
        truth != most, "share", False, {**protocol, "classifier": "most frequent class"}
    )
    return scores


@torch.no_grad()
def class_sheet(vae: ConditionalVAE, config: ClassConditionalConfig, streams: Streams) -> Tensor:
    """Decoder means of the first model: a row a class, a column a draw of z, the first ones drawn: uint8 (1, H, W)."""
    z = torch.randn(N_CLASSES, config.n_latent, generator=streams.at("samples"), device=streams.device)
    y = torch.eye(N_CLASSES, device=streams.device).repeat_interleave(N_CLASSES, 0)  # (100, C)
    grid = z.repeat(N_CLASSES, 1).expand(config.n_models, -1, -1)
    means = torch.sigmoid(vae.logits(grid, y.expand(config.n_models, -1, -1)))[0].view(-1, 1, 28, 28)
    return (image_sheet(means.cpu(), N_CLASSES) * 255).round().to(torch.uint8)
