"""Multistep consistency sampling."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from models import schedules
from models.samplers.families.descending import Descending
from models.samplers.sampler import Model, Steps, check_rows, otherwise
from models.samplers.table import Row, Table
from models.schedules import to_zero


class MultistepConsistency(Descending):
    """Multistep sampling of a consistency model (Song 2023, Algorithm 1)."""

    title: ClassVar = "Multistep consistency sampling"
    of_consistency: ClassVar = True
    needs_all_levels: ClassVar = True
    formula: ClassVar[tuple[str, ...]] = (*Descending.formula, "rho")

    name: Literal["multistep_consistency"]
    levels: Steps | None = Field(None, description="How often the model is asked, 2 by default; 1 is enough.")
    rho: float | None = Field(
        None,
        ge=1,
        le=100,
        allow_inf_nan=False,
        strict=True,
        description="Spacing of the levels (Karras 2022, eq. 5), of which sigma_min, where the model changes nothing, "
        "is left out.",
    )

    @staticmethod
    def table(sigmas: Sequence[float], least: float) -> Table:
        """Multistep sampling of a consistency model f (Song 2023, Algorithm 1).

        x = f(x, sigma_i), then noise up to the next level: x += sqrt(sigma_{i+1}^2 - least^2) z. What takes the place
        of the model's score is (f(x, sigma) - x) / sigma^2. Cost: n evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above `least`.
            least: the noise level at which f(x) is x.
        """
        rows: list[Row] = []
        for sigma, following in to_zero(sigmas):
            noise = math.sqrt(following**2 - least**2) if following else 0.0
            rows.append((sigma, sigma**2, 0.0, noise, following))
        return Table.of(rows, sigmas[0])

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        if self.sigmas is not None:
            return self, self.table(self.listed(self.sigmas, model), model.sigma_min)
        sigma_max, sigma_min = self.span(model)
        levels, rho = otherwise(self.levels, 2), otherwise(self.rho, 7.0)
        check_rows("levels", levels)
        told = {"levels": levels, "rho": rho, "sigma_max": sigma_max, "sigma_min": sigma_min}
        sigmas = schedules.karras(sigma_max, sigma_min, levels + 1, rho)[:-1]
        return self.model_copy(update=told), self.table(sigmas, model.sigma_min)

    def within(self, evaluations: int, model: Model) -> Self:  # noqa: ARG002
        """A level for each evaluation."""
        return self.model_copy(update={"levels": evaluations})
