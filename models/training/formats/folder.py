"""A folder of image files."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from models.card import ImageShape
from models.training.formats import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def find_pictures(directory: Path) -> list[Path]:
    """All image files in a directory and below it, through links too, sorted by path; hidden ones are left out."""
    return sorted(path for path in _files(directory) if path.suffix.lower() in SUFFIXES)


def classes_of(pictures: Sequence[Path], directory: Path) -> tuple[Tensor, tuple[str, ...]]:
    """The labels int64 [n] of pictures, and the names of the classes: the folders in `directory` that they lie in.

    Raises:
        DataError: some lie in none.
    """
    folders = [path.relative_to(directory).parts for path in pictures]
    bare = [str(path) for path, parts in zip(pictures, folders, strict=True) if len(parts) == 1]
    if bare or not folders:
        raise DataError(
            f"{directory} must have a folder for each class, with its pictures: {', '.join(bare[:3]) or 'it has none'}"
        )
    names = sorted({parts[0] for parts in folders})
    indices = {name: index for index, name in enumerate(names)}
    return torch.tensor([indices[parts[0]] for parts in folders]), tuple(names)


def _files(directory: Path) -> Iterator[Path]:
    """All files that are not hidden, each folder once, however many links lead to it from within itself."""
    for place, folders, names in os.walk(directory, followlinks=True):
        here = Path(place)
        above = {parent.resolve() for parent in (here, *here.parents)}
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (here / name).resolve() not in above
        )
        yield from (here / name for name in names if not name.startswith(".") and (here / name).is_file())


def read_pictures(paths: list[Path], image: ImageShape) -> Tensor:
    """Pictures of any size as uint8 [n, c, h, w] of the shape wanted: the largest centred part that has its
    proportions, resized, in its channels.

    Raises:
        DataError: a file is no picture or is damaged.
    """
    out = np.empty((len(paths), *image.chw), dtype=np.uint8)

    def read(i: int) -> None:
        out[i] = _read_picture(paths[i], image)

    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without Python's lock
        for _ in pool.map(read, range(len(paths))):
            pass
    return torch.from_numpy(out)


def _read_picture(path: Path, image: ImageShape) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    size = image.width, image.height
    try:
        with Image.open(path) as picture:
            picture.draft(
                None, (2 * image.width, 2 * image.height)
            )  # a large JPEG is decoded at a fraction of its size
            upright = ImageOps.exif_transpose(picture).convert(MODES[image.channels])
            pixels = np.asarray(ImageOps.fit(upright, size, Image.Resampling.LANCZOS))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return pixels.reshape(image.height, image.width, image.channels).transpose(2, 0, 1)
