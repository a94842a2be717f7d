"""Arrays of images in a numpy archive (.npz) or file (.npy)."""

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.training.data.formats import DataError

TRAINING_IMAGES, TRAINING_LABELS = "x_train", "y_train"
LABELLED = "x_train", "y_train", "x_test", "y_test"


def holds_images(path: Path) -> bool:
    """Whether an npz or npy file holds an array that may be images, as far as its headers say; true of a damaged one,
    so that reading it tells what is wrong."""
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return _may_be_images(*_header(file))
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    if _may_be_images(*_header(file)):
                        return True
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        return True
    return False


def read_npz(path: Path, chw: tuple[int, int, int] | None = None) -> Tensor:
    """The images of an npz file, uint8 [n, c, h, w], from an array uint8 [n, h, w], [n, h, w, c] or [n, c, h, w].

    That is the array `x_train` if there is one, as in the archives of CIFAR-10, and else the only array of that kind.

    Args:
        path: of the file.
        chw: the shape of an image that is wanted: an array of that has its channels first.

    Raises:
        DataError: the file cannot be read, or it is not clear which array holds the images.
    """
    arrays = _read(path)
    images = {name: array for name, array in arrays.items() if _holds_images(array)}
    if TRAINING_IMAGES in images:
        found = images[TRAINING_IMAGES]
    elif len(images) == 1:
        (found,) = images.values()
    else:
        raise DataError(
            f"{path} must hold one array of images, uint8 [n, h, w] or [n, h, w, c], or name it {TRAINING_IMAGES}; "
            f"it holds {_held(arrays)}"
        )
    return _chw(found, chw)


def read_npy(path: Path, chw: tuple[int, int, int] | None = None) -> Tensor:
    """The images of an npy file, uint8 [n, c, h, w]; see `read_npz`.

    Raises:
        DataError: the file cannot be read, or holds no images.
    """
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as an npy file: {error}") from error
    if not isinstance(array, np.ndarray) or not _holds_images(array):
        raise DataError(
            f"{path} must hold images, uint8 [n, h, w] or [n, h, w, c]; it holds {_held({'an array': array})}"
        )
    return _chw(array, chw)


def read_training_labels(path: Path) -> Tensor:
    """The labels int64 [n] of the images that `read_npz` reads: the array `y_train`.

    Raises:
        DataError: the file cannot be read, or has no such integers.
    """
    arrays = _read(path)
    labels = arrays.get(TRAINING_LABELS)
    if labels is None or labels.dtype.kind not in "iu" or labels.size != len(labels):
        raise DataError(f"{path} must hold the labels as integers {TRAINING_LABELS} [n]; it holds {_held(arrays)}")
    return torch.from_numpy(labels.reshape(-1).astype(np.int64))


def read_labelled_npz(path: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arrays `x_train`, `y_train`, `x_test` and `y_test` of an npz file, as the archives of CIFAR-10 name them.

    Images become uint8 [n, c, h, w], labels int64 [n].

    Raises:
        DataError: the file cannot be read, or one of them is missing or is something else.
    """
    arrays = _read(path)
    if not all(
        name in arrays and (_holds_images(arrays[name]) if name[0] == "x" else arrays[name].dtype.kind in "iu")
        for name in LABELLED
    ):
        raise DataError(
            f"{path} is not a labelled data set: it must hold images uint8 x_train and x_test, and their labels as "
            f"integers y_train and y_test; it holds {_held(arrays)}"
        )
    x_train, y_train, x_test, y_test = (arrays[name] for name in LABELLED)
    if y_train.size != len(x_train) or y_test.size != len(x_test):
        raise DataError(f"{path} must hold one label for each image; it holds {_held(arrays)}")
    labels = (torch.from_numpy(y.reshape(-1).astype(np.int64)) for y in (y_train, y_test))
    return _chw(x_train), next(labels), _chw(x_test), next(labels)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # A pickle could run code: numpy refuses it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an npz file: {error}") from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"version {version} of the format is not known")
    shape, _, dtype = read[version](file)
    return shape, dtype


def _may_be_images(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return dtype == np.uint8 and len(shape) in (3, 4)


def _holds_images(array: NDArray[Any]) -> bool:
    return _may_be_images(array.shape, array.dtype)


def _held(arrays: dict[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items()) or "nothing"


def _chw(images: NDArray[Any], wanted: tuple[int, int, int] | None = None) -> Tensor:
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[1:] == wanted:
        return torch.from_numpy(np.ascontiguousarray(images))
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
