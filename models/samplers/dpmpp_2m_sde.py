"""DPM-Solver++(2M) SDE: the reverse SDE, or the probability-flow ODE, by a second-order multistep method."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from models.samplers.families.descent import Descent
from models.samplers.sampler import Model, SamplerRefused, Share, Sigma, otherwise
from models.samplers.table import Row, Table
from models.schedules import to_zero, within


class Dpmpp2mSde(Descent):
    """The reverse SDE by the second-order multistep method DPM-Solver++(2M) SDE (Lu 2022)."""

    title: ClassVar = "DPM-Solver++(2M) SDE"
    usual_levels: ClassVar = 20

    name: Literal["dpmpp_2m_sde"]
    eta: Share | None = Field(
        None,
        description="Share of the reverse SDE's noise: 1 by default; 0 has none and is DPM-Solver++(2M).",
    )
    churn: float | None = Field(
        None,
        ge=0,
        le=10,
        allow_inf_nan=False,
        strict=True,
        description="Noise that is exchanged for new besides, in parts of the reverse SDE's: none by default. It makes "
        "images clearer and vary less, and asks for more levels.",
    )
    churn_max: Sigma | None = Field(None, description="The highest noise level with churn; all by default.")
    churn_min: Sigma | None = Field(None, description="The lowest noise level with churn; all by default.")

    @staticmethod
    def table(sigmas: Sequence[float], eta: Callable[[float], float] = lambda _sigma: 1.0) -> Table:
        """The reverse SDE with any share of its noise (Karras 2022, eq. 6, with beta = eta / sigma) by a multistep
        method of second order, DPM-Solver++(2M) (Lu 2022, Algorithm 2) for an SDE.

        The denoised image e = x + sigma^2 s(x, sigma) is carried on as a straight line in log sigma through the last
        two, half a step far. With h_i = log(sigma_i / sigma_{i+1}) and w = 1 - exp(-(1 + eta) h_i):
        x += w (e_i - x) + w h_i / (2 h_{i-1}) (e_i - e_{i-1}) + sigma_{i+1} sqrt(1 - exp(-2 eta h_i)) z.
        With eta = 1 and without its middle term this is ancestral sampling. The first step has no such term, and the
        step to 0 neither it nor noise. Cost: n evaluations for n levels.

        Args:
            sigmas: noise levels, descending, each above 0; the sampler ends at 0.
            eta: of a noise level, at least 0.
        """
        rows: list[Row] = []
        before = None  # the step before
        for sigma, following in to_zero(sigmas):
            h = math.log(sigma / following) if following else math.inf
            share = -math.expm1(-(1 + eta(sigma)) * h)
            back = 0.0 if before is None or not following else share * h / (2 * before)
            noise = following * math.sqrt(-math.expm1(-2 * eta(sigma) * h)) if following else 0.0
            rows.append((sigma, (share + back) * sigma**2, -back, noise, following, 0.0, 0.0, 1.0))
            before = h
        return Table.of(rows, sigmas[0])

    def complete(self, model: Model) -> tuple[Self, Table]:
        """See Sampler."""
        told, sigmas = self.descending(model)
        eta, churn = otherwise(self.eta, 1.0), otherwise(self.churn, 0.0)
        for field in ("churn_max", "churn_min"):
            if self.churn is None and getattr(self, field) is not None:
                raise SamplerRefused(field, "there is no churn that it could limit", "a churn besides")
        high, low = otherwise(self.churn_max, sigmas[0]), otherwise(self.churn_min, sigmas[-1])
        if low > high:
            above = f"{low:g} is above churn_max", f"at most churn_max, which is {high:g}"
            below = f"{high:g} is below churn_min", f"at least churn_min, which is {low:g}"
            others = [SamplerRefused(field, *below) for field in ("churn_max", "sigma_max")]
            raise SamplerRefused("churn_min", *above, [*others, SamplerRefused("sigma_min", *above)])
        update = {"eta": eta, "churn": churn, "churn_max": high, "churn_min": low}
        table = self.table(sigmas, lambda sigma: eta + churn if within(np.array(sigma), low, high) else eta)
        return told.model_copy(update=update), table
