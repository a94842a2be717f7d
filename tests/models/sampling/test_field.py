"""The score of a model of the plane on a grid."""

import json

import pytest
import torch

from models.sampling.field import LEVELS, SIDE, field, of_plane
from models.score import ScoreModel
from models.study import mixture


def test_it_is_the_score_at_the_points_of_the_grid() -> None:
    model = mixture.exact_model()
    assert of_plane(model.image)
    found = json.loads(field(model, 2.0, 0.01))
    assert (found["sigmas"][0], found["sigmas"][-1], len(found["sigmas"])) == (2.0, 0.01, LEVELS)
    for level in (0, 7, LEVELS - 1):
        sigma, width = found["sigmas"][level], found["half_widths"][level]
        assert len(found["scores"][level]) == len(found["scores"][level][0]) == SIDE
        step = 2 * width / (SIDE - 1)
        for row, column in ((0, 3), (12, 20), (SIDE - 1, 9)):
            point = torch.tensor([[0.5 - width + column * step, 0.5 - width + row * step]])
            (expected,) = model.score(point[:, :, None, None], sigma).flatten(1).tolist()
            assert found["scores"][level][row][column] == pytest.approx(expected, rel=2e-2, abs=2e-2)


def test_pictures_are_no_plane(tiny_model: ScoreModel) -> None:
    assert not of_plane(tiny_model.image)
