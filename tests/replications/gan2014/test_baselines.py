"""The baselines beside the scores: k-means against scikit-learn, closed forms, and the anchors of MNIST."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans

from lib import datasets
from lib.execution.execute import deterministic
from lib.metrics.neighbours import precision_recall
from lib.training.randomness import Streams
from replications.gan2014.annealed import dequantised
from replications.gan2014.baselines import compute_baselines, exact_ppca, image_sources, k_means
from replications.gan2014.config import BaselinesConfig
from replications.gan2014.figures_scores import SOURCES
from replications.gan2014.splits import Splits, splits

TINY = BaselinesConfig(
    "mnist-5k", n_train=300, n_validation=100, n_samples=200, n_quality=60, n_clusters=50, n_factors=5, n_ais_images=7
)


@pytest.fixture(scope="module")
def data():
    return datasets.load("mnist-5k")


@pytest.fixture(scope="module")
def scores(data):
    with deterministic("cpu"):
        return compute_baselines(TINY, data, Streams(0))[0]


def test_k_means_is_that_of_scikit_learn():
    x = torch.rand(400, 6, generator=torch.Generator().manual_seed(0))
    start, _ = k_means(x, 12, 0, Streams(3))
    centres, masses = k_means(x, 12, 1, Streams(3))
    labels = torch.cdist(x, start).argmin(1)
    means = torch.stack([x[labels == k].mean(0) for k in range(12)])
    assert torch.allclose(centres, means, atol=1e-6)
    assert torch.allclose(masses, torch.bincount(labels, minlength=12) / 400)
    many, _ = k_means(x, 12, 100, Streams(3))
    want = KMeans(12, init=start.numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(x.numpy())
    assert torch.allclose(many, torch.from_numpy(want.cluster_centers_), atol=1e-5)
    with pytest.raises(ValueError, match="number of rows, 400"):
        k_means(x, 401, 1, Streams(0))


def test_an_emptied_centre_stays_where_it_was():
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    centres, masses = k_means(x, 4, 3, Streams(0))  # three centres lie on one another: the first takes all
    assert sorted(centres.flatten().tolist()) == [0, 0, 0, 1]
    assert sorted(masses.tolist()) == [0, 0, 0.25, 0.75]


def test_sources_are_made_from_training_images_alone(data):
    train = splits(data, TINY.n_train, TINY.n_validation).train
    made = image_sources(train, 250, TINY, Streams(0))
    assert list(made) == list(SOURCES)
    assert [len(images) for images in made.values()] == [250, 250, 250, 1, 250]
    assert all(images.min() >= 0 and images.max() <= 1 for images in made.values())
    nearest = torch.cdist(made["real"].double(), train.double()).argmin(1)
    assert torch.equal(made["real"], train[nearest])
    assert len(nearest.unique()) == 250
    assert len(made["kmeans"].unique(dim=0)) <= TINY.n_clusters
    assert torch.allclose(made["kmeans"].mean(0), made["mean"][0], atol=0.15)  # centres by their mass have the mean
    inside = (made["ppca"] > 0) & (made["ppca"] < 1)
    assert 0.1 < inside.float().mean() < 0.9  # clipped, not squashed
    assert abs(made["ppca"].mean() - train.mean()) < 0.05


def test_the_mean_images_parzen_score_is_one_gaussians(data, scores):
    score = scores["parzen_mean"]
    parts, sigma = splits(data, TINY.n_train, TINY.n_validation), score.protocol["sigma"]
    square = (parts.test.double() - parts.train.mean(0).double()).square().sum(1).mean().item()
    want = -square / (2 * sigma**2) - 392 * math.log(2 * math.pi * sigma**2)
    assert score.value == pytest.approx(want, abs=1e-3)
    assert score.protocol["samples"] == 1
    assert score.protocol["validation"] == 100
    assert score.n == 1000


def test_exact_ppca_is_a_gaussian_density():
    x = torch.rand(60, 5, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    found = exact_ppca(Splits(x, x[:0], x[:40]), BaselinesConfig("mnist-5k", n_factors=4, n_ais_images=9), {})
    fitted = dequantised(x, "train").double().numpy()
    centred = fitted - fitted.mean(0)  # with D - 1 factors probabilistic PCA is the whole Gaussian
    law = multivariate_normal(fitted.mean(0), centred.T @ centred / len(fitted))
    want = law.logpdf(dequantised(x[:40], "test").double().numpy())
    assert found["exact_ppca"].value == pytest.approx(want.mean(), abs=1e-9)
    assert found["exact_ppca_first"].value == pytest.approx(want[:9].mean(), abs=1e-9)


def test_every_source_has_every_score_and_its_place(scores):
    kinds = ("parzen", "fid", "is", "kid", "precision", "recall")
    assert {f"{kind}_{source}" for kind in kinds for source in SOURCES} <= scores.keys()
    parzen = [scores[f"parzen_{source}"].value for source in ("noise", "mean", "real")]
    assert parzen == sorted(parzen)
    fids = [scores[f"fid_{source}"].value for source in ("real", "ppca", "mean", "noise")]
    assert fids == sorted(fids)
    assert {scores[f"fid_{source}"].protocol["real"] for source in SOURCES} == {60}
    assert scores["nearest_train_copies"].value == 0 < scores["nearest_train_heldout"].value
    assert scores["share_nearer_train_copies"].value > 0.9  # 300 training images, all of them drawn


def test_a_ball_around_repeats_has_no_extent():
    """Why the recall of k-means centres, drawn with repetition, says nothing of their variety."""
    real, drawn = torch.rand(2, 200, 3, generator=torch.Generator().manual_seed(0))
    assert precision_recall(real, drawn, k=3).recall > 0.8
    assert precision_recall(real, drawn.repeat(4, 1), k=3).recall == 0


def test_a_run_repeats_its_bits_and_seeds_differ(data, scores):
    with deterministic("cpu"):
        again, other = (compute_baselines(TINY, data, Streams(seed))[0] for seed in (0, 1))
    assert {name: score.value for name, score in again.items()} == {name: score.value for name, score in scores.items()}
    assert other["parzen_kmeans"].value != scores["parzen_kmeans"].value


def test_sets_without_an_extractor_lack_only_the_quality_scores():
    found = {each.name: each.present for each in datasets.status()}
    if not found["frey-face"]:
        pytest.skip("frey-face is not in the data root")
    config = BaselinesConfig(
        "frey-face", n_train=200, n_validation=50, n_samples=100, n_clusters=20, n_factors=5, n_ais_images=7
    )
    scores, facts = compute_baselines(config, datasets.load("frey-face"), Streams(0))
    assert "parzen_real" in scores
    assert "fid_real" not in scores
    assert "frey-face" in facts["quality_left_out"]


@pytest.mark.slow
def test_the_anchors_of_mnist():
    """The fact sheet's numbers by numpy, at the tolerances of claims.yaml; two minutes on one core."""
    found = {each.name: each.present for each in datasets.status()}
    if not found["mnist"]:
        pytest.skip("mnist is not in the data root")
    scores, _ = compute_baselines(BaselinesConfig("mnist", n_quality=100), datasets.load("mnist"), Streams(0))
    for source, want, within in (("real", 243, 4), ("kmeans", 283.5, 6), ("ppca", 115, 5), ("mean", -59.1, 0.1)):
        assert scores[f"parzen_{source}"].value == pytest.approx(want, abs=within), source
    assert scores["exact_ppca"].value == pytest.approx(520.6, abs=6)
