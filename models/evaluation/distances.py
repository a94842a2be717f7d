"""Distances between sets of images in a feature space. Numpy only."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 3  # k of Kynkaanniemi 2019
CHUNK = 1000  # rows of a matrix of distances that are in memory at once

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Moments:
    """The normal distribution that is fitted to features: its mean, float64 [f], and covariance, float64 [f, f]."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, features: Features) -> "Moments":
        """From features [n, f], n at least 2."""
        return cls(features.mean(0, dtype=np.float64), np.cov(features.T, dtype=np.float64))


def frechet(a: Features, b: Features) -> float:
    """Frechet distance between normal distributions fitted to features [n, f] and [m, f].

    It is biased upward where n or m is small: compare only equal ones.
    """
    return frechet_of_moments(Moments.of(a), Moments.of(b))


def frechet_of_moments(a: Moments, b: Moments) -> float:
    """Frechet distance between normal distributions (Heusel 2017, eq. 6).

    |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2), A and B the covariances.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ b.covariance @ root).clip(0)).sum()
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap)


def precision_recall(generated: Features, real: Features, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi 2019, eq. 1 and 2) of features [n, f] and [m, f].

    The manifold of a set is the union of balls around its points, each as large as the distance to the k-th nearest
    other point of the set. Precision is the share of generated images in the manifold of the real ones, recall the
    share of real images in that of the generated ones. Of the larger set as many are taken as the smaller one has.

    Raises:
        ValueError: there are too few to have k neighbours.
    """
    n = min(len(generated), len(real))
    if n <= k:
        raise ValueError(f"precision and recall need more than {k} images of each kind, not {n}")
    a, b = (part[evenly(len(part), n)].astype(np.float64) for part in (generated, real))
    return _share_inside(a, b, k), _share_inside(b, a, k)


def evenly(size: int, n: int) -> NDArray[np.int64]:
    """`n` of the indices below `size`, at even distances: the first half of MNIST's test images is the easier one."""
    return np.arange(n) * size // n


def _share_inside(points: NDArray[np.float64], centres: NDArray[np.float64], k: int) -> float:
    """The share of points [n, f] in the manifold of centres [m, f]."""
    # Of a centre's distances to all centres the smallest is the one to itself.
    radii = np.concatenate([np.partition(part, k, axis=1)[:, k] for part in _squared(centres, centres)])
    inside = [(part <= radii).any(axis=1) for part in _squared(points, centres)]
    return float(np.concatenate(inside).mean())


def _squared(a: NDArray[np.float64], b: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Squared Euclidean distances [n, m] of [n, f] and [m, f], CHUNK rows at a time."""
    squares = (b**2).sum(1)
    for start in range(0, len(a), CHUNK):
        part = a[start : start + CHUNK]
        yield ((part**2).sum(1)[:, None] + squares - 2 * part @ b.T).clip(0)
