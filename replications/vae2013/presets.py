"""The runs of each preset: which experiments, at what size; and the plan for a number of seeds."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lib import datasets
from lib.execution.runs import Run
from replications.vae2013 import hierarchies, strong_decoder
from replications.vae2013.class_conditional import ClassConditionalConfig
from replications.vae2013.config import (
    ALGORITHM_VERSION,
    PAPER,
    AevbConfig,
    BaselinesConfig,
    EstimatorsConfig,
    LinearGaussianConfig,
    PpcaConfig,
)
from replications.vae2013.convolutional import ConvolutionalConfig
from replications.vae2013.frames import FramesConfig
from replications.vae2013.full_bayes import ConjugateConfig, FullBayesConfig
from replications.vae2013.gradients import GradientsConfig, ReparametrisationConfig
from replications.vae2013.iwae import IwaeConfig
from replications.vae2013.linear_vae import LinearVaeConfig
from replications.vae2013.marginal import MarginalConfig
from replications.vae2013.side_by_side import CurveConfig

HIERARCHIES, DECODERS = hierarchies.presets(), strong_decoder.presets()
LATENTS = (200, 20, 10, 5, 3, 2)  # figures 2, 4 and 5; the longest run first
FREY_LATENTS = (20, 2, 10, 5)  # figures 2 and 4


def aevb(latents: Sequence[int], few: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """`few`: settings of the bounds that cost most, for the two numbers of latents in the likelihood table."""
    return {f"aevb-nz{n}": AevbConfig(n_latent=n, **values, **(few if n in (3, 20) else {})) for n in latents}


def iwae(ks: Sequence[int], n_stages: int, name: str = "iwae", **values: Any) -> dict[str, Any]:
    return {f"{name}-k{k}": IwaeConfig(k=k, n_stages=n_stages, **values) for k in ks}


def wake_sleep(latents: Sequence[int], **values: Any) -> dict[str, Any]:
    return {f"wake-sleep-nz{n}": CurveConfig(algorithm="wake-sleep", n_latent=n, **values) for n in latents}


def frey(latents: Sequence[int], **values: Any) -> dict[str, Any]:
    """Frey Face has 200 hidden units and Gaussian pixels, section 5."""
    values = {"data": "frey-face", "n_hidden": 200, "observation": "gaussian", **values}
    algorithms: tuple[Literal["wake-sleep", "aevb"], ...] = ("wake-sleep", "aevb")
    return {f"frey-{a}-nz{n}": CurveConfig(algorithm=a, n_latent=n, **values) for a in algorithms for n in latents}


def marginal(small: int, large: int, **values: Any) -> dict[str, Any]:
    """Figure 3: three algorithms, few and many training images."""
    algorithms: tuple[Literal["mcem", "wake-sleep", "aevb"], ...] = ("mcem", "wake-sleep", "aevb")
    return {
        f"marginal-{algorithm}-{size}": MarginalConfig(algorithm=algorithm, n_train=n_train, **values)
        for algorithm in algorithms
        for size, n_train in (("large", large), ("small", small))
    }


def convolutional(**values: Any) -> dict[str, Any]:
    return {"convolutional-digits": ConvolutionalConfig(**values)}


def class_conditional(labels: Sequence[int], **values: Any) -> dict[str, Any]:
    return {f"class-conditional-{n}": ClassConditionalConfig(n_labels=n, **values) for n in labels}


def checks(data: str, **values: Any) -> dict[str, Any]:
    """Gradients, tightness and appendix F; `values` per kind of config."""
    return {
        "gradients": GradientsConfig(data, **values.get("gradients", {})),
        "linear-vae": LinearVaeConfig(data, **values.get("linear", {})),
        **{
            f"full-bayes-{n}": FullBayesConfig("uci-digits", n, **values.get("full_bayes", {}))
            for n in values.get("n_train", (1000, 100))
        },
        "reparametrisation": ReparametrisationConfig(**values.get("reparametrisation", {})),
        "conjugate": ConjugateConfig(**values.get("conjugate", {})),
    }


def _presets() -> Mapping[str, Mapping[str, Any]]:
    few: dict[str, Any] = {"n_few": 24, "n_distributions": 100, "n_chains": 4}
    fewer: dict[str, Any] = {"n_few": 4, "n_distributions": 4, "n_chains": 2}
    tiny: dict[str, Any] = {"n_samples": 1_000, "n_trial_steps": 2, "n_models": 2, "n_curve_images": 100}
    return {
        "smoke": {
            **aevb((20, 2), fewer, data="mnist-5k", n_samples=4_000, n_hidden=20, n_trial_steps=3, n_curve_images=200,
                   n_elbo_draws=2, n_importance=3, n_parzen=500, n_parzen_validation=100),
            **wake_sleep((20,), data="mnist-5k", n_hidden=20, **tiny),
            **marginal(100, 200, data="mnist-5k", n_samples=500, n_points=2, n_models=2, n_trial_steps=2, n_hidden=20,
                       n_images=5, n_posterior=10, burn_in=5, n_start=4, n_importance=10),
            **convolutional(data="mnist-5k", n_samples=500, n_filters=(2, 4), n_dense=8, n_elbo_draws=1,
                            n_importance=2),
            **class_conditional((100,), data="mnist-5k", n_steps=5, n_models=2, n_hidden=10, n_classifier=20, batch=50,
                                n_draws=1, n_importance=2, n_samples=100, n_noise=20),
            **iwae((5,), 1, data="mnist-5k", batch=500, n_hidden=20, n_latent=5, **fewer),
            **HIERARCHIES["smoke"], **DECODERS["smoke"],
            **checks("mnist-5k", n_train=(100,), full_bayes={"n_steps": 5, "n_models": 2},
                     gradients={"n_hidden": 8, "n_latent": 2, "n_samples": 1000, "images": (1, 10), "n_repeats": (6, 4),
                                "draws": (1, 2), "n_bounds": 2, "n_images": 20},
                     linear={"fitted": (2, 10), "n_latent": 12, "n_directions": 16, "n_models": 2, "n_iterations": 20},
                     reparametrisation={"n_recipes": 2000, "n_draws": 2000}, conjugate={"n_repeats": 500}),
            "linear-gaussian": LinearGaussianConfig(n_points=100, n_repeats=10, n_monte_carlo=100_000),
            "estimators": EstimatorsConfig(n_points=20, n_importance=(1, 5), n_distributions=10, n_posterior=20),
            "ppca": PpcaConfig("mnist-5k", n_latent=(2,)),
            "baselines": BaselinesConfig("mnist-5k"),
        },
        # DEVIATION vae2013-D1: 4,000 training images, not MNIST's 50,000; DEVIATION vae2013-D2: stops at 46,400
        # samples, not 1e8. Both because that is what two cores do in minutes from what a wheel brings.
        # DEVIATION vae2013-D21: wake-sleep stops sooner.
        "laptop": {
            **aevb(LATENTS, few, data="mnist-5k", n_samples=46_400),
            **wake_sleep((200, 20, 10, 5, 3), data="mnist-5k", n_samples=26_100),
            # DEVIATION vae2013-D30, D31, D32: fewer images and samples, rougher estimates.
            **marginal(1000, 4000, data="mnist-5k", n_samples=10_000, n_points=2, n_images=100, burn_in=40,
                       n_importance=500),
            **iwae((5, 1), 3, data="mnist-5k", **few),
            **convolutional(data="mnist-5k", n_samples=30_000, n_elbo_draws=2, n_importance=10),
            **class_conditional((4000, 1000, 100), data="mnist-5k", n_steps=600, n_draws=4, n_importance=20),
            **HIERARCHIES["laptop"], **DECODERS["laptop"],
            **checks("mnist-5k"),
            "linear-gaussian": LinearGaussianConfig(),
            "estimators": EstimatorsConfig(),
            "ppca": PpcaConfig("mnist-5k"),
            "baselines": BaselinesConfig("mnist-5k"),
        },
        # DEVIATION vae2013-D3: stops at 1e7 samples, a tenth of the axis; DEVIATION vae2013-D22: Frey Face at 1e6.
        "paper": {
            **wake_sleep((200, 20, 10, 5, 3), data="mnist", n_samples=10_000_000),
            **frey(FREY_LATENTS, n_samples=1_000_000),
            **aevb(LATENTS, {"n_few": 100}, data="mnist", n_samples=10_000_000),
            **marginal(1000, 50_000, data="mnist", n_samples=1_000_000, n_points=10),
            **iwae((50, 5, 1), 8, data="mnist", n_importance=5000),
            **iwae((5, 1), 4, "iwae-short", data="mnist"),
            **convolutional(data="mnist", n_samples=10_000_000, n_filters=(32, 64), n_dense=256, learning_rate=1e-3),
            "convolutional-cifar10": ConvolutionalConfig(
                "cifar10", 20_000_000, "logistic", 128, (64, 128), 512, learning_rate=1e-3
            ),
            **class_conditional((50_000, 4000, 1000, 100), data="mnist", n_steps=20_000),
            **HIERARCHIES["paper"],
            **DECODERS["paper"],
            **checks("mnist"),
            "linear-gaussian": LinearGaussianConfig(),
            "estimators": EstimatorsConfig(),
            "ppca": PpcaConfig("mnist"),
            "baselines": BaselinesConfig("mnist"),
            "frey-baselines": FramesConfig("frey-face"),
        },
    }  # fmt: skip


PRESETS = _presets()
SEEDED = (  # one run a seed; all others are one run
    AevbConfig, IwaeConfig, ConvolutionalConfig, GradientsConfig, LinearGaussianConfig, EstimatorsConfig,
)  # fmt: skip


def plan(preset: str, seeds: int) -> list[Run]:
    """The runs of a preset, the longest first: seeds 0 .. seeds - 1 of the paper's own models and of sampled checks.

    Elsewhere a run trains several models side by side in place of seeds, or is a check or an anchor of which one seed's
    draws are judged: reparametrisation, conjugate, ppca and baselines.
    """
    return [
        Run(PAPER, experiment, preset, config, seed, _digests(config), ALGORITHM_VERSION)
        for experiment, config in PRESETS[preset].items()
        for seed in range(seeds if isinstance(config, SEEDED) else 1)
    ]


def _digests(config: Any) -> dict[str, str]:
    name = getattr(config, "data", None)  # closed forms have none
    return {} if name is None else {name: datasets.digest(name)}
