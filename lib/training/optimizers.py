"""Optimisers whose state is there from the start, so that a checkpoint can be put into it."""

import torch


def with_state(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same optimiser after one step on zero gradients, which moves nothing, with its step counts back at zero.

    For Adam and RMSprop without weight decay, whose first step by a zero gradient is zero. Gradients stay as zeros.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in parameters:
        state = optimizer.state[parameter]
        if isinstance(state["step"], torch.Tensor):
            state["step"].zero_()
        else:
            state["step"] = 0
    return optimizer
