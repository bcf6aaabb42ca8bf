"""Hierarchies of Gaussian layers with two ways of inference: from draw to draw, or by a ladder (Sonderby et al. 2016).

x pixels, z_1 the lowest latent layer, z_L the highest. p(z_L) = N(0, I), p(z_l | z_(l+1)) and q are diagonal Gaussians,
p(x | z_1) is Bernoulli. q is q(z_1 | x) q(z_2 | z_1) ... from below, or as a ladder q(z_L | x) q(z_(L-1) | z_L, x) ...
from above, where each factor joins what the image says with the generative model's own p(z_l | z_(l+1)).
Axis 0 of every tensor is the model: R equal models side by side, and no value crosses it.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.models.batched import BatchedLinear
from lib.models.gaussian_vae import Gaussian

if TYPE_CHECKING:
    from replications.vae2013.hierarchies import HierarchiesConfig

LEAK = 0.01  # Sonderby et al. 2016, code: leaky ReLU; the slope is PyTorch's own


class Norm(nn.Module):
    """Batch normalisation of each of R models by its own batch, with the last batch's statistics kept for evaluation.

    (R, B, n) -> (R, B, n). In `eval` mode the statistics are those of the last batch seen in `train` mode, see settle_.
    NOTE vae2013-N42: by the statistics of the batch at hand one image's p(x | z) would depend on the others', and would
    be no likelihood.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, n_models: int, n: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(n_models * n)), nn.Parameter(torch.zeros(n_models * n))
        self.register_buffer("mean", torch.zeros(n_models * n))
        self.register_buffer("variance", torch.ones(n_models * n))

    def forward(self, x: Tensor) -> Tensor:
        n_models, n_batch, _ = x.shape
        y = x.transpose(0, 1).reshape(n_batch, -1)  # (B, R n): each unit of each model is a channel of its own
        y = F.batch_norm(y, self.mean, self.variance, self.scale, self.shift, self.training, momentum=1.0)
        return y.view(n_batch, n_models, -1).transpose(0, 1)  # (R, B, n)


# NOTE vae2013-N43: batch norm is before the activation of each hidden layer, never on means, variances or logits.
def hidden_layers(config: "HierarchiesConfig", n_in: int, n_hidden: int, rng: torch.Generator) -> nn.Sequential:
    """(R, B, n_in) -> (R, B, n_hidden)."""
    layers: list[nn.Module] = []
    for width in [n_in, *(config.n_layers - 1) * [n_hidden]]:
        layers.append(BatchedLinear(config.n_models, width, n_hidden, rng))
        if config.batch_norm:
            layers.append(Norm(config.n_models, n_hidden))
        layers.append(nn.LeakyReLU(LEAK))
    return nn.Sequential(*layers)


class Passed(NamedTuple):
    """What one draw of all latents gives; B counts draws times images."""

    logits: Tensor  # (R, B, D)
    kl: tuple[Tensor, ...]  # per layer (R, B, Z_l): log q - log p of each unit at the draw, nats
    means: tuple[Tensor, ...]  # per layer (R, B, Z_l): q's mean given what is drawn


class Levels(NamedTuple):
    """Layers 1 .. L of one draw, from the lowest: q and p of each (R, S B, Z_l), and z."""

    q: list[Gaussian]
    p: list[Gaussian]
    z: list[Tensor]


