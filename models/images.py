"""Images outside: uint8 arrays [n, h, w, c], grids and PNG files. Torch-free."""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Background = int | Sequence[int]


def to_image(pixels: Pixels) -> Image.Image:
    """An image of uint8 [h, w, c]: grey, grey and its opacity, colours, or colours and their opacity."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def grid(
    images: Pixels, columns: int | None = None, padding: int = 2, scale: int = 1, background: Background = 0
) -> Pixels:
    """Images uint8 [n, h, w, c] as one uint8 [H, W, c], row by row.

    Args:
        images: at least one.
        columns: images in a row; by default the grid is as square as can be.
        padding: pixels between images and around them, after scaling.
        scale: factor by which each pixel is repeated.
        background: value of the pixels between, 0 to 255, of all channels or of each.
    """
    n, height, width, channels = images.shape
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    cell_height, cell_width = height * scale + padding, width * scale + padding
    shape = (rows * cell_height + padding, columns * cell_width + padding, channels)
    out = np.full(shape, background, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * cell_height + padding, i % columns * cell_width + padding
        out[top : top + height * scale, left : left + width * scale] = image.repeat(scale, 0).repeat(scale, 1)
    return out


def to_png(pixels: Pixels) -> bytes:
    """A PNG file of uint8 [h, w, c]."""
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, "PNG")
    return buffer.getvalue()
