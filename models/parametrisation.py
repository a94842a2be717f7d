"""Parametrisations: how what a network returns becomes the score of noised pixels. Torch-free; a model card names one.

A network was trained on pixels u in a range of its own, mostly [-1, 1], and here they are y in [0, 1]: u = lowest +
scale y with scale = highest - lowest, and noise of level sigma here is noise of level s = scale sigma there. The score
is the gradient of a log density, so in our units it is `scale` times theirs.

Networks of processes that shrink the picture while they add noise see x_t = a x_0 + b n with n standard normal. Divided
by a that is u = x_0 + s n with s = b / a, so each of their times is a noise level; `a` and the time as functions of s
are what a process is.
"""

import math
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
TOLERANCE = 1e-5  # of a noise level that was rounded on its way: people write six digits


class Factors(NamedTuple):
    """What surrounds a network F at one noise level: score = skip (x - mean) + out F(c_in (x - mean), c_noise)."""

    c_in: float
    c_noise: float
    skip: float
    out: float


class _Fixed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# Processes: what a network sees of a noise level s, in the units of its own pixels.


class Seen(NamedTuple):
    """The factor `a` that the noised picture u is multiplied by, and what the network is told of the noise level."""

    a: float
    label: float


class VarianceExploding(_Fixed):
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


class UnitVariance(_Fixed):
    """a^2 + b^2 = 1 at whatever s = b / a, without a schedule; the network is told s."""

    name: Literal["unit-variance"] = "unit-variance"

    def seen(self, s: float) -> Seen:
        return Seen(1 / math.hypot(1, s), s)

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest s that there is."""
        return 0.0, math.inf


class _Linear(_Fixed):
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


class Betas(_Fixed):
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


class DiscreteVariancePreserving(_Fixed):
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


# Parametrisations: each is the score in the network's own units, c_in, c_noise, skip and out as functions of s.


class _Parametrisation(_Fixed):
    """What all have in common: the change from the network's pixels to ours.

    Attributes:
        denoises: whether skip and out give the gradient of the log density, so that x + sigma^2 score is the expected
            clean picture; otherwise that is something else, which only a sampler made for it may use.
    """

    denoises: ClassVar[bool] = True
    pixels: tuple[float, float] = Field(
        (0.0, 1.0), description="What black and white, 0 and 1 here, are to the network."
    )

    @model_validator(mode="after")
    def _ascending(self) -> "_Parametrisation":
        if not (all(map(math.isfinite, self.pixels)) and self.pixels[0] < self.pixels[1]):
            raise ValueError(f"pixels {list(self.pixels)} must be two finite numbers, the lower first")
        return self

    @property
    def scale(self) -> float:
        """The network's units in one of ours."""
        return self.pixels[1] - self.pixels[0]

    @property
    def centre(self) -> float:
        """What is taken from a picture before all else, in the network's units."""
        return 0.0

    @property
    def mean(self) -> float:
        """The same in ours."""
        return (self.centre - self.pixels[0]) / self.scale + 0.0  # no negative zero

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest noise level that the network knows, in [0, 1] units."""
        low, high = self._known()
        return low / self.scale, high / self.scale

    def factors(self, sigma: float) -> Factors:
        """The factors of one noise level.

        Raises:
            ValueError: the network does not know this level; the message says which it knows.
        """
        low, high = self.range
        if not low * (1 - TOLERANCE) <= sigma <= high * (1 + TOLERANCE):
            raise ValueError(f"{sigma:g} is no noise level of this model; it knows those from {low:g} to {high:g}")
        c_in, c_noise, skip, out = self._factors(self.scale * sigma)
        return Factors(self.scale * c_in, c_noise, self.scale**2 * skip, self.scale * out)

    def _known(self) -> tuple[float, float]:
        """The least and the largest s that there is."""
        return 0.0, math.inf

    def _factors(self, s: float) -> Factors:
        """The factors in the network's own units."""
        raise NotImplementedError


class Edm(_Parametrisation):
    """EDM preconditioning (Karras 2022, Table 1) of data with mean m and standard deviation sd.

    The denoiser is D(u, s) = m + c_skip (u - m) + c_out F(c_in (u - m), log(s) / 4), or another multiple of log(s);
    with score = (D - u) / s^2 (eq. 3) it is affine in the network's output, without the cancellation of D - u at small
    s:

        score = -(u - m) / (s^2 + sd^2) + sd / (s sqrt(s^2 + sd^2)) F
    """

    name: Literal["edm"] = "edm"
    data_mean: float = Field(0.0, allow_inf_nan=False, description="m, in the network's units.")
    data_std: Positive = Field(0.5, description="sd, in the network's units.")
    times: Positive = Field(0.25, description="What log(s) is multiplied by.")

    @property
    def centre(self) -> float:
        return self.data_mean

    def _factors(self, s: float) -> Factors:
        total = math.hypot(s, self.data_std)
        return Factors(
            c_in=1 / total,
            c_noise=self.times * math.log(s),
            skip=-1 / (s**2 + self.data_std**2),
            out=self.data_std / (s * total),
        )


