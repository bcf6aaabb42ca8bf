"""What we chose for gan2014, with the source of every value, and the plan of each preset.

"yaml" is the authors' settings file of that model in goodfeli/adversarial, commit 1720041; Lin 2018 is PacGAN,
Radford 2016 is DCGAN.
"""

from dataclasses import dataclass

PAPER = "gan2014"
ALGORITHM_VERSION = 1  # raise it when a run would compute something else


@dataclass(frozen=True)
class GanConfig:
    """One training of the paper's own models, section 5."""

    data: str  # section 5: MNIST, CIFAR-10; DEVIATION gan2014-D1 at laptop, Frey Face for TFD is DEVIATION gan2014-D3
    n_train: int  # mnist.yaml: 50,000; a multiple of the batch
    n_epochs: int  # not stated; NOTE gan2014-N5
    architecture: str = "mlp"  # mnist.yaml, cifar10_fully_connected.yaml; "conv" is cifar10_convolutional.yaml
    update: str = "simultaneous"  # the authors' code; "alternating" is Algorithm 1, NOTE gan2014-N1
    noise: str = "uniform"  # mnist.yaml; CIFAR-10 has "gaussian" by the class's default, NOTE gan2014-N2
    n_latent: int = 100  # mnist.yaml
    generator_hidden: int = 1200  # mnist.yaml, two layers; 8,000 for CIFAR-10; DEVIATION gan2014-D2 at laptop
    generator_init: float = 0.05  # mnist.yaml: U(-.05, .05); DEVIATION gan2014-D2 at laptop
    generator_output_init: float = 0.05  # mnist.yaml; .5 for CIFAR-10's MLP; DEVIATION gan2014-D2 at laptop
    maxout_units: int = 240  # mnist.yaml, two layers; 1,600 for CIFAR-10; DEVIATION gan2014-D2 at laptop
    maxout_pieces: int = 5  # mnist.yaml
    discriminator_init: float = 0.005  # mnist.yaml: U(-.005, .005); DEVIATION gan2014-D2 at laptop
    keep_input: float = 0.8  # mnist.yaml
    keep_hidden: float = 0.5  # mnist.yaml
    batch: int = 100  # mnist.yaml
    learning_rate: float = 0.1  # mnist.yaml
    learning_rate_divisor: float = 1.000004  # mnist.yaml: a minibatch divides the rate by it
    learning_rate_floor: float = 1e-6  # mnist.yaml
    momentum: tuple[float, float] = (0.5, 0.7)  # mnist.yaml: from the first epoch to momentum_epochs, linearly
    momentum_epochs: int = 250  # mnist.yaml
    n_validation: int = 1000  # parzen_ll.py: the first 1,000 validation images
    n_parzen: int = 10_000  # parzen_ll.py: samples behind every Parzen number
    epochs_between_choices: int = 10  # ours: the model of best validation Parzen is kept, NOTE gan2014-N5
    n_ais_images: int = 0  # ours: test images scored by annealed importance sampling; 0 leaves it out
    n_ais_distributions: int = 0  # Wu et al. 2017 take 10,000
    n_ais_chains: int = 16  # Wu et al. 2017

    @property
    def bounded(self) -> bool:
        """Pixels in [0, 1] and a sigmoid output, as for MNIST; else contrast-normalised pixels and a linear output."""
        return self.data != "cifar10"


@dataclass(frozen=True)
class DcganConfig:
    """DCGAN, the lecture's deep convolutional GAN (Radford 2016), as the strong variant; DEVIATION gan2014-D51."""

    data: str  # ours: MNIST-5k, CIFAR-10; Radford 2016: LSUN, ImageNet, faces
    n_steps: int  # ours; a step is one discriminator update and one generator update
    n_filters: int  # ours; Radford 2016, figure 1, has 128 in the layer before the image
    n_layers: int = 3  # Radford 2016, figure 1, has 4 for images of 64 x 64: one less for half the side
    n_latent: int = 100  # Radford 2016, figure 1: uniform
    batch: int = 128  # Radford 2016, section 4
    learning_rate: float = 2e-4  # Radford 2016, section 4, Adam
    beta1: float = 0.5  # Radford 2016, section 4
    init_sd: float = 0.02  # Radford 2016, section 4
    n_generated: int = 10_000  # ours: images scored, at most as many as there are real ones


