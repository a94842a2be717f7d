import math

import pytest
import torch
from pydantic import ValidationError

from models.training.levels import NoiseLevels, stratified_log_normal, uniform


def test_the_levels_of_ncsn() -> None:
    sigmas = NoiseLevels(sigma_max=1.0, sigma_min=0.01, count=10).sigmas
    assert sigmas == pytest.approx([100 ** (-i / 9) for i in range(10)])
    assert (sigmas[0], sigmas[-1]) == pytest.approx((1.0, 0.01))
    assert NoiseLevels(sigma_max=0.3, sigma_min=0.3, count=1).sigmas == [0.3]


@pytest.mark.parametrize(
    ("sigma_max", "sigma_min", "count"), [(0.1, 1.0, 10), (1.0, 1.0, 2), (1.0, 0.1, 1), (1.0, 0.0, 5), (1.0, 0.1, 0)]
)
def test_levels_that_do_not_descend_are_refused(sigma_max: float, sigma_min: float, count: int) -> None:
    with pytest.raises(ValidationError):
        NoiseLevels(sigma_max=sigma_max, sigma_min=sigma_min, count=count)


def test_every_level_is_drawn_alike() -> None:
    sigma = uniform(10_000, [3.0, 2.0, 1.0], torch.Generator().manual_seed(0))
    for level in (3.0, 2.0, 1.0):
        assert float((sigma == level).float().mean()) == pytest.approx(1 / 3, abs=0.02)


def test_noise_levels_are_log_normal_and_stratified() -> None:
    n = 1000
    sigma = stratified_log_normal(n, -0.9, 1.4, torch.Generator().manual_seed(0))
    logs = sigma.log()
    assert float(logs.mean()) == pytest.approx(-0.9, abs=0.01)
    assert float(logs.std()) == pytest.approx(1.4, abs=0.03)
    quantile = torch.special.ndtr((logs.double() + 0.9) / 1.4)
    assert sorted((quantile * n).floor().long().tolist()) == pytest.approx(list(range(n)), abs=1)
    assert not torch.equal(sigma, sigma.sort().values)


def test_a_single_noise_level_is_finite() -> None:
    for seed in range(50):
        sigma = stratified_log_normal(1, -0.9, 1.4, torch.Generator().manual_seed(seed))
        assert math.isfinite(float(sigma))
        assert sigma > 0
