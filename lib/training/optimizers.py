"""Optimisers whose state is there from the start, so that a checkpoint can be put into it."""

from typing import TypeVar

import torch

AnyOptimizer = TypeVar("AnyOptimizer", bound=torch.optim.Optimizer)


def with_state(optimizer: AnyOptimizer) -> AnyOptimizer:
    """The same optimiser after one step on zero gradients, which moves nothing, with its step counts back at zero.

    For Adam and RMSprop without weight decay, whose first step by a zero gradient is zero. Gradients are None after it.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for parameter in parameters:
        state = optimizer.state[parameter]
        if isinstance(state["step"], torch.Tensor):
            state["step"].zero_()
        else:
            state["step"] = 0
    return optimizer
