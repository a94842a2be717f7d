"""Images of finished jobs: written by workers, read by the service. Torch-free."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from redis import Redis

from models.images import Pixels
from worker.queue import keys
from worker.queue.job import Job, JobNotFound

PIECE_BYTES = 2**18  # read from Redis at a time
MAX_PREVIEW, MAX_PREVIEW_BYTES = 64, 2**20  # of a job: images, and their pixels


def previewed(job: Job) -> int:
    """How many of a job's images, from the first on, are shown while they are made."""
    return min(job.request.count, MAX_PREVIEW, max(1, MAX_PREVIEW_BYTES // job.image.size))


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

    def frames(self, job: Job) -> Pixels:
        """What all images of a finished job looked like on their way, uint8 [count, frames, h, w, c]; the last: done.

        Raises:
            JobNotFound: they are gone, or there are none.
        """
        shape = job.request.count, -1, job.image.height, job.image.width, job.image.channels
        images = self.images(job).reshape(shape)
        if job.request.frames == 1:
            return images
        numbers = [str(number) for number in range(job.shards)]
        stored: Any = self.connection.hmget(keys.of(job.id, "frames"), numbers)
        if any(part is None for part in stored):
            raise JobNotFound(job.id)
        return np.concatenate([np.frombuffer(b"".join(stored), np.uint8).reshape(shape), images], axis=1)

    def previews(self, job: Job) -> tuple[Pixels, Pixels]:
        """What the first images of a job are expected to look like, and what they look like by now, noise and all.

        Each is uint8 [n, h, w, c]; black where nothing is begun.
        """
        numbers = [str(number) for number in range(-(-previewed(job) // job.shard_size))]
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.hmget(keys.of(job.id, "images"), numbers)
            pipeline.hmget(keys.of(job.id, "previews"), numbers)
            pipeline.hmget(keys.of(job.id, "chains"), numbers)
            images, estimates, chains = pipeline.execute()
        return _shown(job, images, estimates), _shown(job, images, chains)

    def _read(self, job: Job, numbers: range) -> Pixels:
        stored: Any = self.connection.hmget(keys.of(job.id, "images"), [str(number) for number in numbers])
        if any(part is None for part in stored):
            raise JobNotFound(job.id)
        images: Pixels = np.frombuffer(b"".join(stored), dtype=np.uint8)
        return images.reshape(-1, job.image.height, job.image.width, job.image.channels)


def _shown(job: Job, images: Sequence[bytes | None], others: Sequence[bytes | None]) -> Pixels:
    """The first images of a job, uint8 [n, h, w, c]: of each shard those that are done, or else the others."""
    out = np.zeros((previewed(job), job.image.height, job.image.width, job.image.channels), np.uint8)
    for number, (done, other) in enumerate(zip(images, others, strict=True)):
        if (pixels := done or other) is not None:
            shown = np.frombuffer(pixels, np.uint8).reshape(-1, *out.shape[1:])
            part = out[number * job.shard_size :][: job.shard_size]
            part[: len(shown)] = shown[: len(part)]
    return out
