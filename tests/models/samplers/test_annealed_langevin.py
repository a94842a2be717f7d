import numpy as np
import pytest

from models.samplers.annealed_langevin import AnnealedLangevin
from models.schedules import geometric, langevin_step_size


def test_annealed_langevin_steps_scale_with_the_variance_of_their_level() -> None:
    sigmas, step_size = [1.0, 0.1, 0.01], 2e-5
    table = AnnealedLangevin.table(sigmas, 100, step_size, denoise=True, initial_std=None)
    assert len(table) == 301
    assert table.column("sigma")[:-1] == pytest.approx(np.repeat(sigmas, 100))
    alpha = step_size * (np.repeat(sigmas, 100) / 0.01) ** 2
    assert table.column("drift")[:-1] == pytest.approx(alpha / 2)
    assert table.column("noise")[:-1] == pytest.approx(np.sqrt(alpha))
    assert tuple(table.rows[-1]) == pytest.approx((0.01, 0.01**2, 0, 0, 0, 0, 0, 0))
    assert not table.column("carry").any()


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.2), (0.8, 0.05)])
def test_long_annealing_ends_in_the_distribution_of_the_data(mean: float, std: float) -> None:
    """Data N(mean, std^2): every row is linear in x, so the mean and variance of x follow exactly."""
    sigmas = geometric(10, 0.001, 2000)
    table = AnnealedLangevin.table(sigmas, 20, langevin_step_size(sigmas, 20), denoise=True, initial_std=10)
    found, variance = 0.5, 10.0**2
    for sigma, drift, _, noise, *_ in table.rows:
        factor = 1 - drift / (sigma**2 + std**2)
        found, variance = mean + factor * (found - mean), factor**2 * variance + noise**2
    assert found == pytest.approx(mean, abs=1e-3)
    assert variance**0.5 == pytest.approx(std, rel=0.02)
