import io

import numpy as np
import pytest
from PIL import Image

from models.images import grid, to_image, to_png


def numbered(n: int, channels: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images of 2 x 3, each of one value, counted from 1."""
    values = np.arange(1, n + 1, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (n, 2, 3, channels)).copy()


def test_a_grid_is_laid_out_row_by_row() -> None:
    out = grid(numbered(5), columns=3, padding=1, background=255)[..., 0]
    assert out.tolist() == [
        [255] * 13,
        [255, 1, 1, 1, 255, 2, 2, 2, 255, 3, 3, 3, 255],
        [255, 1, 1, 1, 255, 2, 2, 2, 255, 3, 3, 3, 255],
        [255] * 13,
        [255, 4, 4, 4, 255, 5, 5, 5, 255, 255, 255, 255, 255],
        [255, 4, 4, 4, 255, 5, 5, 5, 255, 255, 255, 255, 255],
        [255] * 13,
    ]


@pytest.mark.parametrize(("n", "columns", "rows_by_columns"), [(1, None, (1, 1)), (10, None, (3, 4)), (2, 9, (1, 2))])
def test_a_grid_is_as_square_as_can_be_and_never_wider_than_its_images(
    n: int, columns: int | None, rows_by_columns: tuple[int, int]
) -> None:
    rows, wide = rows_by_columns
    assert grid(numbered(n, 3), columns, padding=0).shape == (rows * 2, wide * 3, 3)


def test_scaling_repeats_pixels_and_leaves_the_padding() -> None:
    image = np.array([[[10], [20]]], dtype=np.uint8)
    assert grid(image[None], padding=1, scale=2)[..., 0].tolist() == [
        [0] * 6,
        [0, 10, 10, 20, 20, 0],
        [0, 10, 10, 20, 20, 0],
        [0] * 6,
    ]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_file_holds_exactly_the_pixels(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    with Image.open(io.BytesIO(to_png(pixels))) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)
    assert to_image(pixels).size == (7, 5)


def test_a_grid_stands_on_a_colour() -> None:
    images = np.full((3, 2, 2, 3), 7, np.uint8)
    out = grid(images, columns=2, padding=1, background=(1, 2, 3))
    assert out[0, 0].tolist() == [1, 2, 3]
    assert out[-2, -2].tolist() == [1, 2, 3]
    assert out[1, 1].tolist() == [7, 7, 7]
