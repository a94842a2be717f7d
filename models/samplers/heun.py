"""Heun's method."""

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from models.samplers.families.descent import Descent
from models.samplers.sampler import Model, Steps
from models.samplers.table import Row, Table
from models.schedules import to_zero


class Heun(Descent):
    """The probability-flow ODE by Heun's second-order method (Karras 2022, Algorithm 1)."""

    title: ClassVar = "Heun's method"
    usual_levels: ClassVar = 18
    rows_per_level: ClassVar = 2

    name: Literal["heun"]
    levels: Steps | None = Field(None, description="Number of noise levels n; it costs 2n - 1 evaluations.")

    @staticmethod
    def table(sigmas: Sequence[float]) -> Table:
        """The probability-flow ODE dx = -sigma s(x, sigma) dsigma by Heun's method (Karras 2022, Algorithm 1).

        A step from sigma_i to sigma_{i+1}, h = sigma_i - sigma_{i+1}, is an Euler row and a row that turns it into the
        trapezoidal rule: x += h/2 sigma_{i+1} s(x, sigma_{i+1}) - 1/2 (the Euler row's update). The step to 0 is
        Euler's. Cost: 2n - 1 evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
        """
        rows: list[Row] = []
        for sigma, following in to_zero(sigmas):
            h = sigma - following
            rows.append((sigma, h * sigma, 0.0, 0.0, following))
            if following > 0:
                rows.append((following, h / 2 * following, -0.5, 0.0, following))
        return Table.of(rows, sigmas[0])

    def within(self, evaluations: int, model: Model) -> Self:  # noqa: ARG002
        """Two evaluations a level, but one at the last."""
        return self.model_copy(update={"levels": (evaluations + 1) // 2})
