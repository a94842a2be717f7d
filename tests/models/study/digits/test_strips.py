import io

import numpy as np
import pytest
from PIL import Image

from models.study.digits.strips import Strip, strips_png


def pixel_counts(file: bytes) -> dict[tuple[int, ...], int]:
    with Image.open(io.BytesIO(file)) as picture:
        colours = picture.convert("RGB").getcolors(2**24)
    assert colours is not None
    return {colour: count for count, colour in colours}


@pytest.mark.parametrize(("channels", "shown"), [(1, (0, 0, 0)), (3, (200, 30, 60))])
def test_rows_are_drawn_in_their_colours(channels: int, shown: tuple[int, ...]) -> None:
    images = np.zeros((4, 8, 8, channels), np.uint8) + np.array(shown[:channels], np.uint8)
    one = strips_png([Strip("first", images)])
    two = strips_png([Strip("first", images), Strip("second\nof them", images)], ["a", "b", "c", "d"])
    counts = pixel_counts(one)[shown], pixel_counts(two)[shown]
    assert counts[0] > 4 * 30 * 30
    assert counts[1] > 1.5 * counts[0]
