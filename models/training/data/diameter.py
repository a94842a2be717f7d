"""The diameter of a data set: the largest distance between two of its images."""

import math

import torch
from torch import Tensor

ROUNDING = 2.0**-24  # of float32, in parts of the number


def diameter(images: Tensor, device: str | torch.device = "cpu", block: int = 2048) -> float:
    """The largest Euclidean distance between two of the images, exactly: sigma_1 (Song & Ermon 2020, technique 1).

    Images are sorted by their distance r to the centre. Two of them are at most r_i + r_j apart, so what is near the
    centre need not be looked at once a larger distance is known. The others are compared in blocks by float32 matrix
    products, and the pairs of which rounding hides whether they are farther apart than those before, by integers.

    Args:
        images: uint8 [n, c, h, w].
        device: where the products are computed.
        block: images that are compared with as many others at once.

    Returns:
        The distance in [0, 1] units, 0 for a single image.
    """
    pixels = images.flatten(1)
    n, size = pixels.shape
    centre = (pixels.sum(0).double() / n).round().float()  # of bytes: what is left of an image is exact in float32
    squares = torch.cat([((pixels[i : i + block] - centre).double() ** 2).sum(1) for i in range(0, n, block)])
    squares, order = squares.sort(descending=True)
    radii = squares.sqrt().tolist()

    def centred(start: int) -> Tensor:
        return (pixels[order[start : start + block]] - centre).to(device)

    largest = 0.0  # squared, an integer
    for i in range(0, n, block):
        if 2 * radii[i] <= math.sqrt(largest):
            break
        rows, row_squares = centred(i), squares[i : i + block].float().to(device)
        error = (2 * size + 16) * ROUNDING * radii[i] ** 2  # of a squared distance: Higham 2002, section 3.1
        for j in range(i, n, block):
            if radii[i] + radii[j] <= math.sqrt(largest):
                break
            column_squares = squares[j : j + block].float().to(device)
            distances = row_squares[:, None] + torch.addmm(column_squares, rows, centred(j).T, alpha=-2)
            top = float(distances.max())
            if top < largest - error:
                continue
            candidates = (distances >= max(largest - error, top - 2 * error)).cpu()
            ours, theirs = candidates.any(1).nonzero()[:, 0], candidates.any(0).nonzero()[:, 0]
            largest = max(largest, _largest_squared(pixels[order[i + ours]], pixels[order[j + theirs]]))
    return math.sqrt(largest) / 255


def _largest_squared(a: Tensor, b: Tensor) -> float:
    """The largest squared distance of a row of a to one of b, uint8; float64 holds such integers exactly."""
    a, b = a.double(), b.double()
    return float(((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T).max())
