"""Checkpoints of EDM (Karras 2022), `network-snapshot-*.pkl`: pickles that carry their own source code.

Unpickled as their authors do it, they execute it. Here they are read by an unpickler that knows the few names which
such a file needs, calls harmless stand-ins for them, and never looks at the source. The networks are made anew from
the arguments that stand beside the weights.
"""

import io
import json
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from models.card import ImageShape, ModelCard, NetworkSpec
from models.importing.publishing import Found, Origin, Target, check_fit, in_one_line, publish
from models.importing.reading import NUMPY, ImportRefused, is_tensor, read_bytes, tensors_of
from models.parametrisation import Edm, Epsilon, OverSigma, Parametrisation, VarianceExploding, VariancePreserving
from models.samplers.heun import Heun

SAMPLED = (0.002, 80.0)  # noise levels between which the authors sample, for pixels in [-1, 1]
PIXELS = (-1.0, 1.0)


class Module:
    """Stands for a module of torch or of EDM: what it holds, and nothing that it does."""

    def __init__(self, kind: str, state: Mapping[str, Any]) -> None:
        self.kind, self.state = kind, state

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All parameters and buffers with their names, those of inner modules included."""
        for part in ("_parameters", "_buffers"):
            for name, value in _mapping(self.state.get(part, {})).items():
                if value is not None:
                    if not is_tensor(value):
                        raise ValueError(f"{prefix}{name} is no tensor of floating-point numbers")
                    yield f"{prefix}{name}", value
        for name, inner in _mapping(self.state.get("_modules", {})).items():
            if not isinstance(inner, Module | Container):
                raise ValueError(f"{prefix}{name} is no module")
            yield from inner.tensors(f"{prefix}{name}.")


class Container(Module):
    """Stands for `torch.nn.ModuleDict`, which a pickle makes empty and fills afterwards."""

    def __init__(self) -> None:
        super().__init__("ModuleDict", {})

    def __setstate__(self, state: object) -> None:
        self.state = _mapping(state)


class Called:
    """Stands for a function: it can be called, and nothing in a file can change it."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function cannot be changed")


def _persistent(described: object) -> Module:
    described = _mapping(described)
    return Module(str(described["class_name"]), _mapping(described["state"]))


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    rebuilt: Tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)  # type: ignore[no-untyped-call]
    return rebuilt


NAMES: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": tensors_of,
    **NUMPY,
}


