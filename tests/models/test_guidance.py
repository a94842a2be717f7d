"""Which rows are guided, and what that costs."""

import math

import pytest

from models.guidance import UNGUIDED, Guidance
from models.samplers.euler import Euler
from models.schedules import karras

TABLE = Euler.table([10.0, 4.0, 2.0, 1.0, 0.1])


@pytest.mark.parametrize(
    ("guidance", "image_steps"),
    [
        (UNGUIDED, 5),
        (Guidance(1.0, 0.5, 3.0), 5),
        (Guidance(2.0), 10),
        (Guidance(0.0), 10),
        (Guidance(1.5, 1.0, 4.0), 8),
        (Guidance(1.5, 1.1, 3.9), 6),
        (Guidance(1.5, 20.0, math.inf), 5),
    ],
)
def test_a_row_costs_two_image_steps_within_the_interval_and_one_elsewhere(
    guidance: Guidance, image_steps: int
) -> None:
    assert guidance.image_steps(TABLE) == image_steps


@pytest.mark.parametrize("rho", [1.0, 3.0, 4.0, 7.0, 9.0])
@pytest.mark.parametrize("sigma_max", [10.0, 20.0, 80.0])
def test_an_interval_from_end_to_end_has_the_ends_of_any_schedule(rho: float, sigma_max: float) -> None:
    for levels in (2, 3, 20, 100):
        table = Euler.table(karras(sigma_max, 0.02, levels, rho))
        assert Guidance(2.0, 0.02, sigma_max).image_steps(table) == 2 * levels


def test_what_is_done_is_counted_row_by_row() -> None:
    assert [Guidance(1.5, 1.0, 4.0).image_steps(TABLE, rows) for rows in range(6)] == [0, 1, 3, 5, 7, 8]
