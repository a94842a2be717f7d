"""From what was read of a checkpoint to a version of a model in a store: weights are checked, then all is written."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from models.card import ImageShape, ModelCard, NetworkSpec
from models.importing.reading import ImportRefused
from models.plan import plan
from models.samplers import COMPARED
from models.samplers.sampler import SamplerRefused
from models.samplers.settings import SamplerSettings, bare
from models.score import build_network
from models.sentences import in_one_line
from models.store import ModelStore, sha256


@dataclass(frozen=True)
class Target:
    """Where a model goes to.

    Args:
        store: where it is published.
        name: name of the model.
        command: what its card says that it was made with.
        licence: of the checkpoint, as its card is to say; None if it is not known.
    """

    store: ModelStore
    name: str
    command: str = ""
    licence: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Args:
        family: the code base that wrote the checkpoint.
        path: file of the weights.
        digest: its sha256.
        facts: what else its card should say.
    """

    family: str
    path: Path
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A model as a checkpoint has it.

    Args:
        origin: where it comes from.
        description: a sentence or two.
        image: shape of an image.
        network: with its parametrisation.
        weights: by the names of our network, all on the CPU.
        sigma_range: the least and the largest noise level, in [0, 1] units.
        sigmas: the only levels that it knows, descending; None if it knows all between.
        sampler: what runs by default.
        classes: names of the classes; None if it has none.
        needs_label: whether it was never trained without a label.
    """

    origin: Origin
    description: str
    image: ImageShape
    network: NetworkSpec
    weights: Mapping[str, Tensor]
    sigma_range: tuple[float, float]
    sigmas: tuple[float, ...] | None = None
    sampler: SamplerSettings = field(default_factory=lambda: bare(COMPARED))
    classes: tuple[str, ...] | None = None
    needs_label: bool = False


def publish(found: Found, target: Target) -> tuple[ModelCard, Path]:
    """Publishes a model as the next version; returns its card and its directory.

    Raises:
        ImportRefused: its card or its default sampler cannot be, or the store cannot be written.
    """
    weights = safetensors.torch.save(
        {
            k: (v.float() if v.is_floating_point() else v).clone(memory_format=torch.contiguous_format)
            for k, v in found.weights.items()
        }
    )
    try:
        card = ModelCard(
            name=target.name,
            version=target.store.next_version(target.name),
            description=found.description,
            created_at=datetime.now(UTC),
            image=found.image,
            network=found.network,
            sampler=found.sampler,
            sigma_min=found.sigma_range[0],
            sigma_max=found.sigma_range[1],
            sigmas=found.sigmas,
            classes=found.classes,
            needs_label=found.needs_label,
            provenance=_provenance(found, target),
            weights_sha256=sha256(weights),
        )
        plan(None, card)  # what a request gets by default must be possible
    except SamplerRefused as error:
        raise ImportRefused(str(error)) from error
    except ValidationError as error:
        raise ImportRefused(in_one_line(error, ModelCard)) from error
    try:
        return card, target.store.publish(card, weights)
    except OSError as error:
        raise ImportRefused(f"the model cannot be written: {error}") from error


def check_fit(weights: Mapping[str, Tensor], network: NetworkSpec, what: str, remedy: str) -> None:
    """Compares weights with their network, without making it.

    Args:
        weights: by the names of our network.
        network: the network.
        what: what the message begins with.
        remedy: what it says should be done if they differ.

    Raises:
        ImportRefused: they differ, some are not finite, or there is no such network.
    """
    try:
        with torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in build_network(network).state_dict().items()}
    except (ValueError, TypeError, RuntimeError) as error:
        raise ImportRefused(f"{what}: there is no such network: {' '.join(str(error).split())}") from error
    check_shapes(weights, expected, what, remedy)


def check_shapes(
    weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], what: str, remedy: str
) -> None:
    """Compares weights with the shapes that they should have.

    Args:
        weights: by whatever names.
        expected: the shapes, by the same names.
        what, remedy: see check_fit.

    Raises:
        ImportRefused: they differ, or some are not finite.
    """
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wrong := [name for name in {**expected, **given} if expected.get(name) != given.get(name)]:
        name = wrong[0]
        raise ImportRefused(
            f"{what}: {name} is {given.get(name, 'missing')}, expected {expected.get(name, 'none')}"
            f" ({len(wrong)} such difference{'s' * (len(wrong) > 1)}); {remedy}"
        )
    if any(not tensor.isfinite().all() for tensor in weights.values()):
        raise ImportRefused(f"{what}: some weights are not finite; use a checkpoint from before training diverged")


def _provenance(found: Found, target: Target) -> dict[str, Any]:
    origin = found.origin
    licence = {} if target.licence is None else {"licence": target.licence}
    return {
        "command": target.command,
        "family": origin.family,
        "checkpoint": origin.path.name,
        "checkpoint_sha256": origin.digest,
        **licence,
        **origin.facts,
        "parameters": sum(tensor.numel() for tensor in found.weights.values()),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("scoreserve", "torch", "numpy")},
        },
    }
