from typing import Any

import pytest
import torch

from models.networks.unet import UNet

SMALL: dict[str, Any] = {
    "channels": [16, 32],
    "blocks": [1, 1],
    "attention": [False, True],
    "embedding": 16,
    "groups": 4,
}


def perturbed(**arguments: Any) -> UNet:
    torch.manual_seed(0)
    network = UNet(**arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(
    ("arguments", "side"),
    [
        ({}, 28),
        (SMALL | {"image_channels": 3}, 8),
        (SMALL | {"patch": 1, "channels": [8, 16, 32], "blocks": [2, 1, 1], "attention": [False] * 3}, 12),
        (SMALL | {"channels": [16], "blocks": [2], "attention": [False]}, 6),
    ],
    ids=["shipped", "colour", "three resolutions", "one resolution"],
)
def test_the_output_is_shaped_as_the_image_and_every_weight_takes_part(arguments: dict[str, Any], side: int) -> None:
    network = perturbed(**arguments)
    x = torch.randn(2, arguments.get("image_channels", 1), side, side)
    out = network(x, network.condition(torch.tensor([-1.0, 0.5])))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_a_fresh_network_gives_every_image_the_same_answer() -> None:
    network = UNet(**SMALL)
    a, b = network(torch.randn(2, 1, 8, 8), network.condition(torch.tensor([0.0, 1.0])))
    assert torch.equal(a, b)


def test_each_image_sees_its_own_noise_level_only() -> None:
    network = perturbed(**SMALL)
    x = torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1)
    with torch.no_grad():
        a, b, c = network(x, network.condition(torch.tensor([-1.0, 0.5, -1.0])))
    assert torch.allclose(a, c, atol=1e-6)
    assert (a - b).abs().max() > 1e-3


def test_with_classes_each_image_sees_its_own_label_only() -> None:
    network = perturbed(**SMALL, classes=3)
    x, level = torch.randn(1, 1, 8, 8).expand(4, -1, -1, -1), torch.zeros(4)
    with torch.no_grad():
        a, b, c, none = network(x, network.condition(level, torch.tensor([0, 2, 0, 3])))
    assert torch.allclose(a, c, atol=1e-6)
    assert (a - b).abs().max() > 1e-3
    assert (a - none).abs().max() > 1e-3


def test_the_shipped_architecture_has_the_size_it_is_documented_with() -> None:
    parameters = sum(p.numel() for p in UNet().parameters())
    assert 1e6 < parameters < 3e6


def test_every_resolution_needs_all_three_settings() -> None:
    with pytest.raises(ValueError, match="2, 1 and 2 entries"):
        UNet(channels=[16, 32], blocks=[1], attention=[False, True])


def test_dropout_acts_in_training_only() -> None:
    network = perturbed(**SMALL, dropout=0.5)
    x, condition = torch.randn(1, 1, 8, 8), network.condition(torch.zeros(1))
    assert torch.equal(network(x, condition), network(x, condition))
    network.train()
    assert not torch.equal(network(x, condition), network(x, condition))
