"""The contract between service and worker: what a job asks for, complete and checked. Torch-free."""

from typing import Annotated, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, TypeAdapter

from models.card import ModelName
from models.guidance import MAX_WEIGHT
from models.samplers.sampler import MAX_SEED
from models.samplers.settings import SamplerSettings

MAX_FRAMES = 64


class SampleRequest(BaseModel):
    """A grid of samples. Image i depends on (model, version, sampler, its label, guidance, seed, i) alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sample"] = "sample"
    model: ModelName
    version: int = Field(ge=1)
    count: int = Field(ge=1)
    seed: int = Field(ge=0, le=MAX_SEED)
    frames: int = Field(0, ge=0, le=MAX_FRAMES, description="How often each image is looked at; 0 or 1: the result.")
    weights_sha256: str | None = Field(None, description="The weights that were promised; null takes what is there.")
    sampler: SamplerSettings = Field(description="Complete: as `models.plan.plan` returns it.")
    labels: tuple[int, ...] | None = Field(
        None, min_length=1, description="Of images 0, 1 and so on, repeated; null for images of all classes."
    )
    guidance: float | None = Field(None, ge=0, le=MAX_WEIGHT, description="The weight of guidance; null for none.")
    guidance_interval: tuple[float, float] | None = Field(
        None, description="The lowest and the highest noise level that is guided; null for all."
    )

    def label(self, index: int) -> int | None:
        """The label of an image."""
        return None if self.labels is None else self.labels[index % len(self.labels)]


class InpaintRequest(SampleRequest):
    """Completions of one image: as many as `count`, the pixels outside the mask exactly as given."""

    kind: Literal["inpaint"] = "inpaint"  # type: ignore[assignment]
    image: Base64Bytes = Field(description="uint8 pixels, height x width x channels of the model.")
    mask: Base64Bytes = Field(description="uint8, height x width: 1 = repaint, 0 = keep.")


class UpscaleRequest(SampleRequest):
    """Enlargements of one small image: the mean of each block of factor x factor pixels is the given one."""

    kind: Literal["upscale"] = "upscale"  # type: ignore[assignment]
    image: Base64Bytes = Field(description="uint8 pixels, height / factor x width / factor x channels of the model.")
    factor: int = Field(ge=2)


class ColorizeRequest(SampleRequest):
    """Colourings of one grey image: the mean of each pixel's channels is the given one."""

    kind: Literal["colorize"] = "colorize"  # type: ignore[assignment]
    image: Base64Bytes = Field(description="uint8, height x width of the model.")


Request = SampleRequest | InpaintRequest | UpscaleRequest | ColorizeRequest
REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
