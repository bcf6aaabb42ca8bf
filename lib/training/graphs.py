"""A training step as one CUDA graph: one launch where eager PyTorch makes hundreds, and waits for each."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lib.training.checkpoints import restore_
from lib.training.processes import ALONE, Processes

WARM_UPS = 3  # as PyTorch's own make_graphed_callables: libraries choose their kernels and workspaces in these


class CapturedStep:
    """Calls `step(*inputs)`; on a CUDA device records it at the first call and replays the record from then on.

    step: updates `tensors` (see training_tensors: parameters, buffers, optimiser state) in place, draws no random
    numbers and never reads a value back to the host; what it needs of either comes in `inputs`, tensors of fixed shapes
    on the device. Numbers that are no tensors (a learning rate of fused SGD) are frozen into the record: call `renew`
    when one changes. What `step` returns lives in the record's memory, and the next call overwrites it.
    The same kernels run as without the record, in the same order. On several processes nothing is recorded.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        tensors: Mapping[str, Tensor],
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        self._step, self._tensors = step, tensors
        # NCCL's messages can be recorded too, but this project has had no machine of two GPUs to try it on: there each
        # step is launched kernel by kernel, which is slower and safe.
        self._recorded = device.type == "cuda" and processes.alone
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._result: Any = None

    def __call__(self, *inputs: Tensor) -> Any:
        if not self._recorded:
            return self._step(*inputs)
        with torch.cuda.device(self._device):  # streams and records are the current device's, be it cuda:1 or cuda:0
            if self._graph is None:
                self._capture(inputs)
            for fixed, value in zip(self._inputs, inputs, strict=True):
                fixed.copy_(value)
            assert self._graph is not None
            self._graph.replay()
        return self._result

    def renew(self) -> None:
        """Record again at the next call, as frozen numbers have changed."""
        self._graph, self._result = None, None

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(value.clone() for value in inputs)
        before = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._step(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        restore_(self._tensors, before)  # the warm-ups were steps: they must not count
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._result = self._step(*self._inputs)
        self._graph = graph
