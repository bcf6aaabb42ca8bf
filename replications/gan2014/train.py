"""The training of section 5: one minibatch's update as in the authors' code, and as in the paper's Algorithm 1.

x images, z noise, m = config.batch images a minibatch, D's last layer a logit.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.execution.workspace import Workspace, require_finite
from lib.likelihood import select_bandwidth
from lib.losses.adversarial import discriminator_loss, minimax_loss, nonsaturating_loss
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.processes import ALONE, Processes
from lib.training.randomness import MinibatchOrder, Streams
from replications.gan2014.config import GanConfig
from replications.gan2014.networks import Nets, build
from replications.gan2014.splits import Splits

GRADIENT_STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)  # ours: where both generator gradients are measured


class Noise(NamedTuple):
    """All chance of one step."""

    z: Tensor  # (m, Z)
    dropout: Tensor  # (2, m, widths of D's layers' inputs side by side), uniform on (0, 1): for real and for fake


class Optimizers(NamedTuple):
    generator: torch.optim.SGD
    discriminator: torch.optim.SGD


def simultaneous_step(
    nets: Nets, optimizers: Optimizers, config: GanConfig, x: Tensor, noise: Noise, processes: Processes = ALONE
) -> None:
    """Both networks move at once, from the same point and by the same fakes, as in the authors' code.

    x and noise: the minibatch, or this process's share of it.
    """
    generator, discriminator = nets
    for_real, for_fake = dropout_masks(noise.dropout, discriminator.mask_widths, config)
    fake = generator(noise.z)  # (m, D)
    real_logits = discriminator(x, for_real)
    # NOTE gan2014-N3: the generator's gradient goes through the same dropped-out discriminator as the discriminator's.
    fake_logits = discriminator(fake, for_fake)
    ascent = _gradients(discriminator_loss(real_logits, fake_logits), discriminator, keep=True)
    descent = _gradients(nonsaturating_loss(fake_logits), generator)
    processes.mean_(*ascent)
    processes.mean_(*descent)
    _apply(optimizers.discriminator, discriminator, ascent)
    _apply(optimizers.generator, generator, descent)


def alternating_step(
    nets: Nets,
    optimizers: Optimizers,
    config: GanConfig,
    x: Tensor,
    noise: Noise,
    again: Noise,
    processes: Processes = ALONE,
) -> None:
    """NOTE gan2014-N1: the paper's Algorithm 1 with k = 1: first D, then G against the new D, by fresh noise."""
    generator, discriminator = nets
    for_real, for_fake = dropout_masks(noise.dropout, discriminator.mask_widths, config)
    with torch.no_grad():
        fake = generator(noise.z)
    loss = discriminator_loss(discriminator(x, for_real), discriminator(fake, for_fake))
    ascent = _gradients(loss, discriminator)
    processes.mean_(*ascent)
    _apply(optimizers.discriminator, discriminator, ascent)
    (masks,) = dropout_masks(again.dropout, discriminator.mask_widths, config)
    loss = nonsaturating_loss(discriminator(generator(again.z), masks))
    descent = _gradients(loss, generator)
    processes.mean_(*descent)
    _apply(optimizers.generator, generator, descent)


def dropout_masks(uniform: Tensor, widths: tuple[int, ...], config: GanConfig) -> list[tuple[Tensor, ...]]:
    """For each pass through D, what each layer's input is multiplied by: 0, or 1 / keep with probability keep."""
    keep = uniform.new_full((sum(widths),), config.keep_hidden)
    keep[: widths[0]] = config.keep_input
    kept = torch.lt(uniform, keep, out=torch.empty_like(uniform))  # as numbers at once, not by way of bools
    return [mask.split(widths, 1) for mask in kept.div_(keep)]


def _gradients(loss: Tensor, network: nn.Module, keep: bool = False) -> tuple[Tensor, ...]:
    """Of this network's parameters only: a plain backward() would also fill the other's."""
    return torch.autograd.grad(loss, list(network.parameters()), retain_graph=keep)


