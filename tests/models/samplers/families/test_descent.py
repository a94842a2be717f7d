from collections.abc import Callable

import numpy as np
import pytest

from models.samplers.adams_bashforth import AdamsBashforth
from models.samplers.ancestral import Ancestral
from models.samplers.euler import Euler
from models.samplers.heun import Heun
from models.samplers.table import Table
from models.schedules import karras


@pytest.mark.parametrize(
    ("solver", "order"),
    [(Euler.table, 1), (AdamsBashforth.table, 2), (Heun.table, 2)],
    ids=["euler", "adams_bashforth", "heun"],
)
def test_a_solver_of_the_ode_has_its_order(solver: Callable[[list[float]], Table], order: int) -> None:
    """Data N(0, 1): dx/dsigma = sigma x / (1 + sigma^2), so x(sigma) = x(s) sqrt((1 + sigma^2) / (1 + s^2))."""

    def error(steps: int) -> float:
        x, previous = 1.0, 0.0
        sigmas = list(np.linspace(2, 1, steps + 1))
        rows = solver(sigmas).rows
        end = next(i for i, row in enumerate(rows) if row[0] == sigmas[-1])  # the rows that lead to sigma = 1
        if solver is Heun.table:
            end += 1
        for sigma, drift, carry, *_ in rows[:end]:
            current = drift * -x / (1 + sigma**2)
            x, previous = x + current + carry * previous, current
        return float(abs(x - np.sqrt(2 / 5)))

    assert error(200) < 1e-2
    assert error(200) / error(400) == pytest.approx(2**order, rel=0.1)


def test_one_evaluation_a_level_is_all_that_one_row_samplers_take() -> None:
    for solver in (Euler.table, AdamsBashforth.table, Ancestral.table):
        assert len(solver(karras(10, 0.01, 35, 7))) == 35
