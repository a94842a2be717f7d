"""What samplers that stay at a single noise level have in common."""

import math
from typing import ClassVar

from pydantic import Field

from models.samplers.sampler import Model, Sampler, Sigma, Steps, StepSize, check_step_size, known_sigma, otherwise


class SingleLevel(Sampler):
    """So many steps at one noise level, from uniform noise."""

    counts: ClassVar[tuple[str, ...]] = ("steps",)

    sigma: Sigma | None = Field(None, description="The noise level.")
    steps: Steps | None = None
    step_size: StepSize | None = None

    def carries(self, field: str) -> bool:
        """A step size fits its own noise level alone."""
        return field != "step_size" or self.sigma is None

    def level(self, model: Model) -> tuple[float, int, float]:
        """sigma (by default the middle of the model's range), steps, and a step size that shrinks noise by a tenth.

        Raises:
            SamplerRefused: the model does not know the level, or the step is too large for it.
        """
        middle = (model.sigma_min * model.sigma_max) ** 0.5
        if model.sigmas is not None:
            middle = min(model.sigmas, key=lambda sigma: abs(math.log(sigma / middle)))
        sigma = known_sigma("sigma", otherwise(self.sigma, middle), model)
        step_size = otherwise(self.step_size, 0.2 * sigma**2)
        check_step_size(step_size, sigma)
        return sigma, otherwise(self.steps, 200), step_size
