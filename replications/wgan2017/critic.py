"""Critics of R models side by side, their two ways to stay Lipschitz, and what bounds their slope.

Axis 0 is the model and no value crosses it: losses (R,) are summed over models, so each gets the gradient it would get
alone.
"""

from typing import cast

import torch
from torch import Tensor, nn

from lib.models.batched import BatchedLinear
from lib.models.flat import FlatParameters


def critics(n_models: int, n_in: int, width: int, n_layers: int, rng: torch.Generator) -> nn.Sequential:
    """MLPs with n_layers hidden layers of ReLU and no bound on the output, (R, B, n_in) -> (R, B, 1)."""
    layers: list[nn.Module] = []
    for n in [n_in, *(n_layers - 1) * [width]]:
        layers += [BatchedLinear(n_models, n, width, rng), nn.ReLU()]
    return nn.Sequential(*layers, BatchedLinear(n_models, width, 1, rng))


def estimates(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """mean f(real) - mean f(fake) of each model, which Algorithm 1 ascends: (R, B, n) twice -> (R,).

    In the critic's own units: at most K W, where K is its Lipschitz constant.
    """
    of_real, of_fake = critic(torch.cat([real, fake], 1)).split([real.shape[1], fake.shape[1]], 1)
    return cast(Tensor, of_real.mean((1, 2)) - of_fake.mean((1, 2)))


def penalties(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Mean of (|grad f(x)| - 1)^2 over x = share real + (1 - share) fake; Gulrajani et al. 2017, equation 3.

    real, fake: (R, B, n); share: (R, B, 1), uniform on (0, 1). Returns (R,), >= 0. Two-sided: it counts slopes below 1
    as well.
    """
    x = torch.lerp(fake, real, share).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)  # (R, B, n)
    # NOTE wgan2017-N24: a slope of -1 costs nothing either. Where W is small beside lambda a critic may keep a part
    # that slopes the wrong way, for on the way to the right slope the penalty rises first.
    # vector_norm, for where all units are off the slope is exactly 0, at which the root's own derivative is nan
    return cast(Tensor, (torch.linalg.vector_norm(slope, dim=-1) - 1).square().mean(1))


def clipped_step_(
    critic: nn.Module, flat: FlatParameters, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, clip: float
) -> None:
    """One critic step of Algorithm 1, lines 5 to 7: up the estimate, then every parameter into [-clip, clip]."""
    flat.take_gradient(-estimates(critic, real, fake).sum())
    optimizer.step()
    flat.clip_(clip)


def penalised_step_(
    critic: nn.Module, flat: FlatParameters, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor,
    share: Tensor, penalty: float,
) -> None:  # fmt: skip
    """One critic step of Gulrajani et al. 2017, algorithm 1, lines 4 to 9; penalty is their lambda."""
    losses = penalty * penalties(critic, real, fake, share) - estimates(critic, real, fake)
    flat.take_gradient(losses.sum())
    optimizer.step()


@torch.no_grad()
def lipschitz_bounds(critic: nn.Module) -> Tensor:
    """K of each model, the product of its layers' spectral norms: (R,) float64 on the CPU.

    ReLU does not stretch, so |f(x) - f(y)| <= K |x - y|. The critic's true Lipschitz constant may be far smaller.
    """
    layers = [layer for layer in critic.modules() if isinstance(layer, BatchedLinear)]
    norms = [torch.linalg.matrix_norm(layer.weight.double().cpu(), ord=2) for layer in layers]
    return torch.stack(norms).prod(0)
