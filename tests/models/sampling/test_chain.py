from dataclasses import replace

import pytest
import torch

from models.samplers.follow_scores import FollowScores
from models.samplers.heun import Heun
from models.sampling import noise
from models.sampling.chain import Chain, initial
from models.sampling.projections import Unmasked

HEUN = Heun.table([10.0, 1.0, 0.1])


def test_a_known_image_needs_what_is_known_of_it() -> None:
    image, projection = torch.zeros(1, 8, 8), Unmasked(torch.ones(8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="go together"):
        Chain(HEUN, 0, 0, known=image)
    with pytest.raises(ValueError, match="go together"):
        Chain(HEUN, 0, 0, projection=projection)
    assert Chain(HEUN, 0, 0, known=image, projection=projection).remaining == 5


def test_remaining_counts_from_the_cursor() -> None:
    assert Chain(HEUN, 0, 0, cursor=2).remaining == 3


def test_a_chain_starts_normal_around_the_mean_of_its_table_or_uniform() -> None:
    shape = (1, 64, 64)
    (wide,) = initial([Chain(replace(HEUN, initial_mean=0.13), seed=3, index=2)], shape)
    assert torch.equal(wide, 0.13 + 10 * noise.normal([3], [2], [0], noise.INITIAL, shape)[0])
    assert abs(wide.std() - 10) < 0.5
    (uniform,) = initial([Chain(FollowScores.table(0.1, 5, 0.01), seed=3, index=2)], shape)
    assert uniform.shape == shape
    assert 0 < uniform.min() < 0.01 < 0.99 < uniform.max() < 1
