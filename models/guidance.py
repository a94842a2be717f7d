"""Classifier-free guidance: how far an image is led towards its class, at which noise levels, and what that costs.

With s(x) the score of images of all classes and s(x, label) that of one, a guided row of a table takes the score
s(x) + weight (s(x, label) - s(x)) (Ho & Salimans 2022, "Classifier-free diffusion guidance", whose w is weight - 1). It
evaluates the network twice, so it is two image-steps; a row that is not guided is one. Numpy only.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.samplers.table import Table
from models.schedules import within

MAX_WEIGHT = 100.0


@dataclass(frozen=True)
class Guidance:
    """What an image is told to make of its label.

    Args:
        weight: 1 is the score of the class itself, evaluated once; 0 that of all classes.
        lowest, highest: the noise levels that are guided, both included. Above some level guidance narrows the choice
            between the modes of the data, below another there is nothing left to choose (Kynkaanniemi 2024, "Applying
            guidance in a limited interval improves sample and distribution quality in diffusion models").
    """

    weight: float = 1.0
    lowest: float = 0.0
    highest: float = math.inf

    def guides(self, sigmas: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which rows of these noise levels, of any shape, are guided."""
        return (self.weight != 1) & within(sigmas, self.lowest, self.highest)

    def image_steps(self, table: Table, rows: int | None = None) -> int:
        """Network evaluations of one image, over all rows of a table or the first `rows` of them."""
        sigmas = table.column("sigma")[:rows]
        return len(sigmas) + int(np.count_nonzero(self.guides(sigmas)))


UNGUIDED = Guidance()
