"""Presets: how a model is trained, and as what it is published, as TOML."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.card import ImageShape, ModelName
from models.samplers import USUAL
from models.samplers.settings import SamplerSettings, bare
from models.training.distillation.flows import FlowSettings
from models.training.settings import TrainingSettings

DIRECTORY = Path(__file__).parent


class PublishedAs(BaseModel):
    """What the card of the trained model says beyond what training found out.

    Args:
        sigma_min, sigma_max: the noise levels that may be asked for. sigma_max may be left out where the run trains at
            `levels`: then it is the largest of them, which may itself be computed from the images. Log-normal levels
            have no largest, so how far up they have taught the network enough is for the preset to say.
        sampler: the sampler by default. Levels and step size that it leaves out follow from the range.
        samplers: the defaults of requests that name another.
        classes: names of the classes in place of those that the data have.
        inpainting: the sampler by default where something is known of the images; None leaves it to `plan.usual`.
        draws_labels: whether new images without a label are each of a class that the seed draws, if it knows classes.
        guidance: how far new images with a label are led towards its class by default, if it knows classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ModelName
    description: str = ""
    sigma_min: float
    sigma_max: float | None = None
    sampler: SamplerSettings = Field(default_factory=lambda: bare(USUAL))
    samplers: tuple[SamplerSettings, ...] = ()
    classes: tuple[str, ...] | None = None
    inpainting: SamplerSettings | None = None
    draws_labels: bool = False
    guidance: float | None = None


class GeneratedData(BaseModel):
    """Data that a preset makes itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: Literal["two_gaussians"]
    points: int = Field(ge=1)


class Preset(BaseModel):
    """A preset file.

    Args:
        model: what the card says of the trained model.
        image: shape of an image, that of MNIST unless the file says otherwise.
        training: how it is trained.
        data: what makes its data, where that is not read from files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: PublishedAs
    image: ImageShape = ImageShape(channels=1, height=28, width=28)
    training: TrainingSettings
    data: GeneratedData | None = None

    @model_validator(mode="after")
    def _has_a_range(self) -> "Preset":
        if self.model.sigma_max is None and self.training.levels is None:
            raise ValueError("model.sigma_max is missing: only where training.levels is given does it follow from that")
        return self


class Distillation(BaseModel):
    """The file of settings that `scoreserve distill` starts from.

    Args:
        description: what the card says after the name of the teacher.
        sampler: the sampler of the model by default.
        flows: what the teacher makes for it to learn.
        training: how it is trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str
    sampler: SamplerSettings
    flows: FlowSettings
    training: TrainingSettings


def distillation() -> Distillation:
    """The settings of `scoreserve distill`."""
    return Distillation.model_validate(tomllib.loads((DIRECTORY / "distill" / "distill.toml").read_text()))


def names() -> list[str]:
    """The presets that there are."""
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def load(name: str) -> Preset:
    """A preset by name, or one of your own by the path of its file, which ends in .toml.

    Raises:
        LookupError: there is none of that name.
        OSError: the file cannot be read.
        ValueError: it is no TOML, or says what a preset cannot.
    """
    if name not in names() and not name.endswith(".toml"):
        raise LookupError(f"no preset {name!r}; there is: {', '.join(names())}, or the path of a .toml file")
    path = Path(name) if name.endswith(".toml") else DIRECTORY / f"{name}.toml"
    return Preset.model_validate(tomllib.loads(path.read_text()))
