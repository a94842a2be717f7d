import pytest
import torch

from models.study import mixture

SIGMAS = [0.01, 0.1, 1.0]


def points() -> torch.Tensor:
    return 6 * torch.randn((200, 2), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_score_is_the_gradient_of_the_log_density(sigma: float) -> None:
    x = points().double().requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x, sigma).sum(), x)
    assert torch.allclose(mixture.score(points().double(), sigma), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_density_integrates_to_one_with_a_fifth_of_it_below(sigma: float) -> None:
    side = torch.linspace(-100, 100, 401, dtype=torch.float64)
    density = mixture.log_density(torch.cartesian_prod(side, side), sigma).exp() * 0.5**2
    assert float(density.sum()) == pytest.approx(1, abs=1e-3)
    if sigma == 0.01:
        below = torch.cartesian_prod(side, side).sum(1) < 0
        assert float(density[below].sum()) == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_exact_model_has_the_score_in_units_of_pixels(sigma: float) -> None:
    x = points()
    scores = mixture.exact_model().score(mixture.to_pixels(x), sigma)
    assert torch.allclose(scores[:, :, 0, 0] / mixture.UNIT, mixture.score(x, sigma), rtol=1e-3, atol=1e-4)


def test_pixels_are_those_of_the_toy_data() -> None:
    corners = torch.tensor([[-10.0, 10.0], [0.0, 5.0]])
    assert mixture.to_pixels(corners)[:, :, 0, 0].tolist() == [[0.0, 1.0], [0.5, 0.75]]
    assert torch.equal(mixture.to_points(mixture.to_pixels(corners)), corners)
