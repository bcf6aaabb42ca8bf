"""Scores of a training: what its translations mean, how they look, and whether they come back."""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib.checks import to_uint8
from lib.execution.workspace import Outcome, Workspace
from lib.reporting.sheets import image_sheet
from lib.results import Score, mean_score
from replications.cyclegan2017 import meaning
from replications.cyclegan2017.baselines import method_of
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.networks import n_parameters
from replications.cyclegan2017.tasks import DRAWN, load
from replications.cyclegan2017.train import train

CHUNK = 100  # images translated at once
ROWS = 8  # images a row of the sheet
NOISE_SD = 4.0  # grey levels: of the noise that is put on a translation before the way back
JPEG_QUALITY = 75  # PIL's default
N_PAIRS = 2000  # pairs of outputs behind the diversity
N_JPEG = 100  # images that go through JPEG


class Translations(NamedTuple):
    """Test images and what the translators make of them, all uint8 (N, C, H, W), on the device."""

    a: Tensor
    b: Tensor
    fake_b: Tensor  # G(a)
    fake_a: Tensor  # F(b)
    back_a: Tensor | None  # F(G(a)); None for CoGAN, which has no way back, NOTE cyclegan2017-N31
    back_b: Tensor | None  # G(F(b))


def translation(config: TranslationConfig, workspace: Workspace) -> Outcome:
    """Train by config; translate the test images of both domains there and back; score them."""
    loaded = load(config, workspace.device)
    domains, streams = loaded.domains, workspace.streams
    channels = domains.a.shape[1], domains.b.shape[1]
    method = method_of(config, channels, streams, workspace.device, workspace.processes)
    trained = train(method, config, domains, workspace)
    workspace.leave_scores_to_the_first()
    to_b, to_a = translator(method.to_b), translator(method.to_a)
    fake_b, fake_a = to_b(domains.test_a), to_a(domains.test_b)
    backs = (None, None) if config.method == "cogan" else (to_a(fake_b), to_b(fake_a))
    found = Translations(domains.test_a, domains.test_b, fake_b, fake_a, *backs)
    protocol = {
        "task": config.task, "method": config.method, "side": config.side, "training_images": len(domains.a),
        "steps": config.n_steps, "model": "the last", "outputs": "rounded to uint8", "split": "test",
    }  # fmt: skip
    scores = {
        **round_trip_scores(found, to_b, to_a, protocol, streams.seed),
        **diversity_scores(found, protocol, streams.seed),
        **meaning.scores(config, found, loaded, protocol, streams.seed),
    }
    networks = {name: part for name, part in method.parts.items() if isinstance(part, torch.nn.Module)}
    facts = {"parameters": {name: n_parameters(part) for name, part in networks.items()}}
    return Outcome(scores, trained.history, _kept(found), sheet(found, config.task in DRAWN), facts)


