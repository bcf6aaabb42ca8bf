"""A user's own LSUN, from the LMDB to a finished run: its digest in the fingerprint, and training at 64 x 64."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lib import datasets
from lib.datasets import lsun, registry
from lib.errors import UserError
from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.metrics.quality import extractor_for
from replications import papers
from replications.wgan2017 import evaluate
from replications.wgan2017.config import ImagesConfig
from replications.wgan2017.evaluate import gaussian_draws, images
from replications.wgan2017.pixels import pixels_of

lmdb = pytest.importorskip("lmdb", reason="LSUN is read with the package lmdb, which only its readers need")

N = 40
TINY = ImagesConfig("lsun-bedroom", "wgan", "dcgan", "dcgan", 4, n_critic=2, n_filters=4, batch=8, n_checkpoints=3,
                    n_curve=20, n_generated=20)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A data root with an LSUN of 40 JPEGs, and a registry that wants no more."""
    whole = yaml.safe_load(registry.REGISTRY.read_text())
    whole["datasets"]["lsun-bedroom"] |= {"images": [N, 3, 64, 64], "splits": {"train": [0, N]}}
    path = tmp_path / "registry.yaml"
    path.write_text(yaml.safe_dump(whole))
    monkeypatch.setattr(registry, "REGISTRY", path)
    monkeypatch.setattr(lsun, "IMAGES", N)
    monkeypatch.setenv("REGEN_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "lsun" / lsun.LMDB
    folder.mkdir(parents=True)
    rng = np.random.Generator(np.random.PCG64(0))
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as writing:
        for i in range(N):
            buffer = io.BytesIO()
            coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            coarse.resize((90 + i, 80), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            writing.put(f"{i:040x}".encode(), buffer.getvalue())
    datasets.loading._load.cache_clear()
    yield tmp_path / "data"
    datasets.loading._load.cache_clear()


def planned(config=TINY) -> Run:
    return Run("wgan2017", "wgan-dcgan", "lsun", config, 0, {config.data: datasets.digest(config.data)}, 1)


def test_images_of_64_get_no_frame_and_the_first_are_the_reference(root):
    data = datasets.load("lsun-bedroom")
    pixels = pixels_of(data, 20, torch.device("cpu"))
    assert torch.equal(pixels.train, data.images)
    assert torch.equal(pixels.reference, data.images)
    assert pixels.shape == (3, 64, 64)


def test_a_run_goes_from_the_lmdb_to_its_scores(root, tmp_path):
    datasets.load("lsun-bedroom")
    run, store = planned(), Store(tmp_path / "store")
    assert execute(run, lambda r, workspace: images(r.config, workspace), store, Options()).ending == "finished"
    done = store.read(run)
    assert done.scores["estimate"].protocol["data_sha256"] == run.data["lsun-bedroom"]
    assert all(np.isfinite(row["estimate"]) for row in done.history())
    assert done.history()[-1]["step"] == 4
    sheet = Image.open(done.folder / "samples.png")
    assert sheet.width > 8 * 64
    assert extractor_for("lsun-bedroom") == "efficientnet-lite0"
    if "quality_left_out" not in done.facts:  # the wheel of that extractor is optional
        assert done.scores["fid"].protocol["extractor"] == "efficientnet-lite0"
        assert np.isfinite(done.scores["fid"].value)


def test_the_gaussian_is_the_same_from_a_few_images_at_a_time(monkeypatch):
    """300,000 of 64 x 64 in double precision would take 29 GB."""
    rng = torch.Generator().manual_seed(0)
    made = torch.randint(0, 256, (50, 3, 2, 2), dtype=torch.uint8, generator=rng)
    whole = gaussian_draws(made, 100, torch.Generator().manual_seed(1))
    monkeypatch.setattr(evaluate, "MOMENT_ROWS", 7)
    assert torch.equal(gaussian_draws(made, 100, torch.Generator().manual_seed(1)), whole)


def with_a_package(monkeypatch, seen):
    def compute(run, workspace):
        seen.append(run)
        return images(run.config, workspace)

    monkeypatch.setattr(papers, "load", lambda key: SimpleNamespace(package=SimpleNamespace(compute=compute)))


def test_a_plan_made_before_the_copy_was_read_gets_its_digest(root, tmp_path, monkeypatch):
    before, seen, store = planned(), [], Store(tmp_path / "store")
    assert before.data == {"lsun-bedroom": "of-the-copy"}
    with_a_package(monkeypatch, seen)
    (report,) = papers.compute_missing([before], store, Options(), workers=1)
    after = planned()
    assert report.ending == "finished"
    assert [run.fingerprint for run in seen] == [after.fingerprint] == [report.run.fingerprint]
    assert after.data == {"lsun-bedroom": datasets.load("lsun-bedroom").digest}
    assert (store.state(after), store.state(before)) == ("finished", "missing")
    (again,) = papers.compute_missing([before], store, Options(), workers=1)
    assert (again.ending, len(seen)) == ("kept", 1)


def test_a_copy_of_other_bytes_is_refused_by_the_machine_that_has_it(root, tmp_path, monkeypatch):
    datasets.load("lsun-bedroom")
    run, seen = replace(planned(), data={"lsun-bedroom": "0" * 64}), []
    with_a_package(monkeypatch, seen)
    with pytest.raises(UserError, match="planned for lsun-bedroom with the digest 000000000000, and here it has"):
        execute(run, papers.compute, Store(tmp_path / "store"), Options())
    assert not seen


def test_a_preset_of_any_name_has_a_number_of_seeds():
    assert [papers.default_seeds(preset) for preset in ("smoke", "laptop", "paper", "lsun")] == [1, 3, 3, 3]
