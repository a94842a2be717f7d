"""The registry of networks: a kind that a card names is one of ours, or an entry point of an installed package.

A network is a `torch.nn.Module`, made with the card's `network.arguments`, that has

    condition(c_noise [n]) -> [n, f]        all that depends on the noise level alone; c_noise as the card's
                                            parametrisation makes it; asked for one level at a time and remembered
    forward(x [n, c, h, w], condition [n, f]) -> [n, c, h, w]

and whose state dict is the card's weights. One with classes has `condition(c_noise [n], label [n])` instead, where a
label is an int64, and the number of classes, as a label, means none.

In `forward` an image's bits must not depend on how many others are in the batch: convolutions, GroupNorm, SiLU and
attention keep to that, a Linear over the batch does not, nor does a 1x1 convolution (layers.Pointwise does). A network
that cannot promise it has a true attribute `needs_one_width`, and is only ever evaluated at one width.

A package adds one by an entry point, which nothing but a card's `network.kind` causes to be imported:

    [project.entry-points."scoreserve.networks"]
    my-network = "my_package.networks:MyNetwork"

Torch-free: networks are imported when one is built.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

GROUP = "scoreserve.networks"


class OurNetwork(NamedTuple):
    """Where a network of ours is, `module:name`, and the parametrisation of cards that name none."""

    reference: str
    parametrisation: str | None = None


OURS = {
    "unet": OurNetwork("models.networks.unet:UNet", "edm"),
    "guided-unet": OurNetwork("models.networks.guided:GuidedUNet", "edm"),
    "refinenet-v1": OurNetwork("models.networks.refinenet:RefineNetV1", "discrete"),
    "refinenet-v2": OurNetwork("models.networks.refinenet:RefineNetV2", "over_sigma"),
}


class UnknownNetwork(ValueError):
    """A kind that is neither ours nor an entry point here, or one that cannot be imported; the message says so."""


def kinds() -> list[str]:
    """All kinds that a card may name here, sorted."""
    return sorted({*OURS, *(point.name for point in entry_points(group=GROUP))})


def usual_parametrisation(kind: str) -> str | None:
    """The name of the parametrisation that a card of this kind means if it names none; None if it has to name one."""
    ours = OURS.get(kind)
    return ours.parametrisation if ours else None


def check(kind: str) -> None:
    """Imports nothing.

    Raises:
        UnknownNetwork: there is no such network here.
    """
    _find(kind)


def load(kind: str) -> Callable[..., Any]:
    """What makes a network of a kind: called with the arguments of a card, it returns a `torch.nn.Module`.

    Raises:
        UnknownNetwork: there is no such network here, or its package fails to import.
    """
    point = _find(kind)
    if kind in OURS:
        return getattr(import_module(point.module), point.attr)  # type: ignore[no-any-return]
    try:
        return point.load()  # type: ignore[no-any-return]
    except Exception as error:  # code of others fails in any way it likes
        package = point.dist.name if point.dist else point.value
        raise UnknownNetwork(
            f"network {kind!r} of the package {package} cannot be imported ({type(error).__name__}: {error})"
        ) from error


def _find(kind: str) -> EntryPoint:
    if ours := OURS.get(kind):
        return EntryPoint(kind, ours.reference, GROUP)
    found = {point.value: point for point in entry_points(group=GROUP, name=kind)}
    if len(found) > 1:
        raise UnknownNetwork(f"network {kind!r} is {' and '.join(found)}: uninstall all packages with it but one")
    if not found:
        raise UnknownNetwork(
            f"network {kind!r} is unknown here; there is {', '.join(kinds())}. Another one is added by installing the "
            f"package that has it as an entry point of the group {GROUP}, for the API and for every worker"
        )
    return next(iter(found.values()))
