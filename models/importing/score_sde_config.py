"""Configurations of score_sde_pytorch: those that are published, and any in a JSON file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from models.importing.reading import ImportRefused, read_json
from models.importing.section import Section
from models.sentences import in_one_line


class DataSection(Section):
    """The images. `centered`: whether they were in [-1, 1], and noise in the same units, rather than in [0, 1]."""

    dataset: str = Field("images", max_length=64)
    image_size: int = Field(ge=1, le=4096)
    num_channels: int = Field(ge=1, le=4)
    centered: bool


class ModelSection(Section):
    """The network. What is fixed here is so in all published configurations of it."""

    name: Literal["ncsnpp"]
    nf: int = Field(ge=4, le=2048)
    ch_mult: tuple[int, ...] = Field(min_length=1, max_length=12)
    num_res_blocks: int = Field(ge=1, le=64)
    attn_resolutions: tuple[int, ...]
    embedding_type: Literal["fourier", "positional"]
    fir: bool
    fir_kernel: tuple[float, ...] = Field((1, 3, 3, 1), max_length=64)
    skip_rescale: bool
    progressive: Literal["none", "output_skip"]
    progressive_input: Literal["none", "input_skip", "residual"]
    progressive_combine: Literal["sum"] = "sum"
    scale_by_sigma: bool
    num_scales: int = Field(1000, ge=2, le=10_000)
    sigma_min: float = Field(0.01, gt=0, allow_inf_nan=False)
    sigma_max: float = Field(50, gt=0, allow_inf_nan=False)
    beta_min: float = Field(0.1, gt=0, allow_inf_nan=False)
    beta_max: float = Field(20, gt=0, allow_inf_nan=False)
    resblock_type: Literal["biggan"] = "biggan"
    attention_type: Literal["ddpm"] = "ddpm"
    normalization: Literal["GroupNorm"] = "GroupNorm"
    nonlinearity: Literal["swish"] = "swish"
    conditional: Literal[True] = True
    conv_size: Literal[3] = 3

    @model_validator(mode="after")
    def _served(self) -> "ModelSection":
        if self.progressive_input == "residual" and not self.fir:
            raise ValueError("progressive_input residual is served with fir alone")
        return self


class TrainingSection(Section):
    """The process, and whether any of its times was trained or whole ones alone."""

    sde: Literal["vesde", "vpsde", "subvpsde"]
    continuous: bool


class Config(Section):
    """A configuration, as far as it decides how the model is served."""

    data: DataSection
    model: ModelSection
    training: TrainingSection

    @model_validator(mode="after")
    def _served(self) -> "Config":
        sde = self.training.sde
        if not self.training.continuous and sde != "vpsde":
            raise ValueError(f"{sde} with training.continuous false is not served: its labels are indices of levels")
        if sde == "vesde" and self.model.embedding_type != "fourier":
            raise ValueError("vesde is served with embedding_type fourier alone")
        if sde != "vesde" and (self.model.embedding_type != "positional" or self.model.scale_by_sigma):
            raise ValueError(f"{sde} is served with embedding_type positional and scale_by_sigma false alone")
        if sde != "vesde" and not self.data.centered:
            raise ValueError(f"{sde} is served with data.centered true alone")
        if self.data.image_size % (1 << (len(self.model.ch_mult) - 1)):
            raise ValueError(
                f"images of side {self.data.image_size} cannot be halved {len(self.model.ch_mult) - 1} times"
            )
        return self


def _published() -> dict[str, dict[str, Any]]:
    """The configurations of that code that are served, by the names of their files."""
    cifar10 = {"nf": 128, "ch_mult": (1, 2, 2, 2), "attn_resolutions": (16,), "skip_rescale": True}
    cifar10 |= {"progressive": "none", "num_scales": 1000, "sigma_max": 50}
    large = {"nf": 128, "ch_mult": (1, 1, 2, 2, 2, 2, 2), "attn_resolutions": (16,), "skip_rescale": True, "fir": True}
    large |= {"progressive": "output_skip", "progressive_input": "input_skip", "num_res_blocks": 2, "num_scales": 2000}
    huge = large | {"nf": 16, "ch_mult": (1, 2, 4, 8, 16, 32, 32, 32), "num_res_blocks": 1}
    plus = {
        "ncsnpp": {"fir": True, "progressive_input": "residual"},
        "ddpmpp": {"fir": False, "progressive_input": "none"},
    }
    found = {}

    def add(name: str, sde: str, dataset: str, side: int, model: Mapping[str, Any], continuous: bool = True) -> None:
        ve = sde == "vesde"
        kind = {"name": "ncsnpp", "embedding_type": "fourier" if ve else "positional", "scale_by_sigma": ve}
        found[name] = {
            "data": {"dataset": dataset, "image_size": side, "num_channels": 3, "centered": not ve},
            "model": {**kind, **model},
            "training": {"sde": sde, "continuous": continuous},
        }

    for depth, blocks in (("", 4), ("_deep", 8)):
        for kind, model in plus.items():
            for sde in ("vp", "subvp"):
                settings = cifar10 | model | {"num_res_blocks": blocks}
                add(f"{sde}/cifar10_{kind}{depth}_continuous", f"{sde}sde", "CIFAR10", 32, settings)
        settings = cifar10 | plus["ncsnpp"] | {"num_res_blocks": blocks}
        add(f"ve/cifar10_ncsnpp{depth}_continuous", "vesde", "CIFAR10", 32, settings)
    for kind, model in plus.items():
        add(f"vp/cifar10_{kind}", "vpsde", "CIFAR10", 32, cifar10 | model | {"num_res_blocks": 4}, continuous=False)
    for name, dataset, side, sigma_max, model in (
        ("bedroom", "LSUN bedroom", 256, 378, large),
        ("church", "LSUN church_outdoor", 256, 380, large),
        ("celebahq_256", "CelebAHQ", 256, 348, large),
        ("ffhq_256", "FFHQ", 256, 348, large),
        ("celebahq", "CelebAHQ", 1024, 1348, huge),
        ("ffhq", "FFHQ", 1024, 1348, huge),
    ):
        add(f"ve/{name}_ncsnpp_continuous", "vesde", dataset, side, model | {"sigma_max": sigma_max})
    return found


PUBLISHED = _published()


def read_config(name: str) -> Config:
    """A published configuration by its name, or one in a JSON file.

    Raises:
        ImportRefused: there is none, it cannot be read, or it asks for what is not served.
    """
    plain = name.removeprefix("configs/").removesuffix(".py")
    if plain in PUBLISHED:
        content = PUBLISHED[plain]
    elif name.endswith(".json"):
        content = read_json(Path(name))
    else:
        raise ImportRefused(
            f"there is no configuration {name!r}; there is {', '.join(sorted(PUBLISHED))}, and any other as a file "
            "*.json, which get_config().to_json_best_effort() gives"
        )
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ImportRefused(f"{name} asks for what is not served: {in_one_line(error, Config)}") from error
