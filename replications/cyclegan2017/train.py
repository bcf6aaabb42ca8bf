"""The cycle-consistent pair of translators (sections 3 and 4), and the training loop that every method here shares.

G: A -> B is `to_b` and F: B -> A is `to_a`; D_A (`judge_a`) judges A beside F(b), D_B (`judge_b`) judges B beside G(a).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from lib.execution.workspace import Workspace, require_finite
from lib.losses.adversarial import least_squares_loss
from lib.models.flat import FlatParameters
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.optimizers import with_state
from lib.training.processes import ALONE, Processes
from lib.training.randomness import Streams
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.domains import Domains
from replications.cyclegan2017.minibatches import Minibatches
from replications.cyclegan2017.networks import Nets, build
from replications.cyclegan2017.pool import ImagePool

N_ROWS = 100  # of the history
Translator = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class Method(NamedTuple):
    """What a method hands to the loop.

    update: (a, b, step) -> losses (len(columns),) on the device, detached: one step on minibatches in -1 .. 1, `step`
    counted from 0. Of several processes each is given its share, and returns the losses of that.
    parts: every module and optimiser that training changes; the optimisers' rate is set by the loop.
    """

    to_b: Translator
    to_a: Translator
    update: Callable[[Tensor, Tensor, int], Tensor]
    columns: tuple[str, ...]
    parts: dict[str, Any]


class Trained(NamedTuple):
    method: Method
    history: list[dict[str, float]]  # about N_ROWS: step, rate, and the mean of each column since the row before


class Players:
    """Networks under one Adam, their parameters one vector and their gradients another."""

    def __init__(self, config: TranslationConfig, *networks: nn.Module, processes: Processes = ALONE) -> None:
        self.processes = processes
        self.flat = FlatParameters(nn.ModuleList(networks))
        vector = self.flat.vector
        on_cuda = vector.device.type == "cuda"
        # There the step is recorded once (lib.training.graphs), and a record sees the rate change only in a tensor.
        rate: Any = torch.tensor(config.learning_rate, device=vector.device) if on_cuda else config.learning_rate
        betas = config.beta1, config.beta2
        self.optimizer = with_state(torch.optim.Adam([vector], rate, betas, fused=True, capturable=on_cuda))
        self.gradient = vector.grad = torch.zeros_like(vector)
        for parameter in self.flat.parameters:
            place = parameter.shape, parameter.stride(), parameter.storage_offset()
            parameter.grad = self.gradient.as_strided(*place)

    def accumulate(self, loss: Tensor) -> None:
        """Add the gradient of loss, (); of no other network's parameters."""
        torch.autograd.backward(loss, inputs=self.flat.parameters)

    def step(self) -> None:
        """Update by what was added since the last update, the mean of it over processes."""
        self.processes.mean_(self.gradient)
        self.optimizer.step()
        self.gradient.zero_()


def weights_of(config: TranslationConfig) -> dict[str, float]:
    """The terms of the translators' objective by name, with their weights; those of weight 0 are left out."""
    weights = {
        "adversarial_b": config.adversarial, "cycle_a": config.cycle_a, "to_input_a": config.to_input,
        "identity_b": config.identity,
        "adversarial_a": config.adversarial, "cycle_b": config.cycle_b, "to_input_b": config.to_input,
        "identity_a": config.identity,
    }  # fmt: skip
    # NOTE cyclegan2017-N1: identity has weight 5 in both codes unless told otherwise; the paper has it for paintings.
    return {name: weight for name, weight in weights.items() if weight}


class Direction(NamedTuple):
    """From domain `of` to domain `to`."""

    of: str
    to: str
    there: nn.Module  # the translator
    back: nn.Module  # the other one
    judge: nn.Module  # discriminator of domain `to`
    pool: ImagePool  # of translated images; every process fills one with the images of all
    processes: Processes

    def objective(
        self, x: Tensor, y: Tensor, weights: dict[str, float], to_input_loss: Loss
    ) -> tuple[dict[str, Tensor], Any]:
        """Terms that weights names and that begin with x of domain `of`, or y of `to`; and there(x), None if unused."""
        judged, returned = f"adversarial_{self.to}", f"cycle_{self.of}"
        compared, kept = f"to_input_{self.of}", f"identity_{self.to}"
        terms: dict[str, Tensor] = {}
        fake: Any = self.there(x) if weights.keys() & {judged, returned, compared} else None
        if judged in weights:
            terms[judged] = least_squares_loss(self.judge(fake), 1)  # not halved, where the judge's own loss is
        if returned in weights:
            terms[returned] = l1_loss(self.back(fake), x)
        if compared in weights:
            terms[compared] = to_input_loss(fake, x)
        if kept in weights:
            terms[kept] = l1_loss(self.there(y), y)
        return terms, fake

    def judge_loss(self, y: Tensor, fake: Tensor, chance: Tensor) -> Tensor:
        """() of y of domain `to`, as real, and of translated images from the pool, as not."""
        # NOTE cyclegan2017-N2: halved as in the paper and in PyTorch; Lua halves only the number that it prints.
        shown = self.processes.share(self.pool(self.processes.gather(fake), chance))
        return 0.5 * (least_squares_loss(self.judge(y), 1) + least_squares_loss(self.judge(shown), 0))


