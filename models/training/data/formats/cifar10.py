"""CIFAR-10 as its authors publish it: pickled batches (the "python version")."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.training.data.formats import DataError

SIDE, CHANNELS = 32, 3
BATCHES, TEST_BATCH, NAMES = "data_batch_*", "test_batch", "batches.meta"


def find_batches(directory: Path) -> list[Path]:
    """The training batches in a directory or in its cifar-10-batches-py, in order; none if it holds no CIFAR-10."""
    for place in (directory, directory / "cifar-10-batches-py"):
        if batches := sorted(place.glob(BATCHES)):
            return batches
    return []


def read_batches(paths: list[Path]) -> Tensor:
    """The images of pickled batches, uint8 [n, 3, 32, 32].

    Raises:
        DataError: one of them is no such batch, or asks for anything but the making of arrays.
    """
    return torch.from_numpy(np.concatenate([_images(path, _read_batch(path)) for path in paths]))


def read_labelled_batches(paths: list[Path]) -> tuple[Tensor, Tensor]:
    """Images uint8 [n, 3, 32, 32] and labels int64 [n] of pickled batches.

    Raises:
        DataError: one of them is no such batch, has no label for each image, or asks for anything but the making of
            arrays.
    """
    images, labels = [], []
    for path in paths:
        batch = _read_batch(path)
        images.append(_images(path, batch))
        named = batch.get(b"labels", batch.get("labels"))
        if (
            not isinstance(named, list)
            or len(named) != len(images[-1])
            or not all(isinstance(label, int) for label in named)
        ):
            raise DataError(f"{path} is not a labelled batch of CIFAR-10: its `labels` must be a number for each image")
        labels += named
    return torch.from_numpy(np.concatenate(images)), torch.tensor(labels)


def class_names(directory: Path) -> tuple[str, ...] | None:
    """The names of the classes, from `batches.meta` beside the batches; None without it.

    Raises:
        DataError: it is damaged.
    """
    path = directory / NAMES
    if not path.is_file():
        return None
    meta = _read_batch(path)
    names = meta.get(b"label_names", meta.get("label_names")) if isinstance(meta, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"{path} does not name the classes of CIFAR-10: it must hold `label_names`")
    return tuple(name.decode() if isinstance(name, bytes) else name for name in names)


def _read_batch(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return ArrayUnpickler(file).load()
    except Exception as error:  # a damaged pickle can raise anything at all
        raise DataError(f"{path} cannot be read as a batch of CIFAR-10: {error}") from error


def _images(path: Path, batch: Any) -> NDArray[np.uint8]:
    data = batch.get(b"data", batch.get("data")) if isinstance(batch, dict) else None
    size = CHANNELS * SIDE * SIDE
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != size:
        raise DataError(f"{path} is not a batch of CIFAR-10: its `data` must be uint8 [n, {size}]")
    return data.reshape(-1, CHANNELS, SIDE, SIDE)


def _encode(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode, by which Python 3 writes bytes into old pickles."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"{encoding!r} is no encoding of bytes")
    return text.encode("latin1")


class ArrayUnpickler(pickle.Unpickler):
    """Reads plain types and numpy arrays, and refuses everything else before it is even imported.

    A pickle is a program that may call whatever it can name; this one can name nothing that does more than make an
    array.
    """

    RECONSTRUCT: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
    ALLOWED: dict[tuple[str, str], Any] = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="bytes")  # the batches were written by Python 2

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of an array") from None
