"""Checkpoints of guided-diffusion (Dhariwal & Nichol 2021), improved-diffusion (Nichol & Dhariwal 2021) and
consistency_models (Song 2023), which share a network.

A file is a plain state dict and says nothing of the options that made its network: those are the flags of the command
lines that its authors give beside it. What the weights contradict is refused; the number of heads, the noise schedule
and the order of q, k and v they cannot contradict.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from models.card import ImageShape, ModelCard, NetworkSpec
from models.importing.guided_diffusion_flags import Flags, read_flags
from models.importing.publishing import Found, Origin, Target, check_shapes, publish
from models.importing.reading import ImportRefused, read_torch, weights_of
from models.networks.adm import ADM, Block
from models.networks.layers import Attention
from models.parametrisation import X0, Consistency, Edm, Epsilon, Parametrisation
from models.processes import Betas, DiscreteVariancePreserving
from models.samplers.euler import Euler
from models.samplers.heun import Heun
from models.samplers.multistep_consistency import MultistepConsistency
from models.samplers.settings import SamplerSettings
from models.score import build_network

PIXELS = (-1.0, 1.0)
FAMILIES = {None: "guided_diffusion", "edm": "consistency_models", "consistency": "consistency_models"}
DESCRIPTIONS = {
    None: "An ADM (Dhariwal & Nichol 2021), imported.",
    "edm": "A diffusion model of EDM's preconditioning (Karras 2022) from consistency_models, imported.",
    "consistency": "A consistency model (Song 2023), imported.",
}
MAX_SIGMA = 1e4  # that a request may ask for
LARGEST_START = 40.0  # sigma_max of the default sampler: EDM's 80, in [0, 1] units; a schedule may know far more


def import_guided_diffusion(checkpoint: Path, said: str, target: Target) -> tuple[ModelCard, Path]:
    """Publishes a checkpoint as the next version of a model; returns its card and its directory.

    Args:
        checkpoint: state dict of `torch.save`, such as ema_0.9999_250000.pt.
        said: the flags of its network and its process, see read_flags.
        target: where the model goes to.

    Raises:
        ImportRefused: the file is not what it should be, or does not fit the flags.
    """
    flags = read_flags(said)
    state, digest = read_torch(checkpoint)
    weights = weights_of(state, checkpoint) if isinstance(state, Mapping) else {}
    if "input_blocks.0.0.weight" not in weights:
        raise ImportRefused(
            f"{checkpoint} is no state dict of guided-diffusion, improved-diffusion or consistency_models"
        )
    _check_mode(weights, flags, checkpoint)
    classes = _classes(weights, flags, checkpoint)
    spec = _spec(weights, flags, classes)
    try:
        with torch.device("meta"):
            network = build_network(spec)
    except ValueError as error:
        raise ImportRefused(f"there is no network of these flags: {error}") from error
    assert isinstance(network, ADM)
    for module in network.modules():
        if isinstance(module, Attention) and module.norm.num_channels % max(flags.num_head_channels, 1):
            raise ImportRefused(
                f"{module.norm.num_channels} channels cannot be shared out to heads of {flags.num_head_channels} "
                "(flag num_head_channels)"
            )
    if flags.image_size % network.multiple:
        raise ImportRefused(
            f"flag image_size is {flags.image_size}; this network takes multiples of {network.multiple}"
        )
    expected = layout(network, flags)
    shapes = {name: weight.shape for name, weight in expected.items()}
    check_shapes(weights, shapes, f"{checkpoint} does not fit its flags", "give those that it was trained with")
    low, high = _noise_range(flags, spec)
    found = Found(
        origin=Origin(FAMILIES[flags.mode], checkpoint, digest, {"flags": flags.model_dump(exclude_unset=True)}),
        description=DESCRIPTIONS[flags.mode],
        image=ImageShape(channels=network.conv_in.in_channels, height=flags.image_size, width=flags.image_size),
        network=spec,
        weights=converted(weights, expected, network),
        sigma_range=(low, high),
        sampler=_sampler(flags, high),
        classes=None if classes is None else tuple(map(str, range(classes))),
        needs_label=classes is not None,
    )
    return publish(found, target)


class _Weight(NamedTuple):
    """What a weight of a file becomes.

    Args:
        ours: its name in an ADM.
        shape: that it has in the file.
        heads: of attention, where its rows are (head, q k v, channel) and ours (q k v, head, channel).
    """

    ours: str
    shape: tuple[int, ...]
    heads: int | None = None


RESIDUAL = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "film": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}


def layout(network: ADM, flags: Flags) -> dict[str, _Weight]:
    """What a file of this network holds, by the names in it."""
    names = {"embed.0": "time_embed.0", "embed.2": "time_embed.2", "embed_class": "label_emb"}
    names |= {"conv_in": "input_blocks.0.0", "norm_out": "out.0", "conv_out": "out.2"}
    for number, module in enumerate(network.down):
        names |= _of_module(module, f"down.{number}", f"input_blocks.{number + 1}", 0)
    names |= _of_module(network.middle[0], "middle.0", "middle_block", 0)
    names |= _of_module(network.middle[1], "middle.1", "middle_block", 2)
    block, place = -1, 0
    for number, (module, skipped) in enumerate(zip(network.up, network.takes_skip, strict=True)):
        block, place = (block + 1, 0) if skipped else (block, place)
        found = _of_module(module, f"up.{number}", f"output_blocks.{block}", place)
        names |= found
        place = 2 if any(".attention." in name for name in found) else 1
    heads = {f"{name}.qkv": module.heads for name, module in network.named_modules() if isinstance(module, Attention)}
    weights = {}
    for ours, tensor in network.state_dict().items():
        module_name, _, leaf = ours.rpartition(".")
        shape = tuple(tensor.shape)
        if ours.endswith(("qkv.weight", "attention.out.weight")) and flags.mode is None:
            shape = shape[:3]
        if module_name == "conv_out" and flags.learn_sigma:
            shape = (2 * shape[0], *shape[1:])
        by_head = flags.mode is None and not flags.use_new_attention_order
        weights[f"{names[module_name]}.{leaf}"] = _Weight(ours, shape, heads.get(module_name) if by_head else None)
    return weights


def _of_module(module: nn.Module, ours: str, theirs: str, place: int) -> dict[str, str]:
    """The names of the modules in one of ours, and in the block of the file where it has a place."""
    if not isinstance(module, Block):
        return {f"{ours}.conv": f"{theirs}.{place}.{'op' if module.down else 'conv'}"}
    names = {f"{ours}.{a}": f"{theirs}.{place}.{b}" for a, b in RESIDUAL.items()}
    if isinstance(module.attention, Attention):
        names |= {f"{ours}.attention.{a}": f"{theirs}.{place + 1}.{b}" for a, b in ATTENTION.items()}
    return names


def converted(weights: Mapping[str, Tensor], expected: Mapping[str, _Weight], network: ADM) -> dict[str, Tensor]:
    """The weights of a file, by our names and in our order of rows.

    A learned variance, the second half of the last convolution's channels, is left out.

    Args:
        weights: by their names in the file, of the shapes that are expected.
        expected: what `layout` says of them.
        network: theirs.
    """
    ours = network.state_dict()
    found = {}
    for name, weight in expected.items():
        tensor = weights[name]
        if weight.heads:
            channels = len(tensor) // (3 * weight.heads)
            tensor = tensor.reshape(weight.heads, 3, channels, -1).transpose(0, 1)
        shape = ours[weight.ours].shape
        found[weight.ours] = tensor.reshape(-1, *shape[1:])[: shape[0]]
    return found


def parametrisation(flags: Flags) -> Parametrisation:
    """What the output of a network of these flags is.

    Raises:
        ImportRefused: the flags do not say which time the network is told.
    """
    if flags.mode == "edm":
        return Edm(pixels=PIXELS, times=250)
    if flags.mode == "consistency":
        return Consistency(pixels=PIXELS, s_min=flags.sigma_min)
    steps = flags.diffusion_steps
    if flags.rescale_timesteps is None and steps != 1000:
        raise ImportRefused(
            f"flag rescale_timesteps is needed with {steps} diffusion_steps: it is True by default in "
            "improved-diffusion and False in guided-diffusion"
        )
    process = DiscreteVariancePreserving(
        # The linear schedule of Ho 2020 has 1,000 steps; its betas are shared out to more or fewer.
        betas=Betas(schedule=flags.noise_schedule, steps=steps, start=0.1 / steps, end=20 / steps),
        times=1000 / steps if flags.rescale_timesteps else 1.0,
    )
    kind = X0 if flags.predict_xstart else Epsilon
    return kind(process=process, pixels=PIXELS)


def _check_mode(weights: Mapping[str, Tensor], flags: Flags, checkpoint: Path) -> None:
    """The attention of consistency_models is a 2d convolution and that of the other code a 1d one.

    Raises:
        ImportRefused: the flags are of other code than the file.
    """
    attention = next((weights[name] for name in weights if name.endswith(".qkv.weight")), torch.empty(0))
    if attention.ndim == 4 and flags.mode is None:
        raise ImportRefused(
            f"{checkpoint} is a file of consistency_models: add --training_mode consistency_distillation, "
            "consistency_training or edm, which says what its network was trained as"
        )
    if attention.ndim == 3 and flags.mode is not None:
        raise ImportRefused(
            f"{checkpoint} is a file of guided-diffusion or improved-diffusion: training_mode, distillation are flags "
            "of consistency_models"
        )


def _classes(weights: Mapping[str, Tensor], flags: Flags, checkpoint: Path) -> int | None:
    """How many classes the network was trained with, which only its weights say; None if it has none.

    Raises:
        ImportRefused: the flags say otherwise.
    """
    embedding = weights.get("label_emb.weight")
    found = None if embedding is None else math.prod(embedding.shape[:1])
    if (found is not None) != flags.class_cond:
        has = "no classes" if found is None else f"{found} classes"
        raise ImportRefused(f"{checkpoint} has {has} (label_emb.weight), but flag class_cond is {flags.class_cond}")
    if flags.num_classes not in (None, found) and flags.class_cond:
        raise ImportRefused(f"{checkpoint} has {found} classes (label_emb.weight), not {flags.num_classes}")
    return found


def _spec(weights: Mapping[str, Tensor], flags: Flags, classes: int | None) -> NetworkSpec:
    """The network of the flags, with the channels of the file's images."""
    entering = weights["input_blocks.0.0.weight"]
    by_channels = flags.num_head_channels > 0
    upward = flags.num_heads if flags.num_heads_upsample < 1 else flags.num_heads_upsample
    arguments: dict[str, JsonValue] = {
        "image_channels": entering.shape[1] if entering.ndim == 4 else 3,
        "channels": flags.num_channels,
        "multipliers": list(flags.multipliers),
        "blocks": flags.num_res_blocks,
        "attention": list(flags.attention),
        "heads": None if by_channels else [flags.num_heads, upward],
        "head_channels": flags.num_head_channels if by_channels else None,
        "classes": classes,
        "film": flags.use_scale_shift_norm,
        "resample": "blocks" if flags.resblock_updown else "convolutions",
    }
    return NetworkSpec(kind="adm", arguments=arguments, parametrisation=parametrisation(flags))


def _noise_range(flags: Flags, spec: NetworkSpec) -> tuple[float, float]:
    """The least and the largest noise level, in [0, 1] units."""
    if flags.mode is not None:
        return flags.sigma_min / 2, flags.sigma_max / 2
    low, high = spec.parametrised(None).range
    return low, min(high, MAX_SIGMA)


def _sampler(flags: Flags, sigma_max: float) -> SamplerSettings:
    if flags.mode == "consistency":
        return MultistepConsistency(name="multistep_consistency")
    if flags.mode == "edm":
        return Heun(name="heun")
    return Euler(name="euler", levels=50, sigma_max=min(sigma_max, LARGEST_START))
