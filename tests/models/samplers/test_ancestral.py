import pytest

from models.samplers.ancestral import Ancestral


def test_ancestral_sampling_draws_from_the_posterior_of_one_point() -> None:
    """q(x_{i+1} | x_i, x_0) of the variance-exploding chain: mean and variance for x_0 = 0."""
    sigmas = [3.0, 2.0, 0.5]
    for (sigma, drift, _, noise, *_), following in zip(Ancestral.table(sigmas).rows, [2.0, 0.5, 0.0], strict=True):
        assert 1 - drift / sigma**2 == pytest.approx(following**2 / sigma**2)
        assert noise**2 == pytest.approx(following**2 * (sigma**2 - following**2) / sigma**2)
