"""Made-up data: points in the plane, seen as images of one pixel whose channels are the coordinates."""

import torch
from torch import Tensor

SPAN = 10.0  # coordinates from -SPAN to SPAN are pixels from 0 to 255


def two_gaussians(n: int, seed: int = 0) -> Tensor:
    """n points of 1/5 N((-5, -5), I) + 4/5 N((5, 5), I) (Song & Ermon 2019, section 3.2.2), uint8 [n, 2, 1, 1].

    As bytes they lie on a lattice of width 0.08, a twelfth of a Gaussian's standard deviation.
    """
    generator = torch.Generator().manual_seed(seed)
    mean = torch.where(torch.rand(n, generator=generator) < 0.2, -5.0, 5.0)[:, None]
    points = mean + torch.randn((n, 2), generator=generator)
    return from_points(points)


def is_plane(images: Tensor) -> bool:
    """Whether images [n, c, h, w] are points in the plane."""
    return tuple(images.shape[1:]) == (2, 1, 1)


def from_points(points: Tensor) -> Tensor:
    """Images uint8 [n, 2, 1, 1] of points [n, 2]; those beyond SPAN are moved to it."""
    pixels = (points + SPAN) / (2 * SPAN) * 255
    return pixels.round().clamp(0, 255).to(torch.uint8)[:, :, None, None]


def to_points(images: Tensor) -> Tensor:
    """Points [n, 2] of images uint8 [n, 2, 1, 1]."""
    return images[:, :, 0, 0].float() / 255 * (2 * SPAN) - SPAN
