import torch
from torch import Tensor, nn

from models.card import ImageShape
from models.networks.plain import Plain
from models.parametrisation import X0
from models.processes import VarianceExploding
from models.score import ScoreModel


class Told(nn.Module):
    """Returns what it was told, in every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        told = sigma if label is None else sigma + 100 * label
        return self.scale * told[:, None, None, None].expand_as(x)


def test_it_is_told_each_images_level_and_label() -> None:
    network, x = Plain(Told()), torch.zeros(2, 1, 4, 4)
    levels = torch.tensor([0.5, 2.0])
    assert network(x, network.condition(levels))[:, 0, 0, 0].tolist() == [0.5, 2.0]
    condition = network.condition(levels, torch.tensor([3, 0]))
    assert network(x, condition)[:, 0, 0, 0].tolist() == [300.5, 2.0]


def test_its_weights_are_the_networks_own() -> None:
    network = Plain(Told())
    assert list(network.state_dict()) == ["scale"]
    network.load_state_dict({"scale": torch.full((1,), 2.0)})
    assert network.state_dict()["scale"].tolist() == [2.0]


def test_a_model_of_it_is_evaluated_at_one_width() -> None:
    parametrisation = X0(process=VarianceExploding(label="sigma"))
    model = ScoreModel(Plain(Told()), parametrisation, ImageShape(channels=1, height=4, width=4))
    assert model.needs_one_width
    assert torch.allclose(model.denoise(torch.rand(3, 1, 4, 4), 0.5), torch.full((3, 1, 4, 4), 0.5))
