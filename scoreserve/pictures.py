"""Pictures on their way to the service and back. Pillow and numpy are imported when they are needed."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# What PNG has no place for: modes that TIFF has, and those that become another without loss.
_IN_TIFF = ("CMYK", "YCbCr", "LAB", "I", "F")
_STORED_AS = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA", "RGBX": "RGB", "HSV": "RGB", "I;16B": "I;16", "I;16L": "I;16"}


def encode(picture: "Image | np.ndarray | Path | str | bytes") -> bytes:
    """The file of a picture: a path's content or bytes as they are, a Pillow image or an array without loss.

    Args:
        picture: a Pillow image, turned as its EXIF data say, as its file would be; an array [height, width] or [height,
            width, channels], uint8, or bool for a mask; the path of a picture file, or its bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: the array is of another type or shape.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, Path | str):
        return Path(picture).read_bytes()
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


def _pixels(array: "np.ndarray") -> Any:
    if array.dtype == bool:
        array = array.astype("uint8") * 255
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype != "uint8" or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))):
        raise ValueError(
            f"an array of {array.dtype} {list(array.shape)} is no picture: uint8 or bool [height, width], or uint8 "
            "[height, width, channels] of 1 to 4 channels"
        )
    return array
