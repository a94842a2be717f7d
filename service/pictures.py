"""Pictures that clients send: decoded only once their header says that they fit the model."""

import base64
import binascii
import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.card import ImageShape
from models.images import Pixels
from service.problems import invalid

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


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


def decode_image(field: str, data: bytes, shape: ImageShape) -> Pixels:
    """A picture as uint8 [h, w, c] of the model's shape.

    Raises:
        Problem: it is no picture, is damaged, or is not of the model's height and width.
    """
    image = _open(field, data, shape)
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(field, image)
    converted = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[shape.channels])
    return np.asarray(converted, dtype=np.uint8).reshape(shape.height, shape.width, shape.channels)


def decode_mask(field: str, data: bytes, shape: ImageShape) -> NDArray[np.uint8]:
    """A mask as uint8 [h, w]: 1 where the picture is white (128 and above), to be repainted, 0 where it is kept.

    Raises:
        Problem: it is no picture, is damaged, is not of the model's height and width, or repaints nothing.
    """
    grey = decode_image(field, data, ImageShape(channels=1, height=shape.height, width=shape.width))[..., 0]
    mask = (grey >= 128).astype(np.uint8)
    if not mask.any():
        raise invalid(f"/{field}", "the mask has no white pixel, so nothing would be repainted", "white = repaint")
    return mask


def _open(field: str, data: bytes, shape: ImageShape) -> Image.Image:
    """The picture, turned as its EXIF data says. Only a header of the right size gets as far as a decoder."""
    size = shape.width, shape.height
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes that are refused here
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            found = image.size
            if found in (size, size[::-1]):  # a picture that is turned has its sides exchanged until it is decoded
                image.load()
                image = ImageOps.exif_transpose(image)
                found = image.size
    except Image.DecompressionBombError as error:
        raise invalid(f"/{field}", "the picture is far too large", f"{size[0]} x {size[1]} pixels") from error
    except Exception as error:  # whatever a damaged file makes of a decoder
        allowed = f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
        raise invalid(f"/{field}", f"this is not a picture that can be read: {_short(error)}", allowed) from error
    if found != size:
        raise invalid(
            f"/{field}",
            f"the picture is {found[0]} x {found[1]} pixels, the model's images are {size[0]} x {size[1]}",
            f"{size[0]} x {size[1]} pixels",
        )
    return image


def _to_eight_bits(field: str, image: Image.Image) -> Image.Image:
    """Pictures of 16 or 32 bits a channel; Pillow's own conversion would cut them off at 255."""
    top = 255 if image.mode == "F" else 65535
    values = np.asarray(image, dtype=np.float64)
    if np.isnan(values).any():
        raise invalid(f"/{field}", "the picture has pixels that are not numbers", "values from 0 to 255")
    values = values.clip(0, top)
    return Image.fromarray((values * 255 / top).round().astype(np.uint8))


def _short(error: Exception) -> str:
    text = str(error).split("<", 1)[0].strip() or type(error).__name__
    return text[:120]
