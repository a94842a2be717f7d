"""Consistent annealed sampling."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal, Self

from pydantic import Field

from models.samplers.families.annealing import Annealing
from models.samplers.sampler import Model, SamplerRefused, Steps, otherwise
from models.samplers.table import Row, Table, denoising


class ConsistentAnnealed(Annealing):
    """Consistent annealed sampling (Jolicoeur-Martineau 2020): one evaluation a level."""

    title: ClassVar = "Consistent annealed sampling"

    name: Literal["consistent_annealed"]
    levels: Steps | None = Field(None, description="Number of noise levels, a geometric sequence of ratio gamma < 1.")
    eta: float | None = Field(
        None,
        gt=0,
        lt=2,
        strict=True,
        description="How far a step goes to the denoised image, from 1 - gamma (without noise) to below 1 + gamma; "
        "1 - gamma^3 by default.",
    )

    @staticmethod
    def table(sigmas: Sequence[float], eta: float) -> Table:
        """Consistent annealed sampling (Jolicoeur-Martineau 2020) and a last denoise.

        x += eta sigma_i^2 s(x, sigma_i) + sigma_{i+1} sqrt(1 - ((1 - eta) / gamma)^2) z with
        gamma = sigma_{i+1} / sigma_i, which leaves noise of exactly sigma_{i+1} where the score is exact.
        eta = 1 - gamma is Euler's step, without noise; eta = 1 - gamma^2 is ancestral sampling.
        Cost: n evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above 0.
            eta: between 1 - gamma and 1 + gamma at every level.
        """
        rows: list[Row] = []
        for sigma, following in pairwise(sigmas):
            kept = (1 - eta) * sigma / following
            rows.append((sigma, eta * sigma**2, 0.0, following * math.sqrt(max(0.0, 1 - kept**2)), following))
        return Table.of([*rows, denoising(sigmas[-1])], sigmas[0])

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        sigmas = self.sequence(model)
        gammas = [following / sigma for sigma, following in pairwise(sigmas)]
        eta = otherwise(self.eta, 1 - gammas[0] ** 3)
        low, high = 1 - min(gammas), 1 + min(gammas)
        if not low <= eta < high:
            raise SamplerRefused(
                "eta", f"{eta:g} cannot leave the noise of the next level", f"{low:g} to below {high:g}"
            )
        return self.model_copy(update={"eta": eta, **self.told(sigmas)}), self.table(sigmas, eta)

    def within(self, evaluations: int, model: Model) -> Self:
        """A level for each evaluation, over the range that the model anneals over by another sampler if it has one.

        A model that knows no levels but those it was trained at leaves no choice.
        """
        own = [settings for settings in (model.sampler, *model.samplers) if isinstance(settings, Annealing)]
        update: dict[str, float | None] = {}
        if own and all(settings.name != self.name for settings in own):
            update = {k: getattr(own[0], k) for k in ("sigma_max", "sigma_min") if getattr(self, k) is None}
        if model.sigmas is None:
            update["levels"] = evaluations
        return self.model_copy(update=update)
