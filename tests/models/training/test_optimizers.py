import pytest
import torch
from torch import Tensor, nn

from models.networks.unet import UNet
from models.training.optimizers import Optimizer, hidden_kernels


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(1, channels=[8, 16], blocks=[1, 1], attention=[False, True], embedding=16, groups=4, head_channels=8)


def give_gradients(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def changes(name: str, factor: float) -> dict[str, Tensor]:
    """What one step with some gradients does to every weight."""
    net = network()
    before = {key: value.detach().clone() for key, value in net.named_parameters()}
    optimizer = Optimizer(name, net, learning_rate=1e-3, muon_learning_rate=0.1)  # type: ignore[arg-type]
    give_gradients(net)
    optimizer.step(factor)
    return {key: value.detach() - before[key] for key, value in net.named_parameters()}


def test_muon_trains_the_hidden_convolutions_and_nothing_else() -> None:
    net = network()
    kernels = {id(kernel) for kernel in hidden_kernels(net)}
    names = {name for name, parameter in net.named_parameters() if id(parameter) in kernels}
    assert "down.0.blocks.0.conv_in.weight" in names
    assert "down.1.attention.0.qkv.weight" in names
    assert names.isdisjoint({"conv_in.weight", "conv_out.weight", "film.weight", "embed.0.weight"})
    assert all(name.endswith("weight") and "norm" not in name for name in names)


def test_adam_alone_moves_every_weight_by_its_rate() -> None:
    for change in changes("adam", 0.5).values():
        assert torch.allclose(change.abs(), torch.full_like(change, 0.5e-3), rtol=1e-3)


def test_muon_moves_a_kernel_by_an_orthogonal_matrix_of_its_rate() -> None:
    moved = changes("muon", 0.5)
    kernel = moved["down.1.blocks.0.conv_out.weight"].flatten(1)  # 16 x 144
    singular = torch.linalg.svdvals(kernel) / (0.5 * 0.1)
    assert singular.min() > 0.5  # Newton and Schulz' iteration is rough: about 0.7 to 1.2
    assert singular.max() < 1.5
    bias = moved["down.1.blocks.0.conv_out.bias"]
    assert torch.allclose(bias.abs(), torch.full_like(bias, 0.5e-3), rtol=1e-3)


def test_the_state_of_another_optimizer_is_refused() -> None:
    adam = Optimizer("adam", network(), 1e-3, 0.1)
    with pytest.raises(ValueError, match="size of optimizer's group"):
        Optimizer("muon", network(), 1e-3, 0.1).load_state_dict(adam.state_dict())
