"""The score of a model of the plane on a grid, at noise levels from the largest down: what can be drawn of it."""

import json

import torch

from models import schedules
from models.card import ImageShape
from models.score import ScoreModel

LEVELS, SIDE = 16, 25
REACH, PER_SIGMA = 0.62, 2.0  # half of a grid's width: the square of all images, and how far noise leads out of it
DIGITS = 3


def of_plane(image: ImageShape) -> bool:
    """Whether an image is a point of the plane: one pixel of two channels, which are its coordinates."""
    return image.chw == (2, 1, 1)


def field(model: ScoreModel, sigma_max: float, sigma_min: float) -> bytes:
    """A JSON document of the scores of a model of the plane, as `GET /models/{name}/scores` answers with it.

    Args:
        model: of points in the plane.
        sigma_max, sigma_min: the noise levels that it knows.
    """
    sigmas = schedules.geometric(sigma_max, sigma_min, LEVELS)
    widths = [REACH + PER_SIGMA * sigma for sigma in sigmas]
    document = {
        "sigmas": [_rounded(sigma) for sigma in sigmas],
        "half_widths": [_rounded(width) for width in widths],
        "scores": [_scores(model, sigma, width) for sigma, width in zip(sigmas, widths, strict=True)],
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _scores(model: ScoreModel, sigma: float, width: float) -> list[list[list[float]]]:
    """Scores [SIDE][SIDE][2] on a square around the middle of all images, row by row from below."""
    side = torch.linspace(0.5 - width, 0.5 + width, SIDE)
    up, across = torch.meshgrid(side, side, indexing="ij")
    points = torch.stack([across.flatten(), up.flatten()], dim=1)
    scores = model.score(points[:, :, None, None].to(model.device), sigma).cpu()
    return [[[_rounded(x) for x in point] for point in row] for row in scores.reshape(SIDE, SIDE, 2).tolist()]


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
