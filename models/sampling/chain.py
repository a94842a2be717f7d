"""A chain: one image on its way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from models.guidance import UNGUIDED, Guidance
from models.samplers.table import Table
from models.sampling import noise
from models.sampling.projections import Projection


@dataclass(eq=False)
class Chain:
    """One image on its way through a table.

    Its noise is a function of (seed, index, row, pixel), so x, the cursor and, between two rows of which the second
    carries, `previous` are all there is to save of it.

    Args:
        table: the sampler.
        seed: 0 to samplers.sampler.MAX_SEED.
        index: number of the image in its request.
        known: an image of which the projection is known, float32 [c, h, w] in [0, 1]; None samples a whole image.
        projection: what is known of it; goes with `known`.
        cursor: the row that comes next.
        x: float32 [c, h, w]; None before the first row.
        previous: what the row before leaves to carry, float32 [c, h, w], see models.samplers.table; None where no row
            came before.
        label: of its class; None for one of all classes.
        guidance: towards the class; there is none without a label.
        keep: the cursors at which x is looked at; x at the end is none of them.
        frames: what it looked like at those that it has passed, uint8 [h, w, c].
    """

    table: Table
    seed: int
    index: int
    known: Tensor | None = None
    projection: Projection | None = None
    cursor: int = 0
    x: Tensor | None = None
    previous: Tensor | None = field(default=None, repr=False)
    label: int | None = None
    guidance: Guidance = UNGUIDED
    keep: tuple[int, ...] = ()
    frames: list[Tensor] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if (self.known is None) != (self.projection is None):
            raise ValueError("known and projection go together: a chain of a known image has both, others have neither")
        if self.label is None and self.guidance.weight != 1:
            raise ValueError("guidance leads towards a class: a guided chain has a label")

    @property
    def remaining(self) -> int:
        """Rows still to come."""
        return len(self.table) - self.cursor

    @property
    def image_steps_done(self) -> int:
        """Network evaluations so far."""
        return self.guidance.image_steps(self.table, self.cursor)


def initial(chains: Sequence[Chain], shape: tuple[int, int, int]) -> Tensor:
    """Where x starts, float32 [n, c, h, w], on the host: N(initial_mean, initial_std^2), or uniform in [0, 1]."""
    begun = []
    for _, run in groupby(chains, key=lambda chain: id(chain.table)):
        alike = list(run)
        keys = ([chain.seed for chain in alike], [chain.index for chain in alike], [0] * len(alike))
        mean, std = alike[0].table.initial_mean, alike[0].table.initial_std
        if std is None:
            begun.append(noise.uniform(*keys, noise.INITIAL, shape))
        else:
            begun.append(mean + std * noise.normal(*keys, noise.INITIAL, shape))
    return torch.cat(begun)


def quantize(x: Tensor) -> Tensor:
    """uint8 [..., h, w, c] of images float32 [..., c, h, w], clamped to [0, 1]."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1)
