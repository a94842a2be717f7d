"""Annealed Langevin dynamics."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal, Self

from pydantic import Field

from models import schedules
from models.samplers.families.annealing import Annealing
from models.samplers.sampler import Model, SamplerRefused, Steps, StepSize, check_step_size, otherwise
from models.samplers.table import Row, Table, denoising

FEWEST_STEPS = 3  # at a level, below which levels are given up for them where evaluations are few


class AnnealedLangevin(Annealing):
    """Annealed Langevin dynamics (Song & Ermon 2019, Algorithm 1)."""

    title: ClassVar = "Annealed Langevin dynamics"
    counts: ClassVar[tuple[str, ...]] = (*Annealing.counts, "steps_per_level")

    name: Literal["annealed_langevin"] = "annealed_langevin"
    levels: Steps | None = Field(
        None,
        description="Number of noise levels, a geometric sequence. By default it is computed from the number of pixels "
        "(Song & Ermon 2020, technique 2).",
    )
    steps_per_level: Steps | None = Field(None, description="Langevin steps at each level (T in the paper).")
    step_size: StepSize | None = Field(
        None,
        description="The paper's epsilon: the step at level i is step_size * sigma_i^2 / sigma_min^2. By default it is "
        "computed from the schedule (Song & Ermon 2020, technique 4).",
    )
    denoise: bool | None = Field(
        None, strict=True, description="Whether a last evaluation removes the noise of sigma_min."
    )

    @staticmethod
    def table(
        sigmas: Sequence[float], steps_per_level: int, step_size: float, denoise: bool, initial_std: float | None
    ) -> Table:
        """Algorithm 1 of Song & Ermon 2019; the last denoise: Song & Ermon 2020, section 3.3.

        At level i, `steps_per_level` times: x += alpha_i/2 s(x, sigma_i) + sqrt(alpha_i) z with
        alpha_i = step_size * sigma_i^2 / sigma_L^2.

        Args:
            sigmas: noise levels, descending, each above 0.
            steps_per_level: T in the paper.
            step_size: epsilon in the paper; the authors' code means half of it by the same name.
            denoise: whether a last row x += sigma_L^2 s(x, sigma_L) is added.
            initial_std: see Table.
        """
        rows: list[Row] = []
        for sigma in sigmas:
            alpha = step_size * (sigma / sigmas[-1]) ** 2
            rows += [(sigma, alpha / 2, 0.0, math.sqrt(alpha), sigma)] * steps_per_level
        return Table.of(rows + [denoising(sigmas[-1])] * denoise, initial_std)

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        steps, denoise = otherwise(self.steps_per_level, 5), otherwise(self.denoise, True)
        sigmas = self.sequence(model, rows_per_level=steps)
        step_size = _technique_4(sigmas, self.sigmas, steps) if self.step_size is None else self.step_size
        check_step_size(step_size, sigmas[-1])
        told = {"steps_per_level": steps, "step_size": step_size, "denoise": denoise, **self.told(sigmas)}
        # The paper starts uniform; of levels up to the data's diameter the first one alone is the better start.
        initial_std = sigmas[0] if model.sigmas is None else None
        return self.model_copy(update=told), self.table(sigmas, steps, step_size, denoise, initial_std)

    def within(self, evaluations: int, model: Model) -> Self:
        """As many steps a level as the levels of technique 2 (Song & Ermon 2020) leave, but FEWEST_STEPS at least.

        Fewer steps leave the noise of the level before (technique 4 finds no step size that removes it), so a small
        budget is spent on fewer levels. A model that knows no levels but those it was trained at leaves the choice of
        the steps at each alone.
        """
        filled = self.filled(model)
        known = filled.sequence(model)
        for_langevin = evaluations - otherwise(filled.denoise, True)
        if model.sigmas is not None:
            if for_langevin < len(known):
                raise SamplerRefused(
                    "levels", f"{model.name} has {len(known)} levels, each of which takes one", "more of them"
                )
            return self.model_copy(update={"steps_per_level": for_langevin // len(known)})
        levels = schedules.geometric_levels(known[0], known[-1], model.image.size)
        steps = max(FEWEST_STEPS, for_langevin // levels)
        if for_langevin < 2 * steps:
            raise SamplerRefused(
                "levels",
                f"two levels of {steps} steps and the denoising take more than {evaluations}",
                f"at least {2 * steps + evaluations - for_langevin}",
            )
        return self.model_copy(update={"levels": for_langevin // steps, "steps_per_level": steps})

    def carries(self, field: str) -> bool:
        """A step size fits its own schedule alone."""
        schedule = (*self.formula, "sigmas", "steps_per_level")
        return super().carries(field) and (
            field != "step_size" or all(getattr(self, name) is None for name in schedule)
        )


def _technique_4(sigmas: list[float], listed: Sequence[float] | None, steps: int) -> float:
    """The step size of a sequence; of one that is listed, that of its widest step, since ratios may differ there."""
    if listed is None:
        return schedules.langevin_step_size(sigmas, steps)
    widest = max(pairwise(sigmas), key=lambda pair: pair[0] / pair[1])
    return schedules.langevin_step_size([*widest, sigmas[-1]], steps)
