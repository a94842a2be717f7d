"""Models whose score is known in closed form, in the engine's terms."""

import math
from collections.abc import Callable, Sequence
from typing import cast

import pytest
import torch
from torch import Tensor

from models.card import ImageShape, ModelCard
from models.score import ScoreModel


class ExactScore:
    """The score of a mixture of isotropic Gaussians N(mean, std^2) noised by sigma, seen as the engine sees a model.

    Args:
        modes: (weight, mean of every pixel, standard deviation).
        image: shape of an image.
    """

    needs_one_width = False

    def __init__(self, modes: Sequence[tuple[float, float, float]], image: ImageShape) -> None:
        self.modes, self.image, self.device = modes, image, torch.device("cpu")

    def condition(self, sigma: float, label: None = None) -> Tensor:
        return torch.tensor([sigma])

    def conditioned_score(self, x: Tensor, conditions: Tensor) -> Tensor:
        variance = conditions[:, 0, None, None, None] ** 2
        logs = [
            math.log(w) - ((x - m) ** 2 / (2 * (variance + s**2)) + (variance + s**2).log() / 2).sum((1, 2, 3))
            for w, m, s in self.modes
        ]
        shares = torch.softmax(torch.stack(logs), 0)[:, :, None, None, None]
        scores = torch.stack([(m - x) / (variance + s**2) for _, m, s in self.modes])
        return (shares * scores).sum(0)

    def score(self, x: Tensor, sigma: float) -> Tensor:
        return self.conditioned_score(x, torch.full((len(x), 1), sigma))


@pytest.fixture(scope="session")
def exact_score() -> Callable[..., ScoreModel]:
    """Makes the exact model of `modes` (weight, mean, std), of 1 x 4 x 4 images unless another `image` is given."""

    def make(*modes: tuple[float, float, float], image: tuple[int, int, int] = (1, 4, 4)) -> ScoreModel:
        channels, height, width = image
        return cast(ScoreModel, ExactScore(modes, ImageShape(channels=channels, height=height, width=width)))

    return make


@pytest.fixture(scope="session")
def consistency_card(tiny_card: ModelCard) -> ModelCard:
    """A consistency model, which has no score."""
    network = {"kind": "adm", "parametrisation": {"name": "consistency", "pixels": [-1, 1]}}
    update = {"network": network, "sigma_min": 0.001, "sampler": {"name": "multistep_consistency"}}
    return ModelCard.model_validate(tiny_card.model_dump() | update)
