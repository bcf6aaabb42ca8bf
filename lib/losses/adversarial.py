"""Losses of the generative adversarial game, on logits: the discriminator's and the two generator's; least squares.

D(x) = sigmoid(a(x)), and everything is written in the logit a, for log D and log(1 - D) of a sure discriminator are
exactly 0 and -inf in float32 where softplus still tells sizes apart.
"""

from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-(mean log D(x) + mean log(1 - D(G(z)))) / 2, () nats; Goodfellow et al. 2014, equation 1 with its sign turned.

    real and fake: logits of any shape. In [0, inf), lower is a better discriminator; log 2 = 0.693 where D = 1/2
    everywhere. The half is that of the authors' code (AdversaryCost2), so that a batch of real and a batch of fake
    images weigh together what one batch does in a classifier. The value V(D, G) of the paper is -2 times this.
    """
    return 0.5 * (softplus(-real).mean() + softplus(fake).mean())


def nonsaturating_loss(fake: Tensor) -> Tensor:
    """-mean log D(G(z)), () nats, >= 0: what the generator descends in practice; Goodfellow et al. 2014, section 3.

    fake: logits of any shape. Its gradient in the logit, -(1 - D), stays near -1 where the discriminator is sure.
    """
    return softplus(-fake).mean()


def minimax_loss(fake: Tensor) -> Tensor:
    """mean log(1 - D(G(z))), () nats, <= 0: the generator's side of the minimax game; equation 1.

    fake: logits of any shape. It saturates: its gradient in the logit, -D, vanishes where the discriminator is sure.
    """
    return -softplus(fake).mean()


def least_squares_loss(values: Tensor, target: float) -> Tensor:
    """mean (D(x) - target)^2, (), >= 0; Mao et al. 2017 (LSGAN), equation 2 without its half.

    values: what the discriminator says, of any shape and without a sigmoid; target: 1 for "real", 0 for "generated".
    """
    return (values - target).square().mean()
