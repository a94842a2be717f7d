from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from models.networks.ncsnpp import NCSNpp, Resample

SMALL: dict[str, Any] = {"channels": 8, "multipliers": [1, 2, 2], "blocks": 1, "attention": [False, True, False]}
KINDS = [
    SMALL,
    SMALL | {"kernel": [1, 1], "picture_in": None, "fourier": False, "classes": 3},
    SMALL | {"picture_in": "skip", "pictures_out": True, "rescale": False, "image_channels": 1},
]
IDS = ["NCSN++", "DDPM++ with classes", "pictures in and out"]


def perturbed(**arguments: Any) -> NCSNpp:
    torch.manual_seed(0)
    network = NCSNpp(**arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("arguments", KINDS, ids=IDS)
def test_the_output_is_shaped_as_the_image_and_every_weight_takes_part(arguments: dict[str, Any]) -> None:
    network = perturbed(**arguments)
    x = torch.randn(4, arguments.get("image_channels", 3), 16, 16)
    label = torch.tensor([0, 1, 2, 3]) if "classes" in arguments else None
    out = network(x, network.condition(torch.tensor([3.0, -1.0, 0.5, 2.0]), label))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("arguments", KINDS, ids=IDS)
def test_an_image_has_the_same_bits_at_every_width(arguments: dict[str, Any]) -> None:
    network = perturbed(**arguments)
    x = torch.randn(19, arguments.get("image_channels", 3), 16, 16)
    with torch.inference_mode():
        condition = torch.cat([network.condition(torch.tensor([0.3 * i])) for i in range(len(x))])
        wide = network(x, condition)
        for width in (2, 3, 5, 8, 16, 17):
            assert torch.equal(network(x[:width], condition[:width]), wide[:width])


def test_a_class_changes_what_the_network_is_told_and_the_last_is_none() -> None:
    network = perturbed(**KINDS[1])
    level = torch.tensor([0.5])
    told = [network.condition(level, torch.tensor([label])) for label in range(4)]
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(told))
    assert torch.equal(told[3], network.condition(level))


def test_the_short_filter_gives_means_and_copies() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(Resample([1, 1], "down")(x), F.avg_pool2d(x, 2), atol=1e-6)
    assert torch.allclose(Resample([1, 1], "up")(x), F.interpolate(x, scale_factor=2.0), atol=1e-6)


def test_the_long_filter_weighs_nine_parts_to_three_to_one() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = 64
    down = Resample([1, 3, 3, 1], "down")(x)[0, 0]
    assert down[1:4, 1:4].tolist() == [[1, 3, 0], [3, 9, 0], [0, 0, 0]]
    up = Resample([1, 3, 3, 1], "up")(x)[0, 0]
    assert up.sum() == 4 * 64
    assert up[7:11, 7:11].tolist() == [[4, 12, 12, 4], [12, 36, 36, 12], [12, 36, 36, 12], [4, 12, 12, 4]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"attention": [True]}, "multipliers and attention have 3 and 1 entries"),
        ({"multipliers": [], "attention": []}, "have 0 and 0 entries"),
        ({"kernel": [1, 2, 1]}, "a filter must be symmetric"),
        ({"kernel": [1, 2]}, "a filter must be symmetric"),
        ({"kernel": [0, 0]}, "of positive sum"),
        ({"picture_in": "cat"}, "allowed: skip, residual"),
        ({"noise_channels": 2}, "even and at least 4"),
        ({"channels": 6}, "divisible"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NCSNpp(**SMALL | arguments)
