"""Noise schedules and step sizes, apart from the samplers that use them. Numpy only."""

import numpy as np
from numpy.typing import NDArray


def geometric(sigma_max: float, sigma_min: float, levels: int) -> list[float]:
    """Noise levels in geometric sequence, descending, both ends included (Song & Ermon 2019, section 4.1)."""
    return [float(s) for s in np.geomspace(sigma_max, sigma_min, levels)] if levels > 1 else [sigma_min]


def karras(sigma_max: float, sigma_min: float, levels: int, rho: float) -> list[float]:
    """Noise levels evenly spaced in sigma^(1/rho), descending, both ends included (Karras 2022, eq. 5)."""
    if levels == 1:
        return [sigma_max]
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [float(s) for s in np.linspace(*ends, levels) ** rho]


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
