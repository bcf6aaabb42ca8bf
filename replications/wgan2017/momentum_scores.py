"""Blow-ups and cosines of each model and arm, from the record of all critic steps; and a crude distance of the images.

NOTE wgan2017-N51: the paper has no criterion of instability. Ours, fixed before any measurement, is in momentum.py.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.metrics import frechet_distance, gaussian_stats
from lib.results import Score, mean_score
from replications.wgan2017.arms import arms_of, rate_name
from replications.wgan2017.config import MomentumConfig

UNSTABLE_ABOVE = 0.01  # share of blown-up critic steps; fixed before any measurement
N_COMPONENTS = 20
N_BINS = 40


class Instability(NamedTuple):
    """One number a model, (R,) float64; nan where it is a mean over no step."""

    unstable: Tensor  # 0 or 1
    blown: Tensor  # share of steps that are blown up
    cosine_blown: Tensor  # mean cosine at these
    cosine_elsewhere: Tensor  # and at the others
    negative_blown: Tensor  # share of negative cosines at these
    negative_elsewhere: Tensor  # and at the others
    blown_of_negative: Tensor  # share of blown-up steps among those with a negative cosine
    drop: Tensor  # the largest fall of the estimate from one critic step to the next


def of_record(estimate: Tensor, cosine: Tensor, finite: Tensor) -> Instability:
    """The numbers of each model from the critic steps that count, (T, R) both; finite: (R,) bool.

    An estimate that is not a number counts as blown up, a cosine that is none (no gradient at all) as not negative.
    """
    blown, negative = ~(estimate >= 0), cosine < 0
    share = blown.double().mean(0)
    return Instability(
        unstable=((share > UNSTABLE_ABOVE) | ~finite).double(),
        blown=share,
        cosine_blown=_mean_where(blown, cosine),
        cosine_elsewhere=_mean_where(~blown, cosine),
        negative_blown=_mean_where(blown, negative),
        negative_elsewhere=_mean_where(~blown, negative),
        blown_of_negative=_mean_where(negative, blown),
        drop=(estimate[:-1] - estimate[1:]).double().amax(0),
    )


def _mean_where(chosen: Tensor, values: Tensor) -> Tensor:
    """Mean over axis 0 of the chosen values that are numbers: (T, R) both -> (R,) float64."""
    return values.double().masked_fill(~chosen, math.nan).nanmean(0)


def arm_means(rows: Tensor, n_models: int) -> list[float]:
    """Means over steps and over each arm's models, (T, R) -> one an arm."""
    means: list[float] = rows.mean(0).view(-1, n_models).mean(1).tolist()
    return means


def cosine_histograms(estimate: Tensor, cosine: Tensor, n_models: int) -> Tensor:
    """Counts of cosines in N_BINS equal bins of -1 .. 1: (arms, 2, N_BINS), at blow-ups and then at other steps."""
    blown = ~(estimate >= 0)
    rows = [
        torch.stack([torch.histc(part[1][chosen], N_BINS, -1, 1) for chosen in (part[0], ~part[0])])
        for part in zip(blown.split(n_models, 1), cosine.split(n_models, 1), strict=True)
    ]
    return torch.stack(rows)


def momentum_scores(
    config: MomentumConfig, found: Instability, untrained: Tensor, made: Tensor, train: Tensor, test: Tensor
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Scores of each arm, and of all with beta1 > 0 ("momentum") at each rate and together; facts: model by model.

    untrained: (repeats, N, pixels), for all arms start alike; made: (R, N, pixels), both in -1 .. 1. A mean over no
    step of any model is left out.
    """
    arms, n = arms_of(config), config.n_models
    distance, floor = pixel_distances(made, train, test)
    at_start, _ = pixel_distances(untrained, train, test)
    columns = {**found._asdict(), "distance": distance}
    of_arm = {arm.name: [i] for i, arm in enumerate(arms)}
    for rate in config.learning_rates:
        of_arm[f"momentum_{rate_name(rate)}"] = [i for i, arm in enumerate(arms) if arm.beta1 and arm.rate == rate]
    of_arm["momentum"] = [i for i, arm in enumerate(arms) if arm.beta1]
    scores = {
        "distance_real": Score(floor, math.nan, "", False, len(test), _protocol(config) | {"images": "training"}),
        "distance_untrained": mean_score(at_start, "", False, _protocol(config) | {"averaged_over": "models"}),
    }
    for name, chosen in of_arm.items():
        models = [i * n + k for i in chosen for k in range(n)]
        protocol = _protocol(config) | {"averaged_over": "models", "arms": [arms[i].name for i in chosen]}
        for column, values in columns.items():
            known = values[models][values[models].isfinite()]
            if len(known):
                scores[f"{column}_{name}"] = mean_score(known, *_unit(column), protocol)
    facts = {
        column: {arm.name: _json(values[i * n : (i + 1) * n]) for i, arm in enumerate(arms)}
        for column, values in columns.items()
    }
    return scores, facts


def _protocol(config: MomentumConfig) -> dict[str, Any]:
    return {
        "data": config.data, "steps": config.n_steps, "n_critic": config.n_critic, "clip": config.clip,
        "width": config.width, "batch": config.batch,
        "blown": f"estimate below 0 on the minibatch, after the first {config.grace} generator updates",
        "unstable": f"more than {100 * UNSTABLE_ABOVE:g} % of these critic steps blown up, or not finite",
        "distance": f"Frechet, {N_COMPONENTS} leading components of raw pixels of the training images",
        "generated": config.n_generated,
    }  # fmt: skip


def _unit(column: str) -> tuple[str, bool]:
    kind = column.partition("_")[0]
    return {"cosine": ("cosine", True), "drop": ("critic units", False), "distance": ("", False)}.get(
        kind, ("share", False)
    )


def _json(values: Tensor) -> list[float | None]:
    return [round(value, 6) if math.isfinite(value) else None for value in values.tolist()]


def pixel_distances(made: Tensor, train: Tensor, test: Tensor) -> tuple[Tensor, float]:
    """Frechet distance to the test images in the leading principal components of the training images' raw pixels.

    It is no FID: no network reads the images. made: (R, N, pixels) -> (R,) float64, nan where outputs are not finite;
    and the distance of as many training images, which is a floor.
    """
    centred = train.double() - train.double().mean(0)
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -N_COMPONENTS:]  # ascending
    real = gaussian_stats(test.double() @ directions)

    def distance(images: Tensor) -> float:
        if not bool(images.isfinite().all()):
            return math.nan
        return frechet_distance(gaussian_stats(images.double() @ directions), real)

    return torch.tensor([distance(each) for each in made], dtype=torch.float64), distance(train[: len(test)])