class Hierarchy(nn.Module):
    """R hierarchies. Networks [l] belong to layer l + 1: `up` towards the top, `down` towards the pixels."""

    observation = "bernoulli"

    def __init__(self, config: "HierarchiesConfig", n_pixels: int, rng: torch.Generator) -> None:
        super().__init__()
        widths, r, depth = config.n_latent, config.n_models, len(config.n_latent)
        if len(config.n_hidden) != depth:
            raise ValueError(f"n_hidden has {len(config.n_hidden)} widths for {depth} stochastic layers")
        # A ladder's way up is deterministic, hidden layer on hidden layer; the other's goes from draw to draw.
        below = [n_pixels, *(config.n_hidden if config.ladder else widths)][:depth]
        self.n_models, self.widths, self.ladder = r, widths, config.ladder
        self.up = nn.ModuleList(hidden_layers(config, n, h, rng) for n, h in zip(below, config.n_hidden, strict=True))
        self.up_out = nn.ModuleList(
            BatchedLinear(r, h, 2 * z, rng) for h, z in zip(config.n_hidden, widths, strict=True)
        )
        self.down = nn.ModuleList(
            hidden_layers(config, z, h, rng) for z, h in zip(widths, config.n_hidden, strict=True)
        )
        outputs = [n_pixels, *(2 * z for z in widths[:-1])]
        self.down_out = nn.ModuleList(
            BatchedLinear(r, h, out, rng) for h, out in zip(config.n_hidden, outputs, strict=True)
        )

    def forward(self, x: Tensor, noise: Tensor) -> Passed:
        """x: (R, B, D) in {0, 1}; noise: (R, S B, sum of Z) standard normal, S draws of the B images in turn."""
        draws = noise.shape[1] // x.shape[1]
        parts = noise.split(self.widths, dim=-1)  # of layers 1 .. L: (R, S B, Z_l)
        q, p, z = (self._top_down if self.ladder else self._bottom_up)(x, draws, parts)
        kl = tuple(log_ratio(*each) for each in zip(q, p, z, parts, strict=True))
        return Passed(self.down_out[0](self.down[0](z[0])), kl, tuple(each.mean for each in q))

    def prior(self, layer: int, z: Tensor) -> Gaussian:
        """p(z_layer | z_(layer+1)), layers counted from 0, given z of the layer above: (R, B, Z') -> (R, B, Z)."""
        return _gaussian(self.down_out[layer + 1](self.down[layer + 1](z)))

    def _bottom_up(self, x: Tensor, draws: int, noise: tuple[Tensor, ...]) -> Levels:
        q, z = [], [x]
        for level, part in enumerate(noise):
            h = self.up_out[level](self.up[level](z[-1]))  # (R, B, 2 Z_l)
            q.append(_gaussian(h.repeat(1, draws, 1) if level == 0 else h))  # (R, S B, Z_l)
            z.append(q[-1].sample(part))
        z = z[1:]
        p = [self.prior(level, z[level + 1]) for level in range(len(z) - 1)]
        return Levels(q, [*p, _standard(q[-1])], z)

    def _top_down(self, x: Tensor, draws: int, noise: tuple[Tensor, ...]) -> Levels:
        upward, h = [], x
        for level in range(len(noise)):
            h = self.up[level](h)  # (R, B, H_l)
            upward.append(_gaussian(self.up_out[level](h).repeat(1, draws, 1)))  # (R, S B, Z_l)
        q, p, z = [upward[-1]], [_standard(upward[-1])], [upward[-1].sample(noise[-1])]
        for level in reversed(range(len(noise) - 1)):
            p.insert(0, self.prior(level, z[0]))
            q.insert(0, combined(upward[level], p[0]))
            z.insert(0, q[0].sample(noise[level]))
        return Levels(q, p, z)


def _gaussian(parts: Tensor) -> Gaussian:
    return Gaussian(*parts.chunk(2, dim=-1))


def _standard(like: Gaussian) -> Gaussian:
    return Gaussian(torch.zeros_like(like.mean), torch.zeros_like(like.mean))


def log_ratio(q: Gaussian, p: Gaussian, z: Tensor, noise: Tensor) -> Tensor:
    """log q(z) - log p(z) of each unit, nats, at z = q.sample(noise): (R, B, Z) each."""
    square = (z - p.mean).square() * torch.exp(-p.logvar)
    return 0.5 * (square + p.logvar - noise.square() - q.logvar)


def combined(upward: Gaussian, prior: Gaussian) -> Gaussian:
    """The normalised product of the two densities: means weighted by their precisions, precisions added.

    upward: what the deterministic way up says of z_l, (R, B, Z); prior: p(z_l | z_(l+1)). Where the image says nothing,
    of infinite variance, q is the prior and the layer costs nothing.
    """
    logvar = -torch.logaddexp(-upward.logvar, -prior.logvar)
    mean = upward.mean * torch.exp(logvar - upward.logvar) + prior.mean * torch.exp(logvar - prior.logvar)
    return Gaussian(mean, logvar)
