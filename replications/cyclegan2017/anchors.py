"""What stands beside every score of a task: real images, others that have nothing to do with the input, the input."""

import torch

from lib.datasets import scenes
from lib.execution.workspace import Outcome, Workspace
from lib.results import Score
from replications.cyclegan2017 import meaning
from replications.cyclegan2017.config import AnchorsConfig
from replications.cyclegan2017.evaluate import Translations, diversity_scores, sheet
from replications.cyclegan2017.tasks import DRAWN, Loaded, load


def anchors(config: AnchorsConfig, workspace: Workspace) -> Outcome:
    """The scores of translators that know all or nothing; each name ends in whose it is.

    real: the true image, where the task knows it (scenes), else real training images of the target domain in its place;
    other: real training images of the target domain, drawn at random, whatever the input is; input: the input itself.
    majority (label maps of scenes): one map for all, which ignores the input as other does and can score above it.
    """
    loaded, streams = load(config, workspace.device), workspace.streams
    domains = loaded.domains
    drawn_b, drawn_a = (
        images[torch.randperm(len(images), generator=streams.at(f"other {name}"), device=images.device)[: len(test)]]
        for name, images, test in (("b", domains.b, domains.test_a), ("a", domains.a, domains.test_b))
    )
    known = config.task == "scenes"
    real_b, real_a = (domains.test_b, domains.test_a) if known else (drawn_b, drawn_a)
    found = {
        "real": _translations(loaded, real_b, real_a),
        "other": _translations(loaded, drawn_b, drawn_a),
    }
    if domains.a.shape[1] == domains.b.shape[1]:
        found["input"] = _translations(loaded, domains.test_a, domains.test_b)
    scores: dict[str, Score] = {}
    for name, translations in found.items():
        protocol = {"task": config.task, "side": config.side, "images": name, "split": "test"}
        own = meaning.scores(config, translations, loaded, protocol, streams.seed)
        own |= diversity_scores(translations, protocol, streams.seed)
        if known and name == "real":  # these compare with the test images, which here they are
            own = {key: score for key, score in own.items() if not key.startswith(("kid_", "two_sample_"))}
        scores |= {f"{key}_{name}": score for key, score in own.items()}
    if known:
        scores |= _majority_scores(config, loaded)
    return Outcome(scores, [], {}, sheet(found["real"], True) if config.task in DRAWN else None)


def _majority_scores(config: AnchorsConfig, loaded: Loaded) -> dict[str, Score]:
    """label_*_majority: scores of the map that has at each pixel the most frequent class of the training scenes."""
    assert loaded.truth_a is not None
    labels = scenes.read_pictures(loaded.domains.a)
    counts = torch.stack([(labels == label).sum(0) for label in range(len(scenes.CLASSES))])
    majority = counts.argmax(0).to(torch.uint8).expand_as(loaded.truth_a)  # (H, W) -> (N, H, W); of equals the first
    protocol = {"task": config.task, "side": config.side, "images": "majority", "split": "test",
                **meaning.LABEL_READER, "absent classes": meaning.ABSENT}  # fmt: skip
    own = meaning.label_map_scores(loaded.truth_a, majority, protocol)
    return {f"label_{key}_majority": score for key, score in own.items()}


def _translations(loaded: Loaded, fake_b: torch.Tensor, fake_a: torch.Tensor) -> Translations:
    a, b = loaded.domains.test_a, loaded.domains.test_b
    return Translations(a, b, fake_b, fake_a, a, b)
