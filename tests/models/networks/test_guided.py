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


def network(weight: float) -> GuidedUNet:
    torch.manual_seed(0)
    network = GuidedUNet(MAIN, GUIDE, weight)
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
