"""The second-order method of Adams and Bashforth."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from models.samplers.families.descent import Descent
from models.samplers.table import Row, Table
from models.schedules import to_zero


class AdamsBashforth(Descent):
    """The probability-flow ODE by the second-order method of Adams and Bashforth."""

    title: ClassVar = "Adams-Bashforth method"
    usual_levels: ClassVar = 35

    name: Literal["adams_bashforth"]

    @staticmethod
    def table(sigmas: Sequence[float]) -> Table:
        """The probability-flow ODE by the second-order method of Adams and Bashforth: one evaluation a step.

        The slope f = -sigma s is carried on as a straight line through the last two (Zhang & Chen 2023, DEIS):
        with h_i = sigma_{i+1} - sigma_i and w = h_i / (2 h_{i-1}), x += h_i ((1 + w) f_i - w f_{i-1}). The first step
        and the step to 0 are Euler's. Cost: n evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
        """
        rows: list[Row] = []
        before = None  # sigma, step and drift of the row before
        for sigma, following in to_zero(sigmas):
            h = following - sigma
            w = 0.0 if before is None or following == 0 else h / (2 * before[1])
            carry = 0.0 if before is None else h * w * before[0] / before[2]
            drift = -h * (1 + w) * sigma
            rows.append((sigma, drift, carry, 0.0, following))
            before = sigma, h, drift
        return Table.of(rows, sigmas[0])
