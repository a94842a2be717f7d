from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.networks.refinenet import RefineNetV1, RefineNetV2, instance_norm_plus


def perturbed(network: Any) -> Any:
    """The network with all its weights moved from where they start, so that none is zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def v1(**arguments: Any) -> RefineNetV1:
    torch.manual_seed(0)
    return perturbed(RefineNetV1(**{"levels": 3, "ngf": 4} | arguments))


def v2(**arguments: Any) -> RefineNetV2:
    torch.manual_seed(0)
    return perturbed(RefineNetV2(**{"image_channels": 1, "ngf": 4} | arguments))


@pytest.mark.parametrize(
    ("make", "arguments", "parameters"),
    [
        (RefineNetV1, {"levels": 10, "image_channels": 1, "ngf": 64}, 7_638_657),
        (RefineNetV1, {"levels": 10, "image_channels": 3, "ngf": 128}, 30_117_635),
        (RefineNetV2, {"image_channels": 3, "ngf": 128}, 29_694_083),
    ],
    ids=["NCSN MNIST", "NCSN CIFAR-10", "NCSNv2 CIFAR-10"],
)
def test_the_networks_are_as_large_as_their_authors(make: Any, arguments: dict[str, int], parameters: int) -> None:
    with torch.device("meta"):
        network = make(**arguments)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("stages", "channels", "sides", "dilations"),
    [
        (4, [4, 8, 8, 8], [32, 16, 16, 16], [1, 1, 2, 4]),
        (5, [4, 8, 8, 16, 16], [32, 16, 8, 8, 8], [1, 1, 1, 2, 4]),
        (6, [4, 8, 8, 8, 16, 16], [32, 16, 8, 4, 4, 4], [1, 1, 1, 1, 2, 4]),
    ],
    ids=["NCSNv2", "NCSNv2Deeper", "NCSNv2Deepest"],
)
def test_each_stage_has_its_channels_side_and_dilation(
    stages: int, channels: list[int], sides: list[int], dilations: list[int]
) -> None:
    network = v2(stages=stages)
    shapes: list[torch.Size] = []

    def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        shapes.append(output.shape[1:])

    for block in [*(stage[-1] for stage in network.stages), *network.refine]:
        block.register_forward_hook(record)
    with torch.no_grad():
        network(torch.rand(1, 1, 32, 32), torch.empty(1, 0))
    assert shapes[:stages] == list(zip(channels, sides, sides, strict=True))
    refined = [channels[max(i - 1, 0)] for i in reversed(range(stages))]
    assert shapes[stages:] == list(zip(refined, sides[::-1], sides[::-1], strict=True))
    for stage, dilation in zip(network.stages, dilations, strict=True):
        for block in stage:
            assert block.conv1.dilation == (dilation, dilation)
            inner = block.conv2.conv if dilation == 1 and block is stage[0] and stage is not network.stages[0] else None
            assert (inner or block.conv2).dilation == (dilation, dilation)


@pytest.mark.parametrize("stages", [4, 5, 6])
@pytest.mark.parametrize("make", [v1, v2])
def test_the_output_is_shaped_as_the_image_and_every_weight_takes_part(make: Any, stages: int) -> None:
    network = make(stages=stages, image_channels=3)
    x = torch.rand(3, 3, 16, 16)
    out = network(x, network.condition(torch.arange(3.0)))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_there_is_no_network_of_other_numbers_of_stages() -> None:
    with pytest.raises(ValueError, match="no RefineNet of 3 stages; allowed: 4, 5, 6"):
        RefineNetV2(stages=3)


@pytest.mark.parametrize(("stages", "side"), [(4, 12), (4, 28), (5, 28), (6, 16)])
@pytest.mark.parametrize("make", [v1, v2])
def test_an_image_has_the_same_bits_in_batches_of_all_widths(make: Any, stages: int, side: int) -> None:
    network = make(stages=stages)
    x = torch.randn(16, 1, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        conditions = network.condition(torch.arange(16.0) % 3)
        expected = network(x, conditions)
        for width in (2, 3, 5):
            for i in range(0, 16 - width, width):
                part = slice(i, i + width)
                assert torch.equal(network(x[part], conditions[part]), expected[part])


def test_each_image_sees_its_own_noise_level_only() -> None:
    network = v1()
    x = torch.rand(1, 1, 8, 8).expand(3, -1, -1, -1)
    with torch.no_grad():
        a, b, c = network(x, network.condition(torch.tensor([0.0, 2.0, 0.0])))
    assert torch.equal(a, c)
    assert (a - b).abs().max() > 1e-3


def test_the_second_network_is_told_no_noise_level() -> None:
    assert v2().condition(torch.tensor([0.1, 5.0])).shape == (2, 0)


def test_instance_norm_plus_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64) + torch.randn(2, 3, 1, 1)
    gamma, alpha, beta = torch.randn(3, 2, 3, dtype=torch.float64)
    for i in range(2):
        mu = [float(x[i, c].mean()) for c in range(3)]
        m = sum(mu) / 3
        v = sum((value - m) ** 2 for value in mu) / 2  # over c - 1, as the authors' code has it
        for c in range(3):
            normal = (x[i, c] - mu[c]) / (x[i, c].var(correction=0) + 1e-5).sqrt()
            expected = gamma[i, c] * (normal + alpha[i, c] * (mu[c] - m) / (v + 1e-5) ** 0.5) + beta[i, c]
            assert torch.allclose(instance_norm_plus(x, gamma, alpha, beta)[i, c], expected)
