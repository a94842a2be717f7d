import numpy as np
import pytest

from models.samplers.ancestral import Ancestral
from models.samplers.dpmpp_2m_sde import Dpmpp2mSde

SIGMAS = [3.0, 2.0, 0.5]
FOLLOWING = [2.0, 0.5, 0.0]


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, 2.5])
def test_whatever_its_noise_what_is_left_is_that_of_the_next_level(eta: float) -> None:
    """Data of one point at 0: the denoised image is always 0, so after every row x is N(0, sigma_{i+1}^2)."""
    variance = SIGMAS[0] ** 2
    for (sigma, drift, carry, noise, *_), following in zip(Dpmpp2mSde.table(SIGMAS, eta).rows, FOLLOWING, strict=True):
        variance = (1 - drift / sigma**2 - carry) ** 2 * variance + noise**2  # previous, e - x, is -x
        assert variance == pytest.approx(following**2)


def test_its_first_and_its_last_step_are_those_of_ancestral_sampling() -> None:
    rows, ancestral = Dpmpp2mSde.table(SIGMAS).rows, Ancestral.table(SIGMAS).rows
    for row in (0, 2):
        assert rows[row, :4] == pytest.approx(ancestral[row, :4])
    assert rows[1, 2] < 0
    assert rows[1, 3] == pytest.approx(ancestral[1, 3])


def test_without_noise_it_solves_the_ode_to_the_second_order() -> None:
    """Data N(0, 1): dx/dsigma = sigma x / (1 + sigma^2), so x(sigma) = x(s) sqrt((1 + sigma^2) / (1 + s^2))."""

    def error(steps: int) -> float:
        x, previous = 1.0, 0.0
        for sigma, drift, carry, *_ in Dpmpp2mSde.table([*np.geomspace(2, 1, steps + 1)], 0.0).rows[:steps]:
            denoised = x / (1 + sigma**2)
            x += drift * -x / (1 + sigma**2) + carry * previous
            previous = denoised - x
        return float(abs(x - np.sqrt(2 / 5)))

    assert error(200) < 1e-4
    assert error(200) / error(400) == pytest.approx(4, rel=0.1)
