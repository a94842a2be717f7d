"""RePaint, with feedback: for images of which something is known."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from models.samplers.families.descent import Descent
from models.samplers.sampler import Model, Steps, check_rows, otherwise
from models.samplers.table import Row, Table
from models.schedules import to_zero

RESAMPLES, FEEDBACK = 5, 2.0
FINEST = 0.1  # in units of pixels in [0, 1]: how far an image may be from what is known and still look right


class Repaint(Descent):
    """Ancestral sampling that repeats each level, so that what is made agrees with what is known (Lugmayr 2022)."""

    title: ClassVar = "RePaint"
    needs_known: ClassVar = True
    counts: ClassVar[tuple[str, ...]] = (*Descent.counts, "resamples")
    usual_levels: ClassVar = 18

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
        le=10,
        allow_inf_nan=False,
        strict=True,
        description="How far past what is known it is aimed: by at most so many times what the denoised image lacks of "
        "it; 0 is RePaint as published. Much above 2 images may break.",
    )

    @staticmethod
    def table(sigmas: Sequence[float], resamples: int = RESAMPLES, feedback: float = FEEDBACK) -> Table:
        """RePaint (Lugmayr 2022, Algorithm 1 with jumps of one step) in its variance-exploding form, and feedback.

        A row is ancestral sampling's, and noise of variance sigma_i^2 - sigma_{i+1}^2 leads back up to sigma_i until
        the last of its repetitions. What is known has the noise of the level too, and at a large one says too little
        of what is settled there. Where y is known and the denoised image has e in its place, aiming at
        y + feedback (y - e) says more: what is off by FINEST is held to be as unlikely at sigma as it is without noise
        if feedback is about sigma / FINEST. (To pull on what is known as well is the idea of LanPaint, Zheng 2025;
        there it is a term of Langevin dynamics.) Cost: (n - 1) resamples + 1 evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
            resamples: how often each level but the last is done.
            feedback: at most; it is sigma / FINEST below that.
        """
        rows: list[Row] = []
        for sigma, following in to_zero(sigmas):
            difference = sigma**2 - following**2
            down = difference * following**2 / sigma**2  # variance of the noise
            again = (sigma, difference, 0.0, math.sqrt(down + difference), sigma, min(feedback, sigma / FINEST))
            rows += [again] * (resamples - 1 if following else 0)
            rows.append((sigma, difference, 0.0, math.sqrt(down), following, min(feedback, following / FINEST)))
        return Table.of(rows, sigmas[0])

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        resamples, feedback = otherwise(self.resamples, RESAMPLES), otherwise(self.feedback, FEEDBACK)
        told, sigmas = self.descending(model)
        check_rows("resamples", (len(sigmas) - 1) * resamples + 1)
        complete = told.model_copy(update={"resamples": resamples, "feedback": feedback})
        return complete, self.table(sigmas, resamples, feedback)

    def within(self, evaluations: int, model: Model) -> Self:  # noqa: ARG002
        """The usual levels as often as can be, and as many more levels as that leaves room for."""
        resamples = max(1, (evaluations - 1) // (self.usual_levels - 1))
        return self.model_copy(update={"levels": (evaluations - 1) // resamples + 1, "resamples": resamples})
