from itertools import pairwise
from typing import Any

import pytest
import torch

from models.networks.adm import ADM

SMALL: dict[str, Any] = {
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": [False, True],
    "head_channels": 4,
    "group_channels": 2,
}
KINDS = [
    SMALL | {"classes": 3},
    SMALL | {"image_channels": 1, "film": False, "resample": "convolutions"},
    SMALL | {"heads": [2, 4], "head_channels": None, "multipliers": [0.5, 1, 2], "attention": [True, False, False]},
]
IDS = ["classes", "improved diffusion", "numbers of heads"]


def perturbed(**arguments: Any) -> ADM:
    torch.manual_seed(0)
    network = ADM(**arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("arguments", KINDS, ids=IDS)
def test_the_output_is_shaped_as_the_image_and_every_weight_takes_part(arguments: dict[str, Any]) -> None:
    network = perturbed(**arguments)
    x = torch.randn(2, arguments.get("image_channels", 3), 8, 8)
    label = torch.tensor([0, 2]) if "classes" in arguments else None
    out = network(x, network.condition(torch.tensor([3.0, 700.0]), label))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("arguments", KINDS, ids=IDS)
def test_an_image_has_the_same_bits_at_every_width(arguments: dict[str, Any]) -> None:
    network = perturbed(**arguments)
    x = torch.randn(19, arguments.get("image_channels", 3), 16, 16)
    with torch.inference_mode():
        condition = torch.cat([network.condition(torch.tensor([10.0 * i])) for i in range(len(x))])
        wide = network(x, condition)
        for width in (2, 3, 5, 8, 16, 17):
            assert torch.equal(network(x[:width], condition[:width]), wide[:width])


def test_a_class_changes_what_the_network_is_told() -> None:
    network = perturbed(**SMALL, classes=3)
    level = torch.tensor([5.0])
    none, first, third, unknown = (
        network.condition(level, label) for label in (None, torch.tensor([0]), torch.tensor([2]), torch.tensor([3]))
    )
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise([none, first, third]))
    assert torch.equal(none, unknown)


def test_the_published_network_has_its_published_size() -> None:
    """ADM at 64 x 64: 296 million weights (Dhariwal & Nichol 2021, Table 4), with both halves of a learned variance."""
    with torch.device("meta"):
        network = ADM(3, 192, (1, 2, 3, 4), 3, (False, True, True, True), classes=1000)
    weights = sum(p.numel() for p in network.parameters()) + 3 * (192 * 9 + 1)
    assert round(weights / 1e6) == 296


def test_heads_wider_than_the_features_are_no_attention() -> None:
    network = ADM(**SMALL | {"head_channels": 64})
    assert not any("attention" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": [True]}, "2 and 1 entries"),
        ({"heads": [1, 1]}, "one of the two"),
        ({"head_channels": None}, "one of the two"),
        ({"resample": "nothing"}, "allowed: blocks, convolutions"),
        ({"channels": 9}, "9 are odd"),
        ({"head_channels": 5}, "shared out to 3 heads"),
    ],
)
def test_what_is_no_such_network_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ADM(**SMALL | arguments)


def test_each_image_sees_its_own_noise_level_only() -> None:
    network = perturbed(**SMALL)
    x = torch.randn(1, 3, 8, 8).expand(3, -1, -1, -1)
    with torch.no_grad():
        a, b, c = network(x, network.condition(torch.tensor([10.0, 500.0, 10.0])))
    assert torch.allclose(a, c, atol=1e-6)
    assert (a - b).abs().max() > 1e-3
