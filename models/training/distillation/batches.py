"""The batches of a distillation: ends of flows, and the noise that leads there."""

import torch

from models.training.data.batches import Batch, Batches, Draw
from models.training.distillation.flows import Flows
from models.training.objectives import Objective
from models.training.processes import Processes

BEGINNING = 0.3  # share of a batch at the largest noise level: from there the student has the whole way to tell at once


class FlowBatches(Batches):
    """Batches whose noise is a flow's. Each time that a flow's turn comes it is looked at from a level drawn anew.

    Args:
        flows: what is learned.
        classes, size, draw, objective, device, processes: see Batches; of `draw` only the seed is of use.
    """

    def __init__(
        self,
        flows: Flows,
        classes: int,
        size: int,
        draw: Draw,
        objective: Objective,
        device: torch.device,
        processes: Processes,
    ) -> None:
        super().__init__(flows.ends, flows.labels, classes, size, draw, objective, device, processes)
        self._flows = flows
        beyond = len(flows.sigmas) - 1
        self._shares = torch.tensor([1.0] if not beyond else [BEGINNING, *[(1 - BEGINNING) / beyond] * beyond])

    def batch(self, step: int) -> Batch:
        """See Batches."""
        chosen, generator = self.chosen(step), self._generator(step, stream=0)
        levels = torch.multinomial(self._shares, len(chosen), replacement=True, generator=generator)
        chosen, levels = chosen[self._part], levels[self._part]
        sigma = torch.tensor(self._flows.sigmas)[levels]
        label = None if self._labels is None else self._sent(self._labels[chosen])
        return Batch(
            x=self._sent(self._images[chosen]).float() / 255,
            sigma=self._sent(sigma),
            factors=self._sent(self._objective.factors(sigma.tolist())),
            normals=self._sent(self._flows.noise(chosen, levels))[None],
            label=label,
        )
