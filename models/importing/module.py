"""Networks of one's own: code that the operator names, with weights in a file, or a program of torch.export.

Both are tried at once, on noise: what the network returns there must be shaped as it is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import JsonValue, ValidationError
from torch import Tensor, nn

from models.card import ImageShape, ModelCard, NetworkSpec
from models.importing.publishing import Found, Origin, Target, check_shapes, publish
from models.importing.reading import ImportRefused, read_bytes, read_safetensors, read_torch, unwrapped
from models.networks import UnknownNetwork
from models.parametrisation import X0, Epsilon, Parametrisation, Score, V
from models.processes import UnitVariance, VarianceExploding
from models.score import ScoreModel, build_network
from models.sentences import in_one_line

Predicts = Literal["denoised", "noise", "score", "v"]
WIDTHS = (2, 4)  # at which a network is tried


@dataclass(frozen=True)
class Contract:
    """What a network is given and returns.

    Args:
        image: shape of an image.
        predicts: `denoised` the clean picture, `noise` the noise in units of one, `score` the gradient of the log
            density: all three of x = picture + sigma noise. `v` is a noise - b picture of x = a picture + b noise with
            a^2 + b^2 = 1 and b / a = sigma.
        sigma: the least and the largest noise level that it was trained at, in units of `pixels`.
        pixels: what black and white are to it.
        mean: of its training pixels, in units of `pixels`; None where it is not known.
        classes: names of the classes; None if it has none.
        needs_label: whether it was never trained without a label.
    """

    image: ImageShape
    predicts: Predicts
    sigma: tuple[float, float]
    pixels: tuple[float, float] = (0.0, 1.0)
    mean: float | None = None
    classes: tuple[str, ...] | None = None
    needs_label: bool = False

    @property
    def parametrisation(self) -> Parametrisation:
        """Of the network.

        Raises:
            ValidationError: there is none for such pixels.
        """
        as_it_is = VarianceExploding(label="sigma")
        match self.predicts:
            case "denoised":
                return X0(process=as_it_is, pixels=self.pixels)
            case "noise":
                return Epsilon(process=as_it_is, pixels=self.pixels)
            case "score":
                return Score(process=as_it_is, pixels=self.pixels)
            case "v":
                return V(process=UnitVariance(), pixels=self.pixels)


def import_module(
    network: str,
    weights: Path,
    contract: Contract,
    target: Target,
    arguments: Mapping[str, JsonValue] | None = None,
    key: str | None = None,
) -> tuple[ModelCard, Path]:
    """Publishes weights of a network of one's own; returns the card and its directory.

    Args:
        network: `package.module:factory`, whose code is run now, or a name that models.networks knows.
        weights: a file of safetensors, or of `torch.save` with a state dict in it.
        contract: what the network is given and returns.
        target: where the model goes to.
        arguments: of the factory.
        key: where in a file of `torch.save` the state dict is, such as `ema` or `state.model`.

    Raises:
        ImportRefused: the code or the file is not there, both do not fit, or the network does not do what it should.
    """
    state, digest = read_state(weights, key)
    spec = _spec(network, contract, arguments or {})
    try:
        built = build_network(spec, trusted=True)
        expected = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    except UnknownNetwork as error:
        raise ImportRefused(str(error)) from error
    except Exception as error:  # the code is the operator's
        raise ImportRefused(f"{network} does not make a network: {_said(error)}") from error
    check_shapes(state, expected, f"{weights} does not fit {network}", "give the weights of this network")
    origin = Origin("module", weights, digest, {"network": network})
    return _publish(built, state, spec, contract, origin, f"A network of {network}.", target)


def import_exported(program: Path, contract: Contract, target: Target) -> tuple[ModelCard, Path]:
    """Publishes a program of torch.export, which is code and is run now; returns the card and its directory.

    Raises:
        ImportRefused: the file holds no such program, or it does not do what it should.
    """
    data, digest = read_bytes(program)
    spec = _spec("exported", contract, {})
    state = {"program": torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)}
    origin = Origin("torch.export", program, digest)
    network = build_network(spec, trusted=True)
    try:
        return _publish(network, state, spec, contract, origin, "A program.", target)
    except ImportRefused as error:
        raise ImportRefused(f"{error}; a program is to take (x, sigma) of any number of images from 2 on") from error


def read_state(path: Path, key: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The state dict in a file, without prefixes of wrappers, and the file's sha256.

    Raises:
        ImportRefused: it cannot be read, or there is no state dict, or none by that key.
    """
    if key and path.suffix == ".safetensors":
        raise ImportRefused(
            f"{path} is one state dict, as safetensors are; --key is for files of torch.save: leave it out"
        )
    content: Any
    content, digest = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    for part in key.split(".") if key else ():
        content = content.get(part) if isinstance(content, Mapping) else None
    if not _is_state(content):
        whole = read_torch(path)[0] if key else content
        found = ", ".join(_states(whole)) or "none"
        asked = f"by the key {key}" if key else "itself"
        raise ImportRefused(f"{path} is no state dict {asked}; the keys of those in it (--key): {found}")
    return {unwrapped(str(name)): value for name, value in content.items()}, digest


