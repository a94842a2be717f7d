"""Presets: how each shipped model is trained, as TOML."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.card import ImageShape, ModelName
from models.sampling.settings import AnnealedLangevin, SamplerSettings
from models.training.trainer import TrainingSettings

DIRECTORY = Path(__file__).parent


class PublishedAs(BaseModel):
    """What the card of the trained model says beyond what training found out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ModelName
    description: str = ""
    sigma_min: float
    sigma_max: float
    sampler: SamplerSettings = Field(default_factory=AnnealedLangevin)


class Preset(BaseModel):
    """A preset file.

    Args:
        model: what the card says of the trained model.
        image: shape of an image, that of MNIST unless the file says otherwise.
        training: how it is trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: PublishedAs
    image: ImageShape = ImageShape(channels=1, height=28, width=28)
    training: TrainingSettings


def names() -> list[str]:
    """The presets that there are."""
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def load(name: str) -> Preset:
    """A preset by name.

    Raises:
        LookupError: there is none of that name.
    """
    if name not in names():
        raise LookupError(f"no preset {name!r}; there is: {', '.join(names())}")
    return Preset.model_validate(tomllib.loads((DIRECTORY / f"{name}.toml").read_text()))
