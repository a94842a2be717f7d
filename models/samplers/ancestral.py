"""Ancestral sampling."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from models.samplers.families.descent import Descent
from models.samplers.table import Row, Table
from models.schedules import to_zero


class Ancestral(Descent):
    """Ancestral sampling of the variance-exploding chain (Song 2021, Appendix F, eq. 47)."""

    title: ClassVar = "Ancestral sampling"
    usual_levels: ClassVar = 100

    name: Literal["ancestral"]

    @staticmethod
    def table(sigmas: Sequence[float]) -> Table:
        """Ancestral sampling of the variance-exploding chain (Song 2021, Appendix F, eq. 47).

        x += (sigma_i^2 - sigma_{i+1}^2) s(x, sigma_i) + sqrt((sigma_i^2 - sigma_{i+1}^2) sigma_{i+1}^2 / sigma_i^2) z;
        the step to 0 has no noise. Cost: n evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
        """
        rows: list[Row] = []
        for sigma, following in to_zero(sigmas):
            difference = sigma**2 - following**2
            rows.append((sigma, difference, 0.0, math.sqrt(difference) * following / sigma, following))
        return Table.of(rows, sigmas[0])
