"""The classes: the same values as the functions, whatever the batches and over however many processes."""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from lib.metrics.extractors import Features
from lib.metrics.frechet import frechet_distance_of_features
from lib.metrics.gaussian import gaussian_stats
from lib.metrics.inception_score import inception_score
from lib.metrics.kernel_distance import kernel_distance
from lib.metrics.neighbours import density_coverage, precision_recall
from lib.metrics.segmentation import confusion_matrix, segmentation_scores
from lib.metrics.streaming import (
    DensityCoverage,
    FrechetDistance,
    InceptionScore,
    KernelDistance,
    PrecisionRecall,
    SegmentationScore,
)

ROOT = Path(__file__).resolve().parents[3]


def normal(n: int, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


REAL, GENERATED = normal(60, seed=1), normal(50, seed=2) * 1.3 + 0.2
PROBABILITIES = normal(48, 5, seed=3).softmax(1)


class Means(nn.Module):
    """An extractor whose features are known: the mean of each quarter of the image."""

    name, digest, n_features, n_classes = "means", "0" * 64, 4, 4
    protocol = MappingProxyType({"extractor": "means", "resize": "none"})

    def forward(self, images: Tensor) -> Features:
        quarters = torch.nn.functional.avg_pool2d(images.double(), images.shape[-1] // 2).mean(1).flatten(1)
        return Features(quarters, quarters.softmax(1))


def images(n: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_batches_change_nothing(batch: int) -> None:
    frechet, kernel, precision, density = (
        FrechetDistance(n_features=6),
        KernelDistance(),
        PrecisionRecall(),
        DensityCoverage(),
    )
    for metric in (frechet, kernel, precision, density):
        for side, real in ((REAL, True), (GENERATED, False)):
            for part in side.split(batch):
                metric.update(part, real=real)
    assert frechet.compute().item() == pytest.approx(frechet_distance_of_features(REAL, GENERATED), rel=1e-10)
    want = kernel_distance(REAL, GENERATED)
    assert [each.item() for each in kernel.compute()] == pytest.approx([want.value, want.stderr], rel=1e-12)
    assert [each.item() for each in precision.compute()] == list(precision_recall(REAL, GENERATED, 3))
    assert [each.item() for each in density.compute()] == list(density_coverage(REAL, GENERATED, 5))


@pytest.mark.parametrize("batch", [1, 7, 48])
def test_batches_change_no_inception_score(batch: int) -> None:
    metric = InceptionScore(splits=4, seed=3, spread="sample")
    for part in PROBABILITIES.split(batch):
        metric.update(part)
    want = inception_score(PROBABILITIES, 4, seed=3, spread="sample")
    assert [each.item() for each in metric.compute()] == [want.value, want.spread]
    score = metric.score()
    assert (score.value, score.n, score.protocol["sd_over_splits"]) == (want.value, 48, want.spread)
    assert score.protocol["sd_divisor"] == "n - 1"


def test_segmentation_adds_up() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randint(0, 4, (6, 5, 5), generator=generator) for _ in range(2))
    metric = SegmentationScore(4)
    for part in range(0, 6, 2):
        metric.update(truth[part : part + 2], predicted[part : part + 2])
    want = segmentation_scores(confusion_matrix(truth, predicted, 4), "ignore")
    assert [each.item() for each in metric.compute()] == pytest.approx(list(want), rel=1e-14)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")  # torchmetrics says so too
def test_a_reset_forgets_everything() -> None:
    metric = FrechetDistance(n_features=6)
    metric.update(REAL * 100, real=True)
    metric.update(GENERATED, real=False)
    metric.reset()
    with pytest.raises(ValueError, match="holds 0 rows"):
        metric.compute()
    metric.update(REAL, real=True)
    metric.update(GENERATED, real=False)
    assert metric.compute().item() == pytest.approx(frechet_distance_of_features(REAL, GENERATED), rel=1e-10)


def test_two_copies_do_not_share_their_state() -> None:
    one = FrechetDistance(n_features=6)
    two = one.clone()
    one.update(REAL, real=True)
    assert two.real[0] == 0


def test_merging_is_adding() -> None:
    one, two = FrechetDistance(n_features=6), FrechetDistance(n_features=6)
    one.update(REAL[:20], real=True)
    two.update(REAL[20:], real=True)
    two.update(GENERATED, real=False)
    one.merge_state(two)
    assert one.compute().item() == pytest.approx(frechet_distance_of_features(REAL, GENERATED), rel=1e-10)


def test_images_go_through_the_extractor_and_the_score_says_how() -> None:
    metric, extractor = FrechetDistance(Means()), Means()  # type: ignore[arg-type]
    metric.update(images(5, 1), real=True)
    metric.update(images(3, 2), real=False)
    want = frechet_distance_of_features(extractor(images(5, 1)).features, extractor(images(3, 2)).features)
    score = metric.score()
    assert score.value == pytest.approx(want, rel=1e-10)
    assert score.n == 3
    assert dict(score.protocol) == {"extractor": "means", "resize": "none", "n_real": 5, "covariance": "rank-deficient"}
    assert math.isnan(score.stderr)
    metric.update(images(5, 3), real=False)
    assert metric.score().protocol["covariance"] == "full"


def test_a_reference_stands_for_the_real_images() -> None:
    extractor = Means()
    reference = gaussian_stats(extractor(images(9, 1)).features, Means.protocol)
    metric = FrechetDistance(extractor, reference=reference)  # type: ignore[arg-type]
    metric.update(images(7, 2), real=False)
    want = frechet_distance_of_features(extractor(images(9, 1)).features, extractor(images(7, 2)).features)
    assert metric.compute().item() == pytest.approx(want, rel=1e-10)
    with pytest.raises(ValueError, match="resize is 'bilinear' and 'none'"):
        FrechetDistance(extractor, reference=reference._replace(protocol={"extractor": "means", "resize": "bilinear"}))  # type: ignore[arg-type]


def test_the_kernel_distance_has_a_standard_error_in_its_score() -> None:
    metric = KernelDistance()
    metric.update(REAL, real=True)
    metric.update(GENERATED, real=False)
    want, score = kernel_distance(REAL, GENERATED), metric.score()
    assert (score.value, score.stderr, score.n, score.protocol["n_real"]) == (want.value, want.stderr, 50, 60)


def test_several_values_carry_their_protocol_too() -> None:
    precision, density = PrecisionRecall(k=4), DensityCoverage()
    for metric in (precision, density):
        metric.update(REAL, real=True)
        metric.update(GENERATED, real=False)
    scores = precision.scores()
    assert {name: score.value for name, score in scores.items()} == precision_recall(REAL, GENERATED, 4)._asdict()
    assert all(s.n == 50 and dict(s.protocol) == {"k": 4, "n_real": 60} for s in scores.values())
    found = {name: score.value for name, score in density.scores().items()}
    assert found == density_coverage(REAL, GENERATED, 5)._asdict()
    labels = torch.tensor([[[0, 1], [1, 255]]])
    segmentation = SegmentationScore(2)
    segmentation.update(labels, torch.tensor([[[0, 1], [0, 0]]]))
    score = segmentation.scores()["pixel_accuracy"]
    assert (score.value, score.n, score.protocol["ignored label"]) == (2 / 3, 3, 255)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")  # torchmetrics says so too
def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="either extractor"):
        FrechetDistance()
    with pytest.raises(ValueError, match="either extractor"):
        FrechetDistance(Means(), n_features=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="images have 5 features: this metric was made for 6"):
        FrechetDistance(n_features=6).update(normal(3, 5), real=True)
    with pytest.raises(ValueError, match="nan or infinity"):
        KernelDistance().update(torch.full((3, 2), math.nan), real=True)
    with pytest.raises(ValueError, match="row sums"):
        InceptionScore(seed=0).update(torch.ones(3, 2))
    with pytest.raises(ValueError, match="holds 0 rows"):
        PrecisionRecall().compute()


WORKER = """
import sys
import torch
import torch.distributed as dist
from lib.metrics.streaming import DensityCoverage, FrechetDistance, InceptionScore, KernelDistance, SegmentationScore

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
data = torch.load(sys.argv[3], weights_only=True)
cut = {"real": 17, "generated": 0, "truth": 2}
mine = {key: data[key][: cut[key]] if rank == 0 else data[key][cut[key] :] for key in cut}
predicted = data["predicted"][:2] if rank == 0 else data["predicted"][2:]

frechet, kernel, density = FrechetDistance(n_features=6), KernelDistance(), DensityCoverage()
frechet.update(mine["real"], real=True)
if len(mine["generated"]):  # process 0 has not seen one
    frechet.update(mine["generated"], real=False)
for metric in (kernel, density):
    metric.update(mine["real"], real=True)
    if rank == 1:
        metric.update(data["generated"], real=False)
inception = InceptionScore(splits=4, seed=3)
if rank == 1:  # nor any of these
    inception.update(data["probabilities"])
segmentation = SegmentationScore(4)
segmentation.update(mine["truth"], predicted)
found = {
    "frechet": frechet.compute(),
    "frechet_n": torch.tensor(frechet.score().n),
    "local_n": frechet.real[0],
    "scores_n": torch.tensor([kernel.score().n, density.scores()["density"].n, inception.score().n]),
    "kernel": torch.stack(kernel.compute()),
    "density": torch.stack(density.compute()),
    "inception": torch.stack(inception.compute()),
    "segmentation": torch.stack(segmentation.compute()),
}
torch.save(found, f"{sys.argv[3]}.{rank}")
# Without this a process that ends first takes its connections down under the other's threads, which then abort.
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    """Uneven parts, and a process that has not seen a generated image."""
    generator = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randint(0, 4, (6, 5, 5), generator=generator) for _ in range(2))
    data = {
        "real": REAL,
        "generated": GENERATED,
        "probabilities": PROBABILITIES,
        "truth": truth,
        "predicted": predicted,
    }
    torch.save(data, tmp_path / "data")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "meeting"), str(tmp_path / "data")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    told = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    kernel = kernel_distance(REAL, GENERATED)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"data.{rank}", weights_only=True)
        assert found["frechet"].item() == pytest.approx(frechet_distance_of_features(REAL, GENERATED), rel=1e-10)
        assert found["frechet_n"].item() == 50
        assert found["scores_n"].tolist() == [50, 50, len(PROBABILITIES)]
        assert found["local_n"].item() == (17, 43)[rank]  # each process keeps its own part afterwards
        assert found["kernel"].tolist() == pytest.approx([kernel.value, kernel.stderr], rel=1e-10)
        assert found["density"].tolist() == pytest.approx(list(density_coverage(REAL, GENERATED, 5)), rel=1e-12)
        score = inception_score(PROBABILITIES, 4, seed=3)
        assert found["inception"].tolist() == pytest.approx([score.value, score.spread], rel=1e-12)
        want = segmentation_scores(confusion_matrix(truth, predicted, 4), "ignore")
        assert found["segmentation"].tolist() == pytest.approx(list(want), rel=1e-14)
