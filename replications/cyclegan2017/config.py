"""What we chose for cyclegan2017, with the source of every value.

"section" is Zhu, Park, Isola and Efros 2017 (arXiv 1703.10593); "Lua" is the authors' junyanz/CycleGAN, which made the
paper's results, "PyTorch" their junyanz/pytorch-CycleGAN-and-pix2pix. The domains are A and B, the translators
G: A -> B and F: B -> A (the PyTorch code's G_A and G_B), their discriminators D_B and D_A.
"""

from dataclasses import dataclass

PAPER = "cyclegan2017"
ALGORITHM_VERSION = 1  # raise it when a run would compute something else


@dataclass(frozen=True)
class TranslationConfig:
    """One training of translators between two image domains, both ways."""

    task: str  # ours: what A and B are, see tasks.py
    method: str  # section 5.1: "cyclegan" and its ablations; "cogan", "bigan", "simgan", "feature", "pix2pix"
    side: int  # section 4: 128 or 256; DEVIATION cyclegan2017-D1 at laptop
    n_steps: int  # generator updates; section 4: 200 epochs of the larger domain; DEVIATION cyclegan2017-D2 at laptop
    n_train: int  # ours: training images a domain, 0 for all there are; section 5.1.1: 2,975 of Cityscapes
    n_test: int  # ours: images a domain behind the scores; section 5.1.1: Cityscapes' validation set, 500
    batch: int = 1  # section 4; DEVIATION cyclegan2017-D3 at laptop
    n_filters: int = 64  # section 4: of the translators' first layer; DEVIATION cyclegan2017-D4 at laptop
    n_blocks: int = 9  # section 4: 6 for 128 x 128, 9 from 256 x 256; DEVIATION cyclegan2017-D4 at laptop
    n_critic_filters: int = 64  # section 4: C64 of the discriminator; DEVIATION cyclegan2017-D4 at laptop
    n_critic_layers: int = 3  # section 4: convolutions of stride 2, for 70 x 70 patches; DEVIATION cyclegan2017-D4
    adversarial: float = 1.0  # section 3: weight of both adversarial losses; 0 is "cycle alone"
    cycle_a: float = 10.0  # section 4: lambda of |F(G(a)) - a|, the forward cycle where A is the input
    cycle_b: float = 10.0  # section 4: lambda of |G(F(b)) - b|
    identity: float = 0.0  # section 5.2: 0 but for paintings, where 5 (0.5 lambda); NOTE cyclegan2017-N1
    to_input: float = 0.0  # section 5.1: SimGAN's L1 to the input, or that of its features
    paired: float = 100.0  # pix2pix (Isola et al. 2017): lambda of |G(a) - b|
    pool: int = 50  # section 4: generated images kept for the discriminators
    learning_rate: float = 2e-4  # section 4
    decay_from: float = 0.5  # section 4: the share of the steps after which the rate falls linearly to 0
    beta1: float = 0.5  # Lua and PyTorch: of Adam
    beta2: float = 0.999  # Lua and PyTorch: of Adam
    init_sd: float = 0.02  # section 4: N(0, .02)
    crop_from: int = 0  # Lua and PyTorch: images are made 143 or 286 wide and cropped to 128 or 256; 0 is no crop
    flip: bool = False  # Lua and PyTorch: mirrored with chance 1/2; not where sides matter (digits)


@dataclass(frozen=True)
class MixturesConfig:
    """Why the cycle is not enough either: labelled modes in the plane, many models side by side."""

    target: str = "grid"  # ours: where the modes of B lie, "grid", "ring" or "groups"; DEVIATION cyclegan2017-D43
    adversarial: float = 1.0  # section 3: weight of both adversarial losses; 0 is "cycle alone"
    cycle_a: float = 10.0  # section 4: lambda of |F(G(a)) - a|
    cycle_b: float = 10.0  # section 4: lambda of |G(F(b)) - b|
    identity: float = 0.0  # section 5.2: 0, or 5 (0.5 lambda) with the identity loss
    n_steps: int = 1600  # ours: translator updates; DEVIATION cyclegan2017-D41
    n_models: int = 24  # ours: models a variant
    width: int = 64  # ours; DEVIATION cyclegan2017-D40
    n_layers: int = 2  # ours: hidden layers of translators and discriminators; DEVIATION cyclegan2017-D40
    batch: int = 32  # section 4: 1; DEVIATION cyclegan2017-D41
    learning_rate: float = 5e-3  # section 4: 2e-4; DEVIATION cyclegan2017-D41
    decay_from: float = 0.5  # section 4: the share of the steps after which the rate falls linearly to 0
    beta1: float = 0.5  # Lua and PyTorch: of Adam
    beta2: float = 0.999  # Lua and PyTorch: of Adam
    n_points: int = 100  # ours: fresh points of each mode behind the scores


@dataclass(frozen=True)
class AnchorsConfig:
    """What stands beside every score of a task: real images, and translators that know nothing."""

    task: str  # ours: as in TranslationConfig
    side: int  # ours: as in TranslationConfig
    n_train: int  # ours: as in TranslationConfig
    n_test: int  # ours: as in TranslationConfig


@dataclass(frozen=True)
class NetworksConfig:
    """The paper's networks, counted."""
