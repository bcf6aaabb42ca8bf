"""What we chose for vae2013, with the source of every value: what the paper's own models and their checks need.

The configs of all other experiments stand in their modules; presets.py says which runs make a preset.
"""

from dataclasses import dataclass

PAPER = "vae2013"
ALGORITHM_VERSION = 5  # raise it when what a run computes changes


@dataclass(frozen=True)
class AevbConfig:
    """One AEVB training, section 5 and appendix C of the paper."""

    data: str  # section 5: MNIST; the laptop preset has a part of it, DEVIATION vae2013-D1
    n_latent: int  # figure 2: 3, 5, 10, 20, 200; figures 4 and 5: 2, 5, 10, 20
    n_samples: int  # "training samples evaluated", figure 2's x axis
    observation: str = "dynamic-binarised"  # not stated; NOTE vae2013-N1
    n_hidden: int = 500  # section 5, MNIST
    batch: int = 100  # section 5, M = 100
    n_draws: int = 1  # section 5, L = 1
    init_sd: float = 0.1  # section 5, N(0, 0.01) read as a variance; NOTE vae2013-N2
    learning_rates: tuple[float, ...] = (0.01, 0.02, 0.1)  # section 5, Adagrad; chosen by the first iterations
    n_trial_steps: int = 50  # "the first few iterations", not stated
    prior_precision: float = 1.0  # section 5: prior N(0, I) on all parameters
    evaluations_per_decade: int = 12  # ours: points of the curve on figure 2's log axis
    n_curve_images: int = 1000  # ours: images behind each point of the curve, train and test
    n_elbo_draws: int = 8  # ours: draws of z behind each final bound
    n_importance: int = 50  # ours: k of the final importance-weighted bound
    n_parzen: int = 10_000  # Goodfellow et al. 2014, parzen_ll.py: samples behind a Parzen score
    n_parzen_validation: int = 1000  # Goodfellow et al. 2014, parzen_ll.py: images that choose its kernel width
    n_few: int = 0  # ours: test images behind the bounds that cost most, annealing among them; 0 is none
    n_distributions: int = 500  # ours: of annealing; Wu et al. 2017 take 10,000
    n_chains: int = 8  # ours; Wu et al. 2017 take 16
    n_leapfrog: int = 5  # ours; Wu et al. 2017 take 10


@dataclass(frozen=True)
class LinearGaussianConfig:
    """Closed-form checks of equations 1, 7, 10 and appendix B.

    DEVIATION vae2013-D4: the paper prints no numbers to check its equations by; a linear-Gaussian model has them.
    """

    n_points: int = 2000  # ours: x drawn from the model
    n_repeats: int = 50  # ours: estimates a point
    n_importance: tuple[int, ...] = (1, 5, 50)  # ours: bounds of one, few and many samples
    n_monte_carlo: int = 1_000_000  # ours: draws for appendix B


@dataclass(frozen=True)
class EstimatorsConfig:
    """Estimators of log p(x), appendix D's among them, on a linear-Gaussian model; the same DEVIATION vae2013-D4."""

    n_latent: int = 3  # figure 3's N_z; appendix D: good for "less then 5 dimensions"
    n_observed: int = 4  # ours; few, so that the exact posterior is not diagonal
    noise_variance: float = 0.5  # ours
    n_points: int = 200  # ours: x drawn from the model
    n_elbo_draws: int = 8  # ours, as for the trained models
    n_importance: tuple[int, ...] = (1, 5, 50, 500)  # ours
    n_chains: int = 16  # Wu et al. 2017, annealed importance sampling
    n_distributions: int = 200  # ours; Wu et al. take 10,000 for networks
    n_posterior: int = 50  # appendix E: 50 posterior draws, for each of appendix D's two sets
    n_leapfrog: int = 4  # appendix E: 4 leapfrog steps


@dataclass(frozen=True)
class PpcaConfig:
    """Probabilistic PCA of the digits, whose likelihood and bound are exact; the same DEVIATION vae2013-D4."""

    data: str  # ours: MNIST (at laptop a part of it)
    n_latent: tuple[int, ...] = (2, 10, 50)  # ours


@dataclass(frozen=True)
class BaselinesConfig:
    """What stands beside the scores: a trivial model and two references for the 2-D code."""

    data: str  # as in AevbConfig, whose scores these stand beside
    n_components: int = 2  # ours: as many as figure 4's latents
