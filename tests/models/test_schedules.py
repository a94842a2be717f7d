import math
from itertools import pairwise

import pytest

from models import schedules


def test_ten_geometric_levels_have_the_ratio_of_ncsn() -> None:
    sigmas = schedules.geometric(1.0, 0.01, 10)
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (10, 1.0, 0.01)
    ratios = [above / below for above, below in pairwise(sigmas)]
    assert ratios == pytest.approx([1.668] * 9, abs=5e-4)


@pytest.mark.parametrize(
    ("sigma_max", "sigma_min", "levels", "rho"), [(80, 0.002, 18, 7), (10, 0.01, 5, 3), (1, 0.5, 2, 1)]
)
def test_karras_levels_follow_the_formula_of_edm(sigma_max: float, sigma_min: float, levels: int, rho: float) -> None:
    expected = [
        (sigma_max ** (1 / rho) + j / (levels - 1) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
        for j in range(levels)
    ]
    assert schedules.karras(sigma_max, sigma_min, levels, rho) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dimension", [784, 3072, 3 * 256**2])
def test_the_ratio_of_levels_follows_from_the_dimension(dimension: int) -> None:
    """Where images are large, one of the two terms of eq. 2 is 1: then gamma = 1 / (1 - 3 / sqrt(2D))."""
    assert schedules.geometric_ratio(dimension) == pytest.approx(1 / (1 - 3 / math.sqrt(2 * dimension)), abs=1e-6)
    assert schedules.geometric_ratio(784) == pytest.approx(1.082, abs=5e-4)


@pytest.mark.parametrize(
    ("sigma_max", "side", "published"), [(50, 32, 232), (90, 64, 500), (190, 128, 1086), (348, 256, 2311)]
)
def test_about_as_many_levels_as_ncsn_v2_published(sigma_max: float, side: int, published: int) -> None:
    """The authors' own lie a little closer: the overlap of eq. 2 is 0.57 for them, which they call about one half."""
    levels = schedules.geometric_levels(sigma_max, 0.01, 3 * side**2)
    assert 0.93 * published < levels < published


def test_a_tiny_image_needs_two_levels() -> None:
    assert schedules.geometric_ratio(2) == math.inf
    assert schedules.geometric_levels(10, 0.01, 2) == 2


@pytest.mark.parametrize(
    ("sigma_max", "levels", "steps", "published"),
    [(50, 232, 5, 6.2e-6), (90, 500, 5, 3.3e-6), (190, 1086, 3, 1.8e-6), (348, 2311, 3, 8.9e-7)],
)
def test_step_sizes_are_twice_those_published_for_ncsn_v2(
    sigma_max: float, levels: int, steps: int, published: float
) -> None:
    step_size = schedules.langevin_step_size(schedules.geometric(sigma_max, 0.01, levels), steps)
    exponent = math.floor(math.log10(published))
    assert abs(step_size / 2 - published) <= 0.05 * 10**exponent


@pytest.mark.parametrize(("levels", "steps"), [(10, 1), (50, 2), (232, 5), (90, 1), (2, 20)])
def test_no_other_step_size_keeps_the_variance_closer(levels: int, steps: int) -> None:
    sigmas = schedules.geometric(10.0, 0.01, levels)

    def ratio_after_a_level(step_size: float) -> float:
        a, variance = step_size / 2 / sigmas[-1] ** 2, sigmas[0] ** 2 / sigmas[1] ** 2
        for _ in range(steps):
            variance = (1 - a) ** 2 * variance + 2 * a
        return abs(variance - 1)

    best = schedules.langevin_step_size(sigmas, steps)
    others = [best * factor for factor in (0.2, 0.7, 0.97, 0.995, 1.005, 1.03, 1.3, 1.9)]
    assert ratio_after_a_level(best) <= min(ratio_after_a_level(step) for step in others)
