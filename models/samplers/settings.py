"""What a request may say about each sampler. Torch-free; the fields left out come from the model's card.

Shared words: `levels` is how many noise levels, `sigma_max` and `sigma_min` the first and the last of them, in units of
pixels in [0, 1].
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exactly

# Strict: a true or a "5" in JSON is a mistake, not a 1 or a 5.
Sigma = Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False, strict=True)]
StepSize = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False, strict=True)]
Steps = Annotated[int, Field(ge=1, le=100_000, strict=True)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnnealedLangevin(_Settings):
    """Annealed Langevin dynamics (Song & Ermon 2019, Algorithm 1)."""

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
    sigma_max: Sigma | None = None
    sigma_min: Sigma | None = None


class Langevin(_Settings):
    """Langevin dynamics at a single noise level."""

    name: Literal["langevin"]
    sigma: Sigma | None = Field(None, description="The noise level.")
    steps: Steps | None = None
    step_size: StepSize | None = Field(None, description="alpha in x += alpha/2 score + sqrt(alpha) z.")
    denoise: bool | None = Field(None, strict=True, description="Whether a last evaluation removes the noise of sigma.")


class FollowScores(_Settings):
    """Gradient ascent along the scores of a single noise level, without noise."""

    name: Literal["follow_scores"]
    sigma: Sigma | None = Field(None, description="The noise level.")
    steps: Steps | None = None
    step_size: StepSize | None = Field(None, description="alpha in x += alpha/2 score.")


class ConsistentAnnealed(_Settings):
    """Consistent annealed sampling (Jolicoeur-Martineau 2020): one evaluation a level."""

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
    sigma_max: Sigma | None = None
    sigma_min: Sigma | None = None


class _Descent(_Settings):
    """From the first noise level down to 0, over levels that are even in sigma^(1/rho)."""

    levels: Steps | None = Field(None, description="Number of noise levels; each costs one evaluation.")
    rho: float | None = Field(
        None,
        ge=1,
        le=100,
        allow_inf_nan=False,
        strict=True,
        description="Spacing of the levels (Karras 2022, eq. 5): 1 is even, and the larger the nearer to geometric.",
    )
    sigma_max: Sigma | None = None
    sigma_min: Sigma | None = None


class Ancestral(_Descent):
    """Ancestral sampling of the variance-exploding chain (Song 2021, Appendix F, eq. 47)."""

    name: Literal["ancestral"]


class Euler(_Descent):
    """The probability-flow ODE by Euler's method (DDIM)."""

    name: Literal["euler"]


class AdamsBashforth(_Descent):
    """The probability-flow ODE by the second-order method of Adams and Bashforth."""

    name: Literal["adams_bashforth"]


class Heun(_Descent):
    """The probability-flow ODE by Heun's second-order method (Karras 2022, Algorithm 1)."""

    name: Literal["heun"]
    levels: Steps | None = Field(None, description="Number of noise levels n; it costs 2n - 1 evaluations.")


SamplerSettings = Annotated[
    AnnealedLangevin | Langevin | FollowScores | ConsistentAnnealed | Ancestral | Euler | AdamsBashforth | Heun,
    Field(discriminator="name"),
]
NAMES = (
    "annealed_langevin",
    "langevin",
    "follow_scores",
    "consistent_annealed",
    "ancestral",
    "euler",
    "adams_bashforth",
    "heun",
)
