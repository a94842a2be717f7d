"""Pictures that clients send, as a model takes them: with a mask, of a fraction of its size, or in grey."""

import base64
import binascii
import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.card import ImageShape
from models.images import Pixels
from service.answering.problems import invalid
from service.asking.decoding import Decoded, decode

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_GAP = 3.0  # a large picture is averaged to about this multiple of its size to be, before it is resampled


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


def decode_base64(field: str, text: str) -> bytes:
    """The bytes of a base64 field; a data: URL is understood too.

    Raises:
        Problem: it is not base64.
    """
    _, _, encoded = text.rpartition(",") if text.startswith("data:") else ("", "", text)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"/{field}", f"this is not base64: {error}", "a picture file, base64-encoded") from error


def read_picture(image: bytes, mask: bytes | None, shape: ImageShape, fit: Fit, max_pixels: int) -> Picture:
    """A picture and its mask, turned as their EXIF data say and fitted together.

    A pixel of the fitted picture is repainted if any pixel that it covers is to be: opaque and white in the mask (alpha
    and value 128 and above), or without a mask transparent in the picture (alpha below 128).

    Args:
        image: a file.
        mask: a file, of the picture's size or already of the model's; None takes the picture's alpha.
        shape: of the model's images.
        fit: `resize` to the model's size, `crop` to its proportions around the centre first, or `error` if it differs.
        max_pixels: of a file that is to be fitted.

    Raises:
        Problem: a file is no picture, is damaged, too large, or of the wrong size; or nothing would be repainted.
    """
    repaint = None if mask is None else _white(_open("mask", mask, shape, fit, max_pixels))
    picture = _open("image", image, shape, fit, max_pixels).image
    if repaint is not None:
        _check_mask(repaint.shape[::-1], picture.size, shape)
    elif "A" in picture.getbands():
        repaint = np.asarray(picture.getchannel("A")) < 128
        if not repaint.any():
            reason = "the picture has no transparent pixel, so nothing would be repainted"
            raise invalid("/mask", reason, "a mask, white = repaint; or a picture that is transparent there")
    else:
        allowed = "a mask, white = repaint; or a picture that is transparent there"
        raise invalid("/mask", "the mask is missing, and the picture has no alpha to take it from", allowed)
    size = shape.width, shape.height
    if picture.size != size:
        box = _box(picture.size, shape, fit)
        if repaint.shape != (shape.height, shape.width):
            repaint = _cover(repaint, box, shape)
        picture = _resize(picture, box, size)
    if not repaint.any():
        raise invalid("/mask", "all white pixels are cut off, so nothing would be repainted", "fit: resize, or none")
    return Picture(_pixels(picture, shape), repaint.astype(np.uint8))