def _apply(optimizer: torch.optim.SGD, network: nn.Module, gradients: tuple[Tensor, ...]) -> None:
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def schedule_(optimizers: Optimizers, config: GanConfig, step: int, steps_an_epoch: int) -> bool:
    """Set learning rate and momentum for a step; says whether the momentum is another than before.

    The rate falls with every minibatch, the momentum rises with every epoch until momentum_epochs.
    The authors' v_t = m v_(t-1) - lr_t g_t is torch's momentum buffer times -lr_t only while lr stands still. With
    torch's momentum m lr_(t-1) / lr_t the two are equal for every schedule.
    """
    rate, before = _learning_rate(config, step), _learning_rate(config, step - 1)
    start, end = config.momentum
    # The first epoch has the number 1 in the yaml, and the ramp goes from there to momentum_epochs.
    along = min(1.0, (step // steps_an_epoch) / max(1, config.momentum_epochs - 1))
    momentum = (start + (end - start) * along) * (1.0 if rate == before else config.learning_rate_divisor)
    changed = momentum != optimizers.generator.param_groups[0]["momentum"]
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"].fill_(rate)
        optimizer.param_groups[0]["momentum"] = momentum
    return changed


def _learning_rate(config: GanConfig, step: int) -> float:
    return max(config.learning_rate_floor, config.learning_rate / config.learning_rate_divisor ** max(0, step))


class Minibatches:
    """Images and noise of step t, a function of (seed, t) alone."""

    def __init__(self, rows: Tensor, n_masked: int, config: GanConfig, streams: Streams) -> None:
        self.rows, self.n_masked = rows, n_masked  # rows: (N, D), on the device
        self.config, self.streams = config, streams
        self.order = MinibatchOrder(streams.seed, len(rows), config.batch, streams.device)

    def images(self, step: int) -> Tensor:
        return self.rows.index_select(0, self.order(step))

    def noise(self, name: str, step: int, passes: int = 2) -> Noise:
        z = draw_noise(self.config, self.config.batch, self.streams.at(f"{name} z", step))
        shape = passes, self.config.batch, self.n_masked
        return Noise(z, torch.rand(shape, generator=self.streams.at(f"{name} dropout", step), device=z.device))


def draw_noise(config: GanConfig, n: int, generator: torch.Generator) -> Tensor:
    """(n, Z) of zero mean and unit variance, on the generator's device."""
    shape = n, config.n_latent
    if config.noise == "gaussian":  # NOTE gan2014-N2: the CIFAR-10 files name no noise and so get the class's default
        return torch.randn(shape, generator=generator, device=generator.device)
    half_width = 3**0.5
    return (2 * torch.rand(shape, generator=generator, device=generator.device) - 1) * half_width


class Training(NamedTuple):
    nets: Nets  # as they were after the last step
    chosen: nn.Module  # the generator of best validation Parzen log-likelihood; the last one where none is computed
    chosen_epoch: int
    history: list[dict[str, float]]
    gradients: list[dict[str, float]]  # the generator's two gradients at the start of the training


def train(config: GanConfig, splits: Splits, image: tuple[int, ...], workspace: Workspace) -> Training:
    """config.n_epochs of training; goes on from the workspace's checkpoint. splits: rows of pixels, on the device."""
    streams, processes = workspace.streams, workspace.processes
    nets = build(config, image, splits.train.mean(0) if config.bounded else None, streams)
    chosen, optimizers = copy.deepcopy(nets.generator), optimizers_of(nets)
    minibatches = Minibatches(splits.train, sum(nets.discriminator.mask_widths), config, streams)
    steps_an_epoch = len(splits.train) // config.batch
    n_steps, interval = config.n_epochs * steps_an_epoch, config.epochs_between_choices * steps_an_epoch
    moving = {"generator": nets.generator, "discriminator": nets.discriminator,
              "generator_sgd": optimizers.generator, "discriminator_sgd": optimizers.discriminator}  # fmt: skip
    parts = moving | {"chosen": chosen}
    state: dict[str, Any] = {"gradients": [], "chosen_epoch": 0} | workspace.resume_(**parts)
    played = _step_of(nets, optimizers, config, processes)
    update = CapturedStep(played, training_tensors(**moving), workspace.device, processes)
    for step in range(state["step"], n_steps):
        if schedule_(optimizers, config, step, steps_an_epoch):
            update.renew()
        noise = [minibatches.noise("step", step)]
        if step in GRADIENT_STEPS:
            state["gradients"].append({"step": step} | gradient_norms(nets, config, noise[0]))
        if config.update == "alternating":
            noise.append(minibatches.noise("again", step, passes=1))
        shares = [tensor for z, dropout in noise for tensor in (processes.share(z), processes.share(dropout, dim=1))]
        update(processes.share(minibatches.images(step)), *shares)
        state["step"] = step + 1
        if (step + 1) % interval == 0 or step + 1 == n_steps:
            _look(nets, chosen, splits, config, state, (step + 1) / steps_an_epoch, workspace)
        workspace.keep(state, n_steps, **parts)
    return Training(nets, chosen, state["chosen_epoch"], state["history"], state["gradients"])


def _step_of(nets: Nets, optimizers: Optimizers, config: GanConfig, processes: Processes) -> Callable[..., None]:
    """The update that config names, as a function of plain tensors."""
    if config.update == "simultaneous":
        return lambda x, *noise: simultaneous_step(nets, optimizers, config, x, Noise(*noise), processes)
    if config.update == "alternating":
        return lambda x, *noise: alternating_step(
            nets, optimizers, config, x, Noise(*noise[:2]), Noise(*noise[2:]), processes
        )
    raise ValueError(f"update is {config.update!r}: it is 'simultaneous' or 'alternating'")


def optimizers_of(nets: Nets) -> Optimizers:
    """SGD whose momentum buffers are there from the start, at zero, so that a checkpoint can be put back into them."""
    optimizers = Optimizers(*(_sgd(net) for net in nets))
    for net, optimizer in zip(nets, optimizers, strict=True):
        for parameter in net.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizers


def _sgd(network: nn.Module) -> torch.optim.SGD:
    # The rate is a tensor, so that a captured step sees it move.
    rate = torch.ones((), device=next(network.parameters()).device)
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=0.5, fused=True)


def _look(
    nets: Nets,
    chosen: nn.Module,
    splits: Splits,
    config: GanConfig,
    state: dict[str, Any],
    epoch: float,
    workspace: Workspace,
) -> None:
    """A row of the history; keeps the generator if validation images score it best so far. Test images are unseen."""
    streams, step = workspace.streams, state["step"]
    point = workspace.processes.told(lambda: curve_point(nets, splits, config, streams, step))
    state["history"].append({"epoch": epoch, **point})
    require_finite(point["loss_discriminator"], "The discriminator's loss", state["step"], state["history"])
    best = max((row["parzen_validation"] for row in state["history"][:-1]), default=float("-inf"))
    # Without a validation Parzen (nan) the comparison is false, and the last generator is the chosen one.
    if not point["parzen_validation"] <= best:
        chosen.load_state_dict(nets.generator.state_dict())
        state["chosen_epoch"] = round(epoch)


@torch.no_grad()
def curve_point(nets: Nets, splits: Splits, config: GanConfig, streams: Streams, step: int) -> dict[str, float]:
    """Without dropout, on as many images as validation has: D's mean outputs, the losses, and validation Parzen."""
    n = min(len(splits.validation), len(splits.train))
    fake = nets.generator(draw_noise(config, n, streams.at("curve", step)))
    real, held_out, fake = (nets.discriminator(rows) for rows in (splits.train[:n], splits.validation[:n], fake))
    means = {f"d_{name}": torch.sigmoid(a).mean().item() for name, a in
             (("train", real), ("validation", held_out), ("fake", fake))}  # fmt: skip
    losses = {"loss_discriminator": discriminator_loss(real, fake).item(),
              "loss_generator": nonsaturating_loss(fake).item()}  # fmt: skip
    parzen = float("nan")
    if config.bounded and math.isfinite(losses["loss_discriminator"]):  # a diverged network's samples have no score
        samples = generate(nets.generator, config, config.n_parzen, streams.at("choice", step))
        parzen = max(select_bandwidth(samples, splits.validation).means)
    return means | losses | {"parzen_validation": parzen}


@torch.no_grad()
def generate(generator: nn.Module, config: GanConfig, n: int, random: torch.Generator) -> Tensor:
    """n samples as rows of pixels (n, D), on the device of `random`."""
    z = draw_noise(config, n, random)
    return torch.cat([generator(part) for part in z.split(2000)])


def gradient_norms(nets: Nets, config: GanConfig, noise: Noise) -> dict[str, float]:
    """|dL/dtheta_G| of the minimax and the non-saturating loss at one point and by the same fakes; D's mean on them."""
    masks = dropout_masks(noise.dropout, nets.discriminator.mask_widths, config)[-1]
    logits = nets.discriminator(nets.generator(noise.z), masks)
    parameters = list(nets.generator.parameters())
    norms: Mapping[str, Tensor] = {
        name: torch.stack([g.square().sum() for g in torch.autograd.grad(loss(logits), parameters, retain_graph=True)])
        for name, loss in (("minimax", minimax_loss), ("nonsaturating", nonsaturating_loss))
    }
    return {f"norm_{k}": v.sum().sqrt().item() for k, v in norms.items()} | {
        "d_fake": torch.sigmoid(logits).mean().item()
    }
