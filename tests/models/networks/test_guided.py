from typing import Any

import pytest
import torch

from models.networks.guided import GuidedUNet

MAIN: dict[str, Any] = {
    "channels": [16, 32],
    "blocks": [1, 1],
    "attention": [False, False],
    "embedding": 16,
    "groups": 4,
}
GUIDE = MAIN | {"channels": [8, 16]}


def network(weight: float, interval: tuple[float, float] | None = None) -> GuidedUNet:
    torch.manual_seed(0)
    network = GuidedUNet(MAIN, GUIDE, weight, interval)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("weight", [1.0, 1.5, 3.0])
@torch.inference_mode()
def test_it_goes_on_from_the_guide_past_the_main_network(weight: float) -> None:
    guided, x, level = network(weight), torch.randn(3, 1, 8, 8), torch.tensor([-0.5, 0.0, 0.5])
    main = guided.main(x, guided.main.condition(level))
    guide = guided.guide(x, guided.guide.condition(level))
    found = guided(x, guided.condition(level))
    assert torch.allclose(found, guide + weight * (main - guide), atol=1e-5)
    assert torch.equal(found, main) == (weight == 1)


@torch.inference_mode()
def test_outside_its_interval_the_main_network_is_left_as_it_is() -> None:
    guided, x = network(2.0, interval=(0.3, 2.0)), torch.randn(4, 1, 8, 8)
    level = torch.tensor([0.2, 0.4, 1.9, 2.1]).log() / 4
    main, found = guided.main(x, guided.main.condition(level)), guided(x, guided.condition(level))
    everywhere = network(2.0)
    assert torch.equal(found[[0, 3]], main[[0, 3]])
    assert torch.equal(found[1:3], everywhere(x, everywhere.condition(level))[1:3])
    assert not torch.isclose(found[1:3], main[1:3]).all()
