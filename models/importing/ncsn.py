"""Checkpoints of the official code of NCSN (Song & Ermon 2019) and NCSNv2 (Song & Ermon 2020).

NCSN saves `[state dict, optimizer]`, NCSNv2 `[state dict, optimizer, epoch, step]` and, if it keeps one, the
exponential moving average of the weights. State dicts are those of a DataParallel; the average has neither its prefix
`module.` nor the buffer `sigmas`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from models import schedules
from models.card import ImageShape, ModelCard, NetworkSpec
from models.importing.config import ConfigRefused, OfficialConfig, SamplingSection, read_config
from models.importing.publishing import Found, Origin, Target, check_fit, publish
from models.importing.reading import ImportRefused, is_tensor, read_torch, unwrapped, weights_of
from models.networks.refinenet import STAGES
from models.samplers.annealed_langevin import AnnealedLangevin

NCSN_SAMPLING = SamplingSection(n_steps_each=100, step_lr=2e-5, denoise=False)  # constants in the code of NCSN

Kind = Literal["refinenet-v1", "refinenet-v2"]

# How the official code numbers our stages, and our refining blocks: "31" was put between others later.
STAGE_NUMBERS = {
    4: ("1", "2", "3", "4"),
    5: ("1", "2", "3", "4", "5"),
    6: ("1", "2", "3", "31", "4", "5"),
}
REFINE_NUMBERS = {
    4: ("1", "2", "3", "4"),
    5: ("1", "2", "3", "4", "5"),
    6: ("1", "2", "31", "3", "4", "5"),
}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds, as far as it is served.

    Args:
        weights: by our names, float32.
        kind, stages: of the network they belong to.
        sigmas: the noise levels [levels] beside the weights; None where the code saves none.
        averaged: whether these are the exponential moving averages.
        step: steps that it was trained for; None where the code saves none.
        digest: sha256 of the file.
    """

    weights: dict[str, Tensor]
    kind: Kind
    stages: int
    sigmas: Tensor | None
    averaged: bool
    step: int | None
    digest: str


def import_ncsn(checkpoint: Path, config: Path, target: Target, raw: bool = False) -> tuple[ModelCard, Path]:
    """Publishes an official checkpoint as the next version of a model; returns its card and its directory.

    Args:
        checkpoint: file of `torch.save`, of either code; only tensors and plain containers are read from it.
        config: the YAML file beside it.
        target: where the model goes to.
        raw: whether the weights of the last step are taken rather than their exponential moving average.

    Raises:
        ImportRefused: a file is not what it should be, both do not fit, or they ask for what is not served.
    """
    try:
        settings = read_config(config)
    except ConfigRefused as error:
        raise ImportRefused(str(error)) from error
    read = read_checkpoint(checkpoint, raw)
    spec = _spec(read, settings)
    levels = schedules.geometric(settings.model.sigma_begin, settings.model.sigma_end, settings.model.num_classes)
    what = f"{checkpoint} does not fit {config}"
    check_fit(read.weights, spec, what, "use the configuration that was saved beside the checkpoint")
    _check_levels(read, levels, what)
    facts = {
        "config": settings.model_dump(mode="json"),
        "steps": read.step,
        "weights": ("exponential moving average" if read.averaged else "of the last step") + ", float32",
    }
    found = Found(
        origin=Origin("ncsn", checkpoint, read.digest, facts),
        description=_description(read, settings),
        image=_image(read, settings),
        network=spec,
        weights=read.weights,
        sigma_range=(levels[-1], levels[0]),
        sigmas=tuple(levels) if spec.kind == "refinenet-v1" else None,
        sampler=_sampler(read, settings),
    )
    return publish(found, target)


