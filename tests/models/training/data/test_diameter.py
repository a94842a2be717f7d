import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from models.training.data.diameter import diameter


def brute_force(images: Tensor) -> float:
    rows = images.flatten(1).numpy().astype(np.int64)
    return math.sqrt(max(int(((a - b) ** 2).sum()) for a in rows for b in rows)) / 255


@settings(max_examples=100, deadline=None)
@given(
    pixels=arrays.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 4))),
    block=st.sampled_from([1, 3, 8, 64]),
)
def test_the_diameter_is_the_largest_distance_of_any_two_images(pixels: np.ndarray, block: int) -> None:
    images = torch.from_numpy(pixels)[:, :, None, None]
    assert diameter(images, block=block) == brute_force(images)


@pytest.mark.parametrize("block", [16, 200])
def test_images_of_very_different_contrast(block: int) -> None:
    """Few of them are far from the centre, and most need not be compared."""
    generator = torch.Generator().manual_seed(0)
    contrast = torch.rand(150, 1, 1, 1, generator=generator) ** 3
    images = (127 + contrast * (torch.randint(0, 256, (150, 3, 6, 6), generator=generator) - 127)).to(torch.uint8)
    assert diameter(images, block=block) == brute_force(images)


def test_no_rounding_of_large_numbers_hides_the_farthest_pair() -> None:
    """1,560 pairs are as far apart and 40 a little farther, which float32 cannot tell."""
    generator = torch.Generator().manual_seed(0)
    pixels = 240 + torch.arange(3072) % 16
    pixels[0] = 0
    bright = torch.stack([pixels[torch.randperm(3072, generator=generator)] for _ in range(40)])
    images = torch.cat([bright, torch.zeros_like(bright)]).to(torch.uint8).reshape(-1, 3, 32, 32)
    for farthest in range(0, 40, 4):
        changed = images.clone()
        changed[farthest][changed[farthest] == 0] = 1
        assert diameter(changed, block=128) == math.sqrt(int((pixels**2).sum()) + 1) / 255


@pytest.mark.parametrize("n", [1, 5])
def test_images_that_are_all_the_same_have_none(n: int) -> None:
    assert diameter(torch.full((n, 1, 2, 2), 9, dtype=torch.uint8)) == 0
