"""What we chose for wgan2017, with the source of every value.

"code" is the authors' martinarjovsky/WassersteinGAN, commit f7a01e8; Gulrajani 2017 is WGAN-GP and its "code" is
igul222/improved_wgan_training; Radford 2016 is DCGAN, Lin 2018 PacGAN.
"""

from dataclasses import dataclass

PAPER = "wgan2017"
ALGORITHM_VERSION = 1  # raise it when a run would compute something else


@dataclass(frozen=True)
class ImagesConfig:
    """One training on images: Algorithm 1, its gradient penalty, or the standard GAN as the baseline."""

    data: str  # section 4.1: LSUN bedrooms; DEVIATION wgan2017-D1
    algorithm: str  # "wgan" is Algorithm 1, "gan" the baseline with -log D, "wgan-gp" Gulrajani 2017, algorithm 1
    generator: str  # figures 5 to 7: "dcgan", "constant" (no batch norm, constant number of filters) or "mlp"
    critic: str  # section 4.2: "dcgan" always but for "mlp" in the bottom of figure 3
    n_steps: int  # section 4.2, figure 3: 600,000 generator iterations; DEVIATION wgan2017-D2
    n_critic: int = 5  # Algorithm 1; 1 in the standard GAN (Radford 2016)
    optimizer: str = "rmsprop"  # Algorithm 1; "adam" in the standard GAN and in Gulrajani 2017
    learning_rate: float = 5e-5  # Algorithm 1; DEVIATION wgan2017-D3 at laptop
    beta1: float = 0.0  # of Adam's: Gulrajani 2017 has 0, Radford 2016 has .5
    beta2: float = 0.999  # of Adam's: Gulrajani 2017 has .9
    clip: float = 0.01  # Algorithm 1
    clip_when: str = "after"  # Algorithm 1; code: "before" the step, NOTE wgan2017-N1; "start": once first, then after
    schedule: str = "constant"  # Algorithm 1; "authors": more critic steps at times, NOTE wgan2017-N2
    n_critic_long: int = 100  # code: critic steps of a long iteration
    n_long_start: int = 25  # code: iterations at the start that are long; DEVIATION wgan2017-D6 at laptop
    long_every: int = 500  # code: and every so many of them
    penalty: float = 10.0  # Gulrajani 2017: lambda
    batch: int = 64  # Algorithm 1; DEVIATION wgan2017-D8 at laptop
    n_latent: int = 100  # code: N(0, I)
    n_filters: int = 64  # code; DEVIATION wgan2017-D4 at laptop
    n_hidden: int = 512  # section 4.2: units of an MLP's layers
    n_layers: int = 4  # figure 3's caption: hidden layers of an MLP; NOTE wgan2017-N4
    init_sd: float = 0.02  # code: convolutions N(0, .02), batch norm's scales N(1, .02)
    init_linear: str = "pytorch"  # code: U(-1, 1) / sqrt(n_in); "he" is an arm that tests a cause, NOTE wgan2017-N60
    n_checkpoints: int = 20  # ours: points of the curve at which FID is measured
    n_curve: int = 1000  # ours: images behind each of those points
    n_generated: int = 1000  # ours: images behind the final scores
    last: float = 0.05  # ours: share of the iterations, at the end, whose median is the estimate's score


@dataclass(frozen=True)
class AnchorsConfig:
    """What stands beside every score of images: real ones, and three generators that know nothing or little."""

    data: str  # ours: as in ImagesConfig
    n_filters: int = 64  # code; DEVIATION wgan2017-D4 at laptop; of the untrained generator
    n_generated: int = 1000  # ours


@dataclass(frozen=True)
class DistancesConfig:
    """Section 2 and the lecture: W, JS, KL and TV where they are known."""

    n_points: int = 256  # ours: points of a line
    thetas: tuple[float, ...] = (-1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0)  # figure 1 shows -1 .. 1
    descent_steps: int = 100  # ours
    descent_rate: float = 0.02  # ours
    n_discriminator_steps: int = 300  # ours: of the trained discriminator behind an estimate of JS
    n_retrain_steps: int = 30  # ours: of the discriminator between two steps of the descent through it
    discriminator_rate: float = 0.01  # ours: Adam
    width: int = 32  # ours: units of the discriminator's two hidden layers
    grid_sizes: tuple[int, ...] = (1, 10, 100, 1000)  # lecture: n points against U[0, 1]
    n_repeats: int = 400  # lecture: draws of n random points
    n_pairs: int = 50  # ours: random pairs of distributions behind section 5's integral probability metric
    epsilons: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)  # ours: of Sinkhorn
    sinkhorn_steps: int = 5000  # ours
    n_cloud: int = 64  # ours: points of a generator's cloud in theorem 3
    n_generators: int = 10  # ours: draws of such a generator
    n_shifted: int = 10_000  # ours: draws of N(0, 1) and of N(theta, 1) in theorem 3
    dimensions: tuple[int, ...] = (1, 2, 8)  # ours: lecture's "slower in more dimensions"
    bias_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512)  # ours: points of either sample of one law
    bias_repeats: int = 60  # ours: pairs of samples