def translator(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The network from uint8 images to uint8 images, in chunks, without gradients."""

    @torch.no_grad()
    def translate(images: Tensor) -> Tensor:
        parts = [to_uint8(network(part.float() / 127.5 - 1).clamp(-1, 1), -1, 1) for part in images.split(CHUNK)]
        return torch.cat(parts)

    return translate


def difference(x: Tensor, y: Tensor) -> Tensor:
    """Mean |x - y| of each image, in grey levels of 0 .. 255: uint8 (N, C, H, W) twice -> (N,)."""
    return (x.float() - y.float()).abs().flatten(1).mean(1)


def round_trip_scores(
    found: Translations, to_b: Callable[[Tensor], Tensor], to_a: Callable[[Tensor], Tensor],
    protocol: Mapping[str, Any], seed: int,
) -> dict[str, Score]:  # fmt: skip
    """How far a translation is from its input, how far the way back ends from it, and what small damage does to that.

    change_*: |G(a) - a| where the domains have equally many channels; cycle_*: |F(G(a)) - a|; cycle_share_*: the second
    over the first. noise_* and jpeg_*: cycle_* with noise of NOISE_SD, or JPEG of JPEG_QUALITY, put on G(a) before F:
    far above cycle_* where the way back reads a code hidden in G(a), which either wipes out. In grey levels.
    """
    ways = {"a": (found.a, found.fake_b, found.back_a, to_a), "b": (found.b, found.fake_a, found.back_b, to_b)}
    scores: dict[str, Score] = {}
    for name, (given, made, back, home) in ways.items():
        if back is None:
            continue
        how = {**protocol, "distance": "mean absolute difference of an image, levels 0 .. 255"}
        rng = torch.Generator(made.device).manual_seed(seed)
        noise = torch.randn(made.shape, generator=rng, device=made.device) * NOISE_SD
        noisy = (made.float() + noise).round().clamp(0, 255).to(torch.uint8)
        parts: dict[str, tuple[Tensor, dict[str, Any]]] = {
            "cycle": (difference(back, given), {}),
            "noise": (difference(home(noisy), given), {"noise": f"normal, {NOISE_SD:g} levels"}),
            "jpeg": (difference(home(through_jpeg(made[:N_JPEG])), given[:N_JPEG]), {"jpeg": JPEG_QUALITY}),
        }
        if given.shape[1] == made.shape[1]:
            parts["change"] = (difference(made, given), {})
            share = parts["cycle"][0].mean() / parts["change"][0].mean()
            scores[f"cycle_share_{name}"] = Score(share.item(), math.nan, "ratio", False, len(given), how)
        scores |= {f"{key}_{name}": mean_score(values, "grey levels", False, {**how, **extra})
                   for key, (values, extra) in parts.items()}  # fmt: skip
    return scores


def through_jpeg(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) written as JPEG and read back, each image by itself."""
    # A loop over a hundred images after the training: PIL takes one image at a time.
    back = []
    for image in images.permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=JPEG_QUALITY)
        back.append(torch.from_numpy(np.array(Image.open(file))))
    stacked = torch.stack(back)
    stacked = stacked[..., None] if stacked.ndim == 3 else stacked
    return stacked.permute(0, 3, 1, 2).to(images.device)


def diversity_scores(found: Translations, protocol: Mapping[str, Any], seed: int) -> dict[str, Score]:
    """diversity_*: mean difference of two outputs over that of two real test images of the domain; 0 for a constant."""
    scores = {}
    for name, made, real in (("b", found.fake_b, found.b), ("a", found.fake_a, found.a)):
        apart, apart_real = (_pairs_apart(images, seed) for images in (made, real))
        ratio = (apart.mean() / apart_real.mean()).item()
        how = {**protocol, "diversity": "mean difference of two outputs over that of two real images", "pairs": N_PAIRS}
        scores[f"diversity_{name}"] = Score(ratio, math.nan, "ratio", True, len(made), how)
    return scores


def _pairs_apart(images: Tensor, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    first = torch.randint(len(images), (N_PAIRS,), generator=rng)
    other = (first + 1 + torch.randint(len(images) - 1, (N_PAIRS,), generator=rng)) % len(images)
    chunks = zip(first.to(images.device).split(CHUNK), other.to(images.device).split(CHUNK), strict=True)
    return torch.cat([difference(images[i], images[j]) for i, j in chunks])


def sheet(found: Translations, drawn: bool) -> Tensor:
    """Rows of input, output and reconstruction, both ways, the first test images: one RGB image.

    drawn: the domains are drawn by programs here; else the inputs, which may not be handed on, are left out.
    """
    there, back = [found.fake_b, found.back_a], [found.fake_a, found.back_b]
    rows = [found.a, *there, found.b, *back] if drawn else [*there, *back]
    images = torch.cat([_rgb(row[:ROWS].cpu()) for row in rows if row is not None])
    return image_sheet(images, ROWS, pad_value=255)


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _kept(found: Translations) -> dict[str, Tensor]:
    """What figures draw beyond the sheet."""
    parts = found._asdict().items()
    return {name: images[: 2 * ROWS].cpu().contiguous() for name, images in parts if images is not None}
