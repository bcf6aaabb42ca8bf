"""The paper's MLP VAE (appendix C) with its initialisation.

NOTE vae2013-N4: section 5 swaps words and calls the generative model "encoder"; here the encoder is q(z|x).
"""

import torch
from torch import nn

from lib.models.gaussian_vae import BernoulliVAE
from lib.training.randomness import Streams
from replications.vae2013.config import AevbConfig


def build(config: AevbConfig, n_pixels: int, streams: Streams) -> BernoulliVAE:
    """Encoder and decoder with equal hidden layers; every parameter, biases too, drawn from N(0, init_sd^2)."""
    model = BernoulliVAE(n_pixels, config.n_hidden, config.n_latent).to(streams.device)
    # NOTE vae2013-N2: "N(0, 0.01)" names a variance in the paper's own notation N(mu, sigma^2), so sd 0.1. Ports
    # (y0ast) take 0.01 as the standard deviation and zero biases.
    for step, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=config.init_sd, generator=streams.at("init", step))
    return model


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def adagrad(model: nn.Module, learning_rate: float, config: AevbConfig, n_train: int) -> torch.optim.Adagrad:
    """Adagrad on the joint objective: the bound and the prior N(0, I) on the parameters (section 5).

    The objective per image is the bound plus log p(parameters) / N, whose gradient is weight decay 1 / N: per data
    set once, not per minibatch. PyTorch's eps (1e-10) and starting accumulator (0) are not stated in the paper.
    """
    decay = config.prior_precision / n_train
    fused = True if next(model.parameters()).device.type == "cpu" else None  # elsewhere PyTorch's own choice
    return torch.optim.Adagrad(model.parameters(), lr=learning_rate, weight_decay=decay, fused=fused)
