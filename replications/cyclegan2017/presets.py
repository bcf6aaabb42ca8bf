"""The runs of each preset: which experiments, at what size; and the plan for a number of seeds."""

from collections.abc import Mapping
from typing import Any

from lib.datasets import photos
from lib.execution.runs import Run
from replications.cyclegan2017 import tasks
from replications.cyclegan2017.config import (
    ALGORITHM_VERSION,
    PAPER,
    AnchorsConfig,
    MixturesConfig,
    NetworksConfig,
    TranslationConfig,
)

Config = TranslationConfig | AnchorsConfig | MixturesConfig | NetworksConfig
Arms = Mapping[str, Mapping[str, Any]]
# Tables 2 and 3: every method, both directions in one run.
METHODS: Arms = {
    "cogan": {"method": "cogan"},
    "bigan": {"method": "bigan"},
    "simgan": {"method": "simgan", "cycle_a": 0.0, "cycle_b": 0.0, "to_input": 10.0},
    "feature": {"method": "feature", "cycle_a": 0.0, "cycle_b": 0.0, "to_input": 10.0},
    "cyclegan": {"method": "cyclegan"},
    "pix2pix": {"method": "pix2pix"},
}
# Tables 4 and 5. NOTE cyclegan2017-N32: a run keeps one of the two cycles; it is "forward" for the direction whose
# input comes back, and "backward" for the other, so each run fills a row of either table.
ABLATIONS: Arms = {
    "cycle-alone": {"method": "cyclegan", "adversarial": 0.0},
    "gan-alone": {"method": "cyclegan", "cycle_a": 0.0, "cycle_b": 0.0},
    "cycle-labels": {"method": "cyclegan", "cycle_b": 0.0},
    "cycle-photos": {"method": "cyclegan", "cycle_a": 0.0},
}
DIGITS: Arms = {"cyclegan": {"method": "cyclegan"}, "gan-alone": ABLATIONS["gan-alone"]}
PAINTINGS: Arms = {"plain": {"method": "cyclegan"}, "identity": {"method": "cyclegan", "identity": 5.0}}
PLAIN: Arms = {"cyclegan": {"method": "cyclegan"}}
# The plane: where B's modes lie, and which losses. A run holds many models, and has one seed.
GAN_ALONE: Mapping[str, Any] = {"cycle_a": 0.0, "cycle_b": 0.0}
PLANE: Arms = {
    "grid-gan": {"target": "grid", **GAN_ALONE},
    "grid-forward": {"target": "grid", "cycle_b": 0.0},
    "grid-cyclegan": {"target": "grid"},
    "grid-cycle": {"target": "grid", "adversarial": 0.0},
    "ring-gan": {"target": "ring", **GAN_ALONE},
    "ring-cyclegan": {"target": "ring"},
    "ring-identity": {"target": "ring", "identity": 5.0},
    "groups-gan": {"target": "groups", **GAN_ALONE},
    "groups-cyclegan": {"target": "groups"},
}


def translations(task: str, arms: Arms, **values: Any) -> dict[str, Config]:
    """One experiment an arm, task-arm, and the task's anchors."""
    word = task.replace("/", "-")
    runs: dict[str, Config] = {
        f"{word}-{name}": TranslationConfig(task=task, **{**values, **own}) for name, own in arms.items()
    }
    sizes = {key: values[key] for key in ("side", "n_train", "n_test")}
    return runs | {f"anchors-{word}": AnchorsConfig(task, **sizes)}


def plane(**values: Any) -> dict[str, Config]:
    return {f"mixtures-{name}": MixturesConfig(**{**values, **own}) for name, own in PLANE.items()}