def _is_state(content: object) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(value, Tensor) and value.layout is torch.strided for value in content.values())
    )


def _states(content: object, within: str = "", depth: int = 3) -> list[str]:
    """The keys of all state dicts in a file."""
    if not isinstance(content, Mapping) or depth == 0:
        return []
    found = []
    for name, value in content.items():
        key = f"{within}{name}"
        found += [key] if _is_state(value) else _states(value, f"{key}.", depth - 1)
    return found


def _spec(network: str, contract: Contract, arguments: Mapping[str, JsonValue]) -> NetworkSpec:
    if not 0 < contract.sigma[0] < contract.sigma[1]:
        raise ImportRefused(f"sigma goes from above 0 up, not from {contract.sigma[0]:g} to {contract.sigma[1]:g}")
    try:
        parametrisation = contract.parametrisation
        low, high = parametrisation.pixels
        mean = 0.5 if contract.mean is None else (contract.mean - low) / (high - low)
        return NetworkSpec(kind=network, arguments=dict(arguments), data_mean=mean, parametrisation=parametrisation)
    except ValidationError as error:
        raise ImportRefused(in_one_line(error, NetworkSpec)) from error


def _publish(
    network: nn.Module,
    state: Mapping[str, Tensor],
    spec: NetworkSpec,
    contract: Contract,
    origin: Origin,
    description: str,
    target: Target,
) -> tuple[ModelCard, Path]:
    parametrisation = contract.parametrisation
    low, high = (sigma / parametrisation.scale for sigma in contract.sigma)
    _try(network, state, contract, origin.path, (low * high) ** 0.5)
    found = Found(
        origin=origin,
        description=description,
        image=contract.image,
        network=spec,
        weights=state,
        sigma_range=(low, high),
        classes=contract.classes,
        needs_label=contract.needs_label,
    )
    return publish(found, target)


def _try(network: nn.Module, state: Mapping[str, Tensor], contract: Contract, path: Path, sigma: float) -> None:
    """Has the network look at noise.

    Raises:
        ImportRefused: it fails, or returns something of another shape or type, or that is not finite.
    """
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
        model = ScoreModel(
            network,
            contract.parametrisation,
            contract.image,
            classes=len(contract.classes or ()),
            needs_label=contract.needs_label,
        )
        for width in WIDTHS:
            x = torch.rand(width, *contract.image.chw)
            condition = model.condition(sigma, 0 if contract.classes else None)[3:]
            with torch.inference_mode():
                out = model.network(x, condition.expand(width, -1))
            if out.shape != x.shape or not out.isfinite().all():
                what = f"{tuple(out.shape)}" if out.shape != x.shape else "what is not finite"
                raise ValueError(f"for pictures {tuple(x.shape)} it returned {what}")
    except Exception as error:  # the code is the operator's
        raise ImportRefused(f"{path}: the network cannot be used: {_said(error)}") from error


def _said(error: Exception) -> str:
    """An error of someone's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