class _OfProcess(_Parametrisation):
    """One whose network sees a u, of a process."""

    process: Process

    def _known(self) -> tuple[float, float]:
        return self.process.range


class Epsilon(_OfProcess):
    """F is the noise n in x_t = a x_0 + b n (Ho 2020, section 3.2): score = -F / s."""

    name: Literal["epsilon"] = "epsilon"

    def _factors(self, s: float) -> Factors:
        a, label = self.process.seen(s)
        return Factors(c_in=a, c_noise=label, skip=0.0, out=-1 / s)


class V(_OfProcess):
    """F is v = a n - b x_0 (Salimans & Ho 2022, appendix D).

    Of x_t = a x_0 + b n and v the clean picture is x_0 = (a x_t - b v) / (a^2 + b^2), which is a x_t - b v where the
    process preserves variance; score = (x_0 - u) / s^2.
    """

    name: Literal["v"] = "v"

    def _factors(self, s: float) -> Factors:
        a, label = self.process.seen(s)
        return Factors(c_in=a, c_noise=label, skip=-1 / (1 + s**2), out=-1 / (a * s * (1 + s**2)))


class X0(_OfProcess):
    """F is the expected clean picture itself: score = (F - u) / s^2 (Karras 2022, eq. 3)."""

    name: Literal["x0"] = "x0"

    def _factors(self, s: float) -> Factors:
        a, label = self.process.seen(s)
        return Factors(c_in=a, c_noise=label, skip=-1 / s**2, out=1 / s**2)


class Score(_OfProcess):
    """F is the gradient of the log density of x_t = a u (Song 2021, eq. 7): score = a F."""

    name: Literal["score"] = "score"

    def _factors(self, s: float) -> Factors:
        a, label = self.process.seen(s)
        return Factors(c_in=a, c_noise=label, skip=0.0, out=a)


class OverSigma(_OfProcess):
    """The score is F / s (Song & Ermon 2020, technique 3, where the network is not told s)."""

    name: Literal["over_sigma"] = "over_sigma"
    process: Process = VarianceExploding(label="none")

    def _factors(self, s: float) -> Factors:
        a, label = self.process.seen(s)
        return Factors(c_in=a, c_noise=label, skip=0.0, out=1 / s)


class DiscreteLevels(_Parametrisation):
    """F is the score itself, and the network is told the index of the level (Song & Ermon 2019, section 3.2)."""

    name: Literal["discrete"] = "discrete"
    sigmas: tuple[Positive, ...] = Field(
        min_length=1, description="The levels that it was trained at, by index, in [0, 1] units."
    )

    @property
    def range(self) -> tuple[float, float]:
        return min(self.sigmas), max(self.sigmas)

    def factors(self, sigma: float) -> Factors:
        index = min(range(len(self.sigmas)), key=lambda i: abs(self.sigmas[i] - sigma))
        if abs(self.sigmas[index] - sigma) > TOLERANCE * self.sigmas[index]:
            known = ", ".join(f"{level:g}" for level in self.sigmas)
            raise ValueError(f"{sigma:g} is no noise level of this model; it knows only {known}")
        return Factors(c_in=self.scale, c_noise=float(index), skip=0.0, out=self.scale)


class Flow(_Parametrisation):
    """F is the velocity n - x_0 on the straight way x_t = (1 - t) x_0 + t n (Lipman 2023; Liu 2023), told `times` t.

    t = s / (1 + s), x_0 = x_t - t F, so score = (x_0 - u) / s^2 = -(u + F) / (s (1 + s)).
    """

    name: Literal["flow"] = "flow"
    times: Positive = 1.0

    def _factors(self, s: float) -> Factors:
        out = -1 / (s * (1 + s))
        return Factors(c_in=1 / (1 + s), c_noise=self.times * s / (1 + s), skip=out, out=out)


class Consistency(_Parametrisation):
    """A consistency model (Song 2023, appendix C): f(u, s) = c_skip u + c_out F(c_in u, 250 log s).

    f is where the probability flow through u ends, and no expectation: there is no score. What takes its place,
    (f - u) / s^2, is what multistep consistency sampling needs.

        c_skip = sd^2 / ((s - s_min)^2 + sd^2),   c_out = sd (s - s_min) / sqrt(s^2 + sd^2)
    """

    denoises: ClassVar[bool] = False
    name: Literal["consistency"] = "consistency"
    data_std: Positive = Field(0.5, description="sd, in the network's units.")
    s_min: Positive = Field(0.002, description="The noise level at which f(u) is u, in the network's units.")
    times: Positive = 250.0

    def _known(self) -> tuple[float, float]:
        return self.s_min, math.inf

    def _factors(self, s: float) -> Factors:
        past, total = s - self.s_min, math.hypot(s, self.data_std)
        return Factors(
            c_in=1 / total,
            c_noise=self.times * math.log(s),
            skip=-(past**2) / (past**2 + self.data_std**2) / s**2,
            out=self.data_std * past / total / s**2,
        )


Parametrisation = Annotated[
    Edm | Epsilon | V | X0 | Score | OverSigma | DiscreteLevels | Flow | Consistency, Field(discriminator="name")
]
