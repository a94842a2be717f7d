"""Checkpoints of diffusers: pipelines of a UNet2DModel with the scheduler of DDPM, DDIM, ScoreSdeVe or consistency.

A repository has the network in `unet/` and its scheduler in `scheduler/`, or, as those of 2022, both in one directory.
The network and the betas are those of the package diffusers, which the importer needs as a worker does.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError
from torch import Tensor

from models import networks
from models.card import ImageShape, ModelCard, NetworkSpec
from models.importing.publishing import Found, Origin, Target, check_fit, publish
from models.importing.reading import ImportRefused, read_json, read_safetensors, read_torch, weights_of
from models.parametrisation import X0, Consistency, Epsilon, Parametrisation, Score, V
from models.processes import Betas, DiscreteVariancePreserving, VarianceExploding
from models.samplers.ancestral import Ancestral
from models.samplers.euler import Euler
from models.samplers.multistep_consistency import MultistepConsistency
from models.samplers.settings import SamplerSettings
from models.sentences import in_one_line

KIND = "diffusers-unet2d"
PIXELS = (-1.0, 1.0)
CONFIGS = (("unet/config.json", "scheduler/scheduler_config.json"), ("config.json", "scheduler_config.json"))
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
AUTOENCODERS = ("vqvae", "vae")
DISCRETE = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
EXPLODING = "ScoreSdeVeScheduler"
CONSISTENT = "CMStochasticIterativeScheduler"
# The keys of the noise range of schedulers that have one, with their defaults, and how many of its units [0, 1] has.
RANGES = {
    EXPLODING: ((("sigma_min", 0.01), ("sigma_max", 1348.0)), 1),
    CONSISTENT: ((("sigma_min", 0.002), ("sigma_max", 80.0)), 2),
}
PREDICTED: dict[str, type[Epsilon | V | X0]] = {"epsilon": Epsilon, "v_prediction": V, "sample": X0}
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}  # theirs, ours
# Layers of attention as repositories of 2022 name them, and as they are named now.
ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
MAX_SIGMA = 1e4  # that a request may ask for
LARGEST_START = 40.0  # sigma_max of the default sampler: EDM's 80, in [0, 1] units; a schedule may know far more


class Repository(NamedTuple):
    """The files of a pipeline, as far as they are served."""

    network: dict[str, Any]
    scheduler: dict[str, Any]
    weights: Path


def import_diffusers(directory: Path, target: Target, null_class: bool = False) -> tuple[ModelCard, Path]:
    """Publishes a pipeline as the next version of a model; returns its card and its directory.

    Args:
        directory: what `save_pretrained` wrote, or a copy of a repository.
        target: where the model goes to.
        null_class: whether the last class stands for none, as where labels were dropped in training.

    Raises:
        ImportRefused: files are missing or damaged, do not fit one another, or ask for what is not served.
    """
    repository = read_repository(directory)
    arguments = _arguments(repository.network)
    try:
        spec = NetworkSpec(kind=KIND, arguments=arguments, parametrisation=_parametrisation(repository))
    except ValidationError as error:
        raise ImportRefused(in_one_line(error, NetworkSpec)) from error
    weights, digest = _weights(repository.weights)
    check_fit(
        weights, spec, f"{repository.weights} does not fit its config.json", "use the one that was saved beside it"
    )
    low, high = _noise_range(repository.scheduler, spec)
    classes = arguments.get("num_class_embeds")
    if classes is None and null_class:
        raise ImportRefused(f"{directory} has no classes, so the last of them cannot stand for none")
    names = None if classes is None else tuple(map(str, range(classes - null_class)))
    facts = {"config": repository.network, "scheduler": repository.scheduler}
    found = Found(
        origin=Origin("diffusers", repository.weights, digest, facts),
        description="A UNet2DModel of diffusers, imported.",
        image=_image(repository.network),
        network=spec,
        weights=weights,
        sigma_range=(low, min(high, MAX_SIGMA)),
        sampler=_sampler(repository, min(high, MAX_SIGMA)),
        classes=names,
        needs_label=classes is not None and not null_class,
    )
    return publish(found, target)


def read_repository(directory: Path) -> Repository:
    """The configurations in a directory, and where its weights are.

    Raises:
        ImportRefused: it is no pipeline of a UNet2DModel in pixels.
    """
    index = read_json(directory / "model_index.json") if (directory / "model_index.json").is_file() else {}
    if latent := [name for name in AUTOENCODERS if name in index]:
        raise ImportRefused(f"{directory} works in the latents of an autoencoder ({latent[0]}), which are not served")
    layouts = [layout for layout in CONFIGS if (directory / layout[0]).is_file()]
    if not layouts:
        raise ImportRefused(f"{directory} is no pipeline of diffusers: it has neither unet/config.json nor config.json")
    network, scheduler = layouts[0]
    config, schedule = read_json(directory / network), read_json(directory / scheduler)
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise ImportRefused(f"{directory / network} is of a {kind}; only UNet2DModel is served")
    if not schedule.get("_class_name") and isinstance(index.get("scheduler"), list):
        schedule["_class_name"] = index["scheduler"][-1]
    weights = [path for name in WEIGHTS if (path := (directory / network).with_name(name)).is_file()]
    if not weights:
        raise ImportRefused(f"{(directory / network).parent} has no weights: expected {' or '.join(WEIGHTS)}")
    return Repository(config, schedule, weights[0])


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of UNet2DModel.

    Raises:
        ImportRefused: diffusers is not here, or some are unknown to it or not served.
    """
    try:
        networks.load(KIND)
    except networks.UnknownNetwork as error:
        raise ImportRefused(str(error)) from error
    from diffusers import UNet2DModel  # noqa: PLC0415 (an extra)

    known = inspect.signature(UNet2DModel.__init__).parameters
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    if unknown := [name for name in arguments if name not in known]:
        raise ImportRefused(f"config.json has {', '.join(unknown)}, which UNet2DModel does not know here")
    if arguments.get("class_embed_type") is not None:
        raise ImportRefused(f"class_embed_type is {arguments['class_embed_type']!r}; only null is served")
    channels, made = arguments.get("in_channels", 3), arguments.get("out_channels", 3)
    if made not in (channels, 2 * channels):
        raise ImportRefused(f"the network takes {channels} channels and returns {made}: it is no score of its images")
    return arguments