@dataclass(frozen=True)
class CalibrationConfig:
    """Trained critics against the exact W: one kind of critic, all distributions and repeats side by side."""

    kind: str  # "clip" is Algorithm 1, "penalty" Gulrajani 2017, algorithm 1
    clip: float = 0.01  # Algorithm 1; the fact sheet's other values are .001 and .1
    n_steps: int = 2000  # ours
    learning_rate: float = 5e-5  # Algorithm 1, RMSProp: clip / 200, DEVIATION wgan2017-D20; Adam's with a penalty
    penalty: float = 10.0  # Gulrajani 2017: lambda
    width: int = 32  # ours
    n_layers: int = 2  # ours: hidden layers
    batch: int = 64  # Algorithm 1; a cloud has as many points and is whole in every batch
    n_models: int = 3  # ours: repeats of each distribution


@dataclass(frozen=True)
class FigureTwoConfig:
    """Figure 2: the optimal discriminator and critic between two Gaussians on a line; NOTE wgan2017-N20."""

    n_steps: int = 2000  # ours
    n_models: int = 5  # ours
    real_mean: float = -3.0  # the paper does not state it
    fake_mean: float = 3.0  # the paper does not state it
    sd: float = 1.0  # the paper does not state it
    clip: float = 0.01  # Algorithm 1
    penalty: float = 10.0  # Gulrajani 2017: lambda
    clip_rate: float = 5e-5  # Algorithm 1, RMSProp
    adam_rate: float = 2e-3  # ours: of the discriminator and of the critic with a penalty, falling linearly to 0
    width: int = 32  # ours
    n_layers: int = 2  # ours: hidden layers
    batch: int = 64  # Algorithm 1


@dataclass(frozen=True)
class ToyConfig:
    """Mode collapse on the ring and the grid, by the protocol of Lin 2018 and of Srivastava et al. 2017 (VEEGAN)."""

    distribution: str  # Lin 2018: "ring" of 8, "grid" of 25
    algorithm: str  # "wgan", "wgan-gp" or "gan"
    n_steps: int  # generator updates; Gulrajani 2017, code: 100,000; DEVIATION wgan2017-D32
    n_critic: int = 5  # Algorithm 1; 1 in the GAN
    clip: float = 0.01  # Algorithm 1; DEVIATION wgan2017-D30 at laptop
    penalty: float = 0.1  # Gulrajani 2017, code of the toys; 10 in the paper, NOTE wgan2017-N30
    n_models: int = 10  # Lin 2018: ten trials
    width: int = 64  # ours
    generator_layers: int = 2  # ours: hidden layers
    critic_layers: int = 2  # ours: hidden layers
    batch: int = 50  # ours
    learning_rate: float = 5e-5  # Algorithm 1; DEVIATION wgan2017-D30 at laptop
    rate_falls: bool = False  # Algorithm 1 keeps the rate; DEVIATION wgan2017-D31 where it falls linearly to 0
    beta1: float = 0.5  # of Adam's: Gulrajani 2017, code of the toys; 0 in the paper, NOTE wgan2017-N30
    beta2: float = 0.9  # of Adam's: Gulrajani 2017; .999 in the GAN, PyTorch's default
    n_samples: int = 2500  # VEEGAN, Lin 2018


@dataclass(frozen=True)
class SurfacesConfig:
    """Gulrajani 2017, figure 1: value surfaces of critics whose generator is held at data + N(0, I)."""

    n_steps: int = 900  # ours: critic updates; Gulrajani 2017, code: 500,000; DEVIATION wgan2017-D33
    width: int = 64  # ours; Gulrajani 2017, code: 512; DEVIATION wgan2017-D33
    n_layers: int = 3  # Gulrajani 2017, code: hidden layers
    batch: int = 128  # ours; Gulrajani 2017, code: 256; DEVIATION wgan2017-D33
    clip: float = 0.01  # Gulrajani 2017, code
    clip_rate: float = 5e-5  # Gulrajani 2017, code: of RMSProp
    penalty: float = 0.1  # Gulrajani 2017, code; 10 in the paper, NOTE wgan2017-N30
    penalty_rate: float = 2e-3  # of Adam; Gulrajani 2017, code: 1e-4; DEVIATION wgan2017-D33
    beta1: float = 0.5  # Gulrajani 2017, code; 0 in the paper, NOTE wgan2017-N30
    beta2: float = 0.9  # Gulrajani 2017
    n_models: int = 4  # ours: critics of each kind on each set
    n_samples: int = 4000  # ours: fresh real points, and as many fakes, behind an AUC


