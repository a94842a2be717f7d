import pytest
import torch

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
