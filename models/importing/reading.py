"""Files of other code, read as data: nothing in them is executed, and one that is not what it should be is refused."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

NUMPY_KINDS = "biuf"  # of scalars that are read
MAX_JSON_BYTES = 2**22
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile


class ImportRefused(ValueError):
    """The checkpoint cannot be imported, and nothing was written; the message says why and what would do."""


class NumpyType:
    """Stands for `numpy.dtype` in a pickle: the type of a scalar, of which only plain numbers are read."""

    def __init__(self, name: str, *_: object) -> None:
        self.type = np.dtype(name)
        if self.type.kind not in NUMPY_KINDS:
            raise ValueError(f"no number: {name}")

    def __setstate__(self, state: object) -> None:
        """The rest of what numpy writes says nothing that the name does not say."""


def numpy_scalar(kind: NumpyType, data: bytes) -> Any:
    """Stands for `numpy.core.multiarray.scalar` in a pickle; gives a plain number of Python."""
    return np.frombuffer(data, kind.type, 1)[0].item()


# Names in a pickle -> what is called in their place.
NUMPY: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray.scalar": numpy_scalar,
    "numpy._core.multiarray.scalar": numpy_scalar,
    "numpy.dtype": NumpyType,
    **{f"numpy.dtypes.{name}": NumpyType for name in ("Float64DType", "Float32DType", "Int64DType", "Int32DType")},
}


def read_bytes(path: Path) -> tuple[bytes, str]:
    """A file and its sha256.

    Raises:
        ImportRefused: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read: {error.strerror or error}") from error
    return data, hashlib.sha256(data).hexdigest()


def read_torch(path: Path) -> tuple[Any, str]:
    """The content of a file of `torch.save`, of tensors, plain containers and numbers (of numpy too), and its sha256.

    Raises:
        ImportRefused: it cannot be read, is damaged, or holds more.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        with path.open("rb") as file:
            return load_tensors(file), digest
    except Exception as error:  # damaged and hostile pickles fail in any way they like; the reason can be misleading
        raise ImportRefused(
            f"{path} cannot be read: it is truncated, no file of torch.save, or holds more than tensors and numbers"
        ) from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors in a file of safetensors, and its sha256.

    Raises:
        ImportRefused: it cannot be read, or is damaged.
    """
    data, digest = read_bytes(path)
    try:
        return safetensors.torch.load(data), digest
    except Exception as error:  # of whatever is damaged first
        raise ImportRefused(f"{path} cannot be read: it is truncated, or no file of safetensors") from error


def load_tensors(file: Any) -> Any:
    """`torch.load` that runs no code, of tensors on whatever device and of numbers of numpy too."""
    allowed: list[Any] = [(function, name) for name, function in NUMPY.items()]
    with torch.serialization.safe_globals([*allowed, NumpyType]):
        return torch.load(file, map_location="cpu", weights_only=True)


def tensors_of(data: bytes) -> Any:
    """The same of the bytes of such a file."""
    return load_tensors(io.BytesIO(data))


def read_json(path: Path) -> dict[str, Any]:
    """A file with one JSON object.

    Raises:
        ImportRefused: it cannot be read, or holds something else.
    """
    data, _ = read_bytes(path)
    if len(data) > MAX_JSON_BYTES:
        raise ImportRefused(f"{path} is no configuration: it is larger than {MAX_JSON_BYTES} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ImportRefused(f"{path} is no JSON object")
    return content


def weights_of(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """A state dict by the names that its network gave them, without those of what it was wrapped in.

    Raises:
        ImportRefused: it holds something other than tensors of numbers, or two by one name.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = unwrapped(str(key))
        if not is_tensor(value):
            raise ImportRefused(f"{path}: {name} is no tensor of floating-point numbers")
        if name in found:
            raise ImportRefused(f"{path} has two tensors by the name {name}")
        found[name] = value
    return found


def unwrapped(name: str) -> str:
    """The name of a weight without the prefixes of wrappers, in whatever order they are."""
    while prefix := next((prefix for prefix in WRAPPERS if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def is_tensor(value: object) -> bool:
    """Whether a value is a plain tensor of floating-point numbers that is here."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.layout is torch.strided
        and value.device.type == "cpu"
    )