@dataclass(frozen=True)
class StackedConfig:
    """Mode collapse on Stacked MNIST, 1,000 modes; Lin 2018, section 4.2. "code" is their VEEGAN experiment's."""

    n_pack: int  # Lin 2018: 1 is DCGAN, 2 is PacDCGAN2
    n_steps: int  # Lin 2018: 50 epochs of 2,000; DEVIATION gan2014-D52
    data: str = "mnist"  # Lin 2018: three random digits make an image; DEVIATION gan2014-D53
    n_train: int = 128_000  # Lin 2018: stacked images; a multiple of batch n_pack
    n_filters: int = 64  # Lin 2018, code: in generator and discriminator alike
    n_layers: int = 4  # Lin 2018, code: from 2 x 2 x 512 to the image
    n_latent: int = 100  # Lin 2018
    batch: int = 64  # Lin 2018: packs in a minibatch
    generator_updates: int = 2  # Lin 2018, code: for every discriminator update; NOTE gan2014-N53
    learning_rate: float = 2e-4  # Lin 2018
    beta1: float = 0.5  # Lin 2018
    init_sd: float = 0.02  # Lin 2018, code
    n_samples: int = 26_000  # Srivastava et al. 2017 (VEEGAN), Lin 2018


@dataclass(frozen=True)
class ToyConfig:
    """Mode collapse on two-dimensional mixtures, many models in one program; Lin 2018, section 4.1."""

    distribution: str  # Lin 2018: "ring" of 8, "grid" of 25
    loss: str  # ours: "minimax" or "nonsaturating"
    n_pack: int  # Lin 2018: 1 is a GAN, 2 is PacGAN2
    n_steps: int  # Lin 2018: 400 epochs of 100,000 points are 400,000
    n_models: int = 10  # Lin 2018: ten trials
    generator_layers: int = 4  # Lin 2018, the authors' program, with batch normalisation
    generator_hidden: int = 400  # Lin 2018
    discriminator_layers: int = 3  # Lin 2018, the authors' program
    maxout_units: int = 200  # Lin 2018
    maxout_pieces: int = 5  # Lin 2018
    init_sd: float = 0.02  # Lin 2018, the authors' program
    batch: int = 100  # Lin 2018, in packs
    learning_rate: float = 1e-4  # Lin 2018, Adam
    rate_falls: bool = False  # Lin 2018: the rate stays; True, linearly to 0, is DEVIATION gan2014-D40
    beta1: float = 0.8  # Lin 2018
    n_samples: int = 2500  # VEEGAN, Lin 2018


@dataclass(frozen=True)
class SensitivityConfig:
    """Which settings train and which fail, on the ring: one width and one ratio, all learning rates side by side."""

    width: int  # ours: the generator's hidden units; the discriminator has half as many, as in Lin 2018
    ratio: int  # Algorithm 1's k: discriminator updates a generator update
    n_steps: int  # ours: generator updates
    learning_rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)  # ours, of both networks
    n_models: int = 4  # ours: models behind each cell
    sd: float = 0.05  # ours, five times Lin 2018's: wide enough for a short training to meet; NOTE gan2014-N43
    generator_layers: int = 2  # ours
    discriminator_layers: int = 2  # ours
    maxout_pieces: int = 2  # ours
    batch: int = 50  # ours
    beta1: float = 0.5  # ours, Radford 2016's for GANs
    n_samples: int = 2500  # VEEGAN, Lin 2018


@dataclass(frozen=True)
class FigureOneConfig:
    """The cartoon of figure 1 as a real experiment in one dimension.

    NOTE gan2014-N32: a pilot that looked at the scores chose the recipe; the note says what was changed, and why.
    """

    n_steps: int  # ours: alternating steps, those before moment (a) included
    n_models: int = 10  # ours: models side by side
    n_first: int = 25  # ours: alternating steps before moment (a)
    n_inner: int = 2000  # ours: updates of D alone between (a) and (b), Algorithm 1's inner loop
    n_moves: int = 10  # ours: updates of G alone between (b) and (c)
    move_rate: float = 2e-4  # ours: of those; small, for D* is the right guide only near the G it was trained for
    k: int = 3  # ours: Algorithm 1 names k and section 5 takes 1; one update leaves D behind
    hidden: tuple[int, ...] = (32, 32)  # ours: tanh units of G and of D
    batch: int = 128  # ours
    generator_rate: float = 4e-3  # ours: Adam, falling linearly to 0
    discriminator_rate: float = 5e-3  # ours: Adam, falling linearly to 0
    betas: tuple[float, float] = (0.0, 0.9)  # ours: momentum makes the pair circle
    averaging: float = 0.005  # ours: weight of each step in the running mean of the weights, judged at (d)
    offset: float = 1.0  # ours: G's output starts here, to the right of the data as in panel (a)
    steps_between_rows: int = 100  # ours


