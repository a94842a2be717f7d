import pytest
import torch
from torch import nn

from models.networks.unet import UNet
from models.training.execution import StepExecution, candidates, channels_last, fastest, has_dropout

WAYS = [StepExecution(pieces=pieces) for pieces in (1, 2, 3, 4, 5)]


def test_the_fastest_is_found_though_the_machine_was_busy_now_and_then() -> None:
    tried: list[int] = []

    def seconds(execution: StepExecution) -> float:
        tried.append(execution.pieces)
        busy = (len(tried) * 7 + execution.pieces) % 5 < 3  # more often than not
        return {1: 1.0, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.9}[execution.pieces] + 5.0 * busy

    assert fastest(WAYS, seconds) == WAYS[3]
    assert tried[:5] == [1, 2, 3, 4, 5], "in turn"
    assert max(tried.count(n) for n in (1, 5)) < tried.count(4), "what is slow is not tried as often"


def test_an_execution_that_fails_is_none() -> None:
    def seconds(execution: StepExecution) -> float:
        if execution.pieces > 1:
            raise RuntimeError("out of memory")
        return 1.0

    assert fastest(WAYS, seconds) == WAYS[0]

    def none_works(_execution: StepExecution) -> float:
        raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        fastest(WAYS, none_works)


def test_a_single_candidate_is_not_measured() -> None:
    assert fastest(WAYS[:1], lambda _: pytest.fail("measured")) == WAYS[0]


def test_the_candidates_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cpu = torch.device("cpu")
    found = candidates(cpu, ["float32", "bfloat16"], in_pieces=True)
    assert found[0] == StepExecution()
    assert len(set(found)) == len(found) == 8
    assert {execution.pieces for execution in found} == {1, 4}
    assert {execution.pieces for execution in candidates(cpu, ["float32"], in_pieces=False)} == {1}


def test_convolutions_see_channels_last_until_that_is_taken_back() -> None:
    network = UNet(channels=[32], blocks=[1], attention=[True], embedding=16, groups=4)
    seen: list[bool] = []
    network.conv_out.register_forward_hook(
        lambda _module, given, _out: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    x, condition = torch.rand(2, 1, 8, 8), network.condition(torch.zeros(2))
    expected = network(x, condition)
    hooks = channels_last(network)
    assert torch.allclose(network(x, condition), expected, atol=1e-5)
    for hook in hooks:
        hook.remove()
    network(x, condition)
    assert seen == [False, True, False]


def test_dropout_is_seen() -> None:
    arguments = {"channels": [16], "blocks": [1], "attention": [False], "embedding": 16, "groups": 4}
    assert not has_dropout(UNet(**arguments))  # type: ignore[arg-type]
    assert has_dropout(UNet(**arguments, dropout=0.1))  # type: ignore[arg-type]
    assert has_dropout(nn.Sequential(nn.Dropout(0.1)))
