"""Whether samples are copies: the training images nearest to them (Song & Ermon 2019, appendix)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.images import Pixels, grid

CHUNK = 4096  # training images that are looked at together
NEIGHBOURS = 9  # in the picture


@dataclass(frozen=True)
class Copying:
    """How near samples are to the training images, beside real images that are not among them.

    Args:
        images: how many of each kind were looked at.
        samples: median distance from a sample to its nearest training image, in units of pixels in [0, 1].
        test: the same for real test images.
        ratio: of the two; far below 1, samples are copies. None where test images are copies themselves.
    """

    images: int
    samples: float
    test: float
    ratio: float | None

    @classmethod
    def of(cls, samples: Pixels, train: Pixels, test: float) -> "Copying":
        """From samples uint8 [n, h, w, c], training images [m, h, w, c], and the distance of as many test images."""
        near = median_distance(samples, train)
        return cls(len(samples), near, test, near / test if test else None)


def median_distance(images: Pixels, train: Pixels) -> float:
    """Median over images uint8 [n, h, w, c] of the distance to the nearest training image; see `nearest`."""
    return float(np.median(nearest(images, train, 1)[0]))


def nearest(images: Pixels, train: Pixels, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixel L2 distances [n, k] in units of pixels in [0, 1], ascending, and numbers [n, k] of the nearest images.

    Args:
        images: uint8 [n, h, w, c].
        train: where the nearest are sought, uint8 [m, h, w, c], m at least k.
        k: how many.
    """
    a = _flat(images)
    best, found = np.full((len(a), k), np.inf), np.zeros((len(a), k), np.int64)
    for start in range(0, len(train), CHUNK):
        b = _flat(train[start : start + CHUNK])
        # Rounding in float32 may swap two that are near alike; the distances returned are computed anew, exactly.
        squared = (b**2).sum(1) - 2 * a @ b.T + (a**2).sum(1)[:, None]
        both = np.concatenate([best, squared], axis=1)
        numbers = np.concatenate([found, np.broadcast_to(np.arange(start, start + len(b)), squared.shape)], axis=1)
        order = np.argpartition(both, k - 1, axis=1)[:, :k]
        best, found = np.take_along_axis(both, order, 1), np.take_along_axis(numbers, order, 1)
    differences = a[:, None].astype(np.float64) - _flat(train[found.reshape(-1)]).reshape(len(a), k, -1)
    distances = np.sqrt((differences**2).sum(2)) / 255
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(distances, order, 1), np.take_along_axis(found, order, 1)


def neighbours_picture(samples: Pixels, train: Pixels, k: int = NEIGHBOURS, scale: int = 2) -> Pixels:
    """A row for each sample: the sample, a gap, and the k training images nearest to it, uint8 [H, W, c]."""
    _, numbers = nearest(samples, train, k)
    gap = np.zeros_like(samples[:1])
    rows = [np.concatenate([samples[i : i + 1], gap, train[numbers[i]]]) for i in range(len(samples))]
    return grid(np.concatenate(rows), columns=k + 2, scale=scale)


def _flat(images: Pixels) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32)
