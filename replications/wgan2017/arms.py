"""RMSProp and Adam side by side in one program: an arm is a critic's optimiser and its learning rate."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from replications.wgan2017.config import MomentumConfig


class Arm(NamedTuple):
    """How a critic is trained: RMSProp where beta1 is None, else Adam; the rate is the generator's as well."""

    beta1: float | None
    rate: float

    @property
    def optimizer(self) -> str:
        """`rmsprop`, `adam0p9`: a part of a score's name."""
        return "rmsprop" if self.beta1 is None else f"adam{self.beta1:g}".replace(".", "p")

    @property
    def name(self) -> str:
        """`adam0p9_lr5em3`."""
        return f"{self.optimizer}_{rate_name(self.rate)}"


def rate_name(rate: float) -> str:
    """0.005 as `lr5em3`, without a sign or a dot: a part of a score's name."""
    digits, _, exponent = f"{rate:e}".partition("e")
    return f"lr{float(digits):g}e{int(exponent)}".replace(".", "p").replace("-", "m")


def arms_of(config: MomentumConfig) -> list[Arm]:
    """All optimisers at the first rate, then at the next: RMSProp first."""
    return [Arm(beta1, rate) for rate in config.learning_rates for beta1 in (None, *config.beta1s)]


class OptimizerOfArms(torch.optim.Optimizer):
    """RMSProp and Adam as PyTorch has them, each of the R models by its own: parameters are (R, ., .).

    Both divide by the root of a running mean of squared gradients, v <- a v + (1 - a) g^2, and add eps = 1e-8 outside
    the root. RMSProp has a = .99 and no more; Adam has a = beta2, a running mean of the gradients with beta1 in the
    gradient's place, and both means divided by 1 - beta^t. arms: one a model. The state is made at once, for a
    checkpoint to be put back into.
    """

    def __init__(self, parameters: Sequence[Tensor], arms: Sequence[Arm], decay: float, beta2: float) -> None:
        super().__init__(parameters, {"eps": 1e-8})
        device, self.dtype = parameters[0].device, parameters[0].dtype

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device).view(-1, 1, 1)

        self.rate, self.beta1 = column([arm.rate for arm in arms]), column([arm.beta1 or 0.0 for arm in arms])
        self.decay = column([decay if arm.beta1 is None else beta2 for arm in arms])
        self.corrected = column([float(arm.beta1 is not None) for arm in arms])
        self.mean_weight, self.square_weight = (1 - self.beta1).to(self.dtype), (1 - self.decay).to(self.dtype)
        for p in parameters:
            # The count of steps stays on the CPU, so that reading it waits for no device.
            self.state[p] = {"count": torch.zeros(()), "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self) -> list[Tensor]:  # type: ignore[override]
        """One step down the gradients. Returns its direction a parameter: the step is -(a rate a model) times it.

        NOTE wgan2017-N54: without momentum the direction is the gradient, each entry divided by a positive number: its
        cosine with the gradient is positive always. Only beta1 > 0 can turn it, so only there is the claim a question.
        """
        group, directions = self.param_groups[0], []
        count = self.state[group["params"][0]]["count"].item() + 1
        size = (self.rate / (1 - self.beta1**count)).to(self.dtype)
        # RMSProp's mean of squares is not corrected: the scale is 1 there.
        root_scale = (1 - self.corrected * self.decay**count).rsqrt().to(self.dtype)
        for p in group["params"]:
            state = self.state[p]
            state["count"] += 1
            mean = state["mean"].lerp_(p.grad, self.mean_weight)
            square = state["square"].lerp_(p.grad * p.grad, self.square_weight)
            direction = mean / square.sqrt().mul_(root_scale).add_(group["eps"])
            p.addcmul_(direction, size, value=-1)
            directions.append(direction)
        return directions


def cosine(ones: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Cosine over all of a model's parameters, lists of (R, ., .) -> (R,), -1 .. 1; nan where one side is 0."""

    def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.linalg.vecdot(x.flatten(1), y.flatten(1)) for x, y in zip(a, b, strict=True)]
                           ).sum(0)  # fmt: skip

    return dot(ones, others) * dot(ones, ones).rsqrt() * dot(others, others).rsqrt()
