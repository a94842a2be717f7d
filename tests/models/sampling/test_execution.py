from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.networks.plain import Plain
from models.sampling.execution import Execution, candidates
from models.score import ScoreModel

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("execution", "tolerance"),
    [
        (Execution("channels_last"), 1e-5),
        (Execution("eager", "bfloat16"), 0.05),
        (Execution("channels_last", "bfloat16"), 0.05),
    ],
)
def test_a_network_run_in_another_way_computes_the_same(
    tiny_model: ScoreModel, execution: Execution, tolerance: float
) -> None:
    x = torch.randn((3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    expected = tiny_model.score(x, 0.3)
    tiny_model.executed = execution.of(tiny_model.network)
    try:
        found = tiny_model.score(x, 0.3)
    finally:
        tiny_model.executed = None
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert not torch.equal(found, expected), "it was run as before"
    assert (found - expected).norm() < tolerance * expected.norm()
    assert torch.equal(tiny_model.score(x, 0.3), expected), "the network itself stays as it is"


def test_eager_float32_is_the_network_itself(tiny_model: ScoreModel) -> None:
    assert Execution().of(tiny_model.network) is None


def test_what_fuses_or_rounds_is_no_candidate_where_bits_matter() -> None:
    assert candidates(CPU, exact=True) == [Execution(), Execution("channels_last")]
    more = candidates(CPU, exact=False)
    assert {(e.mode, e.dtype) for e in more} == {
        (mode, dtype) for mode in ("eager", "channels_last", "compile") for dtype in ("float32", "bfloat16")
    }


class Embedded(nn.Module):
    """A picture with a step and a label in every pixel: of a table, of a layer of the step, and of the step itself."""

    def __init__(self) -> None:
        super().__init__()
        self.of_step, self.of_label = nn.Embedding(1001, 4), nn.Embedding(1000, 4)
        self.of_phase, self.conv, self.norm = nn.Linear(1, 4), nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.out, self.evened = nn.Conv2d(4, 1, 3, padding=1), nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor, step: Tensor, label: Tensor) -> Tensor:
        phase = self.of_phase(self.evened((step[:, None] * self.scale / 100).sin())[:, :1])
        told = self.of_step(step.long()) + self.of_label(label) + phase
        h = self.norm(self.conv(x) + told[:, :, None, None] + 1e-3 * step[:, None, None, None])
        out: Tensor = self.out(h)
        return out


@pytest.mark.parametrize("mode", ["eager", "channels_last"])
@torch.inference_mode()
def test_in_bfloat16_a_network_that_is_told_a_step_and_a_label_is_told_the_right_ones(mode: Any) -> None:
    torch.manual_seed(0)
    network = Plain(Embedded())
    condition = network.condition(torch.tensor([257.0, 401.0, 999.0]), torch.tensor([999, 257, 3]))
    x = torch.randn(3, 1, 8, 8)
    expected, found = network(x, condition), Execution(mode, "bfloat16").of(network)(x, condition)  # type: ignore[misc]
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert found.dtype == torch.float32
    assert not network.network.of_phase._forward_pre_hooks, "the network itself stays as it is"
