"""The configuration beside a checkpoint of the official NCSN code, read as data: nothing in it is executed.

It is a YAML dump of nested argparse.Namespace objects, as the code saves it or as it prints it, or the plain YAML file
that the training was started with.
"""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from models.importing.section import Section
from models.sentences import in_one_line

NAMESPACE = "tag:yaml.org,2002:python/object:argparse.Namespace"
DEVICE = "tag:yaml.org,2002:python/object/apply:torch.device"
RULE = re.compile(rb"^[<>]{20,}\s*$", re.MULTILINE)  # what it prints before and after
MAX_BYTES = 2**16


class ConfigRefused(ValueError):
    """The configuration cannot be read, or asks for what is not served; the message says what is allowed."""


class DataSection(Section):
    """The images. The networks expect pixels in [0, 1], neither rescaled nor as logits."""

    dataset: str = Field("images", max_length=64)
    channels: int = Field(ge=1, le=4)
    image_size: int = Field(ge=1, le=4096)
    logit_transform: Literal[False] = False
    rescaled: Literal[False] = False


class ModelSection(Section):
    """The network and its noise levels. What the code of NCSN leaves out is fixed there to what is allowed here."""

    ngf: int = Field(ge=1, le=1024)
    num_classes: int = Field(ge=2, le=100_000, description="Number of noise levels.")
    sigma_begin: float = Field(gt=0, allow_inf_nan=False)
    sigma_end: float = Field(gt=0, allow_inf_nan=False)
    sigma_dist: Literal["geometric"] = "geometric"
    normalization: Literal["InstanceNorm++"] = "InstanceNorm++"
    nonlinearity: Literal["elu"] = "elu"
    spec_norm: Literal[False] = False

    @model_validator(mode="after")
    def _descending(self) -> "ModelSection":
        if self.sigma_begin <= self.sigma_end:
            raise ValueError("noise levels must descend, from sigma_begin to a smaller sigma_end")
        return self


class SamplingSection(Section):
    """Annealed Langevin dynamics as the authors run it. Their `step_lr` is half of the papers' epsilon."""

    n_steps_each: int = Field(ge=1)
    step_lr: float = Field(gt=0, allow_inf_nan=False)
    denoise: bool


class TrainingSection(Section):
    """How it was trained. What dsm_freq trains is a score in the frequency domain, not one of images."""

    algo: Literal["dsm", "ssm"] = "dsm"


class OfficialConfig(Section):
    """A configuration, as far as it decides how the model is served. NCSN's has no section `sampling`."""

    data: DataSection
    model: ModelSection
    training: TrainingSection = Field(default_factory=TrainingSection)
    sampling: SamplingSection | None = None


def read_config(path: Path) -> OfficialConfig:
    """Reads a configuration.

    Raises:
        ConfigRefused: it cannot be read, has tags of Python other than argparse.Namespace, or options not served.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigRefused(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigRefused(f"{path} is no configuration: it is larger than {MAX_BYTES} bytes")
    try:
        document = yaml.load(RULE.sub(b"", data), _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigRefused(f"{path} is no configuration of the official code: {_one_line(error)}") from error
    except Exception as error:  # a scalar that is not of its tag fails in whatever way its parser does
        raise ConfigRefused(f"{path} is no configuration of the official code: {type(error).__name__}") from error
    try:
        return OfficialConfig.model_validate(document)
    except ValidationError as error:
        said = in_one_line(error, OfficialConfig, "the document")
        raise ConfigRefused(f"{path} asks for what is not served: {said}") from error


class _Loader(yaml.SafeLoader):
    """A SafeLoader that reads a dumped argparse.Namespace as a mapping and, since no dump needs them, no aliases:
    a few lines of them can stand for gigabytes.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not allowed")
        return super().compose_node(parent, index)


def _device(loader: _Loader, node: yaml.SequenceNode) -> str:
    """What NCSNv2 adds to the configuration before it prints it: torch.device and its arguments."""
    return ":".join(str(part) for part in loader.construct_sequence(node))


def _namespace(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(NAMESPACE, _namespace)
_Loader.add_constructor(DEVICE, _device)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "not YAML"
    return problem if mark is None else f"{problem} (line {mark.line + 1})"
