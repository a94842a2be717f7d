from collections.abc import Callable

import pytest

from models.samplers.ancestral import Ancestral
from models.samplers.consistent_annealed import ConsistentAnnealed
from models.samplers.euler import Euler
from models.samplers.table import Table
from models.schedules import geometric


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
def test_consistent_annealing_leaves_the_noise_of_the_next_level(tau: float) -> None:
    """Data of one point: after every row x is N(point, sigma_{i+1}^2), where Langevin's is not."""
    sigmas = geometric(10, 0.01, 12)
    gamma = sigmas[1] / sigmas[0]
    variance = sigmas[0] ** 2
    for sigma, drift, _, noise, known, *_ in ConsistentAnnealed.table(sigmas, 1 - gamma ** (1 + tau)).rows[:-1]:
        variance = (1 - drift / sigma**2) ** 2 * variance + noise**2
        assert variance == pytest.approx(known**2)


@pytest.mark.parametrize(("tau", "same"), [(0.0, Euler.table), (1.0, Ancestral.table)])
def test_consistent_annealing_has_euler_and_ancestral_sampling_at_its_ends(
    tau: float, same: Callable[[list[float]], Table]
) -> None:
    sigmas = geometric(10, 0.01, 12)
    gamma = sigmas[1] / sigmas[0]
    consistent = ConsistentAnnealed.table(sigmas, 1 - gamma ** (1 + tau))
    assert consistent.rows == pytest.approx(same(sigmas).rows, rel=1e-6, abs=1e-6)


def test_it_takes_an_evaluation_a_level() -> None:
    assert len(ConsistentAnnealed.table(geometric(10, 0.01, 35), 0.5)) == 35
