"""Exponential moving averages of the weights, of several lengths (Karras 2024, section 3: which is best shows late)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

TIMES = 4  # as short and as long as the one that is published


class Averages:
    """Averages of a network's weights by their decay a step.

    In the beginning they forget faster, by (1 + t) / (10 + t) after t steps: else what is left of the first weights
    would outweigh a short run.

    Args:
        network: whose weights are averaged.
        decays: of each average, in [0, 1).
    """

    def __init__(self, network: nn.Module, decays: Sequence[float]) -> None:
        self.models = {decay: AveragedModel(network) for decay in decays}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Folds in the weights as they are after step number `step`, from 0.

        Not by `update_parameters`, which sends the number of averaged weights to a GPU and waits for that.
        """
        weights: list[Tensor] = list(network.parameters())
        for decay, model in self.models.items():
            averaged: list[Tensor] = list(model.module.parameters())
            if model.n_averaged == 0:
                torch._foreach_copy_(averaged, weights)
            else:
                torch._foreach_lerp_(averaged, weights, 1 - min(decay, (1 + step) / (10 + step)))
            model.n_averaged += 1

    def state_dict(self) -> dict[float, dict[str, Any]]:
        """What a checkpoint keeps of them."""
        return {decay: model.state_dict() for decay, model in self.models.items()}

    def load_state_dict(self, state: dict[float, dict[str, Any]]) -> None:
        """Continues from what `state_dict` gave. An average of which it has none begins as that of the nearest decay.

        Raises:
            RuntimeError, ValueError: it is the state of another network, or of none.
        """
        for decay, model in self.models.items():
            model.load_state_dict(state[min(state, key=lambda kept: abs(kept - decay))])


def asked(decay: float | None, usual: float) -> float:
    """The decay of the average that is asked for, of those that are kept beside the usual one; None asks for that.

    Raises:
        ValueError: there is no such average.
    """
    if decay is not None and decay not in lengths(usual):
        known = ", ".join(f"{kept:g}" for kept in lengths(usual))
        raise ValueError(f"there is no average of decay {decay:g}; there is {known}")
    return usual if decay is None else decay


def lengths(decay: float) -> list[float]:
    """Decays of averages TIMES as short as that of `decay`, as long, and TIMES as long."""
    return sorted({round(max(0.0, 1 - (1 - decay) * factor), 9) for factor in (TIMES, 1, 1 / TIMES)})