def _parametrisation(repository: Repository) -> Parametrisation:
    """What the network returns, by its scheduler.

    Raises:
        ImportRefused: the scheduler is not served, or not with this network.
    """
    config, kind = repository.scheduler, repository.scheduler.get("_class_name")
    exploding = repository.network.get("time_embedding_type", "positional") == "fourier"
    served = (*DISCRETE, EXPLODING, CONSISTENT)
    if kind not in served:
        raise ImportRefused(f"the scheduler is a {kind}; those served are {', '.join(served)}")
    if exploding != (kind == EXPLODING):
        embedding = "fourier" if exploding else "positional"
        raise ImportRefused(f"a {kind} does not go with a network of time_embedding_type {embedding}")
    if exploding:
        return Score(process=VarianceExploding(label="sigma"))  # of pixels in [0, 1]
    if kind == CONSISTENT:
        return Consistency.model_validate(
            {"data_std": config.get("sigma_data", 0.5), "s_min": config.get("sigma_min", 0.002), "pixels": PIXELS}
        )
    predicted = config.get("prediction_type", "epsilon")
    if predicted not in PREDICTED:
        raise ImportRefused(f"prediction_type is {predicted!r}; those served are {', '.join(PREDICTED)}")
    return PREDICTED[predicted](process=_process(config), pixels=PIXELS)


def _process(config: Mapping[str, Any]) -> DiscreteVariancePreserving:
    """The process of a scheduler, by the name of its schedule where that gives its levels, and else by all of them.

    Raises:
        ImportRefused: diffusers makes no schedule of it.
    """
    import diffusers  # noqa: PLC0415 (an extra)

    try:
        with _quiet():
            scheduler = getattr(diffusers, config["_class_name"]).from_config(dict(config))
        products = scheduler.alphas_cumprod.double().numpy()
    except Exception as error:  # of whatever is wrong first
        raise ImportRefused(f"the scheduler has no schedule: {' '.join(str(error).split())}") from error
    told = scheduler.config
    if name := SCHEDULES.get(told.beta_schedule):
        ends = {"start": told.beta_start, "end": told.beta_end}
        named = Betas.model_validate({"schedule": name, "steps": len(products), **ends, "single": True})
        if np.allclose(named.products(), products, rtol=1e-5, atol=0):
            return DiscreteVariancePreserving(betas=named)
    products = products[products > 0]  # a schedule that ends without any signal has no noise level there
    return DiscreteVariancePreserving(alphas_cumprod=tuple(products.tolist()))


def _noise_range(scheduler: Mapping[str, Any], spec: NetworkSpec) -> tuple[float, float]:
    """The least and the largest noise level, in [0, 1] units.

    Raises:
        ImportRefused: the scheduler says something else than numbers.
    """
    kind = scheduler["_class_name"]
    if kind not in RANGES:
        return spec.parametrised(None).range
    keys, scale = RANGES[kind]
    low, high = (scheduler.get(*key) for key in keys)
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise ImportRefused(f"sigma_min and sigma_max are {low!r} and {high!r}: expected numbers")
    return low / scale, high / scale


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what diffusers logs of fields that another scheduler has."""
    log = logging.getLogger("diffusers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The weights by today's names, and the file's sha256.

    Raises:
        ImportRefused: the file is damaged, or holds something else.
    """
    content, digest = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if not isinstance(content, Mapping):
        raise ImportRefused(f"{path} is no state dict")
    return {_todays(name): tensor for name, tensor in weights_of(content, path).items()}, digest


def _todays(name: str) -> str:
    """Today's name of a weight."""
    place, _, leaf = name.rpartition(".")
    module, _, layer = place.rpartition(".")
    if ".attentions." in f".{module}." and layer in ATTENTION:
        return f"{module}.{ATTENTION[layer]}.{leaf}"
    return name


def _image(config: Mapping[str, Any]) -> ImageShape:
    size = config.get("sample_size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    levels = len(config.get("block_out_channels", (1, 1, 1, 1)))
    for side in (height, width):
        if not isinstance(side, int) or side < 1 or side % 2 ** (levels - 1):
            raise ImportRefused(
                f"sample_size is {size} in config.json: expected the side of the images, a multiple of "
                f"{2 ** (levels - 1)} for this network, or height and width"
            )
    return ImageShape(channels=config.get("in_channels", 3), height=height, width=width)


def _sampler(repository: Repository, sigma_max: float) -> SamplerSettings:
    if repository.scheduler["_class_name"] == CONSISTENT:
        return MultistepConsistency(name="multistep_consistency")
    if repository.scheduler["_class_name"] == EXPLODING:
        return Ancestral(name="ancestral", levels=200)
    return Euler(name="euler", levels=50, sigma_max=min(sigma_max, LARGEST_START))
