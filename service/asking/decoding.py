"""Decoding: from a picture file to an upright picture of eight bits a channel, if its header says that it is small."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_STRIP = 2**18  # pixels that are brought to eight bits at a time
_BITS_PER_SAMPLE = 258  # tag of TIFF
_SUBFILE = 254  # tag of TIFF: what a page is
_OF_ANOTHER = 0b101  # in it: another page made smaller, or its mask
_TURNED = {  # by what EXIF calls orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# In a JPEG file: what follows FF is a marker, but for 00, filling and the markers of restarts (ITU T.81, B.1).
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_START_OF_SCAN, _WITHOUT_LENGTH = 0xDA, (0x01, 0xD8, 0xD9)


class Unusable(ValueError):
    """A picture cannot be used.

    Args:
        field: of the request.
        reason: what is wrong.
        allowed: what is allowed.
    """

    def __init__(self, field: str, reason: str, allowed: str) -> None:
        super().__init__(f"/{field}: {reason}")
        self.field, self.reason, self.allowed = field, reason, allowed


@dataclass(frozen=True)
class Limits:
    """What may be decoded.

    Args:
        pixels: of a picture that is fitted to a model's size.
        side: of such a picture, in pixels.
        scans: of a JPEG file; each of a progressive one passes over all of the picture again.
    """

    pixels: int
    side: int
    scans: int


@dataclass(frozen=True)
class Decoded:
    """A picture.

    Args:
        image: upright, as L, LA, RGB or RGBA.
        largest: the largest value that the file has of a channel other than alpha.
        white: the largest value that its depth allows.
    """

    image: Image.Image
    largest: float
    white: int


@dataclass(frozen=True)
class Opened:
    """A picture of which no more than the header was read: that it fits is known, for all that a header tells.

    Args:
        field: of the request, for what is said of it.
        file: Pillow's.
        allowed: what does, in words.
        bits: of a channel, as a TIFF file tells them; 0 where nothing does.
    """

    field: str
    file: Image.Image
    allowed: str
    bits: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, which may be exchanged once it is turned upright."""
        return self.file.size

    def decode(self) -> Decoded:
        """The picture.

        Raises:
            Unusable: it is damaged, or nothing tells which of its values is white.
        """
        with _readable(self.field, self.allowed):
            self.file.load()
            return _eight_bits(self.field, upright(self.file), self.bits)


def open_picture(
    field: str, data: bytes, fits: Callable[[int, int], bool], allowed: str, scans: int, wanted: str = ""
) -> Opened:
    """The picture of a file. Only one whose header tells a size that fits gets as far as a decoder.

    Args:
        field: of the request, for what is said of it.
        data: the file.
        fits: whether a width and a height do, for all that is known before a picture is turned upright: its sides may
            be exchanged then.
        allowed: which sizes do, in words.
        scans: that a JPEG file may have.
        wanted: what is said after the size of one that does not.

    Raises:
        Unusable: it is no picture, is more than one, or does not fit.
    """
    with _readable(field, allowed):
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if not fits(*image.size):
            raise Unusable(field, f"the picture is {image.width} x {image.height} pixels{wanted}", allowed)
        if _goes_on(image, data):
            reason = "the file has more than one picture, and nothing tells which is meant"
            raise Unusable(field, reason, "a file of one picture: one frame, or one page")
        if data.startswith(b"\xff\xd8") and count_scans(data, scans + 1) > scans:
            raise Unusable(field, f"the JPEG file has more than {scans} scans", f"at most {scans} scans")
        return Opened(field, image, allowed, getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (0,))[0])


def count_scans(data: bytes, most: int) -> int:
    """How many scans a JPEG file has, if they are fewer than `most`."""
    scans = place = 0
    while scans < most and (found := _MARKER.search(data, place)):
        kind, place = found[1][0], found.end()
        scans += kind == _START_OF_SCAN
        if kind not in _WITHOUT_LENGTH:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return scans


