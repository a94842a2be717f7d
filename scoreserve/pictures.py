"""Pictures on their way to the service and back. Pillow and numpy are imported when they are needed."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


def encode(picture: "Image | np.ndarray | Path | bytes") -> bytes:
    """The file of a picture: a path's content or bytes as they are, pixels as PNG.

    Args:
        picture: a Pillow image; an array [height, width] or [height, width, channels], uint8, or bool for a mask;
            the path of a picture file, or its bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: the array is of another type or shape.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, Path):
        return picture.read_bytes()
    from PIL import Image  # noqa: PLC0415

    image = picture if isinstance(picture, Image.Image) else Image.fromarray(_pixels(picture))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
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
