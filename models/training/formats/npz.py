"""Arrays of images in a numpy archive (.npz)."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.training.formats import DataError

TRAINING_IMAGES = "x_train"


def read_npz(path: Path) -> Tensor:
    """The images of an npz file, uint8 [n, c, h, w], from an array uint8 [n, h, w] or [n, h, w, c].

    That is the array `x_train` if there is one, as in the archives of CIFAR-10, and else the only array of that kind.

    Raises:
        DataError: the file cannot be read, or it is not clear which array holds the images.
    """
    try:
        # A pickle could run code: numpy refuses it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an npz file: {error}") from error
    images = {name: array for name, array in arrays.items() if array.dtype == np.uint8 and array.ndim in (3, 4)}
    if TRAINING_IMAGES in images:
        found = images[TRAINING_IMAGES]
    elif len(images) == 1:
        (found,) = images.values()
    else:
        held = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(
            f"{path} must hold one array of images, uint8 [n, h, w] or [n, h, w, c], or name it {TRAINING_IMAGES}; "
            f"it holds {held or 'nothing'}"
        )
    if found.ndim == 3:
        found = found[..., None]
    return torch.from_numpy(np.ascontiguousarray(found.transpose(0, 3, 1, 2)))
