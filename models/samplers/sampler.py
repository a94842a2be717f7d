"""What the file of a sampler holds: one class, which is its settings, and says how they become a table. Torch-free.

Most samplers go through noise levels as others do, and derive from what these have in common: see
`models.samplers.families`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Protocol, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from models.parametrisation import TOLERANCE
from models.samplers.table import Table

MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exactly
MAX_ROWS = 100_000

# Strict: a true or a "5" in JSON is a mistake, not a 1 or a 5.
Sigma = Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False, strict=True)]
StepSize = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Steps = Annotated[int, Field(ge=1, le=100_000, strict=True)]

# What the fields mean that samplers share and that say nothing themselves.
SHARED = {
    "sigma_max": "The first noise level, in units of pixels in [0, 1]; the model's own by default.",
    "sigma_min": "The last noise level; the model's own by default.",
    "steps": "Number of steps; each costs one evaluation.",
}
T = TypeVar("T")


class SamplerRefused(ValueError):
    """A sampler setting that the model cannot follow.

    Args:
        field: the setting at fault.
        reason: what is wrong with it.
        allowed: what is allowed.
        instead: the same said of other settings, to who gave one of those and not `field`.
    """

    def __init__(self, field: str, reason: str, allowed: str, instead: "Sequence[SamplerRefused]" = ()) -> None:
        super().__init__(f"{field}: {reason}; allowed: {allowed}")
        self.field, self.reason, self.allowed, self.instead = field, reason, allowed, instead

    def to(self, given: "Sampler | None") -> "SamplerRefused":
        """As it is said to who gave these settings: of one that is among them, if it can be."""
        return next((one for one in (self, *self.instead) if getattr(given, one.field, None) is not None), self)


class Shape(Protocol):
    """The shape of a model's images."""

    @property
    def size(self) -> int:
        """Numbers in an image."""


class Model(Protocol):
    """What a sampler is told of the model that it is to run: a part of the model card.

    `denoises` is whether it has a score; a consistency model has none. `sigma_min` to `sigma_max` are the noise levels
    that it knows, or else `sigmas` alone, descending. `sampler`, `samplers` and `inpainting` are its own settings.
    """

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> Shape: ...
    @property
    def denoises(self) -> bool: ...
    @property
    def sigma_min(self) -> float: ...
    @property
    def sigma_max(self) -> float: ...
    @property
    def sigmas(self) -> tuple[float, ...] | None: ...
    @property
    def sampler(self) -> "Sampler": ...
    @property
    def samplers(self) -> "tuple[Sampler, ...]": ...
    @property
    def inpainting(self) -> "Sampler | None": ...


class Sampler(BaseModel, ABC):
    """A sampler's settings, as a request or a card gives them. What they leave out is None.

    A class that derives from it has fields, each with a description and with None for its default; `name`, a Literal of
    its name, which is that of its file as well; for its docstring one sentence, which the API shows; `title`, which the
    page shows; and, as a static method by the name of `table`, the paper's equation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: ClassVar[str]
    of_consistency: ClassVar[bool] = False  # whether it samples consistency models; the others sample scores
    needs_all_levels: ClassVar[bool] = False  # whether a model that knows but a few levels cannot be sampled by it
    needs_known: ClassVar[bool] = False  # whether it is only for images of which something is known
    counts: ClassVar[tuple[str, ...]]  # the fields that decide how many network evaluations are spent

    name: str

    @abstractmethod
    def complete(self, model: Model) -> tuple[Self, Table]:
        """These settings with nothing left out that matters, and their table, for one model.

        Completed again, complete settings give the same table to the bit.

        Raises:
            SamplerRefused: the model cannot follow them.
        """

    @abstractmethod
    def within(self, evaluations: int, model: Model) -> Self:
        """These settings, without those of `counts`, with as many levels or steps as the evaluations allow.

        Raises:
            SamplerRefused: they are too few.
        """

    def carries(self, field: str) -> bool:  # noqa: ARG002
        """Whether the model's own value of a field that is left out still means something beside what is not."""
        return True

    def filled(self, model: Model) -> Self:
        """These settings, with what they leave out taken from the model's own of this sampler, if it has them."""
        settings = (model.sampler, *model.samplers, *([model.inpainting] if model.inpainting else []))
        own = next((one for one in settings if one.name == self.name), None)
        left_out = {k: v for k, v in own or () if getattr(self, k) is None and self.carries(k)}
        return self.model_copy(update=left_out)

    @classmethod
    def known_as(cls) -> str:
        """The name by which requests and cards know the sampler."""
        (name,) = get_args(cls.model_fields["name"].annotation)
        return str(name)


def otherwise(value: T | None, default: T) -> T:
    """A setting, or what holds where it is left out."""
    return default if value is None else value


def known_sigma(field: str, sigma: float, model: Model) -> float:
    """The noise level of the model that is meant: people write the ends of its range, or its levels, with few digits.

    Raises:
        SamplerRefused: the model does not know it.
    """
    named = model.sigmas or (model.sigma_min, model.sigma_max)
    nearest = min(named, key=lambda known: abs(known - sigma))
    if abs(nearest - sigma) <= TOLERANCE * nearest:
        return nearest
    if model.sigmas is not None:
        raise SamplerRefused(
            field,
            f"{model.name} was not trained at {sigma:g}",
            "one of: " + ", ".join(f"{known:g}" for known in model.sigmas),
        )
    if not model.sigma_min <= sigma <= model.sigma_max:
        raise SamplerRefused(
            field,
            f"{sigma:g} is outside what {model.name} was trained for",
            f"{model.sigma_min:g} to {model.sigma_max:g}",
        )
    return sigma


def check_step_size(step_size: float, sigma: float) -> None:
    """A Langevin step of alpha multiplies a deviation by 1 - alpha / (2 sigma^2): from 4 sigma^2 on it diverges."""
    if step_size >= 4 * sigma**2:
        raise SamplerRefused(
            "step_size", f"{step_size:g} makes the chain diverge", f"below 4 sigma^2 = {4 * sigma**2:g}"
        )


def check_rows(field: str, rows: int) -> None:
    """Refuses a table of too many rows before it is made."""
    if rows > MAX_ROWS:
        raise SamplerRefused(
            field, f"this takes {rows:,} network evaluations an image", f"at most {MAX_ROWS:,} evaluations"
        )
