"""Programs of torch.export, whose weights are themselves and which need no Python of their authors."""

import io
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass


class Exported(nn.Module):
    """A program of torch.export that takes (x, level), or (x, level, label) if it has classes.

    Its state is one tensor, `program`: the bytes of the .pt2 file. To read them is to run what they say, so
    models.networks has the operator allow it first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._program: torch.export.ExportedProgram | None = None
        # Not kept as a module of this one, since a program refuses to be set to train or to eval.
        self._run: Callable[..., Tensor] | None = None

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """The program's output [n, c, h, w] for x [n, c, h, w], levels [n] and labels [n]."""
        assert self._run is not None, "a program is loaded first"
        x, level = x.float(), level.float()  # it keeps its types, whatever the worker runs others in
        return self._run(x, level) if label is None else self._run(x, level, label)

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> None:
        """Reads the program of a state dict that holds nothing else.

        Raises:
            RuntimeError: it holds something else.
        """
        if set(state_dict) != {"program"} or state_dict["program"].dtype != torch.uint8:
            raise RuntimeError("the weights of an exported program are the bytes of its file, and nothing else")
        said = logging.getLogger("torch.export")  # a traceback, besides the exception
        was, said.disabled = said.disabled, True
        try:
            self._program = torch.export.load(io.BytesIO(state_dict["program"].numpy().tobytes()))
        finally:
            said.disabled = was
        self._run = self._program.module().__call__

    def __deepcopy__(self, memo: dict[int, Any]) -> "Exported":
        """Itself: a program does not change, and runs in one way only."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], *_: Any) -> "Exported":
        """To another device, as `Module.to` asks; a program keeps the types that it was exported with."""
        device = fn(torch.empty(0)).device
        if self._program is not None and device.type != "cpu":
            self._program = move_to_device_pass(self._program, device)
            self._run = self._program.module().__call__
        return self
