"""Frey Face is a film: what stands beside its bounds, and what its codes keep of the order of its frames."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.datasets import Dataset
from lib.models.gaussian_vae import Gaussian
from lib.results import Score, mean_score
from replications.vae2013.side_by_side import evaluation_images

FRAME = 28, 20  # pixels of a frame
NEAR = 2  # ours: frames to either side that count as near


@dataclass(frozen=True)
class FramesConfig:
    """What the models of Frey Face are held against: independent pixels; principal components, pixels, chance."""

    data: str  # section 5: Frey Face
    n_components: int = 2  # ours: as many as figure 4a's latents
    logvar_floor: float = -8.0  # ours, as for the models; NOTE vae2013-N22


def near_in_time(codes: Tensor) -> Tensor:
    """Whether the nearest other code of each frame is that of a frame at most NEAR away: (N, Z) in order -> (N,) bool.

    Frames have no labels. In a code that keeps what the face does, a frame lies beside those just before and after.
    """
    distances = torch.cdist(codes.double(), codes.double())  # (N, N)
    distances.fill_diagonal_(math.inf)
    return (distances.argmin(1) - torch.arange(len(codes), device=codes.device)).abs() <= NEAR


def chance_near(n: int) -> float:
    """The share that near_in_time gives in expectation where each frame's neighbour is drawn among the n - 1 others."""
    place = torch.arange(n)
    within = (place[:, None] - place).abs() <= NEAR
    return (int(within.sum()) - n) / (n * (n - 1))


def frame_baselines(config: FramesConfig, data: Dataset) -> dict[str, Score]:
    """Exact log p(x) of independent Gaussian pixels, nats per test image; near_in_time of codes without a model."""
    from sklearn.decomposition import PCA

    train, test = (evaluation_images(data, s, "gaussian", torch.device("cpu")).double() for s in ("train", "test"))
    pixels = Gaussian(train.mean(0), train.var(0, correction=0).log().clamp_min(config.logvar_floor))
    protocol = {
        "data": data.name, "data_sha256": data.digest, "split": "test", "estimator": "exact log-likelihood",
        "observation": "(value + uniform noise) / 256, a density on the unit cube, one fixed draw for evaluation",
        "logvar_floor": config.logvar_floor,
    }  # fmt: skip
    scores = {"pixels_test": mean_score(pixels.log_prob(test), "nats/image", True, protocol)}
    code = torch.from_numpy(PCA(config.n_components, svd_solver="full").fit(train.numpy()).transform(test.numpy()))
    for name, features, codes in (
        ("near_pca_test", f"{config.n_components} principal components", code),
        ("near_pixels_test", "all pixels", test),
    ):
        of_codes = {"data": data.name, "split": "test", "features": features, "frames": NEAR}
        scores[name] = mean_score(near_in_time(codes), "share", True, of_codes)
    of_chance = {"data": data.name, "split": "test", "features": "none: exact expectation", "frames": NEAR}
    scores["near_chance"] = Score(chance_near(len(test)), math.nan, "share", True, len(test), of_chance)
    return scores
