"""Ancestral sampling."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from models.samplers.families.descent import Descent
from models.samplers.sampler import Model, Share, otherwise
from models.samplers.table import Row, Table
from models.schedules import to_zero


class Ancestral(Descent):
    """Ancestral sampling of the variance-exploding chain (Song 2021, Appendix F, eq. 47)."""

    title: ClassVar = "Ancestral sampling"
    usual_levels: ClassVar = 100

    name: Literal["ancestral"]
    eta: Share | None = Field(
        None,
        description="Share of the noise (Song 2021, DDIM, eq. 16): 1, the default, is ancestral sampling; 0 has none "
        "and is Euler's method. Less noise makes images vary more, and more of them unclear.",
    )

    @staticmethod
    def table(sigmas: Sequence[float], eta: float = 1.0) -> Table:
        """Ancestral sampling of the variance-exploding chain (Song 2021, Appendix F, eq. 47), and what lies between it
        and Euler's method (Song, Meng & Ermon 2021, DDIM, eq. 12 and 16, without the scaling of images).

        x += (sigma_i^2 - sigma_i d) s(x, sigma_i) + eta sqrt((sigma_i^2 - sigma_{i+1}^2) sigma_{i+1}^2 / sigma_i^2) z,
        where d^2 is sigma_{i+1}^2 less the variance of that noise: what is left of it. With eta = 1 the score's factor
        is sigma_i^2 - sigma_{i+1}^2. The step to 0 has no noise. Cost: n evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
            eta: between 0 and 1.
        """
        rows: list[Row] = []
        for sigma, following in to_zero(sigmas):
            noise = eta * math.sqrt(sigma**2 - following**2) * following / sigma
            left = following * math.sqrt(1 - eta**2 + (eta * following / sigma) ** 2)
            rows.append((sigma, sigma**2 - sigma * left, 0.0, noise, following))
        return Table.of(rows, sigmas[0])

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        told, sigmas = self.descending(model)
        eta = otherwise(self.eta, 1.0)
        return told.model_copy(update={"eta": eta}), self.table(sigmas, eta)
