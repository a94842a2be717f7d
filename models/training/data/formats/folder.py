"""A folder of image files."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from models.card import ImageShape
from models.training.data.formats import DataError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# Formats that Pillow opens, but that are no photographs or drawings in pixels, or need another program.
NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
NAMED = 5  # files that a message names


class Found(NamedTuple):
    """Image files in the order of their paths, and how many other files there are of each suffix."""

    pictures: list[Path]
    others: Counter[str]


class Pictures(NamedTuple):
    """Images uint8 [n, c, h, w], the files that they are from, and what is wrong with the others."""

    images: Tensor
    paths: list[Path]
    bad: list[str]


@cache
def suffixes() -> frozenset[str]:
    """Those of the picture files that Pillow reads."""
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in known if kind in Image.OPEN and kind not in NO_PICTURES)


def find_pictures(directory: Path) -> Found:
    """All image files in a directory and below it, through links too; what is hidden is not looked at."""
    pictures, others = list[Path](), Counter[str]()
    for path in _files(directory):
        if path.suffix.lower() in suffixes():
            pictures.append(path)
        else:
            others[path.suffix.lower()] += 1
    return Found(sorted(pictures), others)


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


def read_pictures(paths: Sequence[Path], image: ImageShape, skip_bad: bool = False) -> Pictures:
    """Pictures of any size as uint8 [n, c, h, w] of the shape wanted: the largest centred part that has its
    proportions, resized, in its channels, with white where it is transparent.

    Args:
        paths: of the files.
        image: the shape.
        skip_bad: whether files that are no pictures, or damaged, are left out.

    Raises:
        DataError: some are, and are not to be left out, or all are.
    """
    out = np.empty((len(paths), *image.chw), dtype=np.uint8)

    def read(i: int) -> str | None:
        try:
            out[i] = _read_picture(paths[i], image)
        except Exception as error:  # a damaged file can make a decoder raise anything at all
            return f"{paths[i]} cannot be read as an image: {error or type(error).__name__}"
        return None

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without Python's lock
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of malformed tags
        wrong = list(pool.map(read, range(len(paths))))
    bad, good = [line for line in wrong if line], [i for i, line in enumerate(wrong) if line is None]
    if bad and (not skip_bad or not good):
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise DataError(f"{'; '.join(bad[:NAMED])}{more}: mend them, take them away, or leave them out (--skip-bad)")
    images = torch.from_numpy(out if not bad else out[good])
    return Pictures(images, [paths[i] for i in good], bad)


def _files(directory: Path) -> Iterator[Path]:
    """All files that are not hidden, each folder once, however many links lead to it from within itself."""
    for place, folders, names in os.walk(directory, followlinks=True):
        here = Path(place)
        above = {parent.resolve() for parent in (here, *here.parents)}
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (here / name).resolve() not in above
        )
        yield from (here / name for name in names if not name.startswith(".") and (here / name).is_file())


def _read_picture(path: Path, image: ImageShape) -> NDArray[np.uint8]:
    size = image.width, image.height
    with Image.open(path) as picture:
        picture.draft(None, (2 * image.width, 2 * image.height))  # a large JPEG is decoded at a fraction of its size
        picture.load()
        seen = _on_white(_as_bytes(_upright(picture)), MODES[image.channels])
        pixels = np.asarray(ImageOps.fit(seen, size, Image.Resampling.LANCZOS))
    return pixels.reshape(image.height, image.width, image.channels).transpose(2, 0, 1)


def _upright(picture: Image.Image) -> Image.Image:
    """As its EXIF tags turn it; as it is where they are malformed."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # tags are read by many parsers, and none of them matters more than the pixels
        return picture


def _as_bytes(picture: Image.Image) -> Image.Image:
    """A picture of 16 bits or of floats in bytes; Pillow would cut off what is above 255.

    Raises:
        ValueError: it is not clear what is white.
    """
    if not picture.mode.startswith(("I", "F")):
        return picture
    pixels = np.asarray(picture, dtype=np.float64)
    lowest, highest = float(pixels.min()), float(pixels.max())
    if picture.mode.startswith("I;16") or (picture.mode == "I" and 255 < highest <= 65535):
        scale = 257.0
    elif picture.mode == "F" and highest <= 1:
        scale = 1 / 255
    else:
        scale = 1.0
    if not (lowest >= 0 and highest <= 255 * scale):  # not: NaN is no colour either
        raise ValueError(f"its pixels go from {lowest:g} to {highest:g}; 0 to 1, 255 or 65535 are understood")
    return Image.fromarray((pixels / scale).round().astype(np.uint8))


def _on_white(picture: Image.Image, mode: str) -> Image.Image:
    """In a mode without transparency, on white: what colour lies below what cannot be seen is chance."""
    if not picture.has_transparency_data:
        return picture.convert(mode)
    layered = picture.convert("RGBA")
    if mode in ("LA", "RGBA"):
        empty = Image.new("RGBA", layered.size, (255, 255, 255, 0))
        seen = layered.getchannel("A").point(lambda alpha: 255 if alpha else 0)
        return Image.composite(layered, empty, seen).convert(mode)
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert(mode)
