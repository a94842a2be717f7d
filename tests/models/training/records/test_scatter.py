import io

import numpy as np
import pytest
import torch
from PIL import Image

from models.training.data.toy import from_points, two_gaussians
from models.training.records.scatter import points_png

BLUE = (31, 119, 180)


def coloured(png: bytes | None) -> np.ndarray:
    """Where the picture has the colour of samples, as row and column in parts of its size, [n, 2]."""
    assert png is not None
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    return np.argwhere(np.abs(pixels - BLUE).sum(2) < 30) / pixels.shape[:2]


def test_samples_are_drawn_where_they_lie_in_the_plane() -> None:
    samples = from_points(torch.tensor([[8.0, -8.0]] * 3)).permute(0, 2, 3, 1).numpy()
    found = coloured(points_png(samples, two_gaussians(50)))
    corner = found[found[:, 0] > 0.3]  # above is the legend, where the colour is seen too
    assert len(corner)
    assert (corner[:, 0] > 0.8).all()  # low: y is negative
    assert (corner[:, 1] > 0.8).all()  # right: x is positive


def test_without_matplotlib_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert points_png(np.zeros((1, 1, 1, 2), dtype=np.uint8), two_gaussians(1)) is None
