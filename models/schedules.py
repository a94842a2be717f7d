"""Noise schedules and step sizes, for training and for samplers. Numpy only."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL = NormalDist()
ROUNDING = 1e-9  # relative, of a schedule's levels: the first from sigma_max 10 may be 10.000000000000002


def geometric(sigma_max: float, sigma_min: float, levels: int) -> list[float]:
    """Noise levels in geometric sequence, descending, both ends included (Song & Ermon 2019, section 4.1)."""
    return [float(s) for s in np.geomspace(sigma_max, sigma_min, levels)] if levels > 1 else [sigma_min]


def karras(sigma_max: float, sigma_min: float, levels: int, rho: float) -> list[float]:
    """Noise levels evenly spaced in sigma^(1/rho), descending, both ends included (Karras 2022, eq. 5)."""
    if levels == 1:
        return [sigma_max]
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [float(s) for s in np.linspace(*ends, levels) ** rho]


def within(sigmas: NDArray[np.float64], lowest: float, highest: float) -> NDArray[np.bool_]:
    """Which noise levels, of any shape, are in a range of them, both ends included but for rounding."""
    return (lowest * (1 - ROUNDING) <= sigmas) & (sigmas <= highest * (1 + ROUNDING))


def to_zero(sigmas: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Each level and the one after it; after the last comes 0."""
    return pairwise([*sigmas, 0.0])


def geometric_ratio(dimension: int) -> float:
    """The ratio gamma > 1 of two neighbouring noise levels (Song & Ermon 2020, technique 2).

    Images noised to sigma lie at a distance of about sqrt(D) sigma from their source. gamma solves eq. 2,

        Phi(sqrt(2D) (gamma - 1) + 3 gamma) - Phi(sqrt(2D) (gamma - 1) - 3 gamma) = 1/2,

    so that half of what one level leaves is known at the next.

    Args:
        dimension: D, the numbers in an image.
    """

    def overlap(gamma: float) -> float:
        centre = math.sqrt(2 * dimension) * (gamma - 1)
        return NORMAL.cdf(centre + 3 * gamma) - NORMAL.cdf(centre - 3 * gamma)

    low, high = 1.0, 2.0
    while overlap(high) > 0.5:
        high *= 2
        if high > 1e6:  # up to 4 numbers, any two levels overlap by more than half
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle) > 0.5 else (low, middle)
    return high


def geometric_levels(sigma_max: float, sigma_min: float, dimension: int) -> int:
    """How many levels a geometric sequence needs so that neighbours are at most `geometric_ratio` apart; 2 or more."""
    return max(2, 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(geometric_ratio(dimension))))


def langevin_step_size(sigmas: list[float], steps_per_level: int) -> float:
    """The step size of annealed Langevin dynamics (Song & Ermon 2020, technique 4), in the convention of our tables.

    After T steps at a level, entered with the variance of the level before, the samples' variance is sigma^2 times

        (1 - a)^(2T) (gamma^2 - b) + b,    b = 2 / (2 - a)

    (eq. 4) with a = epsilon / sigma_L^2 in the paper's epsilon and gamma the ratio of two levels; the best a brings it
    closest to 1. Our step size is 2 epsilon, since our drift is step/2.
    """
    gamma = sigmas[0] / sigmas[1] if len(sigmas) > 1 else 1.0
    a = np.geomspace(1e-6, 1.0, 1001)[:-1]
    for _ in range(3):  # the curve has one minimum: look closer around it
        best = int(np.argmin(_variance_ratio(a, gamma, steps_per_level)))
        a = np.linspace(a[max(best - 1, 0)], a[min(best + 1, len(a) - 1)], 1001)
    best = int(np.argmin(_variance_ratio(a, gamma, steps_per_level)))
    return 2 * float(a[best]) * sigmas[-1] ** 2


def _variance_ratio(a: NDArray[np.float64], gamma: float, steps: int) -> NDArray[np.float64]:
    b = 2 / (2 - a)
    ratio: NDArray[np.float64] = (1 - a) ** (2 * steps) * (gamma**2 - b) + b
    return ratio
