"""Which settings train and which fail: learning rate x width x update ratio on the ring, many models in one program.

All learning rates of one width and one ratio train side by side. Axis 0 holds the models of the first rate, then those
of the second, and so on; no value crosses it, so a model that leaves the finite numbers takes no other with it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from lib.datasets.mixtures import ring
from lib.execution.workspace import Outcome, Workspace
from lib.losses.adversarial import discriminator_loss, nonsaturating_loss
from lib.metrics.modes import CoverageOfModels, coverage_of_models
from lib.results import Score, mean_score
from lib.training.randomness import generator
from replications.gan2014.config import SensitivityConfig
from replications.gan2014.toys import (
    N_LATENT,
    Networks,
    PackedDiscriminator,
    ToyGenerator,
    per_model,
    sample,
)

N_MODES = 8
FEWEST_MODES, LEAST_QUALITY = 4, 0.5  # fixed before the first run: a model below either has failed


class AdamOfRates(torch.optim.Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1; eps 1e-8 outside the root) with a learning rate for each model.

    rates: (R,); axis 0 of every parameter holds equally many entries of each of the R models, one model after another.
    The state is made at once, for a checkpoint to be put back into.
    """

    def __init__(self, parameters: Sequence[Tensor], rates: Tensor, betas: tuple[float, float]) -> None:
        super().__init__(parameters, {"betas": betas, "eps": 1e-8})
        self.rates = [
            rates.repeat_interleave(len(p) // len(rates)).view(-1, *[1] * (p.ndim - 1)).to(p) for p in parameters
        ]
        for p in parameters:
            # The count of steps stays on the CPU, so that reading it waits for no device.
            self.state[p] = {"count": torch.zeros(()), "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        (beta1, beta2), parameters = group["betas"], group["params"]
        states, gradients = [self.state[p] for p in parameters], [p.grad for p in parameters]
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        for state in states:
            state["count"] += 1
        count = states[0]["count"].item()
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, math.sqrt(1 - beta2**count))
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(parameters, torch._foreach_mul(means, self.rates), roots, -1 / (1 - beta1**count))


def descend_(network: Module, optimizer: AdamOfRates, loss: Tensor) -> None:
    """One update of one network; loss: the sum over models of each model's own."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


def sensitivity(config: SensitivityConfig, workspace: Workspace) -> Outcome:
    """Train every rate's models by Algorithm 1 with k = ratio, then count those that fail.

    A model fails whose samples are not finite, capture fewer than 4 of the 8 modes, or are of high quality to less than
    a half. The rule was fixed before the first run.
    """
    streams, n_models = workspace.streams, config.n_models * len(config.learning_rates)
    mixture = ring(N_MODES, 1.0, config.sd).to(workspace.device)
    networks = _networks(config, n_models, streams.seed, workspace.device)
    rates = torch.tensor(config.learning_rates).repeat_interleave(config.n_models)
    names, betas = ("generator", "discriminator"), (config.beta1, 0.999)
    optimizers = [AdamOfRates(list(network.parameters()), rates, betas) for network in networks]
    parts: dict[str, Any] = dict(zip(names, networks, strict=True))
    parts |= {f"{name}_optimizer": optimizer for name, optimizer in zip(names, optimizers, strict=True)}
    state, shape = workspace.resume_(**parts), (n_models, config.batch)
    for step in range(state["step"], config.n_steps):
        rng = streams.at("minibatches", step)
        for _ in range(config.ratio):
            real = mixture.sample(shape, rng)
            with torch.no_grad():
                fake = networks.generator(torch.randn(*shape, N_LATENT, generator=rng, device=streams.device))
            of_real, of_fake = networks.discriminator(torch.cat([real, fake], 1)).chunk(2, 1)
            descend_(networks.discriminator, optimizers[1], n_models * discriminator_loss(of_real, of_fake))
        fake = networks.generator(torch.randn(*shape, N_LATENT, generator=rng, device=streams.device))
        descend_(networks.generator, optimizers[0], n_models * nonsaturating_loss(networks.discriminator(fake)))
        state["step"] = step + 1
        workspace.keep(state, config.n_steps, **parts)
    samples = sample(networks.generator, n_models, config.n_samples, streams.at("evaluation"))
    found = coverage_of_models(samples, mixture.centres, mixture.sd)
    facts = {**per_model(found), "failed": has_failed(found).tolist()}
    return Outcome(cell_scores(found, config), state["history"], {}, facts=facts)


def has_failed(found: CoverageOfModels) -> Tensor:
    """(R,) bool by the rule above; `finite` is in it, for a model that is not finite has no modes."""
    return (found.modes < FEWEST_MODES) | (found.high_quality < LEAST_QUALITY)


def cell_scores(found: CoverageOfModels, config: SensitivityConfig) -> dict[str, Score]:
    """Share of failed models, modes and quality at each learning rate: failed_lr0.001, modes_lr0.001, ..."""
    columns = {
        "failed": (has_failed(found).double(), "share", False),
        "modes": (found.modes, "modes", True),
        "high_quality": (found.high_quality, "share", True),
    }
    scores = {}
    for i, rate in enumerate(config.learning_rates):
        models = slice(i * config.n_models, (i + 1) * config.n_models)
        protocol = {
            "averaged_over": "models", "learning_rate": rate, "width": config.width, "ratio": config.ratio,
            "steps": config.n_steps, "sd": config.sd, "samples": config.n_samples,
            "failed": f"fewer than {FEWEST_MODES} modes, or high quality below {LEAST_QUALITY:g}, or not finite",
        }  # fmt: skip
        for name, (values, unit, higher) in columns.items():
            scores[f"{name}_lr{rate:g}"] = mean_score(values[models], unit, higher, protocol)
    return scores


def _networks(config: SensitivityConfig, n_models: int, seed: int, device: torch.device) -> Networks:
    """Both networks as PyTorch's own default starts a linear layer, U(-1, 1) / sqrt(n_in): it suits every width."""
    rng = generator(seed, "init")
    discriminator = PackedDiscriminator(
        n_models, 1, config.discriminator_layers, config.width // 2, config.maxout_pieces, rng
    )
    return Networks(
        ToyGenerator(n_models, config.generator_layers, config.width, rng).to(device), discriminator.to(device)
    )
