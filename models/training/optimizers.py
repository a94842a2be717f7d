"""The optimizers of a training run, seen as one."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["adam", "muon"]


class Optimizer:
    """Adam for all weights, or Muon for the hidden convolutions and Adam for the rest.

    Muon (Jordan et al. 2024) makes the momentum of a weight matrix orthogonal before it is added, so that a layer
    learns alike in all directions; a kernel [out, in, h, w] counts as a matrix [out, in h w]. Its authors leave the
    first and the last layer, biases, gains and embeddings to Adam.

    Args:
        name: which.
        network: whose weights are trained; they must stay where they are in memory.
        learning_rate: peak rate of Adam.
        muon_learning_rate: peak rate of Muon: how far, in spectral norm, a step moves a matrix.
    """

    def __init__(
        self, name: OptimizerName, network: nn.Module, learning_rate: float, muon_learning_rate: float
    ) -> None:
        kernels = list(hidden_kernels(network)) if name == "muon" else []
        chosen = {id(kernel) for kernel in kernels}
        rest = [p for p in network.parameters() if id(p) not in chosen]
        self.peaks = [learning_rate]
        adam = torch.optim.Adam(rest, learning_rate, betas=(0.9, 0.99), fused=True)  # one pass, not ten
        self.parts: list[torch.optim.Optimizer] = [adam]
        # torch's Muon takes matrices only: each shares the memory of its kernel.
        self._matrices = [(kernel, nn.Parameter(kernel.detach().view(len(kernel), -1))) for kernel in kernels]
        if kernels:
            matrices = [matrix for _, matrix in self._matrices]
            self.peaks.append(muon_learning_rate)
            self.parts.append(torch.optim.Muon(matrices, muon_learning_rate, weight_decay=0.0))

    def step(self, factor: float) -> None:
        """One update from the network's gradients, at `factor` times the peak rates."""
        for kernel, matrix in self._matrices:
            matrix.grad = None if kernel.grad is None else kernel.grad.reshape(matrix.shape)
        for optimizer, peak in zip(self.parts, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps of it."""
        return [optimizer.state_dict() for optimizer in self.parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Continues from what `state_dict` gave.

        Raises:
            ValueError: it is the state of another optimizer or network.
        """
        for optimizer, part in zip(self.parts, state, strict=True):
            optimizer.load_state_dict(part)


def hidden_kernels(network: nn.Module) -> Iterator[Tensor]:
    """The weights [out, in, h, w] of all convolutions but the first and the last, in the order of their making."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions[1:-1]:
        yield module.weight
