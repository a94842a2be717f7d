"""What samplers have in common that anneal over a geometric sequence of noise levels, or over those of the training."""

from typing import Any

from models import schedules
from models.samplers.families.descending import Descending
from models.samplers.sampler import Model, SamplerRefused, check_rows, otherwise


class Annealing(Descending):
    """Noise levels from sigma_max to sigma_min: those that the model was trained at if it knows no others."""

    def sequence(self, model: Model, rows_per_level: int = 1) -> list[float]:
        """The noise levels, descending; at least two.

        Raises:
            SamplerRefused: the model cannot follow them, or at so many rows each, and one more, they take too many.
        """
        if self.sigmas is not None:
            check_rows("sigmas", len(self.sigmas) * rows_per_level + 1)
            return self.listed(self.sigmas, model)
        sigma_max, sigma_min = self.span(model)
        if model.sigmas is None:
            levels = otherwise(self.levels, schedules.geometric_levels(sigma_max, sigma_min, model.image.size))
        else:
            levels = sum(sigma_min <= sigma <= sigma_max for sigma in model.sigmas)
            if self.levels not in (None, levels):
                reason = (
                    f"{model.name} was trained at {levels} levels from {sigma_max:g} to {sigma_min:g} and knows no "
                    "others"
                )
                raise SamplerRefused("levels", reason, f"{levels}, or nothing")
        if levels < 2:
            raise SamplerRefused(
                "levels", "annealing needs a sequence of levels", "at least 2; for a single one, `langevin`"
            )
        check_rows("levels", levels * rows_per_level + 1)
        if model.sigmas is None:
            return schedules.geometric(sigma_max, sigma_min, levels)
        return [sigma for sigma in model.sigmas if sigma_min <= sigma <= sigma_max]

    def told(self, sigmas: list[float]) -> dict[str, Any]:
        """The fields that the sequence completes."""
        if self.sigmas is not None:
            return {}
        return {"levels": len(sigmas), "sigma_max": sigmas[0], "sigma_min": sigmas[-1]}
