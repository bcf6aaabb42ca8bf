"""A network's parameters as one vector, so that an update, a clip or a norm of all of them is one operation."""

import torch
from torch import Tensor, nn


class FlatParameters:
    """Moves a network's parameters into `vector`, (n,), of which each becomes a view; to be made after `.to(device)`.

    Convolution weights lie in the vector channels-last, the order in which CPUs convolve fastest; their shapes and
    values stay. `vector` is what an optimiser of elementwise steps is given, with `take_gradient` before each step.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parameters = list(network.parameters())
        sizes = [parameter.numel() for parameter in self.parameters]
        first = self.parameters[0]
        self.vector = nn.Parameter(torch.empty(sum(sizes), dtype=first.dtype, device=first.device))
        for parameter, part in zip(self.parameters, self.vector.data.split(sizes), strict=True):
            view = _as(part, parameter)
            view.copy_(parameter.data)
            parameter.data = view

    def take_gradient(self, loss: Tensor) -> None:
        """d loss / d vector into vector.grad; no other network's gradients are computed. loss: ()."""
        gradients = torch.autograd.grad(loss, self.parameters)
        self.vector.grad = torch.cat([_in_order(gradient).reshape(-1) for gradient in gradients])

    def clip_(self, bound: float) -> None:
        """Every parameter into [-bound, bound]; Arjovsky et al. 2017, Algorithm 1, line 7."""
        self.vector.data.clamp_(-bound, bound)


def _in_order(tensor: Tensor) -> Tensor:
    """Channels last where there are channels: (o, i, h, w) -> (o, h, w, i)."""
    return tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor


def _as(part: Tensor, parameter: Tensor) -> Tensor:
    """A piece of the vector in a parameter's shape."""
    if parameter.ndim != 4:
        return part.view(parameter.shape)
    return part.view(_in_order(parameter).shape).permute(0, 3, 1, 2)
