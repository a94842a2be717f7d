"""Processes: what a network sees of a noise level, for each way in which noise was added. Torch-free.

Networks of processes that shrink the picture while they add noise see x_t = a x_0 + b n with n standard normal. Divided
by a that is u = x_0 + s n with s = b / a, so each of their times is a noise level; `a` and the time as functions of s
are what a process is. s is in the units of the network's own pixels.
"""

import math
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Fixed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Seen(NamedTuple):
    """The factor `a` that the noised picture u is multiplied by, and what the network is told of the noise level."""

    a: float
    label: float


class VarianceExploding(Fixed):
    """The network sees u as it is (Song & Ermon 2019), and is told s / per or its logarithm, times `times`."""

    name: Literal["ve"] = "ve"
    label: Literal["log_sigma", "sigma", "none"] = "log_sigma"
    per: Positive = Field(1.0, description="What s is divided by first: 2 gives levels of [0, 1] to pixels in [-1, 1].")
    times: Positive = 1.0

    def seen(self, s: float) -> Seen:
        if self.label == "none":
            return Seen(1.0, 0.0)
        level = s / self.per
        return Seen(1.0, self.times * (math.log(level) if self.label == "log_sigma" else level))

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest s that there is."""
        return 0.0, math.inf


class UnitVariance(Fixed):
    """a^2 + b^2 = 1 at whatever s = b / a, without a schedule; the network is told s."""

    name: Literal["unit-variance"] = "unit-variance"

    def seen(self, s: float) -> Seen:
        return Seen(1 / math.hypot(1, s), s)

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest s that there is."""
        return 0.0, math.inf


class _Linear(Fixed):
    """beta(t) = beta_min + t (beta_max - beta_min) for t in [0, 1], and the network is told `times` t."""

    beta_min: Positive = 0.1
    beta_max: Positive = 20.0
    times: Positive = 999.0

    @model_validator(mode="after")
    def _rising(self) -> "_Linear":
        if self.beta_min >= self.beta_max:
            raise ValueError(f"beta_min {self.beta_min:g} must be below beta_max {self.beta_max:g}")
        return self

    def _integral(self, t: float) -> float:
        """The integral of beta from 0 to t."""
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def _time(self, integral: float) -> float:
        """The t at which the integral of beta from 0 to t has a value."""
        rise = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + math.sqrt(self.beta_min**2 + 2 * rise * integral))

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest s that there is."""
        return 0.0, self.level(1.0)

    def level(self, t: float) -> float:
        """s at a time t."""
        raise NotImplementedError


class VariancePreserving(_Linear):
    """a^2 + b^2 = 1 with a^2 = exp(-integral of beta), t continuous (Song 2021, eq. 11 and appendix C)."""

    name: Literal["vp"] = "vp"

    def seen(self, s: float) -> Seen:
        return Seen(1 / math.hypot(1, s), self.times * self._time(math.log1p(s**2)))

    def level(self, t: float) -> float:
        return math.sqrt(math.expm1(self._integral(t)))


class SubVariancePreserving(_Linear):
    """b = 1 - a^2 with a^2 = exp(-integral of beta) (Song 2021, eq. 13): s = 1/a - a, so a = sqrt(s^2/4 + 1) - s/2."""

    name: Literal["subvp"] = "subvp"

    def seen(self, s: float) -> Seen:
        half = math.asinh(s / 2)  # -log a
        return Seen(math.exp(-half), self.times * self._time(2 * half))

    def level(self, t: float) -> float:
        return 2 * math.sinh(self._integral(t) / 2)


class Betas(Fixed):
    """A schedule of betas, as the code that trained with it computes them.

    linear: even from start to end (Ho 2020, section 4). scaled_linear: their square roots are. cosine: 1 - beta[t] is
    the ratio of cos^2 of two times, no beta being above 0.999 (Nichol & Dhariwal 2021, eq. 17).
    """

    schedule: Literal["linear", "scaled_linear", "cosine"]
    steps: int = Field(ge=2, le=10_000)
    start: Positive = Field(1e-4, description="The first beta; the cosine schedule does not use it.")
    end: Positive = Field(0.02, description="The last.")
    single: bool = Field(False, description="Whether they were rounded to single precision, which the least s shows.")

    def products(self) -> NDArray[np.float64]:
        """The product of 1 - beta up to each time, [steps]."""
        match self.schedule:
            case "linear":
                betas = np.linspace(self.start, self.end, self.steps)
            case "scaled_linear":
                betas = np.linspace(math.sqrt(self.start), math.sqrt(self.end), self.steps) ** 2
            case "cosine":
                a2 = np.cos((np.arange(self.steps + 1) / self.steps + 0.008) / 1.008 * math.pi / 2) ** 2
                betas = np.minimum(1 - a2[1:] / a2[:-1], 0.999)
        if not self.single:
            return np.cumprod(1 - betas).astype(np.float64)
        alphas = np.float32(1) - betas.astype(np.float32)
        return np.cumprod(alphas.astype(np.float64)).astype(np.float32).astype(np.float64)


class DiscreteVariancePreserving(Fixed):
    """a^2 = alphas_cumprod[t], b^2 = 1 - a^2 at whole t (Ho 2020, eq. 4), and the network is told `times` t.

    Between them t is linear in log s.
    """

    name: Literal["discrete-vp"] = "discrete-vp"
    alphas_cumprod: tuple[float, ...] | None = Field(
        None,
        min_length=2,
        max_length=10_000,
        description="The product of 1 - beta up to each time, from the first; null where betas says it.",
    )
    betas: Betas | None = Field(None, description="The schedule that it comes from; null where alphas_cumprod says it.")
    times: Positive = 1.0

    @model_validator(mode="after")
    def _falling(self) -> "DiscreteVariancePreserving":
        if (self.alphas_cumprod is None) == (self.betas is None):
            raise ValueError("give alphas_cumprod or betas: one of the two, and not both")
        products = self._products()
        if not (products[0] < 1 and products[-1] > 0 and (products[1:] < products[:-1]).all()):
            raise ValueError("alphas_cumprod must descend, from below 1 to above 0")
        return self

    def _products(self) -> NDArray[np.float64]:
        return np.array(self.alphas_cumprod) if self.betas is None else self.betas.products()

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """s of each time, ascending. No array: what is kept takes part in comparisons of cards."""
        a2 = self._products()
        return tuple(np.sqrt((1 - a2) / a2).tolist())

    @cached_property
    def _logs(self) -> tuple[float, ...]:
        return tuple(np.log(self.levels).tolist())

    def seen(self, s: float) -> Seen:
        time = float(np.interp(math.log(s), self._logs, np.arange(len(self._logs))))
        return Seen(1 / math.hypot(1, s), self.times * time)

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest s that there is."""
        return self.levels[0], self.levels[-1]


Process = Annotated[
    VarianceExploding | UnitVariance | VariancePreserving | SubVariancePreserving | DiscreteVariancePreserving,
    Field(discriminator="name"),
]
