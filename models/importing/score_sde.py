"""Checkpoints of score_sde_pytorch (Song 2021): NCSN++ and DDPM++ with VE, VP and subVP SDEs.

A file is `{optimizer, model, ema, step}`. State dicts are those of a DataParallel, and the averages are a list without
names, in the order of the parameters that were trained. What network it is stands in a Python file of that code, which
is not executed: the published ones are named here, others are given as JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.card import ImageShape, ModelCard, NetworkSpec
from models.importing.publishing import Found, Origin, Target, check_fit, publish
from models.importing.reading import ImportRefused, is_tensor, read_torch, weights_of
from models.importing.score_sde_config import Config, ModelSection, read_config
from models.parametrisation import Epsilon, OverSigma, Parametrisation, Score
from models.processes import (
    Betas,
    DiscreteVariancePreserving,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from models.samplers.heun import Heun
from models.samplers.settings import SamplerSettings

PIXELS = (-1.0, 1.0)
LEAST_TIME = 1e-5  # that VP and subVP are trained at
LEAST_SAMPLED = 1e-3  # that they are sampled at


def import_score_sde(checkpoint: Path, config: str, target: Target, raw: bool = False) -> tuple[ModelCard, Path]:
    """Publishes a checkpoint of score_sde_pytorch as the next version of a model; returns its card and its directory.

    Args:
        checkpoint: file of `torch.save`.
        config: name of a published configuration, or a JSON file.
        target: where the model goes to.
        raw: whether the weights of the last step are taken rather than their exponential moving average.

    Raises:
        ImportRefused: a file is not what it should be, both do not fit, or they ask for what is not served.
    """
    settings = read_config(config)
    content, digest = read_torch(checkpoint)
    what = f"{checkpoint} does not fit {config}"
    state = _state(checkpoint, content, raw)
    levels = state.pop("sigmas", None)
    if settings.training.sde == "vesde":
        _check_levels(levels, settings.model, what)
    parametrisation, sigma_range, sampler = _process(settings)
    network = _network(settings, parametrisation)
    weights = _by_our_names(state, settings.model, settings.data.image_size)
    check_fit(weights, network, what, "name the configuration that it was trained with")
    if not settings.data.centered and not settings.model.scale_by_sigma:
        # It sees pixels in [-1, 1], but what it returns is the gradient in [0, 1], which is twice that in its own.
        weights |= {name: weights[name] / 2 for name in weights if name.startswith("to_pixels.") and ".conv." in name}
    step = content.get("step")
    facts = {
        "config": settings.model_dump(mode="json"),
        "steps": step if isinstance(step, int) else None,
        "weights": ("of the last step" if raw else "exponential moving average") + ", float32",
    }
    side = settings.data.image_size
    found = Found(
        origin=Origin("score_sde", checkpoint, digest, facts),
        description=f"NCSN++ or DDPM++ (Song 2021) of {settings.data.dataset}, imported from score_sde_pytorch.",
        image=ImageShape(channels=settings.data.num_channels, height=side, width=side),
        network=network,
        weights=weights,
        sigma_range=sigma_range,
        sampler=sampler,
    )
    return publish(found, target)


def _state(path: Path, content: object, raw: bool) -> dict[str, Tensor]:
    """The weights of a checkpoint by their names there, averaged or not, and the buffer `sigmas`.

    Raises:
        ImportRefused: it is no such checkpoint.
    """
    match content:
        case {"model": dict() as state} if raw:
            return weights_of(state, path)
        case {"model": dict() as state, "ema": {"shadow_params": list() as averages}}:
            found = weights_of(state, path)
        case {"model": dict()}:
            raise ImportRefused(f"{path} has no averaged weights: ask for those of the last step (--raw)")
        case _:
            raise ImportRefused(
                f"{path} is no checkpoint of score_sde_pytorch: expected a dict of optimizer, model, ema and step"
            )
    trained = [name for name in found if name not in ("sigmas", "all_modules.0.W")]
    if len(averages) != len(trained):
        raise ImportRefused(
            f"{path} has {len(averages)} averages of {len(trained)} weights; those of the last step can be had (--raw)"
        )
    for name, average in zip(trained, averages, strict=True):
        if not is_tensor(average) or average.shape != found[name].shape:
            raise ImportRefused(f"{path}: the average of {name} is not shaped as it; its weights can be had (--raw)")
        found[name] = average
    return found


def _check_levels(levels: Tensor | None, model: ModelSection, what: str) -> None:
    """Compares the noise levels beside the weights with those of the configuration.

    Raises:
        ImportRefused: they differ; begins with `what`.
    """
    if levels is None:
        return
    expected = np.geomspace(model.sigma_max, model.sigma_min, model.num_scales)
    if levels.shape != expected.shape or not np.allclose(levels.double(), expected, rtol=1e-4, atol=0):
        raise ImportRefused(
            f"{what}: its noise levels (sigmas) are not the {model.num_scales} from {model.sigma_max:g} to "
            f"{model.sigma_min:g}"
        )


def _process(settings: Config) -> tuple[Parametrisation, tuple[float, float], SamplerSettings]:
    """The parametrisation, the noise levels in [0, 1] units, and what runs by default."""
    m = settings.model
    if settings.training.sde == "vesde":  # the network itself makes [-1, 1] of pixels that are not centered
        scale = 2.0 if settings.data.centered else 1.0
        process = VarianceExploding(per=2 / scale)
        kind = OverSigma if m.scale_by_sigma else Score
        sigmas = m.sigma_min / scale, m.sigma_max / scale
        return kind(pixels=PIXELS, process=process), sigmas, Heun(name="heun")
    if not settings.training.continuous:
        betas = Betas(
            schedule="linear",
            steps=m.num_scales,
            start=m.beta_min / m.num_scales,
            end=m.beta_max / m.num_scales,
            single=True,
        )
        discrete = DiscreteVariancePreserving(betas=betas)
        low, high = discrete.range
        return Epsilon(pixels=PIXELS, process=discrete), (low / 2, high / 2), Heun(name="heun")
    if settings.training.sde == "vpsde":
        continuous: VariancePreserving | SubVariancePreserving = VariancePreserving(
            beta_min=m.beta_min, beta_max=m.beta_max
        )
    else:
        continuous = SubVariancePreserving(beta_min=m.beta_min, beta_max=m.beta_max)
    low, high = continuous.level(LEAST_TIME) / 2, continuous.range[1] / 2
    sampler = Heun(name="heun", sigma_min=continuous.level(LEAST_SAMPLED) / 2)
    return Epsilon(pixels=PIXELS, process=continuous), (low, high), sampler


def _network(settings: Config, parametrisation: Parametrisation) -> NetworkSpec:
    m = settings.model
    sides = [settings.data.image_size >> level for level in range(len(m.ch_mult))]
    return NetworkSpec(
        kind="ncsnpp",
        arguments={
            "image_channels": settings.data.num_channels,
            "channels": m.nf,
            "multipliers": list(m.ch_mult),
            "blocks": m.num_res_blocks,
            "attention": [side in m.attn_resolutions for side in sides],
            "kernel": list(m.fir_kernel) if m.fir else [1, 1],
            "picture_in": {"none": None, "input_skip": "skip", "residual": "residual"}[m.progressive_input],
            "pictures_out": m.progressive == "output_skip",
            "rescale": m.skip_rescale,
            "fourier": m.embedding_type == "fourier",
        },
        parametrisation=parametrisation,
    )


BLOCK = {
    "GroupNorm_0": "norm_in",
    "Conv_0": "conv_in",
    "Dense_0": "film",
    "GroupNorm_1": "norm_out",
    "Conv_1": "conv_out",
    "Conv_2": "skip",
}


def _rooms(m: ModelSection, side: int) -> Iterator[tuple[str, str]]:
    """What each of their numbered modules is with us, in their order: its kind and its name. Some have no weights."""
    attends = [side >> level in m.attn_resolutions for level in range(len(m.ch_mult))]
    if m.embedding_type == "fourier":
        yield "fourier", ""
    for name in ("embed.0", "embed.2", "conv_in"):
        yield "plain", name
    yield from _rooms_down(m, attends)
    yield "block", "middle.0"
    yield "attention", "middle.0"
    yield "block", "middle.1"
    yield from _rooms_up(m, attends)


def _rooms_down(m: ModelSection, attends: Sequence[bool]) -> Iterator[tuple[str, str]]:
    down, pictures = count(), count()
    for level, attend in enumerate(attends):
        for _ in range(m.num_res_blocks):
            name = f"down.{next(down)}"
            yield "block", name
            if attend:
                yield "attention", name
        if level < len(attends) - 1:
            yield "block", f"down.{next(down)}"
            if m.progressive_input == "input_skip":
                yield "none", ""
                yield "combine", f"pictures.{next(pictures)}"
            elif m.progressive_input == "residual":
                yield "strided", f"pictures.{next(pictures)}"


def _rooms_up(m: ModelSection, attends: Sequence[bool]) -> Iterator[tuple[str, str]]:
    up, pixels = count(), count()
    for level, attend in reversed(list(enumerate(attends))):
        for _ in range(m.num_res_blocks + 1):
            name = f"up.{next(up)}"
            yield "block", name
        if attend:
            yield "attention", name
        if m.progressive == "output_skip":
            if level < len(attends) - 1:
                yield "none", ""
            number = next(pixels)
            yield "plain", f"to_pixels.{number}.norm"
            yield "plain", f"to_pixels.{number}.conv"
        if level > 0:
            yield "block", f"up.{next(up)}"
    if m.progressive == "none":
        yield "plain", "to_pixels.0.norm"
        yield "plain", "to_pixels.0.conv"


def _by_our_names(state: Mapping[str, Tensor], m: ModelSection, side: int) -> dict[str, Tensor]:
    """Weights by our names; what has no place keeps its own, which check_fit finds to be one too many."""
    rooms = list(_rooms(m, side))
    found: dict[str, Tensor] = {}
    attention: dict[tuple[str, str], dict[int, Tensor]] = {}  # (our name, W or b) -> q, k, v
    for name, tensor in state.items():
        head, _, rest = name.partition(".")
        number, _, weight = rest.partition(".")
        if head != "all_modules" or not number.isdecimal() or int(number) >= len(rooms):
            found[name] = tensor
            continue
        kind, ours = rooms[int(number)]
        layer, _, last = weight.partition(".")
        match kind, layer:
            case "fourier", "W":
                found["frequencies"] = tensor
            case "plain", "weight" | "bias":
                found[f"{ours}.{layer}"] = tensor
            case "block", _ if layer in BLOCK:
                found[f"{ours}.{BLOCK[layer]}.{last}"] = tensor
            case ("combine", "Conv_0") | ("strided", "Conv2d_0"):
                found[f"{ours}.conv.{last}"] = tensor
            case "attention", "GroupNorm_0":
                found[f"{ours}.attention.norm.{last}"] = tensor
            case "attention", "NIN_0" | "NIN_1" | "NIN_2" if last in ("W", "b"):
                attention.setdefault((ours, last), {})[int(layer[-1])] = tensor
            case "attention", "NIN_3" if last in ("W", "b"):
                found[f"{ours}.attention.out.{'weight' if last == 'W' else 'bias'}"] = _pointwise(tensor)
            case _:
                found[name] = tensor
    for (ours, last), parts in attention.items():
        whole = [_pointwise(parts[i]) for i in sorted(parts)]
        if len({part.shape[1:] for part in whole}) == 1:
            found[f"{ours}.attention.qkv.{'weight' if last == 'W' else 'bias'}"] = torch.cat(whole)
    return found


def _pointwise(tensor: Tensor) -> Tensor:
    """What is [in, out] there as a 1x1 convolution [out, in, 1, 1]; a bias stays as it is."""
    return tensor.T[..., None, None] if tensor.ndim == 2 else tensor