def _goes_on(image: Image.Image, data: bytes) -> bool:
    """Whether a file has another frame or page, as far as can be told without decoding.

    What a camera adds to a photograph is none, as a thumbnail or how bright it is where.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return False
    if image.format != "TIFF":
        return True
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as second:
            second.seek(1)
            return not second.tag_v2.get(_SUBFILE, 0) & _OF_ANOTHER  # type: ignore[attr-defined]
    except Exception:  # whatever damaged data make of a decoder: they are no page
        return False


@contextmanager
def _readable(field: str, allowed: str) -> Iterator[None]:
    """What a decoder raises is a refusal; but for want of memory, of which whoever gave it tells."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes that are refused here, and about damaged tags
            yield
    except Image.DecompressionBombError as error:
        raise Unusable(field, "the picture is far too large", allowed) from error
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes of a decoder
        kinds = f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
        raise Unusable(field, f"this is not a picture that can be read: {_short(error)}", kinds) from error


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF data say. Only its orientation is decoded: other tags may be damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever damaged data make of a decoder: they say nothing
        orientation = None
    method = _TURNED.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _eight_bits(field: str, image: Image.Image, bits: int) -> Decoded:
    """The picture with one of the modes that the rest works with.

    Args:
        field: see `open_picture`.
        image: of any mode.
        bits: of a channel, as a TIFF file tells them; 0 where nothing does.
    """
    if image.mode.startswith(("I", "F")):
        return _scaled(field, image, bits)
    plain, with_alpha = ("L", "LA") if image.mode in ("1", "L", "LA", "La") else ("RGB", "RGBA")
    mode = with_alpha if image.has_transparency_data else plain
    if image.mode != mode:
        image = image.convert(mode)
    colours = [image.getchannel(name).getextrema()[1] for name in image.getbands() if name != "A"]
    return Decoded(image, max(float(most) for most in colours), 255)  # type: ignore[arg-type]


def _scaled(field: str, image: Image.Image, bits: int) -> Decoded:
    """Pictures of more than eight bits a channel; Pillow's own conversion would cut them off at 255."""
    least, largest = np.inf, -np.inf
    for _, values in _strips(image):
        if np.isnan(values).any():
            raise Unusable(field, "the picture has pixels that are not numbers", "values from 0 to 255")
        least, largest = min(least, values.min()), max(largest, values.max())
    white, transparent = _white(field, image.mode, bits, least, largest), image.info.get("transparency")
    out = np.empty((image.height, image.width), np.uint8)
    opaque = np.ones(out.shape, np.bool_)
    for first, values in _strips(image):
        out[first : first + len(values)] = (values.clip(0, white) * 255 / white).round()
        opaque[first : first + len(values)] = values != transparent
    scaled = Image.fromarray(out)
    if not opaque.all():
        scaled.putalpha(Image.fromarray(opaque).convert("L"))
    return Decoded(scaled, largest, white)


def _strips(image: Image.Image) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Numbers of first rows, and values, float64 [rows, width], of _STRIP pixels at a time."""
    rows = max(1, _STRIP // image.width)
    for first in range(0, image.height, rows):
        strip = image.crop((0, first, image.width, min(first + rows, image.height)))
        yield first, np.asarray(strip, dtype=np.float64)


def _white(field: str, mode: str, bits: int, least: float, largest: float) -> int:
    """Which value is white.

    Raises:
        Unusable: nothing tells.
    """
    found, allowed = f"its largest value is {largest:g}", "a picture of 8 or 16 bits a channel"
    if mode == "F":
        if largest > 255.5 or least < -0.5 or 0 < largest <= 1:  # half a grey is what rounding may leave
            reason = f"nothing tells which value is white in this picture of floating-point numbers: {found}"
            if least < 0:
                reason += f", its smallest {least:g}"
            raise Unusable(field, reason, f"{allowed}, or numbers from 0 to 255 of which some are above 1")
        return 255
    if not mode.startswith("I;"):
        reason = f"nothing tells which value is white in this picture of 32-bit whole numbers: {found}"
        raise Unusable(field, reason, allowed)
    return 2**bits - 1 if 8 < bits < 16 else 65535  # Pillow keeps 12 bits in 16 as they are


def _short(error: Exception) -> str:
    text = str(error).split("<", 1)[0].strip() or type(error).__name__
    return text[:120]
