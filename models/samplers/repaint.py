"""RePaint, with feedback: for images of which something is known."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from models.samplers.families.descent import Descent
from models.samplers.sampler import Model, Steps, check_rows, otherwise
from models.samplers.table import Row, Table
from models.schedules import to_zero

RESAMPLES, FEEDBACK, PERSISTENCE = 3, 1.0, 0.95


class Repaint(Descent):
    """Ancestral sampling that repeats each level, so that what is made agrees with what is known (Lugmayr 2022)."""

    title: ClassVar = "RePaint"
    needs_known: ClassVar = True
    counts: ClassVar[tuple[str, ...]] = (*Descent.counts, "resamples")
    usual_levels: ClassVar = 30

    name: Literal["repaint"]
    levels: Steps | None = Field(
        None, description="Number of noise levels n; it costs (n - 1) resamples + 1 evaluations."
    )
    resamples: Steps | None = Field(
        None, description="How often each level but the last is done; 1 is ancestral sampling with replacement."
    )
    feedback: float | None = Field(
        None,
        ge=0,
        le=2,
        allow_inf_nan=False,
        strict=True,
        description="How far past what is known it is aimed at each step, by so many times what the denoised image "
        "lacks of it; above 1 + persistence images may break, and 0 with a persistence of 0 is RePaint as published.",
    )
    persistence: float | None = Field(
        None,
        ge=0,
        le=0.99,
        allow_inf_nan=False,
        strict=True,
        description="Share of its noise, and of the feedback so far, that what is known keeps from a step to the next.",
    )

    @staticmethod
    def table(
        sigmas: Sequence[float],
        resamples: int = RESAMPLES,
        feedback: float = FEEDBACK,
        persistence: float = PERSISTENCE,
    ) -> Table:
        """RePaint (Lugmayr 2022, Algorithm 1 with jumps of one step) in its variance-exploding form, and feedback.

        A row is ancestral sampling's, and noise of variance sigma_i^2 - sigma_{i+1}^2 leads back up to sigma_i until
        the last of its repetitions. What is known has the noise of the level too, and at a large one says too little
        of what is settled there. So it is led to where the denoised image has it: where y is known, e is in its place
        in the denoised image and k in x,

            k - y  <-  persistence (k - y) + feedback (y - e) + noise

        which is an Ornstein-Uhlenbeck process of the level's variance, about y, but for the feedback; that adds up to
        feedback / (1 - persistence) times what is lacking for as long as it is. As e follows k at most one to one, more
        feedback than 1 + persistence would overshoot further at each step. (To pull on what is known as well is the
        idea of LanPaint, Zheng 2025; there it is a term of Langevin dynamics.) Cost: (n - 1) resamples + 1 evaluations
        for n levels.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
            resamples: how often each level but the last is done.
            feedback: should be at most 1 + persistence.
            persistence: from 0 to below 1.
        """
        rows: list[Row] = []
        drawn = math.sqrt(1 - persistence**2)
        for sigma, following in to_zero(sigmas):
            difference = sigma**2 - following**2
            down = difference * following**2 / sigma**2  # variance of the noise
            again = (sigma, difference, 0.0, math.sqrt(down + difference), drawn * sigma, feedback, persistence)
            rows += [again] * (resamples - 1 if following else 0)
            held = (feedback, persistence * following / sigma) if following else (0.0, 0.0)
            rows.append((sigma, difference, 0.0, math.sqrt(down), drawn * following, *held))
        return Table.of(rows, sigmas[0])

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        resamples, persistence = otherwise(self.resamples, RESAMPLES), otherwise(self.persistence, PERSISTENCE)
        feedback = otherwise(self.feedback, FEEDBACK)
        told, sigmas = self.descending(model)
        check_rows("resamples", (len(sigmas) - 1) * resamples + 1)
        complete = told.model_copy(update={"resamples": resamples, "feedback": feedback, "persistence": persistence})
        return complete, self.table(sigmas, resamples, feedback, persistence)

    def within(self, evaluations: int, model: Model) -> Self:
        """The model's levels, or the usual ones, as often as can be, and as many more as that leaves room for."""
        own = model.inpainting
        levels = otherwise(own.levels if isinstance(own, Repaint) else None, self.usual_levels)
        resamples = max(1, (evaluations - 1) // max(1, levels - 1))
        return self.model_copy(update={"levels": (evaluations - 1) // resamples + 1, "resamples": resamples})
