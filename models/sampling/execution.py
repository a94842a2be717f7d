"""Execution: how a network is run. What it computes is the same; how fast, and in the last bits, is not."""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Execution:
    """How a network is run.

    Args:
        mode: `eager` as it is, `channels_last` with the channels of a pixel side by side in memory, `compile` through
            torch.compile.
        dtype: of weights and features; the score's own arithmetic is always in float32, and so are conditions that must
            not be rounded.
    """

    mode: Literal["eager", "channels_last", "compile"] = "eager"
    dtype: Literal["float32", "bfloat16"] = "float32"

    @classmethod
    def named(cls, name: str) -> "Execution":
        """The execution whose str is `name`, such as "channels_last bfloat16"."""
        mode, _, dtype = name.partition(" ")
        return cls(mode, dtype)  # type: ignore[arg-type]

    def of(self, network: nn.Module) -> nn.Module | None:
        """The network run so; None if that is how it is."""
        return None if self == Execution() else Executed(network, self)

    def __str__(self) -> str:
        return f"{self.mode} {self.dtype}"


class Executed(nn.Module):
    """A network run in another way: a copy, where memory format or type differ."""

    def __init__(self, network: nn.Module, execution: Execution) -> None:
        super().__init__()
        self.dtype = DTYPES[execution.dtype]
        self.format = torch.channels_last if execution.mode == "channels_last" else torch.contiguous_format
        self.network = copy.deepcopy(network).to(self.dtype).to(memory_format=self.format)  # type: ignore[call-overload]
        self.condition_dtype = self.dtype
        if self.dtype != torch.float32 and getattr(network, "exact_condition", False):
            self.condition_dtype = torch.float32
            for layer in self.network.modules():
                if _of_torch(layer) and any(True for _ in layer.parameters(recurse=False)):
                    layer.register_forward_pre_hook(self._cast)
        self.run = torch.compile(self.network, dynamic=True) if execution.mode == "compile" else self.network

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = x.to(self.dtype).contiguous(memory_format=self.format)
        out: Tensor = self.run(x, condition.to(self.condition_dtype))
        return out.to(torch.float32).contiguous()

    def _cast(self, _layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a layer is given, in the type of its weights: what was made of a float32 condition is not in it."""
        return tuple(x.to(self.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in given)


def _of_torch(layer: nn.Module) -> bool:
    """Whether a layer is one of torch's own, and not somebody's network, which is to see its condition as it is."""
    return type(layer).__module__.startswith("torch.nn.")


def candidates(device: torch.device, exact: bool) -> list[Execution]:
    """The executions that may be faster on a device.

    With `exact` only those in which the network's operations, and their order, stay what they are: a compiled network
    is fused and rounds otherwise, and so does another type.
    """
    found = [Execution(), Execution("channels_last")]
    if not exact:
        found.append(Execution("compile"))
        if device.type != "cuda" or torch.cuda.is_bf16_supported():
            found += [Execution(mode, "bfloat16") for mode in ("eager", "channels_last", "compile")]
    return found