def read_small(image: bytes, shape: ImageShape) -> Pixels:
    """A picture to enlarge, uint8 [h / k, w / k, c] for some whole k from 2 on.

    Raises:
        Problem: the file is no picture, is damaged or transparent, or no such k makes the model's size of its own.
    """
    sizes = [
        (shape.width // k, shape.height // k)
        for k in range(2, min(shape.width, shape.height) + 1)
        if shape.width % k == shape.height % k == 0
    ]
    model = f"{shape.width} x {shape.height}"
    if not sizes:
        raise invalid("/image", f"the model's {model} pixels are no multiple of anything smaller", "another model")
    allowed = f"{', '.join(f'{w} x {h}' for w, h in sizes)} pixels, of which the model's {model} are a multiple"
    picture = decode("image", image, lambda *size: size in sizes or size[::-1] in sizes, allowed).image
    if picture.size not in sizes:
        raise invalid("/image", f"the picture is {picture.width} x {picture.height} pixels", allowed)
    _check_opaque(picture, shape)
    return _pixels(picture, shape)


def read_grey(image: bytes, shape: ImageShape, fit: Fit, max_pixels: int) -> Pixels:
    """A picture to colour, uint8 [h, w], fitted as `read_picture` does.

    Raises:
        Problem: the file is no picture, is damaged, too large, of the wrong size, transparent, or has colours already;
            or the model has none.
    """
    if shape.channels != 3:
        raise invalid("/model", f"its images have {shape.channels} channels, so no colours", "a model of 3 channels")
    picture = _open("image", image, shape, fit, max_pixels).image
    _check_opaque(picture, shape)
    if picture.size != (shape.width, shape.height):
        picture = _resize(picture, _box(picture.size, shape, fit), (shape.width, shape.height))
    if picture.mode.startswith("RGB"):
        red, green, blue = (np.asarray(picture.getchannel(i)) for i in range(3))
        if not ((red == green) & (green == blue)).all():
            raise invalid("/image", "the picture has colours already", "a grey picture: its red, green and blue equal")
        return red.copy()
    return np.asarray(picture.getchannel(0), dtype=np.uint8)


def _open(field: str, data: bytes, shape: ImageShape, fit: Fit, max_pixels: int) -> Decoded:
    """A picture of the model's size, or one that can be fitted to it."""
    size = shape.width, shape.height
    if fit is not Fit.ERROR:
        return decode(field, data, lambda w, h: w * h <= max_pixels, f"at most {max_pixels:,} pixels")
    allowed = f"{size[0]} x {size[1]} pixels, or any other size with `fit`: resize or crop"
    model = f", the model's images are {size[0]} x {size[1]}"
    decoded = decode(field, data, lambda *found: found in (size, size[::-1]), allowed, model)
    if decoded.image.size != size:
        found = "the picture is {} x {} pixels".format(*decoded.image.size)
        raise invalid(f"/{field}", found + model, allowed)
    return decoded


def _white(mask: Decoded) -> NDArray[np.bool_]:
    """Where a mask is white, [h, w].

    Raises:
        Problem: nowhere.
    """
    white = np.asarray(mask.image.convert("L")) >= 128
    if not white.any():
        threshold = f"white is from {(mask.white + 1) // 2:,} on"
        found = f"the mask has no white pixel: its largest value is {mask.largest:g} of {mask.white:,}"
        raise invalid("/mask", f"{found}, so nothing would be repainted", f"{threshold}: white = repaint")
    if "A" in mask.image.getbands():
        white &= np.asarray(mask.image.getchannel("A")) >= 128
        if not white.any():
            reason = "all white pixels of the mask are transparent, so nothing would be repainted"
            raise invalid("/mask", reason, "opaque white = repaint")
    return white


def _check_mask(size: tuple[int, ...], picture: tuple[int, int], shape: ImageShape) -> None:
    model = shape.width, shape.height
    if size not in (picture, model):
        reason = f"the mask is {size[0]} x {size[1]} pixels, the picture {picture[0]} x {picture[1]}"
        raise invalid("/mask", reason, f"the picture's size, or the model's, {model[0]} x {model[1]}")


def _check_opaque(picture: Image.Image, shape: ImageShape) -> None:
    """What is transparent is not known, and would be taken as whatever colour the file has there."""
    if "A" in picture.getbands() and shape.channels in (1, 3) and np.asarray(picture.getchannel("A")).min() < 255:
        raise invalid("/image", "the picture is transparent in places", "an opaque picture")


def _pixels(picture: Image.Image, shape: ImageShape) -> Pixels:
    """uint8 [h, w, c] with the model's channels."""
    pixels = np.asarray(picture.convert(_MODES[shape.channels]), dtype=np.uint8)
    return pixels.reshape(picture.height, picture.width, shape.channels)


def _box(size: tuple[int, int], shape: ImageShape, fit: Fit) -> tuple[float, float, float, float]:
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


def _cover(repaint: NDArray[np.bool_], box: tuple[float, float, float, float], shape: ImageShape) -> NDArray[np.bool_]:
    """Which pixels of the fitted picture cover one that is to be repainted."""
    left, top, right, bottom = box
    for edges, length in (((top, bottom), shape.height), ((left, right), shape.width)):
        step = (edges[1] - edges[0]) / length
        begins = [min(math.floor(edges[0] + i * step + 1e-9), len(repaint) - 1) for i in range(length)]
        ends = [math.ceil(edges[0] + (i + 1) * step - 1e-9) for i in range(length)]
        lines = [repaint[a : max(b, a + 1)].any(axis=0) for a, b in zip(begins, ends, strict=True)]
        repaint = np.stack(lines).T
    return repaint
