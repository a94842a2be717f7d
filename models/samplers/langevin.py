"""Langevin dynamics at one noise level."""

import math
from typing import ClassVar, Literal, Self

from pydantic import Field

from models.samplers.families.single_level import SingleLevel
from models.samplers.sampler import Model, SamplerRefused, StepSize, check_rows, otherwise
from models.samplers.table import Table, denoising


class Langevin(SingleLevel):
    """Langevin dynamics at a single noise level."""

    title: ClassVar = "Langevin dynamics"

    name: Literal["langevin"]
    step_size: StepSize | None = Field(None, description="alpha in x += alpha/2 score + sqrt(alpha) z.")
    denoise: bool | None = Field(None, strict=True, description="Whether a last evaluation removes the noise of sigma.")

    @staticmethod
    def table(sigma: float, steps: int, step_size: float, denoise: bool) -> Table:
        """Langevin dynamics at one noise level from uniform noise (Song & Ermon 2019, eq. 4), alpha = `step_size`.

        x += alpha/2 s(x, sigma) + sqrt(alpha) z, and with `denoise` a last x += sigma^2 s(x, sigma).
        """
        rows = [(sigma, step_size / 2, 0.0, math.sqrt(step_size), sigma)] * steps
        return Table.of(rows + [denoising(sigma)] * denoise, None)

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        sigma, steps, step_size = self.level(model)
        denoise = otherwise(self.denoise, True)
        check_rows("steps", steps + denoise)
        told = {"sigma": sigma, "steps": steps, "step_size": step_size, "denoise": denoise}
        return self.model_copy(update=told), self.table(sigma, steps, step_size, denoise)

    def within(self, evaluations: int, model: Model) -> Self:
        """All evaluations but that of the last denoising are steps."""
        denoise = otherwise(self.filled(model).denoise, True)
        if evaluations <= denoise:
            raise SamplerRefused("steps", "the denoising takes the only evaluation", "at least 2")
        return self.model_copy(update={"steps": evaluations - denoise})
