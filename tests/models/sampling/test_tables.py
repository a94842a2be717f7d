import numpy as np
import pytest

from models.sampling import tables
from models.sampling.schedules import geometric, karras, langevin_step_size

ALL = {
    "follow_scores": tables.follow_scores(0.3, 20, 0.01),
    "langevin": tables.langevin(0.3, 20, 0.01, denoise=False),
    "langevin, denoised": tables.langevin(0.3, 20, 0.01, denoise=True),
    "annealed_langevin": tables.annealed_langevin(geometric(10, 0.01, 8), 3, 1e-4, denoise=False, initial_std=10),
    "annealed_langevin, denoised": tables.annealed_langevin(geometric(10, 0.01, 8), 3, 1e-4, True, initial_std=10),
    "heun": tables.heun(karras(10, 0.01, 9, 7)),
}


@pytest.mark.parametrize("table", ALL.values(), ids=ALL)
def test_known_pixels_end_exact_and_rows_cannot_be_changed(table: tables.Table) -> None:
    assert table.column("known")[-1] == 0
    assert np.all(table.column("known")[:-1] > 0)
    assert np.all(table.column("sigma") > 0)
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0, 0] = 1.0


def test_annealed_langevin_steps_scale_with_the_variance_of_their_level() -> None:
    sigmas, step_size = [1.0, 0.1, 0.01], 2e-5
    table = tables.annealed_langevin(sigmas, 100, step_size, denoise=True, initial_std=None)
    assert len(table) == 301
    assert table.column("sigma")[:-1] == pytest.approx(np.repeat(sigmas, 100))
    alpha = step_size * (np.repeat(sigmas, 100) / 0.01) ** 2
    assert table.column("drift")[:-1] == pytest.approx(alpha / 2)
    assert table.column("noise")[:-1] == pytest.approx(np.sqrt(alpha))
    assert tuple(table.rows[-1]) == pytest.approx((0.01, 0.01**2, 0, 0, 0))
    assert not table.column("carry").any()


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.2), (0.8, 0.05)])
def test_long_annealing_ends_in_the_distribution_of_the_data(mean: float, std: float) -> None:
    """Data N(mean, std^2): every row is linear in x, so the mean and variance of x follow exactly."""
    sigmas = geometric(10, 0.001, 2000)
    table = tables.annealed_langevin(sigmas, 20, langevin_step_size(sigmas, 20), denoise=True, initial_std=10)
    found, variance = 0.5, 10.0**2
    for sigma, drift, _, noise, _ in table.rows:
        factor = 1 - drift / (sigma**2 + std**2)
        found, variance = mean + factor * (found - mean), factor**2 * variance + noise**2
    assert found == pytest.approx(mean, abs=1e-3)
    assert variance**0.5 == pytest.approx(std, rel=0.02)


def test_heun_of_18_levels_takes_35_evaluations() -> None:
    table = tables.heun(karras(80, 0.002, 18, 7))
    assert len(table) == 35
    assert table.initial_std == pytest.approx(80)
    assert not table.column("noise").any()


def test_heun_solves_a_linear_equation_to_second_order() -> None:
    """Data N(0, 1): dx/dsigma = sigma x / (1 + sigma^2), so x(0) = x(s) / sqrt(1 + s^2)."""

    def error(levels: int) -> float:
        x, previous = 1.0, 0.0
        for sigma, drift, carry, _, _ in tables.heun(list(np.linspace(2, 2 / levels, levels))).rows:
            current = drift * -x / (1 + sigma**2)
            x, previous = x + current + carry * previous, current
        return float(abs(x - 1 / np.sqrt(5)))

    assert error(200) < 1e-4
    assert error(100) / error(200) == pytest.approx(4, rel=0.1)


def test_samplers_of_one_level_start_uniform_and_others_from_their_first_sigma() -> None:
    starts = {name: table.initial_std for name, table in ALL.items()}
    assert starts == {
        "follow_scores": None,
        "langevin": None,
        "langevin, denoised": None,
        "annealed_langevin": 10,
        "annealed_langevin, denoised": 10,
        "heun": pytest.approx(10),
    }