TINY: Mapping[str, Any] = {
    "n_steps": 3, "batch": 2, "n_train": 20, "n_test": 20, "n_filters": 2, "n_blocks": 1, "n_critic_filters": 2,
    "n_critic_layers": 2,
}  # fmt: skip
# DEVIATION cyclegan2017-D1: images of 32 x 32 (digits 16 x 16) at laptop.
# DEVIATION cyclegan2017-D2: so few steps at laptop.
# DEVIATION cyclegan2017-D3: minibatches of 4 at laptop.
# DEVIATION cyclegan2017-D4: 16 filters, 2 blocks, patches of 34 x 34 at laptop.
# DEVIATION cyclegan2017-D5: no crops, and no mirroring at laptop.
# DEVIATION cyclegan2017-D33: five times the paper's rate at laptop.
SMALL: Mapping[str, Any] = {
    "n_steps": 300, "batch": 4, "n_train": 1000, "n_test": 200, "n_filters": 16, "n_blocks": 2, "n_critic_filters": 16,
    "n_critic_layers": 2, "learning_rate": 1e-3,
}  # fmt: skip
CIFAR10: Mapping[str, Any] = {
    "side": 32, "n_steps": 3000, "n_train": 0, "n_test": 0, "batch": 4, "n_filters": 32, "n_blocks": 3,
    "n_critic_filters": 32, "n_critic_layers": 2, "flip": True,
}  # fmt: skip
# Section 5.1: 128 x 128 with 6 blocks, as many steps as 200 epochs of Cityscapes have.
LARGE: Mapping[str, Any] = {"side": 128, "n_steps": 595_000, "n_train": 2975, "n_test": 500, "n_blocks": 6}
PRESETS: Mapping[str, Mapping[str, Config]] = {
    "smoke": {
        "networks": NetworksConfig(),
        **translations("scenes", {**METHODS, **ABLATIONS}, side=16, **TINY),
        **translations("digits", DIGITS, side=16, **TINY),
        **translations("paintings", PAINTINGS, side=16, **TINY),
        **translations("shapes", PLAIN, side=16, **TINY),
        **plane(n_steps=10, n_models=3, width=8, batch=16, n_points=10),
    },
    "laptop": {
        "networks": NetworksConfig(),
        **translations("scenes", {**METHODS, **ABLATIONS}, side=32, **SMALL),
        **translations("digits", DIGITS, side=16, **SMALL),
        **translations("paintings", PAINTINGS, side=32, **SMALL),
        **translations("shapes", PLAIN, side=32, **SMALL),
        **plane(),
    },
    "paper": {
        "networks": NetworksConfig(),
        **translations("scenes", {**METHODS, **ABLATIONS}, flip=True, **LARGE),
        **translations("paintings", PAINTINGS, flip=True, **LARGE),
        **translations("shapes", PLAIN, **LARGE),
        # Real photographs, 32 x 32, from the data root: small enough for two cores.
        **translations("horse2deer", PLAIN, **CIFAR10),
        **translations("automobile2truck", PLAIN, **CIFAR10),
        **plane(n_steps=20_000, n_models=100, width=128),
    },
    "photos": {},  # what lies in the data root when it is asked for: `photo_tasks`
}  # fmt: skip
# 256 x 256 out of 286 x 286, mirrored. DEVIATION cyclegan2017-D60: 200 epochs of horse2zebra's 1,334 zebras for all.
# NOTE cyclegan2017-N65: published numbers differ in whether the identity loss was on; both are run.
PHOTOS: Mapping[str, Any] = {
    "side": 256, "crop_from": 286, "flip": True, "n_steps": 266_800, "n_train": 0, "n_test": 0,
}  # fmt: skip
PHOTO_ARMS: Arms = {"cyclegan": {"method": "cyclegan"}, "identity": {"method": "cyclegan", "identity": 5.0}}


def photo_tasks() -> dict[str, Config]:
    """The preset `photos`: every folder of photographs in the data root, without and with the identity loss."""
    runs: dict[str, Config] = {}
    for name in photos.names():
        runs |= translations(tasks.PHOTOS + name, PHOTO_ARMS, **PHOTOS)
    return runs


def plan(preset: str, seeds: int) -> list[Run]:
    """The runs of a preset for seeds 0 .. seeds - 1; one run of what trains many models, or none."""
    experiments = photo_tasks() if preset == "photos" else PRESETS[preset]
    return [
        Run(PAPER, experiment, preset, config, seed, _digests(config), ALGORITHM_VERSION)
        for experiment, config in experiments.items()
        for seed in range(1 if isinstance(config, MixturesConfig | NetworksConfig) else seeds)
    ]


def _digests(config: Config) -> dict[str, str]:
    return tasks.digests(config) if isinstance(config, TranslationConfig | AnchorsConfig) else {}
