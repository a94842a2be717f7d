"""The exact score of noised images, against automatic differentiation of the density as it is defined."""

import pytest
import torch
from torch import Tensor

from models.study.digits import exact

IMAGES = torch.randint(0, 256, (7, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def defined(x: Tensor, sigma: float) -> Tensor:
    """grad log of the mean of N(image, sigma^2 I), but for the constant."""
    at = x.double().requires_grad_()
    distances = ((at[:, None] - IMAGES.double() / 255) ** 2).flatten(2).sum(2)
    (gradient,) = torch.autograd.grad(torch.logsumexp(-distances / (2 * sigma**2), dim=1).sum(), at)
    return gradient


@pytest.mark.parametrize("sigma", [0.02, 0.3, 4.0])
@pytest.mark.parametrize("part", [3, 10_000])
def test_it_is_the_gradient_of_the_log_density(sigma: float, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "PART", part)
    x = torch.rand(5, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(exact.score(x, sigma, IMAGES).double(), defined(x, sigma), rtol=1e-5, atol=1e-5)


def test_at_a_small_level_it_leads_to_the_nearest_image() -> None:
    near = IMAGES[3:4].float() / 255 + 0.01
    assert torch.allclose(near + 0.001**2 * exact.score(near, 0.001, IMAGES), IMAGES[3:4].float() / 255, atol=1e-6)
