"""Euler's method, which is DDIM."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from models.samplers.families.descent import Descent
from models.samplers.table import Table
from models.schedules import to_zero


class Euler(Descent):
    """The probability-flow ODE by Euler's method (DDIM)."""

    title: ClassVar = "Euler's method (DDIM)"
    usual_levels: ClassVar = 35

    name: Literal["euler"]

    @staticmethod
    def table(sigmas: Sequence[float]) -> Table:
        """The probability-flow ODE dx = -sigma s(x, sigma) dsigma by Euler's method: DDIM (Karras 2022, eq. 3).

        x += sigma_i (sigma_i - sigma_{i+1}) s(x, sigma_i). Cost: n evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
        """
        rows = [(sigma, sigma * (sigma - following), 0.0, 0.0, following) for sigma, following in to_zero(sigmas)]
        return Table.of(rows, sigmas[0])