class Reader(pickle.Unpickler):
    """Reads a pickle of EDM. Every name but those few is refused, whatever would be done with it."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "torch.nn.modules.container.ModuleDict":
            return type("ModuleDict", (Container,), {})  # a new one, so that nothing is left of what a file does to it
        if full in ("collections.OrderedDict", "dnnlib.util.EasyDict"):
            return OrderedDict
        if full not in NAMES:
            raise pickle.UnpicklingError(f"it names {full}, which no checkpoint of EDM needs")
        return Called(NAMES[full])


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


class _SongUNet(_Arguments):
    """Arguments of NCSN++ and DDPM++."""

    model_channels: int = Field(128, ge=4, le=2048)
    channel_mult: list[int] = Field([1, 2, 2, 2], min_length=1, max_length=12)
    channel_mult_emb: int = Field(4, ge=1, le=64)
    channel_mult_noise: int = Field(1, ge=1, le=64)
    num_blocks: int = Field(4, ge=1, le=64)
    attn_resolutions: list[int] = [16]
    label_dropout: float = 0.0
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
    ema = _read(checkpoint, data)
    inner = _mapping(ema.state.get("_modules", {})).get("model")
    if not isinstance(inner, Module):
        raise ImportRefused(f"{checkpoint} has no network inside its {ema.kind}")
    try:
        arguments = dict(_mapping(ema.state.get("_init_kwargs", {})))
        told = json.loads(json.dumps(arguments, default=lambda value: type(value).__name__))
        wrapper = _Wrapper.model_validate(arguments)
        parametrisation, sigmas = _parametrisation(ema.kind, wrapper)
        network, weights, label_dropout = _song(inner, wrapper, arguments, parametrisation)
    except ValidationError as error:
        raise ImportRefused(f"{checkpoint} asks for what is not served: {in_one_line(error)}") from error
    except (ValueError, TypeError) as error:
        raise ImportRefused(f"{checkpoint}: {error}") from error
    check_fit(weights, network, f"{checkpoint} is not what it says it is", "take the file as it was published")
    classes = tuple(str(i) for i in range(wrapper.label_dim)) or None
    found = Found(
        origin=Origin("edm", checkpoint, digest, {"arguments": told, "weights": "moving average, float32"}),
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


def _read(path: Path, data: bytes) -> Module:
    """The averaged network of a pickle.

    Raises:
        ImportRefused: it is no such pickle.
    """
    try:
        content = Reader(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        raise ImportRefused(f"{path} cannot be read: {error}") from error
    except Exception as error:  # damaged and hostile pickles fail in any way they like; the reason can be misleading
        raise ImportRefused(f"{path} cannot be read: it is truncated, or no pickle of EDM") from error
    ema = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(ema, Module):
        raise ImportRefused(f"{path} is no checkpoint of EDM: there is no network `ema` in it")
    return ema


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


def _song(
    inner: Module, wrapper: _Wrapper, arguments: Mapping[str, Any], parametrisation: Parametrisation
) -> tuple[NetworkSpec, dict[str, Tensor], float]:
    """NCSN++ and DDPM++: our network, its weights by our names, and how often it was trained without a label."""
    if inner.kind != "SongUNet":
        raise ValueError(f"{inner.kind} is not served; those are SongUNet and DhariwalUNet")
    a = _SongUNet.model_validate({**arguments, **_mapping(inner.state.get("_init_kwargs", {}))})
    resolutions = [wrapper.img_resolution >> level for level in range(len(a.channel_mult))]
    if wrapper.img_resolution % (1 << (len(resolutions) - 1)):
        raise ValueError(f"images of side {wrapper.img_resolution} cannot be halved {len(resolutions) - 1} times")
    spec = NetworkSpec(
        kind="ncsnpp",
        arguments={
            "image_channels": wrapper.img_channels,
            "channels": a.model_channels,
            "multipliers": list(a.channel_mult),
            "blocks": a.num_blocks,
            "attention": [resolution in a.attn_resolutions for resolution in resolutions],
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
    return spec, _song_weights(inner, a), a.label_dropout


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


def _song_weights(inner: Module, a: _SongUNet) -> dict[str, Tensor]:
    """By our names. Their modules stand in the order in which they run, named by resolution and role."""
    theirs = dict(inner.tensors())
    found: dict[str, Tensor] = {}
    counts = {"down": 0, "middle": 0, "up": 0, "pictures": 0, "to_pixels": 0}
    places: dict[str, str] = {}  # of their modules -> of ours

    def place(module: str, room: str) -> str:
        if module not in places:
            places[module] = f"{room}.{counts[room]}"
            counts[room] += 1
        return places[module]

    for name, tensor in theirs.items():
        if name.endswith("resample_filter"):
            _check_filter(name, tensor, a.resample_filter)
            continue
        side, _, rest = name.partition(".")
        module, _, weight = rest.partition(".")
        role = module.partition("_")[2]
        if name.startswith("map_augment.") or side == "map_label":
            continue  # only training told it how a picture was changed; classes come below
        if name == "map_noise.freqs":
            if a.embedding_type == "fourier":
                found["frequencies"] = tensor
        elif side in ("map_layer0", "map_layer1"):
            found[f"embed.{2 * int(side[-1])}.{rest}"] = tensor
        elif side == "enc" and role == "conv":
            found[f"conv_in.{weight}"] = tensor
        elif side == "enc" and role in ("aux_residual", "aux_skip"):
            found[f"{place(module, 'pictures')}.conv.{weight}"] = tensor
        elif side == "dec" and role in ("aux_norm", "aux_conv"):
            level = place(module.removesuffix(role), "to_pixels")
            found[f"{level}.{role.removeprefix('aux_')}.{weight}"] = tensor
        elif side in ("enc", "dec"):
            room = "down" if side == "enc" else "middle" if role.startswith("in") else "up"
            layer, _, last = weight.partition(".")
            value = _interleaved(tensor) if layer == "qkv" else tensor
            found[f"{place(f'{side}.{module}', room)}.{BLOCK.get(layer, layer)}.{last}"] = value
        else:
            found[name] = tensor  # which check_fit finds to be one too many
    return found | _classes(theirs)


def _classes(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each class, and none of them, adds to what the network is told: labels were one-hot, times sqrt(classes)."""
    weight = theirs.get("map_label.weight")
    if weight is None or weight.ndim != 2:
        return {}
    bias = theirs.get("map_label.bias", torch.zeros(len(weight)))
    rows = torch.cat([weight.T * math.sqrt(weight.shape[1]), torch.zeros(1, len(weight))])
    return {"embed_class.weight": rows + bias}


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


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} where names and values are expected")
    return value
