"""Pictures on their way to the service and back. Pillow and numpy are imported when they are needed."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoreserve.errors import WrongArgument

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# What PNG has no place for: modes that TIFF has, and those that become another without loss.
_IN_TIFF = ("CMYK", "YCbCr", "LAB", "I", "F")
_STORED_AS = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA", "RGBX": "RGB", "HSV": "RGB", "I;16B": "I;16", "I;16L": "I;16"}


def encode(picture: "Image | np.ndarray | os.PathLike[str] | str | bytes") -> bytes:
    """The file of a picture: a path's content or bytes as they are, a Pillow image or an array without loss.

    Args:
        picture: a Pillow image, turned as its EXIF data say, as its file would be; an array [height, width] or [height,
            width, channels], uint8, or bool for a mask; the path of a picture file, or its bytes.

    Raises:
        WrongArgument: the file cannot be read, or this is no picture.
    """
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | os.PathLike):
        try:
            return Path(picture).read_bytes()
        except (OSError, ValueError, TypeError) as error:
            raise WrongArgument(f"cannot read {picture!s}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _file(picture)
    except WrongArgument:
        raise
    except Exception as error:  # whatever Pillow says of what it cannot write
        raise WrongArgument(f"this picture cannot be sent: {error}") from error


def decode(file: bytes) -> "Image":
    """The picture of a file."""
    from PIL import Image  # noqa: PLC0415

    with Image.open(io.BytesIO(file)) as image:
        image.load()
        return image


def arrays(npz: bytes) -> "np.ndarray":
    """The images of a samples.npz: uint8 [count, height, width, channels]."""
    import numpy as np  # noqa: PLC0415

    with np.load(io.BytesIO(npz), allow_pickle=False) as archive:
        images: np.ndarray = archive["images"]
        return images


def _file(picture: Any) -> bytes:
    from PIL import Image  # noqa: PLC0415

    image = _upright(picture) if isinstance(picture, Image.Image) else Image.fromarray(_pixels(picture))
    buffer = io.BytesIO()
    kind = "PNG"
    if image.mode in _IN_TIFF:
        kind = "TIFF"
    elif image.mode in _STORED_AS:
        image = image.convert(_STORED_AS[image.mode])
    image.save(buffer, kind)
    return buffer.getvalue()


def _upright(image: "Image") -> "Image":
    """An image turned as its EXIF data say. Only its orientation is decoded: other tags may be damaged."""
    from PIL import ExifTags  # noqa: PLC0415
    from PIL.Image import Transpose  # noqa: PLC0415

    turned = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        method = turned.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever damaged data make of a decoder: they say nothing
        return image
    return image if method is None else image.transpose(method)


def _pixels(array: Any) -> Any:
    kind, shape = str(getattr(array, "dtype", "")), tuple(getattr(array, "shape", ()))
    if kind not in ("uint8", "bool") or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2, 3, 4))):
        what = f"an array of {kind} {list(shape)}" if kind else f"a {type(array).__name__}"
        forms = "uint8 or bool [height, width], or uint8 [height, width, channels] of 1 to 4 channels"
        others = "" if kind else "; a Pillow image, a path, or the bytes of a file"
        raise WrongArgument(f"{what} is no picture: {forms}{others}")
    if kind == "bool":
        array = array.astype("uint8") * 255
    return array[:, :, 0] if len(shape) == 3 and shape[2] == 1 else array
