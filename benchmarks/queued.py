"""How long the queue takes for each step of a job's life: where little or much waits, and of few or many images.

A part of `benchmarks.growth`. Redis is real, and carries out what service and worker ask of it; no images are computed.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.system import SOCKET, server
from models.card import ImageShape
from models.samplers.ancestral import Ancestral
from worker.leases import Done, Leases
from worker.queue import shards
from worker.queue.job import Job
from worker.queue.jobs import JobQueue
from worker.queue.requests import SampleRequest
from worker.queue.results import encode
from worker.queue.server import connect
from worker.queue.settings import QueueSettings

EVALUATIONS = 5  # of each image
IMAGE = ImageShape(channels=1, height=8, width=8)
PIXELS = 8, 8, 1
CLIENTS = 100  # whose jobs wait
SLOTS = 1  # that are free in the worker, which takes one shard
LEASE_SECONDS = 60


class Life:
    """Jobs that are accepted, asked for, taken, begun, told of, written down and cancelled; each of that is timed.

    Args:
        queue: that they are in.
        images: of each.
    """

    def __init__(self, queue: JobQueue, images: int) -> None:
        self.queue, self.images = queue, images
        worker: Any = SimpleNamespace(name="growth", key="rq:worker:growth")
        self.leases = Leases(queue, worker, LEASE_SECONDS)
        self.taken: dict[str, list[float]] = {}

    def accept(self, client: int) -> Job:
        """A job of the same images for each client."""
        sampler = Ancestral(name="ancestral", levels=EVALUATIONS, sigma_max=10.0, sigma_min=0.01)
        request = SampleRequest(model="small", version=1, count=self.images, seed=client, sampler=sampler)
        steps = EVALUATIONS * self.images
        return self.queue.accept(self.queue.offer(request, IMAGE, steps, f"client {client % CLIENTS}"))

    def one(self, number: int) -> None:
        """One job comes, and the one whose turn it is goes."""
        room = {"small": float(EVALUATIONS * SLOTS)}
        with self._timed("accept"):
            job = self.accept(number)
        with self._timed("GET /jobs/ID"):
            self.queue.outlook(self.queue.get(job.id))
        with self._timed("take"):
            rq_ids = shards.take(self.queue.rq, None, SLOTS, room)
        with self._timed("start"):
            lease = self.leases.start(rq_ids, held=()).leases[0]
        with self._timed("beat"), self.queue.connection.pipeline(transaction=False) as pipeline:
            lease.report(EVALUATIONS, pipeline, sigma=1.0, seconds=LEASE_SECONDS)
            pipeline.execute()
        count = lease.shard.count
        done = Done(lease, (encode(np.zeros((count, *PIXELS), np.uint8)), b""), EVALUATIONS * count)
        with self._timed("store"):
            self.leases.finish([done])
        waits = self.accept(number)
        with self._timed("cancel"):
            self.queue.cancel(waits.id)
        for rq_id in rq_ids:
            begun = self.queue.get(rq_id.rpartition("-")[0])
            if not begun.state.final:
                self.queue.cancel(begun.id)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.taken.setdefault(what, []).append(time.perf_counter() - begun)

    def milliseconds(self) -> dict[str, float]:
        """The median of each."""
        return {what: 1e3 * median(seconds) for what, seconds in self.taken.items()}


@contextmanager
def _queue() -> Iterator[JobQueue]:
    """An empty queue in a Redis of its own."""
    with tempfile.TemporaryDirectory() as directory:
        valkey = server(Path(directory))
        valkey.start()
        url = f"unix://{directory}/{SOCKET}"
        connection = connect(url, timeout=60, attempts=3)
        try:
            yield JobQueue(connection, QueueSettings(redis_url=url))
        finally:
            connection.close()
            valkey.stop()


def waiting(counts: Sequence[int], repeat: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each step in the life of a job of one image, where so many wait, of a hundred clients."""
    found = {}
    for count in counts:
        with _queue() as queue:
            life = Life(queue, 1)
            for number in range(count - 1):
                life.accept(number)
            for number in range(repeat):
                life.one(number)
            begun = time.perf_counter()
            queue.depth()
            found[str(count)] = {**life.milliseconds(), "depth": 1e3 * (time.perf_counter() - begun)}
    return found


def images(counts: Sequence[int], repeat: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each step in the life of a job of so many images, of which one shard is done."""
    found = {}
    for count in counts:
        with _queue() as queue:
            life = Life(queue, count)
            for number in range(repeat):
                life.one(number)
            found[str(count)] = life.milliseconds()
    return found
