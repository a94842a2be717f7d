import copy
import io

import pytest
import torch
from torch import Tensor, nn

from models.networks.exported import Exported
from models.networks.plain import Plain
from models.sampling.execution import Execution


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.conv(x) + sigma[:, None, None, None]))
        return out


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def program(net: nn.Module) -> Tensor:
    """The bytes of its program, uint8."""
    n = torch.export.Dim("n", min=2)
    exported = torch.export.export(
        net, (torch.randn(4, 1, 8, 8), torch.rand(4)), dynamic_shapes={"x": {0: n}, "sigma": {0: n}}
    )
    file = io.BytesIO()
    torch.export.save(exported, file)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def test_a_program_computes_what_its_network_does_at_any_width(net: nn.Module, program: Tensor) -> None:
    network = Plain(Exported()).to("cpu").eval()
    network.load_state_dict({"program": program})
    with torch.inference_mode():
        for width in (2, 5):
            x, sigma = torch.randn(width, 1, 8, 8), torch.rand(width)
            assert torch.equal(network(x, network.condition(sigma)), net(x, sigma))
            changed = copy.deepcopy(network).to(torch.float32).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            assert torch.equal(changed(x, network.condition(sigma)), net(x, sigma))


def test_in_bfloat16_a_program_is_run_in_the_types_that_it_has(net: nn.Module, program: Tensor) -> None:
    network = Plain(Exported())
    network.load_state_dict({"program": program})
    executed = Execution("eager", "bfloat16").of(network)
    assert executed is not None
    with torch.inference_mode():
        x, sigma = torch.randn(2, 1, 8, 8).bfloat16().float(), torch.rand(2)
        assert torch.equal(executed(x, network.condition(sigma)), net(x, sigma))


def test_what_is_no_program_is_refused(program: Tensor) -> None:
    for state in ({}, {"weight": program}, {"program": program, "more": program}, {"program": program.float()}):
        with pytest.raises(RuntimeError, match="the bytes of its file, and nothing else"):
            Exported().load_state_dict(state)