def cyclegan(
    config: TranslationConfig,
    channels: tuple[int, int],
    streams: Streams,
    device: torch.device,
    to_input_loss: Loss = l1_loss,
    processes: Processes = ALONE,
) -> Method:
    """CycleGAN, and by config's weights its ablations and SimGAN. channels: of A's images and of B's.

    to_input_loss: (output, input) -> (), what config.to_input weighs. Raises ValueError where images of unlike channels
    would be compared.
    """
    if channels[0] != channels[1] and (config.identity or config.to_input):
        raise ValueError(f"identity and to_input compare images of A and B, which have {channels} channels")
    nets, weights = build(config, channels, streams), weights_of(config)
    directions = directions_of(nets, config, channels, device, processes)
    translators = Players(config, nets.to_b, nets.to_a, processes=processes)
    judges = Players(config, nets.judge_b, nets.judge_a, processes=processes)
    parts: dict[str, Any] = {"to_b": nets.to_b, "to_a": nets.to_a, "optimizer": translators.optimizer}
    columns = tuple(weights)
    if config.adversarial:
        parts |= {"judge_a": nets.judge_a, "judge_b": nets.judge_b, "judges_optimizer": judges.optimizer}
        parts |= {f"pool_{d.to}": d.pool for d in directions}
        columns += tuple(f"discriminator_{d.to}" for d in directions)

    def step(a: Tensor, b: Tensor, *chances: Tensor) -> Tensor:
        # NOTE cyclegan2017-N3: both translators by one Adam, then both discriminators by another, as PyTorch; Lua has
        # four and updates G, D_B, F, D_A in turn.
        minibatches, fakes = ((a, b), (b, a)), []
        found: dict[str, Tensor] = {}
        for direction, (x, y) in zip(directions, minibatches, strict=True):
            terms, fake = direction.objective(x, y, weights, to_input_loss)
            if terms:
                translators.accumulate(torch.stack([weights[name] * term for name, term in terms.items()]).sum())
            found |= {name: term.detach() for name, term in terms.items()}
            fakes.append(fake)
        translators.step()
        if config.adversarial:
            for direction, (_, y), fake, chance in zip(directions, minibatches, fakes, chances, strict=True):
                loss = direction.judge_loss(y, fake, chance)
                judges.accumulate(loss)
                found[f"discriminator_{direction.to}"] = loss.detach()
            judges.step()
        return torch.stack([found[name] for name in columns])

    captured = CapturedStep(step, training_tensors(**parts), device, processes)

    def update(a: Tensor, b: Tensor, number: int) -> Tensor:
        n = len(a) * processes.world
        chances = [d.pool.draw(n, streams.at(f"pool {d.to}", number)) for d in directions if config.adversarial]
        losses: Tensor = captured(a, b, *chances)
        return losses

    return Method(nets.to_b, nets.to_a, update, columns, parts)


def directions_of(
    nets: Nets, config: TranslationConfig, channels: tuple[int, int], device: torch.device, processes: Processes
) -> tuple[Direction, Direction]:
    """A to B, and B to A."""
    pools = [ImagePool(config.pool, (c, config.side, config.side), device) for c in channels]
    forth = Direction("a", "b", nets.to_b, nets.to_a, nets.judge_b, pools[1], processes)
    return forth, Direction("b", "a", nets.to_a, nets.to_b, nets.judge_a, pools[0], processes)


class Record(nn.Module):
    """Sums of the losses since the last row of the history; a module, so that checkpoints hold them."""

    sums: Tensor

    def __init__(self, n: int, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(n, device=device))


def train(method: Method, config: TranslationConfig, domains: Domains, workspace: Workspace) -> Trained:
    """config.n_steps updates on unpaired minibatches, paired for pix2pix; goes on from the workspace's checkpoint."""
    processes = workspace.processes
    minibatches = Minibatches(config, domains, workspace.streams, config.method == "pix2pix", processes)
    record = Record(len(method.columns), workspace.device)
    parts = {**method.parts, "record": record}
    optimizers = [part for part in method.parts.values() if isinstance(part, torch.optim.Optimizer)]
    rows = {config.n_steps * (i + 1) // N_ROWS for i in range(N_ROWS)}
    state = workspace.resume_(**parts)
    for step in range(state["step"], config.n_steps):
        set_rate_(optimizers, rate(config, step))
        losses = method.update(*minibatches(step), step)
        processes.mean_(losses)
        record.sums += losses
        state["step"] = step + 1
        if step + 1 in rows:
            _add_row(state, record, method, config)
        workspace.keep(state, config.n_steps, **parts)
    return Trained(method, state["history"])


def rate(config: TranslationConfig, step: int) -> float:
    """The learning rate of step `step`, counted from 0: constant, then linear to 0 just behind the last step.

    The rule of the PyTorch code, 1 - max(0, n - n_constant) / (n_decay + 1) for the n-th of all, in steps.
    """
    # NOTE cyclegan2017-N9: by step; both codes lower it once an epoch, so it lies up to a hundredth away from this.
    n_constant = round(config.decay_from * config.n_steps)
    return config.learning_rate * (1 - max(0, step + 1 - n_constant) / (config.n_steps - n_constant + 1))


def set_rate_(optimizers: list[torch.optim.Optimizer], value: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(value)
            else:
                group["lr"] = value


def _add_row(state: dict[str, Any], record: Record, method: Method, config: TranslationConfig) -> None:
    step, history = state["step"], state["history"]
    n = step - (int(history[-1]["step"]) if history else 0)
    means = dict(zip(method.columns, (record.sums / n).tolist(), strict=True))
    record.sums.zero_()
    history.append({"step": step, "rate": rate(config, step - 1), **means})
    for name, value in means.items():
        require_finite(value, f"The loss {name}", step, history)
