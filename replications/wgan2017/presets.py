"""The runs of each preset: which experiments, at what size; and the plan for a number of seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from lib import datasets
from lib.execution.runs import Run
from replications.wgan2017.config import (
    ALGORITHM_VERSION,
    PAPER,
    AnchorsConfig,
    CalibrationConfig,
    DepthConfig,
    DistancesConfig,
    FigureTwoConfig,
    ImagesConfig,
    MomentumConfig,
    StackedConfig,
    SurfacesConfig,
    ToyConfig,
)

Config = (
    ImagesConfig | AnchorsConfig | DistancesConfig | CalibrationConfig | FigureTwoConfig | ToyConfig | SurfacesConfig
    | DepthConfig | MomentumConfig | StackedConfig
)  # fmt: skip
# Figures 3 to 7: generator and critic of each arm.
ARCHITECTURES = {"dcgan": ("dcgan", "dcgan"), "constant": ("constant", "dcgan"), "mlp": ("mlp", "dcgan"),
                 "mlp-mlp": ("mlp", "mlp")}  # fmt: skip
# NOTE wgan2017-N9: the standard GAN by Radford et al. 2016: one discriminator step, Adam with beta1 .5. It has three
# times the generator iterations, so that both algorithms make equally many updates: 2 an iteration against 6.
GAN: Mapping[str, Any] = {"n_critic": 1, "optimizer": "adam", "beta1": 0.5}
GAN_STEPS = 3
LAPTOP_STEPS = 100  # generator iterations of the WGAN; DEVIATION wgan2017-D2
GP: Mapping[str, Any] = {"algorithm": "wgan-gp", "optimizer": "adam", "beta2": 0.9}


def images(
    n_steps: int, rates: Mapping[str, float], options: Sequence[str], high: float, **values: Any
) -> dict[str, Config]:
    """The arms on images. rates: of "wgan", "gan", "wgan-gp"; high: how many times the rate in the arm of too high one.

    options: which of Algorithm 1's variants are run on the DCGAN as well.
    """
    arms: dict[str, Config] = {}
    for name, (generator, critic) in ARCHITECTURES.items():
        times = high if name == "mlp-mlp" else 1.0
        common = {"generator": generator, "critic": critic, **values}
        arms[f"wgan-{name}"] = ImagesConfig(
            algorithm="wgan", n_steps=n_steps, learning_rate=times * rates["wgan"], **common
        )
        arms[f"gan-{name}"] = ImagesConfig(
            algorithm="gan", n_steps=GAN_STEPS * n_steps, learning_rate=times * rates["gan"], **{**common, **GAN}
        )
    common = {"generator": "dcgan", "critic": "dcgan", "n_steps": n_steps, "learning_rate": rates["wgan"], **values}
    variants: dict[str, Mapping[str, Any]] = {
        "wgan-clip-before": {"algorithm": "wgan", "clip_when": "before"},
        "wgan-clip-start": {"algorithm": "wgan", "clip_when": "start"},
        "wgan-schedule": {"algorithm": "wgan", "schedule": "authors"},
        "wgan-paper-rate": {"algorithm": "wgan", "learning_rate": ImagesConfig.learning_rate},
        # DEVIATION wgan2017-D7: half the iterations, for a step with the penalty costs twice as much.
        "wgan-gp": {**GP, "learning_rate": rates["wgan-gp"], "n_steps": n_steps // 2},
        "wgan-mlp-he": {"algorithm": "wgan", "generator": "mlp", "init_linear": "he"},
        "gan-mlp-he": {"algorithm": "gan", "generator": "mlp", "init_linear": "he", **GAN,
                       "n_steps": GAN_STEPS * n_steps, "learning_rate": rates["gan"]},
    }  # fmt: skip
    arms |= {name: ImagesConfig(**{**common, **variants[name]}) for name in options}
    return arms


def critics(n_steps: Sequence[int], **values: Any) -> dict[str, Config]:
    """The trained critics that are held against the exact W; the rate moves with the clip, DEVIATION wgan2017-D20."""
    kinds = {"0p001": (0.001, 2), "0p01": (0.01, 2), "0p1": (0.1, 2), "0p01-deep": (0.01, 4)}
    runs: dict[str, Config] = {
        f"critic-clip-{name}": CalibrationConfig(
            "clip", clip=clip, learning_rate=clip / 200, n_layers=layers, n_steps=steps, **values
        )
        for (name, (clip, layers)), steps in zip(kinds.items(), n_steps, strict=False)
    }
    return runs | {"critic-penalty": CalibrationConfig("penalty", learning_rate=2e-3, n_steps=n_steps[-1], **values)}


def toys(n_steps: int, of_algorithm: Mapping[str, Mapping[str, Any]], distributions: Sequence[str] = ("ring", "grid"),
         **values: Any) -> dict[str, Config]:  # fmt: skip
    """Ring and grid by each algorithm; the GAN has as many updates in all, NOTE wgan2017-N9."""
    runs: dict[str, Config] = {}
    for distribution in distributions:
        for algorithm, own in of_algorithm.items():
            steps = n_steps * (GAN_STEPS if algorithm == "gan" else 1)
            runs[f"{distribution}-{algorithm}"] = ToyConfig(distribution, algorithm, steps, **values, **own)
    return runs


# The authors', Radford et al. 2016's, Gulrajani et al. 2017's.
PAPER_RATES = {"wgan": 5e-5, "gan": 2e-4, "wgan-gp": 1e-4}
# DEVIATION wgan2017-D3: ten times the paper's rate at laptop, for WGAN and GAN alike; one arm has the paper's own.
LAPTOP_RATES = {"wgan": 5e-4, "gan": 5e-4, "wgan-gp": 1e-3}
VARIANTS = ("wgan-clip-before", "wgan-clip-start", "wgan-schedule", "wgan-gp", "wgan-mlp-he", "gan-mlp-he")
# DEVIATION wgan2017-D30: clip bound and rates at laptop chosen in a pilot on the ring, by the modes captured.
LAPTOP_TOY: Mapping[str, Mapping[str, Any]] = {
    "wgan": {"clip": 0.1, "learning_rate": 1e-3},
    "wgan-gp": {"learning_rate": 1e-2},
    "gan": {"n_critic": 1, "learning_rate": 1e-3, "beta2": 0.999},
}
# Gulrajani et al. 2017, code of the toys; the standard GAN with the same rate.
PAPER_TOY: Mapping[str, Mapping[str, Any]] = {
    "wgan": {},
    "wgan-gp": {"learning_rate": 1e-4},
    "gan": {"n_critic": 1, "learning_rate": 1e-4, "beta2": 0.999},
}
PRESETS: Mapping[str, Mapping[str, Config]] = {
    "smoke": {
        **images(6, LAPTOP_RATES, [*VARIANTS, "wgan-paper-rate"], 10, data="mnist-5k", n_filters=4, n_hidden=16,
                 batch=16, n_checkpoints=3, n_curve=64, n_generated=100, n_long_start=1, n_critic_long=7),
        "anchors": AnchorsConfig("mnist-5k", n_filters=4, n_generated=100),
        "distances": DistancesConfig(
            n_points=32, descent_steps=20, descent_rate=0.1, n_discriminator_steps=40, n_retrain_steps=2, width=16,
            n_repeats=20, n_pairs=5, epsilons=(1.0, 0.1), sinkhorn_steps=300, n_cloud=16,
            n_generators=2, n_shifted=500, bias_sizes=(8, 16, 32), bias_repeats=4,
        ),
        **critics([20] * 5, width=8, batch=16, n_models=2),
        "figure-two": FigureTwoConfig(n_steps=20, n_models=2, width=8, batch=16),
        **toys(6, LAPTOP_TOY, rate_falls=True, n_models=2, width=8, n_samples=100),
        "surfaces": SurfacesConfig(n_steps=10, width=8, batch=16, n_models=2, n_samples=200),
        "depth": DepthConfig(n_steps=2, width=8, batch=16, n_models=2, n_samples=64),
        "momentum": MomentumConfig("mnist-5k", n_steps=12, n_models=2, width=8, batch=16, grace=5, n_generated=300),
        "stacked-wgan": StackedConfig("wgan", 2, data="mnist-5k", n_train=64, n_filters=4, batch=16, n_samples=100),
        "stacked-wgan-gp": StackedConfig("wgan-gp", 2, data="mnist-5k", n_train=64, n_filters=4, batch=16,
                                         n_samples=100, optimizer="adam", learning_rate=1e-4),
    },
    "laptop": {
        # DEVIATION wgan2017-D1: digits at laptop, CIFAR-10 at paper, in place of LSUN bedrooms.
        # DEVIATION wgan2017-D2: fewer generator iterations than figure 3's 600,000.
        # DEVIATION wgan2017-D4: 16 filters.
        # DEVIATION wgan2017-D6: 5 long iterations at the start of the authors' schedule.
        # DEVIATION wgan2017-D8: minibatches of 32.
        **images(LAPTOP_STEPS, LAPTOP_RATES, [*VARIANTS, "wgan-paper-rate"], 10, data="mnist-5k", n_filters=16,
                 batch=32, n_curve=500, n_long_start=5),
        "anchors": AnchorsConfig("mnist-5k", n_filters=16),
        "momentum": MomentumConfig("mnist-5k"),
        **toys(700, LAPTOP_TOY, rate_falls=True),  # DEVIATION wgan2017-D32
        "surfaces": SurfacesConfig(),  # DEVIATION wgan2017-D33
        "depth": DepthConfig(),  # DEVIATION wgan2017-D34
        "distances": DistancesConfig(),
        **critics((3000, 2000, 1500, 2500, 2000)),
        "figure-two": FigureTwoConfig(),
    },
    "paper": {
        **images(20_000, PAPER_RATES, VARIANTS, 10, data="cifar10", n_curve=5_000, n_generated=10_000),
        "anchors": AnchorsConfig("cifar10", n_generated=10_000),
        "stacked-wgan": StackedConfig("wgan", 20_000),
        "stacked-wgan-gp": StackedConfig("wgan-gp", 20_000, optimizer="adam", learning_rate=1e-4),
        "momentum": MomentumConfig("mnist", n_steps=10_000, n_models=10, width=256, n_latent=100,
                                   learning_rates=(5e-5, 5e-4, 1.5e-3, 5e-3)),
        **toys(20_000, PAPER_TOY, width=512, generator_layers=3, critic_layers=3, batch=256, rate_falls=True),
        "surfaces": SurfacesConfig(n_steps=30_000, width=512, batch=256, penalty_rate=1e-4, n_models=5),
        "surfaces-lambda-10": SurfacesConfig(n_steps=30_000, width=512, batch=256, penalty=10.0, penalty_rate=1e-4,
                                             n_models=5),
        "depth": DepthConfig(n_steps=4_000, width=512, batch=256, clip_rate=5e-5, penalty_rate=1e-4, n_models=5),
        "distances": DistancesConfig(),
        **critics([10_000] * 5, width=64, batch=256, n_models=10),
        "figure-two": FigureTwoConfig(n_steps=20_000, n_models=10),
    },
    # For those who have LSUN: see data/README.md. The paper's own images, at its own side of 64.
    "lsun": {
        **images(100_000, PAPER_RATES, VARIANTS, 10, data="lsun-bedroom", n_curve=5_000, n_generated=10_000),
        "anchors": AnchorsConfig("lsun-bedroom", n_generated=10_000),
    },
}  # fmt: skip
SEVERAL_IN_ONE = CalibrationConfig | FigureTwoConfig | ToyConfig | SurfacesConfig | DepthConfig | MomentumConfig


def plan(preset: str, seeds: int) -> list[Run]:
    """The runs of a preset for seeds 0 .. seeds - 1; one run of what trains its models side by side."""
    return [
        Run(PAPER, experiment, preset, config, seed, _digests(config), ALGORITHM_VERSION)
        for experiment, config in PRESETS[preset].items()
        for seed in range(1 if isinstance(config, SEVERAL_IN_ONE) else seeds)
    ]


def _digests(config: Config) -> dict[str, str]:
    data = getattr(config, "data", None)
    return {data: datasets.digest(data)} if data in datasets.names() else {}
