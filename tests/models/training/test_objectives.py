import math

import pytest
import torch
from torch import Tensor, nn

from models.card import ImageShape
from models.score import Preconditioning, ScoreModel
from models.training.objectives import denoising_score_matching, stratified_log_normal

MEAN, STD = 0.3, 0.2
WRONG = Preconditioning(0.5, 0.35)


class TrueScore(nn.Module):
    """The output that makes WRONG the exact score of N(MEAN, STD^2), times `scale` and plus `shift`."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.0))

    def condition(self, noise_level: Tensor) -> Tensor:
        return torch.exp(4 * noise_level)[:, None]

    def forward(self, scaled: Tensor, condition: Tensor) -> Tensor:
        sigma = condition[:, :, None, None]
        total = (sigma**2 + WRONG.std**2).sqrt()
        centred = scaled * total
        score = (MEAN - WRONG.mean - centred) / (sigma**2 + STD**2)
        exact = (score + centred / total**2) * sigma * total / WRONG.std
        return self.scale * exact + self.shift


def batch(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    shape = (n, 1, 8, 8)
    x = MEAN + STD * torch.randn(shape, generator=generator)
    sigma = stratified_log_normal(n, -0.9, 1.4, generator)
    return x, sigma, torch.randn(shape, generator=generator)


def test_the_optimum_is_the_true_score() -> None:
    network = TrueScore()
    x, sigma, noise = batch(20_000, torch.Generator().manual_seed(0))

    model = ScoreModel(TrueScore(), WRONG, ImageShape(channels=1, height=8, width=8))
    assert torch.allclose(model.score(x[:4], 0.7), (MEAN - x[:4]) / (0.7**2 + STD**2), rtol=1e-4, atol=1e-4)

    loss = denoising_score_matching(network, WRONG, x, sigma, noise)
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert abs(parameter.grad) < 0.02
    with torch.no_grad():
        for scale, shift in [(0.9, 0.0), (1.1, 0.0), (1.0, 0.1), (1.0, -0.1)]:
            network.scale.fill_(scale)
            network.shift.fill_(shift)
            assert denoising_score_matching(network, WRONG, x, sigma, noise) > loss


def test_with_the_right_preconditioning_nothing_is_left_to_the_network_and_the_loss_is_one() -> None:
    class Zero(TrueScore):
        def forward(self, scaled: Tensor, condition: Tensor) -> Tensor:
            return torch.zeros_like(scaled)

    x, sigma, noise = batch(20_000, torch.Generator().manual_seed(1))
    loss = denoising_score_matching(Zero(), Preconditioning(MEAN, STD), x, sigma, noise)
    assert float(loss) == pytest.approx(1.0, abs=0.01)


def test_the_loss_is_the_weighted_distance_of_the_model_s_score_from_the_noise(tiny_model: ScoreModel) -> None:
    p = tiny_model.parametrisation
    x, sigma, noise = batch(16, torch.Generator().manual_seed(2))
    s = sigma[:, None, None, None]
    weight = s**4 * (s**2 + p.std**2) / (s * p.std) ** 2
    distance = tiny_model.score(x + s * noise, sigma.tolist()) + noise / s
    loss = denoising_score_matching(tiny_model.network, p, x, sigma, noise)
    assert float(loss) == pytest.approx(float((weight * distance**2).mean()), rel=1e-4)


def test_noise_levels_are_log_normal_and_stratified() -> None:
    n = 1000
    sigma = stratified_log_normal(n, -0.9, 1.4, torch.Generator().manual_seed(0))
    logs = sigma.log()
    assert float(logs.mean()) == pytest.approx(-0.9, abs=0.01)
    assert float(logs.std()) == pytest.approx(1.4, abs=0.03)
    quantile = torch.special.ndtr((logs.double() + 0.9) / 1.4)
    assert sorted((quantile * n).floor().long().tolist()) == pytest.approx(list(range(n)), abs=1)
    assert not torch.equal(sigma, sigma.sort().values)


def test_a_single_noise_level_is_finite() -> None:
    for seed in range(50):
        sigma = stratified_log_normal(1, -0.9, 1.4, torch.Generator().manual_seed(seed))
        assert math.isfinite(float(sigma))
        assert sigma > 0
