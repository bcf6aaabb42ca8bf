"""The pairs of image domains: which images are A and B, for training and for the scores."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lib import datasets
from lib.datasets import photos, scenes
from lib.datasets.photo_folders import DOMAINS
from lib.errors import UserError
from lib.training.randomness import generator
from replications.cyclegan2017 import shapes
from replications.cyclegan2017.config import AnchorsConfig, TranslationConfig
from replications.cyclegan2017.domains import Domains

# Seeds of the data, not of the training: every seed of a run sees the same images, as with any data set.
A_SEED, B_SEED, TEST_SEED = 1, 2, 3
DRAWN = ("scenes", "paintings", "shapes")  # tasks whose images are drawn here
FEWEST = 10  # images of each part of a folder: the inception score is a mean over ten parts
PHOTOS = "photos/"  # begins the task of a folder of photographs, whatever a user calls it
# DEVIATION cyclegan2017-D62: real photographs that can be had here, in place of the paper's sets.
CIFAR_PAIRS = {"horse2deer": ("horse", "deer"), "automobile2truck": ("automobile", "truck")}
Size = TranslationConfig | AnchorsConfig


class Loaded(NamedTuple):
    """Domains, and what is known of the test images: truths of A's and B's, whose meaning is the task's."""

    domains: Domains
    truth_a: Tensor | None = None  # scenes: labels (N, H, W); digits: (N,); shapes: outlines (N, H, W)
    truth_b: Tensor | None = None


def load(config: Size, device: torch.device) -> Loaded:
    """The images of config.task, on the device. Raises UserError for photographs that are absent or too few."""
    if config.task in LOADERS:
        loaded = LOADERS[config.task](config)
    elif config.task in CIFAR_PAIRS:
        loaded = Loaded(_of_photos(photos.cifar10_pair(*CIFAR_PAIRS[config.task])))
    else:
        wide = (isinstance(config, TranslationConfig) and config.crop_from) or config.side
        found = photos.load(config.task.removeprefix(PHOTOS), wide, test_side=config.side)
        if isinstance(config, TranslationConfig):
            photos.require_batch(found, config.batch)
        loaded = Loaded(_of_photos(found))
    domains = loaded.domains
    if config.n_train:
        domains = domains._replace(a=domains.a[: config.n_train], b=domains.b[: config.n_train])
    if config.n_test:
        domains = domains._replace(test_a=domains.test_a[: config.n_test], test_b=domains.test_b[: config.n_test])
    truths = (None if truth is None else truth[: len(test)].to(device)
              for truth, test in ((loaded.truth_a, domains.test_a), (loaded.truth_b, domains.test_b)))  # fmt: skip
    return Loaded(Domains(*(images.to(device) for images in domains)), *truths)


def digests(config: Size) -> dict[str, str]:
    """Digest of the content of every data set behind a config."""
    if config.task in DRAWN:
        return {}  # nothing is read; ALGORITHM_VERSION rises with the programs that draw them
    if config.task == "digits":
        return {name: datasets.digest(name) for name in ("mnist-5k", "uci-digits")}
    if config.task in CIFAR_PAIRS:
        return {"cifar10": datasets.digest("cifar10")}
    return {config.task: photos.digest(config.task.removeprefix(PHOTOS))}


def _scenes(config: Size) -> Loaded:
    """A: label maps as pictures; B: photographs of other scenes. pix2pix is shown the photographs of A's own scenes."""
    # DEVIATION cyclegan2017-D20: drawn streets in place of Cityscapes. NOTE cyclegan2017-N21: colours do not give the
    # classes of their photographs away.
    first = _drawn_scenes(config.n_train, config.side, A_SEED)
    paired = isinstance(config, TranslationConfig) and config.method == "pix2pix"
    second = first if paired else _drawn_scenes(config.n_train, config.side, B_SEED)
    test = _drawn_scenes(config.n_test, config.side, TEST_SEED)
    a, test_a = scenes.as_pictures(first.labels), scenes.as_pictures(test.labels)
    return Loaded(Domains(a, second.photographs, test_a, test.photographs), test.labels, test.labels)


# The 6,450 scenes of `paper` take three minutes of a thread: runs of one process share them, as they do data sets.
_drawn_scenes = functools.lru_cache(maxsize=3)(scenes.scenes)
_drawn_paintings = functools.lru_cache(maxsize=2)(scenes.paintings)


def _paintings(config: Size) -> Loaded:
    """A: paintings; B: photographs; of different scenes, each with its own light, NOTE cyclegan2017-N22."""
    a, test_a = (_drawn_paintings(n, config.side, seed)
                 for n, seed in ((config.n_train, A_SEED), (config.n_test, TEST_SEED + 1)))  # fmt: skip
    b, test_b = (_drawn_scenes(n, config.side, seed).photographs
                 for n, seed in ((config.n_train, B_SEED), (config.n_test, TEST_SEED)))  # fmt: skip
    return Loaded(Domains(a, b, test_a, test_b))


def _shapes(config: Size) -> Loaded:
    """A: discs of one texture; B: triangles of another."""
    a, b = (shapes.shapes(domain, config.n_train, config.side, seed) for domain, seed in (("a", A_SEED), ("b", B_SEED)))
    test_a, test_b = (shapes.shapes(domain, config.n_test, config.side, TEST_SEED) for domain in ("a", "b"))
    return Loaded(Domains(a.images, b.images, test_a.images, test_b.images), test_a.masks, test_b.masks)


def _digits(config: Size) -> Loaded:
    """A: MNIST-5k; B: UCI's digits; both as grey levels 0 .. 255 of config.side."""
    # DEVIATION cyclegan2017-D32: not a task of the paper's: real pictures whose meaning can be read by a classifier.
    parts = []
    for name in ("mnist-5k", "uci-digits"):
        data = datasets.load(name)
        (train, _), (test, labels) = data.split("train"), data.split("test")
        scaled = [resized(images, config.side, data.max_value) for images in (train, test)]
        # In random order, for the first n_train of them train.
        chosen = torch.randperm(len(train), generator=generator(A_SEED, "digits"))
        parts.append((scaled[0][chosen], scaled[1], labels))
    (a, test_a, truth_a), (b, test_b, truth_b) = parts
    return Loaded(Domains(a, b, test_a, test_b), truth_a, truth_b)


def resized(images: Tensor, side: int, max_value: int) -> Tensor:
    """uint8 (N, C, H, W), 0 .. max_value -> uint8 (N, C, side, side), 0 .. 255; bilinear, antialiased."""
    scaled = F.interpolate(images.float() * (255 / max_value), (side, side), mode="bilinear", antialias=True)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def _of_photos(found: photos.Photos) -> Domains:
    # NOTE cyclegan2017-N60: bicubic, antialiased; NOTE cyclegan2017-N61: orientation applied, transparency refused.
    # NOTE cyclegan2017-N62: counts are the archives', which the paper's text and README do not agree with.
    for domain, images in zip(DOMAINS, found[:4], strict=True):
        if len(images) < FEWEST:
            raise UserError(
                f"{domain} of {found.name} holds {len(images)} images: scores take {FEWEST} at least, put more there."
            )
    return Domains(found.train_a, found.train_b, found.test_a, found.test_b)


LOADERS = {"scenes": _scenes, "paintings": _paintings, "digits": _digits, "shapes": _shapes}
