"""Pieces: a batch on a CPU, cut so that every core evaluates images of its own.

A network is hundreds of small operations. Shared among the threads of one operation, each of them ends with a barrier,
which costs more than the second core saves. Cut into pieces, one thread each, a batch has one barrier; and since an
image's bits do not depend on the width of its batch, they do not depend on the number of threads either.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise

import torch
from torch import Tensor

LEAST = 2  # images of a piece: convolutions take another path for one, which costs as much as two


class Pieces:
    """A function of batches, evaluated in pieces on threads.

    Args:
        function: tensors [n, ...] -> [n, ...] like the first; what becomes of an image depends on its own rows alone.
        threads: on which pieces are evaluated, this one included. Torch should have one for itself: see `one_each`.
        width: most images of a piece, or one more where one would be left; by default a batch is cut into as many
            pieces as there are threads.
        pinned: the only width at which the function is evaluated: every piece has it, the last is filled up. None where
            all widths give an image the same bits.
    """

    def __init__(
        self, function: Callable[..., Tensor], threads: int = 1, width: int | None = None, pinned: int | None = None
    ) -> None:
        self.function, self.threads, self.width, self.pinned = function, threads, width, pinned

    def __call__(self, *batch: Tensor, beside: Sequence[Callable[[], None]] = ()) -> Tensor:
        """The function of a batch [n, ...].

        Args:
            batch: what it is a function of.
            beside: more to be done meanwhile, each on any thread.

        Raises:
            Exception: whatever the function or what is done beside raises, once no thread is at work any more.
        """
        cuts = self._cuts(len(batch[0]))
        if len(cuts) == 2 and not (beside and self.threads > 1):
            for chore in beside:
                chore()
            return self._filled_up(*batch)
        out = torch.empty_like(batch[0])

        def evaluate(begin: int, end: int) -> None:
            out[begin:end] = self._filled_up(*(rows[begin:end] for rows in batch))

        todo: deque[Callable[[], None]] = deque(
            [*(partial(evaluate, *piece) for piece in pairwise(cuts)), *beside]
        )  # the longest first

        @torch.inference_mode()  # each thread has a mode of its own
        def work() -> None:
            while todo:
                try:
                    task = todo.popleft()
                except IndexError:  # another thread took the last
                    return
                task()

        others: list[Future[None]] = []
        try:
            others += [_pool(self.threads - 1).submit(work) for _ in range(min(self.threads, len(todo)) - 1)]
            work()
        finally:
            todo.clear()
            wait(others)
        for other in others:
            other.result()
        return out

    def evaluated(self, n: int) -> int:
        """How many images the function sees for a batch of n."""
        return n if self.pinned is None else -(-n // self.pinned) * self.pinned

    def _cuts(self, n: int) -> list[int]:
        """Where pieces begin, and n."""
        if self.pinned is not None:
            return [*range(0, n, self.pinned), n]
        count = min(max(self.threads, -(-n // (self.width or n))), max(1, n // LEAST))
        return [n * number // count for number in range(count + 1)]

    def _filled_up(self, *batch: Tensor) -> Tensor:
        n = len(batch[0])
        if self.pinned is None or n == self.pinned:
            return self.function(*batch)
        return self.function(*(torch.cat([rows, rows[:1].expand(self.pinned - n, *rows.shape[1:])]) for rows in batch))[
            :n
        ]


@contextmanager
def one_each() -> Iterator[int]:
    """Lets torch use one thread in each of ours meanwhile; yields how many it had for an operation before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that share no operation with each other; they end with the process."""
    return ThreadPoolExecutor(threads, "pieces", initializer=torch.set_num_threads, initargs=(1,))
