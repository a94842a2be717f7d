import math

import pytest
import torch
from pydantic import ValidationError

from models import schedules
from models.training.levels import NoiseLevels, stratified_log_normal, uniform


def test_the_levels_of_ncsn() -> None:
    sigmas = NoiseLevels(sigma_max=1.0, sigma_min=0.01, count=10).sigmas
    assert sigmas == pytest.approx([100 ** (-i / 9) for i in range(10)])
    assert (sigmas[0], sigmas[-1]) == pytest.approx((1.0, 0.01))
    assert NoiseLevels(sigma_max=0.3, sigma_min=0.3, count=1).sigmas == [0.3]


@pytest.mark.parametrize(
    ("sigma_max", "sigma_min", "count"),
    [
        (0.1, 1.0, 10),
        (0.1, 1.0, None),
        (1.0, 1.0, 2),
        (1.0, 0.1, 1),
        (None, 0.1, 1),
        (1.0, 0.0, 5),
        (1.0, 0.1, 0),
    ],
)
def test_levels_that_do_not_descend_are_refused(sigma_max: float | None, sigma_min: float, count: int | None) -> None:
    with pytest.raises(ValidationError):
        NoiseLevels(sigma_max=sigma_max, sigma_min=sigma_min, count=count)


def two_images(difference: int) -> torch.Tensor:
    """An image of 6 x 6 and one that differs in every pixel."""
    return torch.tensor([10, 10 + difference], dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 6, 6)


@pytest.mark.parametrize("sigma_max", [None, 3.0])
@pytest.mark.parametrize("count", [None, 7])
def test_what_is_left_out_is_computed_from_the_images(sigma_max: float | None, count: int | None) -> None:
    levels = NoiseLevels(sigma_max=sigma_max, sigma_min=0.02, count=count)
    assert levels.complete == (sigma_max is not None and count is not None)
    completed = levels.completed(two_images(51))
    assert completed.complete
    assert completed.sigma_max == (sigma_max or pytest.approx(6 * 51 / 255))
    assert completed.sigma_min == 0.02
    assert completed.count == (count or schedules.geometric_levels(sigma_max or 6 * 51 / 255, 0.02, 36))
    assert len(completed.sigmas) == completed.count


def test_levels_are_not_known_before_they_are_completed() -> None:
    with pytest.raises(ValueError, match="completed from the training images"):
        _ = NoiseLevels(sigma_min=0.01).sigmas


@pytest.mark.parametrize("difference", [0, 2])
def test_images_that_are_too_much_alike_for_several_levels_are_refused(difference: int) -> None:
    with pytest.raises(ValueError, match=r"no two training images are farther apart than .*above sigma_min 0.5"):
        NoiseLevels(sigma_min=0.5).completed(two_images(difference))
    assert NoiseLevels(sigma_max=1.0, sigma_min=0.5).completed(two_images(difference)).sigma_max == 1.0


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