def read_checkpoint(path: Path, raw: bool) -> Checkpoint:
    """Reads a checkpoint of either code, told apart by what is in it.

    Raises:
        ImportRefused: the file is damaged, is no such checkpoint, or has no moving average and `raw` is not set.
    """
    loaded, digest = read_torch(path)
    match loaded:
        case [dict() as weights, dict()]:
            averaged, step = False, None
        case [dict() as weights, dict(), int(), int() as step, *_] if raw:
            averaged = False
        case [dict(), dict(), int(), int() as step, dict() as weights]:
            averaged = True
        case [dict(), dict(), int(), int()]:
            raise ImportRefused(f"{path} has no averaged weights: ask for those of the last step (--raw)")
        case _:
            raise ImportRefused(
                f"{path} is no checkpoint of the official code: expected a list of a state dict and an optimizer "
                "(NCSN), and of epoch, step and averaged weights besides (NCSNv2)"
            )
    found = weights_of(weights, path)
    found.pop("sigmas", None)  # taken from the state dict, since averages lack them
    kind, stages = _recognise(found, path)
    sigmas = next((value for name, value in loaded[0].items() if unwrapped(str(name)) == "sigmas"), None)
    return Checkpoint(
        weights={_our_name(name, stages): value for name, value in found.items()},
        kind=kind,
        stages=stages,
        sigmas=sigmas if is_tensor(sigmas) else None,
        averaged=averaged,
        step=step,
        digest=digest,
    )


def _recognise(weights: Mapping[str, Tensor], path: Path) -> tuple[Kind, int]:
    """The kind of network that weights belong to, and its stages, from what only some have."""
    modules = {name.partition(".")[0] for name in weights}
    stages = 6 if "res31" in modules else 5 if "res5" in modules else 4
    if "normalizer.embed.weight" in weights:
        return "refinenet-v1", stages
    if "normalizer.alpha" in weights:
        return "refinenet-v2", stages
    raise ImportRefused(
        f"{path} holds the weights of no network that is served; those are CondRefineNetDilated (NCSN), NCSNv2, "
        "NCSNv2Deeper and NCSNv2Deepest, with InstanceNorm++"
    )


def _our_name(name: str, stages: int) -> str:
    """Our name of a weight: the official one, but for the numbers of stages and refining blocks."""
    for theirs, ours, numbers in (("res", "stages", STAGE_NUMBERS), ("refine", "refine", REFINE_NUMBERS)):
        head, _, rest = name.partition(".")
        number = head.removeprefix(theirs)
        if head != number and number in numbers[stages]:
            return f"{ours}.{numbers[stages].index(number)}.{rest}"
    return name


def _spec(found: Checkpoint, settings: OfficialConfig) -> NetworkSpec:
    arguments: dict[str, JsonValue] = {
        "image_channels": settings.data.channels,
        "ngf": settings.model.ngf,
        "stages": found.stages,
    }
    if found.kind == "refinenet-v1":
        arguments["levels"] = settings.model.num_classes
    return NetworkSpec(kind=found.kind, arguments=arguments)


def _check_levels(found: Checkpoint, levels: Sequence[float], what: str) -> None:
    """Compares the noise levels beside the weights with those of the configuration.

    Raises:
        ImportRefused: they differ; begins with `what`.
    """
    if found.kind == "refinenet-v2" or found.sigmas is not None:
        theirs = torch.empty(0) if found.sigmas is None else found.sigmas
        if theirs.shape != (len(levels),) or not np.allclose(theirs.double(), levels, rtol=1e-4, atol=0):
            raise ImportRefused(
                f"{what}: its noise levels (sigmas) are not the {len(levels)} from sigma_begin to sigma_end"
            )


def _image(found: Checkpoint, settings: OfficialConfig) -> ImageShape:
    side, multiple = settings.data.image_size, 2 ** sum(shape.shrinks for shape in STAGES[found.stages])
    if side % multiple or side == multiple:
        raise ImportRefused(f"data.image_size is {side}; this network takes multiples of {multiple} above {multiple}")
    return ImageShape(channels=settings.data.channels, height=side, width=side)


def _sampler(found: Checkpoint, settings: OfficialConfig) -> AnnealedLangevin:
    """The authors' schedule. Their code steps by alpha where the paper and our tables step by alpha / 2."""
    sampling = settings.sampling or (NCSN_SAMPLING if found.kind == "refinenet-v1" else None)
    if sampling is None:
        raise ImportRefused("the configuration has no section `sampling`, which that of an NCSNv2 has")
    return AnnealedLangevin(
        levels=settings.model.num_classes,
        steps_per_level=sampling.n_steps_each,
        step_size=2 * sampling.step_lr,
        denoise=sampling.denoise,
    )


def _description(found: Checkpoint, settings: OfficialConfig) -> str:
    paper = {"refinenet-v1": "NCSN (Song & Ermon 2019)", "refinenet-v2": "NCSNv2 (Song & Ermon 2020)"}[found.kind]
    return f"{paper} of {settings.data.dataset}, imported from a checkpoint of the authors' code."
