"""Images of finished jobs: written by workers, read by the service. Torch-free.

What a shard has made is in Redis, or in the store that its job names, and then Redis has what it was put under.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from redis import Redis

from models.images import Pixels
from worker.queue import keys
from worker.queue.job import Job, JobNotFound
from worker.queue.stores import Damaged, StoreAway, Stores, is_reference

PIECE_BYTES, AT_ONCE = 2**18, 256  # read from Redis at a time: pixels, and shards
AHEAD, AHEAD_BYTES = 8, 2**23  # of a store that are on their way while one object is used: objects, and their bytes
READERS = 8 * AHEAD  # at once: where a store answers slowly, as many clients as that wait without holding up others
CACHE_BYTES = 2**24  # of objects that are kept, since an image or a preview is part of one
MAX_PREVIEW, MAX_PREVIEW_BYTES = 64, 2**20  # of a job: images, and their pixels
Made = Literal["images", "frames"]


def previewed(job: Job) -> int:
    """How many of a job's images, from the first on, are shown while they are made."""
    return min(job.request.count, MAX_PREVIEW, max(1, MAX_PREVIEW_BYTES // job.image.size))


def encode(images: Pixels) -> bytes:
    """The bytes under which a shard's images uint8 [n, h, w, c] are stored."""
    return np.ascontiguousarray(images).tobytes()


@dataclass(frozen=True, slots=True)
class Range:
    """Which images of its job a shard has: `count` of them, from image `first` on."""

    number: int
    first: int
    count: int


class Results:
    """The images of finished jobs, until their time to live ends.

    What a store has may raise, besides what is said below, StoreAway and Damaged.

    Args:
        connection: to the Redis of the queue.
        stores: those that jobs name.
    """

    def __init__(self, connection: Redis, stores: Stores | None = None) -> None:
        self.connection, self.stores = connection, stores or Stores()
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._on_their_way: Counter[str] = Counter()  # objects, of each client
        self._cache: OrderedDict[tuple[str, int, bytes], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def images(self, job: Job) -> Pixels:
        """All images of a finished job, uint8 [count, h, w, c].

        Raises:
            JobNotFound: they are gone.
        """
        return self._shaped(job, b"".join(self._read(job, "images")))

    def pieces(self, job: Job) -> Iterator[Pixels]:
        """All images of a finished job, uint8 [n, h, w, c] at a time, so that the whole need not be in memory.

        Raises:
            JobNotFound: they are gone.
        """
        return (self._shaped(job, piece) for piece in self._read(job, "images"))

    def image(self, job: Job, index: int) -> Pixels:
        """One image of a finished job, uint8 [h, w, c].

        Raises:
            JobNotFound: it is gone.
            IndexError: the job has no such image.
        """
        if not 0 <= index < job.request.count:
            raise IndexError(f"job {job.id} has images 0 to {job.request.count - 1}")
        before = self._ranges(job, range(index // job.shard_size + 1))  # no shard but the last has fewer images
        shard = next(shard for shard in reversed(before) if shard.first <= index)
        value: Any = self.connection.hget(keys.of(job.id, "images"), str(shard.number))
        image: Pixels = self._shaped(job, self._cached(job, shard.number, value))[index - shard.first]
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
        stored = b"".join(self._read(job, "frames"))
        return np.concatenate([np.frombuffer(stored, np.uint8).reshape(shape), images], axis=1)

    def previews(self, job: Job) -> tuple[Pixels, Pixels]:
        """What the first images of a job are expected to look like, and what they look like by now, noise and all.

        Each is uint8 [n, h, w, c]; black where nothing is begun.
        """
        count = previewed(job)
        shown = [shard for shard in self._ranges(job, range(count)) if shard.first < count]
        numbers = [str(shard.number) for shard in shown]
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.hmget(keys.of(job.id, "images"), numbers)
            pipeline.hmget(keys.of(job.id, "previews"), numbers)
            pipeline.hmget(keys.of(job.id, "chains"), numbers)
            images, estimates, chains = pipeline.execute()
        done: list[bytes | None] = [None] * len(shown)
        for place, (shard, value) in enumerate(zip(shown, images, strict=True)):
            with suppress(StoreAway, Damaged, JobNotFound):  # who looks on gets what there is
                done[place] = value and self._cached(job, shard.number, value)
        return _shown(job, shown, done, estimates), _shown(job, shown, done, chains)

    def _ranges(self, job: Job, numbers: range) -> list[Range]:
        """The images of the shards with these numbers, as far as there are any; in order, as the numbers are.

        Of what a release before wrote down all shards have the same number of images, and it is not said.

        Raises:
            JobNotFound: it is gone.
        """
        if job.shards == 1:  # which has them all
            return [Range(0, 0, job.request.count)][numbers.start : numbers.stop]
        size, there = job.shard_size, numbers[: max(0, job.shards - numbers.start)]
        stored: Any = self.connection.hmget(keys.of(job.id, "ranges"), [str(n) for n in there]) if there else []
        if not any(stored):
            return [Range(number, number * size, min(size, job.request.count - number * size)) for number in there]
        if None in stored:
            raise JobNotFound(job.id)
        return [Range(number, *map(int, part.split())) for number, part in zip(there, stored, strict=True)]

    def _shaped(self, job: Job, pixels: bytes) -> Pixels:
        images: Pixels = np.frombuffer(pixels, dtype=np.uint8)
        return images.reshape(-1, job.image.height, job.image.width, job.image.channels)

    def _read(self, job: Job, made: Made) -> Iterator[bytes]:
        """What all shards have made, in the order of their images, some at a time."""
        for begin in range(0, job.shards, AT_ONCE):
            shards = self._ranges(job, range(begin, begin + AT_ONCE))
            largest = max(shard.count for shard in shards) * (job.bytes // job.request.count)
            for numbers in self._batches(job, shards):
                stored: Any = self.connection.hmget(keys.of(job.id, made), [str(number) for number in numbers])
                if None in stored:
                    raise JobNotFound(job.id)
                if any(map(is_reference, stored)):
                    yield from self._ahead(job, numbers, stored, max(1, min(AHEAD, AHEAD_BYTES // largest)))
                else:
                    yield b"".join(stored)

    def _batches(self, job: Job, shards: Sequence[Range]) -> Iterator[list[int]]:
        """The numbers of shards, as many at a time as one answer of Redis may have the pixels of."""
        some: list[int] = []
        size = 0
        for shard in shards:
            bytes_of = shard.count * job.image.size if job.store is None else 0
            if some and size + bytes_of > PIECE_BYTES:
                yield some
                some, size = [], 0
            some.append(shard.number)
            size += bytes_of
        yield some

    def _ahead(self, job: Job, numbers: Sequence[int], stored: Sequence[bytes], most: int) -> Iterator[bytes]:
        """What values of Redis stand for, one by one; as many more are asked for while one is used.

        Whatever else its client reads, one always is.
        """
        waiting = deque(zip(numbers, stored, strict=True))
        coming: deque[Future[bytes]] = deque()
        try:
            while waiting or coming:
                while waiting and len(coming) < most and self._may_ask(job.client, not coming):
                    coming.append(self._readers.submit(self._found, job, *waiting.popleft()))
                    coming[-1].add_done_callback(partial(self._came, job.client))
                yield coming.popleft().result()
        finally:
            for one in coming:
                one.cancel()

    def _may_ask(self, client: str, now: bool) -> bool:
        """Whether one object more may be on its way to a client, which is then counted; one that is used now may."""
        with self._lock:
            may = now or self._on_their_way[client] < AHEAD
            self._on_their_way[client] += may
            return may

    def _came(self, client: str, _: Future[bytes]) -> None:
        with self._lock:
            self._on_their_way[client] -= 1
            if not self._on_their_way[client]:
                del self._on_their_way[client]

    def _found(self, job: Job, number: int, value: bytes | None) -> bytes:
        """What a value of Redis stands for.

        Raises:
            JobNotFound: it is gone.
        """
        if value is None:
            raise JobNotFound(job.id)
        if not is_reference(value) or job.store is None:
            return value
        try:
            return self.stores.get(job.store, job.id, number, value)
        except FileNotFoundError as error:
            raise JobNotFound(job.id) from error

    def _cached(self, job: Job, number: int, value: bytes | None) -> bytes:
        """The same, for who will soon ask again for what is near."""
        if value is None or not is_reference(value):
            return self._found(job, number, value)
        name = job.id, number, value
        with self._lock:
            if name in self._cache:
                self._cache.move_to_end(name)
                return self._cache[name]
        found = self._found(job, number, value)
        with self._lock:
            self._cache[name] = found
            while sum(map(len, self._cache.values())) > CACHE_BYTES and len(self._cache) > 1:
                self._cache.popitem(last=False)
        return found


def _shown(job: Job, shards: Sequence[Range], images: Sequence[bytes | None], others: Sequence[bytes | None]) -> Pixels:
    """The first images of a job, uint8 [n, h, w, c]: of each shard those that are done, or else the others."""
    out = np.zeros((previewed(job), job.image.height, job.image.width, job.image.channels), np.uint8)
    for shard, done, other in zip(shards, images, others, strict=True):
        if (pixels := done or other) is not None:
            shown = np.frombuffer(pixels, np.uint8).reshape(-1, *out.shape[1:])
            part = out[shard.first : shard.first + shard.count]
            part[: len(shown)] = shown[: len(part)]
    return out
