"""One training on several processes, started by torchrun: each takes its share of every minibatch.

All draw the same minibatches, noise and chances from the run's streams and keep the same networks; the gradients of the
shares are averaged before an update, so each update is that of the whole minibatch. This is what
DistributedDataParallel does, for networks whose gradients are taken by torch.autograd.grad and lie in one vector, where
its hooks do not reach (tests/lib/training/test_processes.py compares the two).
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from lib.errors import RunFailed, UserError

P = ParamSpec("P")
T = TypeVar("T")
# The others wait for as long as the first one scores or computes alone. Of a process that died they hear at once: its
# connection closes, and torchrun ends them.
PATIENCE = timedelta(days=365)


@dataclass(frozen=True)
class Processes:
    """This process's number, from 0, and how many there are. One process alone communicates with nobody.

    Every method but `share` is to be called by all, in the same order. Raises RunFailed where another one has ended.
    """

    rank: int = 0
    world: int = 1

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def first(self) -> bool:
        """Whether this is the one that holds locks, writes files and computes scores."""
        return self.rank == 0

    def share(self, batch: Tensor, dim: int = 0) -> Tensor:
        """This process's rows, a view. Raises ValueError where shares would be unequal."""
        if self.alone:
            return batch
        if batch.shape[dim] % self.world:
            raise ValueError(f"{batch.shape[dim]} rows do not divide among {self.world} processes")
        size = batch.shape[dim] // self.world
        return batch.narrow(dim, self.rank * size, size)

    def gather(self, share: Tensor) -> Tensor:
        """The shares of all, equally many rows each, in order of rank; without gradient."""
        if self.alone:
            return share
        mine = share.detach().contiguous()
        shares = [torch.empty_like(mine) for _ in range(self.world)]
        with _listening():
            dist.all_gather(shares, mine)
        return torch.cat(shares)

    @torch.no_grad()
    def mean_(self, *tensors: Tensor) -> None:
        """Each tensor becomes the mean of it over processes: all of them in one message."""
        if self.alone:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _listening():
            dist.all_reduce(flat)
        flat.div_(self.world)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def stacked(self, own: Tensor) -> Tensor:
        """(...) of each process -> (world, ...), in order of rank; its gradient reaches every process's own."""
        if self.alone:
            return own[None]
        rows = [own if rank == self.rank else torch.zeros_like(own) for rank in range(self.world)]
        return cast(Tensor, _Sum.apply(torch.stack(rows)))  # type: ignore[no-untyped-call]

    def told(self, value: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `value` gives in the first process; in the others it is not called. It must not end the run."""
        if self.alone:
            return value(*args, **kwargs)
        box: list[Any] = [value(*args, **kwargs) if self.first else None]
        with _listening():
            dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return cast(T, box[0])

    @torch.no_grad()
    def copy_(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor becomes that of the first process."""
        if self.alone:
            return
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            with _listening():
                dist.broadcast(sent, 0)
            tensor.copy_(sent)


ALONE = Processes()


class _Sum(torch.autograd.Function):
    """The sum over processes. What one adds counts in the losses of all, so the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.contiguous().clone()
        with _listening():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return cast(Tensor, _Sum.apply(gradient))  # type: ignore[no-untyped-call]


@contextmanager
def _listening() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's are of this class
        raise RunFailed(
            "Another process of this training has ended, and says why itself; the same command goes on from the last "
            f"checkpoint. ({str(error).splitlines()[0]})"
        ) from error


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun started, and the device of this one; ALONE and the device itself without torchrun.

    By gloo on CPUs, where each process computes on its own threads, and by NCCL on GPUs, of which each has its own.
    Raises UserError where there are fewer GPUs than processes on this machine.
    """
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield ALONE, device
        return
    on_cuda, local = device.startswith("cuda"), int(os.environ["LOCAL_RANK"])
    if on_cuda:
        if local >= torch.cuda.device_count():
            raise UserError(
                f"There are {torch.cuda.device_count()} GPUs here, one for each process: lower --nproc-per-node to it."
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    # Imported when there is a group, as the first optimiser would, its functions keep the group as their default: then
    # gloo's threads outlive it, and one that comes to let go of a tensor while Python ends aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    # gloo beside NCCL, for what is told: a word to a waiting process must not wait for the GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=PATIENCE)
    yield Processes(dist.get_rank(), dist.get_world_size()), device
    dist.destroy_process_group()  # not after an error: it would wait for the others
