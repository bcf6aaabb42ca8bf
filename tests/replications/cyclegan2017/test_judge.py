"""The held-out discriminator: the network by hand, its file, and that it takes real renderings for real and noise not.

Nothing here names the digest of the file, nor what the judge says of any one method: it can be trained again.
"""

import hashlib
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib.datasets import scenes
from lib.errors import UserError
from replications.cyclegan2017 import judge, meaning
from replications.cyclegan2017.evaluate import Translations
from replications.cyclegan2017.presets import PRESETS


@pytest.fixture(autouse=True)
def as_shipped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever file is there, with its digest; what one test loads no other finds."""
    judge._judge.cache_clear()
    monkeypatch.setattr(judge, "SHA256", hashlib.sha256(judge.FILE.read_bytes()).hexdigest())
    yield
    judge._judge.cache_clear()


@pytest.fixture(scope="module")
def real() -> Tensor:
    return scenes.scenes(400, judge.SIDE, 50_000).photographs


def noise(n: int) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, judge.SIDE, judge.SIDE), dtype=torch.uint8, generator=rng)


def share(photographs: Tensor) -> float:
    return judge.called_real(photographs).float().mean().item()


def by_hand(photographs: Tensor) -> Tensor:
    """The logits, written out in float64 from the tensors of the file."""
    state = {name: tensor.double() for name, tensor in load_file(judge.FILE).items()}
    n, cell = len(photographs), judge.SIDE // judge.SEEN
    h = photographs.double().view(n, 3, judge.SEEN, cell, judge.SEEN, cell).mean((3, 5)) / 127.5 - 1
    for place, stride in ((0, 1), (3, 2)):
        h = F.conv2d(h, state[f"{place}.weight"], stride=stride, padding=1)
        mean, variance, gain, shift = (
            state[f"{place + 1}.{key}"].view(-1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        h = (h - mean) / (variance + 1e-5).sqrt() * gain + shift
        h = torch.where(h > 0, h, 0.2 * h)
    return h.flatten(1) @ state["8.weight"][0] + state["8.bias"][0]


def test_it_says_what_its_file_says(real):
    images = torch.cat([real[:150], noise(50), 255 - real[150:200], scenes.scenes(50, 32, 7).photographs.flip(2)])
    logits = by_hand(images)
    clear = logits.abs() > 1e-3
    assert clear.float().mean() > 0.95
    assert torch.equal(judge.called_real(images)[clear], logits[clear] > 0)
    assert judge.called_real(images).dtype == torch.bool
    assert 0 < share(images) < 1


def test_real_renderings_are_called_real_far_more_often_than_what_is_none(real):
    assert share(real) > 0.75
    assert share(noise(200)) < 0.2
    # Label maps in their colours and flat grey are no photographs either.
    labels = scenes.as_pictures(scenes.scenes(200, judge.SIDE, 50_001).labels)
    assert share(labels) < 0.25
    assert share(torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)) == 0


def test_chunks_and_neighbours_move_nothing(real, monkeypatch):
    """Batch norm in eval mode, no dropout: an image is judged by itself, and again in the same way."""
    whole = judge.called_real(real)
    monkeypatch.setattr(judge, "BATCH", 7)
    assert torch.equal(judge.called_real(real), whole)
    turned = torch.randperm(len(real), generator=torch.Generator().manual_seed(1))
    assert torch.equal(judge.called_real(real[turned]), whole[turned])


def test_fooling_is_the_share_with_its_binomial_error(real):
    images = torch.cat([real[:60], noise(40)])
    p = share(images)
    score = judge.fooling(images, {"task": "made up"})
    assert (score.value, score.n, score.unit, score.higher_is_better) == (pytest.approx(p), 100, "share", True)
    assert score.stderr == pytest.approx(math.sqrt(p * (1 - p) / 100))
    assert score.protocol == {"task": "made up", "judge": judge.SHA256, "real": "logit above 0", "stderr": "binomial"}


def test_photographs_of_its_side_are_shown_to_it(real):
    a = real.flip(1)
    found = Translations(a[:40], real[:40], noise(40), a[:40], a[:40], real[:40])
    scored = meaning.photo_scores(found, {"task": "made up"}, 0)
    assert scored["fooling_b"].value == pytest.approx(share(noise(40)))
    assert abs(share(noise(40)) - share(real[:40])) > 0.5
    assert {config.side for name, config in PRESETS["laptop"].items() if name.startswith("scenes-")} == {judge.SIDE}


def test_other_images_are_refused(real):
    for images in (real[..., :24], real[:, :1]):
        with pytest.raises(ValueError, match=r"the judge takes \(N, 3, 32, 32\)"):
            judge.called_real(images)


def test_another_file_is_refused_in_one_sentence(tmp_path, monkeypatch):
    state = load_file(judge.FILE)
    name = next(iter(state))
    state[name] = state[name] + 1e-3
    save_file(state, tmp_path / "judge.safetensors")
    monkeypatch.setattr(judge, "FILE", tmp_path / "judge.safetensors")
    with pytest.raises(UserError) as told:
        judge.called_real(noise(1))
    assert str(tmp_path / "judge.safetensors") in str(told.value)
    assert "git checkout" in str(told.value)
    assert "\n" not in str(told.value)


def test_the_digest_in_the_code_is_the_files(monkeypatch):
    monkeypatch.undo()
    assert hashlib.sha256(judge.FILE.read_bytes()).hexdigest() == judge.SHA256
