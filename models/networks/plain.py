"""Networks of others: a function of a noised picture and its noise level, and of a label where it has classes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """A network that has no `condition`: called as network(x, level) or network(x, level, label).

    Nothing is computed ahead, so nothing keeps its operations from mixing the rows of a batch in their last bits: it is
    evaluated at one width only. Its state dict is the network's own.

    Args:
        network: takes x [n, c, h, w], levels float32 [n] and, if it has classes, labels int64 [n]; returns what is
            shaped as x.
    """

    needs_one_width = True
    exact_condition = True  # bfloat16 has not every label above 256, nor every step above it

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def condition(self, noise_level: Tensor, label: Tensor | None = None) -> Tensor:
        """Levels [n] and labels [n], as they are: [n, 1], or [n, 2] with labels."""
        return noise_level[:, None] if label is None else torch.stack([noise_level, label.to(noise_level)], dim=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The network's raw output [n, c, h, w] for x [n, c, h, w] and conditions made by `condition`."""
        level, *label = condition.unbind(1)
        out: Tensor = self.network(x, level, *(number.long() for number in label))
        return out

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The network's own."""
        state: dict[str, Any] = self.network.state_dict(*args, **kwargs)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Into the network itself."""
        return self.network.load_state_dict(state_dict, strict, assign)
