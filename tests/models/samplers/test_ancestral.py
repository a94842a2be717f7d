import pytest

from models.samplers.ancestral import Ancestral
from models.samplers.euler import Euler

SIGMAS = [3.0, 2.0, 0.5]
FOLLOWING = [2.0, 0.5, 0.0]


def test_ancestral_sampling_draws_from_the_posterior_of_one_point() -> None:
    """q(x_{i+1} | x_i, x_0) of the variance-exploding chain: mean and variance for x_0 = 0."""
    for (sigma, drift, _, noise, *_), following in zip(Ancestral.table(SIGMAS).rows, FOLLOWING, strict=True):
        assert 1 - drift / sigma**2 == pytest.approx(following**2 / sigma**2)
        assert noise**2 == pytest.approx(following**2 * (sigma**2 - following**2) / sigma**2)


def test_without_noise_it_is_eulers_method() -> None:
    assert Ancestral.table(SIGMAS, 0.0).rows == pytest.approx(Euler.table(SIGMAS).rows)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.8, 1.0])
def test_whatever_its_share_the_noise_that_is_left_is_that_of_the_next_level(eta: float) -> None:
    """Data of one point: after every row x is N(point, sigma_{i+1}^2)."""
    variance = SIGMAS[0] ** 2
    rows = Ancestral.table(SIGMAS, eta).rows
    for (sigma, drift, _, noise, *_), following, whole in zip(
        rows, FOLLOWING, Ancestral.table(SIGMAS).rows, strict=True
    ):
        variance = (1 - drift / sigma**2) ** 2 * variance + noise**2
        assert variance == pytest.approx(following**2)
        assert noise == pytest.approx(eta * whole[3])
