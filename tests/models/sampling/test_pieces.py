"""Pieces: every image has the bits that it has alone, however a batch is cut and on however many threads."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.sampling.pieces import Pieces, one_each
from models.score import ScoreModel


class Network:
    """Doubles its first argument and adds the second, and remembers what it saw."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.threads: set[int] = set()
        self.openmp: set[int] = set()

    def __call__(self, x: Tensor, conditions: Tensor) -> Tensor:
        self.widths.append(len(x))
        self.threads.add(threading.get_ident())
        self.openmp.add(torch.get_num_threads())
        return 2 * x + conditions[:, :1, None, None]


def batch(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 1, 4, 4, generator=generator), torch.randn(n, 3, generator=generator)


@given(st.integers(1, 40), st.integers(1, 7), st.none() | st.integers(1, 9), st.none() | st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_function_of_a_batch_is_that_of_its_images(
    n: int, threads: int, width: int | None, pinned: int | None
) -> None:
    network = Network()
    pieces = Pieces(network, threads, width, pinned)
    x, conditions = batch(n)
    assert torch.equal(pieces(x, conditions), 2 * x + conditions[:, :1, None, None])
    assert sum(network.widths) == pieces.evaluated(n)
    if pinned is not None:
        assert set(network.widths) == {pinned}
    elif n > 1:
        assert min(network.widths) >= 2
    if pinned is None and width is not None:
        assert max(network.widths) <= max(width, 3)


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_is_done_beside_is_done_once_and_before_the_end(n: int, threads: int) -> None:
    done: list[int] = []
    chores = [lambda number=number: done.append(number) for number in range(3)]
    x, conditions = batch(n)
    found = Pieces(Network(), threads)(x, conditions, beside=chores)
    assert torch.equal(found, 2 * x + conditions[:, :1, None, None])
    assert sorted(done) == [0, 1, 2]


def test_what_is_done_beside_does_not_wait_for_the_network() -> None:
    met = threading.Barrier(2)

    def wait(x: Tensor, conditions: Tensor) -> Tensor:
        met.wait(60)
        return x

    Pieces(wait, 2)(*batch(1), beside=[lambda: met.wait(60)])


def test_what_fails_beside_is_raised() -> None:
    def fail() -> None:
        raise ValueError("no noise")

    for threads in (1, 3):
        with pytest.raises(ValueError, match="no noise"):
            Pieces(Network(), threads)(*batch(6), beside=[fail])


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_each_thread_has_one_openmp_thread(threads: int) -> None:
    met = threading.Barrier(threads)  # all pieces are under way at a time: none waits for another to be done
    network = Network()

    def together(x: Tensor, conditions: Tensor) -> Tensor:
        met.wait(60)
        return network(x, conditions)

    with one_each():
        Pieces(together, threads)(*batch(2 * threads))
    assert len(network.threads) == threads
    assert network.openmp == {1}


def test_what_fails_in_any_piece_is_raised_once_all_have_ended() -> None:
    ended = []

    def fail(x: Tensor, conditions: Tensor) -> Tensor:
        try:
            if bool((x == 7).any()):
                raise ValueError("seven")
            return x + conditions[:, :1, None, None]
        finally:
            ended.append(len(x))

    for place in (0, 15):
        x, conditions = batch(16)
        x[place] = 7
        with pytest.raises(ValueError, match="seven"):
            Pieces(fail, 4)(x, conditions)
    assert torch.equal(Pieces(fail, 4)(*batch(8)), batch(8)[0] + batch(8)[1][:, :1, None, None]), "and goes on"


def test_torch_has_its_threads_again_afterwards() -> None:
    before = torch.get_num_threads()
    with one_each() as had:
        assert (had, torch.get_num_threads()) == (before, 1)
    assert torch.get_num_threads() == before


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 16), st.integers(1, 5), st.none() | st.integers(2, 8))
def test_a_network_gives_an_image_the_same_bits_on_any_number_of_threads(
    tiny_model: ScoreModel, n: int, threads: int, width: int | None
) -> None:
    x = torch.randn(16, *tiny_model.image.chw, generator=torch.Generator().manual_seed(0))[:n]
    conditions = torch.stack([tiny_model.condition(0.1 + i) for i in range(n)])
    with one_each():
        found = Pieces(tiny_model.conditioned_score, threads, width)(x, conditions)
        alone = torch.cat([tiny_model.conditioned_score(x[i : i + 1], conditions[i : i + 1]) for i in range(n)])
    assert torch.equal(found, alone)
