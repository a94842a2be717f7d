"""Parametrisations: how what a network returns becomes the score of noised pixels. Torch-free; a model card names one.

A network was trained on pixels u in a range of its own, mostly [-1, 1], and here they are y in [0, 1]: u = lowest +
scale y with scale = highest - lowest, and noise of level sigma here is noise of level s = scale sigma there. The score
is the gradient of a log density, so in our units it is `scale` times theirs. What networks see that were trained on
x_t = a x_0 + b n is said by their process: models/processes.py.
"""

import math
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from models.processes import Fixed, Positive, Process, VarianceExploding

TOLERANCE = 1e-5  # of a noise level that was rounded on its way: people write six digits


class Factors(NamedTuple):
    """What surrounds a network F at one noise level: score = skip (x - mean) + out F(c_in (x - mean), c_noise)."""

    c_in: float
    c_noise: float
    skip: float
    out: float


class _Parametrisation(Fixed):
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
    """A consistency model (Song 2023, appendix C) of data with mean m and standard deviation sd.

    f(u, s) = m + c_skip (u - m) + c_out F(c_in (u - m), 250 log s), or another multiple of log(s); theirs have m = 0.

    f is where the probability flow through u ends, and no expectation: there is no score. What takes its place,
    (f - u) / s^2, is what multistep consistency sampling needs.

        c_skip = sd^2 / ((s - s_min)^2 + sd^2),   c_out = sd (s - s_min) / sqrt(s^2 + sd^2)
    """

    denoises: ClassVar[bool] = False
    name: Literal["consistency"] = "consistency"
    data_mean: float = Field(0.0, allow_inf_nan=False, description="m, in the network's units.")
    data_std: Positive = Field(0.5, description="sd, in the network's units.")
    s_min: Positive = Field(0.002, description="The noise level at which f(u) is u, in the network's units.")
    times: Positive = 250.0

    @property
    def centre(self) -> float:
        return self.data_mean

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
