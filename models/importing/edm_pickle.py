"""Pickles of EDM (Karras 2022), read without running anything of them.

They carry the source text of their classes, and unpickled as their authors do it, they execute it. Here they are read
by an unpickler that knows the few names which such a file needs, calls harmless stand-ins for them, and never looks at
the source.
"""

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from models.importing.reading import NUMPY, ImportRefused, is_tensor, tensors_of

MAX_MODULES = 100_000
MAX_MEMO = 10_000_000  # objects that a pickle refers to again; room is made for all up to the largest number


class Module:
    """Stands for a module of torch or of EDM: what it holds, and nothing that it does."""

    def __init__(self, kind: str, state: Mapping[str, Any]) -> None:
        self.kind, self.state = kind, state

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a module cannot be changed")

    def tensors(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
        """All parameters and buffers with their names, those of inner modules included.

        Raises:
            ValueError: what it holds is no tensor, no module, or a module for the second time: a few modules within one
                another in many ways would take for ever.
        """
        seen = set() if seen is None else seen
        if id(self) in seen or len(seen) > MAX_MODULES:
            raise ValueError(f"{prefix.removesuffix('.')} is a module that has been there before, or one of too many")
        seen.add(id(self))
        for part in ("_parameters", "_buffers"):
            for name, value in mapping(self.state.get(part, {})).items():
                if value is not None:
                    if not is_tensor(value):
                        raise ValueError(f"{prefix}{name} is no tensor of floating-point numbers")
                    yield f"{prefix}{name}", value
        for name, inner in mapping(self.state.get("_modules", {})).items():
            if not isinstance(inner, Module | Container):
                raise ValueError(f"{prefix}{name} is no module")
            yield from inner.tensors(f"{prefix}{name}.", seen)


class Container(Module):
    """Stands for `torch.nn.ModuleDict`, which a pickle makes empty, without calling it, and fills afterwards."""

    kind = "ModuleDict"
    state: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        super().__init__(self.kind, {})

    def __setstate__(self, state: object) -> None:
        self.state = mapping(state)


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
    described = mapping(described)
    return Module(str(described["class_name"]), mapping(described["state"]))


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
        if full == "builtins.set":
            return set
        if full not in NAMES:
            raise pickle.UnpicklingError(f"it names {full}, which no checkpoint of EDM needs")
        return Called(NAMES[full])


def read_ema(path: Path, data: bytes) -> Module:
    """The averaged network of a pickle.

    Raises:
        ImportRefused: it is no such pickle.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name.endswith("PUT") and isinstance(argument, int) and argument > MAX_MEMO:
                raise pickle.UnpicklingError("it is no pickle that anybody writes")
        content = Reader(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        raise ImportRefused(f"{path} cannot be read: {error}") from error
    except Exception as error:  # damaged and hostile pickles fail in any way they like; the reason can be misleading
        raise ImportRefused(f"{path} cannot be read: it is truncated, or no pickle of EDM") from error
    ema = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(ema, Module):
        raise ImportRefused(f"{path} is no checkpoint of EDM: there is no network `ema` in it")
    return ema


def mapping(value: object) -> Mapping[str, Any]:
    """A value that should be a dict, or nothing that was ever filled.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"a {type(value).__name__} where names and values are expected")
    return value
