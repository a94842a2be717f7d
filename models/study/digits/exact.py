"""The exact score of noised images: of p_sigma, where the data are so many images and nothing else."""

import torch
from torch import Tensor

PART = 10_000  # images whose distances are held in memory at once


def score(x: Tensor, sigma: float, images: Tensor) -> Tensor:
    """grad log p_sigma at x, float32 [n, c, h, w]; p_sigma is the mean of N(image, sigma^2 I) over all images.

    It leads to the images' mean, weighted by the likelihood of x: (sum_i w_i image_i - x) / sigma^2 with w the softmax
    of -|x - image_i|^2 / (2 sigma^2). In double precision: of a small sigma the exponents are tens of thousands.

    Args:
        x: float32 [n, c, h, w].
        sigma: noise level, above 0.
        images: uint8 [m, c, h, w].
    """
    points = x.flatten(1).double()
    parts = [part.flatten(1) for part in torch.split(images, PART)]
    logs = torch.cat([_logs(points, part.double() / 255, sigma) for part in parts], dim=1)
    weights = torch.split(torch.softmax(logs, dim=1), PART, dim=1)
    mean = torch.zeros_like(points)
    for weight, part in zip(weights, parts, strict=True):
        mean += weight @ (part.double() / 255)
    found: Tensor = ((mean - points) / sigma**2).float().view_as(x)
    return found


def _logs(points: Tensor, images: Tensor, sigma: float) -> Tensor:
    """-|x - image|^2 / (2 sigma^2) but for what all images have in common, [n, m], of rows of numbers."""
    logs: Tensor = (points @ images.T - (images**2).sum(1) / 2) / sigma**2
    return logs
