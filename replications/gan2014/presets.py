"""The runs of each preset: which experiments, at what size; and the plan for a number of seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from lib import datasets
from lib.execution.runs import Run
from replications.gan2014.config import (
    ALGORITHM_VERSION,
    PAPER,
    BaselinesConfig,
    Config,
    DcganConfig,
    FigureOneConfig,
    GanConfig,
    HelveticaConfig,
    PushForwardConfig,
    SensitivityConfig,
    StackedConfig,
    TheoryConfig,
    ToyConfig,
)

# DEVIATION gan2014-D1: MNIST-5k has 4,000 training images, of which 500 choose the model, and no more.
# DEVIATION gan2014-D2: narrower networks, the uniform ranges of the first weights widened so that a layer passes on as
# much variance as the paper's; a discriminator narrower still, for one of 80 units left the generator behind in 8 of
# 13 pilots; 4,200 updates, where 250 epochs of MNIST are 125,000.
LAPTOP_GAN: Mapping[str, Any] = {
    "data": "mnist-5k", "n_train": 3500, "n_validation": 500, "n_epochs": 120, "epochs_between_choices": 20,
    "generator_hidden": 400, "maxout_units": 40,
    "generator_init": 0.0866, "generator_output_init": 0.0866, "discriminator_init": 0.0122,
}  # fmt: skip
CIFAR: Mapping[str, Any] = {"data": "cifar10", "noise": "gaussian", "generator_hidden": 8000}
LAPTOP_TOY: Mapping[str, Any] = {
    "generator_layers": 2, "generator_hidden": 64, "maxout_units": 64, "maxout_pieces": 2, "init_sd": 0.1, "batch": 50,
    "learning_rate": 0.005, "rate_falls": True, "beta1": 0.5,
}  # fmt: skip
VARIANTS = {"minimax": ("minimax", 1), "nonsaturating": ("nonsaturating", 1), "pac2": ("nonsaturating", 2),
            "pac3": ("nonsaturating", 3)}  # fmt: skip


def digits(ais: tuple[int, int, int], values: Mapping[str, Any], **of_alternating: Any) -> dict[str, Config]:
    """Both kinds of update; only the one that stands for the paper is scored by annealing as well."""
    annealed: dict[str, Any] = dict(zip(("n_ais_images", "n_ais_distributions", "n_ais_chains"), ais, strict=True))
    return {"digits-simultaneous": GanConfig(**values, **annealed),
            "digits-alternating": GanConfig(**{**values, **of_alternating}, update="alternating")}  # fmt: skip


def toys(n_steps: int, data: Sequence[str] = ("ring", "grid"), variants: Sequence[str] = tuple(VARIANTS),
         **values: Any) -> dict[str, Config]:  # fmt: skip
    return {f"{d}-{v}": ToyConfig(d, *VARIANTS[v], n_steps=n_steps, **values) for d in data for v in variants}


def sensitivity(n_steps: int, widths: Sequence[int], ratios: Sequence[int], **values: Any) -> dict[str, Config]:
    return {f"sensitivity-w{w}-k{k}": SensitivityConfig(w, k, n_steps, **values) for w in widths for k in ratios}


def push_forward(**values: Any) -> dict[str, Config]:
    return {f"push-forward-{data}": PushForwardConfig(data, **values) for data in ("connected", "disconnected")}


def _presets() -> Mapping[str, Mapping[str, Config]]:
    return {
        "smoke": {
            **digits((2, 3, 2), {**LAPTOP_GAN, "n_train": 300, "n_validation": 100, "n_epochs": 2, "n_parzen": 500,
                              "epochs_between_choices": 1, "generator_hidden": 40, "maxout_units": 8}),
            "dcgan": DcganConfig("mnist-5k", n_steps=4, n_filters=4, batch=32, n_generated=100),
            "stacked-dcgan": StackedConfig(1, 2, data="mnist-5k", n_train=64, n_filters=4, batch=16, n_samples=100),
            **toys(20, ["ring"], ["minimax", "nonsaturating", "pac2"],
                   **{**LAPTOP_TOY, "n_models": 2, "generator_hidden": 8, "maxout_units": 8, "n_samples": 100}),
            **sensitivity(20, [8], [1], n_models=2, n_samples=100),
            **push_forward(n_steps=10, n_models=2, n_samples=2000),
            "figure-1": FigureOneConfig(n_steps=20, n_models=2, n_first=10, n_inner=10, n_moves=2, hidden=(8,),
                                        steps_between_rows=10),
            "helvetica": HelveticaConfig(n_steps=50, n_frozen_steps=50, n_models=3, width=16, n_samples=500),
            "theory": TheoryConfig(n_monte_carlo=20_000, n_logistic=2_000, n_lbfgs=30, n_segments=100),
            "baselines": BaselinesConfig("mnist-5k", n_train=300, n_validation=100, n_samples=300, n_quality=100,
                                         n_clusters=20, n_factors=5, n_ais_images=2),
        },
        "laptop": {
            # DEVIATION gan2014-D5: updates in turn for fewer epochs, to be read beside the others' at the same epoch.
            **digits((8, 150, 4), LAPTOP_GAN, n_epochs=40),
            "dcgan": DcganConfig("mnist-5k", n_steps=700, n_filters=16, batch=32, learning_rate=5e-4),
            **toys(1_500, variants=("minimax", "nonsaturating", "pac2"), **LAPTOP_TOY),
            **sensitivity(900, [64, 16], [3, 1]),
            **push_forward(n_steps=900),
            "figure-1": FigureOneConfig(n_steps=1500),
            "helvetica": HelveticaConfig(n_steps=1000, n_frozen_steps=1000),
            "baselines": BaselinesConfig("mnist-5k", n_train=3500, n_validation=500, n_ais_images=8),
            "theory": TheoryConfig(),
        },
        "paper": {
            # DEVIATION gan2014-D62: 300 annealing distributions and 100 images where Wu et al. have 10,000 and 1,000.
            **digits((100, 300, 16), {"data": "mnist", "n_train": 50_000, "n_epochs": 250}, n_epochs=60),
            # DEVIATION gan2014-D4: the CIFAR-10 models train for 10 epochs; how long the authors' did is not stated.
            "cifar-conv": GanConfig(**CIFAR, n_train=39_936, n_epochs=10, architecture="conv", maxout_units=500,
                                    batch=128, learning_rate=0.004),
            "cifar-mlp": GanConfig(**CIFAR, n_train=40_000, n_epochs=10, generator_output_init=0.5, maxout_units=1600,
                                   learning_rate=0.025),
            "dcgan": DcganConfig("cifar10", n_steps=6_000, n_filters=64),
            # DEVIATION gan2014-D52: 4,000 steps of Stacked MNIST where Lin et al. 2018 have 100,000.
            "stacked-dcgan": StackedConfig(1, n_steps=4_000),
            "stacked-pac2": StackedConfig(2, n_steps=4_000),
            # DEVIATION gan2014-D41: 10,000 updates of the toys where Lin et al. 2018 have 400,000.
            **toys(10_000),
            # DEVIATION gan2014-D3: Toronto Face is on request only; Frey Face with the digits' networks stands in.
            "frey": GanConfig("frey-face", n_train=1500, n_epochs=500, n_validation=200, epochs_between_choices=50),
            **sensitivity(3_000, [64, 16], [3, 1], n_models=10),
            **push_forward(n_steps=6000),
            "figure-1": FigureOneConfig(n_steps=6000),
            "helvetica": HelveticaConfig(n_steps=1000, n_frozen_steps=1000),
            "baselines": BaselinesConfig("mnist"),
            "baselines-cifar10": BaselinesConfig("cifar10", n_train=40_000),
            "baselines-frey-face": BaselinesConfig("frey-face", n_train=1500, n_validation=200),
            "theory": TheoryConfig(),
        },
    }  # fmt: skip


PRESETS = _presets()
BATCHED = ToyConfig | SensitivityConfig | PushForwardConfig | FigureOneConfig | HelveticaConfig


def plan(preset: str, seeds: int) -> list[Run]:
    """The runs of a preset for seeds 0 .. seeds - 1, the longest first; one run of what batches its models itself."""
    return [
        Run(PAPER, experiment, preset, config, seed, _digests(config), ALGORITHM_VERSION)
        for experiment, config in PRESETS[preset].items()
        for seed in range(1 if isinstance(config, BATCHED) else seeds)
    ]


def _digests(config: Config) -> dict[str, str]:
    data = getattr(config, "data", None)
    return {data: datasets.digest(data)} if data in datasets.names() else {}
