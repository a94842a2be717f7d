"""Tasks of restoring: what is known of a real image, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.sampling.projections import Blocks, Projection, Unmasked

Mask = NDArray[np.bool_]  # [h, w], true where nothing is known


@dataclass(frozen=True)
class Task:
    """What is known of an image.

    Args:
        name: in tables.
        mask: of an image of this height and width, with these random numbers; None for a task without one.
        factor: by how many times a small picture is enlarged; None for a task with a mask.
    """

    name: str
    mask: Callable[[int, int, np.random.Generator], Mask] | None = None
    factor: int | None = None

    def fits(self, height: int, width: int) -> bool:
        """Whether images of this size can be given it."""
        return self.factor is None or (height % self.factor == 0 and width % self.factor == 0)

    def of(self, height: int, width: int, seed: int, number: int) -> Projection:
        """What is known of the image of a number; the same for each sampler."""
        if self.mask is None:
            return Blocks(self.factor or 1)
        mask = self.mask(height, width, np.random.default_rng([seed, number]))
        return Unmasked(torch.from_numpy(mask)[None])


def _box(top: float, left: float, bottom: float, right: float) -> Callable[[int, int, np.random.Generator], Mask]:
    """A rectangle, in shares of height and width."""

    def mask(height: int, width: int, _rng: np.random.Generator) -> Mask:
        found = np.zeros((height, width), bool)
        found[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
        return found

    return mask


def _scattered(share: float) -> Callable[[int, int, np.random.Generator], Mask]:
    def mask(height: int, width: int, rng: np.random.Generator) -> Mask:
        found: Mask = rng.random((height, width)) < share
        return found

    return mask


def _strokes(height: int, width: int, rng: np.random.Generator) -> Mask:
    """Five straight lines across, a fourteenth of the image thick."""
    down, right = np.mgrid[:height, :width].astype(float)
    found = np.zeros((height, width), bool)
    for _ in range(5):
        angle, (y, x) = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8, 2) * (height, width)
        found |= abs((down - y) * np.cos(angle) - (right - x) * np.sin(angle)) <= max(height, width) / 28
    return found


def _around(height: int, width: int, rng: np.random.Generator) -> Mask:
    """All but the middle half of each side."""
    found: Mask = ~_box(0.25, 0.25, 0.75, 0.75)(height, width, rng)
    return found


TASKS = (
    Task("right half", _box(0, 0.5, 1, 1)),
    Task("bottom half", _box(0.5, 0, 1, 1)),
    Task("centre square", _box(8 / 28, 8 / 28, 20 / 28, 20 / 28)),
    Task("thin strokes", _strokes),
    Task("70 % of pixels", _scattered(0.7)),
    Task("90 % of pixels", _scattered(0.9)),
    Task("around the centre", _around),
    Task("enlarged by 2", factor=2),
    Task("enlarged by 4", factor=4),
    Task("enlarged by 7", factor=7),
)


def tasks_of(names: Sequence[str], height: int, width: int) -> list[Task]:
    """The tasks of these names, or all, that images of this size can be given, in the order of TASKS.

    Raises:
        ValueError: a name is unknown, or images of this size cannot be given its task.
    """
    fitting = [task for task in TASKS if task.fits(height, width)]
    if unknown := [name for name in names if name not in {task.name for task in fitting}]:
        allowed = ", ".join(f"'{task.name}'" for task in fitting)
        raise ValueError(f"there is no task '{unknown[0]}' for images of {height} x {width}; allowed: {allowed}")
    return [task for task in fitting if not names or task.name in names]
