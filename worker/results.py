"""Images of finished jobs: written by workers, read by the service. Torch-free."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from redis import Redis

from models.images import Pixels
from worker import shards
from worker.queue import Job, JobNotFound

PIECE_BYTES = 2**18  # read from Redis at a time


def encode(images: Pixels) -> bytes:
    """The bytes under which a shard's images uint8 [n, h, w, c] are stored."""
    return np.ascontiguousarray(images).tobytes()


class Results:
    """The images of finished jobs, until their time to live ends."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection

    def images(self, job: Job) -> Pixels:
        """All images of a finished job, uint8 [count, h, w, c].

        Raises:
            JobNotFound: they are gone.
        """
        return self._read(job, range(job.shards))

    def pieces(self, job: Job) -> Iterator[Pixels]:
        """All images of a finished job, uint8 [n, h, w, c] at a time, so that the whole need not be in memory.

        Raises:
            JobNotFound: they are gone.
        """
        at_once = max(1, PIECE_BYTES // (job.shard_size * job.image.size))
        for first in range(0, job.shards, at_once):
            yield self._read(job, range(first, min(first + at_once, job.shards)))

    def image(self, job: Job, index: int) -> Pixels:
        """One image of a finished job, uint8 [h, w, c].

        Raises:
            JobNotFound: it is gone.
            IndexError: the job has no such image.
        """
        if not 0 <= index < job.request.count:
            raise IndexError(f"job {job.id} has images 0 to {job.request.count - 1}")
        number, offset = divmod(index, job.shard_size)
        image: Pixels = self._read(job, range(number, number + 1))[offset]
        return image

    def _read(self, job: Job, numbers: range) -> Pixels:
        stored: Any = self.connection.hmget(shards.images_key(job.id), [str(number) for number in numbers])
        if any(part is None for part in stored):
            raise JobNotFound(job.id)
        images: Pixels = np.frombuffer(b"".join(stored), dtype=np.uint8)
        return images.reshape(-1, job.image.height, job.image.width, job.image.channels)
