"""The registry of networks: a kind that a card names is one of ours, or an entry point of an installed package.

A network is a `torch.nn.Module`, made with the card's `network.arguments`, that has

    condition(c_noise [n]) -> [n, f]        all that depends on the noise level alone; c_noise as the card's
                                            parametrisation makes it; asked for one level at a time and remembered
    forward(x [n, c, h, w], condition [n, f]) -> [n, c, h, w]

and whose state dict is the card's weights. One with classes has `condition(c_noise [n], label [n])` instead, where a
label is an int64, and the number of classes, as a label, means none. One without `condition` is called as
network(x, c_noise) or network(x, c_noise, label), and only ever evaluated at one width of the batch.

In `forward` an image's bits must not depend on how many others are in the batch: convolutions, GroupNorm, SiLU and
attention keep to that, a Linear over the batch does not, nor does a 1x1 convolution (layers.Pointwise does). A network
that cannot promise it has a true attribute `needs_one_width`, and is only ever evaluated at one width.

A worker may run it in bfloat16, conditions included. One whose conditions must not be rounded, such as labels as they
are, has a true attribute `exact_condition`, and is given them in float32.

A package adds one by an entry point, which nothing but a card's `network.kind` causes to be imported:

    [project.entry-points."scoreserve.networks"]
    my-network = "my_package.networks:MyNetwork"

Code that is no package's entry point is named by its place, `package.module:factory`. That a card names it is not
enough for it to be imported: the operator has to as well, in the setting SCORESERVE_NETWORKS of the API and of every
worker (several are separated by commas). The same holds for `exported`, programs of torch.export, which are code that
lies in the model store.

Torch-free: networks are imported when one is built.
"""

import os
import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

GROUP = "scoreserve.networks"
SETTING = "SCORESERVE_NETWORKS"
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class OurNetwork(NamedTuple):
    """A network of ours.

    Args:
        reference: where it is, `module:name`.
        parametrisation: of cards that name none.
        runs_code: whether the weights are code, so that the operator has to allow it.
        extra: of this package, which brings what it needs.
    """

    reference: str
    parametrisation: str | None = None
    runs_code: bool = False
    extra: str | None = None


OURS = {
    "unet": OurNetwork("models.networks.unet:UNet", "edm"),
    "guided-unet": OurNetwork("models.networks.guided:GuidedUNet", "edm"),
    "ncsnpp": OurNetwork("models.networks.ncsnpp:NCSNpp", "edm"),
    "refinenet-v1": OurNetwork("models.networks.refinenet:RefineNetV1", "discrete"),
    "refinenet-v2": OurNetwork("models.networks.refinenet:RefineNetV2", "over_sigma"),
    "adm": OurNetwork("models.networks.adm:ADM"),
    "diffusers-unet2d": OurNetwork("models.networks.diffusers:DiffusersUNet2D", extra="diffusers"),
    "exported": OurNetwork("models.networks.exported:Exported", runs_code=True),
}


class UnknownNetwork(ValueError):
    """A kind that is not known here, not allowed, or cannot be imported; the message says which."""


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
        UnknownNetwork: there is no such network here, or the operator has not allowed it.
    """
    _find(kind, trusted=False)


def load(kind: str, trusted: bool = False) -> Callable[..., Any]:
    """What makes a network of a kind: called with the arguments of a card, it returns a `torch.nn.Module`.

    Args:
        kind: of a card.
        trusted: whether the operator named it just now, so that the setting need not.

    Raises:
        UnknownNetwork: there is no such network here, the operator has not allowed it, or it cannot be imported.
    """
    point = _find(kind, trusted)
    if ours := OURS.get(kind):
        try:
            return getattr(import_module(point.module), point.attr)  # type: ignore[no-any-return]
        except ImportError as error:
            if ours.extra is None:
                raise
            raise UnknownNetwork(
                f"network {kind!r} cannot be imported ({error}); it needs the extra {ours.extra}: "
                f"pip install 'scoreserve[{ours.extra}]', for every worker"
            ) from error
    try:
        return point.load()  # type: ignore[no-any-return]
    except Exception as error:  # code of others fails in any way it likes
        package = point.dist.name if point.dist else point.value
        where, remedy = f"of the package {package} ", ""
        if point.value == kind:
            where, remedy = "", "; is it installed, or its directory in PYTHONPATH?"
        raise UnknownNetwork(
            f"network {kind!r} {where}cannot be imported ({type(error).__name__}: {error}){remedy}"
        ) from error


def _find(kind: str, trusted: bool) -> EntryPoint:
    ours = OURS.get(kind)
    is_reference = ours is None and REFERENCE.fullmatch(kind) is not None
    if not trusted and (is_reference or (ours and ours.runs_code)) and kind not in allowed():
        raise UnknownNetwork(
            f"network {kind!r} is code that nobody has allowed to be run here: whoever trusts it starts the API and "
            f"every worker with {SETTING}={kind}"
        )
    if ours or is_reference:
        return EntryPoint(kind, ours.reference if ours else kind, GROUP)
    found = {point.value: point for point in entry_points(group=GROUP, name=kind)}
    if len(found) > 1:
        raise UnknownNetwork(f"network {kind!r} is {' and '.join(found)}: uninstall all packages with it but one")
    if not found:
        raise UnknownNetwork(
            f"network {kind!r} is unknown here; there is {', '.join(kinds())}. Another one is added by installing the "
            f"package that has it as an entry point of the group {GROUP}, for the API and for every worker"
        )
    return next(iter(found.values()))


def allowed() -> set[str]:
    """The networks that the operator allows besides those that are installed."""
    return {name.strip() for name in os.environ.get(SETTING, "").split(",")} - {""}
