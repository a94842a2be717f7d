"""Pictures that clients send: decoded once their header says that they are small enough, then fitted to a model."""

import base64
import binascii
import io
import math
import warnings
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.card import ImageShape
from models.images import Pixels
from service.answering.problems import Problem, invalid

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_GAP = 3.0  # a large picture is averaged to about this multiple of its size to be, before it is resampled
_STRIP = 2**18  # pixels that are brought to eight bits at a time


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

    A pixel of the fitted picture is repainted if any pixel that it covers is to be: white in the mask (128 and above),
    or without a mask transparent in the picture (alpha below 128).

    Args:
        image: a file.
        mask: a file, of the picture's size or already of the model's; None takes the picture's alpha.
        shape: of the model's images.
        fit: `resize` to the model's size, `crop` to its proportions around the centre first, or `error` if it differs.
        max_pixels: of a file that is to be fitted.

    Raises:
        Problem: a file is no picture, is damaged, too large, or of the wrong size; or nothing would be repainted.
    """
    repaint = None if mask is None else np.asarray(_open("mask", mask, shape, fit, max_pixels).convert("L")) >= 128
    picture = _open("image", image, shape, fit, max_pixels)
    if repaint is not None:
        _check_mask(repaint.shape[::-1], picture.size, shape)
    elif "A" in picture.getbands():
        repaint = np.asarray(picture.getchannel("A")) < 128
    else:
        allowed = "a mask, white = repaint; or a picture that is transparent there"
        raise invalid("/mask", "the mask is missing, and the picture has no alpha to take it from", allowed)
    if not repaint.any():
        which = "mask has no white" if mask is not None else "picture has no transparent"
        raise invalid("/mask", f"the {which} pixel, so nothing would be repainted", "white = repaint")
    size = shape.width, shape.height
    if picture.size != size:
        box = _box(picture.size, shape, fit)
        if repaint.shape != (shape.height, shape.width):
            repaint = _cover(repaint, box, shape)
        picture = _resize(picture, box, size)
    pixels = np.asarray(picture.convert(_MODES[shape.channels]), dtype=np.uint8)
    if not repaint.any():
        raise invalid("/mask", "all white pixels are cut off, so nothing would be repainted", "fit: resize, or none")
    return Picture(pixels.reshape(shape.height, shape.width, shape.channels), repaint.astype(np.uint8))


def _check_mask(size: tuple[int, ...], picture: tuple[int, int], shape: ImageShape) -> None:
    model = shape.width, shape.height
    if size not in (picture, model):
        reason = f"the mask is {size[0]} x {size[1]} pixels, the picture {picture[0]} x {picture[1]}"
        raise invalid("/mask", reason, f"the picture's size, or the model's, {model[0]} x {model[1]}")


def _open(field: str, data: bytes, shape: ImageShape, fit: Fit, max_pixels: int) -> Image.Image:
    """The picture, upright, as L, LA, RGB or RGBA. Only a header of the right size gets as far as a decoder."""
    size = shape.width, shape.height
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes that are refused here
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            if fit is Fit.ERROR:
                decodable = image.size in (size, size[::-1])  # one that is turned has its sides exchanged until then
            else:
                decodable = image.width * image.height <= max_pixels
            if decodable:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                image = _eight_bits(field, image)
    except Image.DecompressionBombError as error:
        raise invalid(f"/{field}", "the picture is far too large", _allowed(size, fit, max_pixels)) from error
    except Problem:
        raise
    except Exception as error:  # whatever a damaged file makes of a decoder
        allowed = f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
        raise invalid(f"/{field}", f"this is not a picture that can be read: {_short(error)}", allowed) from error
    found = f"the picture is {image.width} x {image.height} pixels"
    if not decodable and fit is not Fit.ERROR:
        raise invalid(f"/{field}", found, _allowed(size, fit, max_pixels))
    if fit is Fit.ERROR and image.size != size:
        reason = f"{found}, the model's images are {size[0]} x {size[1]}"
        raise invalid(f"/{field}", reason, _allowed(size, fit, max_pixels))
    return image


def _allowed(size: tuple[int, int], fit: Fit, max_pixels: int) -> str:
    if fit is Fit.ERROR:
        return f"{size[0]} x {size[1]} pixels, or any other size with `fit`: resize or crop"
    return f"at most {max_pixels:,} pixels"


def _eight_bits(field: str, image: Image.Image) -> Image.Image:
    """The picture with one of the modes that the rest works with."""
    if image.mode.startswith(("I", "F")):
        return _scaled(field, image)
    plain, with_alpha = ("L", "LA") if image.mode in ("1", "L", "LA", "La") else ("RGB", "RGBA")
    mode = with_alpha if image.has_transparency_data else plain
    return image if image.mode == mode else image.convert(mode)


def _scaled(field: str, image: Image.Image) -> Image.Image:
    """Pictures of 16 or 32 bits a channel; Pillow's own conversion would cut them off at 255."""
    top = 255 if image.mode == "F" else 65535
    out = np.empty((image.height, image.width), np.uint8)
    rows = max(1, _STRIP // image.width)
    for first in range(0, image.height, rows):
        strip = image.crop((0, first, image.width, min(first + rows, image.height)))
        values = np.asarray(strip, dtype=np.float64)
        if np.isnan(values).any():
            raise invalid(f"/{field}", "the picture has pixels that are not numbers", "values from 0 to 255")
        out[first : first + rows] = (values.clip(0, top) * 255 / top).round()
    return Image.fromarray(out)


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


def _short(error: Exception) -> str:
    text = str(error).split("<", 1)[0].strip() or type(error).__name__
    return text[:120]
