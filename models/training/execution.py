"""How a training step is run. What is learned is the same but for rounding; how fast is not."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from models.training.data.batches import Batch
from models.training.objectives import Objective
from models.training.processes import Processes

TRIES = 4  # of an execution, before it may be given up
MEASURED = 64  # images of a step that is timed, at most: on a CPU they take as long each as those of a whole batch

Precision = Literal["float32", "bfloat16"]


class StepExecution(BaseModel):
    """How the loss of a batch and its gradients are computed.

    Args:
        layout: `channels_last` has the channels of a pixel side by side where there is a convolution.
        precision: bfloat16 is autocast's: products in bfloat16, sums, the weights and the optimizer in float32.
        pieces: into how many parts a batch is cut, each on a thread of its own. Threads that share every operation
            meet some hundred times a step, and wait for the slowest each time; those of pieces meet once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Literal["contiguous", "channels_last"] = "contiguous"
    precision: Precision = "float32"
    pieces: int = Field(1, ge=1)

    def __str__(self) -> str:
        return f"{self.layout} {self.precision}" + (f" in {self.pieces} pieces" if self.pieces > 1 else "")


def candidates(device: torch.device, precisions: Sequence[Precision], in_pieces: bool) -> list[StepExecution]:
    """The executions that may be the fastest on a device, that of a plain loop first.

    Args:
        device: where the step is run.
        precisions: those that may be chosen.
        in_pieces: whether a batch may be cut.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        precisions = [precision for precision in precisions if precision != "bfloat16"] or precisions
    pieces = {1, torch.get_num_threads()} if in_pieces and device.type == "cpu" else {1}
    return [
        StepExecution(layout=layout, precision=precision, pieces=n)
        for n in sorted(pieces)
        for precision in precisions
        for layout in ("contiguous", "channels_last")
    ]


def fastest(among: Sequence[StepExecution], seconds: Callable[[StepExecution], float]) -> StepExecution:
    """The execution that takes least time.

    All are tried in turn, again and again, and of TRIES of each the faster half goes on. What else the machine is busy
    with only ever adds to a time, so the least one of each counts. An execution that fails is none.

    Args:
        among: at least one, the first of which does not fail.
        seconds: runs a step once, and says how long it took.
    """
    least = dict.fromkeys(among, float("inf"))
    left = list(among)
    while len(left) > 1:
        for execution in left * TRIES:
            try:
                least[execution] = min(least[execution], seconds(execution))
            except (RuntimeError, NotImplementedError):  # no memory, or an operation that does not exist
                if execution == among[0]:
                    raise
        left = sorted(left, key=lambda execution: least[execution])[: (len(left) + 1) // 2]
    return left[0]


class Gradients:
    """Computes the loss of a batch and leaves the gradients in the network, by one execution.

    Args:
        objective: of the network.
        execution: how.
        device: where the network is.
        processes: those that share the batch.
        compiled: whether torch.compile runs it.

    Raises:
        ValueError: the network cannot be trained in pieces.
    """

    def __init__(
        self,
        objective: Objective,
        execution: StepExecution,
        device: torch.device,
        processes: Processes,
        compiled: bool = False,
    ) -> None:
        self.execution, self.device, self.processes = execution, device, processes
        self._network = objective.network
        self._pool: ThreadPoolExecutor | None = None
        if execution.pieces > 1:
            if compiled or processes.size > 1 or has_dropout(self._network):
                raise ValueError("a network with dropout, compiled or shared by processes is trained in one piece")
            self._pool = ThreadPoolExecutor(execution.pieces, "piece", initializer=torch.set_num_threads, initargs=(1,))
        self._losses = processes.share_gradients(objective, device)
        if compiled:
            self._losses.compile()
        self._hooks = channels_last(self._network) if execution.layout == "channels_last" else []

    def __call__(self, batch: Batch, n: int) -> Tensor:
        """The sum of the losses of a part of a batch, over the size n of the whole; the gradients are its."""
        if self._pool is None:
            loss = self._loss(batch, n)
            self._network.zero_grad(set_to_none=True)
            (loss * self.processes.size).backward()  # gradients are averaged over the processes, losses are not
            return loss.detach()
        size, pieces = len(batch.x), min(self.execution.pieces, len(batch.x))
        parts = [batch.part(slice(i * size // pieces, (i + 1) * size // pieces)) for i in range(pieces)]
        losses, gradients = zip(*self._pool.map(lambda part: self._differentiate(part, n), parts), strict=True)
        for parameter, found in zip(self._network.parameters(), zip(*gradients, strict=True), strict=True):
            parameter.grad = found[0].contiguous()  # a fused optimizer asks for the memory layout of the weights
            for gradient in found[1:]:  # in this order always: a sum's rounding depends on it
                parameter.grad += gradient
        return torch.stack(losses).sum()

    def close(self) -> None:
        """Leaves the network as it was."""
        for hook in self._hooks:
            hook.remove()
        if self._pool is not None:
            self._pool.shutdown()

    def seconds(self, batch: Batch) -> float:
        """How long a batch takes, on a CPU of at most MEASURED images; the first time is no measure."""
        part = batch.part(slice(0, MEASURED if self.device.type == "cpu" else len(batch.x)))
        began = self._now()
        self(part, len(part.x))
        return self._now() - began

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _loss(self, batch: Batch, n: int) -> Tensor:
        # A GPU's fused attention adds its gradients up in another order each time, and a run that goes on would differ.
        attention = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cuda" else nullcontext()
        fast = self.execution.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast), attention:
            losses: Tensor = self._losses(batch.x, batch.sigma, batch.factors, *batch.normals, label=batch.label)
        return losses.sum() / n

    def _differentiate(self, batch: Batch, n: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = self._loss(batch, n)
        return loss.detach(), torch.autograd.grad(loss, list(self._network.parameters()), materialize_grads=True)


def has_dropout(network: nn.Module) -> bool:
    """Whether chance is at work inside the network, which is drawn from one generator for all threads."""
    return any(getattr(module, "dropout", 0) or isinstance(module, nn.Dropout) for module in network.modules())


def channels_last(network: nn.Module) -> list[RemovableHandle]:
    """Lets every convolution see its input with the channels side by side, until the handles are removed."""

    def before(_module: nn.Module, given: tuple[Tensor]) -> Tensor:
        return given[0].contiguous(memory_format=torch.channels_last)

    return [module.register_forward_pre_hook(before) for module in network.modules() if type(module) is nn.Conv2d]
