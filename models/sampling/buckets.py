"""Buckets: a function of batches that is run at few widths only, so that each can be recorded once and replayed.

A small network on a GPU waits for the host most of its time, which starts its kernels one by one. A CUDA graph holds
them all and is started as one, but it holds the addresses and the shapes of its tensors too. Hence the static buffers,
and a graph for each of a few widths.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.sampling.memory import out_of_memory

log = logging.getLogger(__name__)

Call = Callable[[], Tensor]
Capture = Callable[[Call], Call]  # what makes a call that does the same again, on the same tensors

# The width at which all is evaluated where widths change bits: the same for all workers, whatever slots they have. A
# CPU gains little by wide batches, a GPU much.
PINNED_WIDTHS = {"cpu": 4}
PINNED_WIDTH = 32
FAILED: list[torch.cuda.CUDAGraph] = []  # which torch may still look at when it records another, whoever does
WARM_UP_CALLS = 3  # libraries choose their algorithms, and take their memory, at the first calls


def pinned_width(device: torch.device) -> int:
    """The one width for a device."""
    return PINNED_WIDTHS.get(device.type, PINNED_WIDTH)


def bucket_widths(most: int) -> list[int]:
    """The widths of buckets, ascending: powers of two, from 8 on also the multiples between them, and `most` itself.

    None is 1: there convolutions take another path, and an image would have other bits.
    """
    found = {max(2, most)}
    width = 2
    while width < most:
        found |= {width} | ({width + width // 2} if width >= 8 and width + width // 2 < most else set())
        width *= 2
    return sorted(found)


def plain(call: Call) -> Call:
    """The capture of a device that has no graphs: the call itself."""
    return call


class CudaGraphs:
    """Records calls on a GPU. All share the memory that they need on the way, since they never run at once.

    Args:
        device: torch device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: torch.cuda.Stream | None = None  # the same for all, or they would share no memory

    def __call__(self, call: Call) -> Call:
        """A replay of `call`; its result lies in the same place each time, until any other is replayed.

        What cannot be recorded is called as it is.

        Raises:
            RuntimeError: there is no memory for it, as `out_of_memory` tells.
        """
        with torch.cuda.device(self.device):
            stream = torch.cuda.current_stream()
            side = self._stream = self._stream or torch.cuda.Stream()
            side.wait_stream(stream)
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_CALLS):
                    call()
            stream.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            torch._C._cuda_clearCublasWorkspaces()  # or the graph would use one that belongs to another graph's memory
            try:  # thread_local: the thread of the metrics may ask for the free memory meanwhile
                with torch.cuda.graph(graph, pool=self._pool, stream=side, capture_error_mode="thread_local"):
                    out = call()
            except RuntimeError as error:
                self._end_recording(graph)
                if out_of_memory(error):
                    raise
                log.warning("no CUDA graph, so each kernel is started alone: %s", error)
                return call
            finally:
                torch._C._cuda_clearCublasWorkspaces()  # what comes later must not use this graph's
                torch.cuda.set_stream(stream)  # a capture that fails may leave its own

        def replay() -> Tensor:
            with torch.cuda.device(self.device):
                graph.replay()
            return out

        return replay

    def _end_recording(self, graph: torch.cuda.CUDAGraph) -> None:
        """Leaves torch's allocator well after a recording that failed.

        Where CUDA itself refuses to end it, torch forgets to tell its allocator, which from then on refuses to empty
        its cache. Then what is recorded later has a pool and a stream of its own.
        """
        index = torch.cuda.current_device()
        try:
            torch._C._cuda_endAllocateToPool(index, self._pool)
        except RuntimeError:  # it was told, and nothing is left to do
            return
        torch._C._cuda_releasePool(index, self._pool)
        FAILED.append(graph)
        self._pool, self._stream = torch.cuda.graph_pool_handle(), None


class Bucketed:
    """A function of batches, seen through static buffers at the widths of buckets.

    A batch is filled up with zeros to the narrowest bucket that holds it, and what the function makes of these is
    thrown away.

    Args:
        function: tensors [n, ...] -> [n, ...]; what becomes of an image depends on its own rows alone.
        widths: ascending; the only n that the function is given.
        capture: what records it at a width.
    """

    def __init__(self, function: Callable[..., Tensor], widths: Sequence[int], capture: Capture) -> None:
        self.function, self.widths, self.capture = function, list(widths), capture
        self._buffers: list[Tensor] = []
        self._calls: dict[int, Call] = {}

    def __call__(self, *batch: Tensor) -> Tensor:
        """The function of a batch [n, ...], n at most the last width; the result is the caller's own."""
        n = len(batch[0])
        if not self._buffers:
            self._buffers = [given.new_zeros((self.widths[-1], *given.shape[1:])) for given in batch]
        width = self._recorded(n)
        for buffer, given in zip(self._buffers, batch, strict=True):
            buffer[:n] = given
            if n < width:
                buffer[n:width] = 0
        return self._calls[width]()[:n].clone()

    def record(self, *batch: Tensor) -> None:
        """Records all buckets, the widest first: those that are recorded later use its memory.

        Args:
            batch: any, as wide as the widest.
        """
        for width in reversed(self.widths.copy()):
            self(*(given[:width] for given in batch))

    def bucket(self, n: int) -> int:
        """Width of the narrowest bucket that holds n images, 0 < n <= the last width."""
        return next(width for width in self.widths if width >= n)

    def narrow(self, failed: int) -> int:
        """Gives up the bucket of a batch that memory did not last for, and wider ones; returns the widest left."""
        bucket = next((width for width in self.widths if width >= failed), failed)
        self.widths = [kept for kept in self.widths if kept < bucket] or [max(1, bucket // 2)]
        self._buffers, self._calls = [], {}
        return self.widths[-1]

    def _recorded(self, n: int) -> int:
        """Width of the bucket for n images. One that there is no memory for is given up, if there is a wider one."""
        width = self.bucket(n)
        if width not in self._calls:
            inputs = [buffer[:width] for buffer in self._buffers]
            try:
                self._calls[width] = self.capture(lambda: self.function(*inputs))
            except Exception as error:
                wider = [there for there in self._calls if there > width]
                if not (wider and out_of_memory(error)):
                    raise
                self.widths.remove(width)
                width = min(wider)
        return width


class Pace:
    """Keeps the host one step ahead of the device, and no further: what it is told then is soon done.

    Args:
        device: torch device; a CPU is never behind.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._ends: deque[torch.cuda.Event] = deque()

    def step(self) -> None:
        """A step has been handed to the device: waits for the end of the one before."""
        if self.device.type != "cuda":
            return
        end = torch.cuda.Event(blocking=True)
        end.record(torch.cuda.current_stream(self.device))
        self._ends.append(end)
        if len(self._ends) > 1:
            self._ends.popleft().synchronize()
