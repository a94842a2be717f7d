"""The two Gaussians of models.training.data.toy in closed form: their density, and their score as a model."""

import math

import torch
from torch import Tensor, nn

from models.card import ImageShape
from models.parametrisation import Score
from models.processes import VarianceExploding
from models.score import ScoreModel
from models.training.data.toy import SPAN

IMAGE = ImageShape(channels=2, height=1, width=1)
WEIGHTS, MEANS = (0.2, 0.8), (-5.0, 5.0)  # a mean has both coordinates alike
UNIT = 2 * SPAN  # what 1 in pixels is in coordinates


def to_pixels(points: Tensor) -> Tensor:
    """Images float32 [n, 2, 1, 1] of points [n, 2]: unlike those of bytes, exact and without bounds."""
    return (points / UNIT + 0.5)[:, :, None, None]


def to_points(images: Tensor) -> Tensor:
    """Points [n, 2] of images float32 [n, 2, 1, 1]."""
    return (images[:, :, 0, 0] - 0.5) * UNIT


def spread(sigma: float) -> float:
    """The standard deviation of a mode noised by sigma (in units of pixels), in coordinates."""
    return math.hypot(1.0, sigma * UNIT)


def log_density(points: Tensor, sigma: float) -> Tensor:
    """log p_sigma [n] at points [n, 2]."""
    return torch.logsumexp(_logs(points, torch.tensor(spread(sigma) ** 2)), dim=0)


def score(points: Tensor, sigma: float) -> Tensor:
    """grad log p_sigma [n, 2] at points [n, 2], per unit of a coordinate."""
    return _score(points, torch.full((len(points),), spread(sigma) ** 2))


def exact_model(device: str = "cpu") -> ScoreModel:
    """The exact score, seen as the engine sees any model."""
    return ScoreModel(_Exact(), Score(process=VarianceExploding(label="sigma")), IMAGE, device)


class _Exact(nn.Module):
    """A network without weights whose condition is sigma and whose output is the score."""

    def condition(self, sigma: Tensor) -> Tensor:
        return sigma[:, None]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return _score(to_points(x), 1 + (condition[:, 0] * UNIT) ** 2)[:, :, None, None] * UNIT


def _score(points: Tensor, variance: Tensor) -> Tensor:
    lower, upper = torch.softmax(_logs(points, variance), dim=0)
    centre = lower * MEANS[0] + upper * MEANS[1]
    scores: Tensor = (centre[:, None] - points) / variance[:, None]
    return scores


def _logs(points: Tensor, variance: Tensor) -> Tensor:
    """The logarithm of each mode's part of the density at points [n, 2], [2, n]."""
    return torch.stack(
        [
            math.log(weight) - ((points - mean) ** 2).sum(1) / (2 * variance) - torch.log(2 * math.pi * variance)
            for weight, mean in zip(WEIGHTS, MEANS, strict=True)
        ]
    )
