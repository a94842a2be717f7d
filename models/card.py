"""The model card: what a checkpoint is, what it can do, and how it was made. Torch-free."""

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator, model_validator

from models import networks
from models.guidance import MAX_WEIGHT
from models.parametrisation import TOLERANCE, DiscreteLevels, Edm, OverSigma, Parametrisation
from models.samplers import KNOWING, USUAL
from models.samplers.settings import SamplerSettings, bare

EXECUTION = r"^(eager|channels_last) (float32|bfloat16)$"
MODEL_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME)]


class ImageShape(BaseModel):
    """Shape of one image; pixels are in [0, 1] inside and uint8 outside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(ge=1, le=4, examples=[1])
    height: int = Field(ge=1, le=4096, examples=[28])
    width: int = Field(ge=1, le=4096, examples=[28])

    @property
    def chw(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def coloured(self) -> bool:
        """Whether the channels are red, green and blue."""
        return self.channels == 3

    @property
    def size(self) -> int:
        """Numbers in an image."""
        return self.channels * self.height * self.width


class NetworkSpec(BaseModel):
    """Which network the weights belong to, and the arguments that build it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(
        min_length=1,
        max_length=100,
        description="A network of scoreserve, or an entry point of the group scoreserve.networks in a package that is "
        "installed.",
        examples=["unet"],
    )
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    data_mean: float = Field(
        0.5,
        allow_inf_nan=False,
        description="Mean of the training pixels, in [0, 1] units; the middle where it is not known.",
    )
    data_std: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Standard deviation of the training pixels, in [0, 1] units; null where it is not known.",
    )
    parametrisation: Parametrisation | None = Field(
        None, description="How the network's output becomes a score; null for what is usual for its kind."
    )

    @field_validator("arguments")
    @classmethod
    def _can_be_written(cls, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            json.dumps(arguments, allow_nan=False)
        except ValueError as error:
            raise ValueError("all numbers must be finite, since JSON has no others") from error
        return arguments

    def parametrised(self, sigmas: Sequence[float] | None) -> Parametrisation:
        """The parametrisation, or that which is usual for the kind.

        Args:
            sigmas: the only noise levels that the model knows, descending; None if it knows all.

        Raises:
            ValueError: the kind has none that is usual, or that needs what is not known.
        """
        if self.parametrisation is not None:
            return self.parametrisation
        match networks.usual_parametrisation(self.kind):
            case "edm":
                if self.data_std is None or "data_mean" not in self.model_fields_set:
                    raise ValueError(
                        f"a {self.kind} is made for one mean and one standard deviation: give data_mean and data_std"
                    )
                return Edm(data_mean=self.data_mean, data_std=self.data_std)
            case "discrete":
                if sigmas is None:
                    raise ValueError(
                        f"a {self.kind} knows no levels but those it was trained at: list them in the card's sigmas"
                    )
                return DiscreteLevels(sigmas=tuple(sigmas))
            case "over_sigma":
                return OverSigma()
        raise ValueError(
            f"a {self.kind} has no usual parametrisation: the card must name one in network.parametrisation"
        )


EXAMPLE: dict[str, Any] = {
    "name": "mnist",
    "version": 3,
    "description": "Handwritten digits.",
    "created_at": "2026-01-02T03:04:05Z",
    "image": {"channels": 1, "height": 28, "width": 28},
    "sigma_min": 0.01,
    "sigma_max": 10.0,
    "network": {
        "kind": "unet",
        "arguments": {"channels": [64, 128], "blocks": [1, 3], "attention": [False, False]},
        "data_mean": 0.1307,
        "data_std": 0.3081,
    },
    "sampler": {"name": "euler", "levels": 35},
    "weights_sha256": "0" * 64,
}


class ModelCard(BaseModel):
    """What is known of one version of a model."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [EXAMPLE]},
    )

    name: ModelName
    version: int = Field(ge=1)
    description: str = ""
    created_at: datetime
    image: ImageShape
    sigma_min: float = Field(
        gt=0, allow_inf_nan=False, description="Smallest noise level that may be asked for, in [0, 1] units."
    )
    sigma_max: float = Field(
        gt=0, allow_inf_nan=False, description="Largest noise level that may be asked for, in [0, 1] units."
    )
    sigmas: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = Field(
        None,
        description="The only noise levels that may be asked for, descending, in [0, 1] units; null where every level "
        "from sigma_min to sigma_max may.",
    )
    network: NetworkSpec
    classes: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Names of the classes that an image may be asked for, in the order of their labels; null where the "
        "network knows none.",
    )
    needs_label: bool = Field(
        False, description="Whether the network was never trained without a label, so that every image needs one."
    )
    draws_labels: bool = Field(
        False,
        description="Whether new images that are asked for without a label are each of a class that the seed draws, "
        "all classes alike often, as the network's scores of a class are better than those of all.",
    )
    guidance: float | None = Field(
        None,
        ge=0,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="How far new images with a label are led towards its class when a request says nothing of that; "
        "null: not at all.",
    )
    sampler: SamplerSettings = Field(
        default_factory=lambda: bare(USUAL),
        description="What runs when a request names no sampler; its fields are also the defaults of a request that "
        "names the same sampler.",
    )
    inpainting: SamplerSettings | None = Field(
        None,
        description="What runs when a request of which something is known names no sampler: to inpaint, to upscale, to "
        f"colorize. Null: {KNOWING}, or `sampler` where the model knows but a few levels.",
    )
    samplers: tuple[SamplerSettings, ...] = Field(
        (), description="The defaults of requests that name one of these other samplers."
    )
    execution: str | None = Field(
        None,
        pattern=EXECUTION,
        description="How all workers run the network, and how it was run for the metrics: eager or channels_last, in "
        "float32 or bfloat16. Null leaves it to each worker: the fastest way that has the bits of eager float32.",
        examples=["channels_last bfloat16"],
    )
    provenance: dict[str, Any] = Field(default_factory=dict, description="How the checkpoint was made.")
    metrics: dict[str, Any] = Field(default_factory=dict, description="What was measured on it.")
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def denoises(self) -> bool:
        """Whether the network tells a score, so that x + sigma^2 score is the expected clean image."""
        parametrisation = self.network.parametrisation
        return parametrisation is None or parametrisation.denoises

    def own(self, name: str) -> SamplerSettings | None:
        """The model's own settings of a sampler; None if it has none, and the sampler's defaults hold."""
        return next((settings for settings in (self.sampler, *self.samplers) if settings.name == name), None)

    @model_validator(mode="after")
    def _classes_can_be_told_apart(self) -> "ModelCard":
        if self.classes is None and self.needs_label:
            raise ValueError("a model that needs a label has classes: name them")
        if self.classes is None and self.draws_labels:
            raise ValueError("a model whose labels are drawn has classes: name them")
        if self.guidance is not None and (self.classes is None or self.needs_label):
            raise ValueError("a model that guides has classes, and was trained without a label besides")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must not repeat one another: {', '.join(self.classes)}")
        return self

    @model_validator(mode="after")
    def _each_sampler_once(self) -> "ModelCard":
        names = [settings.name for settings in (self.sampler, *self.samplers)]
        if len(set(names)) < len(names):
            raise ValueError(f"samplers must not repeat one another, nor sampler: {', '.join(names)}")
        if self.sampler.needs_known:
            raise ValueError(
                f"{self.sampler.name} is for images of which something is known: it belongs into inpainting"
            )
        return self

    @model_validator(mode="after")
    def _sigma_range(self) -> "ModelCard":
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must be below sigma_max {self.sigma_max}")
        if self.sigmas is not None:
            if any(a <= b for a, b in pairwise(self.sigmas)):
                raise ValueError("sigmas must descend")
            if not self.sigmas or (self.sigmas[0], self.sigmas[-1]) != (self.sigma_max, self.sigma_min):
                raise ValueError(
                    f"sigmas must begin with sigma_max {self.sigma_max} and end with sigma_min {self.sigma_min}"
                )
        return self

    @model_validator(mode="after")
    def _what_the_network_knows(self) -> "ModelCard":
        if self.network.parametrisation is None and networks.usual_parametrisation(self.network.kind) is None:
            return self  # of a network that is not ours: said when it is used
        parametrisation = self.network.parametrised(self.sigmas)
        if isinstance(parametrisation, DiscreteLevels) and parametrisation.sigmas != self.sigmas:
            raise ValueError("sigmas must be those of network.parametrisation: the network knows no others")
        low, high = parametrisation.range
        if self.sigma_min < low * (1 - TOLERANCE) or self.sigma_max > high * (1 + TOLERANCE):
            raise ValueError(
                f"sigma_min {self.sigma_min:g} and sigma_max {self.sigma_max:g} must be within {low:g} and {high:g}, "
                "which network.parametrisation knows"
            )
        return self
