"""What each of two processes finds, written to FOLDER/RANK.pt; started through torchrun by test_processes.py."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import softplus
from torch.nn.parallel import DistributedDataParallel

from lib.models.batch_norm import share_batch_norm_
from lib.models.flat import FlatParameters
from lib.training.processes import Processes, joined

BATCH = 6


def pictures() -> torch.Tensor:
    """(B, 2, 4, 4), of unlike mean and spread in each half, so that statistics of a half are not those of the whole."""
    x = torch.randn(BATCH, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    return x * torch.arange(1.0, BATCH + 1).view(-1, 1, 1, 1) + torch.arange(BATCH).view(-1, 1, 1, 1)


def network(norm: bool) -> nn.Sequential:
    torch.manual_seed(2)
    layers = [
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, 1),
    ]
    return nn.Sequential(*layers)


def trained(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The loss of a share: nonlinear in the output, a mean over images."""
    return softplus(model(x)).mean()


def normed(processes: Processes) -> dict[str, Any]:
    """Batch norm over both shares, beside PyTorch's own over the whole minibatch, which each process has here too."""
    whole, shared, x = network(norm=True), network(norm=True), pictures().requires_grad_()
    share_batch_norm_(shared, processes)
    trained(whole, x).backward()
    part = processes.share(x.detach()).clone().requires_grad_()
    trained(shared, part).backward()
    gradients = [parameter.grad for parameter in shared.parameters()]
    processes.mean_(*gradients)
    part.grad /= processes.world  # type: ignore[operator]  # its loss is a mean over half the images
    found = {"gradients": gradients, "of_x": processes.gather(part.grad), "state": shared.state_dict()}
    wanted = {"gradients": [p.grad for p in whole.parameters()], "of_x": x.grad, "state": whole.state_dict()}
    evaluated = shared.eval()(x), whole.eval()(x)
    return {"found": found, "wanted": wanted, "evaluated": evaluated}


def averaged(processes: Processes) -> dict[str, Any]:
    """The flat gradient after averaging, and what DistributedDataParallel finds on the same shares."""
    ours, theirs = network(norm=False), DistributedDataParallel(network(norm=False))
    flat, x = FlatParameters(ours), processes.share(pictures())
    flat.take_gradient(trained(ours, x))
    alone = flat.vector.grad.clone()  # type: ignore[union-attr]
    processes.mean_(flat.vector.grad)  # type: ignore[arg-type]
    trained(theirs, x).backward()
    reference = FlatParameters(network(norm=False))
    for parameter, other in zip(reference.parameters, theirs.parameters(), strict=True):
        parameter.data.copy_(other.grad)  # in the order of the vector
    return {"own": alone, "ours": flat.vector.grad, "theirs": reference.vector.data}


def main(folder: str) -> None:
    with joined("cpu") as (processes, device):
        rank = processes.rank
        a, b = torch.full((3,), 1.0 + rank), torch.arange(24.0).view(1, 2, 3, 4).mul(rank)
        b = b.contiguous(memory_format=torch.channels_last)
        copied = torch.full((2, 2), 5.0 + rank)
        processes.mean_(a, b)
        processes.copy_([copied])
        found = {
            "processes": (rank, processes.world, processes.first, device),
            "share": processes.share(torch.arange(8)),
            "share of columns": processes.share(torch.arange(8).view(2, 4), dim=1),
            "gathered": processes.gather(torch.arange(4.0).view(2, 2) + 10 * rank),
            "means": (a, b),
            "copied": copied,
            "told": processes.told(lambda n: {"by": rank, "n": n}, 3),
            "norm": normed(processes),
            "ddp": averaged(processes),
        }
        try:
            processes.share(torch.arange(7))
        except ValueError as error:
            found["uneven"] = str(error)
    torch.save(found, Path(folder) / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
