"""The processes that train one network together, as torchrun starts them."""

import gc
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

# Before there is a group: its functions' defaults are the group at the time of the import, and would keep it, with its
# threads, to the end of the interpreter; a thread that drops a tensor then aborts the process.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        rank: its number, from 0; number 0 alone writes and speaks.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, n: int) -> slice:
        """The part of a batch of n that is this process's."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def share_gradients(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module, with gradients that are the mean over all processes."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, device_ids=None if device.type == "cpu" else [device])

    def sum(self, values: Tensor) -> Tensor:
        """The sum of each value over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, ours: bool, device: torch.device) -> bool:
        """Whether it is so in any of the processes."""
        if self.size == 1:
            return ours
        return bool(self.sum(torch.tensor(float(ours), device=device)) > 0)


def join(device: str) -> tuple[Processes, str]:
    """Meets the other processes if torchrun started this one; returns its place and its device.

    Raises:
        RuntimeError, ValueError: they cannot be met.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Processes(), device
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Processes(dist.get_rank(), size), device


def leave() -> None:
    """Parts from the others, if there are others, and ends the group's threads.

    A module from `share_gradients` that is still in use keeps them.
    """
    if dist.is_initialized():
        gc.collect()  # such a module is in a cycle with itself
        dist.destroy_process_group()
