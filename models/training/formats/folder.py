"""A folder of image files."""

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
    """All image files in a directory and below it, sorted by path; hidden ones are left out."""
    return sorted(
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
        and path.is_file()
    )


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
