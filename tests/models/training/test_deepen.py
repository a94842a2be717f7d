"""Runs of a network that has more blocks than the model whose weights they start from."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from models.networks.unet import UNet
from models.training.deepen import deepened

PLAIN: dict[str, Any] = {
    "channels": [8, 16],
    "blocks": [1, 2],
    "attention": [False, True],
    "embedding": 16,
    "groups": 4,
    "head_channels": 8,
    "classes": 3,
}


def moved(**changes: Any) -> UNet:
    """A network none of whose layers does nothing."""
    torch.manual_seed(3)
    network = UNet(**{**PLAIN, **changes})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def output(network: UNet) -> Tensor:
    torch.manual_seed(5)
    with torch.no_grad():
        return network(torch.randn(3, 1, 8, 8), network.condition(torch.randn(3), torch.arange(3)))


@pytest.mark.parametrize("blocks", [[2, 2], [1, 4], [3, 3]], ids=["fine", "coarse", "both"])
def test_a_deeper_network_begins_as_the_one_it_starts_from(blocks: list[int]) -> None:
    network, deep = moved(), moved(blocks=blocks)
    assert not torch.allclose(output(deep), output(network), atol=0.1)
    deep.load_state_dict(deepened(network.state_dict(), deep))
    assert_close(output(deep), output(network))


def test_blocks_that_are_added_learn() -> None:
    network, deep = moved(), moved(blocks=[2, 3])
    deep.load_state_dict(deepened(network.state_dict(), deep))
    torch.manual_seed(5)
    deep(torch.randn(3, 1, 8, 8), deep.condition(torch.randn(3), torch.arange(3))).square().sum().backward()
    added = [name for name, _ in deep.named_parameters() if name not in network.state_dict()]
    assert len(added) == 2 * (8 + 8 + 6), "a block at each side of each stage, and attention in the coarse one"
    last = [deep.get_parameter(name).grad for name in added if name.endswith((".conv_out.weight", ".out.weight"))]
    assert len(last) == 6
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in last)


def test_weights_of_another_kind_of_network_are_left_as_they_are() -> None:
    weights = nn.Linear(2, 2).state_dict()
    assert deepened(weights, moved()) is weights
    assert deepened(weights, nn.Linear(2, 2)) is weights
