"""Following the scores of one noise level."""

from typing import ClassVar, Literal, Self

from pydantic import Field

from models.samplers.families.single_level import SingleLevel
from models.samplers.sampler import Model, StepSize, check_rows
from models.samplers.table import Table


class FollowScores(SingleLevel):
    """Gradient ascent along the scores of a single noise level, without noise."""

    title: ClassVar = "Gradient ascent"

    name: Literal["follow_scores"]
    step_size: StepSize | None = Field(None, description="alpha in x += alpha/2 score.")

    @staticmethod
    def table(sigma: float, steps: int, step_size: float) -> Table:
        """Gradient ascent on log p_sigma from uniform noise: x += alpha/2 s(x, sigma), alpha = `step_size`."""
        return Table.of([(sigma, step_size / 2, 0.0, 0.0, sigma)] * steps, None)

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        sigma, steps, step_size = self.level(model)
        check_rows("steps", steps)
        told = {"sigma": sigma, "steps": steps, "step_size": step_size}
        return self.model_copy(update=told), self.table(sigma, steps, step_size)

    def within(self, evaluations: int, model: Model) -> Self:  # noqa: ARG002
        """A step for each evaluation."""
        return self.model_copy(update={"steps": evaluations})
