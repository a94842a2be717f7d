"""The settings of all samplers that are listed: the type of what requests and cards say. Torch-free."""

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from models.samplers import NAMES
from models.samplers.sampler import Sampler


def _sampler(name: str) -> type[Sampler]:
    """The class in the file of a sampler."""
    found = vars(import_module(f"models.samplers.{name}")).values()
    (kind,) = [one for one in found if isinstance(one, type) and one.__module__ == f"models.samplers.{name}"]
    assert issubclass(kind, Sampler)
    assert kind.known_as() == name
    return kind


SAMPLERS = tuple(_sampler(name) for name in NAMES)

if TYPE_CHECKING:
    SamplerSettings = Sampler
else:  # what pydantic reads and writes: any of them, told apart by the name
    SamplerSettings = Annotated[Union[SAMPLERS], Field(discriminator="name")]  # noqa: UP007


def bare(name: str) -> Sampler:
    """The settings of a sampler that leave out everything."""
    return SAMPLERS[NAMES.index(name)](name=name)
