"""Pictures that clients send, as a model takes them: with a mask, of a fraction of its size, or in grey.

`work` does so in a process of service.apart: this imports little.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.images import Pixels
from service.asking.decoding import Decoded, Limits, Opened, Unusable, open_picture

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_GAP = 3.0  # a large picture is averaged to about this multiple of its size to be, before it is resampled


class Shape(Protocol):
    """Of a model's images, as models.card has it."""

    @property
    def channels(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


@dataclass(frozen=True)
class _Shape:
    channels: int
    height: int
    width: int


class Fit(StrEnum):
    """What happens to a picture that is not of the model's size."""

    ERROR = "error"
    RESIZE = "resize"
    CROP = "crop"


@dataclass(frozen=True)
class Picture:
    """A picture as the model takes it: pixels uint8 [h, w, c], and mask uint8 [h, w], 1 = repaint, 0 = keep."""

    pixels: Pixels
    mask: NDArray[np.uint8]


def work(asked: dict[str, Any], pieces: Iterator[bytes]) -> tuple[dict[str, Any], bytes]:
    """Reads what a request knows of its images, in a process apart.

    Args:
        asked: `how` (unmasked, small or grey), `files`: how many bytes each has by its name, and `shape`, `fit` and
            `limits`.
        pieces: the files, one after the other.

    Returns:
        The sizes of image and mask, and their bytes; or `refused`: field, reason, and what is allowed.
    """
    data, files, end = b"".join(pieces), {}, 0
    for name, size in asked["files"].items():
        files[name], end = data[end : end + size], end + size
    del data
    shape, fit, limits = _Shape(**asked["shape"]), Fit(asked["fit"]), Limits(**asked["limits"])
    image, mask = files["image"], files.get("mask")
    try:
        match asked["how"]:
            case "unmasked":
                found = read_picture(image, mask, shape, fit, limits)
                parts = found.pixels, found.mask
            case "small":
                parts = read_small(image, shape, limits), np.empty(0, np.uint8)
            case _:
                parts = read_grey(image, shape, fit, limits), np.empty(0, np.uint8)
    except Unusable as error:
        return {"refused": [error.field, error.reason, error.allowed]}, b""
    return {"height": len(parts[0]), "image": parts[0].size}, b"".join(part.tobytes() for part in parts)


def read_picture(image: bytes, mask: bytes | None, shape: Shape, fit: Fit, limits: Limits) -> Picture:
    """A picture and its mask, turned as their EXIF data say and fitted together.

    A pixel of the fitted picture is repainted if any pixel that it covers is to be: opaque and white in the mask (alpha
    and value 128 and above), or without a mask transparent in the picture (alpha below 128).

    Args:
        image: a file.
        mask: a file, of the picture's size or already of the model's; None takes the picture's alpha.
        shape: of the model's images.
        fit: `resize` to the model's size, `crop` to its proportions around the centre first, or `error` if it differs.
        limits: of what is decoded.

    Raises:
        Unusable: a file is no picture, is damaged, too large, or of the wrong size; or nothing would be repainted.
    """
    masking = None if mask is None else _open("mask", mask, shape, fit, limits)
    opened = _open("image", image, shape, fit, limits)
    if masking is not None:  # before anything is decoded, as far as headers tell
        _check_mask(masking.size, opened.size, shape, turned=True)
    repaint = None if masking is None else _white(_decoded(masking, shape, fit))
    del masking
    picture = _decoded(opened, shape, fit).image
    if repaint is not None:
        _check_mask(repaint.shape[::-1], picture.size, shape)
    elif "A" in picture.getbands():
        repaint = np.asarray(picture.getchannel("A")) < 128
        if not repaint.any():
            reason = "the picture has no transparent pixel, so nothing would be repainted"
            raise Unusable("mask", reason, "a mask, white = repaint; or a picture that is transparent there")
    else:
        allowed = "a mask, white = repaint; or a picture that is transparent there"
        raise Unusable("mask", "the mask is missing, and the picture has no alpha to take it from", allowed)
    size = shape.width, shape.height
    if picture.size != size:
        box = _box(picture.size, shape, fit)
        if repaint.shape != (shape.height, shape.width):
            repaint = _cover(repaint, box, shape)
        picture = _resize(picture, box, size)
    if not repaint.any():
        raise Unusable("mask", "all white pixels are cut off, so nothing would be repainted", "fit: resize, or none")
    return Picture(_pixels(picture, shape), repaint.astype(np.uint8))


def read_small(image: bytes, shape: Shape, limits: Limits) -> Pixels:
    """A picture to enlarge, uint8 [h / k, w / k, c] for some whole k from 2 on.

    Raises:
        Unusable: the file is no picture, is damaged or transparent, or no such k makes the model's size of its own.
    """
    sizes = [
        (shape.width // k, shape.height // k)
        for k in range(2, min(shape.width, shape.height) + 1)
        if shape.width % k == shape.height % k == 0
    ]
    model = f"{shape.width} x {shape.height}"
    if not sizes:
        raise Unusable("image", f"the model's {model} pixels are no multiple of anything smaller", "another model")
    allowed = f"{', '.join(f'{w} x {h}' for w, h in sizes)} pixels, of which the model's {model} are a multiple"
    picture = open_picture("image", image, _either_way(sizes), allowed, limits.scans).decode().image
    if picture.size not in sizes:
        raise Unusable("image", f"the picture is {picture.width} x {picture.height} pixels", allowed)
    _check_opaque(picture, shape)
    return _pixels(picture, shape)


def read_grey(image: bytes, shape: Shape, fit: Fit, limits: Limits) -> Pixels:
    """A picture to colour, for a model that has colours, uint8 [h, w], fitted as `read_picture` does.

    Raises:
        Unusable: the file is no picture, is damaged, too large, of the wrong size, transparent, or has colours already.
    """
    picture = _decoded(_open("image", image, shape, fit, limits), shape, fit).image
    _check_opaque(picture, shape)
    if picture.size != (shape.width, shape.height):
        picture = _resize(picture, _box(picture.size, shape, fit), (shape.width, shape.height))
    if picture.mode.startswith("RGB"):
        red, green, blue = (np.asarray(picture.getchannel(i)) for i in range(3))
        if not ((red == green) & (green == blue)).all():
            raise Unusable("image", "the picture has colours already", "a grey picture: its red, green and blue equal")
        return red.copy()
    return np.asarray(picture.getchannel(0), dtype=np.uint8)


def _open(field: str, data: bytes, shape: Shape, fit: Fit, limits: Limits) -> Opened:
    """A picture of the model's size, or one that can be fitted to it, of which the header was read."""
    size = shape.width, shape.height
    if fit is not Fit.ERROR:
        allowed = f"at most {limits.pixels:,} pixels, and {limits.side:,} on each side"
        return open_picture(
            field, data, lambda w, h: w * h <= limits.pixels and max(w, h) <= limits.side, allowed, limits.scans
        )
    return open_picture(field, data, _either_way([size]), _exact(shape), limits.scans, _of_model(shape))


def _either_way(sizes: Collection[tuple[int, int]]) -> Callable[[int, int], bool]:
    """Whether a picture may be of one of these sizes once it is turned upright."""
    return lambda width, height: (width, height) in sizes or (height, width) in sizes


def _decoded(opened: Opened, shape: Shape, fit: Fit) -> Decoded:
    """The picture, upright; and of the model's size if it is not to be fitted."""
    decoded = opened.decode()
    if fit is Fit.ERROR and decoded.image.size != (shape.width, shape.height):
        found = "the picture is {} x {} pixels".format(*decoded.image.size)
        raise Unusable(opened.field, found + _of_model(shape), _exact(shape))
    return decoded


def _exact(shape: Shape) -> str:
    return f"{shape.width} x {shape.height} pixels, or any other size with `fit`: resize or crop"


def _of_model(shape: Shape) -> str:
    return f", the model's images are {shape.width} x {shape.height}"


def _white(mask: Decoded) -> NDArray[np.bool_]:
    """Where a mask is white, [h, w].

    Raises:
        Unusable: nowhere.
    """
    white = np.asarray(mask.image.convert("L")) >= 128
    if not white.any():
        threshold = f"white is from {(mask.white + 1) // 2:,} on"
        found = f"the mask has no white pixel: its largest value is {mask.largest:g} of {mask.white:,}"
        raise Unusable("mask", f"{found}, so nothing would be repainted", f"{threshold}: white = repaint")
    if "A" in mask.image.getbands():
        white &= np.asarray(mask.image.getchannel("A")) >= 128
        if not white.any():
            reason = "all white pixels of the mask are transparent, so nothing would be repainted"
            raise Unusable("mask", reason, "opaque white = repaint")
    return white


def _check_mask(size: tuple[int, ...], picture: tuple[int, int], shape: Shape, turned: bool = False) -> None:
    """Refuses a mask of another size than the picture's or the model's.

    Args:
        size: width and height of the mask.
        picture: of the picture.
        shape: of the model's images.
        turned: whether sides may still be exchanged.
    """
    model = shape.width, shape.height
    fitting = {picture, model, *((picture[::-1], model[::-1]) if turned else ())}
    if size not in fitting:
        reason = f"the mask is {size[0]} x {size[1]} pixels, the picture {picture[0]} x {picture[1]}"
        raise Unusable("mask", reason, f"the picture's size, or the model's, {model[0]} x {model[1]}")


def _check_opaque(picture: Image.Image, shape: Shape) -> None:
    """What is transparent is not known, and would be taken as whatever colour the file has there."""
    if "A" in picture.getbands() and shape.channels in (1, 3) and np.asarray(picture.getchannel("A")).min() < 255:
        raise Unusable("image", "the picture is transparent in places", "an opaque picture")


def _pixels(picture: Image.Image, shape: Shape) -> Pixels:
    """uint8 [h, w, c] with the model's channels."""
    pixels = np.asarray(picture.convert(_MODES[shape.channels]), dtype=np.uint8)
    return pixels.reshape(picture.height, picture.width, shape.channels)


def _box(size: tuple[int, int], shape: Shape, fit: Fit) -> tuple[float, float, float, float]:
    """The part of a picture that is kept, as left, top, right and bottom edge."""
    if fit is not Fit.CROP:
        return 0.0, 0.0, float(size[0]), float(size[1])
    scale = min(size[0] / shape.width, size[1] / shape.height)
    width, height = min(size[0], scale * shape.width), min(size[1], scale * shape.height)
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def _resize(picture: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
    """The part of a picture in the box, resampled; what is outside is cut off first, so that it does not shine in."""
    left, top = math.floor(box[0] + 1e-9), math.floor(box[1] + 1e-9)
    edges = left, top, math.ceil(box[2] - 1e-9), math.ceil(box[3] - 1e-9)
    part = picture if edges == (0, 0, *picture.size) else picture.crop(edges)
    inside = box[0] - left, box[1] - top, min(box[2] - left, part.width), min(box[3] - top, part.height)
    return part.resize(size, Image.Resampling.LANCZOS, inside, reducing_gap=_GAP)


def _cover(repaint: NDArray[np.bool_], box: tuple[float, float, float, float], shape: Shape) -> NDArray[np.bool_]:
    """Which pixels of the fitted picture cover one that is to be repainted."""
    left, top, right, bottom = box
    for edges, length in (((top, bottom), shape.height), ((left, right), shape.width)):
        step = (edges[1] - edges[0]) / length
        begins = [min(math.floor(edges[0] + i * step + 1e-9), len(repaint) - 1) for i in range(length)]
        ends = [math.ceil(edges[0] + (i + 1) * step - 1e-9) for i in range(length)]
        lines = [repaint[a : max(b, a + 1)].any(axis=0) for a, b in zip(begins, ends, strict=True)]
        repaint = np.stack(lines).T
    return repaint