@dataclass(frozen=True)
class PushForwardConfig:
    """The generator as a map of the plane, for connected and disconnected data; ours, the lecture's picture.

    NOTE gan2014-N33: lecture topic, not in the paper; the recipe was chosen by a pilot.
    """

    data: str  # ours: "connected", a half ring, or "disconnected", the same with two gaps
    n_steps: int  # ours
    n_models: int = 5  # ours: models side by side
    k: int = 2  # ours
    hidden: tuple[int, ...] = (48, 48)  # ours: tanh units of G and of D
    batch: int = 128  # ours
    generator_rate: float = 3e-3  # ours: Adam, falling linearly to 0
    discriminator_rate: float = 5e-3  # ours: Adam, falling linearly to 0
    betas: tuple[float, float] = (0.0, 0.9)  # ours
    averaging: float = 0.005  # ours
    n_samples: int = 50_000  # ours: points behind the stray mass and the density check
    steps_between_rows: int = 100  # ours


@dataclass(frozen=True)
class HelveticaConfig:
    """Section 6's "Helvetica scenario": the generator trained too long without updating the discriminator."""

    n_steps: int  # ours: of Algorithm 1, before the discriminator is frozen
    n_frozen_steps: int  # ours: after it, of the generator alone; the control takes as many of Algorithm 1
    n_models: int = 10  # ours
    width: int = 64  # ours: two hidden layers in each network
    n_latent: int = 2  # ours
    n_modes: int = 8  # ours: on the unit circle
    mode_sd: float = 0.3  # ours: the modes overlap, so that most generators find them all before the freeze
    bound: float = 2.0  # ours: the generator's outputs lie in (-bound, bound)^2, NOTE gan2014-N21
    batch: int = 64  # ours
    learning_rate: float = 2e-3  # ours, Adam
    beta1: float = 0.5  # ours
    n_samples: int = 2500  # VEEGAN, Lin 2018


@dataclass(frozen=True)
class TheoryConfig:
    """Propositions 1 and 2, Theorem 1, the generator's two gradients, the game that circles."""

    n_monte_carlo: int = 400_000  # the fact sheet's own count
    shifts: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # the fact sheet's table
    gradient_shifts: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)  # the fact sheet, theory 4
    n_logistic: int = 100_000  # lecture topic 2: draws of each density
    logistic_shifts: tuple[float, ...] = (1.0, 2.0)  # ours
    width: int = 32  # ours: tanh units of the discriminator that learns
    n_lbfgs: int = 500  # ours
    n_ascent_steps: int = 1000  # ours
    ascent_rate: float = 0.02  # ours
    n_steps: int = 400  # ours: of Proposition 2's descent and of the game
    descent_rate: float = 10.0  # ours
    n_segments: int = 1000  # ours
    game_rate: float = 0.1  # lecture topic 3
    game_steps: int = 100  # lecture topic 3


@dataclass(frozen=True)
class BaselinesConfig:
    """What stands beside the scores: real images, k-means centres, probabilistic PCA, the mean image."""

    data: str  # as in GanConfig, whose scores these stand beside
    n_train: int = 50_000  # mnist.yaml; the other sets' own numbers where they are planned
    n_validation: int = 1000  # parzen_ll.py: the first 1,000 validation images
    n_samples: int = 10_000  # parzen_ll.py
    n_quality: int = 10_000  # ours: images on either side of an FID, or as many real ones as there are
    n_clusters: int = 1000  # ours, the fact sheet's anchor
    n_lloyd: int = 6  # ours, the fact sheet's anchor: Lloyd's steps from random training images
    n_factors: int = 50  # ours, the fact sheet's anchor
    n_ais_images: int = 100  # ours: of the GANs' own, for an exact likelihood on the same images


Config = (
    GanConfig | DcganConfig | StackedConfig | ToyConfig | SensitivityConfig | FigureOneConfig | PushForwardConfig
    | HelveticaConfig | TheoryConfig | BaselinesConfig
)  # fmt: skip
