"""Checkpoints of EDM (Karras 2022), `network-snapshot-*.pkl`: NCSN++, DDPM++ and ADM under three preconditionings.

The networks are made anew, from the arguments of the constructors that stand beside the weights.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from models.card import ImageShape, ModelCard, NetworkSpec
from models.importing.edm_pickle import Module, mapping, read_ema
from models.importing.publishing import Found, Origin, Target, check_fit, publish
from models.importing.reading import ImportRefused, read_bytes
from models.parametrisation import Edm, Epsilon, OverSigma, Parametrisation
from models.processes import VarianceExploding, VariancePreserving
from models.samplers.heun import Heun
from models.sentences import in_one_line

SAMPLED = (0.002, 80.0)  # noise levels between which the authors sample, for pixels in [-1, 1]
PIXELS = (-1.0, 1.0)


class _Arguments(BaseModel):
    """Arguments of constructors, of which those that decide nothing here are not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Wrapper(_Arguments):
    """What every preconditioning is told."""

    img_resolution: int = Field(ge=1, le=4096)
    img_channels: int = Field(ge=1, le=4)
    label_dim: int = Field(0, ge=0, le=100_000)
    model_type: str = "DhariwalUNet"
    sigma_data: float = Field(0.5, gt=0, allow_inf_nan=False)
    sigma_min: float | None = Field(None, ge=0, allow_inf_nan=False)
    sigma_max: float | None = Field(None, gt=0)
    beta_d: float = Field(19.9, gt=0, allow_inf_nan=False)
    beta_min: float = Field(0.1, gt=0, allow_inf_nan=False)
    M: int = Field(1000, ge=2)
    epsilon_t: float = Field(1e-5, gt=0, lt=1)


class _UNet(_Arguments):
    """What both networks are told."""

    model_channels: int = Field(ge=4, le=2048)
    channel_mult: list[Annotated[int, Field(ge=1, le=256)]] = Field(min_length=1, max_length=12)
    num_blocks: int = Field(ge=1, le=64)
    attn_resolutions: list[int]
    label_dropout: float = 0.0

    def attention(self, side: int) -> list[bool]:
        """Whether each resolution has self-attention, for images of a side.

        Raises:
            ValueError: the side cannot be halved so often.
        """
        halvings = len(self.channel_mult) - 1
        if side % (1 << halvings):
            raise ValueError(f"images of side {side} cannot be halved {halvings} times")
        return [side >> level in self.attn_resolutions for level in range(halvings + 1)]


class _DhariwalUNet(_UNet):
    """Arguments of ADM, with the values that its constructor has where they are missing."""

    model_channels: int = Field(192, ge=4, le=2048)
    channel_mult: list[Annotated[int, Field(ge=1, le=256)]] = Field([1, 2, 3, 4], min_length=1, max_length=12)
    channel_mult_emb: Literal[4] = 4
    num_blocks: int = Field(3, ge=1, le=64)
    attn_resolutions: list[int] = [32, 16, 8]


class _SongUNet(_UNet):
    """Arguments of NCSN++ and DDPM++, with the values that their constructor has where they are missing."""

    model_channels: int = Field(128, ge=4, le=2048)
    channel_mult: list[Annotated[int, Field(ge=1, le=256)]] = Field([1, 2, 2, 2], min_length=1, max_length=12)
    channel_mult_emb: int = Field(4, ge=1, le=64)
    channel_mult_noise: int = Field(1, ge=1, le=64)
    num_blocks: int = Field(4, ge=1, le=64)
    attn_resolutions: list[int] = [16]
    embedding_type: Literal["positional", "fourier"] = "positional"
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: list[float] = Field([1, 1], max_length=64)