@dataclass(frozen=True)
class DepthConfig:
    """Gulrajani 2017, figure 1b: gradient norms by layer of a 12-layer critic, and where its weights end."""

    n_steps: int = 100  # ours: generator updates; Gulrajani 2017, code: 100,000; DEVIATION wgan2017-D34
    n_critic: int = 5  # Gulrajani 2017
    width: int = 64  # ours; Gulrajani 2017's is not stated, 512 in their code
    n_layers: int = 12  # Gulrajani 2017: of the generator too
    batch: int = 64  # ours; Gulrajani 2017, code: 256
    clips: tuple[float, ...] = (0.1, 0.01, 0.001)  # Gulrajani 2017
    clip_rate: float = 5e-4  # of RMSProp; Gulrajani 2017, code: 5e-5; DEVIATION wgan2017-D34
    penalty: float = 0.1  # Gulrajani 2017, code; 10 in the paper, NOTE wgan2017-N30
    penalty_rate: float = 1e-3  # of Adam; Gulrajani 2017, code: 1e-4; DEVIATION wgan2017-D34
    beta1: float = 0.5  # Gulrajani 2017, code; 0 in the paper, NOTE wgan2017-N30
    beta2: float = 0.9  # Gulrajani 2017
    n_models: int = 3  # ours: repeats of each arm
    n_samples: int = 512  # ours: fresh real points, and as many fakes, behind a gradient norm


@dataclass(frozen=True)
class MomentumConfig:
    """Section 4.3's negative result: momentum on the critic; many small image models side by side."""

    data: str  # ours
    n_steps: int = 600  # ours: generator updates; DEVIATION wgan2017-D51
    n_models: int = 3  # ours: models an arm
    width: int = 32  # ours: units of the two hidden layers; DEVIATION wgan2017-D50
    n_latent: int = 32  # ours; code: 100
    learning_rates: tuple[float, ...] = (5e-5, 5e-4, 5e-3)  # Algorithm 1, and section 4.3's high ones, which are ours
    beta1s: tuple[float, ...] = (0.0, 0.5, 0.9)  # of the critic's Adam: code's --adam has .5, Adam's default is .9
    beta2: float = 0.999  # code: of Adam
    decay: float = 0.99  # code: of RMSProp, PyTorch's default
    n_critic: int = 5  # Algorithm 1
    clip: float = 0.01  # Algorithm 1
    batch: int = 64  # Algorithm 1
    grace: int = 50  # ours: generator updates before blow-ups count, fixed before any measurement
    n_generated: int = 1000  # ours: images behind the distance


@dataclass(frozen=True)
class StackedConfig:
    """Stacked MNIST, 1,000 modes, by the protocol of gan2014 (Lin 2018, section 4.2). "code" is Lin 2018's here."""

    algorithm: str  # "wgan" is Algorithm 1, "wgan-gp" Gulrajani 2017, algorithm 1; the GAN is gan2014's
    n_steps: int  # ours: generator updates; 20,000 of 5 critic steps are Lin 2018's 50 epochs of 2,000
    data: str = "mnist"  # Lin 2018: three random digits make an image; DEVIATION wgan2017-D53
    n_train: int = 128_000  # Lin 2018: stacked images; a multiple of the batch
    n_critic: int = 5  # Algorithm 1
    optimizer: str = "rmsprop"  # Algorithm 1; "adam" in Gulrajani 2017
    learning_rate: float = 5e-5  # Algorithm 1; 1e-4 in Gulrajani 2017
    beta1: float = 0.0  # of Adam's: Gulrajani 2017
    beta2: float = 0.9  # of Adam's: Gulrajani 2017
    n_filters: int = 64  # Lin 2018, code
    n_layers: int = 4  # Lin 2018, code: from 2 x 2 x 512 to the image; DEVIATION wgan2017-D54
    n_latent: int = 100  # Lin 2018
    batch: int = 64  # Algorithm 1 and Lin 2018
    init_sd: float = 0.02  # Lin 2018, code
    n_samples: int = 26_000  # Srivastava et al. 2017 (VEEGAN), Lin 2018
