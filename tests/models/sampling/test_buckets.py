import pytest
import torch
from torch import Tensor

from models.sampling.buckets import Bucketed, Call, Pace, bucket_widths, plain


class Recorder:
    """A capture as a CUDA graph is one: what was called once is repeated on the same tensors, into the same place."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.replayed: list[int] = []

    def __call__(self, call: Call) -> Call:
        out = call()
        self.recorded.append(len(out))

        def replay() -> Tensor:
            self.replayed.append(len(out))
            return out.copy_(call())

        return replay


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, [2]),
        (2, [2]),
        (3, [2, 3]),
        (8, [2, 4, 8]),
        (16, [2, 4, 8, 12, 16]),
        (20, [2, 4, 8, 12, 16, 20]),
        (64, [2, 4, 8, 12, 16, 24, 32, 48, 64]),
    ],
)
def test_buckets_are_powers_of_two_some_between_and_the_widest(most: int, expected: list[int]) -> None:
    assert bucket_widths(most) == expected


def test_a_batch_goes_through_the_narrowest_bucket_that_holds_it_and_each_is_recorded_once() -> None:
    recorder = Recorder()
    doubled = Bucketed(lambda x, y: 2 * x + y, [2, 4, 8], recorder)
    for n in (1, 2, 3, 4, 5, 8, 3, 1):
        x, y = torch.randn(n, 3), torch.randn(n, 1)
        assert torch.equal(doubled(x, y), 2 * x + y)
    assert recorder.recorded == [2, 4, 8]
    assert recorder.replayed == [2, 2, 4, 4, 8, 8, 4, 2]


def test_the_function_sees_the_same_tensors_each_time_filled_up_with_zeros() -> None:
    seen: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        seen.append(x)
        return x + 1

    bucketed = Bucketed(function, [4], plain)
    bucketed(torch.full((4, 2), float("nan")))
    bucketed(torch.ones(3, 2))
    assert seen[0].data_ptr() == seen[1].data_ptr()
    assert seen[1].tolist() == [[1, 1]] * 3 + [[0, 0]]


def test_a_result_is_kept_when_the_next_is_made() -> None:
    bucketed = Bucketed(lambda x: 2 * x, [2, 4], Recorder())
    first = bucketed(torch.ones(2))
    bucketed(torch.zeros(2))
    bucketed(torch.zeros(4))
    assert first.tolist() == [2, 2]


def test_narrowed_it_records_anew_at_what_is_left() -> None:
    recorder = Recorder()
    bucketed = Bucketed(lambda x: 2 * x, [2, 4, 8], recorder)
    bucketed(torch.ones(8))
    assert bucketed.narrow(5) == 4
    assert bucketed(torch.ones(3)).tolist() == [2] * 3
    assert bucketed.narrow(1) == 1
    assert bucketed(torch.ones(1)).tolist() == [2]
    assert recorder.recorded == [8, 4, 1]


def test_narrowed_the_next_bucket_below_the_one_that_failed_is_the_widest() -> None:
    bucketed = Bucketed(lambda x: 2 * x, bucket_widths(16), plain)
    assert bucketed.narrow(9) == 8, "9 images were in the bucket of 12"
    assert bucketed(torch.ones(8)).tolist() == [2] * 8


def test_a_bucket_without_memory_is_given_up_for_a_wider_one_that_there_is() -> None:
    recorder, short = Recorder(), True

    def capture(call: Call) -> Call:
        if short:
            raise torch.OutOfMemoryError
        return recorder(call)

    bucketed = Bucketed(lambda x: 2 * x, [2, 4, 8], capture)
    with pytest.raises(torch.OutOfMemoryError):
        bucketed(torch.ones(3))
    short = False
    bucketed(torch.full((8,), 5.0))
    short = True
    assert bucketed(torch.ones(3)).tolist() == [2] * 3
    assert bucketed.widths == [2, 8]
    assert recorder.replayed == [8, 8]


def test_all_buckets_are_recorded_at_once_the_widest_first() -> None:
    recorder = Recorder()
    bucketed = Bucketed(lambda x: 2 * x, [2, 4, 8], recorder)
    bucketed.record(torch.zeros(8))
    assert recorder.recorded == [8, 4, 2]


def test_a_cpu_is_never_waited_for() -> None:
    pace = Pace(torch.device("cpu"))
    for _ in range(3):
        pace.step()
