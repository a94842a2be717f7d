"""What samplers have in common that go from a noise level as large as the data's diameter down to 0."""

from abc import abstractmethod
from typing import ClassVar, Self

from pydantic import Field

from models import schedules
from models.samplers.families.descending import Descending
from models.samplers.sampler import Model, SamplerRefused, Steps, check_rows, otherwise
from models.samplers.table import Table


class Descent(Descending):
    """From the first noise level down to 0, over levels that are even in sigma^(1/rho)."""

    needs_all_levels: ClassVar = True
    formula: ClassVar[tuple[str, ...]] = (*Descending.formula, "rho")
    usual_levels: ClassVar[int]
    rows_per_level: ClassVar[int] = 1  # at most

    levels: Steps | None = Field(None, description="Number of noise levels; each costs one evaluation.")
    rho: float | None = Field(
        None,
        ge=1,
        le=100,
        allow_inf_nan=False,
        strict=True,
        description="Spacing of the levels (Karras 2022, eq. 5): 1 is even, and the larger the nearer to geometric.",
    )

    @staticmethod
    @abstractmethod
    def table(sigmas: list[float]) -> Table:
        """The rows of the sampler.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
        """

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        told, sigmas = self.descending(model)
        return told, self.table(sigmas)

    def descending(self, model: Model) -> tuple[Self, list[float]]:
        """These settings with what chooses the levels, and the levels.

        Raises:
            SamplerRefused: the model cannot follow them.
        """
        if self.sigmas is not None:
            return self, self.listed(self.sigmas, model)
        sigma_max, sigma_min = self.span(model)
        levels, rho = otherwise(self.levels, self.usual_levels), otherwise(self.rho, 7.0)
        if levels < 2:
            raise SamplerRefused("levels", "a single level leads nowhere", "at least 2")
        check_rows("levels", self.rows_per_level * levels)
        told = {"levels": levels, "rho": rho, "sigma_max": sigma_max, "sigma_min": sigma_min}
        return self.model_copy(update=told), schedules.karras(sigma_max, sigma_min, levels, rho)

    def within(self, evaluations: int, model: Model) -> Self:  # noqa: ARG002
        """A level for each evaluation."""
        return self.model_copy(update={"levels": evaluations})