def import_edm(checkpoint: Path, target: Target) -> tuple[ModelCard, Path]:
    """Publishes a checkpoint of EDM as the next version of a model; returns its card and its directory.

    Args:
        checkpoint: the pickle. Of what is in it, the averaged weights are taken; there are no others.
        target: where the model goes to.

    Raises:
        ImportRefused: it is no such file, or of a network that is not served.
    """
    data, digest = read_bytes(checkpoint)
    ema = read_ema(checkpoint, data)
    inner = mapping(ema.state.get("_modules", {})).get("model")
    if not isinstance(inner, Module):
        raise ImportRefused(f"{checkpoint} has no network inside its {ema.kind}")
    try:
        arguments = dict(mapping(ema.state.get("_init_kwargs", {})))
        wrapper = _Wrapper.model_validate(arguments)
        parametrisation, sigmas = _parametrisation(ema.kind, wrapper)
        network, weights, label_dropout = _network(inner, wrapper, arguments, parametrisation)
    except ValidationError as error:
        raise ImportRefused(f"{checkpoint} asks for what is not served: {in_one_line(error)}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ImportRefused(f"{checkpoint}: {error}") from error
    check_fit(weights, network, f"{checkpoint} is not what it says it is", "take the file as it was published")
    classes = tuple(str(i) for i in range(wrapper.label_dim)) or None
    found = Found(
        origin=Origin("edm", checkpoint, digest, {"arguments": _told(arguments), "weights": "moving average, float32"}),
        description=f"{inner.kind} with {ema.kind} (Karras 2022), imported from a checkpoint of EDM.",
        image=ImageShape(channels=wrapper.img_channels, height=wrapper.img_resolution, width=wrapper.img_resolution),
        network=network,
        weights=weights,
        sigma_range=(sigmas[0] / 2, sigmas[1] / 2),
        sampler=Heun(
            name="heun", levels=18, sigma_min=max(sigmas[0], SAMPLED[0]) / 2, sigma_max=min(sigmas[1], SAMPLED[1]) / 2
        ),
        classes=classes,
        needs_label=classes is not None and label_dropout == 0,
    )
    return publish(found, target)


def _parametrisation(kind: str, w: _Wrapper) -> tuple[Parametrisation, tuple[float, float]]:
    """What a preconditioning of EDM is here, and its noise levels for pixels in [-1, 1] (Karras 2022, Table 1)."""
    match kind:
        case "EDMPrecond":
            low, high = max(w.sigma_min or 0.0, SAMPLED[0]), min(w.sigma_max or math.inf, SAMPLED[1])
            return Edm(pixels=PIXELS, data_std=w.sigma_data), (low, high)
        case "VPPrecond":
            process = VariancePreserving(beta_min=w.beta_min, beta_max=w.beta_min + w.beta_d, times=w.M - 1)
            return Epsilon(pixels=PIXELS, process=process), (process.level(w.epsilon_t), process.range[1])
        case "VEPrecond":
            low, high = w.sigma_min or 0.02, w.sigma_max or 100.0
            return OverSigma(pixels=PIXELS, process=VarianceExploding(per=2)), (low, high)
    raise ValueError(f"{kind} is not served; those are EDMPrecond, VPPrecond and VEPrecond")


def _network(
    inner: Module, wrapper: _Wrapper, arguments: Mapping[str, Any], parametrisation: Parametrisation
) -> tuple[NetworkSpec, dict[str, Tensor], float]:
    """Our network, its weights by our names, and how often it was trained without a label.

    Raises:
        ValueError: it is not served, or something else than it says; the message says which.
    """
    told = {**arguments, **mapping(inner.state.get("_init_kwargs", {}))}
    if inner.kind == "SongUNet":
        song = _SongUNet.model_validate(told)
        spec = _song(song, wrapper, parametrisation)
        weights = _weights(inner, song.resample_filter)
        if song.embedding_type == "positional":
            weights.pop("frequencies", None)  # which are fixed
        return spec, weights | _classes(weights, song=True), song.label_dropout
    if inner.kind == "DhariwalUNet":
        dhariwal = _DhariwalUNet.model_validate(told)
        weights = _weights(inner, [1, 1])
        spec = _dhariwal(dhariwal, wrapper, parametrisation)
        return spec, weights | _classes(weights, song=False), dhariwal.label_dropout
    raise ValueError(f"{inner.kind} is not served; those are SongUNet and DhariwalUNet")


def _song(a: _SongUNet, wrapper: _Wrapper, parametrisation: Parametrisation) -> NetworkSpec:
    return NetworkSpec(
        kind="ncsnpp",
        arguments={
            "image_channels": wrapper.img_channels,
            "channels": a.model_channels,
            "multipliers": list(a.channel_mult),
            "blocks": a.num_blocks,
            "attention": list(a.attention(wrapper.img_resolution)),
            "kernel": list(a.resample_filter),
            "picture_in": None if a.encoder_type == "standard" else a.encoder_type,
            "pictures_out": a.decoder_type == "skip",
            "rescale": True,
            "fourier": a.embedding_type == "fourier",
            "noise_channels": a.model_channels * a.channel_mult_noise,
            "embedding": a.model_channels * a.channel_mult_emb,
            "classes": wrapper.label_dim,
        },
        parametrisation=parametrisation,
    )


def _dhariwal(a: _DhariwalUNet, wrapper: _Wrapper, parametrisation: Parametrisation) -> NetworkSpec:
    return NetworkSpec(
        kind="adm",
        arguments={
            "image_channels": wrapper.img_channels,
            "channels": a.model_channels,
            "multipliers": list(a.channel_mult),
            "blocks": a.num_blocks,
            "attention": list(a.attention(wrapper.img_resolution)),
            "head_channels": 64,
            "classes": wrapper.label_dim or None,
            "film": True,
            "resample": "blocks",
            "group_channels": 4,
        },
        parametrisation=parametrisation,
    )


BLOCK = {
    "norm0": "norm_in",
    "conv0": "conv_in",
    "affine": "film",
    "norm1": "norm_out",
    "conv1": "conv_out",
    "skip": "skip",
    "norm2": "attention.norm",
    "qkv": "attention.qkv",
    "proj": "attention.out",
}


def _weights(inner: Module, taps: list[float]) -> dict[str, Tensor]:
    """Weights by our names, but for classes. Their modules stand in the order in which they run, named by their roles.

    What has no place with us keeps its name, which check_fit finds to be one too many.
    """
    found: dict[str, Tensor] = {}
    rooms: dict[str, dict[str, int]] = {}  # of ours -> their modules in it, with their numbers

    def place(module: str, room: str) -> str:
        numbers = rooms.setdefault(room, {})
        return f"{room}.{numbers.setdefault(module, len(numbers))}"

    for name, tensor in inner.tensors():
        if name.endswith("resample_filter"):
            _check_filter(name, tensor, taps)
            continue
        side, _, rest = name.partition(".")
        module, _, weight = rest.partition(".")
        role = module.partition("_")[2]
        match side, role:
            case "map_augment", _:  # only training told it how a picture was changed
                continue
            case "map_noise", _ if module == "freqs":
                found["frequencies"] = tensor
            case "map_layer0" | "map_layer1", _:
                found[f"embed.{2 * int(side[-1])}.{rest}"] = tensor
            case "out_norm" | "out_conv", _:
                found[f"{side.removeprefix('out_')}_out.{rest}"] = tensor
            case "enc", "conv":
                found[f"conv_in.{weight}"] = tensor
            case "enc", "aux_residual" | "aux_skip":
                found[f"{place(module, 'pictures')}.conv.{weight}"] = tensor
            case "dec", "aux_norm" | "aux_conv":
                level = place(module.removesuffix(role), "to_pixels")
                found[f"{level}.{role.removeprefix('aux_')}.{weight}"] = tensor
            case "enc" | "dec", _:
                room = "down" if side == "enc" else "middle" if role.startswith("in") else "up"
                layer, _, last = weight.partition(".")
                value = _interleaved(tensor) if layer == "qkv" else tensor
                found[f"{place(module, room)}.{BLOCK.get(layer, layer)}.{last}"] = value
            case _:
                found[name] = tensor
    return found


def _classes(weights: dict[str, Tensor], song: bool) -> dict[str, Tensor]:
    """What each class adds to what the network is told, from the weights, of which it is taken.

    Labels were one-hot, and none was all zeros. Those of NCSN++ and DDPM++ were multiplied by sqrt(classes), and have a
    bias; ours knows a last row besides, which is what none of the classes adds.
    """
    weight = weights.pop("map_label.weight", None)
    if weight is None or weight.ndim != 2:
        return {}
    rows = weight.T
    if song:
        rows = torch.cat([rows * math.sqrt(len(rows)), torch.zeros_like(rows[:1])])
        bias = weights.pop("map_label.bias", None)
        rows = rows if bias is None or bias.shape != rows.shape[1:] else rows + bias
    return {"embed_class.weight": rows}


def _told(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a card can have them: numbers, texts, and lists of them."""

    def plain(value: object) -> bool:
        return value is None or isinstance(value, bool | int | float | str)

    return {
        str(name): value
        for name, value in arguments.items()
        if plain(value) or (isinstance(value, list | tuple) and all(map(plain, value)))
    }


def _interleaved(tensor: Tensor) -> Tensor:
    """Rows (channel, q k v) in the order (q k v, channel)."""
    if len(tensor) % 3:
        raise ValueError(f"the {len(tensor)} rows of attention are not those of q, k and v")
    return tensor.reshape(-1, 3, *tensor.shape[1:]).transpose(0, 1).flatten(0, 1)


def _check_filter(name: str, tensor: Tensor, taps: list[float]) -> None:
    kernel = torch.tensor(taps, dtype=torch.float32)
    expected = (kernel.outer(kernel) / kernel.sum() ** 2)[None, None]
    if tensor.shape != expected.shape or not torch.allclose(tensor.float(), expected):
        raise ValueError(f"{name} is not the filter {taps} that it says it is")
